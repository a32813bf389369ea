"""What moves an open rollout forward, as tables of values."""

from dataclasses import replace

import pytest

from sidecar.core.decide import supersede
from sidecar.core.decision import Resolved, Step, Wait
from sidecar.core.gate import MOST_RESTARTS, QUIET_SECONDS, next_step
from sidecar.core.policy import Strategy
from sidecar.core.rollout import Phase, Revision, Rollout
from sidecar.core.target import Health, Image, Observed, State
from tests.core.values import CAUSE, NEW, NEWER, NOW, observed, rollout

GATED = rollout(goal_started_at=NOW - 20)
AT_GOAL = observed(
    instance="new-container",
    image=Image(id="new-image", digests=frozenset({NEW})),
    started_at=NOW - 20,
    healthy_since=NOW - 5,
    at_rest=False,
)
BACK = rollout(phase=Phase.ROLLING_BACK, reason="became unhealthy", goal_started_at=NOW - 20)
GONE = observed(instance=None, state=State.MISSING, image=None)
RESTORED = observed(started_at=NOW - 20, healthy_since=NOW - 5)


def next_phase(now: Rollout, look: Observed) -> tuple[Phase, str]:
    entered = next_step(now, look)
    assert isinstance(entered, Rollout), entered
    return entered.phase, entered.reason


def test_until_the_new_one_is_in_place_the_driver_steps() -> None:
    """Old one in place, or nothing in place while nothing ever ran: go on."""
    assert next_step(rollout(), observed(at_rest=False)) == Step()
    assert next_step(rollout(), observed(state=State.MISSING, instance=None, at_rest=False)) == Step()
    superseded = rollout(superseded="first-container")
    assert next_step(superseded, observed(instance="first-container", at_rest=False)) == Step()


NOT_BEGUN = rollout(to=Revision(digest=NEW, image_id="new-image"))


@pytest.mark.parametrize("state", [State.EXITED, State.PAUSED])
def test_what_somebody_did_before_anything_of_ours_was_there_ends_it(state: State) -> None:
    """Then it is judged anew, as what it is by now; a restart by its policy is nobody's doing."""
    phase, reason = next_phase(NOT_BEGUN, observed(state=state))
    assert (phase, reason) == (Phase.ABANDONED, f"is {state} and was running before; not by us")
    assert next_step(NOT_BEGUN, observed(state=State.RESTARTING)) == Step()


def test_what_somebody_removed_before_anything_of_ours_was_there_is_not_made_again() -> None:
    """A rollout that had not begun ends with its container."""
    assert next_phase(NOT_BEGUN, observed(state=State.MISSING, instance=None))[0] is Phase.ABANDONED


def test_what_removes_itself_is_made_again_three_times() -> None:
    """One made with `--rm` is gone once it has ended: a failed start, and after three the gate fails."""
    gone = observed(state=State.MISSING, instance=None, at_rest=False)
    ran = rollout(auto_remove=True, goal_started_at=NOW - 5, goal_starts=MOST_RESTARTS - 1)
    assert next_step(ran, gone) == Step()
    phase, reason = next_phase(replace(ran, goal_starts=MOST_RESTARTS), gone)
    assert (phase, reason) == (
        Phase.ROLLING_BACK,
        "ended 3 times, and was made with --rm, so that nothing is left to look at",
    )
    back = rollout(auto_remove=True, phase=Phase.ROLLING_BACK, goal_started_at=NOW - 5, goal_starts=1)
    assert next_step(back, gone) == Step()


@pytest.mark.parametrize(
    "value, look",
    [
        (rollout(), observed(state=State.EXITED)),
        (replace(NOT_BEGUN, superseded="first"), observed(state=State.EXITED)),
        (NOT_BEGUN, observed(state=State.EXITED, at_rest=False)),
        (replace(NOT_BEGUN, from_=Revision()), observed(instance=None, state=State.MISSING)),
    ],
)
def test_once_the_new_one_is_there_it_may_have_been_us(value: Rollout, look: Observed) -> None:
    """It is made before anything is stopped, so that what is down by then is carried on with."""
    assert next_step(value, look) == Step()


