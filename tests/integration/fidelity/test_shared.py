"""What a container shares with another one is shared afterwards."""

from __future__ import annotations

import pytest

from tests.integration.engines import OF_ANY_ENGINE
from tests.integration.fidelity.cases import (
    made,
    updated,
)
from tests.integration.line import Line
from tests.testbed import images

# Time decides nothing here: on a busy machine an update takes as long as it takes.
pytestmark = pytest.mark.timeout(900)


@pytest.mark.fidelity(17)
@OF_ANY_ENGINE
async def test_what_is_shared_with_another_container_stays_shared(line: Line) -> None:
    """One that lives in another's network, or has another's volumes, does so afterwards and has none of its own."""
    line.push(images.web("1"), "parent:1")
    parent = line.store.reference("parent:1")
    await line.docker("run", "--detach", "--name=parent", "--hostname=parents", "--volume=/shared", parent)
    await line.docker("exec", "parent", "touch", "/shared/marker")
    # Two cannot listen on one port, so these do not serve.
    options, command = "--entrypoint= --no-healthcheck --stop-signal KILL", "sleep 999"
    keeps = "Cmd Entrypoint Path Args Healthcheck.Test StopSignal"
    cases = {
        "network": made(f"{options} --network container:parent", command, keeps=keeps),
        "volumes": made(f"{options} --volumes-from parent:ro", command, keeps=keeps),
    }
    await updated(line, cases)
    assert await line.docker("exec", "network", "busybox", "hostname") == "parents"
    assert await line.docker("exec", "volumes", "ls", "/shared") == "marker"


@pytest.mark.fidelity(20)
@OF_ANY_ENGINE
async def test_legacy_links_stay(line: Line) -> None:
    """A link of the default network still leads to where it led, under the name that it had."""
    await line.docker("run", "--detach", "--name=db", line.store.reference("app:1"))
    await updated(line, {"web": made("--link db:store")})
    assert await line.docker("exec", "web", "wget", "-q", "-O", "-", "http://store:8080/") == "1"
