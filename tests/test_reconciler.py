"""The line over the real driver and a fake engine: newer digests, people, failures, groups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from sidecar.core.decision import Cause, Hold, Keep
from sidecar.core.order import Verdict
from sidecar.core.rollout import Phase
from sidecar.core.target import Kind
from sidecar.errors import Transient, Unreachable
from sidecar.executor import Executor
from sidecar.ports import Ports
from sidecar.reconciler import Reconciler
from sidecar.targets.discovery import Scope
from sidecar.targets.docker import DockerDriver
from sidecar.targets.images import Images, Prune
from tests.fakes import (
    Behaviour,
    Bomb,
    FakeClock,
    FakeEngine,
    FakeHints,
    FakeRegistry,
    Killed,
    RecordedEvents,
    digest,
    failing_first,
    image_id,
)
from tests.memory_journal import MemoryJournal
from tests.test_crash import LABELS, REF, World, at_rest, cleaned, no_credentials

TARGET = "docker:web"


def offer(world: World, letter: str, behaviour: Behaviour | None = None) -> None:
    """Push an image: the tag means it from now on."""
    world.engine.has_image(letter, repository="registry.test/web", behaviour=behaviour)
    world.registry.tags[REF] = digest(letter)


def once(act: Callable[[], None]) -> Callable[[], None]:
    """Do something at the first wait in a gate, and not again."""
    done: list[bool] = []

    def act_once() -> None:
        if not done:
            done.append(True)
            act()

    return act_once


def hint_of(world: World, letter: str, behaviour: Behaviour | None = None) -> Callable[[], None]:
    """Push a newer image while the gate is open, and hint at it."""

    def push() -> None:
        offer(world, letter, behaviour)
        world.hints.hint = Cause("webhook", world.clock.now(), ("newer",))

    return once(push)


# --- a newer digest -------------------------------------------------------------------------------------------------


async def test_a_newer_digest_ends_the_gate_of_the_older() -> None:
    """The older is superseded and not rejected, the newer is rolled out, and nothing is left over."""
    world = World(new=Behaviour(healthy_after=9e9))
    world.hints.on_wait = hint_of(world, "c")
    assert isinstance(await world.live(), Keep)
    assert world.phases() == [Phase.UPDATING, Phase.SUPERSEDED, Phase.UPDATING, Phase.FINISHING, Phase.SUCCEEDED]
    at_rest(world, "c")
    assert await world.journal.rejected(TARGET, "registry.test/web") == {}
    assert world.journal.recorded[-1].delivery_ids == ("newer",)


async def test_the_image_of_the_older_is_not_left_behind() -> None:
    """It was pulled for nothing: every push into an open gate would fill the disk a little more."""
    world = World(new=Behaviour(healthy_after=9e9))
    world.hints.on_wait = hint_of(world, "c")
    await world.live()
    assert set(world.engine.images) == {image_id("a"), image_id("c")}


async def test_an_image_out_of_use_that_somebody_named_is_left_alone() -> None:
    """A name of one's own is a wish to keep it, also where the engine would take the name away with the image."""
    world = World(new=Behaviour(unhealthy_after=1.0))
    images, told = world.engine.images, world.events
    world.hints.on_wait = once(lambda: images[image_id("b")].update(RepoTags=["registry.test/web:mine"]))
    await world.live()
    assert image_id("b") in images
    assert told.named("image.removed") == []


async def test_a_newer_digest_that_fails_returns_to_the_first_container() -> None:
    """What a rollback returns to stays the one that was running before all of it."""
    world = World()
    world.hints.on_wait = hint_of(world, "c", Behaviour(unhealthy_after=1.0))
    await world.live()
    at_rest(world, "a")
    container = world.engine.named("web")
    assert container is not None
    assert container["id"] == world.old_id
    assert list(await world.journal.rejected(TARGET, "registry.test/web")) == [digest("c")]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("letter, behaviour", [("c", Behaviour()), ("a", Behaviour(unhealthy_after=1.0))])
async def test_a_kill_while_a_newer_digest_takes_over_changes_nothing_of_the_end(
    letter: str, behaviour: Behaviour
) -> None:
    """Killed at any point of two rollouts in a row, the end is that of the uncrashed run."""

    def made(bomb: Bomb) -> World:
        world = World(bomb=bomb, new=Behaviour(healthy_after=9e9))
        world.hints.on_wait = hint_of(world, "c", behaviour)
        return world

    calm = made(Bomb())
    await calm.live()
    for kill_at, point in enumerate(calm.bomb.names, start=1):
        world = made(Bomb(kill_at={kill_at}))
        await world.live()
        # Killed before the gate opened, the newer digest may be the only one that was ever tried.
        assert world.phases()[-1] is calm.phases()[-1], point
        at_rest(world, letter)
        cleaned(world, letter)


