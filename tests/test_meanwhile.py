"""What people do to a container between the look at it and its update: a pull and a queue take their time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar.core.decision import Cause, Hold
from sidecar.core.rollout import Phase
from sidecar.errors import Transient, Unreachable
from tests.fakes import Behaviour, FakeClock, FakeEngine, image_id
from tests.test_crash import LABELS, NETWORK, REF, TARGET, Bomb, World, at_rest, ends, started_first
from tests.test_reconciler import remove

WHEN_STOPPED = LABELS | {"sidecar.when-stopped": "recreate"}


def after(call: str, act: Callable[[FakeEngine], object]) -> Callable[[FakeEngine], None]:
    """Do something once, right after an engine call."""
    done: list[bool] = []

    def watch(engine: FakeEngine) -> None:
        if engine.calls[-1].startswith(call) and not done:
            done.append(True)
            act(engine)

    return watch


def web(engine: FakeEngine) -> dict[str, object]:
    container = engine.named("web")
    assert container is not None
    return container


async def test_what_a_person_stops_during_the_pull_stays_stopped() -> None:
    """Nothing of it was touched yet: the rollout ends, nothing is rejected, and it is updated once it runs again."""
    world = World()
    world.engine.watch = after("pull", lambda engine: engine.end(web(engine), 143))
    verdict = await world.live(passes=1)
    assert isinstance(verdict, Hold)
    assert verdict.retry_at is not None
    assert world.phases() == [Phase.UPDATING, Phase.ABANDONED]
    assert [each["id"] for each in world.engine.containers.values()] == [world.old_id]
    assert not web(world.engine)["up"]
    verdict = await world.live(passes=1)
    assert isinstance(verdict, Hold)
    assert "what was stopped stays stopped" in verdict.reason
    world.engine.begin(web(world.engine))
    await world.live()
    at_rest(world, "b")


async def test_what_a_person_starts_during_the_pull_runs_afterwards() -> None:
    """It was to be recreated without being started, which would take down what runs by now."""
    world = World(state="exited", labels=WHEN_STOPPED)
    world.engine.watch = after("pull", lambda engine: engine.begin(web(engine)))
    await world.live()
    world.state = "running"
    at_rest(world, "b")


async def test_what_a_person_pauses_during_the_pull_is_paused_afterwards() -> None:
    """The state in which it is left is the one that it was in when its update began."""
    world = World()
    world.engine.watch = after("pull", lambda engine: web(engine).update(paused=True))
    await world.live()
    world.state = "paused"
    at_rest(world, "b")


async def test_what_a_person_stops_while_nothing_could_be_created_stays_stopped() -> None:
    """A rollout that the engine refused for a while begins with a look at what is there by now."""
    world = World()
    world.engine.fails["create"] = lambda: Transient("no such volume driver")
    await world.reconciler().run_pass(TARGET, Cause("webhook", 0.0))
    del world.engine.fails["create"]
    world.engine.end(web(world.engine), 143)
    await world.live()
    assert [each["id"] for each in world.engine.containers.values()] == [world.old_id]
    assert not web(world.engine)["up"]
    assert world.engine.tags["registry.test/web:1"] == image_id("a")


def update(engine: FakeEngine) -> None:
    """Do what `docker update --memory ... --restart unless-stopped` does."""
    host = {"Memory": 512, "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0}}
    web(engine)["host"].update(host)  # type: ignore[attr-defined]


@pytest.mark.parametrize("new, letter", [(Behaviour(), "b"), (Behaviour(unhealthy_after=1.0), "a")])
async def test_what_a_person_sets_during_the_pull_is_kept(new: Behaviour, letter: str) -> None:
    """The new container is made from what the old one is by then, and a rollback gives it back the same."""
    world = World(new=new)
    world.engine.watch = after("pull", update)
    await world.live(passes=1)
    world.restart = "unless-stopped"
    at_rest(world, letter)
    assert web(world.engine)["host"]["Memory"] == 512  # type: ignore[index]


async def test_what_the_engine_made_late_of_the_old_image_is_made_again() -> None:
    """The connection broke, the tag was put back, and then it looked the tag up: that is nobody else's."""
    world, failed = World(), []

    def lose() -> Exception | None:
        if failed:
            return None
        failed.append(1)
        return Unreachable("connection reset")

    world.engine.fails["create"] = lose
    await world.reconciler().run_pass(TARGET, Cause("webhook", 0.0))
    assert [each["name"] for each in world.engine.containers.values()] == ["web"]
    world.engine.run("web.sidecar-new", REF, labels=LABELS, state="created")
    await world.live()
    at_rest(world, "b")


async def test_a_tag_that_a_person_gave_to_the_image_before_stays_there() -> None:
    """They went back by hand while the new one was in its gate; nobody takes it for a tag of ours."""
    world = World(is_first=False, new=Behaviour(unhealthy_after=4.0))
    world.hints.on_wait = lambda: world.engine.tags.update({REF: image_id("0")})
    await world.live()
    assert world.phases() == [Phase.UPDATING, Phase.ROLLING_BACK, Phase.ROLLED_BACK]
    assert world.engine.tags[REF] == image_id("0")


