"""A new container that is started beside the old one, on real engines: nobody is ever without an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from tests.integration.engines import ON_EACH, ON_NEW
from tests.integration.inspects import changes
from tests.integration.line import Line, open_line
from tests.testbed import images
from tests.testbed.engine import Engine
from tests.testbed.errors import PartError
from tests.testbed.images import Behaviour
from tests.testbed.registry import Registry

pytestmark = pytest.mark.timeout(900)
TRIES = 10
START_FIRST = ("--label=sidecar.strategy=start-first", "--label=sidecar.drain=1s", "--restart=always")


@pytest.fixture
async def line(engine: Engine, registry: Callable[..., Registry]) -> AsyncIterator[Line]:
    """The line over one of the engines, with a container `web` on two networks and a `peer` that asks it."""
    async with open_line(engine, registry()) as opened:
        opened.push(images.web("1"))
        await opened.pull()
        for name in ("one", "two"):
            await opened.docker("network", "create", name)
        reference = opened.store.reference("app:1")
        await opened.docker("run", "--detach", "--name=peer", "--network=one", "--entrypoint=sleep", reference, "9999")
        options = ["--network=one", "--network-alias=here", "--network-alias=there", "--publish=8080"]
        await opened.make("run", "web", *START_FIRST, *options)
        await opened.docker("network", "connect", "--alias=elsewhere", "two", "web")
        yield opened


async def answered(line: Line, host: str) -> str:
    """Ask whoever has a name; one that is gone between the name and the connection is passed over, as by a proxy."""
    for _ in range(TRIES):
        with suppress(PartError):
            return await line.docker("exec", "peer", "wget", "-q", "-T", "1", "-O", "-", f"http://{host}:8080/")
    message = f"asking {host!r}: no answer in {TRIES} tries"
    raise PartError(message)


@ON_EACH
async def test_it_takes_over_once_it_is_healthy(line: Line) -> None:
    """While it is in its gate the names lead to the old one only; afterwards to it, and it is as the old one was."""
    before, answers = await line.inspect("web"), list[str]()

    async def ask() -> None:
        answers.append(await answered(line, "here"))

    asking: list[asyncio.Task[None]] = []
    line.hints.on_wait = lambda: asking.append(asyncio.ensure_future(ask()))
    line.push(images.web("2"))
    await line.update("web")
    await asyncio.gather(*asking)
    after = await line.inspect("web")
    assert set(answers) == {"1", "2"}
    for name in ("here", "there", "web"):
        assert await answered(line, name) == "2"
    assert changes(before, after).keys() <= {
        "Config.Env.VERSION",
        "Config.Labels.org.opencontainers.image.version",
        "NetworkSettings.Ports.8080/tcp",
    }
    assert sorted((await line.docker("ps", "--all", "--format={{.Names}}")).split()) == ["peer", "web"]
    assert line.noted("web") == [each for each in line.noted("web") if "published on port" in each]
    steps = [str(facts["step"]) for facts in line.events.named("rollout.stepped")]
    assert steps.index("Start") < steps.index("Disconnect") < steps.index("Stop")


@ON_NEW
@pytest.mark.parametrize("behaviour", [Behaviour.UNHEALTHY, Behaviour.CRASHING])
async def test_one_that_fails_is_never_seen(line: Line, behaviour: Behaviour) -> None:
    """The old one is not touched: it goes on as the same container, without having been stopped."""
    before = await line.inspect("web")
    line.push(images.web("2", behaviour))
    outcome = await line.run_pass("web")
    assert outcome.startswith("hold: rolled_back: "), outcome
    after = await line.inspect("web")
    assert (after["Id"], changes(before, after)) == (before["Id"], {})
    assert after["State"]["StartedAt"] == before["State"]["StartedAt"]
    assert sorted((await line.docker("ps", "--all", "--format={{.Names}}")).split()) == ["peer", "web"]


@ON_NEW
async def test_where_it_is_not_possible_the_old_one_is_stopped_first(line: Line) -> None:
    """A published port, an address of its own, no network, a device, a volume: each is named."""
    await line.docker("network", "create", "--subnet=10.91.0.0/24", "three")
    options = {
        "port": "--publish=18091:8080",
        "address": "--network=three --ip=10.91.0.9",
        "none": "--network=none",
        "device": "--device=/dev/null:/dev/mine",
        "volume": "--volume=/data",
        "removing": "--rm --restart=no",
    }
    reasons = {
        "port": "8080/tcp is published on port 18091, which only one can have",
        "address": "it has an address of its own on network three",
        "none": "its network is none",
        "device": "it has devices of the host",
        "volume": "both would write to /data; if they may, label it sidecar.start-first-volumes=true",
        "removing": "it was made with --rm",
    }
    for name, option in options.items():
        await line.make("run", name, *START_FIRST, *option.split())
    line.push(images.web("2"))
    await line.update(*options)
    for name, reason in reasons.items():
        (note,) = (each for each in line.noted(name) if each.startswith("the old one is stopped before"))
        assert reason in note


@ON_NEW
async def test_two_may_share_what_their_user_says(line: Line) -> None:
    """With the label both have the volume for a while, and it stays with what is in it."""
    await line.make("run", "shared", *START_FIRST, "--label=sidecar.start-first-volumes=true", "--volume=/data")
    await line.docker("exec", "shared", "touch", "/data/marker")
    line.push(images.web("2"))
    await line.update("shared")
    assert line.noted("shared") == []
    assert await line.docker("exec", "shared", "ls", "/data") == "marker"