async def test_a_newer_digest_that_cannot_be_pulled_leaves_the_older_in_charge() -> None:
    """Until the newer one can act, the older one's gate decides."""
    world = World()

    def push() -> None:
        offer(world, "c")
        world.hints.hint = Cause("webhook", world.clock.now())
        world.engine.fails["pull"] = lambda: Transient("connection reset")

    world.hints.on_wait = once(push)
    await world.reconciler().reconcile(TARGET, Cause("test", 0.0))
    assert world.phases() == [Phase.UPDATING, Phase.FINISHING, Phase.SUCCEEDED]


# --- people ---------------------------------------------------------------------------------------------------------


def remove(world: World, name: str) -> None:
    container = world.engine.named(name)
    if container is not None:
        del world.engine.containers[container["id"]]


async def test_compose_up_in_the_gate_is_left_alone_and_tried_again() -> None:
    """Compose removes both and makes its own: the rollout ends abandoned, and the next pass begins anew."""
    world = World()

    def compose_up() -> None:
        remove(world, "web")
        remove(world, "web.sidecar-old")
        world.engine.run("web", REF, labels=LABELS)

    world.hints.on_wait = once(compose_up)
    verdict = await world.live(passes=1)
    assert isinstance(verdict, Hold)
    assert verdict.retry_at is not None
    assert Phase.ABANDONED in world.phases()
    assert [each["name"] for each in world.engine.containers.values()] == ["web"]
    assert isinstance(await world.live(passes=2), Keep)
    container = world.engine.named("web")
    assert container is not None
    assert container["image"] == image_id("b")


async def test_a_parked_container_that_somebody_started_is_stopped_again() -> None:
    """`docker compose start` starts every container of a service: the old one is quieted and goes in the end."""
    world = World()

    def compose_start() -> None:
        parked = world.engine.named("web.sidecar-old")
        assert parked is not None
        world.engine.begin(parked)

    world.hints.on_wait = once(compose_start)
    await world.live()
    at_rest(world, "b")


async def test_a_parked_container_that_somebody_started_does_not_run_beside_the_new_one() -> None:
    """Both may write to one volume: it is stopped at the next look, not when the gate ends."""
    world = World(new=Behaviour(healthy_after=20.0))
    running: list[bool] = []

    def compose_start() -> None:
        parked = world.engine.named("web.sidecar-old")
        if parked is not None:
            running.append(parked["up"])
            if len(running) == 1:
                world.engine.begin(parked)

    world.hints.on_wait = compose_start
    await world.live()
    assert len(running) > 10
    assert not any(running)
    at_rest(world, "b")


def in_turn(*acts: Callable[[], None]) -> Callable[[], None]:
    """Do one thing after the other, at one wait in a gate each."""
    left = list(acts)

    def act() -> None:
        if left:
            left.pop(0)()

    return act


def end(world: World, name: str) -> None:
    container = world.engine.named(name)
    assert container is not None
    world.engine.end(container, 143)


async def test_what_a_persons_tool_stops_to_remove_it_is_not_started_again_and_not_rejected() -> None:
    """Compose stops, removes and creates, one after the other: the image has not failed, and is tried again."""
    world = World()
    world.hints.on_wait = in_turn(
        lambda: end(world, "web"),
        lambda: remove(world, "web"),
        lambda: remove(world, "web.sidecar-old"),
        lambda: world.engine.run("web", REF, labels=LABELS),  # type: ignore[arg-type,return-value]
    )
    await world.live(passes=1)
    assert world.engine.calls.count("start web") == 1
    assert world.phases()[-1] is Phase.ABANDONED
    assert await world.journal.rejected(TARGET, "registry.test/web") == {}
    await world.live(passes=1)
    container = world.engine.named("web")
    assert container is not None
    assert container["image"] == image_id("b")


async def test_what_a_persons_tool_takes_away_stays_away() -> None:
    """Compose's `down` and `rm` stop and remove, each a while after the other: nothing is made again."""
    world = World()
    world.hints.on_wait = in_turn(
        lambda: end(world, "web"), lambda: remove(world, "web"), lambda: remove(world, "web.sidecar-old")
    )
    await world.live()
    assert world.engine.containers == {}
    assert world.engine.calls.count("create web.sidecar-new") == 1


@pytest.mark.parametrize("healthy_after", [3.0, None])
async def test_what_a_person_stops_in_the_gate_stays_stopped(healthy_after: float | None) -> None:
    """The update is taken back and its digest not rejected; started again, the container is updated."""
    world = World(new=Behaviour(healthy_after=healthy_after))
    world.hints.on_wait = once(lambda: end(world, "web"))
    await world.live(passes=1)
    assert world.phases() == [Phase.UPDATING, Phase.ROLLING_BACK, Phase.ROLLED_BACK]
    assert await world.journal.rejected(TARGET, "registry.test/web") == {}
    (container,) = world.engine.containers.values()
    assert (container["id"], container["name"], container["up"]) == (world.old_id, "web", False)
    assert container["host"]["RestartPolicy"]["Name"] == "always"
    verdict = await world.live(passes=1)
    assert isinstance(verdict, Hold)
    assert "what was stopped stays stopped" in verdict.reason
    world.engine.begin(container)
    await world.live()
    at_rest(world, "b")


