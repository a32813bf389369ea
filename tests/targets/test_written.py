"""What Compose copied into a container is told from what was written there; what cannot be told is said."""

from __future__ import annotations

import pytest

from sidecar.targets.written import (
    File,
    Written,
    candidates,
    has_own_files,
    left_behind,
    may_have_copies,
    sort_out,
    time_of_copy,
    why_unclear,
)
from tests.targets.inspects import container, volume

CREATED, STARTED = "2026-11-24T10:00:00.7Z", "2026-11-24T12:00:00.9Z"
LATER = "2026-11-24T11:00:00Z"
NEVER = "0001-01-01T00:00:00Z"
OF_COMPOSE = {"Labels": {"com.docker.compose.service": "web"}}
FOLDER, LINK = 1 << 31, 1 << 27


def made(started=STARTED):
    return container(config=OF_COMPOSE, Created=CREATED, State={"StartedAt": started})


def file(modified, *, path="/etc/app.conf", mode=0o644, size_bytes=9, is_added=True):
    return File(path=path, is_added=is_added, size_bytes=size_bytes, mode=mode, modified=modified)


def sorted_out(one, *, started=STARTED, image=None):
    return sort_out(made(started), image or {}, [one])


COPIED, UNCLEAR, OWN = Written(copied=("/etc/app.conf",)), Written(unclear=("/etc/app.conf",)), Written()


@pytest.mark.parametrize(
    "modified, mode, wanted",
    [
        ("2026-11-24T10:00:00Z", 0o644, COPIED),  # rounded down
        ("2026-11-24T10:00:01Z", 0o444, COPIED),  # just after the creation
        ("2026-11-24T12:00:01Z", 0o644, COPIED),  # just before the start, rounded up
        ("2026-11-24T11:59:55Z", 0o644, COPIED),
        ("2026-11-24T13:00:00+01:00", 0o644, COPIED),  # another way to write the time of the start
        (LATER, 0o440, COPIED),  # before an earlier start
        (LATER, 0o644, UNCLEAR),  # or unpacked
        ("2026-11-24T09:55:00Z", 0o444, UNCLEAR),  # the clock of another machine, or old
        ("2026-11-24T12:05:00Z", 0o444, UNCLEAR),
        ("2026-11-24T09:00:00Z", 0o444, OWN),  # as old as the archive that it was in
        ("2026-11-24T13:00:00Z", 0o444, OWN),
        ("2026-11-24T10:00:01.25Z", 0o444, OWN),  # a process wrote it
        (LATER, 0o444 | FOLDER, OWN),
        (LATER, 0o777 | LINK, OWN),
    ],
)
@pytest.mark.parametrize("is_added", [True, False])
def test_the_time_of_change_tells_copies_from_the_rest(modified, mode, wanted, is_added):
    """Row 35: Compose writes whole seconds of the moment of a creation or a start, over a file of the image too."""
    assert sorted_out(file(modified, mode=mode, is_added=is_added)) == wanted


@pytest.mark.parametrize("modified, wanted", [("2026-11-24T09:59:00Z", UNCLEAR), ("2026-11-24T23:00:00Z", COPIED)])
def test_in_a_container_that_never_ran_nobody_has_written(modified, wanted):
    """Row 35: before its first start only a client can have copied something into a container."""
    assert sorted_out(file(modified), started=NEVER) == wanted


def test_a_secret_is_copied_even_where_its_container_changed_it():
    """Row 35: what was put among the secrets is one, whenever it was changed."""
    secret = file("2026-11-24T11:00:00.5Z", path="/run/secrets/token")
    assert sorted_out(secret).copied == ("/run/secrets/token",)
    of_image = file("2026-11-24T11:00:00.5Z", path="/run/secrets/token", is_added=False)
    assert sorted_out(of_image) == OWN


def test_a_file_of_the_image_is_no_copy():
    """Row 35: one that the container only gave another owner is as old as the image, even if that is quite new."""
    touched = file("2026-11-24T09:58:00Z", is_added=False)
    assert sorted_out(touched, image={"Created": "2026-11-24T09:59:00Z"}) == OWN
    assert sorted_out(touched, image={"Created": "2026-11-24T09:00:00Z"}) == UNCLEAR


