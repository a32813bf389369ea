"""Whatever a container was made with, in any combination, is still so after an update on a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from tests.integration.engines import OF_ANY_ENGINE
from tests.integration.inspects import changes, differs_from_new
from tests.integration.line import Json, Line, open_line
from tests.integration.requests import SUBNETS, Request, requests
from tests.integration.versions import BY_THE_IMAGE, LEFT_BY_THE_IMAGE, app
from tests.testbed import images
from tests.testbed.api import ApiError
from tests.testbed.engine import Engine
from tests.testbed.registry import Registry

SIDE_BY_SIDE = 5


@pytest.mark.fidelity(1, 2, 4, 5, 6, 7, 8, 9, 10, 12, 14, 15, 16, 19, 20, 25, 26, 27, 28, 29, 31, 32, 42)
@pytest.mark.timeout(900)
@OF_ANY_ENGINE
def test_any_options_survive_an_update(any_engine: Engine, registry: Callable[..., Registry]) -> None:
    """What any request asked for is asked for by its successor, and nothing else is; the same fifteen each time."""
    survive(any_engine, registry(), count=15, derandomize=True)


@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_many_more_options_survive_an_update(any_engine: Engine, registry: Callable[..., Registry]) -> None:
    """What any request asked for is asked for by its successor, and nothing else is; others each time."""
    survive(any_engine, registry(), count=300)


def survive(engine: Engine, store: Registry, *, count: int, **options: Any) -> None:
    """Draw requests, and update what they make side by side."""

    # Nothing is made smaller where it fails: each try takes seconds, and the message names the option.
    @settings(
        max_examples=count // SIDE_BY_SIDE,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        **options,
    )
    @given(st.tuples(*(requests(release=engine.release, number=number) for number in range(SIDE_BY_SIDE))))
    def hold(drawn: tuple[Request, ...]) -> None:
        updated.append(runner.run(update(line, drawn)))

    updated: list[int] = []
    with asyncio.Runner() as runner:
        opening = open_line(engine, store)
        line = runner.run(opening.__aenter__())
        try:
            runner.run(prepare(line))
            hold()
        finally:
            runner.run(opening.__aexit__(None, None, None))
    assert sum(updated) > count / 2  # an engine refuses some, not most


async def prepare(line: Line) -> None:
    """Have both versions and all networks there, and containers that others link to and take volumes from."""
    line.push(app("1"))
    await line.pull()
    await line.docker("tag", line.store.reference("app:1"), "old:1")
    await line.docker("run", "--detach", "--name=peer", "old:1")
    line.push(images.web("1"), "lender:1")
    await line.docker("create", "--name=lender", "--volume=/lent", line.store.reference("lender:1"))
    for name, subnet in SUBNETS.items():
        await line.docker("network", "create", f"--subnet={subnet}", name)
        await line.docker("network", "connect", name, "peer")
    digest = line.push(app("2"))
    await line.docker("pull", "--quiet", f"{line.store.reference('app')}@{digest}")


async def update(line: Line, drawn: Sequence[Request]) -> int:
    """Make containers, update them, compare and remove them; say how many there were."""
    await line.docker("tag", "old:1", line.store.reference("app:1"))
    line.events.told.clear()
    wanted = {f"web-{number}": request for number, request in enumerate(drawn)}
    running = await asyncio.gather(*(is_made(line, request, name) for name, request in wanted.items()))
    made = {name: request for (name, request), runs in zip(wanted.items(), running, strict=True) if runs}
    try:
        before = {name: await line.inspect(name) for name in made}
        await line.update(*made)
        for name, request in made.items():
            note(f"{name}: {request}")
            await make(line, request, f"{name}-anew")
            compare(before[name], await line.inspect(name), await line.inspect(f"{name}-anew"))
        assert line.events.named("rollout.changed") == []
        return len(made)
    finally:
        await clear(line)


async def is_made(line: Line, request: Request, name: str) -> bool:
    """Make and start a container, unless the engine refuses it or it ends at once."""
    try:
        await make(line, request, name)
        await line.api("post", f"/containers/{name}/start")
    except ApiError as error:
        note(f"{name}: {error}")
        return False
    return bool((await line.inspect(name))["State"]["Status"] == "running")


async def make(line: Line, request: Request, name: str) -> None:
    await line.post(request.body, name)
    for network, endpoint in request.joins.items():
        body = {"Container": name, "EndpointConfig": endpoint}
        await line.api("post", f"/networks/{network}/connect", body)


def compare(before: Json, after: Json, anew: Json) -> None:
    """Hold that what has changed is the image's, and that nothing differs from what the same request makes now."""
    changed = changes(before, after)
    # The process is what entrypoint and command say; a port that the engine chooses may be another one.
    others = {
        path: pair
        for path, pair in changed.items()
        if not path.startswith(("Args", "Path", "NetworkSettings.Ports.")) and BY_THE_IMAGE.get(path) != pair
    }
    assert others == {}
    assert differs_from_new(anew, after).keys() <= LEFT_BY_THE_IMAGE.keys()


async def clear(line: Line) -> None:
    """Remove all containers but those that others need."""
    needed = {"/peer", "/lender"}
    found = await line.api("get", "/containers/json", all=True)
    made = [each["Id"] for each in found if not needed & set(each["Names"])]
    await asyncio.gather(*(line.api("delete", f"/containers/{ident}", force=True, v=True) for ident in made))
