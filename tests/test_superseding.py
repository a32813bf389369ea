"""A newer digest while a rollout is in its gate: it is looked for beside that, which is watched as if nobody did."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest

from sidecar.core.decision import Cause, Hold
from sidecar.core.rollout import Phase
from sidecar.errors import Transient, Unreachable
from tests.fakes import Behaviour, FakeEngine, Killed, digest, failing_first, image_id
from tests.test_crash import NETWORK, REF, TARGET, Bomb, World, at_rest, ends, self_removing, started_first
from tests.test_meanwhile import after, web
from tests.test_reconciler import hint_of, line, offer, once

WEBHOOK = Cause("webhook", 0.0, ("newer",))
ROLLED_BACK = [Phase.UPDATING, Phase.ROLLING_BACK, Phase.ROLLED_BACK]
SUPERSEDED = [Phase.UPDATING, Phase.SUPERSEDED, Phase.UPDATING, Phase.FINISHING, Phase.SUCCEEDED]
FIRST = Cause("webhook", 0.0, ("d1",))
PATIENCE_SECONDS = 5
Meanwhile = Callable[[], Awaitable[object]]


def delay(world: World, part: str, meanwhile: Meanwhile) -> None:
    """Let the registry's answer about the newer digest, or its pull by the engine, wait for something."""
    owner, name = {"registry": (world.registry, "resolve"), "engine": (world.engine, "pull")}[part]
    act = getattr(owner, name)

    async def take_time(*args: object, **options: object) -> object:
        if world.registry.tags[REF] != digest("b"):
            await meanwhile()
        return await act(*args, **options)

    setattr(owner, name, take_time)


async def until(is_so: Callable[[], object]) -> None:
    """Wait for something that others bring about."""
    while not is_so():  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0)


def is_back(world: World) -> bool:
    """Say whether the old one runs under its name."""
    web = world.engine.named("web")
    return web is not None and web["id"] == world.old_id and web["up"]


async def carry(world: World, *, turns: asyncio.Semaphore | None = None) -> None:
    """Run one pass to its end; nothing of it goes on, and every turn is given back."""
    turns = turns or asyncio.Semaphore(1)
    await asyncio.wait_for(line(world.engine, world, turns=turns).reconcile(TARGET, WEBHOOK), PATIENCE_SECONDS)
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    await turns.acquire()
    assert turns.locked()


@pytest.mark.parametrize("part", ["registry", "engine"])
async def test_what_is_broken_is_put_back_meanwhile(part: str) -> None:
    """A registry or a pull that takes its time keeps nothing broken in place, though there is one turn for all."""
    world = World(new=Behaviour(unhealthy_after=5.0))
    world.hints.on_wait = hint_of(world, "c")
    delay(world, part, lambda: until(lambda: is_back(world)))
    await carry(world)
    assert world.phases() == ROLLED_BACK
    await carry(world)
    at_rest(world, "c")


@pytest.mark.parametrize("part", ["registry", "engine"])
async def test_what_answers_beside_the_old_one_is_watched_meanwhile(part: str) -> None:
    """Started first, it has its aliases already and becomes unhealthy: it is taken away, and the old one goes on."""
    world = started_first(Bomb(), new=Behaviour(healthy_after=1.0))

    def push() -> None:
        if world.journal.recorded[-1].drained_at is not None and digest("c") != world.registry.tags[REF]:
            hint_of(world, "c")()

    async def fall_ill() -> None:
        world.clock.time += 20
        world.engine.behaviours[image_id("b")].unhealthy_after = 5.0
        await until(lambda: world.journal.recorded[-1].phase is not Phase.UPDATING)

    world.hints.on_wait = push
    delay(world, part, fall_ill)
    await carry(world)
    assert world.phases() == ROLLED_BACK


async def test_a_rollback_keeps_the_turn_that_something_was_pulled_in() -> None:
    """Whoever waits for one pulls for long, and neither old nor new is up until that is over."""
    world, turns = World(new=Behaviour(unhealthy_after=5.0)), asyncio.Semaphore(1)
    world.hints.on_wait = hint_of(world, "c")
    was_back: list[bool] = []

    async def wait_for_a_turn() -> None:
        async with turns:
            was_back.append(is_back(world))

    others: list[asyncio.Task[None]] = []

    async def pull() -> None:
        others.append(asyncio.ensure_future(wait_for_a_turn()))
        await until(lambda: "remove web" in world.engine.calls)

    delay(world, "engine", pull)
    await carry(world, turns=turns)
    await asyncio.gather(*others)
    assert was_back == [True]


