"""The line over each engine: 20.10, and 26.1 with either way to keep images."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.integration.line import Line, open_line
from tests.integration.versions import app
from tests.testbed.engine import NEW, Engine
from tests.testbed.parts import KINDS, STORE_VERSION, Parts
from tests.testbed.registry import Registry


@pytest.fixture(params=KINDS)
def any_engine(request: pytest.FixtureRequest, testbed: Parts) -> Iterator[Engine]:
    """Every engine there is."""
    one = testbed.engine(request.param)
    yield one
    one.wipe()


@pytest.fixture(params=[NEW.version, STORE_VERSION])
def newer_engine(request: pytest.FixtureRequest, testbed: Parts) -> Iterator[Engine]:
    """Engine 26.1, with either way to keep images."""
    one = testbed.engine(request.param)
    yield one
    one.wipe()


@pytest.fixture
async def line(any_engine: Engine, registry: Callable[..., Registry]) -> AsyncIterator[Line]:
    """The line over one of the engines, with the first version pushed and pulled."""
    async with open_line(any_engine, registry()) as opened:
        opened.push(app("1"))
        await opened.pull()
        yield opened


@pytest.fixture
async def newer_line(newer_engine: Engine, registry: Callable[..., Registry]) -> AsyncIterator[Line]:
    """The line over Engine 26.1, for what older ones do not know."""
    async with open_line(newer_engine, registry()) as opened:
        opened.push(app("1"))
        await opened.pull()
        yield opened


@pytest.fixture
async def networks(line: Line) -> None:
    """Three networks, the second with IPv6 as well, and a container `peer` on all of them."""
    await line.docker("network", "create", "--subnet=10.91.0.0/24", "one")
    await line.docker("network", "create", "--subnet=10.92.0.0/24", "--ipv6", "--subnet=fd00:92::/64", "two")
    await line.docker("network", "create", "three")
    await line.docker("run", "--detach", "--name=peer", "--network=one", line.store.reference("app:1"))
    await line.docker("network", "connect", "two", "peer")
    await line.docker("network", "connect", "three", "peer")
