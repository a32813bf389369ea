"""The line in this process, over the real driver and a real engine: many containers are updated side by side.

Only what stands around is simpler than in the daemon: the registry is known to mean what was pushed last, the journal
is in memory, and an open gate is looked at ten times a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sidecar.app import SystemClock
from sidecar.core.decision import Cause
from sidecar.core.image import Digest
from sidecar.core.target import Kind
from sidecar.executor import Executor
from sidecar.ports import Ports
from sidecar.reconciler import Reconciler
from sidecar.targets._engine import Engine
from sidecar.targets.discovery import Scope
from sidecar.targets.docker import DockerDriver
from sidecar.targets.images import Images, Prune
from tests.fakes import FakeHints, FakeRegistry, RecordedEvents
from tests.memory_journal import MemoryJournal
from tests.testbed import images
from tests.testbed.engine import Engine as RealEngine
from tests.testbed.images import Image
from tests.testbed.registry import Registry

Json = dict[str, Any]
SIDE_BY_SIDE = 4
LOOK_SECONDS = 0.1
LABELS = {"sidecar.enable": "true", "sidecar.min-ready": "0.2s", "sidecar.deadline": "10m"}


class ImpatientClock(SystemClock):
    """The real time, in which nobody waits long before looking again."""

    async def sleep(self, seconds: float) -> None:
        """Wait, but not long."""
        await asyncio.sleep(min(seconds, LOOK_SECONDS))


@dataclass
class Line:
    """One engine, one registry, and the line between them."""

    real: RealEngine
    store: Registry
    reconciler: Reconciler
    journal: MemoryJournal
    registry: FakeRegistry
    hints: FakeHints
    events: RecordedEvents
    _calls: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SIDE_BY_SIDE))

    def push(self, image: Image, name: str = "app:1") -> Digest:
        """Push an image; its tag means it from now on."""
        digest = Digest(images.push(self.store, image, name))
        self.registry.tags[self.store.reference(name)] = digest
        return digest

    async def docker(self, *arguments: str) -> str:
        """Run the Docker client."""
        async with self._calls:
            return (await asyncio.to_thread(self.real.docker, *arguments)).strip()

    async def api(self, method: str, path: str, *arguments: Any, **query: Any) -> Any:
        """Ask the engine itself."""
        async with self._calls:
            return await asyncio.to_thread(getattr(self.real.api, method), path, *arguments, **query)

    async def make(self, verb: str, name: str, *options: str, image: str = "app:1", command: Sequence[str] = ()) -> str:
        """Make a labelled container by ``docker run --detach`` or ``docker create``, and give its id."""
        detached = ["--detach"] if verb == "run" else []
        flags = [f"--label={key}={value}" for key, value in LABELS.items()]
        return await self.docker(
            verb, *detached, "--name", name, *flags, *options, self.store.reference(image), *command
        )

    async def post(self, body: Json, name: str, image: str = "app:1") -> None:
        """Make a labelled container by the engine's own JSON."""
        whole = {**body, "Image": self.store.reference(image), "Labels": {**LABELS, **body.get("Labels", {})}}
        await self.api("post", "/containers/create", whole, name=name)

    async def pull(self, image: str = "app:1") -> None:
        """Let the engine's own tag mean what the registry's does."""
        await self.docker("pull", "--quiet", self.store.reference(image))

    async def inspect(self, name: str) -> Json:
        """Give the whole inspect of a container."""
        found: Json = await self.api("get", f"/containers/{name}/json")
        return found

    async def until(self, is_so: Callable[[Json], bool], name: str) -> None:
        """Wait for something that has to come of a container."""
        while not is_so(await self.inspect(name)):  # noqa: ASYNC110  # nobody tells; the test's own limit ends it
            await asyncio.sleep(LOOK_SECONDS)

    async def run_pass(self, name: str) -> str:
        """Do what a hint does, and say what came of it."""
        target = f"docker:{name}"
        await self.reconciler.run_pass(target, Cause("webhook", self.journal.clock.now(), (f"for-{name}",)))
        return self.reconciler.outcome_of(target)

    async def update(self, *names: str) -> None:
        """Update containers side by side; each has to succeed."""
        outcomes = dict(zip(names, await asyncio.gather(*map(self.run_pass, names)), strict=True))
        for name, outcome in outcomes.items():
            told = [(event, facts) for event, facts in self.events.told if facts.get("target") == f"docker:{name}"]
            assert outcome.startswith("keep: updated to"), (name, outcome, told)

    def noted(self, name: str) -> list[str]:
        """Give what was said would be different of a container though nothing is lost."""
        told = self.events.named("rollout.noted")
        return [str(facts["reason"]) for facts in told if facts["target"] == f"docker:{name}"]


@asynccontextmanager
async def open_line(real: RealEngine, store: Registry) -> AsyncIterator[Line]:
    """Put the line together over a real engine."""
    clock, events = ImpatientClock(), RecordedEvents()
    registry, hints, journal = FakeRegistry(), FakeHints(clock), MemoryJournal(clock)
    engine = await Engine.connect(real.host)
    kept = Images(engine, events=events, authorize=_anonymously, prune=Prune.REPLACED)
    driver = DockerDriver(engine, kept, events=events, scope=Scope())
    ports = Ports(
        registry=registry, drivers={Kind.DOCKER: driver}, journal=journal, hints=hints, clock=clock, events=events
    )
    executor = Executor(ports, turns=asyncio.Semaphore(SIDE_BY_SIDE), stopping=asyncio.Event())
    try:
        yield Line(real, store, Reconciler(ports, executor), journal, registry, hints, events)
    finally:
        await engine.close()


async def _anonymously(_: str) -> None:
    return None
