"""Whatever has a namespace, volumes or a link of an updated container has it again afterwards, on real engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.integration.engines import ON_EACH, ON_NEW
from tests.integration.inspects import changes
from tests.integration.line import Json, Line, open_line
from tests.testbed import images
from tests.testbed.engine import Engine
from tests.testbed.images import Behaviour
from tests.testbed.registry import Registry

pytestmark = pytest.mark.timeout(900)
# Options by which containers have something of `web`, in the order in which they are made.
OTHERS = {
    "net": "--network=container:web",
    "inner": "--network=container:web --ipc=container:ipc",
    "ipc": "--ipc=shareable --pid=container:web",
    "volumes": "--volumes-from=web --volume=/own",
    "linked": "--link=web:gate",
    "paused": "--network=container:web",
    "stopped": "--network=container:web",
}
ORDER = ["ipc", *(name for name in OTHERS if name != "ipc")]


@pytest.fixture
async def line(engine: Engine, registry: Callable[..., Registry]) -> AsyncIterator[Line]:
    """The line over one of the engines, with a container `web` and others that have something of it."""
    async with open_line(engine, registry()) as opened:
        opened.push(images.web("1", Volumes={"/data": {}}))
        opened.push(images.web("1"), "other:1")
        await opened.pull()
        await opened.make("run", "web", "--restart=always")
        other = opened.store.reference("other:1")
        for name in ORDER:
            options = [
                *OTHERS[name].split(),
                "--restart=always",
                "--no-healthcheck",
                "--stop-signal=SIGKILL",  # sleep as the first process would have the engine wait out the grace
                "--entrypoint=sleep",
                "--env=OWN=own",
            ]
            await opened.docker("run", "--detach", f"--name={name}", *options, other, "9999")
        await opened.docker("exec", "volumes", "touch", "/own/marker")
        await opened.docker("pause", "paused")
        await opened.docker("stop", "--time=0", "stopped")
        yield opened


async def look(line: Line) -> dict[str, Json]:
    return {name: await line.inspect(name) for name in ("web", *OTHERS)}


def references(inspects: dict[str, Json]) -> dict[str, Json]:
    """Give what each has of others, with names in the place of ids."""
    names = {each["Id"]: name for name, each in inspects.items()}
    return {
        name: {
            key: names.get(str(each["HostConfig"][key]).removeprefix("container:"), each["HostConfig"][key])
            for key in ("NetworkMode", "IpcMode", "PidMode", "Links", "VolumesFrom")
        }
        for name, each in inspects.items()
    }


async def same(line: Line, before: dict[str, Json]) -> dict[str, Json]:
    """Hold that every other container is as it was, and has what it had of the one in place; and give all inspects."""
    after = await look(line)
    assert references(after) == references(before)
    for name in OTHERS:
        found = changes(before[name], after[name])
        meant = {f"HostConfig.{key}" for key in ("NetworkMode", "IpcMode", "PidMode")}
        # One that lives in another's network is shown with that one's name.
        assert found.keys() <= meant | {"Config.Hostname", "State.Status"}, (name, found)
    up = {name: each["State"]["Status"] for name, each in after.items()}
    assert up.pop("stopped") in ("created", "exited")
    assert up == dict.fromkeys(up, "running") | {"paused": "paused"}
    names = sorted((await line.docker("ps", "--all", "--format={{.Names}}")).split())
    assert names == sorted(["web", *OTHERS])
    assert await line.docker("exec", "volumes", "ls", "/own") == "marker"
    return after


@pytest.mark.fidelity(18)
@ON_EACH
async def test_they_are_made_again_with_what_is_new(line: Line) -> None:
    """Each is on its own image as before, shares what it shared, sees the new one, and is left in the state it had."""
    before = await look(line)
    line.push(images.web("2", Volumes={"/data": {}}))
    await line.update("web")
    after = await same(line, before)
    assert {name for name in after if after[name]["Id"] == before[name]["Id"]} == set()
    assert await line.docker("exec", "net", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/") == "2"
    assert await line.docker("exec", "linked", "wget", "-q", "-O", "-", "http://gate:8080/") == "2"
    line.push(images.web("3", Volumes={"/data": {}}))
    await line.update("web")
    await same(line, after)
    assert await line.docker("exec", "inner", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/") == "3"


@pytest.mark.fidelity(18)
@ON_EACH
async def test_after_a_rollback_they_go_on(line: Line) -> None:
    """They are the same containers, and run again."""
    before, volumes = await look(line), await line.docker("volume", "ls", "--quiet")
    line.push(images.web("2", Behaviour.UNHEALTHY, Volumes={"/data": {}}))
    outcome = await line.run_pass("web")
    assert outcome.startswith("hold: rolled_back: became unhealthy"), outcome
    after = await same(line, before)
    assert {name for name in after if after[name]["Id"] != before[name]["Id"]} == set()
    assert await line.docker("exec", "net", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/") == "1"
    assert await line.docker("exec", "linked", "wget", "-q", "-O", "-", "http://gate:8080/") == "1"
    assert await line.docker("volume", "ls", "--quiet") == volumes


@pytest.mark.fidelity(18, by="hold")
@ON_NEW
@pytest.mark.parametrize(
    "options, words",
    [
        ("--rm", "it was made with --rm"),
        ("--label=sidecar.enable=false", "its label sidecar.enable is false"),
        ("--label=com.docker.swarm.task.id=some", "it is a task of a Swarm service"),
    ],
)
async def test_what_cannot_go_along_holds_the_other(line: Line, options: str, words: str) -> None:
    """Before anything is touched, and the reason names it."""
    other = line.store.reference("other:1")
    made = ["--name=left", "--network=container:web", options, "--no-healthcheck", "--entrypoint=sleep", other, "9999"]
    await line.docker("run", "--detach", *made)
    before = await look(line)
    line.push(images.web("2", Volumes={"/data": {}}))
    outcome = await line.run_pass("web")
    assert outcome.startswith("hold: left has a namespace, volumes or a link of web, and cannot be recreated with it: ")
    assert words in outcome
    after = await look(line)
    assert {name: changes(before[name], after[name]) for name in after} == {name: {} for name in after}
    assert line.events.named("rollout.stepped") == []


COMPOSE = """
name: shop
services:
  db:
    image: {reference}
    labels: {{sidecar.enable: "true", sidecar.min-ready: 0.2s}}
  web:
    image: {other}
    depends_on: {{db: {{condition: service_started, restart: true}}}}
  idle:
    image: {other}
    depends_on: {{db: {{condition: service_started}}}}
