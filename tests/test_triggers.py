"""What enqueues without a delivery: the start, the resync, and the engine's events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sidecar.core.decision import Cause
from sidecar.core.hint import Hint
from sidecar.core.image import ImageRef
from sidecar.core.target import Kind
from sidecar.errors import Unreachable
from sidecar.ports import Delivery, Ports
from sidecar.targets.discovery import Scope
from sidecar.targets.docker import DockerDriver
from sidecar.triggers import Triggers
from tests.core.values import rollout, target
from tests.fakes import FakeClock, FakeHints, FakeRegistry, RecordedEvents
from tests.memory_journal import MemoryJournal


class Listing:
    """A driver of which only the list is asked."""

    def __init__(self, *names: str, project: str | None = None) -> None:
        self.targets = [target(id=f"docker:{name}", project=project) for name in names]
        self.failures: list[Exception] = []

    async def list(self) -> list[Any]:
        if self.failures:
            raise self.failures.pop(0)
        return self.targets


class Telling:
    """An engine that tells events, is away once, and then tells nothing for ever."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self.lives = [list(events)]
        self.pings: list[Exception | None] = []

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        if not self.lives:
            await asyncio.Event().wait()
        for event in self.lives.pop(0):
            yield event
        message = "the engine is away"
        raise Unreachable(message)

    async def ping(self) -> None:
        if self.pings and (failure := self.pings.pop(0)) is not None:
            raise failure


class Queue(FakeHints):
    """A queue that remembers who was woken, and with which delay a pass was asked for."""

    woken: list[str]
    delays: list[float]

    def wake(self, name: str) -> None:
        self.woken.append(name)

    def add(self, name: str, cause: Cause, *, delay_seconds: float = 0.0) -> None:
        self.asked.append((name, cause))
        self.delays.append(delay_seconds)


class Watch:
    """Triggers with what they work with."""

    def __init__(self, listing: Listing, engine: Telling | None = None, known: tuple[str, ...] = ()) -> None:
        self.clock = FakeClock()
        self.queue = Queue(self.clock)
        self.queue.woken, self.queue.delays = [], []
        self.journal = MemoryJournal(clock=self.clock)
        self.events = RecordedEvents()
        self.accepted: list[Delivery] = []
        self.listing = listing
        ports = Ports(
            registry=FakeRegistry(),
            drivers={Kind.DOCKER: listing},  # type: ignore[dict-item]
            journal=self.journal,
            hints=self.queue,
            clock=self.clock,
            events=self.events,
        )
        driver = DockerDriver(None, None, events=self.events, scope=Scope())  # type: ignore[arg-type]
        self.triggers = Triggers(
            ports,
            engine=engine or Telling(),  # type: ignore[arg-type]
            queue=self.queue,  # type: ignore[arg-type]
            dispatcher=self,  # type: ignore[arg-type]
            known=known,
            manages=driver.manages,
        )

    def accept(self, delivery: Delivery) -> None:
        self.accepted.append(delivery)

    def asked(self) -> list[tuple[str, str]]:
        return [(name, cause.kind) for name, cause in self.queue.asked]


def told(action: str, name: str, **attributes: str) -> dict[str, Any]:
    return {"Action": action, "Actor": {"Attributes": {"name": name, **attributes}}}


async def for_a_while(task: asyncio.Task[None]) -> None:
    """Let a loop run, and end it."""
    for _ in range(30):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_start_takes_up_what_was_left_and_looks_at_everything() -> None:
    """Open rollouts, with their deliveries; deliveries that were not finished; every target."""
    watch = Watch(Listing("a", "b"))
    await watch.journal.record(rollout(target_id="docker:gone"))
    delivery = Delivery(
        id="d1", source="generic", received_at=1.0, fate="accepted", hints=(Hint(ImageRef.parse("app:1")),)
    )
    await watch.journal.accept(delivery)
    await watch.triggers.look_at_all(0)
    assert watch.asked() == [("docker:gone", "start-up"), ("docker:a", "start-up"), ("docker:b", "start-up")]
    assert watch.queue.asked[0][1].delivery_ids == ("delivery-1",)
    assert [each.id for each in watch.accepted] == ["d1"]