async def test_what_a_person_sets_while_nothing_could_be_created_is_kept() -> None:
    """The plan may be days old by then; it is made anew, and what was pulled for it is not pulled again."""
    world = World()
    world.engine.fails["create"] = lambda: Transient("no such volume driver")
    await world.reconciler().run_pass(TARGET, Cause("webhook", 0.0))
    del world.engine.fails["create"]
    update(world.engine)
    await world.live()
    world.restart = "unless-stopped"
    at_rest(world, "b")
    assert web(world.engine)["host"]["Memory"] == 512  # type: ignore[index]
    assert len(world.engine.pulls) == 1


async def test_a_candidate_that_is_made_again_is_made_by_the_first_plan() -> None:
    """The old one is stopped and has a restart policy of ours by then, which would be taken for a person's."""
    world = World()
    world.engine.watch = after("restart policy web no", lambda engine: engine.containers.popitem())
    await world.live()
    at_rest(world, "b")


PROJECT = {"com.docker.compose.project": "shop"}


@pytest.mark.parametrize("strategy", ["stop-first", "start-first"])
async def test_what_compose_left_half_made_before_the_new_one_was_started_is_finished(strategy: str) -> None:
    """It took old and new for two of its own, removed both, and failed to name the third: that one comes to run."""
    labels = LABELS | PROJECT | {"sidecar.strategy": strategy, "sidecar.start-first-volumes": "true"}
    world = World(labels=labels)

    def recreate(engine: FakeEngine) -> None:
        engine.containers.clear()
        engine.run(f"{world.old_id[:12]}_web", REF, labels=labels, restart="always", state="created")

    act = after("tag", recreate)
    world.engine.watch = lambda engine: act(engine) if "create web.sidecar-new" in engine.calls else None
    await world.live()
    (left,) = world.engine.containers.values()
    assert (left["name"], left["image"], left["up"]) == ("web", image_id("b"), True)


@pytest.mark.parametrize("strategy", ["stop-first", "start-first"])
@pytest.mark.parametrize("call", ["tag", "stop", "restart policy", "rename web web.sidecar-old"])
async def test_a_stack_that_a_person_took_down_before_the_new_one_was_started_stays_down(
    strategy: str, call: str
) -> None:
    """Containers and network are gone, as after `docker compose down`: nothing is left over, nor held against it."""
    labels = LABELS | {"sidecar.strategy": strategy, "sidecar.start-first-volumes": "true"}
    world = World(labels=labels, options={"networks": {"shop": {"Aliases": ["web"]}}, "NetworkMode": "shop"})

    def take_down(engine: FakeEngine) -> None:
        engine.containers.clear()
        engine.lost_networks.add("shop")

    act = after(call, take_down)
    world.engine.watch = lambda engine: act(engine) if "create web.sidecar-new" in engine.calls else None
    await world.live()
    assert world.engine.containers == {}
    assert world.phases()[-1] is Phase.ABANDONED
    assert await world.journal.rejected(TARGET, "registry.test/web") == {}


@pytest.mark.parametrize("unhealthy_after, kept", [(None, {"volume-1", "cache-3"}), (1.0, {"volume-1"})])
async def test_a_new_one_that_was_removed_without_its_volumes_leaves_none(
    unhealthy_after: float | None, kept: set[str]
) -> None:
    """It is made again with one of its own: nobody else knows of the first, whatever comes of the second."""
    world = World(new=Behaviour(declares_cache=True, unhealthy_after=unhealthy_after))

    def remove(engine: FakeEngine) -> None:
        assert engine.volumes == {"volume-1", "cache-2"}
        engine.containers.pop(web(engine)["id"])

    world.engine.watch = after("rename web.sidecar-new web", remove)
    await world.live()
    assert world.engine.volumes == kept


async def test_where_only_the_containers_are_gone_it_is_made_again() -> None:
    """A prune takes what is stopped, which is not what its owner wants of a container between stop and start."""
    world = World(options={"networks": {"shop": {"Aliases": ["web"]}}, "NetworkMode": "shop"})
    world.engine.watch = after("restart policy web no", lambda engine: engine.containers.clear())
    await world.live()
    at_rest(world, "b")


async def test_what_is_off_its_network_when_the_old_one_is_removed_joins_it_again() -> None:
    """Started first, it leaves a network to come back with its names, and takes the place of what a person removed."""
    world = started_first(Bomb())
    world.engine.watch = after("disconnect", lambda engine: engine.containers.pop(world.old_id))
    await world.live()
    (left,) = world.engine.containers.values()
    assert (left["name"], left["image"], left["networks"]) == ("web", image_id("b"), world.options["networks"])