"""


@ON_NEW
@pytest.mark.parametrize("is_good", [True, False])
async def test_compose_services_that_ask_for_it_are_started_anew(line: Line, tmp_path: Path, is_good: bool) -> None:
    """Those with `restart: true`, as the same containers; after a rollback too, for what they need was away."""
    references = {"reference": line.store.reference("app:1"), "other": line.store.reference("other:1")}
    (tmp_path / "compose.yaml").write_text(COMPOSE.format(**references))
    for name in (*OTHERS, "web"):
        await line.docker("rm", "--force", "--volumes", name)
    line.real.compose("up", "--detach", cwd=tmp_path)
    before = {name: await line.inspect(f"shop-{name}-1") for name in ("web", "idle")}
    line.push(images.web("2", Behaviour.HEALTHY if is_good else Behaviour.UNHEALTHY))
    outcome = await line.run_pass("shop-db-1")
    assert outcome.startswith("keep: updated" if is_good else "hold: rolled_back"), outcome
    after = {name: await line.inspect(f"shop-{name}-1") for name in before}
    assert {name: each["Id"] for name, each in after.items()} == {name: each["Id"] for name, each in before.items()}
    assert after["idle"]["State"]["StartedAt"] == before["idle"]["State"]["StartedAt"]
    assert after["web"]["State"]["StartedAt"] > before["web"]["State"]["StartedAt"]
    assert after["web"]["State"]["Status"] == "running"
