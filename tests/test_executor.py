"""Carrying a rollout to its end where engine, registry, queue or process are in the way."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.decision import Cause, Hold, Keep
from sidecar.core.rollout import Phase, Rollout
from sidecar.errors import Refused, Transient, Unreachable
from tests.fakes import Behaviour, FakeEngine, Killed, digest, failing_first
from tests.memory_journal import MemoryJournal
from tests.test_crash import TARGET, Bomb, World, at_rest, started_first
from tests.test_reconciler import hint_of, line, once, remove

WEBHOOK = Cause("webhook", 0.0, ("newer",))


async def test_a_hint_does_not_shorten_the_pauses_after_failures() -> None:
    """An engine that refuses is not asked as fast as it can answer because somebody asked for the target before."""
    world = World()

    def hint(engine: FakeEngine) -> None:
        if engine.calls[-1] == "stop web":
            engine.fails["rename"] = failing_first(5, Transient("the name is taken"))
            world.hints.hint = WEBHOOK

    world.engine.watch = hint
    began = world.clock.time
    await world.live(passes=1)
    at_rest(world, "b")
    assert world.clock.time - began >= 1 + 2 + 4 + 8 + 16


async def test_a_hint_that_came_during_failures_is_looked_up_in_the_gate() -> None:
    """It was for a newer digest, which takes the place of the older, and its delivery is named."""
    world = World(new=Behaviour(healthy_after=9e9))
    push = hint_of(world, "c")
    failures = [2]

    def refuse() -> Exception | None:
        push()
        failures[0] -= 1
        return Transient("the name is taken") if failures[0] >= 0 else None

    world.engine.fails["rename"] = refuse
    await world.live(passes=1)
    at_rest(world, "c")
    assert world.journal.recorded[-1].delivery_ids == ("newer",)


async def test_what_the_engine_tells_in_a_gate_asks_no_registry() -> None:
    """A container that comes and goes is told of every second, and the tag means nothing else for it."""
    world = World(new=Behaviour(healthy_after=20.0))

    def tell() -> None:
        world.hints.hint = Cause("engine", world.clock.now())

    world.hints.on_wait = tell
    await world.live(passes=1)
    at_rest(world, "b")
    assert len(world.registry.asked) == 1


async def test_told_to_stop_it_takes_nothing_down_any_more() -> None:
    """What was not begun is left to the next start: whoever stops us may not wait for the new one to run."""
    world, stopping = World(), asyncio.Event()
    stopping.set()
    verdict = await line(world.engine, world, stopping).reconcile(TARGET, Cause("test", 0.0))
    assert verdict == Hold("left to the next start: Sidecar stops")
    assert "stop web" not in world.engine.calls
    await world.live()
    at_rest(world, "b")


async def test_told_to_stop_what_waits_for_its_turn_leaves_it() -> None:
    """Others leave their turn in their gates, and each of those that wait would take another service down."""
    world, stopping, turns = World(), asyncio.Event(), asyncio.Semaphore(1)
    reconciler = line(world.engine, world, stopping, turns=turns)
    world.engine.fails["create"] = lambda: Transient("bad parameter")
    await reconciler.run_pass(TARGET, WEBHOOK)
    del world.engine.fails["create"]
    await turns.acquire()
    running = asyncio.ensure_future(reconciler.reconcile(TARGET, WEBHOOK))
    for _ in range(100):
        await asyncio.sleep(0)
    stopping.set()
    turns.release()
    assert await running == Hold("left to the next start: Sidecar stops")
    assert "stop web" not in world.engine.calls


async def test_what_happened_while_it_waited_for_its_turn_counts() -> None:
    """It is looked at once more: what a person stopped meanwhile is not begun."""
    world, turns = World(), asyncio.Semaphore(1)
    reconciler = line(world.engine, world, turns=turns)
    world.engine.fails["create"] = lambda: Transient("bad parameter")
    await reconciler.run_pass(TARGET, WEBHOOK)
    del world.engine.fails["create"]
    calls = len(world.engine.calls)
    await turns.acquire()
    running = asyncio.ensure_future(reconciler.reconcile(TARGET, WEBHOOK))
    for _ in range(100):
        await asyncio.sleep(0)
    world.engine.end(world.engine.named("web") or {}, 143)
    turns.release()
    await running
    assert [call for call in world.engine.calls[calls:] if call.startswith("create")] == []


async def test_told_to_stop_it_brings_up_first_what_it_had_taken_down() -> None:
    """A rollout that was killed after the stop is resumed by a process that is told to end at once."""
    calm = World()
    await calm.live()
    at = max(number for number, name in enumerate(calm.bomb.names, 1) if "stop web" in name)
    world, stopping = World(bomb=Bomb(kill_at={at})), asyncio.Event()
    with pytest.raises(Killed):
        await world.reconciler().reconcile(TARGET, WEBHOOK)
    world.bomb.has_gone_off = False
    stopping.set()
    await line(world.engine, world, stopping).reconcile(TARGET, WEBHOOK)
    assert any(container["up"] for container in world.engine.containers.values())


async def test_a_start_that_cannot_be_put_on_record_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old one runs, so it is held until the journal can be written; nothing is held against the image."""
    world, record = started_first(Bomb()), MemoryJournal.record

    async def refuse(journal: MemoryJournal, rollout: Rollout, *, after: Rollout | None = None) -> None:
        if rollout.start_asked_at is not None:
            message = "the disk is full"
            raise Transient(message)
        await record(journal, rollout, after=after)

    monkeypatch.setattr(MemoryJournal, "record", refuse)
    await world.reconciler().run_pass(TARGET, WEBHOOK)
    assert world.events.named("rollout.delayed") == []
    assert await world.journal.rejected(TARGET, "registry.test/web") == {}


