"""Kill the process at every side effect, and at every pair of them, start it again, and look at the world.

The reconciler, the executor, the driver, the sequence and the create request are the real ones; the engine, the
registry, the journal and the clock are what survives the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from sidecar.core.decision import Cause, Hold, Keep
from sidecar.core.gate import MOST_RESTARTS
from sidecar.core.rollout import Phase, Rollout
from sidecar.core.target import Kind
from sidecar.executor import Executor
from sidecar.ports import Ports
from sidecar.reconciler import Reconciler
from sidecar.targets.discovery import Scope
from sidecar.targets.docker import DockerDriver
from sidecar.targets.images import Images, Prune
from sidecar.targets.own_container import Helper
from tests.fakes import (
    Behaviour,
    Bomb,
    FakeClock,
    FakeEngine,
    FakeHints,
    FakeRegistry,
    Killed,
    KillingJournal,
    RecordedEvents,
    digest,
    image_id,
)
from tests.memory_journal import MemoryJournal

REF = "registry.test/web:1"
LABELS = {"sidecar.enable": "true", "sidecar.min-ready": "5s", "sidecar.deadline": "30s"}
TARGET = "docker:web"
DOWNTIMES = (5.0, 3600.0)


async def no_credentials(host: str) -> None:
    """Present nothing to any registry."""
    del host


@dataclass
class World:
    """Everything that outlives the process."""

    clock: FakeClock = field(default_factory=FakeClock)
    bomb: Bomb = field(default_factory=Bomb)
    state: str = "running"
    restart: str = "always"
    labels: dict[str, str] = field(default_factory=lambda: dict(LABELS))
    new: Behaviour = field(default_factory=Behaviour)
    old: Behaviour = field(default_factory=Behaviour)
    is_first: bool = True
    options: dict[str, object] = field(default_factory=dict)
    others: dict[str, dict[str, Any]] = field(default_factory=dict)
    has_rebooted: bool = False
    scope: Scope = field(default_factory=Scope)
    own_helper: Helper | None = None

    def __post_init__(self) -> None:
        self.engine = FakeEngine(self.clock, bomb=self.bomb)
        self.registry = FakeRegistry({REF: digest("b")})
        self.journal = MemoryJournal(clock=self.clock)
        self.events = RecordedEvents()
        self.hints = FakeHints(self.clock)
        self.engine.has_image("a", repository="registry.test/web", behaviour=self.old, pulled=True)
        self.engine.has_image("b", repository="registry.test/web", behaviour=self.new)
        self.engine.tags[REF] = image_id("a")
        if not self.is_first:
            self.engine.has_image("0", repository="registry.test/web", pulled=True)
            self.engine.tags["sidecar-previous:web"] = image_id("0")
        self.old_id = self.engine.run(
            "web", REF, labels=self.labels, restart=self.restart, state=self.state, **self.options
        )
        for name, options in self.others.items():
            values = {
                key: value.format(web=self.old_id) if isinstance(value, str) else value
                for key, value in options.items()
            }
            self.engine.run(name, REF, **({"labels": {}} | values))
        self.other_ids = {name: self.engine.named(name)["id"] for name in self.others}  # type: ignore[index]
        self.engine.watch = self.look
        self.lost: list[str] = []

    def look(self, engine: FakeEngine) -> None:
        """Hold the first invariant after every call: the old or the new one is there."""
        names = {each["name"] for each in engine.containers.values()}
        if not names & {"web", "web.sidecar-old", "web.sidecar-new"}:
            self.lost.append(f"nothing is left after {engine.calls[-1]}")
        is_served = any(each["up"] and is_named_web(each) for each in engine.containers.values())
        # After a reboot the old one may be down, and the new one past its deadline.
        if self.labels.get("sidecar.strategy") == "start-first" and not is_served and not self.has_rebooted:
            self.lost.append(f"nobody answers after {engine.calls[-1]}")

    def reconciler(self) -> Reconciler:
        """Start the process."""
        self.bomb.has_gone_off = False
        ports = self.ports()
        return Reconciler(ports, Executor(ports, turns=asyncio.Semaphore(2), stopping=asyncio.Event()))

    def ports(self) -> Ports:
        """Give what the process works with."""
        journal = KillingJournal(self.journal, self.bomb)
        images = Images(self.engine, events=self.events, authorize=no_credentials, prune=Prune.REPLACED)  # type: ignore[arg-type]
        parts = {"events": self.events, "scope": self.scope, "helper": self.own_helper}
        driver = DockerDriver(self.engine, images, **parts)  # type: ignore[arg-type]
        return Ports(
            registry=self.registry,
            drivers={Kind.DOCKER: driver},
            journal=journal,  # type: ignore[arg-type]
            hints=self.hints,
            clock=self.clock,
            events=self.events,
        )

    async def live(self, passes: int = 3, *, downtime: float = 5.0, reboots: bool = False) -> Keep | Hold | Rollout:
        """Run until quiet, starting again after every kill; give the last verdict."""
        verdict: Keep | Hold | Rollout = Keep("nothing happened")
        reconciler, left = self.reconciler(), passes
        while left:
            try:
                verdict = await reconciler.reconcile(TARGET, Cause("test", self.clock.now()))
                left -= 1
            except Killed:
                self.clock.time += downtime
                if reboots:
                    self.has_rebooted = True
                    self.engine.reboot()
                reconciler = self.reconciler()
        return verdict

    def phases(self) -> list[Phase]:
        """Give the phases of all rollouts, in order, each once in a row."""
        found: list[Phase] = []
        for rollout in self.journal.recorded:
            if not found or found[-1] is not rollout.phase:
                found.append(rollout.phase)
        return found


def is_named_web(each: dict[str, Any]) -> bool:
    return any("web" in endpoint.get("Aliases", ()) for endpoint in each["networks"].values())


async def ends(world: World, passes: int = 3) -> None:
    """Run passes; one that never ends fails."""
    await asyncio.wait_for(world.live(passes), 5)


def at_rest(world: World, letter: str) -> None:
    """Hold that exactly one container is left, on this image, as it was configured."""
    assert world.lost == []
    assert {each["name"] for each in world.engine.containers.values()} == {"web", *world.others}
    container = world.engine.named("web")
    assert container is not None
    assert container["image"] == image_id(letter)
    assert container["host"]["RestartPolicy"]["Name"] == world.restart
    assert container["up"] is (world.state not in ("exited", "created"))
    assert container["paused"] is (world.state == "paused")
    assert world.engine.tags[REF] == image_id(letter)
    assert world.engine.volumes == {f"volume-{number}" for number in range(1, 2 + len(world.others))}
    if HOOKS.items() <= world.labels.items():
        expected = {("dump", image_id("a"))} | ({("warm", image_id("b"))} if letter == "b" else set())
        assert set(world.engine.ran) == expected
        assert len(world.engine.ran) <= len(expected) + 1  # at least once, and once more for a kill
    assert container["networks"] == world.options.get("networks", {"bridge": {}})
    for name in world.others:
        goes_along(world, name)
    assert container["volume"] == "volume-1"
    kept = {name: image for name, image in world.engine.tags.items() if name != REF}
    assert kept == ({} if letter == "a" else {"sidecar-previous:web": image_id("a")})


def goes_along(world: World, name: str) -> None:
    """Hold that another container is as it was, and has what it had of the one that is in place now."""
    other, options = world.engine.named(name), world.others[name]
    container = world.engine.named("web")
    assert other is not None
    assert container is not None
    assert other["image"] == image_id("a")
    assert other["volume"] == f"volume-{2 + list(world.others).index(name)}"
    assert other["host"]["RestartPolicy"]["Name"] == options.get("restart", "always")
    assert other["up"] is (options.get("state", "running") in ("running", "paused"))
    assert other["paused"] is (options.get("state") == "paused")
    if "NetworkMode" in options:
        assert other["host"]["NetworkMode"] in (f"container:{container['id']}", options["NetworkMode"])
    if "VolumesFrom" in options:
        assert other["host"]["VolumesFrom"] == options["VolumesFrom"]
        assert (other["id"] != world.other_ids[name]) is (container["id"] != world.old_id)


def cleaned(world: World, letter: str) -> None:
    """Hold that no image is left that nobody needs: the one before an update is needed, one that failed is not."""
    needed = {image_id("a"), image_id(letter)}
    if world.phases()[-1] is Phase.FAILED:
        needed.add(image_id("b"))
    assert set(world.engine.images) == needed


@dataclass(frozen=True)
class Scenario:
    make: Callable[[Bomb], World]
    ends_on: str
    phases: list[Phase]
    verdict: type


SUCCEEDS = [Phase.UPDATING, Phase.FINISHING, Phase.SUCCEEDED]
ROLLS_BACK = [Phase.UPDATING, Phase.ROLLING_BACK, Phase.ROLLED_BACK]
FAILS = [Phase.UPDATING, Phase.ROLLING_BACK, Phase.FAILED]


HOOKS = {"sidecar.hook.pre-update": "dump", "sidecar.hook.post-update": "warm"}
NETWORK = {"NetworkMode": "container:{web}"}
OTHERS: dict[str, dict[str, Any]] = {
    "net": {**NETWORK, "restart": "unless-stopped"},
    "volumes": {"VolumesFrom": ["web"], "state": "paused", "restart": "no"},
    "stopped": {**NETWORK, "state": "exited", "restart": "no"},
}


NAMED = {"shop": {"Aliases": ["web"]}, "other": {}}


def started_first(bomb: Bomb, **more: Any) -> World:
    """Make a world whose container asks for the new one to be started first."""
    labels = {"sidecar.strategy": "start-first", "sidecar.start-first-volumes": "true"}
    options = {"networks": NAMED, "NetworkMode": "shop"}
    return World(bomb=bomb, labels=LABELS | labels, options=options, **more)


def self_removing(bomb: Bomb, **more: Any) -> World:
    """Make a world whose container was made with `--rm`."""
    return World(bomb=bomb, restart="no", options={"AutoRemove": True}, **more)


SCENARIOS = {
    "good": Scenario(lambda bomb: World(bomb=bomb), "b", SUCCEEDS, Keep),
    "good again": Scenario(lambda bomb: World(bomb=bomb, is_first=False), "b", SUCCEEDS, Keep),
    "no health check": Scenario(lambda bomb: World(bomb=bomb, new=Behaviour(healthy_after=None)), "b", SUCCEEDS, Keep),
    "paused": Scenario(lambda bomb: World(bomb=bomb, state="paused"), "b", SUCCEEDS, Keep),
    "stopped, to be recreated": Scenario(
        lambda bomb: World(bomb=bomb, state="exited", labels=LABELS | {"sidecar.when-stopped": "recreate"}),
        "b",
        SUCCEEDS,
        Keep,
    ),
    "unhealthy": Scenario(lambda bomb: World(bomb=bomb, new=Behaviour(unhealthy_after=2.0)), "a", ROLLS_BACK, Hold),
    "hangs": Scenario(lambda bomb: World(bomb=bomb, new=Behaviour(healthy_after=9e9)), "a", ROLLS_BACK, Hold),
    "crash loop": Scenario(
        lambda bomb: World(bomb=bomb, new=Behaviour(healthy_after=None, exits_after=1.0)), "a", ROLLS_BACK, Hold
    ),
    "exits": Scenario(
        lambda bomb: World(bomb=bomb, restart="no", new=Behaviour(healthy_after=None, exits_after=1.0)),
        "a",
        ROLLS_BACK,
        Hold,
    ),
    "does not start": Scenario(lambda bomb: World(bomb=bomb, new=Behaviour(refuses_start=True)), "a", ROLLS_BACK, Hold),
    "unhealthy and paused": Scenario(
        lambda bomb: World(bomb=bomb, state="paused", new=Behaviour(unhealthy_after=2.0)), "a", ROLLS_BACK, Hold
    ),
    "with others": Scenario(lambda bomb: World(bomb=bomb, others=OTHERS), "b", SUCCEEDS, Keep),
    "with others, unhealthy": Scenario(
        lambda bomb: World(bomb=bomb, others=OTHERS, new=Behaviour(unhealthy_after=2.0)), "a", ROLLS_BACK, Hold
    ),
    "with hooks": Scenario(lambda bomb: World(bomb=bomb, labels=LABELS | HOOKS), "b", SUCCEEDS, Keep),
    "with hooks, unhealthy": Scenario(
        lambda bomb: World(bomb=bomb, labels=LABELS | HOOKS, new=Behaviour(unhealthy_after=2.0)), "a", ROLLS_BACK, Hold
    ),
    "start-first": Scenario(started_first, "b", SUCCEEDS, Keep),
    "start-first, unhealthy": Scenario(
        lambda bomb: started_first(bomb, new=Behaviour(unhealthy_after=2.0)), "a", ROLLS_BACK, Hold
    ),
    "start-first, exits": Scenario(
        lambda bomb: started_first(bomb, new=Behaviour(healthy_after=None, exits_after=1.0)), "a", ROLLS_BACK, Hold
    ),
    "start-first, does not start": Scenario(
        lambda bomb: started_first(bomb, new=Behaviour(refuses_start=True)), "a", ROLLS_BACK, Hold
    ),
    "removes itself": Scenario(self_removing, "b", SUCCEEDS, Keep),
    "removes itself, unhealthy": Scenario(
        lambda bomb: self_removing(bomb, new=Behaviour(unhealthy_after=2.0)), "a", ROLLS_BACK, Hold
    ),
    "removes itself, exits": Scenario(
        lambda bomb: self_removing(bomb, new=Behaviour(healthy_after=None, exits_after=1.0)), "a", ROLLS_BACK, Hold
    ),
    "removes itself, does not start": Scenario(
        lambda bomb: self_removing(bomb, new=Behaviour(refuses_start=True)), "a", ROLLS_BACK, Hold
    ),
    "removes itself, and was never started": Scenario(
        lambda bomb: self_removing(bomb, state="created", labels=LABELS | {"sidecar.when-stopped": "recreate"}),
        "b",
        SUCCEEDS,
        Keep,
    ),
    "both broken": Scenario(
        lambda bomb: World(bomb=bomb, new=Behaviour(unhealthy_after=2.0), old=Behaviour(unhealthy_after=1.0)),
        "a",
        FAILS,
        Hold,
    ),
}


# What a reboot by itself makes of a paused or a stopped container is none of our doing.
REBOOTS = [
    "good",
    "start-first",
    "start-first, unhealthy",
    "with hooks",
    "no health check",
    "unhealthy",
    "hangs",
    "crash loop",
    "does not start",
    "both broken",
]


@pytest.mark.parametrize("name", SCENARIOS)
async def test_an_uncrashed_rollout_ends_as_it_should(name: str) -> None:
    """Each scenario ends on the right container, at rest, through the right phases."""
    scenario = SCENARIOS[name]
    world = scenario.make(Bomb())
    verdict = await world.live()
    assert world.phases() == scenario.phases
    assert isinstance(verdict, scenario.verdict), verdict
    at_rest(world, scenario.ends_on)
    cleaned(world, scenario.ends_on)


async def points_of(scenario: Scenario) -> list[str]:
    """Give the name of every point at which the process can die."""
    world = scenario.make(Bomb())
    await world.live()
    return world.bomb.names


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("downtime", DOWNTIMES)
async def test_a_kill_at_any_point_changes_nothing_of_the_end(name: str, downtime: float) -> None:
    """Killed before or after any side effect, for seconds or an hour, the end is that of the uncrashed run."""
    scenario = SCENARIOS[name]
    names = await points_of(scenario)
    for kill_at, point in enumerate(names, start=1):
        world = scenario.make(Bomb(kill_at={kill_at}))
        await world.live(downtime=downtime)
        assert world.phases() == scenario.phases, f"{point} ({kill_at} of {len(names)})"
        at_rest(world, scenario.ends_on)
        cleaned(world, scenario.ends_on)


@dataclass
class Stubborn(Bomb):
    """Kills at one point by its name, again and again."""

    at: str = ""
    times: int = 5

    def point(self, name: str) -> None:
        """Count a point, and kill at the chosen one."""
        super().point(name)
        if name == self.at and self.times > 0:
            self.times -= 1
            self.has_gone_off = True
            raise Killed(name)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [name for name in SCENARIOS if "hooks" not in name])  # those run once for each kill
async def test_kills_at_one_point_again_and_again_change_nothing_of_the_end(name: str) -> None:
    """However often it dies before or after one side effect, the end is that of the uncrashed run."""
    scenario = SCENARIOS[name]
    for point in dict.fromkeys(await points_of(scenario)):
        world = scenario.make(Stubborn(at=point))
        await world.live()
        assert world.phases() == scenario.phases, point
        at_rest(world, scenario.ends_on)
        cleaned(world, scenario.ends_on)


@pytest.mark.parametrize("options", [{}, {"AutoRemove": True}])
async def test_an_image_whose_every_start_takes_sidecar_down_is_given_up(options: dict[str, object]) -> None:
    """It uses up the memory of the host: what came of its start counts, though nobody lived to record that."""
    dies = Behaviour(healthy_after=None, exits_after=1.0)
    world = World(bomb=Stubborn(at="after start web"), restart="no", new=dies, options=options)
    await world.live()
    assert world.phases() == ROLLS_BACK
    assert world.engine.calls.count("start web") <= MOST_RESTARTS + 1  # and that of the old one


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", REBOOTS)
async def test_a_reboot_of_the_host_at_any_point_changes_nothing_of_the_end(name: str) -> None:
    """Everything goes down and comes back as the restart policies say, and the end is that of the uncrashed run."""
    scenario = SCENARIOS[name]
    names = await points_of(scenario)
    for kill_at, point in enumerate(names, start=1):
        world = scenario.make(Bomb(kill_at={kill_at}))
        await world.live(reboots=True)
        assert world.phases() == scenario.phases, f"{point} ({kill_at} of {len(names)})"
        at_rest(world, scenario.ends_on)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", REBOOTS)
async def test_a_reboot_of_an_hour_ends_as_it_should_or_with_a_clean_rollback(name: str) -> None:
    """The deadline counts from the first start, once: an hour of no engine may use it up, and nothing is left over."""
    scenario = SCENARIOS[name]
    names = await points_of(scenario)
    for kill_at in range(1, len(names) + 1):
        world = scenario.make(Bomb(kill_at={kill_at}))
        await world.live(reboots=True, downtime=3600.0)
        at_rest(world, "b" if world.phases() == SUCCEEDS else "a")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["removes itself", "removes itself, unhealthy"])
async def test_a_reboot_takes_a_container_made_with_rm_unless_its_rollout_had_begun(name: str) -> None:
    """The engine removes such containers at its start; what a rollout had in hand is made again from the journal."""
    scenario = SCENARIOS[name]
    for kill_at in range(1, len(await points_of(scenario)) + 1):
        world = scenario.make(Bomb(kill_at={kill_at}))
        with pytest.raises(Killed):
            await world.reconciler().reconcile(TARGET, Cause("test", world.clock.now()))
        in_hand = await world.journal.open_rollout(TARGET)
        world.engine.reboot()
        await world.live()
        is_left = [each["name"] for each in world.engine.containers.values()]
        # One that has passed its gate is anybody's again.
        is_ours = in_hand is not None and in_hand.is_begun and in_hand.phase is not Phase.FINISHING
        assert is_left == (["web"] if is_ours else []), kill_at


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["good", "unhealthy"])
async def test_kills_at_any_two_points_change_nothing_of_the_end(name: str) -> None:
    """Killed twice, at every pair of side effects, the end is that of the uncrashed run."""
    scenario = SCENARIOS[name]
    names = await points_of(scenario)
    for first in range(1, len(names) + 1):
        for gap in range(1, len(names) + 1):
            world = scenario.make(Bomb(kill_at={first, first + gap}))
            await world.live()
            assert world.phases() == scenario.phases, (first, gap)
            at_rest(world, scenario.ends_on)
            if world.bomb.points < first + gap:
                break  # it was over before the second kill