def pause(world: World, *, is_paused: bool) -> None:
    container = world.engine.named("web")
    assert container is not None
    container["paused"] = is_paused


async def test_what_a_person_pauses_in_the_gate_and_lets_go_on_is_watched_on() -> None:
    """A backup does so for a while; it says nothing of the new container."""
    world = World()
    world.hints.on_wait = in_turn(lambda: pause(world, is_paused=True), lambda: pause(world, is_paused=False))
    await world.live(passes=1)
    at_rest(world, "b")


async def test_what_a_person_pauses_past_the_deadline_stays_paused_and_is_not_rejected() -> None:
    """The update is taken back, for nobody can tell of its image whether it works; the old one is paused instead."""
    world = World()
    world.hints.on_wait = once(lambda: pause(world, is_paused=True))
    await world.live(passes=1)
    world.state = "paused"
    at_rest(world, "a")
    assert await world.journal.rejected(TARGET, "registry.test/web") == {}
    assert "was paused by somebody meanwhile" in str(world.events.named("rollout.rolled_back")[0]["reason"])


async def test_what_a_person_stops_in_the_gate_of_a_rollback_stays_stopped() -> None:
    """The old one is in its place, and is not started against their will; the digest was rejected before."""
    world = World(new=Behaviour(unhealthy_after=1.0))

    def stop_the_old_one() -> None:
        container = world.engine.named("web")
        if container is not None and container["id"] == world.old_id and container["up"]:
            end(world, "web")

    world.hints.on_wait = stop_the_old_one
    await world.live(passes=1)
    assert world.phases()[-1] is Phase.ROLLED_BACK
    (container,) = world.engine.containers.values()
    assert (container["id"], container["up"]) == (world.old_id, False)
    assert list(await world.journal.rejected(TARGET, "registry.test/web")) == [digest("b")]


async def test_what_a_person_took_away_while_the_process_was_dead_stays_away() -> None:
    """Killed right after the start, which it did not live to record: what is gone afterwards was removed."""
    world = World(bomb=Bomb())
    await world.live()
    kill_at = world.bomb.names.index("after start web") + 1
    world = World(bomb=Bomb(kill_at={kill_at}))
    with pytest.raises(Killed):
        await world.reconciler().reconcile(TARGET, Cause("test", 0.0))
    world.engine.containers.clear()
    await world.live()
    assert world.engine.containers == {}


async def test_a_container_that_exits_is_given_time_before_it_is_started_again() -> None:
    """Three starts within a moment would say nothing of an image whose dependency is just coming up."""
    world = World(restart="no", new=Behaviour(healthy_after=None, exits_after=0.01))
    starts: list[float] = []

    def note(engine: FakeEngine) -> None:
        if engine.calls[-1] == "start web":
            starts.append(world.clock.time)

    world.engine.watch = note
    await world.live(passes=1)
    first, second, third, old = starts
    assert second - first >= 5
    assert third - second >= 5
    assert old - third >= 5
    at_rest(world, "a")


@pytest.mark.parametrize("is_renamed", [True, False])
async def test_a_person_who_goes_back_in_the_gate_is_not_left_without_either(is_renamed: bool) -> None:
    """The old one, started or renamed by hand, is what the rollout leaves; it is not rejected, and tried again."""
    world = World()

    def go_back() -> None:
        remove(world, "web")
        parked = world.engine.named("web.sidecar-old")
        assert parked is not None
        world.engine.begin(parked)
        if is_renamed:
            parked["name"] = "web"

    world.hints.on_wait = once(go_back)
    await world.live(passes=1)
    assert world.phases()[-1] is Phase.ABANDONED
    at_rest(world, "a")
    await world.live()
    at_rest(world, "b")


async def test_a_person_who_goes_back_at_the_very_end_is_left_alone() -> None:
    """Whoever puts the old one back while the rollout tidies up has the last word."""
    world = World()

    def go_back(engine: FakeEngine) -> None:
        parked = engine.named("web.sidecar-old")
        if engine.calls[-1].startswith("tag sidecar-previous") and parked is not None:
            remove(world, "web")
            parked["name"] = "web"
            engine.begin(parked)

    world.engine.watch = go_back
    await world.live(passes=1)
    assert world.phases()[-1] is Phase.ABANDONED
    assert [each["id"] for each in world.engine.containers.values()] == [world.old_id]
    assert world.engine.containers[world.old_id]["host"]["RestartPolicy"]["Name"] == "always"


