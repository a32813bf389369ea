"""What an engine says is read into Sidecar's words."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.image import Digest, ImageRef
from sidecar.core.policy import Policy
from sidecar.core.target import Health, Image, Kind, State
from sidecar.targets.containers import (
    Checked,
    base_name,
    detail_of,
    discover,
    health_of,
    image_of,
    is_image_id,
    own_container,
    own_name,
    parse_time,
    previous_reference,
    replacement_of,
    sharers,
    state_of,
    was_stopped,
    why_unmanaged,
)

Json = dict[str, Any]
HEX = "a" * 64
STARTED = "2026-01-02T03:04:05.123456789Z"


def entry(name: str = "web", image: str = "app:1", **labels: str) -> Json:
    """Make the entry of a labelled container in a list."""
    return {
        "Id": f"id-of-{name}",
        "Names": [f"/{name}"],
        "Image": image,
        "Labels": {"sidecar.enable": "true"} | {key.replace("__", "."): value for key, value in labels.items()},
    }


COMPOSE = {
    "com.docker.compose.project": "shop",
    "com.docker.compose.service": "web",
    "com.docker.compose.depends_on": "db:service_healthy:true,cache:service_started:false",
}


def found(*entries: Json, references: dict[str, str] | None = None, scope: str | None = None) -> list[Any]:
    return discover(entries, references or {}, default_enable=False, scope=scope)


def test_a_labelled_container_is_a_target() -> None:
    """Its name, its reference and its labels; those without the label are none."""
    unlabelled = entry("other") | {"Labels": None}
    (target,) = found(entry(), unlabelled)
    assert (target.id, target.kind, str(target.ref)) == ("docker:web", Kind.DOCKER, "docker.io/library/app:1")
    assert target.policy == Policy(enable=True)
    assert (target.project, target.service, target.refusal) == (None, "docker:web", None)


def test_compose_says_what_belongs_together() -> None:
    """Project, service and dependencies come from Compose's labels; ours add to them."""
    (target,) = found(
        entry("shop-web-1", **COMPOSE, sidecar__depends_x="")
        | {"Labels": {"sidecar.enable": "true", "sidecar.depends-on": "mail", **COMPOSE}}
    )
    assert (target.project, target.service) == ("shop", "docker:shop/web")
    assert target.depends_on == ("docker:shop/db", "docker:shop/cache", "docker:shop/mail")


def test_what_is_configured_counts_and_not_what_the_list_shows() -> None:
    """The list shows an image's id once its tag has moved on."""
    (target,) = found(entry(image=f"sha256:{HEX}"), references={"id-of-web": "app:1"})
    assert str(target.ref) == "docker.io/library/app:1"


def test_in_the_middle_of_a_rollout_there_is_one_target() -> None:
    """Candidate and parked one stand for the target, and what bears its name goes before them."""
    (target,) = found(entry("web.sidecar-old"), entry("web.sidecar-new"))
    assert target.id == "docker:web"
    new, other = entry("web.sidecar-new", image="app:2"), entry("web", image="app:1")
    for entries in ((new, other), (other, new)):
        (target,) = found(*entries)
        assert target.ref.tag == "1"


@pytest.mark.parametrize(
    "image, words",
    [
        (f"sha256:{HEX}", "it runs the image id sha256:aaaaaaaaaaaa"),
        ("abcdefabcdef", "it runs the image id"),
        (f"app@sha256:{HEX}", "is pinned to sha256:aaa"),
        ("NOT A REF", "reading an image reference"),
    ],
)
def test_what_can_have_nothing_newer_is_held_with_the_reason(image: str, words: str) -> None:
    """An id, a digest, or what cannot be read."""
    (target,) = found(entry(image=image))
    assert words in target.refusal


def test_a_wrong_label_holds_its_container_with_the_reason() -> None:
    """It is a target all the same, so that its owner hears of it."""
    (target,) = found(
        entry() | {"Labels": {"sidecar.enable": "true", "sidecar.deadline": "soon", "sidecar.scope": "x"}}, scope="x"
    )
    assert "sidecar.deadline='soon'" in target.refusal


