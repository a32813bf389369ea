"""An engine that answers late, wrongly or not at all, and one whose clock is set back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.rollout import Phase
from sidecar.errors import Refused, Unreachable
from sidecar.targets._engine import EngineError, Silent
from tests.fakes import Behaviour, FakeEngine, failing_first, image_id
from tests.test_crash import HOOKS, LABELS, NETWORK, REF, TARGET, Bomb, World, ends, self_removing, started_first
from tests.test_meanwhile import after, web
from tests.test_reconciler import remove


def fail_slowly(world: World, is_meant: Callable[[dict[str, Any]], object]) -> None:
    """Let starts of some containers fail after longer than a call waits: only the engine shows it."""
    start = world.engine.start

    async def slow(ident: str) -> None:
        each = world.engine.containers[ident]
        if is_meant(each):
            world.clock.time += 60
            each["error"], each["code"] = "runtime create failed: timed out", 128
            raise Silent("it did not answer in time")
        await start(ident)

    world.engine.start = slow  # type: ignore[method-assign]


def made_late(world: World, name: str, at: int, tag_was_back_at: str, **options: Any) -> None:
    """Cut the connection at a creation (the at-th of that name); the engine makes it once the tag was put back."""
    engine, seen, state = world.engine, [0], [""]
    create, tag_image = engine.create_container, engine.tag

    async def create_container(body: Any, **more: Any) -> str:
        seen[0] += more["name"] == name
        if more["name"] == name and seen[0] == at and not state[0]:
            state[0] = "cut"
            raise Unreachable("connection reset")
        return await create(body, **more)

    async def tag(image: str, *, repository: str, tag: str) -> None:
        await tag_image(image, repository=repository, tag=tag)
        if state[0] == "cut" and engine.tags.get(REF) == image_id(tag_was_back_at):
            state[0] = "made"
            engine.run(name, REF, labels={}, state="created", **options)

    engine.create_container, engine.tag = create_container, tag  # type: ignore[method-assign]


async def test_a_dependent_that_was_made_late_of_another_image_is_made_again() -> None:
    """As with the target: the connection broke, the tag was put back, and then the engine looked the tag up."""
    world = World(others={"net": dict(NETWORK)})
    made_late(world, "net.sidecar-new", 1, "b")
    await ends(world)
    net = world.engine.named("net")
    assert net is not None
    assert net["up"]


async def test_what_removes_itself_is_made_again_of_the_right_image_too() -> None:
    """`--rm`: the old one is gone, its stand-in parked and not adopted, somebody removed the new one."""
    world = self_removing(Bomb())
    made_late(world, "web.sidecar-new", 2, "a", restart="no", AutoRemove=True)
    world.engine.watch = after("stop web", lambda engine: remove(world, "web.sidecar-new"))
    await ends(world)
    assert web(world.engine)["up"]


async def test_an_image_whose_start_fails_slowly_is_given_up() -> None:
    """The engine says no after longer than a call waits for it: the old one does not stay down for that."""
    world = World()
    fail_slowly(world, lambda each: each["image"] == image_id("b"))
    await ends(world, 1)
    assert world.engine.containers[world.old_id]["up"]


async def test_only_starts_are_counted_as_starts() -> None:
    """The tag is put back first, where Sidecar was killed in the creation: that is no start of the image."""
    starts: list[str] = []

    async def count(bomb: Bomb) -> tuple[int, list[str]]:
        world = started_first(bomb, new=Behaviour(refuses_start=True))
        start, before = world.engine.start, len(starts)

        async def counted(ident: str) -> None:
            if world.engine.containers[ident]["image"] == image_id("b"):
                starts.append(ident)
            await start(ident)

        world.engine.start = counted  # type: ignore[method-assign]
        await world.live()
        return len(starts) - before, bomb.names

    calm, names = await count(Bomb())
    killed, _ = await count(Bomb(kill_at={names.index("after create web.sidecar-new") + 1}))
    assert killed == calm


async def test_a_clock_that_is_set_back_keeps_nothing_down() -> None:
    """The new one ended, and the time of its end is half an hour ahead by now."""
    world = World(restart="no", new=Behaviour(healthy_after=None, exits_after=2.0))
    began, at_back = world.clock.time, list[float]()

    def set_back() -> None:
        each = world.engine.named("web")
        if each is not None and each["finished_at"] and each["image"] == image_id("b") and not at_back:
            at_back.append(world.clock.time)
            world.clock.time -= 1800

    world.hints.on_wait = set_back
    await ends(world, 1)
    assert world.clock.time + 1800 - began < 120


async def test_one_volume_that_cannot_be_removed_keeps_no_other() -> None:
    """Each is tried; nobody else knows of them."""
    world, tried, taken = World(new=Behaviour(declares_cache=True)), list[str](), list[bool]()

    async def remove_volume(name: str) -> bool:
        tried.append(name)
        raise EngineError("driver failed", status=500)

    def take(engine: FakeEngine) -> None:
        if engine.calls[-1] == "rename web.sidecar-new web" and len(taken) < 2:
            taken.append(True)
            engine.containers.pop(web(engine)["id"])

    world.engine.remove_volume = remove_volume  # type: ignore[method-assign]
    world.engine.watch = take
    await ends(world)
    assert len(tried) == 2


async def test_a_command_that_the_engine_knows_nothing_of_any_more_has_failed() -> None:
    """The hook ended its own container, with which the engine forgot the command: it is not run for ever."""
    world = World(labels=LABELS | HOOKS)
    inspect: Callable[[str], Any] = world.engine.inspect_exec

    async def inspect_exec(ident: str) -> Any:
        if world.engine._commands[int(ident)] == "warm":  # noqa: SLF001
            raise EngineError("no such exec session", status=404, is_missing=True)
        return await inspect(ident)

    world.engine.inspect_exec = inspect_exec  # type: ignore[method-assign]
    await ends(world, 1)


async def test_what_goes_along_and_cannot_be_started_holds_up_nothing() -> None:
    """Its port is taken, for example: after a minute that is told, and the target is free for the next update."""
    world, starts = World(others={"net": dict(NETWORK)}), list[float]()
    start = world.engine.start

    async def refuse(ident: str) -> None:
        if world.engine.containers[ident]["name"] == "net":
            starts.append(world.clock.time)
            raise EngineError("port is already allocated", status=500)
        await start(ident)

    world.engine.start = refuse  # type: ignore[method-assign]
    await ends(world)
    assert world.phases()[-1] is Phase.SUCCEEDED
    assert starts[-1] - starts[0] >= 60
    (told,) = [line for line in world.events.named("rollout.noted") if "given up" in line["reason"]]
    assert told["reason"] == "net, which goes with it, is given up: port is already allocated"


async def test_of_volumes_that_nobody_can_tell_any_more_none_is_removed() -> None:
    """It has volumes of one that is gone by the time that it is made: none of them counts as its own."""
    world = World(options={"VolumesFrom": ["data"]}, new=Behaviour(unhealthy_after=1.0))
    world.engine.watch = None
    data = world.engine.run("data", REF, labels={}, state="created")
    world.engine.containers[data]["cache"] = "db"
    joins = after("create web.sidecar-new", lambda engine: engine.named("web.sidecar-new").update(cache="db"))  # type: ignore[union-attr]
    gone = after("create web.sidecar-new", lambda engine: engine.containers.pop(data))
    world.engine.watch = lambda engine: (joins(engine), gone(engine))  # type: ignore[assignment,return-value]
    await ends(world)
    begun = [each for each in world.journal.recorded if each.to.instance is not None]
    assert begun
    assert {tuple((each.plan or {})["volumes"]) for each in begun} == {()}


@pytest.mark.parametrize("new", [Behaviour(), Behaviour(unhealthy_after=1.0)])
async def test_what_shares_a_network_is_started_once_that_runs_again(new: Behaviour) -> None:
    """The one in place restarts by its policy for ten seconds: `cannot join network of a non running container`."""
    world = World(others={"net": dict(NETWORK)}, new=new)
    start, began = world.engine.start, list[float]()

    async def refuse(ident: str) -> None:
        if world.engine.containers[ident]["name"] == "net":
            began.append(world.clock.time)
            if world.clock.time < began[0] + 10:
                raise EngineError("cannot join network of a non running container", status=409)
        await start(ident)

    world.engine.start = refuse  # type: ignore[method-assign]
    await ends(world)
    assert (world.engine.named("net") or {})["up"]


async def test_what_goes_along_and_cannot_be_made_again_holds_up_nothing() -> None:
    """A folder that it binds is gone, for example: its target is free for the next update all the same."""
    world = World(others={"net": dict(NETWORK)})
    create = world.engine.create_container

    async def refuse(body: Any, **more: Any) -> str:
        if more["name"] == "net.sidecar-new":
            raise EngineError("invalid mount config for type bind: bind source path does not exist", status=400)
        return await create(body, **more)

    world.engine.create_container = refuse  # type: ignore[method-assign]
    await ends(world)
    assert world.phases()[-1] is Phase.SUCCEEDED


async def test_a_second_start_that_fails_slowly_counts() -> None:
    """It ended after its first start, so that it is not `created` any more; the old one stays down for it."""
    world = World(restart="no", new=Behaviour(healthy_after=None, exits_after=1.0))
    fail_slowly(world, lambda each: each["image"] == image_id("b") and each["finished_at"])
    await ends(world, 1)
    assert world.engine.containers[world.old_id]["up"]


async def test_what_goes_along_and_fails_to_start_slowly_holds_up_nothing_after_a_rollback() -> None:
    """It was stopped, not made again: that is not `created` either."""
    world = World(others={"net": dict(NETWORK)}, new=Behaviour(unhealthy_after=1.0))
    fail_slowly(world, lambda each: each["name"] == "net")
    await ends(world)
    assert world.phases()[-1] is Phase.ROLLED_BACK


async def test_what_can_never_be_done_any_more_is_taken_back() -> None:
    """The new one was made and the engine refuses what comes next: it goes, and nothing is rejected."""
    world = World()
    world.engine.fails["stop"] = failing_first(1, Refused("the engine does not allow it"))
    await ends(world, 1)
    assert world.phases()[-1] is Phase.ROLLED_BACK
    assert [each["name"] for each in world.engine.containers.values()] == ["web"]
    assert await world.journal.rejected(TARGET, "registry.test/web") == {}
