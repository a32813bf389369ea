"""Sidecar where it may run, as a container and as a process, beside one container that it looks after."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.e2e.shipped import ADMIN_TOKEN, TOKEN, Answer, Shipped, ask
from tests.e2e.terminal import on_a_terminal
from tests.integration.daemon import Daemon
from tests.integration.world import free_port
from tests.testbed import images
from tests.testbed.engine import Engine
from tests.testbed.images import Behaviour
from tests.testbed.registry import Registry

TAG: Final = "shop/web:stable"
LABELS: Final = ("sidecar.enable=true", "sidecar.min-ready=1s", "sidecar.deadline=1m")
SETTINGS: Final = {
    "SIDECAR_TOKEN": TOKEN,
    "SIDECAR_ADMIN_TOKEN": ADMIN_TOKEN,
    "SIDECAR_DEBOUNCE_SECONDS": "0.2",
}


class Place(ABC):
    """A daemon that nobody notifies, and how it is asked: where it runs, on a terminal there, and from elsewhere."""

    is_on_the_host = False

    def __init__(self, engine: Engine, registry: Registry, folder: Path) -> None:
        self.engine = engine
        self.registry = registry
        self.folder = folder
        self.reference = registry.reference(TAG)

    @property
    @abstractmethod
    def url(self) -> str:
        """Where its port answers."""

    @property
    @abstractmethod
    def command(self) -> list[str]:
        """What stands before the arguments of a command, where the daemon runs."""

    @property
    @abstractmethod
    def environ(self) -> Mapping[str, str]:
        """The environment of such a command."""

    @abstractmethod
    def start(self) -> None:
        """Start the daemon."""

    @abstractmethod
    def stop(self) -> None:
        """End it."""

    def prepare(self) -> None:
        """Run the container that is looked after, and one that is not."""
        self.push("1")
        self.engine.docker("pull", "--quiet", self.reference)
        labels = [f"--label={label}" for label in LABELS]
        self.engine.docker("run", "--detach", "--name=web", "--restart=always", *labels, self.reference)
        self.engine.docker("run", "--detach", "--name=bystander", self.reference)

    def push(self, version: str, behaviour: Behaviour = Behaviour.HEALTHY) -> str:
        """Push a version, of which nobody tells the daemon."""
        return images.push(self.registry, images.web(version, behaviour), TAG)

    def digest(self) -> str:
        """Give the digest that runs."""
        image = self.engine.api.get("/containers/web/json")["Image"]
        (digest,) = self.engine.api.get(f"/images/{image}/json")["RepoDigests"]
        return str(digest.partition("@")[2])

    def ask(self, *command: str) -> Answer:
        """Run a command where the daemon runs."""
        return ask([*self.command, *command], **self.environ)

    def json(self, *command: str) -> Any:
        """Run a command that succeeds, for its JSON."""
        answer = self.ask(*command, "--json")
        assert answer.status == 0, answer.err
        return json.loads(answer.out)

    def on_a_terminal(self, *command: str, **environ: str) -> tuple[int, list[str]]:
        """Run a command where the daemon runs, on a terminal."""
        return on_a_terminal([*self.command, *command], {**self.environ, **environ})

    def from_elsewhere(self, *command: str, server: str | None = None, token: str | None = ADMIN_TOKEN) -> Answer:
        """Run a command with a state folder of its own, which knows the daemon by its address and a token."""
        environ = {"SIDECAR_STATE_DIR": str(self.folder / "elsewhere")}
        environ |= {"SIDECAR_ADMIN_TOKEN": token} if token else {}
        return ask([sys.executable, "-m", "sidecar", *command, "--server", server or self.url], **environ)


class InAContainer(Place):
    """The image, run as the README says."""

    def __init__(self, engine: Engine, registry: Registry, folder: Path, *, image: str) -> None:
        super().__init__(engine, registry, folder)
        self.shipped = Shipped(engine, image)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.engine.reach(8080)}"

    @property
    def command(self) -> list[str]:
        return ["docker", "exec", "sidecar", "sidecar"]

    @property
    def environ(self) -> Mapping[str, str]:
        return self.engine.environment

    def on_a_terminal(self, *command: str, **environ: str) -> tuple[int, list[str]]:
        settings = [f"--env={name}={value}" for name, value in environ.items()]
        return on_a_terminal(["docker", "exec", "-it", *settings, "sidecar", "sidecar", *command], self.environ)

    def start(self) -> None:
        settings = [f"--env={name}={value}" for name, value in SETTINGS.items()]
        self.shipped.start("--network=host", *self.shipped.usual, *settings)

    def stop(self) -> None:
        self.shipped.docker("rm", "--force", "sidecar")


class AsAProcess(Place):
    """The installed package, run by hand."""

    is_on_the_host = True

    def __init__(self, engine: Engine, registry: Registry, folder: Path) -> None:
        super().__init__(engine, registry, folder)
        self.daemon = Daemon(engine, folder, port=free_port(), environ=SETTINGS, forked=False)

    @property
    def url(self) -> str:
        return self.daemon.url

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "sidecar"]

    @property
    def environ(self) -> Mapping[str, str]:
        own = {
            "SIDECAR_STATE_DIR": str(self.folder / "state"),
            "SIDECAR_HOST": "127.0.0.1",
            "SIDECAR_PORT": str(self.daemon.port),
            "SIDECAR_DOCKER_HOST": self.engine.host,
        }
        return {**SETTINGS, **own}

    def start(self) -> None:
        self.daemon.start()

    def stop(self) -> None:
        self.daemon.stop()