async def test_a_replacement_that_compose_left_unfinished_takes_the_name_and_runs() -> None:
    """`up --force-recreate` in the gate fails half-way, with the service down: what it made is finished for it."""
    world = World()

    def force_recreate() -> None:
        remove(world, "web")
        remove(world, "web.sidecar-old")
        labels = LABELS | {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}
        world.engine.run("0123456789ab_web", REF, labels=labels, state="created")

    world.hints.on_wait = once(force_recreate)
    await world.live(passes=1)
    assert world.phases()[-1] is Phase.ABANDONED
    (container,) = world.engine.containers.values()
    assert (container["name"], container["up"]) == ("web", True)
    await world.live(passes=1)
    assert [each["image"] for each in world.engine.containers.values()] == [image_id("b")]


async def test_a_persons_tool_is_given_time_before_anything_of_its_work_is_touched() -> None:
    """A replacement that Compose is about to start is its own, for a while."""
    world = World()
    calls: list[int] = []

    def recreate() -> None:
        remove(world, "web")
        world.engine.run("0123456789ab_web", REF, labels=LABELS | {"com.docker.compose.project": "x"}, state="created")

    def finish() -> None:
        calls.append(len(world.engine.calls))
        container = world.engine.named("0123456789ab_web")
        assert container is not None
        container["name"] = "web"
        world.engine.begin(container)
        remove(world, "web.sidecar-old")

    def note() -> None:
        calls.append(len(world.engine.calls))

    world.hints.on_wait = in_turn(recreate, note, note, finish)
    await world.live(passes=1)
    assert len(set(calls)) == 1
    assert world.phases()[-1] is Phase.ABANDONED


async def test_the_one_put_back_has_to_be_healthy_anew() -> None:
    """What its health check said before the update, which the engine remembers, was said of another run."""
    world = World(new=Behaviour(unhealthy_after=1.0), old=Behaviour(healthy_after=2.0))
    assert await world.reconciler().run_pass(TARGET, Cause("webhook", 0.0)) is None
    at_rest(world, "a")
    container = world.engine.named("web")
    assert container is not None
    assert world.clock.time - container["started_at"] >= 2.0 + 5.0


async def test_a_restart_in_the_gate_begins_its_min_ready_anew() -> None:
    """Healthy counts from the start that a person caused."""
    world = World()
    restarted: list[float] = []

    def restart() -> None:
        current = world.engine.named("web")
        assert current is not None
        world.engine.begin(current)
        restarted.append(world.clock.time)

    world.hints.on_wait = once(restart)
    await world.live(passes=1)
    at_rest(world, "b")
    assert world.clock.time >= restarted[0] + 3 + 5


async def test_a_container_that_a_person_removed_in_the_gate_stays_removed() -> None:
    """Nothing of ours is left, and nothing is created again."""
    world = World()
    world.hints.on_wait = once(lambda: remove(world, "web"))
    await world.live(passes=1)
    assert world.phases()[-1] is Phase.ABANDONED
    assert world.engine.containers == {}
    assert isinstance(await world.live(passes=1), Keep)


async def test_a_target_that_is_gone_is_forgotten() -> None:
    """Hosts that make containers by the thousand would fill the memory with what is known of them."""
    world = World()
    reconciler = world.reconciler()
    await reconciler.run_pass(TARGET, Cause("test", 0.0))
    world.engine.containers.clear()
    await reconciler.run_pass(TARGET, Cause("test", 0.0))
    assert reconciler.last == {}
    assert reconciler.outcome_of(TARGET) == "it does not exist any more"


async def test_a_candidate_that_vanished_before_it_ran_is_made_again() -> None:
    """Removed between stop and start, it is created again from the journal: the service is not left down."""
    world = World()

    def vanish(engine: FakeEngine) -> None:
        if (
            engine.calls[-1].startswith("rename web web.sidecar-old")
            and engine.calls.count("create web.sidecar-new") == 1
        ):
            remove(world, "web.sidecar-new")

    world.engine.watch = vanish
    await world.live()
    at_rest(world, "b")


async def test_a_parked_container_that_vanished_is_made_again_to_roll_back_to() -> None:
    """Its create request in the journal stands in for it."""
    world = World(new=Behaviour(unhealthy_after=4.0))
    world.hints.on_wait = once(lambda: remove(world, "web.sidecar-old"))
    await world.live()
    at_rest(world, "a")
    container = world.engine.named("web")
    assert container is not None
    assert container["id"] != world.old_id


async def test_another_updaters_candidate_holds_ours() -> None:
    """A container under the candidate's name that no rollout explains is not touched, and nothing of ours is."""
    world = World()
    world.engine.run("web.sidecar-new", REF, labels={}, state="created")
    with pytest.raises(Transient, match=r"another updater is at work.*web\.sidecar-new"):
        await world.reconciler().reconcile(TARGET, Cause("test", 0.0))
    assert world.engine.calls == [f"pull {digest('b')[:9]}"] or world.engine.calls == []
    assert {each["name"] for each in world.engine.containers.values()} == {"web", "web.sidecar-new"}