@pytest.mark.parametrize("state", [State.CREATED, State.EXITED])
def test_what_is_in_place_and_not_running_is_started_three_times(state: State) -> None:
    """Starts are counted, and the third in vain fails the gate with the engine's words."""
    look = replace(AT_GOAL, state=state, detail="exit code 127")
    assert next_step(replace(GATED, goal_starts=MOST_RESTARTS - 1), look) == Step(is_start=True)
    phase, reason = next_phase(replace(GATED, goal_starts=MOST_RESTARTS), look)
    assert phase is Phase.ROLLING_BACK
    assert reason == f"{'did not start' if state is State.CREATED else 'exited'}, 3 times (exit code 127)"


def test_the_first_start_is_put_on_record_before_the_deadline_counts() -> None:
    """It is the engine's time of the start, or of the look where it shows none; once."""
    assert next_step(rollout(), AT_GOAL) == rollout(goal_started_at=NOW - 20)
    assert next_step(rollout(), replace(AT_GOAL, started_at=None)) == rollout(goal_started_at=NOW)


def test_the_gate_is_passed_after_min_ready() -> None:
    """Healthy for long enough, and not a moment earlier."""
    assert isinstance(next_step(GATED, replace(AT_GOAL, healthy_since=NOW - 9.9)), Wait)
    assert next_phase(GATED, replace(AT_GOAL, healthy_since=NOW - 10)) == (Phase.FINISHING, "")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"health": Health.UNHEALTHY, "healthy_since": None}, "became unhealthy"),
        (
            {"restarts": 3, "healthy_since": None, "detail": "exit code 1"},
            "restarted 3 times by its restart policy (exit",
        ),
        ({"now": NOW + 40, "healthy_since": None, "health": Health.STARTING}, "was not healthy within 60 seconds"),
        ({"now": NOW + 45, "healthy_since": NOW + 41}, "was not healthy within 60 seconds"),
    ],
)
def test_the_gate_fails_with_a_reason(changes: dict[str, object], words: str) -> None:
    """Unhealthy, restarted three times, or not healthy in time since its first start."""
    phase, reason = next_phase(GATED, replace(AT_GOAL, **changes))  # type: ignore[arg-type]
    assert phase is Phase.ROLLING_BACK
    assert words in reason


def test_starting_is_not_failing() -> None:
    """Until the deadline a container may take its time."""
    look = replace(AT_GOAL, health=Health.STARTING, healthy_since=None)
    assert isinstance(next_step(GATED, look), Wait)


def test_healthy_in_time_is_waited_out() -> None:
    """Who became healthy before the deadline gets its min-ready, even past it."""
    assert isinstance(next_step(GATED, replace(AT_GOAL, now=NOW + 41, healthy_since=NOW + 39)), Wait)
    assert next_phase(GATED, replace(AT_GOAL, now=NOW + 49, healthy_since=NOW + 39)) == (Phase.FINISHING, "")


def test_a_wait_is_no_longer_than_needed() -> None:
    """To the moment at which something may be decided, at most a second, never nothing."""
    assert next_step(GATED, replace(AT_GOAL, healthy_since=NOW - 9.75)) == Wait(0.25)
    assert next_step(GATED, replace(AT_GOAL, healthy_since=NOW - 1)) == Wait(1.0)
    starting = replace(AT_GOAL, health=Health.STARTING, healthy_since=None, now=NOW + 39.99)
    assert next_step(GATED, starting) == Wait(0.05)


def test_without_rollback_the_failed_one_stays_and_the_rollout_fails() -> None:
    """Labels may ask that nothing is put back; the digest is rejected all the same."""
    unhealthy = replace(AT_GOAL, health=Health.UNHEALTHY, healthy_since=None)
    left = next_step(replace(GATED, rollback=False), unhealthy)
    assert isinstance(left, Rollout)
    assert (left.phase, left.is_broken, left.rejected) == (Phase.FINISHING, True, NEW)
    assert next_step(left, unhealthy) == Step()
    phase, reason = next_phase(left, replace(unhealthy, at_rest=True))
    assert phase is Phase.FAILED
    assert reason.startswith("became unhealthy")
    assert "sidecar.rollback is false" in reason