async def test_a_pull_for_later_waits_for_its_turn_and_is_not_before_what_is_down() -> None:
    """Another target has the only turn until the gate has failed; the rollback is next, not the pull."""
    world, turns = World(new=Behaviour(unhealthy_after=5.0)), asyncio.Semaphore(1)
    others: list[asyncio.Task[None]] = []

    async def hold() -> None:
        async with turns:
            await until(lambda: world.journal.recorded[-1].phase is Phase.ROLLING_BACK)

    def push() -> None:
        offer(world, "c")
        world.hints.hint = WEBHOOK
        others.append(asyncio.ensure_future(hold()))

    world.hints.on_wait = once(push)
    delay(world, "engine", lambda: until(lambda: is_back(world)))
    await carry(world, turns=turns)
    assert world.phases() == ROLLED_BACK
    assert [pull.rpartition("@")[2] for pull in world.engine.pulls] == [digest("b")]


async def test_it_takes_its_place_as_soon_as_it_is_prepared() -> None:
    """Nobody waits for the next look at the gate."""
    world = World(new=Behaviour(healthy_after=9e9))
    at: list[float] = []

    def push() -> None:
        at.append(world.clock.time)
        hint_of(world, "c")()

    def note(engine: FakeEngine) -> None:
        if engine.calls[-1] == "create web.sidecar-new":
            at.append(world.clock.time)

    world.hints.on_wait, world.engine.watch = once(push), note
    await carry(world)
    _, pushed, made = at
    assert made == pushed


async def test_what_was_hinted_at_while_it_was_looked_for_is_looked_for_next() -> None:
    """Two pushes into one gate: the second takes the place of the first, in the same pass."""
    world = World(new=Behaviour(healthy_after=9e9))

    async def push_again() -> None:
        if digest("d") != world.registry.tags[REF]:
            offer(world, "d")
            world.hints.hint = WEBHOOK

    resolved = world.registry.tags
    world.hints.on_wait = hint_of(world, "c", Behaviour(healthy_after=9e9))
    delay(world, "engine", push_again)
    await carry(world)
    assert resolved[REF] == digest("d")
    at_rest(world, "d")


async def test_what_was_given_up_for_a_start_is_looked_for_again() -> None:
    """It ended and is started again, as often as it may: that does not lose what somebody asked for meanwhile."""
    world = World(restart="no", new=Behaviour(healthy_after=None, exits_after=4.0))
    world.hints.on_wait = hint_of(world, "c")
    starts = world.engine.calls.count
    delay(world, "registry", lambda: until(lambda: starts("start web") > 1))
    await carry(world)
    assert world.phases() == SUPERSEDED
    at_rest(world, "c")


async def test_what_is_made_again_meanwhile_is_what_its_place_is_taken_of() -> None:
    """It removed itself: what would take the place of the first knows nothing of the second, and is given up."""
    world = self_removing(Bomb(), new=Behaviour(healthy_after=None, exits_after=4.0))
    world.hints.on_wait = hint_of(world, "c")
    made = world.engine.calls.count
    delay(world, "engine", lambda: until(lambda: made("start web") > 1))
    await world.live()
    at_rest(world, "c")


@pytest.mark.parametrize("failure", [Transient("no route to host"), RuntimeError("a defect of ours")])
async def test_what_fails_says_so_and_changes_nothing_of_the_gate(failure: Exception) -> None:
    """An error of the registry is told; a defect is not lost, be it that nobody asks any more what was found."""
    world = World(new=Behaviour(unhealthy_after=5.0))
    world.hints.on_wait = hint_of(world, "c")

    async def fail() -> None:
        raise failure

    delay(world, "registry", fail)
    if isinstance(failure, RuntimeError):
        with pytest.raises(RuntimeError):
            await carry(world)
        return
    await carry(world)
    assert world.phases() == ROLLED_BACK
    (told,) = world.events.named("rollout.delayed")
    assert told["reason"] == "looking for a newer digest: no route to host"


