"""A container is stopped as it asks for, and is afterwards in the state that it was in."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from tests.integration.engines import OF_ANY_ENGINE
from tests.integration.fidelity.cases import (
    ILL_WHEN_TOLD,
    assert_untouched,
)
from tests.integration.line import Json, Line
from tests.integration.versions import app
from tests.testbed import images
from tests.testbed.api import ApiError
from tests.testbed.images import Behaviour

# Time decides nothing here: on a busy machine an update takes as long as it takes.
pytestmark = [pytest.mark.timeout(900), OF_ANY_ENGINE]

SIGNALLED = "".join(f"trap 'echo {name} >/data/signal; exit 0' {name}\n" for name in ("TERM", "INT", "USR1", "USR2"))


@pytest.mark.fidelity(23)
async def test_the_stop_signal_is_the_containers_own(line: Line) -> None:
    """The old one is stopped by the signal of its image, or by that of its user, and can say its last words."""
    script = f"#!/bin/sh\n{SIGNALLED}while :; do sleep 9 & wait; done\n"
    line.push(images.web("1", Behaviour.UNCHECKED, files={"/wait": script}, StopSignal="SIGUSR1", Cmd=["/wait"]))
    await line.pull()
    await line.make("run", "images", "--volume=/data")
    await line.make("run", "users", "--volume=/data", "--stop-signal=SIGUSR2")
    line.push(app("2"))
    await line.update("images", "users")
    said = [await line.docker("exec", name, "cat", "/data/signal") for name in ("images", "users")]
    assert said == ["USR1", "USR2"]


@pytest.mark.fidelity(22)
async def test_the_stop_grace_is_the_containers_own(line: Line) -> None:
    """One that takes longer to stop than the engine's ten seconds is waited for, if its user said so."""
    script = "#!/bin/sh\ntrap 'sleep 11; echo done >/data/last; exit 0' TERM\nwhile :; do sleep 9 & wait; done\n"
    line.push(images.web("1", Behaviour.UNCHECKED, files={"/wait": script}, Cmd=["/wait"]))
    await line.pull()
    await line.make("run", "patient", "--volume=/data", "--stop-timeout=120")
    line.push(app("2"))
    await line.update("patient")
    assert await line.docker("exec", "patient", "cat", "/data/last") == "done"
    assert (await line.inspect("patient"))["Config"]["StopTimeout"] == 120


async def state(line: Line, name: str) -> str:
    return str((await line.inspect(name))["State"]["Status"])


@pytest.mark.fidelity(38)
async def test_each_state_comes_back(line: Line) -> None:
    """What runs, runs; what is paused is paused again after the gate; what is stopped is recreated and not run."""
    recreate = "--label=sidecar.when-stopped=recreate"
    line.push(images.web("1", Behaviour.CRASHING), "crash:1")
    await line.pull("crash:1")
    await asyncio.gather(
        line.make("run", "running"),
        line.make("run", "paused"),
        line.make("run", "exited", recreate),
        line.make("create", "created", recreate, "--restart=always"),
        line.make("run", "restarting", "--restart=always", image="crash:1"),
    )
    await line.docker("pause", "paused")
    await line.docker("stop", "exited")
    await line.until(restarted, "restarting")
    line.push(app("2"))
    line.push(images.web("2"), "crash:1")
    wanted = {
        "running": "running",
        "paused": "paused",
        "exited": "created",  # it has not run yet
        "created": "created",
        "restarting": "running",
    }
    await line.update(*wanted)
    assert {name: await state(line, name) for name in wanted} == wanted
    assert (await line.inspect("created"))["HostConfig"]["RestartPolicy"]["Name"] == "always"
    await line.docker("unpause", "paused")
    assert await line.docker("exec", "paused", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/") == "2"


def restarted(container: Json) -> bool:
    return bool(container["RestartCount"])


@pytest.mark.fidelity(38)
async def test_what_was_stopped_is_held(line: Line) -> None:
    """Without a label that asks for it, what does not run is not recreated, and the reason says what would do it."""
    await line.make("run", "exited")
    await line.make("create", "created")
    await line.docker("stop", "exited")
    before = {name: await line.inspect(name) for name in ("exited", "created")}
    line.push(app("2"))
    for name, inspected in before.items():
        outcome = await line.run_pass(name)
        assert outcome.startswith(f"hold: {name} is {name}, and what was stopped stays stopped")
        assert "sidecar.when-stopped=recreate" in outcome
        assert_untouched(inspected, await line.inspect(name))


@pytest.mark.fidelity(39)
async def test_the_parked_one_does_not_start_by_itself(line: Line) -> None:
    """While the gate is open a reboot would start one of the two only; after a rollback the policy is what it was."""
    policies = {"always": 0, "unless-stopped": 0, "on-failure": 7, "no": 0}
    for name, count in policies.items():
        await line.make("run", name, f"--restart={name}{f':{count}' if count else ''}")
    before = {name: await line.inspect(name) for name in policies}
    seen: dict[str, list[tuple[str, Json]]] = {}

    def look_and_close_the_gate() -> None:
        for name in policies.keys() - seen.keys():
            with suppress(ApiError):  # it is not parked yet
                pair = [line.real.api.get(f"/containers/{each}/json") for each in (f"{name}.sidecar-old", name)]
                seen[name] = [(each["State"]["Status"], each["HostConfig"]["RestartPolicy"]) for each in pair]
                line.real.docker("exec", "--user=0", name, "touch", "/ill")

    line.hints.on_wait = look_and_close_the_gate
    line.push(images.web("2", Behaviour.UNCHECKED, Healthcheck=ILL_WHEN_TOLD))
    outcomes = await asyncio.gather(*map(line.run_pass, policies))
    assert all(outcome.startswith("hold: rolled_back: became unhealthy") for outcome in outcomes), outcomes
    none = {"Name": "no", "MaximumRetryCount": 0}
    own = {name: {"Name": name, "MaximumRetryCount": count} for name, count in policies.items()}
    assert seen == {name: [("exited", none), ("running", own[name])] for name in policies}
    for name in policies:
        assert_untouched(before[name], await line.inspect(name))
        assert before[name]["HostConfig"]["RestartPolicy"] == own[name]
