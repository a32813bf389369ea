"""Many callers, few commits."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

import pytest

from sidecar import group_commit
from sidecar.errors import Transient
from sidecar.group_commit import GroupCommit


@dataclass
class HeldThread(Executor):
    """A thread that works when it is told to."""

    calls: list[Callable[[], None]] = field(default_factory=list)

    def submit(self, function, /, *args) -> Future:
        self.calls.append(lambda: function(*args))
        return Future()

    def work(self) -> None:
        self.calls.pop(0)()


@dataclass
class Disk:
    batches: list[list[str]] = field(default_factory=list)
    problem: Exception | None = None

    def commit(self, batch) -> None:
        if self.problem is not None:
            raise self.problem
        self.batches.append(list(batch))


@pytest.fixture
def thread():
    return HeldThread()


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
async def commits(thread: HeldThread, disk: Disk):
    return GroupCommit(thread, disk.commit)


def add(commits: GroupCommit, *items: str) -> list[asyncio.Future]:
    return [asyncio.ensure_future(commits.add(item, size_bytes=1)) for item in items]


async def turn() -> None:
    """Let everything run that is ready."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_who_come_together_are_one_batch(commits: GroupCommit, thread: HeldThread, disk: Disk):
    """Callers of one turn of the loop are handed over once, in order, and wait until they are committed."""
    callers = add(commits, "a", "b", "c")
    await turn()
    assert len(thread.calls) == 1
    assert not any(caller.done() for caller in callers)
    thread.work()
    await asyncio.gather(*callers)
    assert disk.batches == [["a", "b", "c"]]


async def test_those_who_come_meanwhile_are_the_next_batch(commits: GroupCommit, thread: HeldThread, disk: Disk):
    """While a batch is committed the next gathers, with the callers of the first that come again."""

    async def twice() -> None:
        await commits.add("first", size_bytes=1)
        await commits.add("again", size_bytes=1)

    caller = asyncio.ensure_future(twice())
    await turn()
    later = add(commits, "a", "b")
    await turn()
    assert len(thread.calls) == 1
    thread.work()
    await turn()
    thread.work()
    await asyncio.gather(caller, *later)
    assert disk.batches == [["first"], ["a", "b", "again"]]
    assert thread.calls == []


@pytest.mark.parametrize(
    "problem, told",
    [(Transient("no space"), "no space"), (ZeroDivisionError("oh"), r"keeping a delivery: ZeroDivisionError\('oh'\)")],
)
async def test_everybody_is_told_of_a_failure(commits: GroupCommit, thread: HeldThread, disk: Disk, problem, told):
    """When a batch fails, for whatever reason, each of its callers gets an error of its own; the next batch may do."""
    disk.problem = problem
    callers = add(commits, "a", "b")
    await turn()
    thread.work()
    for caller in callers:
        with pytest.raises(Transient, match=told):
            await caller
    assert callers[0].exception() is not callers[1].exception()
    disk.problem = None
    callers = add(commits, "c")
    await turn()
    thread.work()
    await asyncio.gather(*callers)
    assert disk.batches == [["c"]]


@pytest.mark.parametrize("bound", ["MOST_WAITING", "MOST_WAITING_BYTES"])
async def test_no_more_is_taken_than_can_wait(commits: GroupCommit, thread: HeldThread, monkeypatch, bound: str):
    """With too much waiting a caller is told to come again; once it is committed, others are taken."""
    monkeypatch.setattr(group_commit, bound, 2)
    callers = add(commits, "a", "b")
    await turn()
    with pytest.raises(Transient, match="2 others wait for the disk") as refusal:
        await commits.add("c", size_bytes=1)
    assert refusal.value.retry_after_seconds == 1.0
    thread.work()
    await asyncio.gather(*callers)
    callers = add(commits, "d")
    await turn()
    thread.work()
    await asyncio.gather(*callers)


async def test_a_caller_that_goes_away_changes_nothing(commits: GroupCommit, thread: HeldThread, disk: Disk):
    """A cancelled caller's item is committed with the batch, and the others are answered."""
    callers = add(commits, "a", "b")
    await turn()
    callers[0].cancel()
    await turn()
    thread.work()
    await callers[1]
    assert callers[0].cancelled()
    assert disk.batches == [["a", "b"]]
