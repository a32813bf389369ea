"""The gate on real containers: each way to fail it, and each state that a container may be in before."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.targets.containers import parse_time
from tests.integration.world import LABELS, World, make_world
from tests.testbed import images
from tests.testbed.engine import Engine
from tests.testbed.images import Behaviour, Health
from tests.testbed.registry import Registry

# By these checks nothing fails: what a case is about has to decide.
PATIENT = Health(interval_ms=250, timeout_ms=30_000, retries=1000)
IMPATIENT = Health(interval_ms=250, timeout_ms=30_000, retries=2)
ALTERNATING = "#!/bin/sh\n[ -e /tmp/good ] && exec busybox rm /tmp/good\ntouch /tmp/good\nexit 1\n"
NO_CHECK = {"Healthcheck": {"Test": ["NONE"]}}
LONG, SHORT = {"sidecar.deadline": "10m"}, {"sidecar.deadline": "4s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A version that fails, and the words that say how."""

    behaviour: Behaviour
    words: str
    health: Health = PATIENT
    labels: dict[str, str] = field(default_factory=dict)
    restart: str = "always"
    config: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


CASES = {
    # Up again and again, and healthy as long as it is up: three restarts by its policy are enough.
    "crash-loop": Case(behaviour=Behaviour.CRASHING, labels=LONG, config=NO_CHECK, words="was restarted"),
    "exits": Case(
        behaviour=Behaviour.CRASHING, labels=LONG, config=NO_CHECK, restart="no", words="exited, 3 times (exit code 1)"
    ),
    "unhealthy": Case(
        behaviour=Behaviour.UNHEALTHY, health=IMPATIENT, labels=LONG, words="became unhealthy (health check: exit code"
    ),
    "never-healthy": Case(behaviour=Behaviour.UNHEALTHY, labels=SHORT, words="was not healthy within 4 seconds"),
    # What its check said before the last restart is still in the engine's log, and was said of another run.
    "fading": Case(
        behaviour=Behaviour.FADING, labels={**LONG, "sidecar.min-ready": "4s"}, words="was restarted 3 times"
    ),
    # Good and bad in turn: what has to last begins anew each time, and the status of the engine stays "healthy".
    "flapping": Case(
        behaviour=Behaviour.HEALTHY,
        files={"/health": ALTERNATING},
        labels={"sidecar.min-ready": "5s", "sidecar.deadline": "6s"},
        words="was not healthy within 6 seconds",
    ),
    "no-program": Case(
        behaviour=Behaviour.HEALTHY, labels=LONG, config={"Cmd": ["/no-such-program"]}, words="did not start, 3 times"
    ),
}


@pytest.fixture
def world(engine_swept: Engine, registry: Callable[..., Registry], tmp_path: Path) -> Iterator[World]:
    """A daemon that is not started yet; nothing runs."""
    settings = {"SIDECAR_RESYNC_SECONDS": "0", "SIDECAR_MAX_PARALLEL_ROLLOUTS": str(len(CASES))}
    made = make_world(engine_swept, registry, tmp_path, **settings)
    yield made
    made.daemon.kill()


@dataclass
class Container:
    """One of several containers of one daemon, with a repository of its own."""

    world: World
    name: str
    before: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def run(cls, world: World, name: str, *options: str, restart: str = "always", **labels: str) -> Container:
        """Have it run version 1."""
        own = World(world.engine, world.registry, world.daemon, tag=f"{name}:1")
        own.push("1")
        own.run(name, *options, restart=restart, labels=labels)
        return cls(own, name, own.inspect(name))

    @property
    def target(self) -> str:
        """Its id in the log."""
        return f"docker:{self.name}"

    def expect_gated(self, told: dict[str, Any]) -> None:
        """Hold that this was told once it had run for its min-ready since its last start."""
        started = parse_time(self.world.inspect(self.name)["State"]["StartedAt"])
        labels = self.before["Config"]["Labels"]
        min_ready = float(labels["sidecar.min-ready"].removesuffix("s"))
        assert (parse_time(told["timestamp"]) or 0.0) - (started or 0.0) >= min_ready

    def expect_as_before(self) -> None:
        """Hold that the same container is back as it was, that its reference names it, and nothing else is left."""
        after = self.world.inspect(self.name)
        assert [name for name in self.world.names() if name.startswith(self.name)] == [self.name]
        assert after["Id"] == self.before["Id"]
        assert after["HostConfig"]["RestartPolicy"] == self.before["HostConfig"]["RestartPolicy"]
        assert after["State"]["Status"] == self.before["State"]["Status"]
        assert {tag for tag in self.world.tags() if self.name in tag} == {self.world.ref}
        assert self.world.image_id(self.world.ref) == self.before["Image"]


