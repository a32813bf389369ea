"""A rollout: one attempt to move one target from one digest to another; pure data, and the table of its phases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sidecar.core.image import Digest, ImageRef
from sidecar.core.policy import Policy, Strategy
from sidecar.core.target import Kind, State, Target


class Phase(StrEnum):
    """Where a rollout stands in Sidecar's own account; where the containers stand is read from the engine."""

    UPDATING = "updating"
    FINISHING = "finishing"
    ROLLING_BACK = "rolling_back"
    SUCCEEDED = "succeeded"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    ABANDONED = "abandoned"


# The whole state machine: what follows an open phase. A phase that is no key is final.
NEXT: Mapping[Phase, frozenset[Phase]] = {
    Phase.UPDATING: frozenset({Phase.FINISHING, Phase.ROLLING_BACK, Phase.SUPERSEDED, Phase.ABANDONED}),
    Phase.FINISHING: frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.ABANDONED}),
    Phase.ROLLING_BACK: frozenset({Phase.ROLLED_BACK, Phase.FAILED, Phase.ABANDONED}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One of the two ends of a rollout.

    Attributes:
        digest: what the registry knows it by; None for an image that was never pulled.
        image_id: the engine's identifier of it, once it is there.
        instance: the container (or image) that embodies it, once there is one.
    """

    digest: Digest | None = None
    image_id: str | None = None
    instance: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What the engine cannot tell of one rollout. The journal keeps each of its values.

    Attributes:
        service, repository: what a rejected digest is remembered for.
        ref: the reference as configured.
        cause: why it began, in a word; delivery_ids are the deliveries that asked for it.
        started_at: when the pass began that started it (our clock, seconds since 1970).
        strategy: the one in force; strategy_note says why it is not the one that the labels ask for.
        drain_seconds: started first, how long both answer before the old one is stopped.
        run_state: the state of the old container that the new one is left in.
        plan: what the driver prepared, for the driver only; None until everything that can fail cheaply is done.
        dependents: ids of targets that are stopped, made again or started anew together with this one.
        auto_remove: the engine removes its container as soon as that ends (``--rm``), so none is ever put aside.
        superseded: the instance of a rollout that this one took the place of, which is in the way.
        goal_started_at: first start of the container that this phase wants to see running (engine's clock).
        goal_starts: how often we have started it.
        start_asked_at: when we set out to start it (engine's clock), as long as it is not known whether we did.
        changed_at: when it was first seen that somebody else had changed the target (engine's clock).
        settled: the gate is passed, of a rollback or of one that was started first; what is left is to restore its
            state, or to let it take the place of the old one.
        drained_at: since when both answer (engine's clock).
        is_taken_back: somebody stopped the new container in its gate, or it could not be made any more: which says
            nothing against its image.
        is_broken: the gate failed and nothing is put back, as its labels ask.
        reason: why the phase was entered; empty while all goes well.
        log_tail: the last lines of the container that failed its gate.
        recovery: the commands by which a person puts the old one back, where that failed.
    """

    id: str
    target_id: str
    service: str
    repository: str
    ref: str
    cause: str
    started_at: float
    delivery_ids: tuple[str, ...] = ()
    strategy: Strategy = Strategy.STOP_FIRST
    strategy_note: str = ""
    drain_seconds: float = 10.0
    min_ready_seconds: float
    deadline_seconds: float
    rollback: bool = True
    platform: str
    from_: Revision
    to: Revision
    run_state: State
    phase: Phase = Phase.UPDATING
    plan: Mapping[str, Any] | None = None
    dependents: tuple[str, ...] = ()
    auto_remove: bool = False
    superseded: str | None = None
    goal_started_at: float | None = None
    goal_starts: int = 0
    start_asked_at: float | None = None
    changed_at: float | None = None
    settled: bool = False
    drained_at: float | None = None
    is_taken_back: bool = False
    is_broken: bool = False
    reason: str = ""
    log_tail: str = ""
    recovery: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Say whether something remains to be done."""
        return self.phase in NEXT

    @property
    def is_prepared(self) -> bool:
        """Say whether the engine may be changed: until then the rollout is only an intent."""
        return self.plan is not None

    @property
    def is_begun(self) -> bool:
        """Say whether a container was ever made for it: until then nothing that runs was touched."""
        return self.to.instance is not None or self.superseded is not None

    @property
    def is_beside(self) -> bool:
        """Say whether the new one is started beside the old one, and has not taken its place yet as far as we know."""
        return self.strategy is Strategy.START_FIRST and self.phase is Phase.UPDATING

    @property
    def may_have_started(self) -> bool:
        """Say whether we started the container that this phase wants to see running, as far as we know."""
        return self.start_asked_at is not None or self.goal_starts > 0

    @property
    def is_started_beside(self) -> bool:
        """Say whether the new one was started beside the old one: what fails from then on is waited out in the gate."""
        return self.is_beside and self.may_have_started

    @property
    def touches(self) -> frozenset[str]:
        """The targets that it stops, makes again or starts anew; no two rollouts may do that to one at a time."""
        return frozenset({self.target_id, *self.dependents})

    @property
    def goal(self) -> Revision:
        """What this phase wants to see running."""
        return self.from_ if self.phase is Phase.ROLLING_BACK else self.to

    @property
    def rejected(self) -> Digest | None:
        """The digest whose container was started and failed its gate; it is not tried again."""
        # Each value since then says so: the record of the one that said it first may have failed.
        has_failed = self.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.FAILED)
        return self.to.digest if (has_failed and not self.is_taken_back) or self.is_broken else None

    def as_target(self) -> Target:
        """Give the target it is of, for when nothing of that is to be seen on the engine."""
        return Target(
            id=self.target_id,
            kind=Kind(self.target_id.partition(":")[0]),
            ref=ImageRef.parse(self.ref),
            policy=Policy(),
            service=self.service,
        )

    def enter(self, phase: Phase, reason: str = "") -> Rollout:
        """Enter another phase, whose goal has not been started yet.

        Raises:
            ValueError: the table does not lead there; a defect of ours.
        """
        if phase not in NEXT.get(self.phase, ()):
            msg = f"rollout {self.id}: {self.phase} does not lead to {phase}"
            raise ValueError(msg)
        return replace(self.with_unstarted_goal(), phase=phase, reason=reason or self.reason)

    def with_unstarted_goal(self) -> Rollout:
        """Give it as it is before the container that it wants to see running was started."""
        return replace(self, goal_started_at=None, goal_starts=0, start_asked_at=None, settled=False, drained_at=None)

    def asked_by(self, delivery_ids: Iterable[str]) -> Rollout:
        """Give it on behalf of these deliveries as well."""
        return replace(self, delivery_ids=tuple(dict.fromkeys((*self.delivery_ids, *delivery_ids))))
