"""Whether a rollout begins, gives way or is given up, as tables of values."""

from dataclasses import replace

import pytest

from sidecar.core.decide import judge, supersede, take_back
from sidecar.core.decision import Cause, Hold, Keep, Resolved
from sidecar.core.image import Digest
from sidecar.core.policy import Action, Policy, WhenStopped
from sidecar.core.rollout import Phase, Revision, Rollout
from sidecar.core.target import Health, Image, Observed, State
from tests.core.values import CAUSE, NEW, NEWER, OLD, observed, rollout, target


def judged(
    look: Observed | None = None,
    *,
    resolved: Resolved | None = None,
    rejected: dict[Digest, str] | None = None,
    **target_changes: object,
) -> Rollout | Keep | Hold:
    return judge(
        target(**target_changes),
        resolved or Resolved.of(NEW),
        look or observed(),
        rejected=rejected or {},
        cause=CAUSE,
        rollout_id="rollout-1",
    )


# --- judge ----------------------------------------------------------------------------------------------------------


def test_another_digest_is_rolled_out() -> None:
    """The rollout holds where it comes from, where it goes, what was asked for and why."""
    begun = judged(policy=Policy(min_ready_seconds=3, deadline_seconds=30, rollback=False))
    assert begun == rollout(
        from_=Revision(digest=OLD, image_id="old-image", instance="old-container"),
        to=Revision(digest=NEW),
        started_at=CAUSE.at,
        min_ready_seconds=3,
        deadline_seconds=30,
        rollback=False,
    )


def test_the_same_digest_is_kept() -> None:
    """One of the digests under which the repository knows the image is enough."""
    look = observed(image=Image(id="x", digests=frozenset({OLD, NEW})))
    assert judged(look) == Keep("up to date")


@pytest.mark.parametrize("health", [Health.UNHEALTHY, Health.STARTING])
def test_what_failed_and_was_left_there_is_not_up_to_date(health: Health) -> None:
    """Without a rollback the bad one stays under its name; once it is healthy after all it is as good as any other."""
    look = observed(image=Image(id="i", digests=frozenset({NEW})), health=health)
    verdict = judged(look, rejected={NEW: "became unhealthy"})
    assert isinstance(verdict, Hold)
    assert verdict.is_failure
    assert verdict.reason == f"{NEW} failed here (became unhealthy) and was left there; push another"
    assert judged(replace(look, health=Health.HEALTHY), rejected={NEW: "became unhealthy"}) == Keep("up to date")


def test_an_index_of_which_another_platform_changed_is_kept() -> None:
    """What this platform's image is known by is the same, so nothing is recreated."""
    resolved = Resolved.of(NEW, "sha256:child", "old-image")
    assert judged(resolved=resolved) == Keep("same image for this platform")


@pytest.mark.parametrize(
    "look, changes, rejected, words, is_failure",
    [
        (observed(), {"refusal": "label is wrong"}, {}, "label is wrong", False),
        (observed(state=State.MISSING, instance=None), {}, {}, "web does not exist", False),
        (observed(), {}, {NEW: "unhealthy"}, "failed here before (unhealthy)", True),
        (observed(), {"policy": Policy(action=Action.NOTIFY)}, {}, "is available", False),
        (observed(state=State.EXITED), {}, {}, "what was stopped stays stopped", False),
        (observed(state=State.CREATED), {}, {}, "sidecar.when-stopped=recreate", False),
    ],
)
def test_what_could_be_done_and_is_not_has_a_reason(
    look: Observed, changes: dict[str, object], rejected: dict[Digest, str], words: str, is_failure: bool
) -> None:
    """Each refusal says why, and whether what depends on it is held as well."""
    verdict = judged(look, rejected=rejected, **changes)
    assert isinstance(verdict, Hold)
    assert words in verdict.reason
    assert verdict.is_failure is is_failure


def test_a_rejected_digest_does_not_hold_up_another() -> None:
    """Only the very digest that failed is held."""
    assert isinstance(judged(rejected={NEWER: "unhealthy"}), Rollout)


@pytest.mark.parametrize(
    "state, run_state",
    [
        (State.RUNNING, State.RUNNING),
        (State.PAUSED, State.PAUSED),
        (State.RESTARTING, State.RUNNING),
        (State.EXITED, State.EXITED),
    ],
)
def test_the_state_to_be_restored_is_kept(state: State, run_state: State) -> None:
    """Paused stays paused; one caught between two restarts is meant to run; stopped only where labels ask for it."""
    begun = judged(observed(state=state), policy=Policy(when_stopped=WhenStopped.RECREATE))
    assert isinstance(begun, Rollout)
    assert begun.run_state is run_state