async def test_a_defect_in_what_was_given_up_is_not_lost() -> None:
    """It came while the gate failed, so that nobody asked any more what was found."""
    world = World(new=Behaviour(unhealthy_after=5.0))
    world.hints.on_wait = hint_of(world, "c")

    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            message = "a defect of ours"
            raise RuntimeError(message)

    delay(world, "engine", fail)
    with pytest.raises(RuntimeError):
        await carry(world)


async def test_a_defect_in_waiting_is_not_lost() -> None:
    """What a queue or a clock fails with ends the pass, also where something is looked for beside it."""
    world = World(new=Behaviour(healthy_after=9e9))
    push, waits = hint_of(world, "c"), count()

    def fail() -> None:
        push()
        if next(waits) == 1:
            message = "a defect of ours"
            raise RuntimeError(message)

    world.hints.on_wait = fail
    delay(world, "registry", lambda: asyncio.Event().wait())
    with pytest.raises(RuntimeError):
        await carry(world)


async def test_it_does_not_shorten_the_pauses_after_failures() -> None:
    """The engine goes away while the registry answers: it is not asked as fast as it refuses for that."""
    world = World(new=Behaviour(healthy_after=20.0))
    world.hints.on_wait = hint_of(world, "c")

    async def fail() -> None:
        if not world.events.named("rollout.delayed"):
            world.engine.fails["inspect_container"] = failing_first(30, Unreachable("nobody listens"))
            await until(lambda: world.events.named("rollout.delayed"))
            message = "no route to host"
            raise Transient(message)

    delay(world, "registry", fail)
    began = world.clock.time
    await carry(world)
    assert world.clock.time - began > 2 + 4 + 8 + 16 + 4 * 30


# --- the end of the process -------------------------------------------------------------------------------------------


async def begun(world: World, stopping: asyncio.Event) -> asyncio.Task[Any]:
    """Run a pass until something newer is pulled, for ever."""
    pulls = asyncio.Event()

    async def pull() -> None:
        pulls.set()
        await asyncio.Event().wait()

    world.hints.on_wait = hint_of(world, "c")
    delay(world, "engine", pull)
    running = asyncio.ensure_future(line(world.engine, world, stopping).reconcile(TARGET, WEBHOOK))
    await asyncio.wait_for(pulls.wait(), PATIENCE_SECONDS)
    return running


async def test_told_to_stop_it_gives_up_what_it_pulls_for_later() -> None:
    """The gate is left to the next start at once, and nothing of it goes on."""
    stopping = asyncio.Event()
    running = await begun(World(new=Behaviour(healthy_after=9e9)), stopping)
    stopping.set()
    assert await asyncio.wait_for(running, PATIENCE_SECONDS) == Hold("left to the next start: Sidecar stops")
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_given_up_in_the_middle_of_a_call_it_gives_up_what_it_pulls_as_well() -> None:
    """Whoever ends the process does not wait for a pull that nobody will use."""
    world = World(new=Behaviour(unhealthy_after=5.0))
    stops, stop = asyncio.Event(), world.engine.stop

    async def stop_for_ever(*args: Any, **options: Any) -> None:
        if world.journal.recorded[-1].phase is Phase.ROLLING_BACK:
            stops.set()
            await asyncio.Event().wait()
        await stop(*args, **options)

    world.engine.stop = stop_for_ever  # type: ignore[method-assign]
    running = await begun(world, asyncio.Event())
    await asyncio.wait_for(stops.wait(), PATIENCE_SECONDS)
    running.cancel()
    assert await asyncio.wait({running}, timeout=PATIENCE_SECONDS) == ({running}, set())
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_told_to_stop_what_nobody_has_begun_waits_for_no_registry() -> None:
    """It is left as it is, whatever is looked for."""
    world, stopping, asked = World(), asyncio.Event(), asyncio.Event()
    reconciler = line(world.engine, world, stopping)
    world.engine.fails["create"] = lambda: Transient("bad parameter")
    await reconciler.run_pass(TARGET, WEBHOOK)
    del world.engine.fails["create"]

    async def ask() -> None:
        asked.set()
        await asyncio.Event().wait()

    offer(world, "c")
    delay(world, "registry", ask)
    running = asyncio.ensure_future(reconciler.reconcile(TARGET, WEBHOOK))
    await asyncio.wait_for(asked.wait(), PATIENCE_SECONDS)
    began = world.clock.time
    await until(lambda: world.clock.time > began)  # it is looked at again now and then
    stopping.set()
    assert await asyncio.wait_for(running, PATIENCE_SECONDS) == Hold("left to the next start: Sidecar stops")
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("letter, behaviour", [("c", Behaviour()), ("a", Behaviour(unhealthy_after=1.0))])
async def test_what_was_pushed_while_sidecar_was_down_ends_as_if_it_had_been_pushed_at_once(
    letter: str, behaviour: Behaviour
) -> None:
    """Killed before anything was made, it finds a newer digest at its start: no tag is left on what was overtaken."""
    calm = World()
    await calm.live()
    for kill_at, point in enumerate(calm.bomb.names, start=1):
        world = World(bomb=Bomb(kill_at={kill_at}))
        with pytest.raises(Killed):
            await world.reconciler().reconcile(TARGET, WEBHOOK)
        if "create web.sidecar-new" in world.engine.calls:
            break  # what was made is carried to its end first
        offer(world, "c", behaviour)
        await world.live()
        assert digest("c") in {each.to.digest for each in world.journal.recorded}, point
        assert world.engine.tags[REF] == image_id(letter), point
        at_rest(world, letter)


