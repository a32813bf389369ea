"""The real parts as fixtures: started once a run, wiped after each test, ended with the run even if it is killed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
