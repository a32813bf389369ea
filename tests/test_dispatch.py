"""From deliveries to targets: whom a hint concerns, what becomes of it, and when it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from sidecar.core.hint import Hint
from sidecar.core.image import ImageRef
from sidecar.core.policy import Policy
from sidecar.core.target import Kind, Target
from sidecar.dispatch import Dispatcher
from sidecar.errors import Transient, Unreachable
from sidecar.ports import Delivery, Ports
from sidecar.targets.image import image_target
from tests.core.values import target
from tests.fakes import FakeClock, FakeHints, FakeRegistry, RecordedEvents
from tests.memory_journal import MemoryJournal


class Listing:
    """A driver of which only the list is asked."""

    def __init__(self, *targets: Target, journal: MemoryJournal | None = None) -> None:
        self.targets = list(targets)
        self.journal = journal
        self.failures: list[Exception] = []
        self.asked = 0

    async def list(self) -> Sequence[Target]:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        if self.journal is not None:
            return [image_target(ref) for ref in await self.journal.image_targets()]
        return self.targets


def app(name: str, reference: str, **policy: object) -> Target:
    return target(id=f"docker:{name}", ref=ImageRef.configured(reference), policy=Policy(enable=True, **policy))  # type: ignore[arg-type]


class Office:
    """A dispatcher with what it works with."""

    def __init__(self, *targets: Target, pull: Sequence[str] = (), settle_seconds: float = 0.0) -> None:
        self.clock = FakeClock()
        self.journal = MemoryJournal(clock=self.clock)
        self.events = RecordedEvents()
        self.hints = FakeHints(self.clock)
        self.containers = Listing(*targets)
        self.finished: list[tuple[str, Mapping[str, str]]] = []
        self.bodies: list[bytes] = []
        ports = Ports(
            registry=FakeRegistry(),
            drivers={Kind.DOCKER: self.containers, Kind.IMAGE: Listing(journal=self.journal)},  # type: ignore[dict-item]
            journal=self.journal,
            hints=self.hints,
            clock=self.clock,
            events=self.events,
        )

        def finished(delivery: Delivery, outcomes: Mapping[str, str]) -> None:
            self.finished.append((delivery.id, outcomes))
            self.bodies.append(delivery.body)

        self.dispatcher = Dispatcher(ports, pull_repositories=pull, settle_seconds=settle_seconds, finished=finished)

    async def deliver(self, *references: str, count: int = 1) -> None:
        """Take deliveries that hint at these references, and work on them."""
        for number in range(count):
            delivery = Delivery(
                id=f"d{number}",
                source="generic",
                received_at=self.clock.now(),
                fate="accepted",
                body=b"a large one",
                hints=tuple(Hint(ImageRef.parse(each)) for each in references),
            )
            await self.journal.accept(delivery)
            self.dispatcher.accept(delivery)
        await self.work()

    async def work(self) -> None:
        """Run the loop until there is nothing to do, and stop it."""
        stopping = asyncio.Event()
        task = asyncio.create_task(self.dispatcher.run(stopping))
        for _ in range(50):
            await asyncio.sleep(0)
        stopping.set()
        self.dispatcher.wake()
        await task

    def asked(self) -> list[str]:
        return [name for name, _ in self.hints.asked]

    async def unfinished(self) -> list[str]:
        return [delivery.id for delivery in await self.journal.unfinished_deliveries()]


async def test_a_hint_reaches_every_target_of_its_tag_and_no_other() -> None:
    """Two containers of one reference are two requests; another tag is none."""
    office = Office(app("a", "app:1"), app("b", "app:1"), app("c", "app:2"), app("d", "other:1"))
    await office.deliver("app:1")
    assert office.asked() == ["docker:a", "docker:b"]
    assert office.hints.asked[0][1].delivery_ids == ("d0",)
    assert office.events.named("delivery.matched")[0]["targets"] == ["docker:a", "docker:b"]


async def test_a_hint_without_a_tag_reaches_the_whole_repository() -> None:
    """Every tag may mean something else now."""
    office = Office(app("a", "app:1"), app("c", "app:2"))
    await office.deliver("app")
    assert office.asked() == ["docker:a", "docker:c"]


async def test_however_many_deliveries_wait_the_engine_is_asked_once() -> None:
    """A thousand posts that came together cost one list call."""
    office = Office(app("a", "app:1"))
    await office.deliver("app:1", count=1000)
    assert office.containers.asked == 1
    assert len(office.hints.asked) == 1000


async def test_a_delivery_that_concerns_nobody_is_done() -> None:
    """It is told, and not read again at the next start."""
    office = Office(app("a", "app:1"))
    await office.deliver("other:1")
    assert office.asked() == []
    assert await office.unfinished() == []
    assert office.finished == [("d0", {})]
    assert "no labelled container uses docker.io/library/other:1" in str(office.events.named("delivery.unmatched")[0])


async def test_a_delivery_that_waits_keeps_no_body_in_memory() -> None:
    """What it asks for has been read out of it, and it is on disk for whoever wants to look."""
    office = Office(app("a", "app:1"))
    await office.deliver("other:1")
    assert office.bodies == [b""]


async def test_a_delivery_is_done_once_all_it_concerns_have_been_looked_at() -> None:
    """Not before the last; with what came of each."""
    office = Office(app("a", "app:1"), app("b", "app:1"))
    await office.deliver("app:1")
    await office.dispatcher.done("docker:a", ["d0", "unknown"], "keep: updated")
    await office.dispatcher.done("docker:z", ["d0"], "keep: not asked for")
    assert await office.unfinished() == ["d0"]
    await office.dispatcher.done("docker:b", ["d0"], "hold: rolled back")
    assert await office.unfinished() == []
    assert office.finished == [("d0", {"docker:a": "keep: updated", "docker:b": "hold: rolled back"})]


@pytest.mark.parametrize("pattern, is_kept", [("account/*", True), ("docker.io/account/app", True), ("other", False)])
async def test_an_image_that_nobody_uses_is_kept_pulled_where_that_is_set(pattern: str, is_kept: bool) -> None:
    """The hinted tag becomes an image target, and stays one."""
    office = Office(pull=[pattern])
    await office.deliver("account/app:2")
    assert office.asked() == (["image:docker.io/account/app:2"] if is_kept else [])
    assert [str(ref) for ref in await office.journal.image_targets()] == (
        ["docker.io/account/app:2"] if is_kept else []
    )


async def test_an_image_without_a_tag_is_kept_as_latest() -> None:
    """What has no tag means latest, as the engine would pull it."""
    office = Office(pull=["*"])
    await office.deliver("app")
    assert office.asked() == ["image:docker.io/library/app:latest"]


async def test_an_image_that_a_container_uses_is_no_image_target() -> None:
    """The container is updated; nothing more is kept."""
    office = Office(app("a", "app:1"), pull=["*"])
    await office.deliver("app:1")
    assert office.asked() == ["docker:a"]
    assert await office.journal.image_targets() == []


async def test_hints_of_a_hundred_tags_are_a_hundred_targets() -> None:
    """Each tag is handled for itself, once."""
    office = Office(pull=["*"])
    await office.deliver(*(f"app:{number}" for number in range(100)))
    assert sorted(office.asked()) == sorted(f"image:docker.io/library/app:{number}" for number in range(100))


async def test_an_engine_that_is_away_is_asked_again() -> None:
    """The deliveries stay, and are worked on once it is back."""
    office = Office(app("a", "app:1"))
    office.containers.failures = [Unreachable("no such socket"), Unreachable("no such socket")]
    await office.deliver("app:1")
    assert office.asked() == ["docker:a"]
    assert len(office.events.named("engine.failed")) == 2


async def test_a_journal_that_cannot_say_done_is_told() -> None:
    """Then the delivery is read again at the next start; the line goes on."""
    office = Office(app("a", "app:1"))
    await office.deliver("app:1")
    office.journal.problem = Transient("no space left on device")
    await office.dispatcher.done("docker:a", ["d0"], "keep: updated")
    assert office.events.named("journal.failed")
    assert office.finished


async def test_a_quiet_target_settles_as_its_labels_say_or_as_is_set() -> None:
    """The label wins over the setting."""
    office = Office(app("a", "app:1"), replace(app("b", "app:1", settle_seconds=1.0)), settle_seconds=9.0)
    delays: dict[str, float] = {}
    office.hints.add = lambda name, _cause, *, delay_seconds=0.0: delays.update({name: delay_seconds})  # type: ignore[method-assign]
    await office.deliver("app:1")
    assert delays == {"docker:a": 9.0, "docker:b": 1.0}


async def test_those_that_come_close_behind_share_the_next_look() -> None:
    """A flood of deliveries asks the engine for its containers ten times a second, however many there are."""
    office = Office(app("a", "app:1"))
    begun = office.clock.now()
    await office.deliver("app:1")
    assert office.containers.asked == 1
    assert office.clock.now() - begun == pytest.approx(0.1)
