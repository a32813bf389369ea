"""The queue: leading edge, coalescing, one pass of a target at a time; on a clock that the test owns."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from sidecar.core.decision import Cause
from sidecar.workqueue import WorkQueue


class StepClock:
    """Time that passes only when the test says so; whoever sleeps is woken in order."""

    def __init__(self) -> None:
        self.time = 100.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.time + seconds, future))
        await future

    async def pass_by(self, seconds: float) -> None:
        """Let time pass, and everybody act who is due."""
        end = self.time + seconds
        await settle()
        while due := sorted((each for each in self._sleepers if each[0] <= end), key=lambda each: each[0])[:1]:
            self.time = due[0][0]
            self._sleepers.remove(due[0])
            if not due[0][1].done():
                due[0][1].set_result(None)
            await settle()
        self.time = end


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


class Passes:
    """Passes that end when the test says so."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock
        self.started: list[tuple[str, Cause, float]] = []
        self.running: set[str] = set()
        self.most_of_one = 0
        self.answers: list[float | None] = []
        self.lasts: Callable[[str], Awaitable[None]] | None = None

    async def __call__(self, name: str, cause: Cause) -> float | None:
        assert name not in self.running, "two passes of one target"
        self.running.add(name)
        self.started.append((name, cause, self.clock.time))
        try:
            if self.lasts is not None:
                await self.lasts(name)
        finally:
            self.running.discard(name)
        return self.answers.pop(0) if self.answers else None


@asynccontextmanager
async def working(queue: WorkQueue, passes: Passes) -> AsyncIterator[asyncio.Event]:
    stopping = asyncio.Event()
    task = asyncio.create_task(queue.run(passes, stopping))
    await settle()
    yield stopping
    stopping.set()
    await settle()
    await task


@pytest.fixture
def clock() -> StepClock:
    return StepClock()


@pytest.fixture
def passes(clock: StepClock) -> Passes:
    return Passes(clock)


@pytest.fixture
def queue(clock: StepClock) -> WorkQueue:
    return WorkQueue(clock=clock, debounce_seconds=2.0)


def hint(number: int = 0) -> Cause:
    return Cause("webhook", 1.0 + number, (f"d{number}",))


def listening(queue: WorkQueue, passes: Passes, *, times: int) -> list[Cause | None]:
    """Let the first pass wait so often, as in a gate, and note what it took each time."""
    heard: list[Cause | None] = []

    async def gate(name: str) -> None:
        while len(heard) < times:
            await queue.wait_for_hint(name, 60)
            heard.append(queue.take_hint(name))

    passes.lasts = gate
    return heard


async def test_the_first_hint_of_a_quiet_target_starts_a_pass_at_once(queue: WorkQueue, passes: Passes) -> None:
    """No time passes between the hint and its pass."""
    async with working(queue, passes):
        queue.add("web", hint())
        await settle()
        assert passes.started == [("web", hint(), 100.0)]


async def test_a_thousand_hints_are_at_most_two_passes(queue: WorkQueue, passes: Passes, clock: StepClock) -> None:
    """The first starts one at once; all that come while it runs, or shortly after, are one more together."""
    async with working(queue, passes):
        for number in range(1000):
            queue.add("web", hint(number))
            if number % 100 == 0:
                await settle()
        await clock.pass_by(60)
    assert [when for _, _, when in passes.started] == [100.0, 102.0]
    assert len({one for _, cause, _ in passes.started for one in cause.delivery_ids}) == 1000


async def test_names_that_are_not_asked_for_any_more_are_forgotten(
    queue: WorkQueue, passes: Passes, clock: StepClock
) -> None:
    """Hosts that make containers by the thousand, each under a name of its own, do not fill the memory."""

    def remembered() -> int:
        return sum(type(each).__module__ == "sidecar.workqueue" for each in gc.get_objects())

    async with working(queue, passes):
        before = remembered()
        for number in range(100):
            queue.add(f"job-{number}", hint(number))
            await clock.pass_by(3)
        assert len(passes.started) == 100
        assert remembered() - before < 5


async def test_a_hundred_targets_are_handled_once_each_and_side_by_side(queue: WorkQueue, passes: Passes) -> None:
    """Nobody waits for another target's pass."""
    ends = asyncio.Event()

    async def until_told(name: str) -> None:
        await ends.wait()

    passes.lasts = until_told
    async with working(queue, passes):
        for number in range(100):
            queue.add(f"image-{number}", hint(number))
        await settle()
        assert len(passes.running) == 100
        ends.set()
    assert len(passes.started) == 100


async def test_hints_during_a_pass_are_one_more_pass_after_it(
    queue: WorkQueue, passes: Passes, clock: StepClock
) -> None:
    """One target is always serial."""
    ends = asyncio.Event()

    async def until_told(name: str) -> None:
        await ends.wait()

    passes.lasts = until_told
    async with working(queue, passes):
        queue.add("web", hint(0))
        await clock.pass_by(10)
        queue.add("web", hint(1))
        queue.add("web", hint(2))
        await clock.pass_by(10)
        assert len(passes.started) == 1
        ends.set()
        await clock.pass_by(10)
    assert [cause.delivery_ids for _, cause, _ in passes.started] == [("d0",), ("d1", "d2")]


async def test_a_pass_that_asks_for_another_is_repeated_with_its_cause(
    queue: WorkQueue, passes: Passes, clock: StepClock
) -> None:
    """After the time it gave; the deliveries it answers for are still those."""
    passes.answers = [30.0, None]
    async with working(queue, passes):
        queue.add("web", hint())
        await clock.pass_by(29)
        assert len(passes.started) == 1
        await clock.pass_by(2)
    assert [when for _, _, when in passes.started] == [100.0, 130.0]
    assert passes.started[1][1] == hint()


