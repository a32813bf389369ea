"""The real parts as fixtures, and what was measured in passing, which is shown at the end."""

from collections.abc import Callable, Iterator

import pytest

from tests.e2e.shipped import Shipped
from tests.testbed.engine import NEW, OLD, Engine
from tests.testbed.parts import Parts, parts
from tests.testbed.product import sidecar_image
from tests.testbed.registry import Registry

FIGURES = "measured"
LONGEST_FIRST = ("test_self_update", "test_cli", "test_compose_example", "test_image")


@pytest.fixture(scope="session")
def testbed() -> Iterator[Parts]:
    """All parts of this run."""
    with parts() as run:
        yield run


@pytest.fixture
def engine(testbed: Parts) -> Iterator[Engine]:
    """Engine 26.1."""
    yield from _wiped(testbed, NEW.version)


@pytest.fixture
def engine_20(testbed: Parts) -> Iterator[Engine]:
    """Engine 20.10."""
    yield from _wiped(testbed, OLD.version)


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


@pytest.fixture
def shipped(engine: Engine) -> Shipped:
    """Sidecar's image, as the Dockerfile makes it now."""
    return Shipped(engine, sidecar_image(engine))


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Note a figure, which decides nothing."""

    def note(what: str, value: str) -> None:
        # Travels with the report of the test, from whichever process ran it.
        request.node.user_properties.append((FIGURES, f"{what:<48} {value}"))

    return note


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that take longest: they are run two at a time, and each by one process."""
    order = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for report in terminalreporter.getreports("passed") if report.when == "call"]
    figures = [value for report in reports for name, value in report.user_properties if name == FIGURES]
    if figures:
        terminalreporter.section("measured")
    for figure in figures:
        terminalreporter.write_line(figure)


def _wiped(testbed: Parts, kind: str) -> Iterator[Engine]:
    one = testbed.engine(kind)
    yield one
    one.wipe()
