"""Shared questions, and the bounded memory."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sidecar.errors import Transient
from sidecar.oci.flight import SingleFlight
from sidecar.oci.recent import Recent


class Question:
    """Counts how often it is asked, and is answered when the test says so."""

    def __init__(self) -> None:
        self.asked = 0
        self.answered = asyncio.Event()

    async def ask(self) -> int:
        self.asked += 1
        mine = self.asked
        await self.answered.wait()
        return mine


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def asker(flights: SingleFlight[int], kind: str) -> Callable[..., Awaitable[int]]:
    return flights.share if kind == "share" else flights.share_fresh


@pytest.mark.parametrize("kind", ["share", "share_fresh"])
async def test_equal_questions_at_one_time_are_asked_once(kind):
    """Three ask, one question goes out, all have its answer; another key is another question."""
    flights, question = SingleFlight[int](), Question()
    tasks = [asyncio.create_task(asker(flights, kind)("a", question.ask)) for _ in range(3)]
    tasks.append(asyncio.create_task(asker(flights, kind)("b", question.ask)))
    await settle()
    question.answered.set()
    assert await asyncio.gather(*tasks) == [1, 1, 1, 2]


@pytest.mark.parametrize("kind", ["share", "share_fresh"])
async def test_a_cancelled_asker_takes_the_answer_from_nobody(kind):
    """The first asker is cancelled; the others still get their answer from the same question."""
    flights, question = SingleFlight[int](), Question()
    first, *others = [asyncio.create_task(asker(flights, kind)("a", question.ask)) for _ in range(3)]
    await settle()
    first.cancel()
    await settle()
    question.answered.set()
    assert await asyncio.gather(*others) == [1, 1]
    assert first.cancelled()


async def test_an_answer_that_does_not_age_serves_who_comes_late():
    """A plain question that is under way is joined."""
    flights, question = SingleFlight[int](), Question()
    early = asyncio.create_task(flights.share("a", question.ask))
    await settle()
    late = asyncio.create_task(flights.share("a", question.ask))
    await settle()
    question.answered.set()
    assert await asyncio.gather(early, late) == [1, 1]


async def test_a_fresh_answer_is_never_older_than_its_question():
    """Those who come while a question is under way are one more together, sent when that has ended."""
    flights, question = SingleFlight[int](), Question()
    early = asyncio.create_task(flights.share_fresh("a", question.ask))
    await settle()
    late = [asyncio.create_task(flights.share_fresh("a", question.ask)) for _ in range(3)]
    await settle()
    assert question.asked == 1
    question.answered.set()
    assert await asyncio.gather(early, *late) == [1, 2, 2, 2]


async def test_an_ended_question_is_asked_anew():
    """Nothing is kept once it is answered."""
    flights, question = SingleFlight[int](), Question()
    question.answered.set()
    assert [await flights.share_fresh("a", question.ask) for _ in range(2)] == [1, 2]
    assert [await flights.share("a", question.ask) for _ in range(2)] == [3, 4]


async def test_a_failure_is_everybodys_and_ends_with_it():
    """All who asked see the failure; the next one asks again."""
    flights = SingleFlight[int]()

    async def fail() -> int:
        msg = "no"
        raise Transient(msg)

    outcomes = await asyncio.gather(*(flights.share_fresh("a", fail) for _ in range(2)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["no", "no"]
    question = Question()
    question.answered.set()
    assert await flights.share_fresh("a", question.ask) == 1


async def test_closing_ends_what_is_under_way():
    """No task outlives its owner."""
    flights, question = SingleFlight[int](), Question()
    tasks = [asyncio.create_task(flights.share_fresh("a", question.ask))]
    await settle()
    tasks.append(asyncio.create_task(flights.share_fresh("a", question.ask)))
    await settle()
    await flights.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert len(asyncio.all_tasks()) == 1


def test_the_memory_keeps_what_is_asked_for():
    """Of too many values the one not asked for longest goes."""
    recent = Recent[str, int](2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert [recent.get(key) for key in "abc"] == [1, None, 3]
    recent.drop("a")
    recent.drop("z")
    assert recent.get("a") is None
