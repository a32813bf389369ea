"""The phases of a rollout are a table, and what is not in it cannot happen."""

from dataclasses import replace

import pytest

from sidecar.core.rollout import NEXT, Phase, Rollout
from tests.core.values import rollout


@pytest.mark.parametrize("here", Phase)
@pytest.mark.parametrize("there", Phase)
def test_only_what_the_table_names_may_follow(here: Phase, there: Phase) -> None:
    """A phase leads where the table says, and raises for everything else."""
    now = replace(rollout(), phase=here)
    if there in NEXT.get(here, ()):
        assert now.enter(there, "why").phase is there
        return
    with pytest.raises(ValueError, match=f"{here} does not lead to {there}"):
        now.enter(there)


def test_a_new_phase_begins_with_a_goal_not_yet_started() -> None:
    """What was seen of the last goal does not count for the next; a reason stays until there is another."""
    watched = replace(rollout(), goal_started_at=5.0, goal_starts=2, settled=True, reason="first")
    entered = watched.enter(Phase.ROLLING_BACK)
    assert (entered.goal_started_at, entered.goal_starts, entered.settled) == (None, 0, False)
    assert entered.reason == "first"
    assert watched.enter(Phase.ROLLING_BACK, "second").reason == "second"


def test_the_goal_is_what_the_phase_wants_to_see() -> None:
    """The new one, but while rolling back the old one."""
    assert rollout().goal == rollout().to
    assert replace(rollout(), phase=Phase.ROLLING_BACK).goal == rollout().from_


@pytest.mark.parametrize(
    "changes, is_rejected",
    [
        ({}, False),
        ({"phase": Phase.ROLLING_BACK}, True),
        ({"phase": Phase.ROLLED_BACK}, True),
        ({"phase": Phase.FAILED}, True),
        ({"phase": Phase.FINISHING}, False),
        ({"phase": Phase.FINISHING, "is_broken": True}, True),
        ({"phase": Phase.SUPERSEDED}, False),
        ({"phase": Phase.ABANDONED}, False),
    ],
)
def test_only_a_digest_that_failed_its_gate_is_rejected(changes: dict[str, object], is_rejected: bool) -> None:
    """Superseded and abandoned rollouts say nothing against their digest."""
    changed: Rollout = replace(rollout(), **changes)  # type: ignore[arg-type]
    assert changed.rejected == (changed.to.digest if is_rejected else None)


def test_a_rollout_stands_in_for_a_target_of_which_nothing_is_left() -> None:
    """Enough of the target is in the rollout to finish it."""
    stand_in = rollout().as_target()
    assert (stand_in.id, str(stand_in.ref), stand_in.service) == ("docker:web", rollout().ref, "docker:web")


def test_it_is_prepared_once_it_has_a_plan_and_open_until_final() -> None:
    """An empty plan is a plan."""
    assert not rollout().is_prepared
    assert replace(rollout(), plan={}).is_prepared
    assert [phase for phase in Phase if replace(rollout(), phase=phase).is_open] == list(NEXT)