async def test_what_makes_way_for_a_newer_digest_waits_for_its_turn_like_any_other() -> None:
    """It gives its turn back first, or with one turn for all it would wait for itself for ever."""
    world = started_first(Bomb())
    push = hint_of(world, "c")
    failures = [1]

    def refuse() -> Exception | None:
        push()
        failures[0] -= 1
        return Transient("port is already allocated") if failures[0] >= 0 else None

    world.engine.fails["start"] = refuse
    reconciler = line(world.engine, world, turns=asyncio.Semaphore(1))
    await asyncio.wait_for(reconciler.run_pass(TARGET, WEBHOOK), timeout=1.5)
    at_rest(world, "c")


async def test_what_can_be_made_no_more_is_taken_back() -> None:
    """Candidate and image were removed after the stop, and its registry refuses: the old one runs again."""
    world = World()

    def prune(engine: FakeEngine) -> None:
        if engine.calls[-1] == "rename web web.sidecar-old":
            remove(world, "web.sidecar-new")
            del engine.images[world.journal.recorded[-1].to.image_id or ""]
            engine.fails["pull"] = lambda: Refused("manifest unknown")

    world.engine.watch = prune
    verdict = await world.live(passes=1)
    assert world.phases() == [Phase.UPDATING, Phase.ROLLING_BACK, Phase.ROLLED_BACK]
    at_rest(world, "a")
    assert isinstance(verdict, Hold)
    assert "manifest unknown" in verdict.reason
    assert await world.journal.rejected(TARGET, "registry.test/web") == {}


async def test_what_cannot_be_put_back_now_is_tried_without_limit() -> None:
    """The old one and its image were removed as well: until its registry gives it again nothing else can be done."""
    world = World(new=Behaviour(unhealthy_after=4.0))
    refusals = [3]

    def refuse() -> Exception | None:
        refusals[0] -= 1
        return Refused("unauthorized") if refusals[0] >= 0 else None

    def prune() -> None:
        remove(world, "web.sidecar-old")
        del world.engine.images[world.journal.recorded[-1].from_.image_id or ""]
        world.engine.tags.clear()
        world.engine.fails["pull"] = refuse

    world.hints.on_wait = once(prune)
    await world.live(passes=1)
    at_rest(world, "a")
    assert list(await world.journal.rejected(TARGET, "registry.test/web")) == [digest("b")]


async def test_a_start_that_never_reached_the_engine_counts_for_nothing() -> None:
    """Connections that are lost just then say nothing of the image, however many: it is not rejected for them."""
    world = World()
    world.engine.fails["start"] = failing_first(5, Unreachable("connection reset"))
    await world.live(passes=1)
    at_rest(world, "b")
    assert len(world.events.named("rollout.delayed")) == 5


async def test_start_first_a_start_whose_answer_is_lost_is_waited_out_in_the_gate() -> None:
    """It may have been made: the rollout is not left to a later pass with the new one running beside the old one."""
    world = started_first(Bomb())
    world.engine.fails["start"] = failing_first(1, Unreachable("connection reset"))
    verdict = await world.live(passes=1)
    assert isinstance(verdict, Keep)
    at_rest(world, "b")


async def test_start_first_without_a_journal_a_bad_one_is_not_started_without_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What cannot be counted is not tried again."""
    world, record = started_first(Bomb(), restart="no", new=Behaviour(exits_after=1.0)), MemoryJournal.record

    async def refuse(journal: MemoryJournal, rollout: Rollout, *, after: Rollout | None = None) -> None:
        if rollout.goal_starts:
            message = "the disk is full"
            raise Transient(message)
        await record(journal, rollout, after=after)

    monkeypatch.setattr(MemoryJournal, "record", refuse)
    running = asyncio.ensure_future(world.reconciler().run_pass(TARGET, WEBHOOK))
    while len(world.events.named("rollout.delayed")) < 10:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0)
    running.cancel()
    assert world.engine.calls.count("start web.sidecar-new") == 1