def test_a_stopped_container_is_replaced_and_not_started() -> None:
    """What was not running has no gate."""
    stopped = rollout(run_state=State.EXITED)
    assert next_phase(stopped, replace(AT_GOAL, state=State.CREATED))[0] is Phase.FINISHING
    back = replace(stopped, phase=Phase.ROLLING_BACK)
    assert next_phase(back, observed(state=State.EXITED))[0] is Phase.ROLLED_BACK


def test_finishing_ends_at_rest() -> None:
    """As long as there is something to clean there is a step."""
    finishing = rollout(phase=Phase.FINISHING)
    assert next_step(finishing, AT_GOAL) == Step()
    assert next_phase(finishing, replace(AT_GOAL, at_rest=True))[0] is Phase.SUCCEEDED


def test_rolling_back_goes_through_the_same_gate() -> None:
    """The old one is put back, watched, and only then the rollout is rolled back."""
    assert next_step(BACK, AT_GOAL) == Step()
    assert next_step(BACK, replace(RESTORED, at_rest=False)) == Step()
    assert next_step(BACK, replace(RESTORED, state=State.EXITED)) == Step(is_start=True)
    assert isinstance(next_step(BACK, RESTORED), Wait)
    settled = next_step(BACK, replace(RESTORED, healthy_since=NOW - 10))
    assert settled == replace(BACK, settled=True)
    assert next_phase(settled, RESTORED) == (Phase.ROLLED_BACK, "became unhealthy")


def test_a_paused_one_is_paused_again_after_its_gate() -> None:
    """The rollback ends only once it is paused."""
    settled = replace(BACK, run_state=State.PAUSED, settled=True)
    assert next_step(settled, RESTORED) == Step()
    assert next_phase(settled, replace(RESTORED, state=State.PAUSED))[0] is Phase.ROLLED_BACK


def test_both_broken_is_a_failure_with_both_reasons() -> None:
    """A person is needed, and reads why each of them failed."""
    phase, reason = next_phase(BACK, replace(RESTORED, health=Health.UNHEALTHY, detail="exit code 1"))
    assert phase is Phase.FAILED
    assert reason == "became unhealthy; then the one put back failed as well: became unhealthy (exit code 1)"


@pytest.mark.parametrize("now", [rollout(), rollout(phase=Phase.FINISHING), BACK])
def test_what_a_person_made_of_it_is_left_alone(now: Rollout) -> None:
    """A stranger under the name ends the rollout, after what is ours is cleared away."""
    stranger = observed(instance="stranger")
    now = replace(now, changed_at=NOW - QUIET_SECONDS)
    assert next_step(now, replace(stranger, at_rest=False)) == Step()
    assert next_phase(now, stranger)[0] is Phase.ABANDONED


def test_what_a_person_put_back_is_left_alone() -> None:
    """Once the new one was in its place, the old one is there by somebody else's doing; before, by ours."""
    for now in (GATED, rollout(goal_starts=1), rollout(phase=Phase.FINISHING)):
        assert next_phase(replace(now, changed_at=NOW - QUIET_SECONDS), observed())[0] is Phase.ABANDONED
    assert next_step(rollout(), observed()) == Step()
    assert next_step(BACK, AT_GOAL) == Step()


@pytest.mark.parametrize("now", [GATED, rollout(goal_starts=1), rollout(phase=Phase.FINISHING), BACK])
def test_what_a_person_removed_stays_removed(now: Rollout) -> None:
    """Gone after it was in its place: somebody took it away."""
    assert next_phase(replace(now, changed_at=NOW - QUIET_SECONDS), GONE)[0] is Phase.ABANDONED


def test_a_stack_that_a_person_took_down_stays_down() -> None:
    """Before the new one was started it is told from a prune by its network, which is gone as well."""
    gone = observed(state=State.MISSING, instance=None, is_taken_down=True)
    left = replace(rollout(), changed_at=NOW)
    assert next_step(rollout(), gone) == left
    assert next_phase(left, replace(gone, now=NOW + QUIET_SECONDS))[0] is Phase.ABANDONED
    assert next_step(rollout(), replace(gone, is_taken_down=False, at_rest=False)) == Step()


