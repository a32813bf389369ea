"""Where an update fails for good, the log says how a person puts the old container back; those commands do it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.inspects import changes
from tests.integration.world import World, make_world
from tests.testbed.engine import Engine
from tests.testbed.images import Behaviour
from tests.testbed.registry import Registry

SECRET = "hunter2"
QUICK = ("--health-interval=250ms", "--health-retries=2", "--health-start-period=0s")


@pytest.fixture
def world(engine: Engine, registry: Callable[..., Registry], tmp_path: Path) -> Iterator[World]:
    """A daemon, an engine and a registry that notifies."""
    made = make_world(engine, registry, tmp_path)
    made.push("1")
    yield made
    made.daemon.kill()


def by_hand(world: World, command: str) -> None:
    """Type a command, where Docker's client and Sidecar's are at hand."""
    paths = (str(Path(sys.executable).parent), os.environ["PATH"])
    environ = {**os.environ, **world.engine.environment, "PATH": ":".join(paths)}
    environ["SIDECAR_STATE_DIR"] = str(world.daemon.folder / "state")
    done = subprocess.run(["sh", "-c", command], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)


def recover(world: World) -> dict[str, Any]:
    """Wait for the failure, do what it says, and give what it said."""
    failed = world.daemon.until_told("rollout.failed")
    assert failed["spec"] == "sidecar show docker:web --spec"
    for command in failed["recovery"]:
        by_hand(world, command)
    return failed


def test_the_old_one_is_brought_back_where_both_are_broken(world: World) -> None:
    """Both are ill for the same reason: once that is gone, the commands of the log make the old one run again."""
    ill = ("--volume=state:/state", "--health-cmd=test ! -e /state/ill", f"--env=PASSWORD={SECRET}")
    old = world.run("web", *ill, *QUICK)
    world.engine.docker("exec", "--user=0", "web", "touch", "/state/ill")
    world.daemon.start()
    world.push("2")
    world.daemon.until_told("rollout.failed")
    world.engine.docker("exec", "--user=0", "web", "busybox", "rm", "/state/ill")
    world.engine.docker("stop", "--time=0", "web")  # and somebody has stopped it since
    failed = recover(world)
    found = world.inspect()
    assert (found["Id"], found["State"]["Status"], world.names()) == (old, "running", ["web"])
    assert found["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert failed["recovery"] == ["docker restart web"]
    assert SECRET not in world.daemon.log.read_text()


def test_the_old_one_is_made_again_where_nothing_is_left_of_it(world: World) -> None:
    """The failed one was left there, as its labels ask: the commands of the log make the old one from the journal."""
    options = ("--volume=/kept", f"--env=PASSWORD={SECRET}", "--hostname=mine", "--memory=64m")
    world.run("web", *options, labels={"sidecar.rollback": "false"})
    before = world.inspect()
    world.daemon.start()
    world.push("2", Behaviour.UNHEALTHY)
    failed = recover(world)
    after = world.inspect()
    assert failed["recovery"][-1] == "sidecar show docker:web --spec | sh"
    assert world.version() == "1"
    assert {path: pair for path, pair in changes(before, after).items() if not path.startswith("Config.Attach")} == {}
    assert world.names() == ["web"]
    assert SECRET not in world.daemon.log.read_text()