async def test_what_bears_the_name_of_a_parked_one_holds_before_the_stop() -> None:
    """The old one could not be renamed once it is stopped, so that it is not stopped at all."""
    world = World()
    world.engine.run("web.sidecar-old", REF, labels={}, state="created")
    with pytest.raises(Transient, match=r"no rollout explains web\.sidecar-old; docker rm web\.sidecar-old"):
        await world.reconciler().reconcile(TARGET, Cause("test", 0.0))
    assert world.engine.calls == []


async def test_a_tag_that_is_moved_while_the_new_one_is_created_brings_in_no_other_image() -> None:
    """What was created on another image than the one that was pulled is removed again, and made anew."""
    world = World()
    offer(world, "c")
    world.registry.tags[REF] = digest("b")
    moved: list[str] = []

    def move(engine: FakeEngine) -> None:
        if engine.calls[-1].startswith("tag") and not moved:
            moved.append(engine.calls[-1])
            engine.tags[REF] = image_id("c")

    world.engine.watch = move
    assert await world.reconciler().run_pass(TARGET, Cause("webhook", 0.0)) == 5
    assert moved
    (held,) = world.events.named("target.held")
    assert "was moved to another image at that moment" in str(held["reason"])
    assert [each["name"] for each in world.engine.containers.values()] == ["web"]


# --- failures -------------------------------------------------------------------------------------------------------


async def test_a_registry_that_is_down_holds_with_a_time_and_touches_nothing() -> None:
    """The reason and the next try are in the verdict, longer each time; then it is rolled out."""
    world = World()
    world.registry.is_down = True
    reconciler = world.reconciler()
    pauses = [await reconciler.run_pass(TARGET, Cause("webhook", 0.0)) for _ in range(8)]
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]
    assert world.engine.calls == []
    assert "connection refused" in str(world.events.named("target.held")[-1]["reason"])
    world.registry.is_down = False
    assert await reconciler.run_pass(TARGET, Cause("retry", 0.0)) is None
    at_rest(world, "b")


async def test_a_registry_says_how_long_to_wait() -> None:
    """Its Retry-After wins over a shorter pause of ours."""
    world = World()

    async def busy(ref: object) -> None:
        msg = "too many requests"
        raise Transient(msg, retry_after_seconds=77.0)

    world.registry.resolve = busy  # type: ignore[assignment,method-assign]
    assert await world.reconciler().run_pass(TARGET, Cause("webhook", 0.0)) == 77


async def test_a_pull_that_fails_rejects_nothing_and_is_tried_again_as_the_same_rollout() -> None:
    """The intent stays, the old one was not touched, and the digest is rolled out once the registry is back."""
    world = World()
    world.engine.fails["pull"] = lambda: Transient("unexpected EOF")
    reconciler = world.reconciler()
    assert await reconciler.run_pass(TARGET, Cause("webhook", 0.0)) == 5
    assert world.engine.calls == []
    del world.engine.fails["pull"]
    assert await reconciler.run_pass(TARGET, Cause("retry", 0.0)) is None
    at_rest(world, "b")
    assert len({each.id for each in world.journal.recorded}) == 1


async def test_an_intent_that_is_no_longer_wanted_is_ended() -> None:
    """The tag moved on while the pull failed: the first rollout is superseded, and nothing was rejected."""
    world = World()
    world.engine.fails["pull"] = lambda: Transient("unexpected EOF")
    reconciler = world.reconciler()
    await reconciler.run_pass(TARGET, Cause("webhook", 0.0))
    del world.engine.fails["pull"]
    offer(world, "c")
    await reconciler.run_pass(TARGET, Cause("webhook", 0.0))
    at_rest(world, "c")
    assert world.phases() == [Phase.UPDATING, Phase.SUPERSEDED, Phase.UPDATING, Phase.FINISHING, Phase.SUCCEEDED]


async def test_without_a_journal_no_rollout_begins() -> None:
    """If the intent cannot be written, nothing is stopped."""
    world = World()
    world.journal.problem = Transient("no space left on device")
    assert await world.reconciler().run_pass(TARGET, Cause("webhook", 0.0)) == 5
    assert world.engine.calls == []


async def test_a_journal_that_fails_before_the_stop_stops_nothing() -> None:
    """The new one is created by then, and the old one runs on; with a journal again it goes on from there."""
    world = World()

    def fill_the_disk(engine: FakeEngine) -> None:
        if engine.calls[-1] == "create web.sidecar-new":
            world.journal.problem = Transient("no space left on device")

    world.engine.watch = fill_the_disk
    reconciler = world.reconciler()
    assert await reconciler.run_pass(TARGET, Cause("webhook", 0.0)) == 5
    assert "stop web" not in world.engine.calls
    world.engine.watch, world.journal.problem = None, None
    assert await reconciler.run_pass(TARGET, Cause("retry", 0.0)) is None
    at_rest(world, "b")