@pytest.mark.parametrize(
    "call",
    [
        "stop net",
        "stop volumes",
        "stop web",
        "start web",
        "rename net.sidecar-new net",
        "start net",
        "create volumes.sidecar-new",
        "rename volumes.sidecar-new volumes",
        "start volumes",
    ],
)
async def test_what_goes_with_a_container_goes_with_the_one_that_a_person_made(call: str) -> None:
    """It was stopped by us, or made again from what is gone by then, and it runs in the end with what is there."""
    world = World(others={"net": dict(NETWORK), "volumes": {"VolumesFrom": ["web"]}})

    def recreate(engine: FakeEngine) -> None:
        for name in ("web", "web.sidecar-new", "web.sidecar-old"):
            remove(world, name)
        engine.run("web", REF, labels=LABELS, restart="always")

    world.engine.watch = after(call, recreate)
    await world.live()
    found = {each["name"]: each for each in world.engine.containers.values()}
    assert set(found) == {"web", "net", "volumes"}
    assert [each["up"] for each in found.values()] == [True] * 3
    assert found["web"]["image"] == image_id("b")
    assert found["net"]["host"]["NetworkMode"] == f"container:{found['web']['id']}"


async def test_an_update_ends_though_the_image_before_was_removed() -> None:
    """Nothing is left to keep for a rollback, and nobody waits for it."""
    world = World()
    world.engine.watch = after("start web", lambda engine: engine.images.pop(image_id("a")))
    await world.reconciler().reconcile(TARGET, Cause("test", 0.0))
    assert world.phases()[-1] is Phase.SUCCEEDED


async def test_a_named_volume_of_another_container_is_never_removed() -> None:
    """What the new one has by `VolumesFrom` was not made with it; `docker compose down` keeps named volumes."""
    world = World(options={"VolumesFrom": ["data"]})
    world.engine.volumes.add("db")
    world.engine.watch = None
    data = world.engine.run("data", REF, labels={}, state="created")
    world.engine.containers[data]["cache"] = "db"  # since `web` was made, `data` was made again with this volume
    joins = after("create web.sidecar-new", lambda engine: engine.named("web.sidecar-new").update(cache="db"))  # type: ignore[union-attr]
    down = after("start web", lambda engine: engine.containers.clear())
    world.engine.watch = lambda engine: (joins(engine), down(engine))  # type: ignore[assignment,return-value]
    await ends(world)
    assert world.phases()[-1] is Phase.ABANDONED
    assert "db" in world.engine.volumes


async def test_what_leaves_a_network_before_its_start_joins_it_again() -> None:
    """Started first, of an engine before API 1.44, and the old one was removed before the new one was started."""
    labels = LABELS | {"sidecar.strategy": "start-first", "sidecar.start-first-volumes": "true"}
    networks = {"shop": {"Aliases": ["web"]}, "other": {"Aliases": ["web"]}}
    world = World(labels=labels, options={"networks": networks, "NetworkMode": "shop"})
    world.engine.api_version = (1, 43)
    act = after("tag", lambda engine: engine.containers.pop(world.old_id))
    world.engine.watch = lambda engine: act(engine) if "create web.sidecar-new" in engine.calls else None
    await ends(world)
    (left,) = world.engine.containers.values()
    assert (left["name"], left["image"], left["up"]) == ("web", image_id("b"), True)


async def test_what_was_stopped_for_a_target_that_somebody_removed_runs_again() -> None:
    """It needs nothing of the target to run, and nobody but us stopped it."""
    world = World(others={"volumes": {"VolumesFrom": ["web"]}})
    world.engine.watch = after("start web", lambda engine: remove(world, "web"))
    await ends(world)
    assert world.engine.named("volumes")["up"]  # type: ignore[index]


@pytest.mark.parametrize("call", ["create two.sidecar-new", "remove two"])
async def test_what_goes_with_one_that_somebody_removed_keeps_its_name(call: str) -> None:
    """`two` has volumes of `one`, which has the network of the target; `one` is removed in the middle."""
    world = World(others={"one": dict(NETWORK)})
    world.engine.run("two", REF, labels={}, VolumesFrom=["one"])
    world.engine.watch = after(call, lambda engine: remove(world, "one"))
    await ends(world)
    assert {each["name"] for each in world.engine.containers.values()} == {"web", "two"}


class _Behind(FakeClock):
    """An engine's clock that is behind ours."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds

    time = property(lambda self: self._clock.time - self._seconds)  # type: ignore[assignment]


async def test_what_compose_left_half_made_is_found_by_the_engines_clock() -> None:
    """The engine is on another machine, whose clock is a minute behind."""
    labels = LABELS | {"com.docker.compose.project": "shop"}
    world = World(labels=labels)
    world.engine.clock = _Behind(world.clock, 60)

    def recreate(engine: FakeEngine) -> None:
        engine.containers.clear()
        engine.run(f"{world.old_id[:12]}_web", REF, labels=labels, restart="always", state="created")

    act = after("tag", recreate)
    world.engine.watch = lambda engine: act(engine) if "create web.sidecar-new" in engine.calls else None
    await ends(world)
    assert [(each["name"], each["up"]) for each in world.engine.containers.values()] == [("web", True)]