def test_an_image_that_is_not_there_yet_is_rolled_out_from_nothing() -> None:
    """A tag that names nothing has no revision to return to."""
    begun = judged(observed(image=None, instance=None))
    assert isinstance(begun, Rollout)
    assert begun.from_ == Revision()


@pytest.mark.parametrize(
    "first, later, merged",
    [
        (Cause("start-up", 1.0), Cause("engine", 2.0), Cause("start-up", 1.0)),
        (Cause("resync", 5.0), Cause("webhook", 9.0, ("a",)), Cause("webhook", 9.0, ("a",))),
        (Cause("webhook", 9.0, ("a",)), Cause("resync", 5.0), Cause("webhook", 9.0, ("a",))),
        (Cause("webhook", 9.0, ("a", "b")), Cause("cli", 3.0, ("b", "c")), Cause("webhook", 3.0, ("a", "b", "c"))),
    ],
)
def test_a_cause_takes_others_along(first: Cause, later: Cause, merged: Cause) -> None:
    """Deliveries name the whole and say since when it is wanted; the earliest of them counts, each of them once."""
    assert first.merged(later) == merged


# --- supersede ------------------------------------------------------------------------------------------------------


def superseding(
    now: Rollout, digest: Digest, rejected: dict[Digest, str] | None = None
) -> tuple[Rollout, Rollout] | None:
    return supersede(now, Resolved.of(digest), rejected=rejected or {}, cause=Cause("webhook", 1.0), rollout_id="next")


def test_a_newer_digest_takes_the_place_of_one_in_its_gate() -> None:
    """The older is not rejected; the newer returns to the same container and clears the older one's away."""
    pair = superseding(rollout(plan={"container": {}}), NEWER)
    assert pair is not None
    ended, newer = pair
    assert ended.phase is Phase.SUPERSEDED
    assert ended.rejected is None
    assert (newer.id, newer.phase, newer.to) == ("next", Phase.UPDATING, Revision(digest=NEWER))
    assert newer.from_ == rollout().from_
    assert newer.superseded == "new-container"
    assert newer.plan == {"container": {}}


def test_what_was_superseded_before_its_container_was_made_leaves_the_one_before_in_the_way() -> None:
    """Two in a row: the container of the first is still what has to be cleared away."""
    pair = superseding(rollout(to=Revision(digest=NEW), superseded="first-container"), NEWER)
    assert pair is not None
    assert pair[1].superseded == "first-container"


@pytest.mark.parametrize(
    "now, digest, rejected",
    [
        (rollout(), NEW, {}),
        (rollout(), NEWER, {NEWER: "unhealthy"}),
        (rollout(phase=Phase.FINISHING), NEWER, {}),
        (rollout(phase=Phase.ROLLING_BACK), NEWER, {}),
        (rollout(to=Revision()), NEWER, {}),
    ],
)
def test_nothing_is_superseded_without_need(now: Rollout, digest: Digest, rejected: dict[Digest, str]) -> None:
    """Not by the same digest, not by a rejected one, and not once it finishes or rolls back."""
    assert superseding(now, digest, rejected) is None


# --- taken back -----------------------------------------------------------------------------------------------------


def test_what_can_be_made_no_more_is_taken_back_and_not_rejected() -> None:
    """Its image was never tried, so nothing is said against it; the reason is kept."""
    taken_back = take_back(rollout(rollback=False), "manifest unknown")
    assert taken_back is not None
    assert (taken_back.phase, taken_back.reason) == (Phase.ROLLING_BACK, "manifest unknown")
    assert taken_back.rejected is None


@pytest.mark.parametrize(
    "value",
    [
        rollout(phase=Phase.FINISHING),
        rollout(phase=Phase.ROLLING_BACK),
        rollout(from_=Revision(digest=OLD, image_id="old-image")),
    ],
)
def test_without_an_old_one_to_return_to_nothing_is_taken_back(value: Rollout) -> None:
    """What finishes or rolls back goes on, and what had no container before has nothing to go back to."""
    assert take_back(value, "manifest unknown") is None
