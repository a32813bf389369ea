"""The helper that updates the container that Sidecar itself runs in: made once, watched, and removed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from sidecar.core.decision import Cause, Hold
from sidecar.core.rollout import Phase, Rollout
from sidecar.errors import Postponed, Unreachable
from sidecar.executor import Executor
from sidecar.taking_over import carry_on
from sidecar.targets.discovery import Scope
from sidecar.targets.own_container import Helper, helper_request
from sidecar.targets.spec import Connect, CreateRequest
from tests.core.values import rollout
from tests.fakes import Bomb, Killed, failing_first, image_id
from tests.test_crash import LABELS, TARGET, World, at_rest

CAUSE = Cause("webhook", 0.0)
HELPER = "web.sidecar-helper"
BODY: dict[str, Any] = {
    "Image": "sidecar:1",
    "Env": ["SIDECAR_TOKEN=own"],
    "Hostname": "mine",
    "Labels": {"sidecar.enable": "true", "com.docker.compose.service": "sidecar"},
    "ExposedPorts": {"8080/tcp": {}},
    "HostConfig": {
        "Binds": ["/var/run/docker.sock:/var/run/docker.sock", "data:/data"],
        "PortBindings": {"8080/tcp": [{"HostPort": "8080"}]},
        "RestartPolicy": {"Name": "always"},
        "GroupAdd": ["999"],
    },
    "NetworkingConfig": {
        "EndpointsConfig": {"shop": {"Aliases": ["sidecar"], "IPAMConfig": {"IPv4Address": "10.0.0.2"}}}
    },
}


def test_it_has_the_rights_of_the_new_daemon_and_serves_nobody() -> None:
    """The same volumes, groups and settings; no port, name or label of the daemon; started until it is done."""
    made = helper_request(CreateRequest(body=BODY), image_id="sha256:new", rollout_id="rollout-1")
    assert (made["Image"], made["Cmd"], made["Env"]) == ("sha256:new", ["take-over"], ["SIDECAR_TOKEN=own"])
    assert made["Labels"] == {"sidecar.enable": "false", "sidecar-rollout": "rollout-1"}
    assert made["HostConfig"]["Binds"] == BODY["HostConfig"]["Binds"]
    assert made["HostConfig"]["GroupAdd"] == ["999"]
    assert made["HostConfig"]["PortBindings"] == {}
    assert made["HostConfig"]["RestartPolicy"]["Name"] == "on-failure"
    assert made["NetworkingConfig"] == {"EndpointsConfig": {"shop": {}}}
    assert not {"Hostname", "ExposedPorts"} & made.keys()
    assert made["Healthcheck"] == {"Test": ["NONE"]}


@dataclass
class Kept:
    """What was written down for the helper."""

    rollouts: list[Rollout] = field(default_factory=list)
    is_forgotten: bool = False

    def forget(self) -> None:
        self.is_forgotten = True


class _File:
    """What was handed over, as it was written down at first: the one that carries it on knows more."""

    def __init__(self, handed: Rollout) -> None:
        self._handed = handed

    def read(self) -> Rollout | None:
        """Give it."""
        return self._handed


@dataclass
class Own:
    """A world in which the container that is looked after is that of the process."""

    world: World = field(default_factory=lambda: World(labels=LABELS))
    kept: Kept = field(default_factory=Kept)

    def __post_init__(self) -> None:
        self.helper = Helper(self.world.engine, keep=self.kept.rollouts.append, forget=self.kept.forget)  # type: ignore[arg-type]

    @property
    def value(self) -> Rollout:
        """A rollout that is due to be handed over."""
        self.world.engine.images[image_id("b")] = self.world.engine.offered[image_id("b")]
        plan = {"request": CreateRequest(body=BODY).to_json()}
        made = rollout(plan=plan)
        return replace(made, to=replace(made.to, image_id=image_id("b")))

    async def hand_over(self, value: Rollout) -> None:
        with pytest.raises(
            Postponed, match=r"web is updated by its helper web\.sidecar-helper, which is about to stop it"
        ):
            await self.helper.hand_over("web", value)


async def test_a_helper_is_made_and_started_once() -> None:
    """What it is to do is written down before; asked again, it is left to its work."""
    own = Own()
    value = own.value
    await own.hand_over(value)
    await own.hand_over(value)
    assert own.kept.rollouts == [value]
    assert [call for call in own.world.engine.calls if HELPER in call] == [f"create {HELPER}", f"start {HELPER}"]


async def test_one_that_was_not_started_is_started() -> None:
    """The process was killed in between."""
    own = Own()
    value = own.value
    own.world.engine.bomb = own.world.bomb = Bomb(kill_at={3})
    with pytest.raises(Killed):
        await own.helper.hand_over("web", value)
    own.world.bomb.has_gone_off = False
    await own.hand_over(value)
    helper = own.world.engine.named(HELPER)
    assert helper is not None
    assert helper["up"]


@pytest.mark.parametrize("is_over", [True, False])
async def test_a_helper_of_another_rollout_or_one_that_is_done_makes_room(is_over: bool) -> None:
    """Of an earlier rollout nothing is left to do, and one that ended well and left us running did not see it all."""
    own = Own()
    value = own.value
    await own.hand_over(value)
    first = own.world.engine.named(HELPER) or {}
    if is_over:
        own.world.engine.end(first, 0)
    else:
        value = replace(value, id="rollout-2")
    await own.hand_over(value)
    assert (own.world.engine.named(HELPER) or {})["id"] != first["id"]
    assert len(own.kept.rollouts) == 2


async def test_one_that_fails_again_and_again_is_told_with_its_words() -> None:
    """The engine starts it again; after three times the image is no good."""
    own = Own()
    assert await own.helper.failure("web") is None
    await own.hand_over(own.value)
    helper = own.world.engine.named(HELPER) or {}
    helper["restarts"] = 2
    assert await own.helper.failure("web") is None
    helper |= {"restarts": 3, "code": 1}
    words = f"the helper of its image ended 3 times (exit code 1): 'the last words of {HELPER}'"
    assert await own.helper.failure("web") == words


async def test_in_the_end_it_is_removed_and_forgotten() -> None:
    """Whatever it does then; where there is none, that is fine."""
    own = Own()
    await own.hand_over(own.value)
    await own.helper.remove("web")
    assert own.world.engine.named(HELPER) is None
    assert own.kept.is_forgotten
    await own.helper.remove("web")


async def test_the_daemon_hands_over_instead_of_stopping_itself() -> None:
    """All that can be done beforehand is done by it; a helper that fails makes it take the update back."""
    own = Own()
    world = own.world
    world.own_helper, world.scope = own.helper, Scope(own_id=world.old_id)
    reconciler = world.reconciler()
    verdict = await reconciler.run_pass(TARGET, CAUSE)
    assert verdict is not None
    held = reconciler.last[TARGET].verdict
    assert isinstance(held, Hold)
    assert (held.is_failure, "is updated by its helper" in held.reason) == (False, True)
    assert not any(call.startswith("stop") for call in world.engine.calls)
    assert (world.engine.named("web.sidecar-new") or {})["image"] == image_id("b")
    (world.engine.named(HELPER) or {})["restarts"] = 3
    await reconciler.run_pass(TARGET, CAUSE)
    assert world.phases() == [Phase.UPDATING, Phase.ROLLING_BACK, Phase.ROLLED_BACK]
    at_rest(world, "a")


async def test_the_helper_is_on_every_network_of_the_daemon() -> None:
    """Before API 1.44 a create takes one network: that of a socket proxy may be the other."""
    own = Own()
    own.world.engine.api_version = (1, 41)
    request = CreateRequest(body=BODY, connects=(Connect(network="socket-proxy", endpoint={}),))
    await own.hand_over(replace(own.value, plan={"request": request.to_json()}))
    helper = own.world.engine.named(HELPER)
    assert helper is not None
    assert set(helper["networks"]) == {"shop", "socket-proxy"}


async def test_a_helper_that_somebody_stopped_is_started_again() -> None:
    """`docker stop $(docker ps -q)`, then `docker start sidecar`: an engine does not start such a one again."""
    own = Own()
    value = own.value
    await own.hand_over(value)
    own.world.engine.end(own.world.engine.named(HELPER) or {}, 1)  # what `take-over` gives on SIGTERM
    await own.hand_over(value)
    assert (own.world.engine.named(HELPER) or {})["up"]


async def test_an_engine_that_is_away_for_a_moment_says_nothing_against_an_image() -> None:
    """The helper tries again by itself: that its engine starts it anew three times is taken for its image's doing."""
    own = Own()
    world = own.world
    world.own_helper, world.scope = own.helper, Scope(own_id=world.old_id)
    await world.reconciler().run_pass(TARGET, CAUSE)
    helper, handed = world.engine.named(HELPER) or {}, own.kept.rollouts[-1]
    world.scope, world.own_helper = Scope(own_id=helper["id"]), None
    world.engine.fails["stop"] = failing_first(5, Unreachable("connection refused"))
    ports = world.ports()
    executor = Executor(ports, turns=asyncio.Semaphore(1), stopping=asyncio.Event())
    await carry_on(executor, _File(handed), CAUSE, ports=ports)  # type: ignore[arg-type]
    assert (world.engine.named("web") or {})["image"] == image_id("b")
    assert len(world.events.named("rollout.delayed")) >= 1


async def test_a_helper_is_put_on_a_network_once() -> None:
    """An engine refuses to connect what is connected, and a helper that somebody stopped would never run again."""
    own = Own()
    own.world.engine.api_version = (1, 41)
    request = CreateRequest(body=BODY, connects=(Connect(network="socket-proxy", endpoint={}),))
    value = replace(own.value, plan={"request": request.to_json()})
    await own.hand_over(value)
    own.world.engine.end(own.world.engine.named(HELPER) or {}, 1)
    await own.hand_over(value)
    assert own.world.engine.calls.count(f"connect {HELPER} socket-proxy") == 1
