"""People, and another Sidecar, act at every second changing engine call of an update, and nothing is lost by it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.integration.daemon import Daemon
from tests.integration.engine_proxy import Fault
from tests.integration.sweeping import Point, Sweep
from tests.integration.swept_run import MARKER, PATIENCE_SECONDS, SETTINGS, Run, compose
from tests.integration.world import free_port
from tests.testbed.engine import NEW
from tests.testbed.errors import PartError

pytestmark = pytest.mark.timeout(7200)

# What asks for the service; and what takes it away, so that it may stay away.
KEEPING = ("up --detach", "start", "restart", "docker restart", "docker update --restart=always")
REMOVING = ("down", "docker rm --force")
ON_ONE = [pytest.param(NEW.version, id=NEW.version, marks=pytest.mark.sweep)]
# `--rm` is not Compose's, and what is rolled back is the same to people as what is updated.
MEDDLED = ("update", "start-first", "dependents")
Swept = Callable[[str, str], Sweep]


def act(run: Run, command: str) -> None:
    """Do what a person does; that it fails, because a name is taken at that moment, is theirs to bear."""
    with suppress(PartError):
        if command.startswith("docker "):
            run.world.engine.docker(*command.split()[1:], run.name)
        else:
            compose(run, *command.split())


def names(run: Run) -> list[str]:
    """Name what is there of a run."""
    return sorted(name.removeprefix("/") for each in run.containers() for name in each["Names"] if name.count("/") == 1)


def is_whole(run: Run) -> bool:
    """Say whether the new version runs, under its name and with all that goes with it, and nothing else is there."""
    if names(run) != sorted((run.name, *run.peers)):
        return False
    with suppress(PartError):  # it was taken away at that moment
        found = [run.inspect(name) for name in (run.name, *run.peers)]
        is_new = f"VERSION={run.name}-2" in found[0]["Config"]["Env"]
        return is_new and all(each["State"]["Status"] == "running" for each in found)
    return False


def is_gone(run: Run) -> bool:
    """Say whether the container is not there, and nothing that was made for its update is."""
    return not any(name == run.name or ".sidecar-" in name for name in names(run))


def meddled(command: str, *, may_be_gone: bool) -> Callable[[Run, Point], None]:
    """Give what lets a person act at a point, and holds what is left then."""

    def disturb(run: Run, point: Point) -> None:
        number, (fault,) = point
        run.hold_at(number, fault)
        act(run, command)
        run.proxy.release()
        daemon = run.world.daemon

        def is_over() -> bool:
            return run.is_quiet() and (is_whole(run) or (may_be_gone and is_gone(run)))

        daemon.until(is_over, f"{run.name} is whole after {command!r}", seconds=PATIENCE_SECONDS)
        assert daemon.lines("pass.crashed") == []
        if is_gone(run):
            check_gone(run, run.calls()[number - 1])
        else:
            check_left(run)

    return disturb


def check_left(run: Run) -> None:
    """Its data are where they were, it is on its own network, and no volume is left of what was made for its update."""
    run.api.request("GET", f"/containers/{run.name}/archive", query={"path": MARKER})
    kept = {mount["Name"] for mount in (*run.inspect()["Mounts"], *run.before["Mounts"])}
    assert {volume["Name"] for volume in run.api.get("/volumes")["Volumes"]} & run.volumes <= kept
    assert run.inspect()["NetworkSettings"]["Networks"].keys() == run.before["NetworkSettings"]["Networks"].keys()


def check_gone(run: Run, call: str) -> None:
    """No volume is left of what was made for the update, unless it was taken away before anybody was told of it."""
    kept = {mount["Name"] for mount in run.before["Mounts"]}
    # What goes with it may have them still, and cannot be made without.
    kept |= {mount["Name"] for each in run.containers() for mount in each["Mounts"] if mount.get("Name")}
    made = ({volume["Name"] for volume in run.api.get("/volumes")["Volumes"] or []} & run.volumes) - kept
    assert not made or call.startswith("POST create")
    for name in made:
        run.api.delete(f"/volumes/{name}")


def joined(run: Run, point: Point) -> None:
    """Let another Sidecar, which knows nothing of the first, look after the same container from a point on."""
    number, (fault,) = point
    run.hold_at(number, fault)
    folder = run.world.daemon.folder / "other"
    folder.mkdir()
    settings = {**SETTINGS, "SIDECAR_SCOPE": run.name}
    other = Daemon(run.world.engine, folder, port=free_port(), environ=settings)
    try:
        other.start()
        verdicts = {"target.kept", "target.held", "rollout.started"}  # kept where the new one is in its place by then
        other.until(lambda: any(line["event"] in verdicts for line in other.lines()), "the other one has looked")
        run.proxy.release()

        def is_over() -> bool:
            targets = other.get("/api/v1/targets")[1]["targets"]
            return is_whole(run) and run.is_quiet() and all(target["phase"] == "" for target in targets)

        run.world.daemon.until(is_over, f"{run.name} is whole beside another Sidecar", seconds=PATIENCE_SECONDS)
        check_left(run)
        assert [*run.world.daemon.lines("pass.crashed"), *other.lines("pass.crashed")] == []
    finally:
        other.kill()


DELAYED = [(Fault.DELAYED,)]


@pytest.mark.parametrize("command", [*KEEPING, *REMOVING])
@pytest.mark.parametrize("name", MEDDLED)
@pytest.mark.parametrize("kind", ON_ONE)
def test_whatever_people_do_in_an_update_loses_nothing(kind: str, name: str, command: str, swept: Swept) -> None:
    """What asks for the service ends with it updated; what takes it away ends so, or with no trace of it."""
    sweep = swept(kind, name)
    sweep.by_compose = True
    sweep.try_all(sweep.points(DELAYED, every=2), meddled(command, may_be_gone=command in REMOVING))


@pytest.mark.parametrize("name", MEDDLED)
@pytest.mark.parametrize("kind", ON_ONE)
def test_another_sidecar_does_no_harm(kind: str, name: str, swept: Swept) -> None:
    """One of the two updates it, and the other waits or finds it done."""
    sweep = swept(kind, name)
    sweep.try_all(sweep.points(DELAYED, every=2), joined)
