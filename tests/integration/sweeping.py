"""Many runs of one scenario, side by side on one engine: each with its own container, repository, daemon and proxy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.engine_proxy import Fault
from tests.integration.scenarios import SCENARIOS, Scenario
from tests.integration.swept_run import Run
from tests.testbed.engine import Engine
from tests.testbed.errors import PartError
from tests.testbed.registry import Registry

# As many at once as keep two cores busy.
SIDE_BY_SIDE = 6

Point = tuple[int, Sequence[Fault]]
Disturb = Callable[[Run, Point], None]


@dataclass
class Sweep:
    """Many runs of one scenario.

    Attributes:
        calls: the changing calls of the undisturbed run, in order.
        tried: how many points were.
    """

    name: str
    engine: Engine
    registry: Registry
    folder: Path
    calls: list[str] = field(default_factory=list)
    tried: int = 0

    @property
    def scenario(self) -> Scenario:
        """What is done again and again."""
        return SCENARIOS[self.name]

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
        number, faults = point
        with self.run(f"{number}-{'-'.join(faults)}") as run:
            try:
                run.watch_over()
                disturb(run, point)
            except (AssertionError, OSError, PartError) as error:
                return self.told(run, point, error)
            self.tried += run.is_disturbed
        return None

    def told(self, run: Run, point: Point, error: Exception) -> str:
        """Say what went wrong, where, and what was done afterwards."""
        number, faults = point
        where = f"{', '.join(faults)} {self.calls[number - 1]!r} ({number})"
        return f"{where}, then {run.calls()[number:]}: {type(error).__name__}: {error}"

    @contextmanager
    def run(self, name: str) -> Iterator[Run]:
        """Make a run, and leave nothing of it."""
        run = Run.make(self.scenario, self.engine, self.registry, self.folder / name)
        try:
            yield run
        finally:
            run.end()
