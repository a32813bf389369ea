"""Kill the daemon around every changing engine call, or let that call fail, and look how it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.engine_proxy import Fault
from tests.integration.scenarios import MAIN, SCENARIOS
from tests.integration.sweeping import Point, Sweep
from tests.integration.swept_run import Run
from tests.testbed.engine import NEW, OLD
from tests.testbed.parts import STORE_VERSION

pytestmark = pytest.mark.timeout(7200)

# How often a daemon is killed in a run: at the call where the run begins to differ, and at the first ones after it.
AFTER = [(Fault.ANSWER_LOST,)]
AROUND = [(Fault.CALL_LOST,), *AFTER]
TWICE = [(Fault.CALL_LOST, Fault.ANSWER_LOST), (Fault.ANSWER_LOST, Fault.CALL_CUT), (Fault.CALL_CUT, Fault.CALL_LOST)]
FAILURES = [(Fault.CALL_CUT,), (Fault.REFUSED,)]
EVERYWHERE = [
    pytest.param(kind, id=kind, marks=pytest.mark.sweep) for kind in (NEW.version, OLD.version, STORE_VERSION)
]

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
Swept = Callable[[str, str], Sweep]


def killed(run: Run, point: Point) -> None:
    """Kill the daemon at a call, or several times, and start it again."""
    run.kill_at(*point)
    run.await_rest()
    run.check()


def failed(run: Run, point: Point) -> None:
    """Let a call fail; nobody comes to help, but where nothing was found against the image, for a further hint."""
    number, (fault,) = point
    run.fail_at(number, fault)
    run.await_rest(also=("rolled_back: ",))
    if not run.is_at_rest():
        run.hint()
        run.await_rest()
    run.check()


def documented_calls(name: str) -> int:
    """Give how many calls the documentation says that an update has."""
    rows = [line.split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| `{name}` |")]
    ((_, _, calls, *_),) = rows
    return int(calls)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_after_an_engine_call_changes_nothing_of_the_end(name: str, swept: Swept) -> None:
    """The form for every day: the calls of an update and of a rollback, and every fourth of whatever else."""
    sweep = swept(NEW.version, name)
    # What removes itself may be quicker than Sidecar, which then does not have to.
    assert abs(documented_calls(name) - len(sweep.calls)) <= (2 if sweep.scenario.removes_itself else 0)
    sweep.try_all(sweep.points(AFTER, every=1 if name in MAIN else 4), killed)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", EVERYWHERE)
def test_a_kill_around_any_engine_call_changes_nothing_of_the_end(kind: str, name: str, swept: Swept) -> None:
    """Killed before or after any call that changes the engine, the end is as if it had not been."""
    sweep = swept(kind, name)
    sweep.try_all(sweep.points(AROUND), killed)


@pytest.mark.sweep
@pytest.mark.parametrize("name", MAIN)
def test_two_kills_in_a_row_change_nothing_of_the_end(name: str, swept: Swept) -> None:
    """Killed once more at the next call: before, in the middle of or after each of the two."""
    sweep = swept(NEW.version, name)
    sweep.try_all(sweep.points(TWICE), killed)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", EVERYWHERE)
def test_no_engine_call_that_fails_changes_anything_of_the_end(kind: str, name: str, swept: Swept) -> None:
    """Cut off or refused: the daemon goes on by itself, and the end is as if that had not been."""
    sweep = swept(kind, name)
    sweep.try_all(sweep.points(FAILURES), failed)
