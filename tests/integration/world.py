"""An engine, a registry that notifies, and a Sidecar that looks after one container: what most tests need."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from tests.integration.daemon import Daemon
from tests.testbed import images
from tests.testbed.engine import Engine
from tests.testbed.images import Behaviour, Health, Image, Index
from tests.testbed.registry import Notification, Registry

LABELS = {"sidecar.enable": "true", "sidecar.min-ready": "1s", "sidecar.deadline": "20s"}
QUICK = Health()


# Below those that the system gives to connections, so that none takes a port while its daemon is down.
_ports = count(20_000 + os.getpid() % 100 * 100)


def free_port() -> int:
    """Find a port that nobody listens on; never the same one twice."""
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError


@dataclass
class World:
    """The real parts of one test."""

    engine: Engine
    registry: Registry
    daemon: Daemon
    tag: str = "web:1"
    pushed: dict[str, str] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()

    @property
    def ref(self) -> str:
        """The reference that the container is configured with."""
        return self.registry.reference(self.tag)

    def push(self, version: str, behaviour: Behaviour = Behaviour.HEALTHY, **config: Any) -> str:
        """Push a version under the tag; the registry notifies by itself."""
        return self.push_image(version, images.web(version, behaviour, health=QUICK, **config))

    def push_image(self, version: str, image: Image | Index) -> str:
        """Push an image under the tag, and remember its digest."""
        self.pushed[version] = images.push(self.registry, image, self.tag)
        return self.pushed[version]

    def run(
        self, name: str = "web", *options: str, labels: dict[str, str] | None = None, restart: str = "always"
    ) -> str:
        """Run a labelled container on what the tag means now, and give its id."""
        self.engine.docker("pull", "--quiet", self.ref)
        flags = [f"--label={key}={value}" for key, value in (LABELS | (labels or {})).items()]
        return self.engine.docker(
            "run", "--detach", f"--name={name}", f"--restart={restart}", *flags, *options, self.ref
        ).strip()

    def inspect(self, name: str = "web") -> dict[str, Any]:
        """Give the inspect of a container."""
        found: list[dict[str, Any]] = json.loads(self.engine.docker("inspect", "--type=container", name))
        return found[0]

    def names(self) -> list[str]:
        """Give the names of all containers."""
        return sorted(self.engine.docker("ps", "--all", "--format={{.Names}}").split())

    def volumes(self) -> list[str]:
        """Give the names of all volumes."""
        return sorted(self.engine.docker("volume", "ls", "--quiet").split())

    def tags(self) -> set[str]:
        """Give every local tag but those of images that the engine keeps from test to test."""
        return set(local_tags(self.engine) - self.kept)

    def version(self, name: str = "web") -> str:
        """Give the version that a container says it is."""
        env = dict(entry.split("=", 1) for entry in self.inspect(name)["Config"]["Env"])
        return env["VERSION"]

    def image_id(self, reference: str) -> str:
        """Give the id of the image that a local reference names."""
        return self.engine.docker("image", "inspect", "--format={{.Id}}", reference).strip()


def make_world(engine: Engine, registry: Any, folder: Path, **environ: str) -> World:
    """Start a registry that notifies a daemon, which is not started yet."""
    port = free_port()
    daemon = Daemon(engine, folder, port=port, environ=environ)
    started = registry(notifications=[Notification(url=daemon.hook, name="sidecar")])
    return World(engine, started, daemon, kept=local_tags(engine))


def local_tags(engine: Engine) -> frozenset[str]:
    """Give every tag of an engine."""
    rows = engine.docker("images", "--format={{.Repository}}:{{.Tag}}").split()
    return frozenset(row for row in rows if not row.endswith(":<none>"))