@pytest.mark.timeout(400)
def test_a_version_that_fails_its_gate_is_rolled_back_and_not_tried_again(world: World) -> None:
    """However it fails: its reason and its last words are told, and only another push leads to another rollout."""
    running = {name: Container.run(world, name, restart=case.restart, **case.labels) for name, case in CASES.items()}
    daemon = world.daemon
    daemon.start()
    digests = {}
    for name, case in CASES.items():
        image = images.web("2", case.behaviour, health=case.health, files=case.files)
        image = replace(image, config={**image.config, **case.config})
        digests[name] = running[name].world.push_image("2", image)
    for name, case in CASES.items():
        told = daemon.until_told("rollout.rolled_back", target=running[name].target, digest=digests[name])
        assert case.words in told["reason"], name
        running[name].expect_as_before()
        running[name].expect_gated(told)
        daemon.post("/api/v1/updates", {"what": name})
    for name, case in CASES.items():
        held = daemon.until_told("target.held", count=2, target=running[name].target, digest=digests[name])
        assert case.words in held["reason"], name
    assert len(daemon.lines("rollout.started")) == len(CASES)
    digests = {name: running[name].world.push("3") for name in CASES}
    for name in CASES:
        daemon.until_told("rollout.succeeded", target=running[name].target, digest=digests[name])
        assert running[name].world.version(name) == "3"
    assert world.names() == sorted(CASES)


def test_the_last_words_of_a_failed_version_are_in_the_history(world: World) -> None:
    """Its container is gone, and what it wrote last is not."""
    web = Container.run(world, "web")
    world.daemon.start()
    digest = web.world.push("2", Behaviour.CRASHING)
    world.daemon.until_told("rollout.rolled_back", digest=digest)
    _, history = world.daemon.get("/api/v1/history")
    (ended,) = [each for each in history["rollouts"] if each["phase"] == "rolled_back"]
    assert "crashing as it should" in ended["log_tail"]


def test_a_paused_container_is_updated_and_paused_again(world: World) -> None:
    """Its gate needs it to run; what a person had paused is paused in the end, rolled back or not."""
    good, bad = Container.run(world, "good"), Container.run(world, "bad")
    world.engine.docker("pause", "good", "bad")
    bad.before = world.inspect("bad")
    world.daemon.start()
    digest = good.world.push("2")
    bad.world.push("2", Behaviour.UNHEALTHY)
    world.daemon.until_told("rollout.succeeded", target=good.target, digest=digest)
    assert (world.inspect("good")["State"]["Status"], world.version("good")) == ("paused", "2")
    world.daemon.until_told("rollout.rolled_back", target=bad.target)
    bad.expect_as_before()


def test_what_was_stopped_stays_stopped_until_it_is_started(world: World) -> None:
    """It is held with the command that would update it; started, it is updated without a push."""
    web = Container.run(world, "web")
    world.engine.docker("stop", "web")
    web.before = world.inspect("web")
    world.daemon.start()
    digest = web.world.push("2")
    held = world.daemon.until_told("target.held", target=web.target, digest=digest)
    assert "sidecar.when-stopped=recreate" in held["reason"]
    web.expect_as_before()
    world.engine.docker("start", "web")
    world.daemon.until_told("rollout.succeeded", target=web.target, digest=digest)
    assert world.version("web") == "2"


@pytest.mark.parametrize("verb", ["create", "stop"])
def test_what_was_stopped_may_be_recreated_without_being_started(world: World, verb: str) -> None:
    """By its label: the new one is made, and neither of them has run."""
    web = Container.run(world, "web", **{"sidecar.when-stopped": "recreate"})
    if verb == "stop":
        world.engine.docker("stop", "web")
    else:
        world.engine.docker("rm", "--force", "web")
        flags = [f"--label={key}={value}" for key, value in {**LABELS, "sidecar.when-stopped": "recreate"}.items()]
        world.engine.docker("create", "--name=web", *flags, web.world.ref)
    world.daemon.start()
    digest = web.world.push("2")
    world.daemon.until_told("rollout.succeeded", target=web.target, digest=digest)
    after = world.inspect("web")
    assert (after["State"]["Status"], world.version("web")) == ("created", "2")
    assert world.names() == ["web"]


def test_a_container_has_its_own_time_to_stop(world: World) -> None:
    """One that ignores SIGTERM is killed after its own grace, neither at once nor after the engine's."""
    web = World(world.engine, world.registry, world.daemon)
    web.push("1", Behaviour.STUBBORN)
    old = web.run("web", "--stop-timeout=2")
    world.daemon.start()
    digest = web.push("2", Behaviour.STUBBORN)
    world.daemon.until_told("rollout.succeeded", digest=digest)
    term, kill = kills(world.engine, old)
    assert (term["signal"], kill["signal"]) == ("15", "9")
    assert 1.9 <= kill["at"] - term["at"] < 9
    assert world.inspect("web")["Config"]["StopTimeout"] == 2


def kills(engine: Engine, ident: str) -> list[dict[str, Any]]:
    """Give the signals that the engine has sent to a container, and when."""
    span = ("--since=5m", f"--until={time.time():.0f}")
    told = engine.docker("events", *span, "--filter=event=kill", f"--filter=container={ident}", "--format=json")
    events = [json.loads(line) for line in told.splitlines()]
    return [{"signal": each["Actor"]["Attributes"]["signal"], "at": each["timeNano"] / 1e9} for each in events]
