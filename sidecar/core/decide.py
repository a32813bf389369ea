"""Every decision Sidecar takes about one target: same arguments, same answer, and nothing is done here.

``judge`` says whether a rollout begins, ``supersede`` whether a newer digest takes the place of an open one, and
``next_step`` what moves an open one forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sidecar.core.image import Digest
from sidecar.core.policy import Action, Strategy, WhenStopped
from sidecar.core.rollout import Phase, Revision, Rollout
from sidecar.core.target import Health, Kind, Observed, State, Target

# How often a container may exit, by its own restart policy or started again by us, before its gate fails.
MOST_RESTARTS = 3
# How long to wait before looking again while a gate is open; the engine's health checks are seconds apart.
LOOK_SECONDS = 1.0
# How long a person's tool is given to be done: Compose stops, removes, creates, renames and starts, each by itself.
QUIET_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Keep:
    """It is as it should be."""

    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Something could be done and is not; the reason is for the operator.

    Attributes:
        retry_at: when to look again without being told (our clock, seconds since 1970); None: when something changes.
        is_failure: its update failed or could not be prepared, so what depends on it is not updated either.
    """

    reason: str
    retry_at: float | None = None
    is_failure: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """Let the driver make its next engine call.

    Attributes:
        is_start: it starts the container that the phase wants to see running; these are counted.
    """

    is_start: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again after this many seconds, or when a hint comes."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a reference means now, as its registry says.

    Attributes:
        digest: of the manifest or index that the reference names.
        identities: everything this platform's image may be recognised by: that digest, the digest of the platform's
            manifest in the index, the digest of its configuration; as far as they are known.
    """

    digest: Digest
    identities: frozenset[str]

    @classmethod
    def of(cls, digest: Digest, *more: str) -> Resolved:
        """Make one from its digest and whatever else is known."""
        return cls(digest=digest, identities=frozenset({digest, *more}))


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a target is looked at.

    Attributes:
        kind: ``webhook``, ``start-up``, ``resync``, ``engine``, ``project``, ``retry``, ``cli``.
        at: since when it is wanted (our clock, seconds since 1970).
        delivery_ids: the deliveries that asked for it.
    """

    kind: str
    at: float
    delivery_ids: tuple[str, ...] = ()

    def merged(self, later: Cause) -> Cause:
        """Take another one along; deliveries are what people look for, so the first that has some names the whole."""
        if later.delivery_ids and not self.delivery_ids:
            return later
        ids = dict.fromkeys(self.delivery_ids + later.delivery_ids)
        at = min(self.at, later.at) if later.delivery_ids or not self.delivery_ids else self.at
        return Cause(self.kind, at, tuple(ids))


def hold_unasked(target: Target) -> Hold | None:
    """Say whether a target is held whatever its registry would say, so that nobody is asked."""
    return Hold(target.refusal) if target.refusal is not None else None


def judge_unresolved(target: Target, observed: Observed, reason: str) -> Hold:
    """Say how a target is held of whose reference its registry will not say anything.

    Args:
        reason: why it does not.
    """
    image = observed.image
    if image is not None and image.id in image.digests:
        # containerd's store gives every image a digest, whether a registry knows it or not.
        return Hold(f"{reason}; or it was built on this machine, never pushed or pulled", is_failure=True)
    if image is None or image.digests:
        return Hold(reason, is_failure=True)
    # No failure: it is as its owner wants it, and what depends on it goes its own way.
    return Hold(
        f"{target.ref.familiar} was built on this machine, never pushed or pulled, so that nothing can be newer; "
        f"push it, or leave out its label sidecar.enable ({reason})"
    )


def strategy_note(target: Target) -> str | None:
    """Say what the strategy in force is, where it is not the one that the labels ask for."""
    if target.policy.strategy is not Strategy.START_FIRST or target.kind is Kind.IMAGE:
        return None
    return "label sidecar.strategy=start-first is not supported yet: the old one is stopped first"


def judge(
    target: Target,
    resolved: Resolved,
    observed: Observed,
    *,
    rejected: Mapping[Digest, str],
    cause: Cause,
    rollout_id: str,
) -> Rollout | Keep | Hold:
    """Say whether a rollout begins.

    Args:
        rejected: digests that failed on this service before, with the reason.
    """
    if (held := hold_unasked(target)) is not None:
        return held
    if observed.state is State.MISSING:
        return Hold(f"{target.name} does not exist (any more)")
    if observed.image is not None and resolved.identities & observed.image.identities:
        is_same_digest = resolved.digest in observed.image.identities
        return Keep("up to date" if is_same_digest else "same image for this platform")
    if resolved.digest in rejected:
        return Hold(
            f"{resolved.digest} failed here before ({rejected[resolved.digest]}); "
            f"push another, or release it: sidecar release {target.id}",
            is_failure=True,
        )
    if target.policy.action is Action.NOTIFY:
        return Hold(f"{resolved.digest} is available; label sidecar.action is notify")
    is_stopped = observed.state in (State.EXITED, State.CREATED)
    if is_stopped and target.policy.when_stopped is WhenStopped.HOLD:
        return Hold(
            f"{target.name} is {observed.state}, and what was stopped stays stopped; "
            f"start it, or update it without starting: sidecar.when-stopped=recreate"
        )
    return _begin(target, resolved, observed, cause, rollout_id)


