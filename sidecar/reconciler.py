"""THE LINE: resolve -> observe -> judge -> record -> prepare -> step -> gate -> finish -> record, for one target.

It says in which order things happen; what is right is decided in ``core``, and what is done is done by the adapters.
There is no second path to a rollout, and no recovery: a rollout that a process left open is the first ``if``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sidecar.core.decide import Cause, Hold, Keep, Resolved, hold_unasked, judge, judge_unresolved
from sidecar.core.image import ImageRef
from sidecar.core.order import Member, Verdict, order
from sidecar.core.rollout import Phase, Rollout
from sidecar.core.target import Observed, Target
from sidecar.errors import Refused, SidecarError, Transient
from sidecar.executor import Executor, facts_of
from sidecar.ids import new_id
from sidecar.ports import Ports
from sidecar.rfc3339 import written

# How long a target is held after its registry, its pull or the engine failed: doubled each time, to the most.
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS, _MOST_DOUBLINGS = 5.0, 300.0, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One look at one target: what was found, and what follows."""

    target: Target
    verdict: Verdict
    resolved: Resolved | None = None
    observed: Observed | None = None
    is_open: bool = False


class Reconciler:
    """Brings targets to what their references mean now."""

    def __init__(self, ports: Ports, executor: Executor) -> None:
        self._ports = ports
        self._executor = executor
        self._failures: dict[str, int] = {}
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

    async def reconcile(self, target_id: str, cause: Cause) -> Verdict:
        """Bring one target to what its reference means now. Safe to call at any time.

        Raises:
            SidecarError: something failed before anything that runs was touched.
        """
        # A process that died left its rollout open. Finishing it needs no registry.
        rollout = await self._ports.journal.open_rollout(target_id)
        if rollout is not None and rollout.is_prepared:
            target = await self._find(target_id) or rollout.as_target()
            rollout = await self._executor.carry_out(target, rollout, cause, is_resumed=True)
            if rollout.is_open:
                return Hold("left to the next start: Sidecar stops")
            rollout = None

        group = await self._group(target_id)
        before, asked = dict(self.last), dict[ImageRef, Resolved]()
        judged = {target.id: await self._judge(target, cause, asked) for target in group}
        for other_id in judged.keys() - {target_id}:
            if other_id not in before or _reason(before[other_id].verdict) != _reason(judged[other_id].verdict):
                self._tell(other_id, judged[other_id].verdict, cause)
        mine = judged.get(target_id)
        verdict = mine.verdict if mine is not None else Keep("it does not exist any more")
        if rollout is not None:
            verdict = await self._settle_intent(rollout, verdict)
        if mine is None:
            return verdict

        judged[target_id] = mine = replace(mine, verdict=verdict)
        if isinstance(verdict, Rollout):
            judged = await self._prepare_others(mine, judged)
        held = order(_members(judged))
        verdict = held.get(target_id, verdict)
        self._ask_others(target_id, judged, held, cause)
        if isinstance(verdict, Rollout):
            verdict = await self._roll_out(mine.target, verdict, cause)
            self._ask_others(target_id, judged, {}, cause)
        return verdict

    async def _roll_out(self, target: Target, rollout: Rollout, cause: Cause) -> Keep | Hold:
        """Record the intent, prepare, record that, and carry it out."""
        await self._ports.journal.record(rollout)
        self._ports.events.publish("rollout.started", **facts_of(rollout))
        rollout = await self._executor.prepare(target, rollout)
        await self._ports.journal.record(rollout)
        self._executor.tell_strategy(target, rollout)
        return self._outcome(await self._executor.carry_out(target, rollout, cause))

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
        if mine is None or mine.project is None:
            return [mine] if mine is not None else []
        return [target for target in targets if target.project == mine.project and target.kind is mine.kind]

    async def _judge(self, target: Target, cause: Cause, asked: dict[ImageRef, Resolved]) -> Judged:
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

    async def look(self, target: Target, cause: Cause, asked: dict[ImageRef, Resolved] | None = None) -> Judged:
        """Resolve, observe and judge; changes nothing.

        Args:
            asked: what was resolved in this pass already: one question for each reference, however many containers.

        Raises:
            SidecarError: registry, engine or journal failed.
        """
        if (held := hold_unasked(target)) is not None:
            return Judged(target=target, verdict=held)
        driver, asked = self._ports.drivers[target.kind], {} if asked is None else asked
        if target.ref not in asked:
            try:
                asked[target.ref] = await self._resolve(target, cause)
            except Refused as error:
                observed = await driver.observe(target, None)
                return Judged(target=target, verdict=judge_unresolved(target, observed, str(error)), observed=observed)
        observed = await driver.observe(target, None)
        resolved, observed = await self._compare_platforms(target, asked[target.ref], observed)
        rejected = await self._ports.journal.rejected(target.service, target.ref.name)
        verdict = judge(target, resolved, observed, rejected=rejected, cause=cause, rollout_id=new_id())
        return Judged(target=target, verdict=verdict, resolved=resolved, observed=observed)

    async def _resolve(self, target: Target, cause: Cause) -> Resolved:
        resolved = await self._ports.registry.resolve(target.ref)
        await self._ports.journal.note_digest(target.ref.name, resolved.digest)
        self._ports.events.publish(
            "image.resolved", image=str(target.ref), digest=resolved.digest, target=target.id, cause=cause.kind
        )
        return resolved

    async def _compare_platforms(
        self, target: Target, resolved: Resolved, observed: Observed
    ) -> tuple[Resolved, Observed]:
        """Find out what else both sides are known by: an index may have changed for another platform only."""
        image = observed.image
        if image is None or resolved.identities & image.identities:
            return resolved, observed
        registry = self._ports.registry
        wanted = await registry.identities(target.ref, resolved.digest, platform=image.platform)
        resolved = replace(resolved, identities=resolved.identities | wanted)
        if wanted & image.identities or image.id not in image.digests:
            return resolved, observed
        # On the containerd store an image's id is the digest of its index, so the old index is looked into as well.
        aliases: frozenset[str] = frozenset()
        for digest in image.digests:
            try:
                aliases |= await registry.identities(target.ref, digest, platform=image.platform)
            except Refused:
                continue  # the registry has forgotten the old one: then it is another one
        return resolved, replace(observed, image=replace(image, aliases=aliases))

    async def _settle_intent(self, intent: Rollout, verdict: Verdict) -> Verdict:
        """Go on with an intent that was recorded and never prepared, or end it where it is no longer what is wanted."""
        if isinstance(verdict, Rollout) and verdict.to.digest == intent.to.digest:
            ids = tuple(dict.fromkeys(intent.delivery_ids + verdict.delivery_ids))
            return replace(verdict, id=intent.id, started_at=intent.started_at, delivery_ids=ids)
        if _retry_at(verdict) is not None:
            return verdict
        reason = "no longer wanted" if isinstance(verdict, Rollout) else verdict.reason
        ended = intent.enter(Phase.SUPERSEDED, reason)
        await self._ports.journal.record(ended)
        self._ports.events.publish("rollout.superseded", **facts_of(ended))
        return verdict

    async def _prepare_others(self, mine: Judged, judged: Mapping[str, Judged]) -> dict[str, Judged]:
        """Prepare everything else of the group that will change, before the first of it is stopped."""
        prepared = dict(judged)
        for other in judged.values():
            if other.target.id == mine.target.id or other.is_open or not isinstance(other.verdict, Rollout):
                continue
            try:
                await self._executor.prepare(other.target, other.verdict)
            except SidecarError as error:
                prepared[other.target.id] = replace(other, verdict=self._hold(other.target.id, error))
        return prepared

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
                self._ports.hints.add(other.target.id, hint)
            elif (retry_at := _retry_at(other.verdict)) is not None and not is_failing:
                is_failing = True
                self._ports.hints.add(other.target.id, hint, delay_seconds=retry_at - self._ports.clock.now())

    def _hold(self, target_id: str, error: SidecarError) -> Hold:
        """Hold a target after a failure: until something changes, or for longer each time in a row."""
        if not isinstance(error, Transient):
            return Hold(str(error), is_failure=True)
        pause = min(_FIRST_RETRY_SECONDS * 2 ** self._failures.get(target_id, 0), _LONGEST_RETRY_SECONDS)
        pause = max(pause, error.retry_after_seconds or 0.0)
        return Hold(str(error), retry_at=self._ports.clock.now() + pause, is_failure=True)

    def _tell(self, target_id: str, verdict: Verdict, cause: Cause) -> None:
        """Write the one line that says what came of a pass."""
        facts: dict[str, object] = {"target": target_id, "cause": cause.kind, "delivery_ids": list(cause.delivery_ids)}
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
            case Hold(reason=reason, retry_at=retry_at):
                again = written(retry_at) if retry_at is not None else None
                self._ports.events.publish("target.held", reason=reason, retry_at=again, **facts)
            case Rollout():
                pass


def _members(judged: Mapping[str, Judged]) -> list[Member]:
    return [Member(target=each.target, verdict=each.verdict, is_open=each.is_open) for each in judged.values()]


def _retry_at(verdict: Verdict) -> float | None:
    return verdict.retry_at if isinstance(verdict, Hold) else None


def _reason(verdict: Verdict) -> str | None:
    return verdict.reason if isinstance(verdict, Keep | Hold) else None