async def test_a_tag_that_goes_back_in_the_gate_leaves_the_image_before() -> None:
    """The push was reverted: what runs is what ran, and a rollback by hand still has the image before that."""
    world = World(new=Behaviour(healthy_after=9e9), is_first=False)

    def revert() -> None:
        world.registry.tags[REF] = digest("a")
        world.hints.hint = FIRST

    world.hints.on_wait = once(revert)
    await ends(world)
    assert world.engine.tags["sidecar-previous:web"] == image_id("0")
    assert image_id("0") in world.engine.images


async def test_an_index_that_changed_for_other_machines_ends_no_gate() -> None:
    """A push of several platforms posts an index that grows; for this one the same image is in its gate."""
    world = World()
    world.hints.on_wait = hint_of(world, "c")
    world.registry.aliases = {digest("c"): frozenset({digest("b")})}
    await ends(world, 1)
    assert Phase.SUPERSEDED not in world.phases()


async def test_what_goes_along_does_not_wait_for_a_pull() -> None:
    """It was stopped when Sidecar was killed; something newer is pulled once it runs again."""
    probe = World(others={"net": dict(NETWORK)})
    await probe.live()
    at = probe.bomb.names.index("after stop net") + 1
    world, was_up = World(others={"net": dict(NETWORK)}, bomb=Bomb(kill_at={at})), list[bool]()
    with pytest.raises(Killed):
        await world.reconciler().reconcile(TARGET, FIRST)
    offer(world, "c")

    async def pull() -> None:
        was_up.append(web(world.engine)["id"] != world.old_id)

    delay(world, "engine", pull)
    await ends(world)
    assert False not in was_up


async def test_who_asked_before_a_restart_is_named_at_the_end() -> None:
    """A start finds a rollout in its gate, on behalf of one delivery, and another comes before it has looked."""
    world, stopping = World(new=Behaviour(healthy_after=9e9)), asyncio.Event()
    world.hints.on_wait = once(stopping.set)
    await line(world.engine, world, stopping).reconcile(TARGET, Cause("webhook", 0.0, ("d0",)))
    offer(world, "c")
    world.hints.hint = Cause("webhook", 1.0, ("d2",))
    await line(world.engine, world).reconcile(TARGET, FIRST)
    assert world.journal.recorded[-1].delivery_ids == ("d1", "d2")


async def test_what_somebody_left_of_one_superseded_is_removed() -> None:
    """A new one was removed without its volume and made again, and something newer took its place: see at_rest."""
    world = World(new=Behaviour(declares_cache=True, healthy_after=9e9))
    world.engine.watch = after("rename web.sidecar-new web", lambda engine: engine.containers.pop(web(engine)["id"]))
    world.hints.on_wait = hint_of(world, "c")
    await ends(world)
    assert world.engine.volumes == {"volume-1"}


