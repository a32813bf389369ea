"""Measures how long nothing runs while a container is updated, beside the same three steps by hand.

Both take turns on one engine, with the same image and options. What counts is on the engine's own clock: from the
moment that the old container's process has ended until the new one's is started.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.integration.world import LABELS, World, make_world
from tests.testbed import images
from tests.testbed.engine import NEW
from tests.testbed.parts import parts

BY_HAND, BY_SIDECAR = "`docker create`, `stop`, `start` by hand", "Sidecar, stop-first"
NANOSECONDS = 1e9


def measure_downtime(folder: Path, runs: int) -> str:
    """Update a container some times in each way; give the medians as text."""
    measured: dict[str, list[float]] = {BY_HAND: [], BY_SIDECAR: []}
    with parts() as run:
        world = make_world(run.engine(NEW.version), run.registry, folder)
        world.engine.docker("network", "create", "front")
        world.push("0")
        world.run("web", *_options("web", 8098))
        _push_other(world, "0")
        world.engine.docker("run", "--detach", "--name=hand", *_options("hand", 8099), _other(world))
        world.daemon.start()
        for number in range(1, runs + 1):
            for way, update in ((BY_HAND, _update_by_hand), (BY_SIDECAR, _update_by_sidecar)):
                seconds = _downtime_seconds(world, update, str(number))
                measured[way].append(seconds)
                print(f"run {number}: {way}: {seconds * 1000:.0f} ms", file=sys.stderr)
        world.daemon.stop()
        world.engine.wipe()
    return _table(measured)


def _options(name: str, port: int) -> list[str]:
    """Give what a service usually has: a policy, labels, a network with an alias, a volume, a port."""
    labels = [
        f"--label={key}={value}" for key, value in (LABELS | {"sidecar.enable": str(name == "web").lower()}).items()
    ]
    places = [f"--volume={name}:/data", f"--publish=127.0.0.1:{port}:{images.PORT}"]
    return ["--restart=always", "--network=front", f"--network-alias=for-{name}", *labels, *places]


def _other(world: World) -> str:
    return world.registry.reference("hand:1")


def _push_other(world: World, version: str) -> None:
    images.push(world.registry, images.web(version), "hand:1")
    world.engine.docker("pull", "--quiet", _other(world))


def _update_by_hand(world: World, version: str) -> None:
    """Do what somebody does who has pulled already, and keeps every option: create, stop, start, and then tidy up."""
    _push_other(world, version)
    client = world.engine.docker
    client("create", "--name=hand-new", *_options("hand", 8099), _other(world))
    client("stop", "hand")
    client("start", "hand-new")
    client("rm", "hand")
    client("rename", "hand-new", "hand")


def _update_by_sidecar(world: World, version: str) -> None:
    world.push(version)
    world.daemon.until_told("rollout.succeeded", int(version))


def _downtime_seconds(world: World, update: Callable[[World, str], None], version: str) -> float:
    begun = time.time()
    update(world, version)
    name = "hand" if update is _update_by_hand else "web"
    assert world.version(name) == version
    arguments = (f"--since={begun:.6f}", f"--until={time.time():.6f}", "--filter=type=container", "--format={{json .}}")
    told = [json.loads(line) for line in world.engine.docker("events", *arguments).splitlines()]
    times = {event["Action"]: event["timeNano"] for event in told if event["Action"] in ("die", "start")}
    assert times.keys() == {"die", "start"}, told
    return float((times["start"] - times["die"]) / NANOSECONDS)


def _table(measured: dict[str, list[float]]) -> str:
    runs = len(measured[BY_HAND])
    middle = {way: statistics.median(seconds) * 1000 for way, seconds in measured.items()}
    rows = [
        f"| {way} | {middle[way]:.0f} | {min(seconds) * 1000:.0f} | {max(seconds) * 1000:.0f} |"
        for way, seconds in measured.items()
    ]
    ratio = middle[BY_SIDECAR] / middle[BY_HAND]
    head = ["| how it is updated | median ms | least | most |", "|---|---:|---:|---:|"]
    return "\n".join([*head, *rows, "", f"Downtime: {ratio:.2f} times that by hand (medians of {runs} updates)", ""])