async def test_an_image_for_another_platform_is_refused_and_touches_nothing() -> None:
    """An index may have lost ours, or somebody pushed from another machine; that is no failure of the image's."""
    world = World()
    world.engine.offered[image_id("b")]["Architecture"] = "arm64"
    assert await world.reconciler().run_pass(TARGET, Cause("webhook", 0.0)) is None
    (held,) = world.events.named("target.held")
    assert held["reason"] == f"{digest('b')} is an image for linux/arm64, and {TARGET} runs one for linux/amd64"
    assert "create web.sidecar-new" not in world.engine.calls
    assert await world.journal.rejected(TARGET, "registry.test/web") == {}


async def test_a_journal_that_fails_after_the_stop_does_not_stop_the_rollout() -> None:
    """It is finished from memory and from what the engine shows, and told."""
    world = World()

    def fill_the_disk(engine: FakeEngine) -> None:
        if engine.calls[-1] == "stop web":
            world.journal.problem = Transient("no space left on device")

    world.engine.watch = fill_the_disk
    assert await world.reconciler().run_pass(TARGET, Cause("webhook", 0.0)) is None
    at_rest(world, "b")
    assert world.events.named("journal.failed")
    world.journal.problem = None
    assert isinstance(await world.live(passes=1), Keep)
    assert world.journal.recorded[-1].phase is Phase.SUCCEEDED


async def test_an_image_that_was_pruned_before_it_was_used_is_pulled_again() -> None:
    """Pulled by its digest it has no name, so that anybody's prune takes it away until a container has it."""
    world = World()
    world.engine.fails["create"] = lambda: Transient("bad parameter")
    reconciler = world.reconciler()
    assert await reconciler.run_pass(TARGET, Cause("webhook", 0.0)) == 5
    del world.engine.fails["create"]
    del world.engine.images[image_id("b")]
    assert await reconciler.run_pass(TARGET, Cause("retry", 0.0)) is None
    at_rest(world, "b")


async def test_an_engine_that_goes_away_in_the_gate_is_waited_for() -> None:
    """Its calls fail for a while, then the gate goes on; nothing is rejected."""
    world = World()
    away = failing_first(4, Unreachable("no such socket"))
    world.hints.on_wait = once(lambda: world.engine.fails.update(inspect_container=away))
    await world.live()
    at_rest(world, "b")
    assert world.events.named("rollout.delayed")


async def test_an_engine_that_goes_away_in_the_middle_of_a_rollback_is_waited_for() -> None:
    """What is told of the delay has a reason of its own beside that of the rollback."""
    world = World(new=Behaviour(unhealthy_after=1.0))
    fail = failing_first(9, Unreachable("no such socket"))  # three looks: they ask for three containers at once

    def away() -> Exception | None:
        return fail() if any(call.startswith("remove web") for call in world.engine.calls) else None

    world.engine.fails["inspect_container"] = away
    assert await world.reconciler().run_pass(TARGET, Cause("webhook", 0.0)) is None
    assert [each["reason"] for each in world.events.named("rollout.delayed")] == ["no such socket"] * 3
    assert world.events.named("pass.crashed") == []
    at_rest(world, "a")


async def test_a_create_that_fails_leaves_the_old_one_running_and_may_be_overtaken() -> None:
    """The engine refuses the candidate: held with a time; a newer digest takes over before anything was touched."""
    world = World()
    world.engine.fails["create"] = lambda: Transient("bad parameter")
    reconciler = world.reconciler()
    assert await reconciler.run_pass(TARGET, Cause("webhook", 0.0)) == 5
    container = world.engine.named("web")
    assert container is not None
    assert container["up"]
    assert world.engine.tags[REF] == image_id("a")
    offer(world, "c")
    del world.engine.fails["create"]
    assert await reconciler.run_pass(TARGET, Cause("webhook", 0.0)) is None
    at_rest(world, "c")


async def test_a_defect_of_ours_holds_one_target_and_not_the_daemon() -> None:
    """An exception that nobody expected is told with the target, and tried again."""
    world = World()
    world.engine.fails["list_containers"] = lambda: ZeroDivisionError("oops")
    assert await world.reconciler().run_pass(TARGET, Cause("webhook", 0.0)) == 5
    assert world.events.named("pass.crashed")


async def test_a_rejected_digest_is_not_tried_again_however_often_it_is_hinted_at() -> None:
    """One attempt, one rollback, then only holds; another digest ends it."""
    world = World(new=Behaviour(unhealthy_after=1.0))
    await world.live(passes=20)
    assert world.engine.calls.count("create web.sidecar-new") == 1
    offer(world, "c")
    await world.live()
    at_rest(world, "c")


