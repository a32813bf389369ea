"""Five Compose projects of five containers each, all of whose images were pushed: in order, and a few at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.world import World, make_world
from tests.testbed import images
from tests.testbed.engine import Engine
from tests.testbed.images import Behaviour, Health
from tests.testbed.registry import Registry

pytestmark = pytest.mark.timeout(1800)
PROJECTS = [f"shop{number}" for number in range(5)]
BROKEN = "shop3"
# Each service with what it needs.
SERVICES = {"db": [], "cache": [], "api": ["db", "cache"], "web": ["api"], "worker": ["db"]}
MOST_AT_ONCE = 2
LABELS = {"sidecar.enable": "true", "sidecar.min-ready": "0.5s", "sidecar.deadline": "20m"}
PATIENT = Health(interval_ms=1500, timeout_ms=30_000, retries=10_000)
IMPATIENT = Health(interval_ms=1500, timeout_ms=30_000, retries=2)
SETTINGS = {
    "SIDECAR_RESYNC_SECONDS": "0",
    "SIDECAR_MAX_PARALLEL_ROLLOUTS": str(MOST_AT_ONCE),
    "SIDECAR_LOG_LEVEL": "debug",
}


class Shops:
    """All projects, and the daemon that looks after them."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder

    def push(self, version: str) -> None:
        """Push a version of everything; of the broken project one service fails its health check."""
        for project in PROJECTS:
            for service in SERVICES:
                is_bad = version != "1" and (project, service) == (BROKEN, "api")
                behaviour, health = (Behaviour.UNHEALTHY, IMPATIENT) if is_bad else (Behaviour.HEALTHY, PATIENT)
                image = images.web(f"{service}-{version}", behaviour, health=health)
                images.push(self.world.registry, image, f"{project}/{service}:1")

    def up(self) -> None:
        """Bring every project up."""
        for project in PROJECTS:
            services = {
                service: {
                    "image": self.world.registry.reference(f"{project}/{service}:1"),
                    "labels": LABELS,
                    "stop_grace_period": "1s",
                    "depends_on": {name: {"condition": "service_started"} for name in needs},
                }
                for service, needs in SERVICES.items()
            }
            (self.folder / project).mkdir()
            (self.folder / project / "compose.yaml").write_text(json.dumps({"name": project, "services": services}))
            self.world.engine.compose("up", "--detach", cwd=self.folder / project)

    def versions(self) -> dict[str, str]:
        """Give the version of each container."""
        found = self.world.engine.api.get("/containers/json", all=True)
        label = "org.opencontainers.image.version"
        return {each["Names"][0].removeprefix("/"): str(each["Labels"][label]).rpartition("-")[2] for each in found}

    def moments(self, event: str, **facts: str) -> dict[str, int]:
        """Give the line of the log at which this was first told of each target."""
        lines = self.world.daemon.lines()
        told = [(line["target"], number) for number, line in enumerate(lines) if is_told(line, event, facts)]
        return dict(reversed(told))


def is_told(line: dict[str, Any], event: str, facts: dict[str, str]) -> bool:
    return line["event"] == event and all(line.get(key) == value for key, value in facts.items())


@pytest.fixture
def shops(engine_26: Engine, registry: Callable[..., Registry], tmp_path: Path) -> Iterator[Shops]:
    """Everything on version 1."""
    world = make_world(engine_26, registry, tmp_path, **SETTINGS)
    made = Shops(world, tmp_path)
    made.push("1")
    made.up()
    world.daemon.start()
    yield made
    world.daemon.kill()


def test_all_projects_move_in_order_and_one_that_fails_holds_up_nobody_else(shops: Shops) -> None:
    """What needs another comes after its gate, two at most are down at once, and the failure stays in its project."""
    daemon = shops.world.daemon
    expected = {f"{project}-{service}-1": "2" for project in PROJECTS for service in SERVICES}
    expected |= {f"{BROKEN}-api-1": "1", f"{BROKEN}-web-1": "1"}
    shops.push("2")

    def is_done() -> bool:
        is_rolled_back = daemon.lines("rollout.rolled_back")
        return bool(is_rolled_back) and shops.versions() == expected

    daemon.until(is_done, "everything is updated", seconds=1500)
    finished = shops.moments("rollout.finishing")
    stopped = shops.moments("rollout.stepped", step="Stop")
    edges = [(project, service, name) for project in PROJECTS for service in SERVICES for name in SERVICES[service]]
    early = [
        (project, service, name)
        for project, service, name in edges
        if (at := stopped.get(f"docker:{project}-{service}-1")) is not None
        and finished[f"docker:{project}-{name}-1"] > at
    ]
    assert early == []
    assert f"docker:{BROKEN}-web-1" not in stopped
    down: set[str] = set()
    most = 0
    for line in daemon.lines("rollout.stepped"):
        if line["phase"] != "updating":
            continue  # what failed is put back at once, and waits for nobody
        if line["step"] == "Stop":
            down.add(line["target"])
        elif line["step"] == "Start":
            down.discard(line["target"])
        most = max(most, len(down))
    assert most == MOST_AT_ONCE
    held = [line["reason"] for line in daemon.lines("target.held") if line["target"] == f"docker:{BROKEN}-web-1"]
    assert held[-1] == f"dependency failed: docker:{BROKEN}/api"
