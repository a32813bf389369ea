"""Containers made with `--rm` are updated on real engines though nothing is left of them once they end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from tests.integration.engines import ON_EACH
from tests.integration.inspects import changes
from tests.integration.line import Line, open_line
from tests.integration.versions import SECOND, app
from tests.testbed import images
from tests.testbed.engine import Engine
from tests.testbed.images import Behaviour
from tests.testbed.registry import Registry

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
async def line(engine: Engine, registry: Callable[..., Registry]) -> AsyncIterator[Line]:
    """The line over one of the engines, with a container `web` made with `--rm` and something in its volumes."""
    async with open_line(engine, registry()) as opened:
        opened.push(app("1"))
        await opened.pull()
        await opened.make("run", "web", "--rm", "--volume=/x", "--volume=named:/y", "--env=OWN=own")
        await opened.docker(
            "exec", "--user=0", "web", "sh", "-c", "for at in /x /y /data; do echo kept >$at/marker; done"
        )
        yield opened


async def names(line: Line) -> list[str]:
    return sorted((await line.docker("ps", "--all", "--format={{.Names}}")).split())


async def marks(line: Line) -> str:
    return await line.docker("exec", "web", "cat", "/x/marker", "/y/marker", "/data/marker")


@pytest.mark.fidelity(21)
@ON_EACH
async def test_it_is_updated_with_what_is_in_its_volumes(line: Line) -> None:
    """The new one is made with `--rm` too, has every volume of the old one, twice in a row; the log says which stay."""
    before = await line.inspect("web")
    for version in ("2", "3"):
        line.push(app(version))
        await line.update("web")
        after = await line.inspect("web")
        assert after["HostConfig"]["AutoRemove"]
        assert "OWN=own" in after["Config"]["Env"]
        assert (await marks(line)).split() == ["kept"] * 3
        assert await names(line) == ["web"]
    kept = {mount["Name"] for mount in before["Mounts"]}
    assert kept <= {mount["Name"] for mount in after["Mounts"]}
    assert {note.partition(" ")[0] for note in line.noted("web")} >= {"/x", "/data"}
    assert not any(note.startswith("/y ") for note in line.noted("web"))


@pytest.mark.fidelity(21)
@ON_EACH
@pytest.mark.parametrize("fails", ["unhealthy", "exits"])
async def test_it_is_put_back_as_it_was(line: Line, fails: str) -> None:
    """A new one that fails, and is gone if it ended, gives way to one that differs from the old one in nothing."""
    before, volumes = await line.inspect("web"), await line.docker("volume", "ls", "--quiet")
    ill = {"Test": ["CMD", "/bin/stat", "/none"], "Interval": SECOND // 4, "Retries": 1}
    image = app("2", Healthcheck=ill) if fails == "unhealthy" else images.web("2", Behaviour.CRASHING)
    line.push(image)
    outcome = await line.run_pass("web")
    assert outcome.startswith("hold: rolled_back: "), outcome
    after = await line.inspect("web")
    assert after["State"]["Status"] == "running"
    assert changes(before, after) == {}
    assert (await marks(line)).split() == ["kept"] * 3
    assert await names(line) == ["web"]
    assert await line.docker("volume", "ls", "--quiet") == volumes
