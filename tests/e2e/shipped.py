"""Sidecar's own image on an engine, started and asked as its users do."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.testbed.engine import Engine

PATIENCE_SECONDS: Final = 90.0
TOKEN: Final = "a-token-of-these-tests-1234567890"
ADMIN_TOKEN: Final = "an-admin-token-of-these-tests-1234567890"

SOCKET: Final = "--volume=/var/run/docker.sock:/var/run/docker.sock"
STATE: Final = "--volume=sidecar-data:/data"
LOCKED_DOWN: Final = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command gave."""

    status: int
    out: str
    err: str


def ask(command: list[str], *, cwd: Path | None = None, **environ: str) -> Answer:
    """Run a command to its end."""
    options: dict[str, Any] = {"env": {**os.environ, **environ}, "stdin": subprocess.DEVNULL, "cwd": cwd}
    done = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    return Answer(done.returncode, done.stdout, done.stderr)


def until(is_so: Callable[[], object], what: str, *, tail: Callable[[], str] = str) -> None:
    """Wait for something that has to come; never for something that must not."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        if time.monotonic() > end:
            message = f"waited {PATIENCE_SECONDS:g} s in vain until {what}\n{tail()}"
            raise AssertionError(message)
        time.sleep(0.1)


class Shipped:
    """Sidecar as a container beside one engine."""

    def __init__(self, engine: Engine, image: str, *, name: str = "sidecar") -> None:
        self.engine = engine
        self.image = image
        self.name = name

    @property
    def group(self) -> str:
        """The number of the group that may use the engine's socket, as the README has it looked up."""
        return self.engine.machine.run("stat", "-c", "%g", "/var/run/docker.sock").stdout.strip()

    @property
    def usual(self) -> tuple[str, ...]:
        """The options that the README gives it: the socket, its group, a volume, nothing else writable."""
        return (*LOCKED_DOWN, SOCKET, f"--group-add={self.group}", STATE)

    def docker(self, *arguments: str) -> Answer:
        """Run the client, which may fail."""
        return ask(["docker", *arguments], **self.engine.environment)

    def once(self, *command: str, options: tuple[str, ...] = ()) -> Answer:
        """Run a command in a container of its own, to its end."""
        return self.docker("run", "--rm", *options, self.image, *command)

    def start(self, *options: str) -> None:
        """Run the daemon, and wait until it has started."""
        self.engine.docker("run", "--detach", f"--name={self.name}", *options, self.image)
        self.until(lambda: self.lines("daemon.started"), "the daemon has started")

    def sidecar(self, *command: str) -> Answer:
        """Run a command in the daemon's container, as the README does."""
        return self.docker("exec", self.name, "sidecar", *command)

    def python(self, code: str) -> str:
        """Run Python in the daemon's container."""
        return self.engine.docker("exec", self.name, "/opt/sidecar/bin/python", "-c", code).strip()

    def inspect(self) -> dict[str, Any]:
        """Give the inspect of the container."""
        found: dict[str, Any] = self.engine.api.get(f"/containers/{self.name}/json")
        return found

    def health(self) -> str:
        """Give what the engine found of its health."""
        return str(self.inspect()["State"]["Health"]["Status"])

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Give the log so far, or the lines of one event."""
        answer = self.docker("logs", self.name)
        found = [json.loads(line) for line in answer.out.splitlines() if line.startswith("{")]
        return [line for line in found if event in (None, line["event"])]

    def until(self, is_so: Callable[[], object], what: str) -> None:
        """Wait for something that has to come."""
        until(is_so, what, tail=lambda: str(self.docker("logs", self.name)))

    def until_told(self, event: str, **facts: object) -> dict[str, Any]:
        """Wait for a line of the log with these facts, and give it."""

        def told() -> list[dict[str, Any]]:
            return [line for line in self.lines(event) if all(line.get(key) == value for key, value in facts.items())]

        self.until(told, f"{event} is told with {facts}")
        return told()[0]