async def test_a_tag_is_put_back_from_what_was_overtaken_though_it_is_the_image_before() -> None:
    """An older digest is pushed again; killed with the tag lent to it, something newer is found, and fails."""
    calm = World(is_first=False)
    calm.registry.tags[REF] = digest("0")
    await calm.live()
    at = calm.bomb.names.index(f"after tag {REF}") + 1
    world = World(bomb=Bomb(kill_at={at}), is_first=False)
    world.registry.tags[REF] = digest("0")
    with pytest.raises(Killed):
        await world.reconciler().reconcile(TARGET, FIRST)
    offer(world, "c", Behaviour(unhealthy_after=1.0))
    await ends(world)
    assert web(world.engine)["image"] == image_id("a")
    assert world.engine.tags[REF] == image_id("a")


async def test_what_was_prepared_begins_though_somebody_asks_all_the_time() -> None:
    """Hints come faster than a registry answers."""
    world = World()
    world.engine.fails["create"] = lambda: Transient("bad parameter")
    reconciler, resolve = world.reconciler(), world.registry.resolve
    await reconciler.run_pass(TARGET, FIRST)
    del world.engine.fails["create"]
    world.hints.on_wait = lambda: setattr(world.hints, "hint", FIRST)

    async def slow(ref: Any) -> Any:
        for _ in range(50):
            await asyncio.sleep(0)
        return await resolve(ref)

    world.registry.resolve = slow  # type: ignore[method-assign]
    await asyncio.wait_for(reconciler.reconcile(TARGET, FIRST), 2)


async def test_a_digest_that_failed_before_takes_nobodys_place() -> None:
    """The tag goes back to it while something newer is in its gate: that goes on."""
    world = World(new=Behaviour(healthy_after=9.0))
    offer(world, "c", Behaviour(unhealthy_after=1.0))
    await ends(world, 1)
    world.registry.tags[REF] = digest("b")
    world.hints.on_wait = hint_of(world, "c")
    await ends(world, 1)
    assert Phase.SUPERSEDED not in world.phases()
    assert world.phases()[-1] is Phase.SUCCEEDED


async def test_what_is_down_waits_for_nobodys_pull() -> None:
    """All turns are taken by others, who pull for a long time: what failed its gate is put back all the same."""
    world, turns = World(new=Behaviour(unhealthy_after=3.0)), asyncio.Semaphore(1)
    taken = list[asyncio.Future[bool]]()
    world.hints.on_wait = once(lambda: taken.append(asyncio.ensure_future(turns.acquire())))
    reconciler = line(world.engine, world, turns=turns)
    await asyncio.wait_for(reconciler.reconcile(TARGET, WEBHOOK), PATIENCE_SECONDS)
    assert world.phases() == ROLLED_BACK
    assert taken[0].done()
    assert turns.locked()


async def test_a_tag_that_another_container_goes_by_is_left_where_it_is() -> None:
    """As before, but somebody made a container by the tag while it was lent: `docker compose up` would replace that."""
    world = World(is_first=False)
    world.registry.tags[REF] = digest("0")
    tag = after(f"tag {REF}", lambda _: world.bomb.kill_at.add(len(world.bomb.names) + 1))
    world.engine.watch = tag
    with pytest.raises(Killed):
        await world.reconciler().reconcile(TARGET, FIRST)
    assert world.engine.tags[REF] == image_id("0")
    world.engine.run("other", REF, labels={})
    offer(world, "c", Behaviour(unhealthy_after=1.0))
    await ends(world)
    assert web(world.engine)["image"] == image_id("a")
    assert world.engine.tags[REF] == image_id("0")


async def test_who_asks_again_is_on_record_before_it_begins() -> None:
    """What was prepared and could not begin is begun on behalf of everybody, and a kill forgets nobody."""
    world, seen = World(), list[tuple[str, ...]]()
    world.engine.fails["create"] = lambda: Transient("bad parameter")
    reconciler = world.reconciler()
    await reconciler.run_pass(TARGET, FIRST)
    del world.engine.fails["create"]
    world.engine.watch = after("create", lambda _: seen.append(world.journal.recorded[-1].delivery_ids))
    await reconciler.run_pass(TARGET, WEBHOOK)
    assert seen == [("d1", "newer")]