def _begin(target: Target, resolved: Resolved, observed: Observed, cause: Cause, rollout_id: str) -> Rollout:
    image = observed.image
    return Rollout(
        id=rollout_id,
        target_id=target.id,
        service=target.service,
        repository=target.ref.name,
        ref=str(target.ref),
        cause=cause.kind,
        started_at=cause.at,
        delivery_ids=cause.delivery_ids,
        min_ready_seconds=target.policy.min_ready_seconds,
        deadline_seconds=target.policy.deadline_seconds,
        rollback=target.policy.rollback,
        platform=image.platform if image else "",
        from_=Revision(
            digest=min(image.digests, default=None) if image else None,
            image_id=image.id if image else None,
            instance=observed.instance,
        ),
        to=Revision(digest=resolved.digest),
        run_state=_meant(observed.state),
    )


def _meant(state: State) -> State:
    # A container caught between two restarts of its policy is meant to run.
    return State.RUNNING if state is State.RESTARTING else state


def supersede(
    rollout: Rollout, resolved: Resolved, *, rejected: Mapping[Digest, str], cause: Cause, rollout_id: str
) -> tuple[Rollout, Rollout] | None:
    """Say whether a digest resolved meanwhile takes the place of an open rollout, and give both.

    The old rollout ends superseded, which rejects nothing; the new one returns to the same container if it must.
    Once a rollout finishes or rolls back it is carried to its end first.
    """
    if rollout.phase is not Phase.UPDATING or rollout.changed_at is not None or resolved.digest in rejected:
        return None
    if rollout.to.digest is None or rollout.to.digest in resolved.identities:
        return None
    newer = replace(
        rollout,
        id=rollout_id,
        cause=cause.kind,
        started_at=cause.at,
        delivery_ids=cause.delivery_ids,
        to=Revision(digest=resolved.digest),
        superseded=rollout.to.instance or rollout.superseded,
        goal_started_at=None,
        goal_starts=0,
    )
    return rollout.enter(Phase.SUPERSEDED, f"{resolved.digest} is newer"), newer


def take_back(rollout: Rollout, reason: str) -> Rollout | None:
    """Give up a rollout whose new container cannot be made any more, and return to the old one; None: it goes on."""
    if rollout.phase is not Phase.UPDATING or rollout.from_.instance is None:
        return None
    return replace(rollout.enter(Phase.ROLLING_BACK, reason), is_taken_back=True)


def next_step(rollout: Rollout, observed: Observed) -> Rollout | Step | Wait:
    """Say what moves an open rollout forward: an engine call, a while, or a new value of it to be recorded."""
    if is_changed_by_others(rollout, observed.instance):
        return _leave(rollout, observed)
    if rollout.changed_at is not None:
        return replace(rollout, changed_at=None)  # what bears the name is one of ours again
    match rollout.phase:
        case Phase.UPDATING:
            return _update(rollout, observed)
        case Phase.FINISHING:
            return _finish(rollout, observed)
        case _:
            return _roll_back(rollout, observed)


def is_untouched(rollout: Rollout, observed: Observed) -> bool:
    """Say whether the old one is in its place as it was judged, so that the rollout may still be left for later."""
    return observed.instance == rollout.from_.instance and _meant(observed.state) is rollout.run_state


def is_changed_by_others(rollout: Rollout, instance: str | None) -> bool:
    """Say whether what bears the target's name is not what its rollout can have left there."""
    if instance is not None and instance == rollout.to.instance:
        return False
    # Before the goal's container was started, engine calls of ours take names and give them. Afterwards others did.
    was_in_place = rollout.goal_starts > 0 or rollout.goal_started_at is not None or rollout.phase is Phase.FINISHING
    if instance is None:
        return was_in_place
    if instance == rollout.from_.instance:
        return was_in_place and rollout.phase is not Phase.ROLLING_BACK
    return instance != rollout.superseded


def _leave(rollout: Rollout, observed: Observed) -> Rollout | Step | Wait:
    """End a rollout whose target somebody else has changed; what they made of it stays."""
    if rollout.changed_at is None:
        return replace(rollout, changed_at=observed.now)
    if (rest := rollout.changed_at + QUIET_SECONDS - observed.now) > 0:
        return Wait(min(LOOK_SECONDS, rest))
    return rollout.enter(Phase.ABANDONED, "changed by somebody else meanwhile") if observed.at_rest else Step()