async def test_the_process_leaves_a_gate_when_it_is_told_to_stop() -> None:
    """The rollout stays open, the new container runs, and the next start carries it to its end."""
    world = World()
    stopping = asyncio.Event()
    reconciler = line(world.engine, world, stopping)
    world.hints.on_wait = once(stopping.set)
    verdict = await reconciler.reconcile(TARGET, Cause("test", 0.0))
    assert isinstance(verdict, Hold)
    assert "Sidecar stops" in verdict.reason
    assert world.phases() == [Phase.UPDATING]
    await world.live()
    at_rest(world, "b")


async def test_without_rollback_the_failed_one_stays_under_its_name() -> None:
    """The old one is removed, the digest is rejected, and the rollout has failed."""
    labels = LABELS | {"sidecar.rollback": "false"}
    world = World(new=Behaviour(unhealthy_after=1.0), labels=labels)
    verdict = await world.live()
    assert isinstance(verdict, Hold)
    assert "and was left there" in verdict.reason
    at_rest(world, "b")
    assert world.phases() == [Phase.UPDATING, Phase.FINISHING, Phase.FAILED]


async def test_what_the_failed_one_said_last_is_kept_and_told() -> None:
    """Its container is gone by then: its last lines are in the journal and the log, the last one in the reason."""
    world = World(new=Behaviour(unhealthy_after=1.0))
    await world.live(passes=1)
    (told,) = world.events.named("rollout.rolled_back")
    assert str(told["log_tail"]).startswith("the last words of web")
    assert "its last words: 'the last words of web'" in str(told["reason"])
    assert world.journal.recorded[-1].log_tail == told["log_tail"]


async def test_a_failure_is_told_with_what_a_person_can_do() -> None:
    """Where neither is healthy the line names the commands that put the old one back, and the one for its request."""
    world = World(new=Behaviour(unhealthy_after=1.0), labels=LABELS | {"sidecar.rollback": "false"})
    await world.live()
    (told,) = world.events.named("rollout.failed")
    assert told["spec"] == "sidecar show docker:web --spec"
    assert told["recovery"] == list(world.journal.recorded[-1].recovery)
    steps = [str(command).split()[:3] for command in world.journal.recorded[-1].recovery]
    assert steps == [
        ["docker", "rm", "--force"],
        ["docker", "tag", world.journal.recorded[-1].from_.image_id],
        steps[2],
    ]
    assert world.journal.recorded[-1].recovery[2] == "sidecar show docker:web --spec | sh"


# --- groups ---------------------------------------------------------------------------------------------------------


class Project:
    """Several containers of one Compose project, and a queue that is worked on one pass at a time."""

    def __init__(
        self,
        services: dict[str, str],
        *,
        replicas: dict[str, int] | None = None,
        labels: dict[str, dict[str, str]] | None = None,
    ) -> None:
        """Take services with what they depend on, as Compose writes it, and labels of their own."""
        self.clock = FakeClock()
        self.engine = FakeEngine(self.clock)
        self.registry = FakeRegistry()
        self.journal = MemoryJournal(clock=self.clock)
        self.events = RecordedEvents()
        self.hints = FakeHints(self.clock)
        for service, depends_on in services.items():
            self.offer(service, "a")
            self.engine.images[image_id(service[0] + "a")] = self.engine.offered[image_id(service[0] + "a")]
            ref = f"registry.test/{service}:1"
            self.engine.tags[ref] = image_id(service[0] + "a")
            compose = {
                "com.docker.compose.project": "shop",
                "com.docker.compose.service": service,
                "com.docker.compose.depends_on": depends_on,
            }
            for number in range(1, (replicas or {}).get(service, 1) + 1):
                own = (labels or {}).get(service, {})
                self.engine.run(f"shop-{service}-{number}", ref, labels=LABELS | compose | own)
        self.reconciler = line(self.engine, self)

    def offer(self, service: str, letter: str, behaviour: Behaviour | None = None) -> None:
        """Push an image of a service; its digests begin with the service's own letter."""
        ident = service[0] + letter
        self.engine.has_image(ident, repository=f"registry.test/{service}", behaviour=behaviour)
        self.registry.tags[f"registry.test/{service}:1"] = digest(ident)

    async def hint(self, *names: str) -> dict[str, Verdict]:
        """Run the passes of these containers, and all that they ask for, until it is quiet."""
        self.hints.asked = [(f"docker:shop-{name}", Cause("webhook", self.clock.now())) for name in names]
        for _ in range(100):
            if not self.hints.asked:
                break
            target_id, cause = self.hints.asked.pop(0)
            await self.reconciler.run_pass(target_id, cause)
        return {name: judged.verdict for name, judged in self.reconciler.last.items()}

    def running(self) -> dict[str, str]:
        """Give the image letter of each container by its short name."""
        return {
            each["name"].removeprefix("shop-"): letter
            for each in self.engine.containers.values()
            for letter in "abc"
            if each["image"] == image_id(each["name"].removeprefix("shop-")[0] + letter)
        }

    def stops(self) -> list[str]:
        """Give the order in which containers were stopped."""
        return [call.removeprefix("stop shop-") for call in self.engine.calls if call.startswith("stop shop-")]