def test_pull_only_is_an_image_target() -> None:
    """With the action pull nothing is recreated: the image is kept pulled, without a gate."""
    (target,) = found(entry() | {"Labels": {"sidecar.enable": "true", "sidecar.action": "pull"}})
    assert (target.id, target.kind) == ("image:docker.io/library/app:1", Kind.IMAGE)
    assert (target.policy.min_ready_seconds, target.policy.rollback) == (0, False)


def test_sidecar_does_not_replace_itself() -> None:
    """Its own container is held with the way to update it: stopping itself, it could not go on."""
    (own,) = discover([entry()], {}, default_enable=False, scope=None, own_id="id-of-web")
    assert "cannot stop itself" in own.refusal
    (other,) = discover([entry()], {}, default_enable=False, scope=None, own_id="id-of-another")
    assert other.refusal is None


def test_a_process_finds_the_container_that_it_runs_in() -> None:
    """By the files that the engine mounts from the container's folder; outside of one there are none."""
    line = f"1 2 0:1 /var/lib/docker/containers/{HEX}/hostname /etc/hostname rw - ext4 /dev/sda rw"
    assert own_container(f"0 1 0:1 / / rw - overlay overlay rw\n{line}\n") == HEX
    assert own_container("0 1 0:1 / / rw - ext4 /dev/sda rw\n") is None


@pytest.mark.parametrize(
    "labels, default_enable, scope, reason",
    [
        ({}, False, None, "label sidecar.enable is not true"),
        ({"sidecar.enable": "false"}, True, None, "label sidecar.enable is false"),
        ({"sidecar.enable": "true", "com.docker.compose.oneoff": "True"}, False, None, "docker compose run"),
        ({"sidecar.enable": "true", "sidecar.scope": "b"}, False, "a", "its scope is b, and that of this Sidecar a"),
        ({"sidecar.enable": "true"}, False, "a", "its scope is none"),
        ({"sidecar.enable": "true"}, False, None, None),
        ({}, True, None, None),
    ],
)
def test_what_is_left_alone_has_a_reason(
    labels: dict[str, str], default_enable: bool, scope: str | None, reason: str | None
) -> None:
    """The same rules say who is a target and why the others are none."""
    one = entry() | {"Labels": labels}
    said = why_unmanaged(one, default_enable=default_enable, scope=scope)
    assert (reason is None and said is None) or (reason is not None and said is not None and reason in said)
    assert bool(discover([one], {}, default_enable=default_enable, scope=scope)) is (reason is None)


@pytest.mark.parametrize(
    "name, labels, created, is_one",
    [
        ("0123456789ab_web", COMPOSE, 100, True),
        ("0123456789ab_web", COMPOSE, 99, False),
        ("0123456789ab_web", {}, 100, False),
        ("0123456789ab_other-web", COMPOSE, 100, False),
        ("my_web", COMPOSE, 100, False),
        ("web", COMPOSE, 100, False),
    ],
)
def test_what_compose_made_to_replace_a_container_is_known_by_its_name(
    name: str, labels: Json, created: int, is_one: bool
) -> None:
    """It is Compose's, newer than ours, and named by the short id of another one and the name it is to have."""
    listed = entry(name) | {"Labels": labels, "Created": created}
    assert replacement_of("web", [listed], since=100.9) == (listed["Id"] if is_one else None)
    assert replacement_of("web", [listed], since=None) is None