def test_a_person_is_given_time_to_be_done() -> None:
    """Their tool removes and creates one after the other: what it is in the middle of is not touched."""
    noticed = next_step(GATED, GONE)
    assert noticed == replace(GATED, changed_at=NOW)
    assert next_step(noticed, replace(GONE, now=NOW + 1)) == Wait(1.0)
    assert next_step(noticed, replace(GONE, now=NOW + 4.75)) == Wait(0.25)
    assert next_phase(noticed, replace(GONE, now=NOW + 5))[0] is Phase.ABANDONED
    assert next_step(noticed, AT_GOAL) == GATED
    assert supersede(noticed, Resolved.of(NEWER), rejected={}, cause=CAUSE, rollout_id="rollout-2") is None


def test_what_ended_after_a_start_is_not_started_again_at_once() -> None:
    """A person may have stopped it to remove it; what we stopped ourselves is started at once."""
    ended = replace(AT_GOAL, state=State.EXITED, finished_at=NOW - 1)
    assert next_step(replace(GATED, goal_starts=1), ended) == Wait(1.0)
    assert next_step(replace(GATED, goal_starts=MOST_RESTARTS), ended) == Wait(1.0)
    assert next_step(replace(GATED, goal_starts=1), replace(ended, now=NOW + 4)) == Step(is_start=True)
    assert next_step(BACK, replace(RESTORED, state=State.EXITED, finished_at=NOW - 1)) == Step(is_start=True)


def test_a_start_that_nobody_lived_to_record_counts_if_the_engine_made_it() -> None:
    """It says so by the time: a start from before it was asked for is not that one, and none at all is none."""
    asked = replace(BACK, start_asked_at=NOW - 10)
    ended = replace(RESTORED, state=State.EXITED, finished_at=NOW - 6)
    counted = replace(asked, start_asked_at=None, goal_starts=1)
    assert next_step(asked, replace(ended, started_at=NOW - 10)) == counted
    assert next_step(asked, replace(ended, started_at=NOW - 11)) == Step(is_start=True)
    assert next_step(asked, replace(ended, state=State.CREATED, started_at=None)) == Step(is_start=True)
    gone = replace(rollout(auto_remove=True), start_asked_at=NOW - 10)
    assert next_step(gone, GONE) == replace(gone, start_asked_at=None, goal_starts=1)


def test_what_a_person_stopped_in_the_gate_is_taken_back_and_not_rejected() -> None:
    """The old one is put back and stays stopped as well; where nothing is put back the new one stays, stopped."""
    stopped = replace(AT_GOAL, state=State.EXITED, finished_at=NOW - 5, is_stopped=True)
    gated = replace(GATED, goal_starts=1)
    back = next_step(gated, stopped)
    assert isinstance(back, Rollout)
    assert (back.phase, back.run_state, back.rejected) == (Phase.ROLLING_BACK, State.EXITED, None)
    ended = next_step(back, observed(state=State.EXITED))
    assert isinstance(ended, Rollout)
    assert (ended.phase, ended.rejected) == (Phase.ROLLED_BACK, None)
    left = next_step(replace(gated, rollback=False), stopped)
    assert isinstance(left, Rollout)
    assert (left.phase, left.run_state, left.rejected) == (Phase.FINISHING, State.EXITED, None)


def test_what_a_person_stopped_in_the_gate_of_a_rollback_is_left_stopped() -> None:
    """The digest failed before that, and stays rejected."""
    back = replace(BACK, goal_starts=1)
    ours = replace(RESTORED, state=State.EXITED, finished_at=NOW - 50, is_stopped=True)
    assert next_step(back, ours) == Step(is_start=True)
    stopped = replace(RESTORED, state=State.EXITED, finished_at=NOW - 5, is_stopped=True)
    left = next_step(back, stopped)
    assert left == replace(back, run_state=State.EXITED)
    ended = next_step(left, stopped)
    assert isinstance(ended, Rollout)
    assert (ended.phase, ended.rejected) == (Phase.ROLLED_BACK, NEW)


def test_one_put_aside_that_somebody_started_is_stopped_again() -> None:
    """Both may write to one volume."""
    assert next_step(GATED, replace(AT_GOAL, is_doubled=True)) == Step()


