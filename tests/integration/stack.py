"""A Compose project that a Sidecar looks after, with gates that a test opens by a file: time decides nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.daemon import Daemon
from tests.integration.world import free_port
from tests.testbed import images
from tests.testbed.api import ApiError
from tests.testbed.engine import Engine
from tests.testbed.images import Behaviour, Health
from tests.testbed.registry import Notification, Registry

# A good version passes once its file is there, however slow the machine; a bad one fails by its health check at once.
PATIENT = Health(interval_ms=250, timeout_ms=30_000, retries=10_000)
IMPATIENT = Health(interval_ms=250, timeout_ms=30_000, retries=2)
LABELS = {"sidecar.enable": "true", "sidecar.min-ready": "0.5s", "sidecar.deadline": "10m"}
FILE = "compose.yaml"


@dataclass
class Stack:
    """One project: its file, its images, and what the engine shows of it.

    Attributes:
        services: what its file says of each service, beside image, labels and gate.
    """

    engine: Engine
    registry: Registry
    daemon: Daemon
    name: str
    services: Mapping[str, Mapping[str, Any]]
    pushed: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        engine: Engine,
        registry: Any,
        folder: Path,
        services: Mapping[str, Mapping[str, Any]],
        *,
        name: str = "shop",
        **environ: str,
    ) -> Stack:
        """Push version 1 of every service, bring the project up, and start a daemon that looks after it."""
        folder.mkdir(exist_ok=True)
        settings = {"SIDECAR_RESYNC_SECONDS": "0", "SIDECAR_SCOPE": name, **environ}
        daemon = Daemon(engine, folder, port=free_port(), environ=settings)
        started = registry(notifications=[Notification(url=daemon.hook)])
        stack = cls(engine, started, daemon, name, services)
        for service in services:
            stack.push(service, "1")
            stack.open_gate(service, "1")
        stack.write()
        stack.compose("up", "--detach")
        daemon.start()
        for container in stack.containers():
            daemon.until_told("target.kept", target=f"docker:{container}")
        return stack

    # --- its file and its images

    def write(self) -> None:
        """Write the project's file."""
        services = {}
        for service, more in self.services.items():
            labels = {**LABELS, "sidecar.scope": self.name, **more.get("labels", {})}
            gate = {"type": "bind", "source": str(self._gate(service)), "target": "/gate", "read_only": True}
            volumes = [*more.get("volumes", []), gate]
            image = {"image": self.ref(service), "stop_grace_period": "2s"}
            services[service] = {**image, **more, "labels": labels, "volumes": volumes}
        (self.daemon.folder / FILE).write_text(json.dumps({"name": self.name, "services": services}))

    def ref(self, service: str) -> str:
        """Give the reference that a service is configured with."""
        return self.registry.reference(f"{self.name}/{service}:1")

    def push(self, service: str, version: str, behaviour: Behaviour = Behaviour.HEALTHY, **config: Any) -> str:
        """Push a version of a service, healthy once its gate is opened, or bad; the registry notifies by itself."""
        health = PATIENT if behaviour is Behaviour.HEALTHY else IMPATIENT
        file = f"{service}-{version}"
        image = images.web(
            f"{self.name}-{file}", behaviour, health=health, files={"/health": gated(file, behaviour)}, **config
        )
        self.pushed[service, version] = images.push(self.registry, image, f"{self.name}/{service}:1")
        return self.pushed[service, version]

    def open_gate(self, service: str, version: str) -> None:
        """Let a version of a service be healthy."""
        (self._gate(service) / f"{service}-{version}").touch()

    def _gate(self, service: str) -> Path:
        folder = self.daemon.folder / "gates" / service
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    # --- what people do

    def compose(self, *arguments: str) -> str:
        """Run Compose on the project."""
        return self.engine.compose("--progress", "plain", *arguments, cwd=self.daemon.folder)

    # --- what the engine shows

    def inspects(self) -> dict[str, dict[str, Any]]:
        """Inspect every container of the project, by its name."""
        listed = self.engine.api.get(
            "/containers/json", all=True, filters={"label": [f"com.docker.compose.project={self.name}"]}
        )
        found = {}
        for each in listed:
            with suppress(ApiError):  # it is going at this moment
                inspected = self.engine.api.get(f"/containers/{each['Id']}/json")
                found[inspected["Name"].removeprefix("/")] = inspected
        return found

    def containers(self) -> list[str]:
        """Name every container of the project."""
        return sorted(self.inspects())

    def ids(self) -> dict[str, str]:
        """Give the id of every container of the project."""
        return {name: each["Id"] for name, each in self.inspects().items()}

    def versions(self) -> dict[str, str]:
        """Give the version of every container that runs, by its name without the project's."""
        return {
            name.removeprefix(f"{self.name}-"): version_of(each).removeprefix(f"{self.name}-")
            for name, each in self.inspects().items()
            if each["State"]["Status"] == "running"
        }

    # --- what has to be so in the end

    def until_it_runs(self, **versions: str) -> None:
        """Wait until every container runs in these versions, and no rollout is open."""
        expected = {name.replace("_", "-"): version for name, version in versions.items()}

        def is_so() -> bool:
            if self.versions() != expected:
                return False
            targets = self.daemon.get("/api/v1/targets")[1]["targets"]
            return all(target["phase"] == "" for target in targets)

        self.daemon.until(is_so, f"{expected} run at rest; now {self.versions()}")

    def expect_nothing_left(self) -> None:
        """Hold that every container has its name, and every volume and every tag a use."""
        inspects = self.inspects()
        numbers = {name.removeprefix(f"{self.name}-").rpartition("-") for name in inspects}
        assert {service for service, _, _ in numbers} <= set(self.services)
        assert all(number.isdecimal() for _, _, number in numbers), sorted(inspects)
        assert self.unused_volumes() == set()
        tags = {tag: each["Id"] for each in self.engine.api.get("/images/json") for tag in each["RepoTags"] or []}
        assert {each["Config"]["Image"]: each["Image"] for each in inspects.values()}.items() <= tags.items()
        kept = {f"sidecar-previous:{name}" for name in inspects}
        ours = {tag for tag in tags if tag.startswith((f"sidecar-previous:{self.name}-", self.registry.address))}
        # containerd's store lists the digest by which an image was pulled among its tags.
        assert {tag for tag in ours if "@" not in tag} <= kept | {self.ref(service) for service in self.services}
        assert self.daemon.lines("pass.crashed") == []

    def unused_volumes(self) -> set[str]:
        """Name the volumes of the engine that no container has."""
        found = self.engine.api.get("/volumes", filters={"dangling": ["true"]})["Volumes"] or []
        return {volume["Name"] for volume in found}

    def begins_gate(self, service: str, version: str, *, number: int = 1) -> str:
        """Wait until a version of a service is in its gate, and name its container."""
        name = f"{self.name}-{service}-{number}"
        self.daemon.until_told("rollout.stepped", target=f"docker:{name}", step="Start")

        def runs() -> bool:
            current = self.inspects().get(name)
            return (
                current is not None
                and current["State"]["Running"]
                and version_of(current) == f"{self.name}-{service}-{version}"
            )

        self.daemon.until(runs, f"version {version} of {name} runs")
        return name


def version_of(inspected: Mapping[str, Any]) -> str:
    """Give the version that a container says it is."""
    env = dict(entry.split("=", 1) for entry in inspected["Config"]["Env"])
    return env["VERSION"]


def gated(file: str, behaviour: Behaviour = Behaviour.HEALTHY) -> str:
    """Write a health check that succeeds once its gate has this file; that of a bad version never does."""
    if behaviour is Behaviour.HEALTHY:
        return f"#!/bin/sh\n[ -e /gate/{file} ]\n"
    return "#!/bin/sh\necho unhealthy as it should be\nexit 1\n"
