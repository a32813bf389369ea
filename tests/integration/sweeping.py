"""Many runs of one scenario, side by side on one engine: each with its own container, repository, daemon and proxy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tests.integration.engine_proxy import Fault
from tests.integration.scenarios import Scenario
from tests.integration.swept_run import Run
from tests.testbed.engine import Engine
from tests.testbed.errors import PartError
from tests.testbed.registry import Registry

# As many at once as keep two cores busy.
SIDE_BY_SIDE = 6
# As many as wait for one outage: it takes longer than they do.
AT_ONCE = 12

Point = tuple[int, Sequence[Fault]]
End = Callable[[Run], None]
Disturb = Callable[[Run, Point], None]


@dataclass
class Sweep:
    """Many runs of one scenario.

    Attributes:
        calls: the changing calls of the undisturbed run, in order.
        tried: how many points were.
        by_compose: the containers are those of a Compose project.
    """

    name: str
    scenario: Scenario
    engine: Engine
    registry: Registry
    folder: Path
    calls: list[str] = field(default_factory=list)
    tried: int = 0
    by_compose: bool = False

    def under(self, policy: str) -> None:
        """Give the containers of all further runs another restart policy; but what removes itself can have none."""
        if not self.scenario.removes_itself:
            self.scenario = replace(self.scenario, restart={"Name": policy, "MaximumRetryCount": 0})

    def run_undisturbed(self) -> None:
        """Update without a fault, and learn which calls there are."""
        with self.run("undisturbed") as run:
            run.watch_over()
            run.update()
            run.await_rest()
            run.check()
            if self.scenario.has_hooks:
                assert run.ran() == ["pre", "post"]
            self.calls = run.calls()

    def points(self, faults: Iterable[Sequence[Fault]], *, every: int = 1) -> list[Point]:
        """Give each of the calls, or every n-th and the last, with each of the faults."""
        last = len(self.calls)
        numbers = [number for number in range(1, last + 1) if number % every == 0 or number == last]
        return [(number, each) for number in numbers for each in faults]

    def try_all(self, points: Sequence[Point], disturb: Disturb) -> None:
        """Disturb a run at each of the points, and hold that each comes to its end as if it had not been."""

        def try_one(point: Point) -> str | None:
            return self._try(point, disturb)

        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            wrong = [found for found in pool.map(try_one, points) if found]
        assert not wrong, "\n\n".join(wrong)
        assert self.engine.api.get("/volumes")["Volumes"] in (None, [])

    def _try(self, point: Point, disturb: Disturb) -> str | None:
        with self.run(f"{point[0]}-{'-'.join(point[1])}") as run:
            run.watch_over()
            wrong = self._told(run, point, lambda: disturb(run, point))
            self.tried += run.is_disturbed
            return wrong

    def try_all_at_once(self, points: Sequence[Point], *, outage: Callable[[Sequence[Run]], None], end: End) -> None:
        """Bring a run to each of the points, let something happen to all of them at once, and hold how each ends."""
        wrong: list[str] = []
        for first in range(0, len(points), AT_ONCE):
            batch = points[first : first + AT_ONCE]
            with ExitStack() as held, ThreadPoolExecutor(len(batch)) as pool:
                runs = [held.enter_context(self.run(f"{number}-held")) for number, _ in batch]
                wrong += filter(None, pool.map(self._bring, runs, batch))
                outage(runs)
                wrong += filter(None, pool.map(partial(self._end, end=end), runs, batch))
        assert not wrong, "\n\n".join(wrong)
        assert self.engine.api.get("/volumes")["Volumes"] in (None, [])

    def _bring(self, run: Run, point: Point) -> str | None:
        number, (fault,) = point
        return self._told(run, point, lambda: run.hold_at(number, fault))

    def _end(self, run: Run, point: Point, *, end: End) -> str | None:
        self.tried += run.is_disturbed
        return self._told(run, point, lambda: end(run))

    def _told(self, run: Run, point: Point, act: Callable[[], None]) -> str | None:
        """Do something, and say what went wrong, where, and what was done afterwards."""
        try:
            act()
        except (AssertionError, OSError, PartError) as error:
            number, faults = point
            where = f"{', '.join(faults)} {self.calls[number - 1]!r} ({number})"
            return f"{where}, then {run.calls()[number:]}: {type(error).__name__}: {error}"
        return None

    @contextmanager
    def run(self, name: str) -> Iterator[Run]:
        """Make a run, and leave nothing of it."""
        run = Run.make(self.scenario, self.engine, self.registry, self.folder / name, by_compose=self.by_compose)
        try:
            yield run
        finally:
            run.end()