# --- started first ----------------------------------------------------------------------------------------------------

BESIDE = rollout(strategy=Strategy.START_FIRST, drain_seconds=5.0, goal_started_at=NOW - 20, goal_starts=1)
AHEAD = observed(instance="new-container", started_at=NOW - 20, healthy_since=NOW - 15)
PASSED = replace(BESIDE, settled=True)


def beside(ahead: Observed | None = AHEAD, **changes: object) -> Observed:
    """Make the look at an old one in its place with a new one beside it."""
    return observed(at_rest=False, ahead=ahead, **changes)


def test_one_that_is_started_first_is_made_and_started_while_the_old_one_goes_on() -> None:
    """Until it is there the driver steps; then it is started, and watched like any other."""
    begun = replace(BESIDE, goal_started_at=None, goal_starts=0)
    assert next_step(begun, beside(None)) == Step()
    assert next_step(begun, beside(replace(AHEAD, instance="unrecorded"))) == Step()
    created = replace(AHEAD, state=State.CREATED, health=Health.STARTING, healthy_since=None)
    assert next_step(begun, beside(created)) == Step(is_start=True)
    starting = replace(AHEAD, health=Health.STARTING, healthy_since=None)
    assert next_step(begun, beside(starting)) == replace(begun, goal_started_at=NOW - 20)
    assert isinstance(next_step(BESIDE, beside(starting)), Wait)


def test_once_it_has_passed_it_takes_over() -> None:
    """That is put on record; it is given its names, both answer for a while, and only then the old one is stopped."""
    assert next_step(BESIDE, beside()) == PASSED
    assert next_step(PASSED, beside(replace(AHEAD, is_reachable=False))) == Step()
    draining = replace(PASSED, drained_at=NOW)
    assert next_step(PASSED, beside()) == draining
    assert next_step(draining, beside(now=NOW + 4.5)) == Wait(0.5)
    assert next_step(draining, beside(now=NOW + 5)) == Step()
    recovering = replace(AHEAD, health=Health.STARTING, healthy_since=None)
    assert next_step(draining, beside(recovering, now=NOW + 5)) == Step()
    assert next_step(draining, observed(state=State.MISSING, instance=None, at_rest=False)) == Step()
    assert next_phase(draining, AHEAD)[0] is Phase.FINISHING


@pytest.mark.parametrize("value", [BESIDE, PASSED])
def test_one_that_fails_beside_the_old_one_is_taken_away(value: Rollout) -> None:
    """Also after it has passed, as long as the old one is in its place, and whatever its labels say of a rollback."""
    ill = replace(AHEAD, health=Health.UNHEALTHY)
    for asked in (value, replace(value, rollback=False)):
        assert next_phase(asked, beside(ill)) == (Phase.ROLLING_BACK, "became unhealthy")


def test_what_a_person_does_to_either_of_two_ends_it() -> None:
    """Who stops the old one wants it stopped, who stops the new one does not want that; neither says it is bad."""
    left = next_step(BESIDE, beside(state=State.EXITED))
    assert isinstance(left, Rollout)
    assert (left.phase, left.run_state, left.rejected) == (Phase.ROLLING_BACK, State.EXITED, None)
    stopped = replace(AHEAD, state=State.EXITED, is_stopped=True, finished_at=NOW - 10)
    taken = next_step(BESIDE, beside(stopped))
    assert isinstance(taken, Rollout)
    assert (taken.phase, taken.run_state, taken.rejected) == (Phase.ROLLING_BACK, State.RUNNING, None)
    gone = observed(state=State.MISSING, instance=None, at_rest=False)
    assert next_step(BESIDE, gone) == replace(BESIDE, changed_at=NOW)


def test_a_newer_digest_takes_the_place_of_one_beside_the_old_one() -> None:
    """It is gated anew, and drains anew."""
    pair = supersede(
        replace(PASSED, drained_at=NOW), Resolved.of(NEWER), rejected={}, cause=CAUSE, rollout_id="rollout-2"
    )
    assert pair is not None
    newer = pair[1]
    assert (newer.settled, newer.drained_at, newer.superseded) == (False, None, "new-container")