@pytest.mark.parametrize(
    "name, state, labels, is_passing",
    [
        ("0123456789ab_shop-web-1", "created", COMPOSE, True),
        ("0123456789ab_shop-web-1", "exited", COMPOSE, True),
        ("0123456789ab_shop-web-1", "running", COMPOSE, False),
        ("0123456789ab_shop-web-1", "created", {}, False),
        ("0123456789ab_", "created", COMPOSE, False),
        ("0123456789ab", "created", COMPOSE, False),
        ("0123456789_web", "created", COMPOSE, False),
        ("shop-web-1", "created", COMPOSE, False),
    ],
)
def test_what_compose_makes_for_a_moment_is_no_target(name: str, state: str, labels: Json, is_passing: bool) -> None:
    """While Compose recreates a container there is one more, which does not run; nothing is to be said of it."""
    listed = entry(name) | {"State": state, "Labels": {"sidecar.enable": "true", **labels}}
    assert found(listed) == [] if is_passing else len(found(listed)) == 1
    reason = why_unmanaged(listed, default_enable=False, scope=None)
    assert (reason is not None and "Compose recreates" in reason) is is_passing


def test_names_are_read_past_links_and_suffixes() -> None:
    """Links add names with more slashes; an entry without a name goes by its id."""
    assert own_name({"Names": ["/db/web", "/web"], "Id": "x"}) == "web"
    assert own_name({"Names": [], "Id": "abcdefghijklmnop"}) == "abcdefghijkl"
    assert base_name("web.sidecar-new") == base_name("web.sidecar-old") == base_name("web") == "web"


@pytest.mark.parametrize(
    "policy, status, error, was_it",
    [
        ("always", "exited", "", True),
        ("unless-stopped", "exited", "", True),
        ("on-failure", "exited", "", False),
        ("no", "exited", "", False),
        ("always", "restarting", "", False),
        ("always", "created", "", False),
        ("always", "exited", "driver failed programming external connectivity", False),
    ],
)
def test_what_the_engine_would_have_started_again_was_stopped(
    policy: str, status: str, error: str, was_it: bool
) -> None:
    """By somebody, unless its restart failed."""
    container = {"HostConfig": {"RestartPolicy": {"Name": policy}}, "State": {"Status": status, "Error": error}}
    assert was_stopped(container) is was_it


@pytest.mark.parametrize(
    "text, is_id",
    [(f"sha256:{HEX}", True), (HEX, True), ("abcdefabcdef", True), ("cafe", False), ("app:1", False), ("app", False)],
)
def test_an_image_id_is_told_from_a_reference(text: str, is_id: bool) -> None:
    """With its algorithm, or of an id's length in hexadecimal digits."""
    assert is_image_id(text) is is_id


def test_the_previous_image_has_a_tag_of_ours() -> None:
    """What cannot stand in a tag is replaced, and no tag is too long or empty."""
    assert previous_reference("web") == ("sidecar-previous", "web")
    assert previous_reference("ghcr.io/a/b:1")[1] == "ghcr.io_a_b_1"
    assert len(previous_reference("x" * 300)[1]) == 128
    assert previous_reference(".-")[1] == "_"


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T01:00:10.5+01:00", 10.5),
        ("1970-01-01T00:00:10.123456789Z", 10.123456),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        (None, None),
    ],
)
def test_times_of_the_engine_are_read(text: str | None, seconds: float | None) -> None:
    """Nanoseconds, offsets, and the zero time that means never."""
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "status, state",
    [
        ("running", State.RUNNING),
        ("paused", State.PAUSED),
        ("restarting", State.RESTARTING),
        ("created", State.CREATED),
        ("exited", State.EXITED),
        ("dead", State.EXITED),
        ("removing", State.EXITED),
    ],
)
def test_states_are_read(status: str, state: State) -> None:
    """Dead and half removed are as good as exited."""
    assert state_of({"State": {"Status": status}}) is state


def container(status: str = "running", check: Json | None = None, **state: object) -> Json:
    return {"State": {"Status": status, "StartedAt": STARTED, **state} | ({"Health": check} if check else {})}


def result(code: int, second: int) -> Json:
    return {"ExitCode": code, "End": f"1970-01-01T00:00:{second:02}Z", "Output": "no\n"}


