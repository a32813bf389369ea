"""What moves an open rollout forward, from what the engine shows: an engine call, a while, or the next phase.

Same arguments, same answer, and nothing is done here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sidecar.core.decision import Step, Wait
from sidecar.core.rollout import Phase, Rollout
from sidecar.core.target import Health, Observed, State

# How often a container may exit, by its own restart policy or started again by us, before its gate fails.
MOST_RESTARTS = 3
# How long to wait before looking again while a gate is open; the engine's health checks are seconds apart.
LOOK_SECONDS = 1.0
# How long a person's tool is given to be done: Compose stops, removes, creates, renames and starts, each by itself.
QUIET_SECONDS = 5.0
# The engine says what time it is to the second only.
CLOCK_SECONDS = 1.0


def next_step(rollout: Rollout, observed: Observed) -> Rollout | Step | Wait:
    """Say what moves an open rollout forward: an engine call, a while, or a new value of it to be recorded."""
    if observed.is_taken_down or is_changed_by_others(rollout, observed.instance):
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
    """Say whether the old one is in its place as it was judged, and what goes with it too: it may be left for later."""
    is_stripped = rollout.is_begun and observed.is_stripped
    return observed.instance == rollout.from_.instance and observed.state.meant is rollout.run_state and not is_stripped


def is_changed_by_others(rollout: Rollout, instance: str | None) -> bool:
    """Say whether what bears the target's name is not what its rollout can have left there."""
    if instance is not None and instance == rollout.to.instance:
        return False
    # Before the goal's container was started, engine calls of ours take names and give them. Afterwards others did.
    was_in_place = rollout.may_have_started or rollout.goal_started_at is not None or rollout.phase is Phase.FINISHING
    if instance is None:
        # One that was made with `--rm` is gone once it has ended, whoever ended it. One that was started first takes
        # the name only when it has passed its gate.
        return was_in_place and not rollout.auto_remove and not (rollout.is_beside and rollout.settled)
    if instance == rollout.from_.instance:
        return was_in_place and rollout.phase is not Phase.ROLLING_BACK and not rollout.is_beside
    return instance != rollout.superseded


def _leave(rollout: Rollout, observed: Observed) -> Rollout | Step | Wait:
    """End a rollout whose target somebody else has changed; what they made of it stays."""
    if rollout.changed_at is None:
        return replace(rollout, changed_at=observed.now)
    if (rest := _rest_of_quiet(rollout.changed_at, observed.now)) > 0:
        return Wait(min(LOOK_SECONDS, rest))
    return rollout.enter(Phase.ABANDONED, "changed by somebody else meanwhile") if observed.at_rest else Step()


def _rest_of_quiet(since: float, now: float) -> float:
    """Say how long a person's tool still has; what is yet to come was seen before the clock was set back."""
    rest = since + QUIET_SECONDS - now
    return rest if rest <= QUIET_SECONDS + CLOCK_SECONDS else 0.0


def _update(rollout: Rollout, observed: Observed) -> Rollout | Step | Wait:
    if _was_touched_first(rollout, observed):
        return rollout.enter(Phase.ABANDONED, f"is {observed.state} and was {rollout.run_state} before; not by us")
    if observed.helper_failure:
        return rollout.enter(Phase.ROLLING_BACK, observed.helper_failure)
    if rollout.is_beside and observed.instance == rollout.from_.instance:
        return _update_beside(rollout, observed)
    if observed.instance is None and rollout.auto_remove and (ended := _count_or_give_up(rollout)) is not None:
        return ended
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


def _count_or_give_up(rollout: Rollout) -> Rollout | None:
    """Count what has removed itself as started, and give it up after a few times; None: it is made again."""
    if rollout.start_asked_at is not None:
        return _with_start_counted(rollout)
    if rollout.goal_starts < MOST_RESTARTS:
        return None
    words = f"ended {rollout.goal_starts} times, and was made with --rm, so that nothing is left to look at"
    return rollout.enter(Phase.ROLLING_BACK, words)


def _update_beside(rollout: Rollout, observed: Observed) -> Rollout | Step | Wait:
    """Watch the new one, which was started first, until it may take the place of the old one, which goes on."""
    if not rollout.settled and rollout.is_begun and observed.state.meant is not rollout.run_state:
        left_so = rollout.enter(Phase.ROLLING_BACK, f"the old one is {observed.state}, by somebody meanwhile")
        return replace(left_so, run_state=observed.state.meant, is_taken_back=True)
    ahead = observed.ahead
    if ahead is None or ahead.instance != rollout.to.instance:
        return Step()
    match _gate(rollout, ahead):
        case _Broken(reason):
            return rollout.enter(Phase.ROLLING_BACK, reason)
        case _Stopped(_, words):
            return replace(rollout.enter(Phase.ROLLING_BACK, f"was {words} by somebody meanwhile"), is_taken_back=True)
        case _Settled():
            return replace(rollout, settled=True) if not rollout.settled else _take_over(rollout, observed)
        case undecided:
            # Once it has passed, only a failure holds it up: with its names it gets another address.
            return _take_over(rollout, observed) if rollout.settled else undecided


def _take_over(rollout: Rollout, observed: Observed) -> Rollout | Step | Wait:
    if observed.ahead is None or not observed.ahead.is_reachable:
        return Step()
    if rollout.drained_at is None:
        return replace(rollout, drained_at=observed.now)
    rest = rollout.drained_at + rollout.drain_seconds - observed.now
    return Wait(min(LOOK_SECONDS, rest)) if rest > 0 else Step()


def _was_touched_first(rollout: Rollout, observed: Observed) -> bool:
    """Say whether somebody stopped, started, paused or removed the old one before anything of ours was there."""
    is_old = rollout.from_.instance is not None and observed.instance in (rollout.from_.instance, None)
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
    asked_at, started_at = rollout.start_asked_at, observed.started_at
    if asked_at is not None and started_at is not None and started_at >= asked_at:
        # We died, or lost the answer: what it does to the host is its image's doing as well.
        return _with_start_counted(rollout)
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


def _with_start_counted(rollout: Rollout) -> Rollout:
    return replace(rollout, goal_starts=rollout.goal_starts + 1, start_asked_at=None)


def _start(rollout: Rollout, observed: Observed, detail: str) -> Step | Wait | _Stopped | _Broken:
    """Start the goal's container, a few times; one that ended after a start may have been stopped to be removed."""
    ended_at = observed.finished_at if observed.state is State.EXITED and rollout.goal_starts else None
    if ended_at is not None and (rest := _rest_of_quiet(ended_at, observed.now)) > 0:
        return Wait(min(LOOK_SECONDS, rest))
    if ended_at is not None and observed.is_stopped and ended_at >= (rollout.goal_started_at or observed.now):
        return _Stopped(State.EXITED, "stopped")  # and not by us, before this phase
    if rollout.goal_starts < MOST_RESTARTS:
        return Step(is_start=observed.is_start_next)
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