def test_nobody_writes_so_much_into_a_compose_file():
    """Row 35: what is larger than any variable or Compose file holds was written by the application."""
    assert sorted_out(file("2026-11-24T10:00:01Z", size_bytes=2 << 20)) == OWN


def test_only_a_container_of_compose_is_looked_into():
    """Row 35: to any other container nobody copies configs."""
    assert may_have_copies(made())
    assert not may_have_copies(container())
    assert not may_have_copies(container(config={"Labels": None}))


def test_what_is_worth_a_look_has_no_others_in_it():
    """Row 35: folders that something changed in, what is gone, and a cache with a crowd of files are not looked at."""
    crowd = [{"Path": f"/cache/{number}", "Kind": 1} for number in range(101)]
    changes = [
        {"Path": "/etc", "Kind": 0},
        {"Path": "/etc/own", "Kind": 0},
        {"Path": "/etc/new", "Kind": 1},
        {"Path": "/etc/gone", "Kind": 2},
        *crowd,
    ]
    assert candidates(changes) == [("/etc/new", True), ("/etc/own", False)]


def test_of_very_many_files_those_near_the_root_are_looked_at():
    """Row 35: a layer that holds a whole application is no reason to ask the engine about each of its files."""
    deep = [{"Path": f"/app/{number}/modules/one/file", "Kind": 1} for number in range(2000)]
    near = [{"Path": path, "Kind": 1} for path in ("/srv/app/a.conf", "/plain", "/run/secrets/of/token")]
    found = candidates([*deep, *near])
    assert len(found) == 1000
    assert [path for path, _ in found[:3]] == ["/run/secrets/of/token", "/plain", "/srv/app/a.conf"]


def test_a_copy_of_ours_is_known_for_one_again():
    """Row 35: the next update finds what this one copied, however long the new container ran in between."""
    assert time_of_copy(made()) == 1_795_514_401
    assert sorted_out(file("2026-11-24T10:00:01Z")) == COPIED


def test_the_reason_names_files_and_what_to_do():
    """Row 35: whoever reads why a container is held learns which files it is about, and how to go on."""
    said = why_unclear("web", ["/a", "/b", "/c", "/d"])
    assert "/a, /b, /c and 1 more" in said
    assert "docker compose up --detach --force-recreate" in said
    assert "whether /a is" in why_unclear("web", ["/a"])


@pytest.mark.parametrize(
    "paths, wanted",
    [
        ([], False),
        (["/data", "/place", "/etc", "/etc/app", "/etc/app/conf"], False),  # mounted there, worked in, copied
        (["/srv", "/srv/own"], True),
        (["/etc", "/etc/app", "/etc/app/conf", "/etc/own"], True),
        (["/run", "/run/volumes", "/run/volumes/one"], False),
    ],
)
def test_an_empty_layer_is_no_loss(paths, wanted):
    """Row 37: the places of volumes and what Compose copied are nothing of its own, though engines count them."""
    mounts = [volume("/data", "v"), volume("/run/volumes/one", "w")]
    inspected = container(config={"WorkingDir": "/place"}, Mounts=mounts)
    changes = [{"Path": path, "Kind": 1} for path in paths] + [{"Path": "/gone", "Kind": 2}]
    assert has_own_files(inspected, changes, copies=["/etc/app/conf"]) is wanted


@pytest.mark.parametrize(
    "size, said",
    [(5, "5 bytes"), (3 << 10, "3 KiB"), (7 << 20, "7 MiB"), ((3 << 30) // 2, "1.5 GiB")],
)
def test_what_is_lost_by_design_is_said_with_its_size(size, said):
    """Row 37: data outside of volumes stay with the old container, and the log says how much that is."""
    assert (
        left_behind("web", size) == f"{said} that web wrote outside of its volumes stay behind with the old container"
    )