def line(
    engine: FakeEngine,
    world: World | Project,
    stopping: asyncio.Event | None = None,
    *,
    turns: asyncio.Semaphore | None = None,
    scope: Scope | None = None,
) -> Reconciler:
    """Put the real line together over fakes."""
    images = Images(engine, events=world.events, authorize=no_credentials, prune=Prune.REPLACED)  # type: ignore[arg-type]
    driver = DockerDriver(engine, images, events=world.events, scope=scope or Scope())  # type: ignore[arg-type]
    ports = Ports(
        registry=world.registry,
        drivers={Kind.DOCKER: driver},
        journal=world.journal,
        hints=world.hints,
        clock=world.clock,
        events=world.events,
    )
    turns = turns or asyncio.Semaphore(2)
    return Reconciler(ports, Executor(ports, turns=turns, stopping=stopping or asyncio.Event()))


async def test_a_push_of_one_image_moves_the_project_in_the_order_of_its_dependencies() -> None:
    """The hint was for one service; all that changed move, dependencies first."""
    project = Project({"db": "", "api": "db:service_healthy:false", "web": "api:service_started:false"})
    for service in ("db", "api", "web"):
        project.offer(service, "b")
    await project.hint("web-1")
    assert project.running() == {"db-1": "b", "api-1": "b", "web-1": "b"}
    assert project.stops() == ["db-1", "api-1", "web-1"]


async def test_all_that_will_change_is_pulled_before_the_first_is_stopped() -> None:
    """A pull that fails holds its dependents before anything is down, and the others go on."""
    project = Project({"db": "", "web": "db:service_started:false", "mail": ""})
    for service in ("db", "web", "mail"):
        project.offer(service, "b")
    await project.hint("mail-1")
    names = [call.split()[0] for call in project.engine.calls]
    assert names.index("stop") > max(index for index, name in enumerate(names) if name == "pull")


async def test_after_a_failure_dependents_are_held_and_the_others_go_on() -> None:
    """A dependency that was rolled back holds what needs it; nothing is undone for its sake."""
    project = Project({"db": "", "web": "db:service_started:false", "mail": ""})
    project.offer("db", "b", Behaviour(unhealthy_after=1.0))
    project.offer("web", "b")
    project.offer("mail", "b")
    verdicts = await project.hint("web-1", "mail-1")
    assert project.running() == {"db-1": "a", "web-1": "a", "mail-1": "b"}
    assert verdicts["docker:shop-web-1"] == Hold("dependency failed: docker:shop/db", is_failure=True)


async def test_replicas_of_a_service_roll_one_by_one_and_stop_at_the_first_that_fails() -> None:
    """The second replica never gets the digest that failed on the first."""
    project = Project({"web": ""}, replicas={"web": 3})
    project.offer("web", "b", Behaviour(unhealthy_after=1.0))
    await project.hint("web-1", "web-2", "web-3")
    assert set(project.stops()) == {"web-1"}
    assert project.running() == {"web-1": "a", "web-2": "a", "web-3": "a"}
    project.offer("web", "c")
    await project.hint("web-2")
    assert project.running() == {"web-1": "c", "web-2": "c", "web-3": "c"}
    assert project.engine.tags["registry.test/web:1"] == image_id("wc")


async def test_one_question_is_asked_for_each_reference_of_a_pass() -> None:
    """Three replicas of one reference cost the registry one HEAD."""
    project = Project({"web": ""}, replicas={"web": 3})
    await project.hint("web-1")
    assert project.registry.asked == ["registry.test/web:1"]


async def test_one_that_failed_looks_again_for_the_whole_project() -> None:
    """A sibling whose registry failed is asked later, although nobody hinted at it."""
    project = Project({"db": "", "web": ""})
    del project.registry.tags["registry.test/db:1"]
    project.registry.resolve = failing(project.registry)  # type: ignore[method-assign]
    project.hints.asked = []
    await project.reconciler.run_pass("docker:shop-web-1", Cause("webhook", 0.0))
    assert [name for name, _ in project.hints.asked] == ["docker:shop-db-1"]


def failing(registry: FakeRegistry) -> Callable[..., object]:
    """Let unknown references fail as a registry that is down does."""
    resolve = registry.resolve

    async def ask(ref: object) -> object:
        if str(ref) not in registry.tags:
            msg = "down"
            raise Transient(msg)
        return await resolve(ref)  # type: ignore[arg-type]

    return ask
