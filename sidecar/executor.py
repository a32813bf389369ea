"""Carries one open rollout to its end: look, decide, act once, record; it never decides by itself.

A process that starts again finds the rollout open and comes here as if nothing had happened: where the containers
stand is read from the engine each time around.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from shlex import quote

from sidecar.core.decide import take_back
from sidecar.core.decision import Cause, Step, Wait
from sidecar.core.gate import LOOK_SECONDS, is_untouched, next_step
from sidecar.core.rollout import Phase, Rollout
from sidecar.core.target import Observed, Target
from sidecar.errors import Refused, SidecarError, Transient, Unreachable
from sidecar.ports import Ports, TargetDriver
from sidecar.superseding import Search

_LONGEST_WORDS = 200
# Between two looks after the engine or the journal failed: doubled each time, to the most.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0


@dataclass(slots=True)
class _Run:
    """One rollout in hand.

    Attributes:
        is_untouched: nothing that runs was changed yet, so it may still be left and tried later.
        asks: on whose behalf a newer digest is to be looked for at the next wait.
        search: looks for one, while the gate is watched.
        has_looked: one was looked for, so that what has not begun yet may begin however often it is asked for.
        has_turn: it counts against what may pull, or be between stop and start, at once.
    """

    target: Target
    driver: TargetDriver
    rollout: Rollout
    is_untouched: bool
    asks: Cause | None
    search: Search | None = None
    has_looked: bool = False
    has_turn: bool = False
    is_left: bool = False
    pause_seconds: float = _FIRST_PAUSE_SECONDS

    @property
    def may_be_overtaken(self) -> bool:
        """Say whether a newer digest would take its place and one is looked for, or is to be."""
        is_asked = self.asks is not None or self.search is not None
        return is_asked and self.rollout.phase is Phase.UPDATING


def _is_over(rollout: Rollout) -> bool:
    return not rollout.is_open


class Executor:
    """Acts on engine and journal.

    Args:
        turns: how many targets may pull, or be between stop and start, at once. Who only waits in a gate holds none,
            unless something newer is pulled for it; and what is down already goes on without one if there is none.
        stopping: the process ends; what waits in a gate is left to the next start.
    """

    def __init__(self, ports: Ports, *, turns: asyncio.Semaphore, stopping: asyncio.Event) -> None:
        self._ports = ports
        self._drivers = ports.drivers
        self._journal = ports.journal
        self._hints = ports.hints
        self._clock = ports.clock
        self._events = ports.events
        self._turns = turns
        self._stopping = stopping

    async def prepare(self, target: Target, rollout: Rollout) -> Rollout:
        """Do all that can fail cheaply, in turn; nothing that runs is touched and nothing is recorded.

        Raises:
            Transient, Refused: it could not be prepared.
        """
        async with self._turns:
            return await self._drivers[target.kind].prepare(target, rollout)

    def tell_strategy(self, rollout: Rollout) -> None:
        """Say of a rollout that is prepared, once, if it goes another way than its labels ask for."""
        if rollout.strategy_note:
            facts = {"target": rollout.target_id, "rollout_id": rollout.id, "reason": rollout.strategy_note}
            self._events.publish("rollout.noted", **facts)

    async def carry_out(
        self,
        target: Target,
        rollout: Rollout,
        cause: Cause,
        *,
        is_resumed: bool = False,
        until: Callable[[Rollout], bool] = _is_over,
    ) -> Rollout:
        """Drive a prepared rollout, or what takes its place, until it is final; or until the process has to end.

        Args:
            until: says of a value whether somebody else goes on from there.

        Raises:
            Transient, Refused: engine, registry or journal failed before anything that runs was touched.
        """
        driver, asks = self._drivers[target.kind], cause if is_resumed else None
        run = _Run(target, driver, rollout, is_untouched=not is_resumed, asks=asks)
        try:
            while not until(run.rollout) and not run.is_left:
                await self._advance(run)
        finally:
            self._give_turn(run)
            await self._end_search(run)
        return run.rollout

    async def _advance(self, run: _Run) -> None:
        """Look once and act once; an engine or a journal that fails is looked at again later, without limit."""
        try:
            observed = await run.driver.observe(run.target, run.rollout)
            run.is_untouched = is_untouched(run.rollout, observed)
            await self._act(run, next_step(run.rollout, observed), observed)
            run.pause_seconds = _FIRST_PAUSE_SECONDS
        except (Transient, Refused) as error:
            is_in_vain = isinstance(error, Refused) and run.rollout.is_begun  # its candidate stays nowhere
            if run.is_untouched and not run.rollout.is_started_beside and not is_in_vain:
                raise
            self._publish("rollout.delayed", run.rollout, reason=str(error))
            if isinstance(error, Refused) and (taken_back := take_back(run.rollout, str(error))) is not None:
                await self._enter(run, taken_back)
                return
            # What was asked for before is kept for the gate: a hint that nobody took would make every pause none.
            self._take_hint(run)
            await self._wait(run, run.pause_seconds)
            run.pause_seconds = min(run.pause_seconds * 2, _LONGEST_PAUSE_SECONDS)

    async def _act(self, run: _Run, decision: Rollout | Step | Wait, observed: Observed) -> None:
        match decision:
            case Rollout():
                await self._enter(run, decision)
            # Whatever takes its time ends the round: the call is chosen by a look that is not older than that.
            case Step() if run.is_untouched and self._stopping.is_set():
                run.is_left = True  # later we may be killed at any time, with the old one stopped
            case Step() if run.is_untouched and run.may_be_overtaken and not run.has_looked:
                self._give_turn(run)
                # What was held before it touched anything may be overtaken, and is in no hurry.
                if not await self._make_way(run) and run.search is not None:
                    await self._wait(run, LOOK_SECONDS)
            case Step() if not run.has_turn and (self._waits_for_turn(run) or run.search is not None):
                await self._take_turn(run)
            case Step(is_start=is_start):
                await (self._start(run, observed) if is_start else self._step(run, observed))
            case Wait(seconds=seconds):
                self._give_turn(run)
                if not await self._make_way(run):
                    await self._wait(run, seconds)

    async def _step(self, run: _Run, observed: Observed) -> None:
        await self._record(run, await run.driver.step(run.target, run.rollout, observed))

    async def _start(self, run: _Run, observed: Observed) -> None:
        """Make a start that is on record, and count it; of one whose answer is lost the engine shows if it counts."""
        await self._record(run, replace(run.rollout, start_asked_at=observed.now))
        starts = run.rollout.goal_starts + 1
        try:
            started = await run.driver.step(run.target, run.rollout, observed)
        except Unreachable:
            raise
        except SidecarError:
            await self._record(run, replace(run.rollout, goal_starts=starts, start_asked_at=None))
            raise
        await self._record(run, replace(started, goal_starts=starts, start_asked_at=None))

    async def _enter(self, run: _Run, rollout: Rollout) -> None:
        """Record a new value of the rollout; a new phase is told, and what the failed one said last is kept."""
        has_new_phase = rollout.phase is not run.rollout.phase
        if has_new_phase and rollout.rejected is not None and not rollout.log_tail:
            rollout = _with_last_words(rollout, await run.driver.log_tail(run.target, run.rollout))
        if has_new_phase and rollout.phase is Phase.FAILED:
            rollout = replace(rollout, recovery=tuple(await run.driver.recovery(run.target, rollout)))
        if not rollout.is_open:
            # Before the end is on record: killed in between, the next start comes by here again.
            await run.driver.tidy(run.target, rollout)
        await self._record(run, rollout)
        if has_new_phase:
            duration = round(self._clock.now() - rollout.started_at, 3)
            self._publish(f"rollout.{rollout.phase}", rollout, duration_seconds=duration, **_last_facts(rollout))

    async def _record(self, run: _Run, rollout: Rollout) -> None:
        """Keep a value before anything follows from it; once something was touched, memory and engine must do."""
        if rollout == run.rollout:
            return
        before, run.rollout = run.rollout, rollout
        try:
            await self._journal.record(rollout)
        except Transient as error:
            if run.is_untouched:
                run.rollout = before  # what is not on record has not come about, as long as the old one runs
                raise
            self._publish("journal.failed", rollout, reason=str(error))

    async def _make_way(self, run: _Run) -> bool:
        """Let a newer digest take the place of the one in the gate, once one was hinted at, found and prepared."""
        self._take_hint(run)
        if run.rollout.phase is not Phase.UPDATING:
            return False  # it is carried to its end first, and the pass after this one looks again
        if run.search is None and run.asks is not None:
            run.search = Search(self._ports, run.target, run.rollout, run.asks, turns=self._turns)
            run.asks = None
        if run.search is None or not run.search.is_done:
            return False
        search, run.search, run.has_looked = run.search, None, True
        try:
            pair = search.superseded_by(run.rollout)
            if pair is None:
                return False
            ended, newer = pair
            # Until the newer one can act the older stays in charge, so both are recorded in one breath.
            await self._journal.record(newer, after=ended)
        except SidecarError as error:
            self._publish("rollout.delayed", run.rollout, reason=f"looking for a newer digest: {error}")
            return False
        run.rollout = newer
        self._publish("rollout.superseded", ended)
        self._publish("rollout.started", newer)
        self.tell_strategy(newer)
        return True

    async def _end_search(self, run: _Run) -> None:
        """Look no further for now; what somebody asked for is looked for at the next wait."""
        if run.search is not None:
            await run.search.end()
            run.asks = run.search.cause.merged(run.asks) if run.asks is not None else run.search.cause
            run.search = None

    def _take_hint(self, run: _Run) -> None:
        """Take what somebody asks for along, for the next wait; what happens to containers says nothing about a tag."""
        hinted = self._hints.take_hint(run.target.id)
        if hinted is not None and hinted.kind != "engine":
            run.asks = run.asks.merged(hinted) if run.asks is not None else hinted

    async def _wait(self, run: _Run, seconds: float) -> None:
        if self._stopping.is_set():
            run.is_left = True
            return
        hint = self._hints.wait_for_hint(run.target.id, seconds)
        await (hint if run.search is None or run.search.is_done else run.search.wait(hint))

    def _waits_for_turn(self, run: _Run) -> bool:
        """Say whether it takes a turn first; what is down is never kept so by those who have them all."""
        return run.is_untouched or not self._turns.locked()

    async def _take_turn(self, run: _Run) -> None:
        """Be what is next: with the turn in which something is prepared for later, if there is one."""
        run.has_turn = run.search is not None and run.search.hand_over_turn()
        await self._end_search(run)
        if not run.has_turn and self._waits_for_turn(run):
            await self._turns.acquire()
            run.has_turn = True

    def _give_turn(self, run: _Run) -> None:
        if run.has_turn:
            self._turns.release()
            run.has_turn = False

    def _publish(self, event: str, rollout: Rollout, **more: object) -> None:
        self._events.publish(event, **(facts_of(rollout) | more))


def _with_last_words(rollout: Rollout, log_tail: str) -> Rollout:
    """Keep what the failed one said last, and the last line of it in the reason: its container will be gone."""
    lines = log_tail.strip().splitlines()
    reason = f"{rollout.reason}; its last words: {lines[-1][:_LONGEST_WORDS]!r}" if lines else rollout.reason
    return replace(rollout, reason=reason, log_tail=log_tail)


def _last_facts(rollout: Rollout) -> dict[str, object]:
    """Give what is told of a failure: what the failed one said, and what helps; no environment is in it."""
    facts: dict[str, object] = {"log_tail": rollout.log_tail} if rollout.log_tail else {}
    if rollout.phase in (Phase.ROLLED_BACK, Phase.FAILED):
        facts["spec"] = f"sidecar show {quote(rollout.target_id)} --spec"
    return facts | ({"recovery": list(rollout.recovery)} if rollout.recovery else {})


def facts_of(rollout: Rollout) -> dict[str, object]:
    """Give the keys by which every log line of a rollout can be found."""
    facts: dict[str, object] = {
        "target": rollout.target_id,
        "rollout_id": rollout.id,
        "image": rollout.ref,
        "digest": rollout.to.digest,
        "from_digest": rollout.from_.digest,
        "phase": rollout.phase,
        "cause": rollout.cause,
        "delivery_ids": list(rollout.delivery_ids),
    }
    return facts | ({"reason": rollout.reason} if rollout.reason else {})
