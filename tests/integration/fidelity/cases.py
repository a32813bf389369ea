"""How the tests of what a recreate preserves make containers, update them and compare."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.request import urlopen

from tests.integration.inspects import Changes, changes, differs_from_new
from tests.integration.line import Json, Line
from tests.integration.versions import BY_THE_IMAGE, LEFT_BY_THE_IMAGE, SECOND, SINCE_25, app
from tests.testbed.engine import OLD

# Says nothing until a file is there, and then that it is ill: so a test holds the gate open and closes it.
ILL_WHEN_TOLD = {
    "Test": ["CMD-SHELL", "while [ ! -e /ill ]; do sleep 0.1; done; exit 1"],
    "Interval": SECOND // 4,
    "Timeout": 3600 * SECOND,
    "Retries": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How a container is made, and what that means for its update.

    Attributes:
        body: what no option of the client can say, as the engine's own JSON; instead of options.
        joins: networks that it is connected to by hand, with the options of that.
        keeps: which changes of the image do not reach it, for it has its own.
        changes: what changes beside.
        may_change: what may or may not.
    """

    options: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    body: Json | None = None
    joins: tuple[tuple[str, ...], ...] = ()
    keeps: frozenset[str] = frozenset()
    changes: Changes = field(default_factory=dict)
    may_change: frozenset[str] = frozenset()

    async def make(self, line: Line, name: str, verb: str = "run") -> None:
        """Make it with `docker run --detach`, or with `docker create`."""
        if self.body is None:
            await line.make(verb, name, *self.options, command=self.command)
        else:
            await line.post(self.body, name)
        for join in self.joins:
            await line.docker("network", "connect", *join, name)
        if self.body is not None and verb == "run":
            await line.docker("start", name)

    def unexpected(self, found: Changes, line: Line) -> Changes:
        """Give what has changed and was not expected to, or not so; in each pair what is, and what was expected."""
        by_the_image = {path: pair for path, pair in BY_THE_IMAGE.items() if path != SINCE_25 or not is_old(line)}
        kept = self.keeps | {f"Config.{path}" for path in self.keeps}
        wanted = {path: pair for path, pair in by_the_image.items() if path not in kept} | self.changes
        paths = (found.keys() | wanted.keys()) - self.may_change
        return {path: (found.get(path), wanted.get(path)) for path in paths if found.get(path) != wanted.get(path)}


def made(options: str = "", command: str = "", *, keeps: str = "", **more: Any) -> Case:
    """Write a case as on a command line: what has no blanks in it."""
    return Case(options=tuple(options.split()), command=tuple(command.split()), keeps=frozenset(keeps.split()), **more)


async def updated(line: Line, cases: Mapping[str, Case]) -> dict[str, tuple[Json, Json]]:
    """Make containers and update them as `updated_from_here` does."""
    await asyncio.gather(*(case.make(line, name) for name, case in cases.items()))
    return await updated_from_here(line, cases)


async def updated_from_here(line: Line, cases: Mapping[str, Case]) -> dict[str, tuple[Json, Json]]:
    """Update containers, hold that nothing has changed but what that means, and give both inspects of each."""
    before = {name: await line.inspect(name) for name in cases}
    line.push(app("2"))
    await line.update(*cases)
    after = {name: await line.inspect(name) for name in cases}
    unexpected = {name: case.unexpected(changes(before[name], after[name]), line) for name, case in cases.items()}
    assert unexpected == {name: {} for name in cases}
    await asyncio.gather(*(case.make(line, f"{name}-anew", "create") for name, case in cases.items()))
    strange = {name: differs_from_new(await line.inspect(f"{name}-anew"), after[name]) for name in cases}
    assert strange == dict.fromkeys(cases, LEFT_BY_THE_IMAGE)
    assert line.events.named("rollout.changed") == []  # Sidecar's own comparison sees it the same way
    return {name: (before[name], after[name]) for name in cases}


def is_old(line: Line) -> bool:
    """Say whether it is the engine that speaks API 1.41."""
    return line.real.release is OLD


async def mark(line: Line, name: str, *places: str) -> None:
    """Write a file into each place, as the user that may."""
    script = "; ".join(f"echo {place} >{place}/marker" for place in places)
    await line.docker("exec", "--user", "0", name, "sh", "-c", script)


async def marks(line: Line, name: str, *places: str) -> list[str]:
    """Read the files that `mark` wrote."""
    return (await line.docker("exec", name, "cat", *(f"{place}/marker" for place in places))).split()


async def volumes(line: Line) -> set[str]:
    """Give the names of all volumes."""
    return set((await line.docker("volume", "ls", "--quiet")).split())


async def served(line: Line, host: str, port: int = 8080) -> str:
    """Ask a container from another one which version it is."""
    return await line.docker("exec", "peer", "wget", "-q", "-O", "-", f"http://{host}:{port}/")


async def published(line: Line, port: int) -> str:
    """Ask a port that the engine's host publishes which version it is."""

    def ask() -> str:
        with urlopen(f"http://127.0.0.1:{line.real.reach(port)}/", timeout=30) as answer:
            return str(answer.read().decode().strip())

    return await asyncio.to_thread(ask)


def addresses(container: Json, network: str) -> tuple[str, str]:
    endpoint = container["NetworkSettings"]["Networks"][network]
    return endpoint["IPAddress"], endpoint["GlobalIPv6Address"]


def assert_untouched(before: Json, after: Json) -> None:
    assert (after["Id"], changes(before, after)) == (before["Id"], {})
