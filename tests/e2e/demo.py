"""`make demo`: a push reaches a running container, and a broken one is rolled back; on real parts, with a commentary.

It needs nothing that runs, disturbs nothing that does, and leaves nothing behind: the engine has namespaces of its own.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.testbed import images
from tests.testbed.engine import NEW, Engine
from tests.testbed.images import Behaviour
from tests.testbed.parts import Parts, parts
from tests.testbed.product import sidecar_image
from tests.testbed.registry import Notification, Registry

PATIENCE_SECONDS: Final = 90.0
_PORT: Final = 8080
# What matters of what matters. Of all that a registry sends of a push one event in ten is a tag; the rest is ignored.
_SHOWN: Final = {
    "delivery.accepted": ("images", "delivery_id"),
    "image.pulled": ("image", "digest"),
    "rollout.succeeded": ("target", "digest", "duration_seconds"),
    "rollout.rolling_back": ("target", "reason"),
    "rollout.rolled_back": ("target", "digest", "duration_seconds"),
}
_LONGEST: Final = {"digest": len("sha256:") + 8, "delivery_id": 8, "reason": 55}


def say(text: str) -> None:
    """Tell the audience what happens."""
    print(f"\n== {text}", flush=True)  # noqa: T201 - this is what the demo is for


def note(text: str) -> None:
    """Tell a detail."""
    print(f"   {text}", flush=True)  # noqa: T201 - this is what the demo is for


def trimmed(line: dict[str, Any]) -> str:
    """Give what matters of a log line, long texts cut."""
    facts = {key: line[key] for key in ("event", *_SHOWN[line["event"]])}
    for key in facts.keys() & _LONGEST.keys():
        facts[key] = facts[key][: _LONGEST[key]] + "\u2026"
    return json.dumps(facts, ensure_ascii=False)


@dataclass
class Stage:
    """The real parts of the demo.

    Attributes:
        web: the port on the host's loopback at which the labelled container answers.
        shown: how many log lines were shown.
    """

    engine: Engine
    registry: Registry
    token: str
    web: int = 0
    shown: int = 0

    @property
    def reference(self) -> str:
        """What the labelled container is configured with."""
        return self.registry.reference("shop/web:stable")

    def push(self, version: str, behaviour: Behaviour = Behaviour.HEALTHY) -> str:
        """Push a version; the registry sends its webhook by itself."""
        return images.push(self.registry, images.web(version, behaviour), "shop/web:stable")

    def lines(self) -> list[dict[str, Any]]:
        """Give the log of the Sidecar container."""
        text = self.engine.docker("logs", "sidecar")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def told(self) -> set[str]:
        """Name the events that it told so far."""
        return {line["event"] for line in self.lines()}

    def show(self) -> None:
        """Show the log lines that came since the last time."""
        lines = self.lines()
        for line in lines[self.shown :]:
            if line["event"] in _SHOWN:
                note(trimmed(line))
        self.shown = len(lines)

    def answer(self) -> str:
        """Ask the labelled container who it is."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.web}/", timeout=2) as response:
                return str(response.read().decode().strip())
        except OSError:
            return ""

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait for something that has to come."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not is_so():
            if time.monotonic() > end:
                message = f"waited {PATIENCE_SECONDS:g} s in vain until {what}\n{self.engine.docker('logs', 'sidecar')}"
                raise AssertionError(message)
            time.sleep(0.1)

    def until_told(self, event: str, digest: str) -> None:
        """Wait for a line of Sidecar's log, and show what led to it."""
        self.until(
            lambda: any(line["event"] == event and line.get("digest") == digest for line in self.lines()),
            f"Sidecar tells {event}",
        )
        self.show()


@contextmanager
def stage(run: Parts) -> Iterator[Stage]:
    """Put up engine, registry, the labelled container and Sidecar as a container."""
    token = secrets.token_urlsafe(24)
    say("Starting a Docker engine and a registry of our own, and building Sidecar; nothing that runs here is touched")
    engine = run.engine(NEW.version)
    hook = engine.reach(_PORT)
    registry = run.registry(notifications=[Notification(url=f"http://127.0.0.1:{hook}/hooks/distribution/{token}")])
    made = Stage(engine, registry, token)
    note(f"engine {engine.docker('version', '--format', '{{.Server.Version}}').strip()}, registry {registry.address}")
    image = sidecar_image(engine)

    say("Running version 1 with the label sidecar.enable=true (and min-ready 1s instead of 10s), and Sidecar beside it")
    made.push("1")
    engine.docker("pull", "--quiet", made.reference)
    engine.docker(
        *("run", "--detach", "--name=web", "--restart=unless-stopped", "--publish=8000:8080"),
        *(
            "--label=sidecar.enable=true",
            "--label=sidecar.min-ready=1s",
            "--label=sidecar.deadline=30s",
            made.reference,
        ),
    )
    made.web = engine.reach(8000)
    group = engine.machine.run("stat", "--format=%g", "/run/docker.sock").stdout.strip()
    engine.docker(
        *("run", "--detach", "--name=sidecar", "--network=host", "--init", "--read-only", "--cap-drop=ALL"),
        *("--volume=/run/docker.sock:/var/run/docker.sock", f"--group-add={group}", "--volume=sidecar-data:/data"),
        *(f"--env=SIDECAR_TOKEN={token}", image),
    )
    # The registry tells of version 1 as soon as somebody listens; that is no part of what follows.
    made.until(lambda: {"delivery.accepted", "target.kept"} <= made.told(), "Sidecar has looked at version 1")
    made.until(lambda: made.answer() == "1", "the container answers")
    made.shown = len(made.lines())
    note(f"the container answers: version {made.answer()}")
    yield made


def play(made: Stage) -> None:
    """Push a good version, then a broken one."""
    say("Pushing version 2: the registry itself calls Sidecar's webhook, and the container is updated")
    began = time.monotonic()
    good = made.push("2")
    made.until_told("rollout.succeeded", good)
    made.until(lambda: made.answer() == "2", "version 2 answers")
    note(f"the container answers: version {made.answer()}, {time.monotonic() - began:.1f} s after the push")

    say("Pushing version 3, whose health check never succeeds: version 2 is put back")
    broken = made.push("3", Behaviour.UNHEALTHY)
    made.until_told("rollout.rolled_back", broken)
    made.until(lambda: made.answer() == "2", "version 2 answers again")
    note(f"the container answers: version {made.answer()}; version 3 is not tried again")


def main() -> int:
    """Show it and clean up."""
    with parts() as run:
        with stage(run) as made:
            play(made)
        say("Cleaning up: engine, registry, containers and images go")
    say("Done. README.md says how to point it at your own containers.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
