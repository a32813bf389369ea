"""The real parts as fixtures: started once a run, wiped after each test, ended with the run even if it is killed."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.scenarios import SCENARIOS
from tests.integration.sweeping import Sweep
from tests.testbed.engine import NEW, OLD, Engine, compose_plugin
from tests.testbed.parts import PODMAN_KIND, STORE_VERSION, Parts, parts
from tests.testbed.registry import Registry


@pytest.fixture(scope="session")
def testbed() -> Iterator[Parts]:
    """All parts of this run."""
    with parts() as run:
        yield run


@pytest.fixture(params=[OLD.version, NEW.version])
def engine(request: pytest.FixtureRequest, testbed: Parts) -> Iterator[Engine]:
    """An engine; a test that asks for it runs on each version."""
    yield from _wiped(testbed, request.param)


@pytest.fixture
def engine_20(testbed: Parts) -> Iterator[Engine]:
    """Engine 20.10, API 1.41."""
    yield from _wiped(testbed, OLD.version)


@pytest.fixture
def engine_26(testbed: Parts) -> Iterator[Engine]:
    """Engine 26.1, API 1.45."""
    yield from _wiped(testbed, NEW.version)


@pytest.fixture
def engine_containerd(testbed: Parts) -> Iterator[Engine]:
    """Engine 26.1 with containerd's image store."""
    yield from _wiped(testbed, STORE_VERSION)


@pytest.fixture
def engine_podman(testbed: Parts) -> Iterator[Engine]:
    """Podman 5 behind its Docker-compatible socket."""
    yield from _wiped(testbed, PODMAN_KIND)


_SWEEP = [pytest.param(kind, marks=pytest.mark.sweep) for kind in (OLD.version, STORE_VERSION)]


@pytest.fixture(params=[NEW.version, *_SWEEP])
def engine_swept(request: pytest.FixtureRequest, testbed: Parts) -> Iterator[Engine]:
    """Engine 26.1; in a sweep 20.10 and 26.1 with containerd's image store."""
    yield from _wiped(testbed, request.param)


@pytest.fixture
def registry(testbed: Parts) -> Iterator[Callable[..., Registry]]:
    """Start a new, empty registry that every engine sees; it takes the options of `Registry`."""
    started: list[Registry] = []

    def start(**options: object) -> Registry:
        started.append(testbed.registry(**options))
        return started[-1]

    yield start
    for one in started:
        testbed.drop(one)


@pytest.fixture(scope="session")
def compose(testbed: Parts) -> Path:
    """Compose as a program of its own; `engine.compose()` runs it as the client's plugin."""
    return compose_plugin(testbed.directory / "client")


def _wiped(testbed: Parts, kind: str) -> Iterator[Engine]:
    one = testbed.engine(kind)
    yield one
    one.wipe()


@pytest.fixture(scope="session")
def calls_of() -> dict[tuple[str, str], list[str]]:
    """The changing calls of each undisturbed update, by engine and scenario, once they are known."""
    return {}


@pytest.fixture
def swept(
    testbed: Parts,
    registry: Callable[..., Registry],
    calls_of: dict[tuple[str, str], list[str]],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> Iterator[Callable[[str, str], Sweep]]:
    """Give what sweeps a scenario on an engine of a kind; how many points it tried is said at the end of the run."""
    made: list[tuple[str, Sweep]] = []

    def make(kind: str, name: str) -> Sweep:
        sweep = Sweep(name, SCENARIOS[name], testbed.engine(kind), registry(), tmp_path)
        made.append((kind, sweep))
        if (kind, name) not in calls_of:
            sweep.run_undisturbed()
            calls_of[kind, name] = sweep.calls
        sweep.calls = calls_of[kind, name]
        return sweep

    yield make
    for kind, sweep in made:
        record_property("swept", [kind, sweep.name, len(sweep.calls), sweep.tried])
        sweep.engine.wipe()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many points were tried, by engine and scenario."""
    tried: Counter[tuple[str, str, int]] = Counter()
    for report in (each for reports in terminalreporter.stats.values() for each in reports):
        if getattr(report, "when", None) == "teardown":
            for kind, name, calls, points in (value for key, value in report.user_properties if key == "swept"):
                tried[kind, name, calls] += points
    if not tried:
        return
    terminalreporter.section("points tried")
    for (kind, name, calls), points in sorted(tried.items()):
        terminalreporter.write_line(f"{kind:16} {name:24} {calls:3} calls {points:5} points")
    terminalreporter.write_line(f"{tried.total()} points in all")
