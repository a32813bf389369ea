"""THE LINE: resolve -> observe -> judge -> record -> prepare -> step -> gate -> finish -> record, for one target.

It says in which order things happen; what is right is decided in ``core``, and what is done is done by the adapters.
There is no second path to a rollout, and no recovery: a rollout that a process left open is the first ``if``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sidecar import judging
from sidecar.core.decision import Cause, Hold, Keep
from sidecar.core.order import Member, Verdict, group_of, order
from sidecar.core.rollout import Phase, Rollout
from sidecar.core.target import Image, Target
from sidecar.errors import Postponed, SidecarError, Transient
from sidecar.executor import Executor, facts_of
from sidecar.judging import Asked, Judged
from sidecar.ports import Ports
from sidecar.rfc3339 import written

# Why one target of a project is asked to look at all of it.
_FOR_ALL = frozenset({"start-up", "resync", "engine"})
# How long a target is held after its registry, its pull or the engine failed: doubled each time, to the most.
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS, _MOST_DOUBLINGS = 5.0, 300.0, 10


class Reconciler:
    """Brings targets to what their references mean now.

    Args:
        settle_seconds: how long a quiet target waits after its first hint, where its labels do not say.
    """

    def __init__(self, ports: Ports, executor: Executor, *, settle_seconds: float = 0.0) -> None:
        self._ports = ports
        self._executor = executor
        self._settle_seconds = settle_seconds
        # Who sees the others of its group not begun has begun before any of these sees.
        self._beginning = asyncio.Lock()
        self._in_hand: set[str] = set()
        self._told: dict[str, str | None] = {}
        self._failures: dict[str, int] = {}
        self._passed_on: dict[str, float] = {}
        self.last: dict[str, Judged] = {}

    async def run_pass(self, target_id: str, cause: Cause) -> float | None:
        """Reconcile one target, tell the verdict, and say in how many seconds to look again without being told."""
        try:
            verdict = await self.reconcile(target_id, cause)
        except SidecarError as error:
            verdict = self._hold(target_id, error)
        except Exception as error:  # noqa: BLE001  # the top of the worker: a defect holds one target, not the daemon
            self._ports.events.publish("pass.crashed", target=target_id, error=error)
            verdict = self._hold(target_id, Transient(f"a defect of Sidecar: {type(error).__name__}: {error}"))
        self._tell(target_id, verdict, cause)
        if (retry_at := _retry_at(verdict)) is None:
            self._failures.pop(target_id, None)
            return None
        self._failures[target_id] = min(self._failures.get(target_id, 0) + 1, _MOST_DOUBLINGS)
        return max(retry_at - self._ports.clock.now(), 0.0)

    def outcome_of(self, target_id: str) -> str:
        """Say in a word and a reason what came of the last pass of a target."""
        judged = self.last.get(target_id)
        match judged.verdict if judged is not None else None:
            case Keep(reason=reason):
                return f"keep: {reason}"
            case Hold(reason=reason):
                return f"hold: {reason}"
            case _:
                return "it does not exist any more"

    def is_in_hand(self, target_id: str) -> bool:
        """Say whether a rollout of this target is carried out just now."""
        return target_id in self._in_hand

    async def reconcile(self, target_id: str, cause: Cause) -> Verdict:
        """Bring one target to what its reference means now. Safe to call at any time.

        Raises:
            SidecarError: something failed before anything that runs was touched.
        """
        # A process that died left its rollout open. Finishing it needs no registry.
        rollout = await self._ports.journal.open_rollout(target_id)
        if rollout is not None and rollout.is_prepared:
            target = await self._find(target_id) or rollout.as_target()
            self.last.setdefault(target_id, Judged(target=target, verdict=rollout, is_open=True))
            if not rollout.is_begun:
                await self._pass_on(target, cause)
                if (waits := await self._held_meanwhile(target, rollout)) is not None:
                    return waits
            if not rollout.is_begun and not set(cause.delivery_ids) <= set(rollout.delivery_ids):
                rollout = rollout.asked_by(cause.delivery_ids)  # who asked again is told of its end as well
                await self._ports.journal.record(rollout)
            rollout = await self._carry_out(target, rollout, cause, is_resumed=True)
            if rollout.is_open:
                return Hold("left to the next start: Sidecar stops")
            rollout = None

        group = await self._group(target_id)
        asked = Asked()
        judged = {target.id: await self._judge(target, cause, asked) for target in group}
        mine = judged.get(target_id)
        verdict = mine.verdict if mine is not None else Keep("it does not exist any more")
        if rollout is not None:
            verdict = await self._settle_intent(rollout, verdict)
        if mine is None:
            self.last.pop(target_id, None)
            self._told.pop(target_id, None)
            return verdict

        judged[target_id] = mine = replace(mine, verdict=verdict)
        held = order(self._members(judged))
        if isinstance(verdict, Rollout) and target_id not in held:
            judged = await self._prepare_others(mine, judged, held)
            held = order(self._members(judged))
        verdict = held.get(target_id, verdict)
        others = {name: held.get(name, each.verdict) for name, each in judged.items() if name != target_id}
        self._tell_others(others, cause)
        self._ask_others(target_id, judged, held, cause)
        if isinstance(verdict, Rollout):
            verdict = await self._roll_out(mine.target, verdict, judged, cause)
            self._ask_others(target_id, judged, {}, cause)
            if len(judged) > 1 and _retry_at(verdict) is None:
                # Whoever was hinted at meanwhile may have found us in the way; only a look from now on can tell.
                self._ports.hints.add(target_id, Cause("project", self._ports.clock.now()))
        return verdict

    async def _roll_out(
        self, target: Target, rollout: Rollout, judged: Mapping[str, Judged], cause: Cause
    ) -> Keep | Hold:
        """Record the intent, prepare, record that, and carry it out; unless others of the group began meanwhile."""
        await self._ports.journal.record(rollout)
        self._ports.events.publish("rollout.started", **facts_of(rollout))
        rollout = await self._executor.prepare(target, rollout)
        async with self._beginning:
            if (overtaken := await self._overtaken(rollout, judged)) is not None:
                return overtaken
            await self._ports.journal.record(rollout)
        self._executor.tell_strategy(rollout)
        rollout = await self._carry_out(target, rollout, cause)
        if rollout.phase is Phase.SUCCEEDED and (mine := self.last.get(target.id)) and mine.observed is not None:
            image = Image(id=rollout.to.image_id or "", digests=frozenset(filter(None, [rollout.to.digest])))
            self.last[target.id] = replace(mine, observed=replace(mine.observed, image=image))
        return self._outcome(rollout)

    async def _overtaken(self, mine: Rollout, judged: Mapping[str, Judged]) -> Hold | None:
        """Give the reason to wait after all: preparing takes its time, and the passes of others go on."""
        now = dict(judged)
        for rollout in await self._ports.journal.open_rollouts():
            if rollout.target_id == mine.target_id:
                continue
            # What was prepared and left for later holds up nobody: it looks again before it begins.
            is_going_on = rollout.is_begun or rollout.target_id in self._in_hand
            if is_going_on and judged[mine.target_id].target.is_own:
                retry_at = self._ports.clock.now() + _FIRST_RETRY_SECONDS
                return Hold(f"waits for {rollout.target_id}: Sidecar itself is updated last", retry_at=retry_at)
            if is_going_on and not mine.touches.isdisjoint(rollout.touches):
                retry_at = self._ports.clock.now() + _FIRST_RETRY_SECONDS
                return Hold(f"waits for {rollout.target_id}, whose update has it in hand", retry_at=retry_at)
            if rollout.target_id in now:
                other = now[rollout.target_id]
                now[rollout.target_id] = replace(other, verdict=rollout, is_open=rollout.is_prepared)
        return order(self._members(now)).get(mine.target_id)

    async def _held_meanwhile(self, target: Target, rollout: Rollout) -> Hold | None:
        """Give the reason why what was prepared and never begun has to wait now: others of its group have begun."""
        judged = {each.id: Judged(target=each, verdict=Keep("")) for each in await self._group(target.id)}
        judged[target.id] = Judged(target=target, verdict=rollout)
        async with self._beginning:
            held = await self._overtaken(rollout, judged)
        again = self._ports.clock.now() + _FIRST_RETRY_SECONDS  # nobody asks one whose rollout is open
        return held if held is None or held.retry_at is not None else replace(held, retry_at=again)

    async def _pass_on(self, target: Target, cause: Cause) -> None:
        """Ask for a pass of another one of the group, for this one was to look at all of it and may not come to it."""
        if cause.kind not in _FOR_ALL or self._passed_on.get(target.id) == cause.at:
            return
        self._passed_on[target.id] = cause.at  # once: each try of this one has the same cause
        others = [each for each in await self._group(target.id) if each.id != target.id]
        waiting = {each.target_id for each in await self._ports.journal.open_rollouts() if each.is_prepared}
        if (other := next((each for each in others if each.id not in waiting), None)) is not None:
            self._ports.hints.add(other.id, cause)

    def _members(self, judged: Mapping[str, Judged]) -> list[Member]:
        return [
            Member(
                target=each.target,
                verdict=each.verdict,
                is_open=each.is_open,
                is_in_hand=each.target.id in self._in_hand,
            )
            for each in judged.values()
        ]

    async def _carry_out(self, target: Target, rollout: Rollout, cause: Cause, *, is_resumed: bool = False) -> Rollout:
        self._in_hand.add(target.id)
        try:
            return await self._executor.carry_out(target, rollout, cause, is_resumed=is_resumed)
        except SidecarError:
            # It did not begin: who waited for it, because it was about to, may begin before it is tried again.
            for other in group_of(target, [each.target for each in self.last.values()]):
                if _is_waiting(self.last[other.id].verdict):
                    self._ports.hints.add(other.id, Cause("project", self._ports.clock.now()))
            raise
        finally:
            self._in_hand.discard(target.id)

    def _outcome(self, rollout: Rollout) -> Keep | Hold:
        match rollout.phase:
            case Phase.SUCCEEDED:
                return Keep(f"updated to {rollout.to.digest}")
            case Phase.ABANDONED:
                return Hold(rollout.reason, retry_at=self._ports.clock.now() + _FIRST_RETRY_SECONDS)
            case Phase.ROLLED_BACK | Phase.FAILED:
                return Hold(f"{rollout.phase}: {rollout.reason}", is_failure=True)
            case _:
                return Hold("left to the next start: Sidecar stops")

    async def _find(self, target_id: str) -> Target | None:
        return next((target for target in await self._targets() if target.id == target_id), None)

    async def _targets(self) -> Sequence[Target]:
        return [target for driver in self._ports.drivers.values() for target in await driver.list()]

    async def _group(self, target_id: str) -> Sequence[Target]:
        """Give the target and whatever moves together with it; nothing when it does not exist."""
        targets = await self._targets()
        mine = next((target for target in targets if target.id == target_id), None)
        return group_of(mine, targets) if mine is not None else []

    async def _judge(self, target: Target, cause: Cause, asked: Asked) -> Judged:
        """Look at one target and judge it; what fails is a verdict as well."""
        open_rollout = await self._ports.journal.open_rollout(target.id)
        if open_rollout is not None and open_rollout.is_prepared:
            return Judged(target=target, verdict=open_rollout, is_open=True)
        try:
            judged = await self.look(target, cause, asked)
        except SidecarError as error:
            judged = Judged(target=target, verdict=self._hold(target.id, error))
        self.last[target.id] = judged
        return judged

    async def look(self, target: Target, cause: Cause, asked: Asked | None = None) -> Judged:
        """Resolve, observe and judge; changes nothing.

        Raises:
            SidecarError: registry, engine or journal failed.
        """
        return await judging.look(self._ports, target, cause, {} if asked is None else asked)

    async def _settle_intent(self, intent: Rollout, verdict: Verdict) -> Verdict:
        """Go on with an intent that was recorded and never prepared, or end it where it is no longer what is wanted."""
        if isinstance(verdict, Rollout) and verdict.to.digest == intent.to.digest:
            ids = intent.asked_by(verdict.delivery_ids).delivery_ids
            return replace(verdict, id=intent.id, started_at=intent.started_at, delivery_ids=ids)
        if _retry_at(verdict) is not None:
            return verdict
        reason = "no longer wanted" if isinstance(verdict, Rollout) else verdict.reason
        ended = intent.enter(Phase.SUPERSEDED, reason)
        await self._ports.journal.record(ended)
        self._ports.events.publish("rollout.superseded", **facts_of(ended))
        return verdict

    async def _prepare_others(
        self, mine: Judged, judged: Mapping[str, Judged], held: Mapping[str, Hold]
    ) -> dict[str, Judged]:
        """Prepare everything else of the group that will change, before the first of it is stopped."""
        prepared = dict(judged)
        for other in judged.values():
            if other.target.id == mine.target.id or other.is_open or not isinstance(other.verdict, Rollout):
                continue
            if other.target.id in held and held[other.target.id].is_failure:
                continue  # what it depends on failed: it will not change, and nobody would use what is pulled for it
            try:
                await self._executor.prepare(other.target, other.verdict)
            except SidecarError as error:
                prepared[other.target.id] = replace(other, verdict=self._hold(other.target.id, error))
        return prepared

    def _tell_others(self, verdicts: Mapping[str, Verdict], cause: Cause) -> None:
        """Tell of the others of the group what has become another verdict since they were last told of."""
        for other_id, verdict in verdicts.items():
            if other_id not in self._told or self._told[other_id] != _reason(verdict):
                self._tell(other_id, verdict, cause)
            elif other_id in self.last:
                self.last[other_id] = replace(self.last[other_id], verdict=verdict)

    def _ask_others(self, target_id: str, judged: Mapping[str, Judged], held: Mapping[str, Hold], cause: Cause) -> None:
        """Enqueue what may start now: a push of one image may have been the hint for another.

        Of those that failed one at a time is asked to look again, for its pass looks at the whole group.
        """
        is_failing = _retry_at(judged[target_id].verdict) is not None
        for other in judged.values():
            if other.target.id == target_id or other.is_open or other.target.id in held:
                continue
            hint = Cause("project", cause.at, cause.delivery_ids)
            if isinstance(other.verdict, Rollout):
                self._ports.hints.add(other.target.id, hint, delay_seconds=self._still_settles(other.target, cause))
            elif (retry_at := _retry_at(other.verdict)) is not None and not is_failing:
                is_failing = True
                self._ports.hints.add(other.target.id, hint, delay_seconds=retry_at - self._ports.clock.now())

    def _still_settles(self, target: Target, cause: Cause) -> float:
        """Say how long a target still waits, after a hint that was for another one."""
        if not cause.delivery_ids:
            return 0.0
        settle = target.policy.settle_seconds
        settle = self._settle_seconds if settle is None else settle
        return max(cause.at + settle - self._ports.clock.now(), 0.0)

    def _hold(self, target_id: str, error: SidecarError) -> Hold:
        """Hold a target after a failure: until something changes, or for longer each time in a row."""
        if not isinstance(error, Transient):
            return Hold(str(error), is_failure=True)
        pause = min(_FIRST_RETRY_SECONDS * 2 ** self._failures.get(target_id, 0), _LONGEST_RETRY_SECONDS)
        pause = max(pause, error.retry_after_seconds or 0.0)
        return Hold(str(error), retry_at=self._ports.clock.now() + pause, is_failure=not isinstance(error, Postponed))

    def _tell(self, target_id: str, verdict: Verdict, cause: Cause) -> None:
        """Write the one line that says what came of a pass."""
        facts: dict[str, object] = {"target": target_id, "cause": cause.kind, "delivery_ids": list(cause.delivery_ids)}
        self._told[target_id] = _reason(verdict)
        judged = self.last.get(target_id)
        if judged is not None:
            self.last[target_id] = replace(judged, verdict=verdict)
            facts |= {
                "image": str(judged.target.ref) if judged.target.ref.repository else None,
                "digest": judged.resolved.digest if judged.resolved else None,
            }
        match verdict:
            case Keep(reason=reason):
                self._ports.events.publish("target.kept", reason=reason, **facts)
            case Hold(reason=reason, retry_at=retry_at, is_failure=is_failure):
                again = written(retry_at) if retry_at is not None else None
                facts |= {"retry_at": again, "is_failure": is_failure or None}
                self._ports.events.publish("target.held", reason=reason, **facts)
            case Rollout():
                pass


def _is_waiting(verdict: Verdict) -> bool:
    """Say whether a target waits for something, and is not looked at again by itself."""
    return isinstance(verdict, Hold) and verdict.retry_at is None and not verdict.is_failure


def _retry_at(verdict: Verdict) -> float | None:
    return verdict.retry_at if isinstance(verdict, Hold) else None


def _reason(verdict: Verdict) -> str | None:
    return verdict.reason if isinstance(verdict, Keep | Hold) else None
