"""The command line that stands for a container makes the same one again, by the engine's own client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from sidecar.targets.command_line import CommandLine, command_line
from sidecar.targets.spec import EngineDefaults, create_request
from tests.integration.fidelity.test_drawn import clear, is_made, prepare
from tests.integration.inspects import Changes, changes
from tests.integration.line import Json, Line, open_line
from tests.integration.requests import Request, requests
from tests.testbed.engine import OLD, Engine
from tests.testbed.registry import Registry

SIDE_BY_SIDE = 5
COUNT = 25
# What the client writes out though it asks for nothing.
BY_THE_CLIENT: Changes = {"HostConfig.RestartPolicy.Name": (None, "no")}


@pytest.mark.sweep  # a minute on each engine
@pytest.mark.timeout(600)
def test_a_container_is_made_again_by_its_command_line(engine: Engine, registry: Callable[..., Registry]) -> None:
    """Whatever a container was made with, its command line asks for the same, or names what it does not ask for."""

    @settings(
        max_examples=COUNT // SIDE_BY_SIDE,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(*(requests(release=engine.release, number=number) for number in range(SIDE_BY_SIDE))))
    def hold(drawn: tuple[Request, ...]) -> None:
        made.append(runner.run(make_again(line, drawn)))

    made: list[int] = []
    with asyncio.Runner() as runner:
        opening = open_line(engine, registry())
        line = runner.run(opening.__aenter__())
        try:
            runner.run(prepare(line))
            hold()
        finally:
            runner.run(opening.__aexit__(None, None, None))
    assert sum(made) > COUNT / 2  # an engine refuses some, not most


async def make_again(line: Line, drawn: Sequence[Request]) -> int:
    """Make containers, remove them, and make them again by their command lines; say how many there were."""
    await line.docker("tag", "old:1", line.store.reference("app:1"))
    wanted = {f"web-{number}": sayable(line, request) for number, request in enumerate(drawn)}
    try:
        running = [name for name, request in wanted.items() if await is_made(line, request, name)]
        for name in running:
            before = await line.inspect(name)
            said = await described(line, before)
            note(f"{name}: {wanted[name]}\n{said.lines}\n{said.comments}")
            await line.docker("rm", "--force", name)
            await run(line, said)
            assert unexpected(changes(before, await line.inspect(name)), said) == {}
        return len(running)
    finally:
        await clear(line)


def sayable(line: Line, request: Request) -> Request:
    """Leave out what the client of these tests refuses to say to an older engine, which its own client does say."""
    if line.real.release is not OLD:
        return request
    body = {key: value for key, value in request.body.items() if key != "MacAddress"}
    return replace(request, body=body)


async def described(line: Line, container: Json) -> CommandLine:
    """Give the command line of a container as it is."""
    image = await line.api("get", f"/images/{container['Image']}/json")
    version, info = await line.api("get", "/version"), await line.api("get", "/info")
    api = tuple(int(part) for part in version["ApiVersion"].split("."))
    engine = EngineDefaults(
        platform=f"{version['Os']}/{version['Arch']}", hostname=info["Name"], runtime=info["DefaultRuntime"]
    )
    request = create_request(
        container,
        old_image=image,
        new_image=image,
        image=container["Config"]["Image"],
        api=(api[0], api[1]),
        engine=engine,
    )
    return command_line(request, container["Name"].lstrip("/"), api=(api[0], api[1]))


async def run(line: Line, said: CommandLine) -> None:
    for command in said.commands:
        await line.docker(*command[1:])


def unexpected(found: Changes, said: CommandLine) -> dict[str, Any]:
    """Give what differs and was not named."""
    named = tuple(
        each.field.replace("NetworkingConfig.EndpointsConfig", "NetworkSettings.Networks") for each in said.unsaid
    )
    fields = tuple(".".join(name.split(".")[:2]) for name in named)
    found = {path: pair for path, pair in found.items() if still_differs(path, pair)}
    found = {path: pair for path, pair in found.items() if BY_THE_CLIENT.get(path) != pair}
    process = ("Args", "Path", "NetworkSettings.Ports.")  # what entry point and command say; ports the engine chose
    return {path: pair for path, pair in found.items() if not path.startswith((*fields, *process))}


def still_differs(path: str, pair: tuple[Any, Any]) -> bool:
    """Say whether a pair still differs where the client does not keep the order of what is a set."""
    sets = ("HostConfig.Ulimits", "HostConfig.CapAdd", "HostConfig.CapDrop")
    if path.startswith("HostConfig.Mounts.") and all(pair):
        return without_empty_driver(pair[0]) != without_empty_driver(pair[1])
    return path not in sets or sorted(map(repr, pair[0] or [])) != sorted(map(repr, pair[1] or []))


def without_empty_driver(mount: Json) -> Json:
    """Leave out a driver that the client writes down though none was asked for."""
    options = {
        key: value for key, value in (mount.get("VolumeOptions") or {}).items() if value not in ({}, {"Name": ""})
    }
    return {**mount, "VolumeOptions": options}