async def test_a_hint_takes_a_retry_along(queue: WorkQueue, passes: Passes, clock: StepClock) -> None:
    """What is due earlier wins, and both are one pass."""
    passes.answers = [300.0, None]
    async with working(queue, passes):
        queue.add("web", hint(0))
        await clock.pass_by(10)
        queue.add("web", hint(1))
        await clock.pass_by(400)
    assert [when for _, _, when in passes.started] == [100.0, 110.0]


async def test_a_quiet_target_may_be_let_settle(queue: WorkQueue, passes: Passes, clock: StepClock) -> None:
    """The delay counts from the first hint; later ones do not put it off."""
    async with working(queue, passes):
        queue.add("web", hint(0), delay_seconds=5)
        await clock.pass_by(3)
        queue.add("web", hint(1), delay_seconds=5)
        await clock.pass_by(10)
    assert [when for _, _, when in passes.started] == [105.0]


async def test_what_is_added_before_the_queue_runs_is_not_lost(queue: WorkQueue, passes: Passes) -> None:
    """It is started when the queue is."""
    queue.add("web", hint())
    async with working(queue, passes):
        assert queue.depth == 0
    assert len(passes.started) == 1


async def test_a_gate_looks_up_when_somebody_asks(queue: WorkQueue, passes: Passes, clock: StepClock) -> None:
    """A hint ends the wait early and is given to the gate once; the pass after it answers for it as well."""
    heard: list[Cause | None] = []
    waited: list[float] = []

    async def gate(name: str) -> None:
        if not waited:
            before = clock.time
            await queue.wait_for_hint(name, 60)
            waited.append(clock.time - before)
            heard.extend([queue.take_hint(name), queue.take_hint(name)])

    passes.lasts = gate
    async with working(queue, passes):
        queue.add("web", hint(0))
        await clock.pass_by(7)
        queue.add("web", hint(1))
        await clock.pass_by(10)
    assert (waited, heard) == ([7.0], [hint(1), None])
    assert [cause.delivery_ids for _, cause, _ in passes.started] == [("d0",), ("d1",)]


async def test_a_gate_may_be_woken_without_a_pass_being_asked_for(
    queue: WorkQueue, passes: Passes, clock: StepClock
) -> None:
    """What the engine tells lets a gate look at once; it is no request of its own, and nobody else wakes."""
    woken: list[tuple[float, Cause | None]] = []

    async def gate(name: str) -> None:
        await queue.wait_for_hint(name, 60)
        woken.append((clock.time, queue.take_hint(name)))

    passes.lasts = gate
    async with working(queue, passes):
        queue.wake("nobody")
        queue.add("web", hint())
        await clock.pass_by(3)
        queue.wake("web")
        await clock.pass_by(3)
    assert woken == [(103.0, None)]
    assert len(passes.started) == 1


async def test_a_gate_that_is_woken_takes_nothing_that_still_settles(
    queue: WorkQueue, passes: Passes, clock: StepClock
) -> None:
    """A tag that may move a second time is not looked up early because something else happened."""
    heard = listening(queue, passes, times=1)
    async with working(queue, passes):
        queue.add("web", hint(0))
        await clock.pass_by(3)
        queue.add("web", hint(1), delay_seconds=30)
        queue.wake("web")
        await clock.pass_by(60)
    assert heard == [None]
    assert [(cause, at) for _, cause, at in passes.started] == [(hint(0), 100.0), (hint(1), 133.0)]


async def test_a_gate_waits_its_time_when_nobody_asks(queue: WorkQueue, passes: Passes, clock: StepClock) -> None:
    """Without a hint the wait is as long as it was to be."""
    times: list[float] = []

    async def gate(name: str) -> None:
        await queue.wait_for_hint(name, 4)
        times.append(clock.time)

    passes.lasts = gate
    async with working(queue, passes):
        queue.add("web", hint())
        await clock.pass_by(10)
    assert times == [104.0]


async def test_stopping_waits_for_what_runs_and_starts_no_more(queue: WorkQueue, passes: Passes) -> None:
    """A pass in its gate looks up at once; what waits for its turn is left to the next start."""
    left: list[str] = []

    async def gate(name: str) -> None:
        await queue.wait_for_hint(name, 60)
        await queue.wait_for_hint(name, 60)  # once it stops nobody waits
        left.append(name)

    passes.lasts = gate
    async with working(queue, passes) as stopping:
        queue.add("web", hint(0))
        queue.add("later", hint(1), delay_seconds=60)
        await settle()
        stopping.set()
        await settle()
        queue.add("too-late", hint(2))
    assert left == ["web"]
    assert [name for name, _, _ in passes.started] == ["web"]
    assert queue.depth == 2


async def test_what_a_gate_took_is_not_given_again_when_it_is_woken(
    queue: WorkQueue, passes: Passes, clock: StepClock
) -> None:
    """Each event of the engine would ask the registry again, and pull again what could not be pulled."""
    heard = listening(queue, passes, times=3)
    async with working(queue, passes):
        queue.add("web", hint(0))
        await clock.pass_by(3)
        queue.add("web", hint(1))
        for _ in range(2):
            await clock.pass_by(1)
            queue.wake("web")  # the container died, and was started by its policy
        await clock.pass_by(1)
    assert heard == [hint(1), None, None]