@pytest.mark.parametrize(
    "shown, checked",
    [
        (container("exited"), Checked(health=Health.STARTING)),
        (container("restarting"), Checked(health=Health.STARTING)),
        (container(), Checked(health=Health.HEALTHY, since=parse_time(STARTED))),
        (container(check={"Status": "none"}), Checked(health=Health.HEALTHY, since=parse_time(STARTED))),
        (container(check={"Status": "starting", "Log": []}), Checked(health=Health.STARTING)),
        (container(check={"Status": "starting", "Log": [result(0, 1)]}), Checked(health=Health.STARTING)),
        (container(check={"Status": "unhealthy", "Log": [result(1, 1)]}), Checked(health=Health.UNHEALTHY)),
        (
            container(check={"Status": "healthy", "Log": [result(0, 1), result(0, 2)]}),
            Checked(health=Health.HEALTHY, since=1.0, is_unbroken=True),
        ),
        (
            container(check={"Status": "healthy", "Log": [result(0, 1), result(1, 2), result(0, 3), result(0, 4)]}),
            Checked(health=Health.HEALTHY, since=3.0),
        ),
        (container(check={"Status": "healthy", "Log": [result(0, 1), result(1, 2)]}), Checked(health=Health.STARTING)),
        (container(check={"Status": "healthy", "Log": None}), Checked(health=Health.STARTING)),
    ],
)
def test_health_is_the_unbroken_tail_of_successes(shown: Json, checked: Checked) -> None:
    """Without a check, staying up; with one, since the first success after the last failure."""
    assert health_of(shown) == checked


def test_the_engines_words_make_a_reason() -> None:
    """Out of memory, an error of the start, an exit code, the last answer of the check; nothing when all is well."""
    assert detail_of(container()) == ""
    troubled = container(
        check={"Status": "unhealthy", "Log": [result(1, 1)]}, OOMKilled=True, Error="exec: not found", ExitCode=127
    )
    assert detail_of(troubled) == "out of memory, exec: not found, exit code 127, health check: exit code 1, 'no'"


def test_an_image_is_known_by_the_digests_of_its_targets_repository() -> None:
    """Digests under other repositories do not count; what cannot be read neither."""
    inspected = {
        "Id": "sha256:id",
        "Os": "linux",
        "Architecture": "arm64",
        "Variant": "v8",
        "RepoDigests": [f"app@sha256:{HEX}", f"ghcr.io/app@sha256:{'b' * 64}", "<none>@<none>"],
    }
    ref = ImageRef.configured("app")
    expected = Image(id="sha256:id", digests=frozenset({Digest(f"sha256:{HEX}")}), platform="linux/arm64/v8")
    assert image_of(inspected, "sha256:id", ref) == expected
    assert image_of(None, "sha256:id", ref) == Image(id="sha256:id")


def test_who_has_something_of_another_container_is_named() -> None:
    """By id and by name, in each of the five ways; the container itself and strangers are not."""
    own_id = "db0ffee" + "0" * 57

    def other(name: str, **host: object) -> Json:
        return {"Id": f"id-{name}", "Name": f"/{name}", "HostConfig": host}

    others = [
        other("net", NetworkMode=f"container:{own_id}"),
        other("ipc", IpcMode="container:vpn"),
        other("pid", PidMode="container:vpn"),
        other("volumes", VolumesFrom=["vpn:ro"]),
        other("volumes-by-id", VolumesFrom=["data", "db0ffee0"]),
        other("link", Links=["/db:/link/db", "/vpn:/link/gate"]),
        other("none", NetworkMode="bridge", VolumesFrom=None, Links=None),
        other("stranger", VolumesFrom=["vpn2", "0ffee", "db"], Links=["/vpn2:/stranger/vpn"], IpcMode="shareable"),
        other("db"),  # its name is how our id begins
        {"Id": own_id, "Name": "/vpn", "HostConfig": {"NetworkMode": "container:vpn"}},
    ]
    assert sharers(others, own_id, "vpn") == ["ipc", "link", "net", "pid", "volumes", "volumes-by-id"]