async def test_of_a_project_one_target_is_asked() -> None:
    """Its pass judges all of them."""
    watch = Watch(Listing("a", "b", "c", project="shop"))
    await watch.triggers.look_at_all(0)
    assert watch.asked() == [("docker:a", "start-up")]


async def test_everything_is_looked_at_again_as_often_as_set() -> None:
    """The resync needs no hint; with 0 there is none."""
    watch = Watch(Listing("a"))
    before = watch.clock.time
    task = asyncio.create_task(watch.triggers.look_at_all(3600))
    await for_a_while(task)
    resyncs = [kind for _, kind in watch.asked() if kind == "resync"]
    assert len(resyncs) >= 2
    assert watch.clock.time >= before + 3600 * len(resyncs)


async def test_an_engine_that_is_away_at_the_start_is_waited_for() -> None:
    """The look is not lost."""
    watch = Watch(Listing("a"))
    watch.listing.failures = [Unreachable("away"), Unreachable("away")]
    await watch.triggers.look_at_all(0)
    assert watch.asked() == [("docker:a", "start-up")]
    assert len(watch.events.named("engine.failed")) == 2


async def test_an_engine_that_comes_back_is_looked_at_as_a_whole() -> None:
    """What happened while nobody listened is found by looking."""
    engine = Telling()
    engine.pings = [Unreachable("still away"), None]
    watch = Watch(Listing("a"), engine)
    await for_a_while(asyncio.create_task(watch.triggers.follow_engine()))
    assert watch.asked() == [("docker:a", "engine")]
    assert watch.events.named("engine.connected")


async def test_what_the_engine_tells_of_a_target_is_a_hint() -> None:
    """A gate looks up at once; a pass is asked for once it is quiet. Candidate and parked one count as the target."""
    watch = Watch(Listing(), known=("docker:web",))
    for name in ("web", "web.sidecar-new", "web.sidecar-old"):
        watch.triggers.take(told("start", name))
    assert watch.queue.woken == ["docker:web"] * 3
    assert watch.asked() == [("docker:web", "engine")] * 3
    assert all(delay > 0 for delay in watch.queue.delays)


async def test_what_compose_calls_otherwise_for_a_moment_is_a_hint_for_what_it_recreates() -> None:
    """By the time of the pass nothing bears that name; one that was left with it and is looked after has its own."""
    labels = {"sidecar.enable": "true", "com.docker.compose.project": "shop"}
    watch = Watch(Listing(), known=("docker:0123456789ab_left",))
    for name in ("0123456789ab_shop-web-1", "0123456789ab_left"):
        watch.triggers.take(told("create", name, **labels))
    assert watch.asked() == [("docker:shop-web-1", "engine"), ("docker:0123456789ab_left", "engine")]


async def test_a_new_container_with_our_label_is_looked_at() -> None:
    """It need not have been seen before."""
    watch = Watch(Listing())
    watch.triggers.take(told("create", "fresh", **{"sidecar.enable": "true"}))
    assert watch.asked() == [("docker:fresh", "engine")]


@pytest.mark.parametrize("labels", [{"sidecar.enable": "true", "sidecar.scope": "theirs"}, {"sidecar.enable": "false"}])
async def test_a_container_that_is_left_alone_is_not_looked_at(labels: dict[str, str]) -> None:
    """The log would say of one that another Sidecar looks after that it does not exist."""
    watch = Watch(Listing())
    watch.triggers.take(told("create", "other", **labels))
    assert watch.asked() == []


async def test_what_says_nothing_about_a_target_is_no_hint() -> None:
    """Other containers, other actions, and events of a shape that nobody expected."""
    watch = Watch(Listing(), known=("docker:web",))
    for event in (told("start", "other"), told("exec_create: sh", "web"), {"Action": "start"}, {}, {"Actor": "x"}):
        watch.triggers.take(event)
    assert watch.asked() == []
    watch.triggers.take(told("health_status: healthy", "web"))
    assert watch.asked() == [("docker:web", "engine")]