def _update(rollout: Rollout, observed: Observed) -> Rollout | Step | Wait:
    if _was_touched_first(rollout, observed):
        return rollout.enter(Phase.ABANDONED, f"is {observed.state} and was {rollout.run_state} before; not by us")
    if observed.instance is None or observed.instance != rollout.to.instance or observed.is_doubled:
        return Step()
    if rollout.run_state in (State.EXITED, State.CREATED):
        return rollout.enter(Phase.FINISHING)
    match _gate(rollout, observed):
        case _Settled():
            return rollout.enter(Phase.FINISHING)
        case _Stopped(state, words) if rollout.rollback and rollout.from_.instance is not None:
            taken_back = rollout.enter(Phase.ROLLING_BACK, f"was {words} by somebody meanwhile")
            return replace(taken_back, run_state=state, is_taken_back=True)
        case _Stopped(state):
            return replace(rollout.enter(Phase.FINISHING), run_state=state)
        case _Broken(reason) if rollout.rollback and rollout.from_.instance is not None:
            return rollout.enter(Phase.ROLLING_BACK, reason)
        case _Broken(reason):
            return replace(rollout.enter(Phase.FINISHING, reason), is_broken=True)
        case undecided:
            return undecided


def _was_touched_first(rollout: Rollout, observed: Observed) -> bool:
    """Say whether somebody stopped, started or paused the old one before anything of ours was there."""
    is_old = observed.instance is not None and observed.instance == rollout.from_.instance
    return is_old and observed.at_rest and not rollout.is_begun and not is_untouched(rollout, observed)


def _finish(rollout: Rollout, observed: Observed) -> Rollout | Step:
    if not observed.at_rest:
        return Step()
    if rollout.is_broken:
        return rollout.enter(Phase.FAILED, f"{rollout.reason}; label sidecar.rollback is false, so it was left there")
    return rollout.enter(Phase.SUCCEEDED)


def _roll_back(rollout: Rollout, observed: Observed) -> Rollout | Step | Wait:
    if observed.instance != rollout.from_.instance or not observed.at_rest:
        return Step()
    if rollout.run_state in (State.EXITED, State.CREATED):
        return rollout.enter(Phase.ROLLED_BACK)
    if rollout.settled:
        is_restored = observed.state is rollout.run_state
        return rollout.enter(Phase.ROLLED_BACK) if is_restored else Step()
    match _gate(rollout, observed):
        case _Settled():
            return replace(rollout, settled=True)
        case _Stopped(state):
            return replace(rollout, run_state=state)
        case _Broken(reason):
            return rollout.enter(Phase.FAILED, f"{rollout.reason}; then the one put back failed as well: {reason}")
        case undecided:
            return undecided


@dataclass(frozen=True, slots=True)
class _Settled:
    """The gate is passed."""


@dataclass(frozen=True, slots=True)
class _Stopped:
    """Somebody stopped it, or paused it for longer than it may take: it stays as they left it."""

    state: State
    words: str


@dataclass(frozen=True, slots=True)
class _Broken:
    reason: str


def _gate(rollout: Rollout, observed: Observed) -> Rollout | Step | Wait | _Settled | _Stopped | _Broken:
    """Watch the goal's container, which is in its place, until it has been healthy long enough or failed."""
    detail = f" ({observed.detail})" if observed.detail else ""
    if observed.state in (State.CREATED, State.EXITED):
        return _start(rollout, observed, detail)
    if observed.restarts >= MOST_RESTARTS:
        return _Broken(f"was restarted {observed.restarts} times by its restart policy{detail}")
    if observed.health is Health.UNHEALTHY:
        return _Broken(f"became unhealthy{detail}")
    if rollout.goal_started_at is None:
        # Once, and on record: the deadline counts from here whatever restarts follow, ours included.
        return replace(rollout, goal_started_at=observed.started_at or observed.now)
    return _watch(rollout, observed, detail)


def _start(rollout: Rollout, observed: Observed, detail: str) -> Step | Wait | _Stopped | _Broken:
    """Start the goal's container, a few times; one that ended after a start may have been stopped to be removed."""
    ended_at = observed.finished_at if observed.state is State.EXITED and rollout.goal_starts else None
    if ended_at is not None and (rest := ended_at + QUIET_SECONDS - observed.now) > 0:
        return Wait(min(LOOK_SECONDS, rest))
    if ended_at is not None and observed.is_stopped and ended_at >= (rollout.goal_started_at or observed.now):
        return _Stopped(State.EXITED, "stopped")  # and not by us, before this phase
    if rollout.goal_starts < MOST_RESTARTS:
        return Step(is_start=True)
    word = "did not start" if observed.state is State.CREATED else "exited"
    return _Broken(f"{word}, {rollout.goal_starts} times{detail}")


def _watch(rollout: Rollout, observed: Observed, detail: str) -> Wait | _Settled | _Stopped | _Broken:
    deadline = (rollout.goal_started_at or observed.now) + rollout.deadline_seconds
    since = observed.healthy_since
    if since is not None and observed.now >= since + rollout.min_ready_seconds:
        return _Settled()
    # Healthy in time, and only not yet long enough: that is waited out, to the next failure at the latest.
    is_in_time = since is not None and since <= deadline
    if observed.now >= deadline and observed.state is State.PAUSED:
        return _Stopped(State.PAUSED, "paused")
    if observed.now >= deadline and not is_in_time:
        return _Broken(f"was not healthy within {rollout.deadline_seconds:g} seconds{detail}")
    due = since + rollout.min_ready_seconds if since is not None else deadline
    return Wait(min(LOOK_SECONDS, max(due - observed.now, 0.05)))
