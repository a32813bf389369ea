"""Volumes and binds stay, with all their options and with what is in them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from tests.integration.engines import OF_ANY_ENGINE
from tests.integration.fidelity.cases import (
    ILL_WHEN_TOLD,
    Case,
    made,
    mark,
    marks,
    updated,
    updated_from_here,
    volumes,
)
from tests.integration.inspects import changes
from tests.integration.line import Line
from tests.integration.versions import SECOND, app
from tests.testbed.api import ApiError

# Time decides nothing here: on a busy machine an update takes as long as it takes.
pytestmark = pytest.mark.timeout(900)


@OF_ANY_ENGINE
@pytest.mark.fidelity(1, 27)
async def test_named_volumes_and_binds_stay(line: Line) -> None:
    """Volumes and binds asked for in either form stay with all their options, and hold what they held."""
    options = """
        --mount type=volume,source=one,target=/a,volume-nocopy --volume two:/b:nocopy
        --mount type=tmpfs,target=/c,tmpfs-size=65536 --tmpfs /f:size=64k
        --mount type=bind,source=/usr,target=/d,readonly,bind-propagation=private --volume /usr:/e:ro
    """
    cases = {"web": made(options)}
    await cases["web"].make(line, "web")
    await mark(line, "web", "/a", "/b")
    (_, after), *_ = (await updated_from_here(line, cases)).values()
    assert await marks(line, "web", "/a", "/b") == ["/a", "/b"]
    assert {mount["Destination"]: mount["RW"] for mount in after["Mounts"] if mount["Type"] == "bind"} == {
        "/d": False,
        "/e": False,
    }


@OF_ANY_ENGINE
@pytest.mark.fidelity(2, 3)
async def test_anonymous_volumes_stay_with_what_is_in_them(line: Line) -> None:
    """A volume without a name, in each of the forms in which one is asked for, is there after two updates in a row."""
    cases = {
        "web": made("--volume /x --mount type=volume,target=/y"),
        "api": Case(body={"HostConfig": {"Binds": ["/x"]}, "Volumes": {"/y": {}}}),
    }
    places = ("/data", "/only-1", "/x", "/y")
    for name, case in cases.items():
        await case.make(line, name)
        await mark(line, name, *places)
    before = await volumes(line)
    await updated_from_here(line, cases)
    left = await volumes(line)
    assert before < left  # the new image has a volume of its own
    for name in cases:
        await line.docker("rm", "--volumes", f"{name}-anew")
        await mark(line, name, "/only-2")
    left = await volumes(line)
    line.push(app("3"))
    await line.update(*cases)
    for name in cases:
        assert await marks(line, name, *places, "/only-2") == [*places, "/only-2"]
    assert left < await volumes(line)


@OF_ANY_ENGINE
@pytest.mark.fidelity(3, 39)
async def test_a_rollback_takes_away_only_what_the_failed_one_made(line: Line) -> None:
    """The failed one's own anonymous volumes go with it; those of the old one stay, and all else of it."""
    cases = {"web": made("--volume /x --restart always"), "off": made("--volume /x --restart on-failure:3")}
    for name, case in cases.items():
        await case.make(line, name)
        await mark(line, name, "/data", "/only-1", "/x")
    before = {name: await line.inspect(name) for name in cases}
    at_first = await volumes(line)
    line.push(app("2", Healthcheck={"Test": ["CMD", "/bin/stat", "/none"], "Interval": SECOND // 4, "Retries": 1}))
    outcomes = await asyncio.gather(*map(line.run_pass, cases))
    assert all(outcome.startswith("hold: rolled_back: became unhealthy") for outcome in outcomes), outcomes
    after = {name: await line.inspect(name) for name in cases}
    for name in cases:
        assert after[name]["Id"] == before[name]["Id"]
        assert changes(before[name], after[name]) == {}
        assert await marks(line, name, "/data", "/only-1", "/x") == ["/data", "/only-1", "/x"]
    assert await volumes(line) == at_first
    assert sorted((await line.docker("ps", "--all", "--format={{.Names}}")).split()) == ["off", "web"]


@OF_ANY_ENGINE
@pytest.mark.fidelity(2, 3)
async def test_an_old_one_that_vanished_is_made_again_as_it_was(line: Line) -> None:
    """Where somebody removes the parked one while the gate is open, a rollback makes one that differs in nothing."""
    await made("--volume /x --restart always --env OWN=own --publish 127.0.0.1:18097:8080").make(line, "web")
    await mark(line, "web", "/data", "/only-1", "/x")
    before = await line.inspect("web")

    def remove_and_close_the_gate() -> None:
        with suppress(ApiError):  # it is not parked yet, or gone already
            line.real.api.delete("/containers/web.sidecar-old", v=True)
            line.real.docker("exec", "--user=0", "web", "touch", "/ill")

    line.hints.on_wait = remove_and_close_the_gate
    line.push(app("2", Healthcheck=ILL_WHEN_TOLD))
    outcome = await line.run_pass("web")
    assert outcome.startswith("hold: rolled_back: became unhealthy"), outcome
    after = await line.inspect("web")
    assert after["Id"] != before["Id"]
    assert changes(before, after) == {}
    assert await marks(line, "web", "/data", "/only-1", "/x") == ["/data", "/only-1", "/x"]
    assert await volumes(line) == {mount["Name"] for mount in before["Mounts"]}


@OF_ANY_ENGINE
@pytest.mark.fidelity(28)
async def test_what_is_mounted_over_a_volume_of_the_image_stays_alone(line: Line) -> None:
    """Where a user mounted something else at the place of an image's volume, it is mounted once, and no volume is."""
    kept = {"keeps": "Mounts./only-2"}
    cases = {
        "tmpfs": made("--tmpfs /data:size=64k"),
        "bind": made("--volume /usr:/data:ro"),
        "named": made("--mount type=volume,source=one,target=/data"),
        "both": made("--mount type=tmpfs,target=/data,tmpfs-size=65536 --tmpfs /only-2", **kept),
    }
    await updated(line, cases)


@pytest.mark.fidelity(27)
async def test_a_part_of_a_volume_stays_that_part(newer_line: Line) -> None:
    """A container that has one folder of a volume has that folder afterwards, and no other."""
    line = newer_line
    make = ("--user=0", "--entrypoint=sh", "--volume=one:/all", line.store.reference("app:1"))
    await line.docker("run", "--rm", *make, "-c", "mkdir -p /all/part; echo part >/all/part/marker; touch /all/other")
    cases = {"web": made("--mount type=volume,source=one,target=/part,volume-subpath=part")}
    await updated(line, cases)
    assert await line.docker("exec", "web", "ls", "/part") == "marker"
