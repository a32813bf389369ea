"""End the engine, or the whole host, at changing engine calls of an update, start it again, and look how it ends.

Runs are brought to one call each and held there, so that one outage is tried at all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.engine_proxy import Fault
from tests.integration.scenarios import MAIN, SCENARIOS
from tests.integration.sweeping import Point, Sweep
from tests.integration.swept_run import PATIENCE_SECONDS, Run
from tests.testbed.engine import NEW, OLD
from tests.testbed.parts import STORE_VERSION, Parts

pytestmark = pytest.mark.timeout(7200)

AFTER = [(Fault.ANSWER_LOST,)]
EVERYWHERE = [
    pytest.param(kind, id=kind, marks=pytest.mark.sweep) for kind in (NEW.version, OLD.version, STORE_VERSION)
]
Swept = Callable[[str, str], Sweep]


def points(sweep: Sweep, kind: str) -> list[Point]:
    """Give each call of an update and of a rollback on the newest engine, and every third elsewhere."""
    return sweep.points(AFTER, every=1 if kind == NEW.version and sweep.name in MAIN else 3)


def killed(sweep: Sweep) -> Callable[[Sequence[Run]], None]:
    """Kill the engine and start it, while the daemons wait for its answers."""

    def outage(runs: Sequence[Run]) -> None:
        sweep.engine.kill()
        sweep.engine.start()
        for run in runs:
            run.proxy.disarm()

    return outage


def restarted(sweep: Sweep) -> Callable[[Sequence[Run]], None]:
    """Stop the engine as a service manager does and start it, while the daemons wait for its answers."""

    def outage(runs: Sequence[Run]) -> None:
        sweep.engine.restart()
        for run in runs:
            run.proxy.disarm()

    return outage


def rebooted(sweep: Sweep, testbed: Parts, kind: str) -> Callable[[Sequence[Run]], None]:
    """Pull the plug of the host: daemons, engine and containers end, and are started again as their policies say."""

    def outage(runs: Sequence[Run]) -> None:
        for run in runs:
            run.world.daemon.kill()
            run.proxy.disarm()
        sweep.engine.reboot()
        testbed.engine(kind)  # which lets it see the registries again
        with ThreadPoolExecutor(len(runs)) as pool:
            list(pool.map(lambda run: run.world.daemon.start(wait=False), runs))

    return outage


def comes_to_rest(run: Run) -> None:
    """Hold that it ends as it should; where it was taken back with nothing held against the image, after a hint."""
    run.world.daemon.until(run.world.daemon.is_ready, "the daemon is ready")
    run.is_after_outage = True
    if run.scenario.removes_itself:
        is_whole_or_gone(run)
        return
    run.await_rest(also=("rolled_back: ",))
    if not run.is_at_rest():
        run.hint()
        run.await_rest()
    # Where nothing was in hand the engine has just started it, and nobody waits for its health.
    run.world.daemon.until(run.is_healthy, f"{run.name} is healthy again")
    run.check()


def is_whole_or_gone(run: Run) -> None:
    """Hold what is left of a container made with ``--rm``, which the engine removes as it starts.

    What its rollout had in hand is made again from the journal; what it had not is gone, as it would be without us.
    """
    daemon = run.world.daemon

    def is_over() -> bool:
        names = [name for each in run.containers() for name in each["Names"]]
        return run.is_quiet() and (names == [] or (names == [f"/{run.name}"] and run.is_healthy()))

    daemon.until(is_over, f"{run.name} is whole or gone", seconds=PATIENCE_SECONDS)
    assert daemon.lines("pass.crashed") == []
    is_begun = bool(daemon.lines("rollout.stepped")[1:]) and not daemon.lines("rollout.finishing")
    # The second step is made once the candidate is on record; without the chosen call all was over before the outage.
    is_in_hand = is_begun and run.is_disturbed
    assert run.containers() or not is_in_hand


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", EVERYWHERE)
def test_an_engine_that_is_killed_changes_nothing_of_the_end(kind: str, name: str, swept: Swept) -> None:
    """The daemon lives on. The engine's next start ends every container, and starts again what has `always` only."""
    sweep = swept(kind, name)
    sweep.under("always")
    sweep.try_all_at_once(points(sweep, kind), outage=killed(sweep), end=comes_to_rest)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", EVERYWHERE)
def test_an_engine_that_is_restarted_changes_nothing_of_the_end(kind: str, name: str, swept: Swept) -> None:
    """As its upgrade does: it stops its containers and starts them again, but what may end well by its policy."""
    sweep = swept(kind, name)
    sweep.under("unless-stopped")
    sweep.try_all_at_once(points(sweep, kind), outage=restarted(sweep), end=comes_to_rest)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", EVERYWHERE)
def test_a_reboot_of_the_host_changes_nothing_of_the_end(kind: str, name: str, swept: Swept, testbed: Parts) -> None:
    """Everything is down, and the daemon comes back to a rollout that it was in the middle of."""
    sweep = swept(kind, name)
    sweep.try_all_at_once(points(sweep, kind), outage=rebooted(sweep, testbed, kind), end=comes_to_rest)
