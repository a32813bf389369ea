"""Commands that a user wants run around an update: what follows from how they end."""

from __future__ import annotations

import pytest

from sidecar.core.decision import Cause, Hold, Keep
from sidecar.errors import Transient
from sidecar.targets._engine import EngineError
from tests.fakes import failing_first, image_id
from tests.test_crash import HOOKS, LABELS, TARGET, World, at_rest

CAUSE = Cause("webhook", 0.0)


def with_hooks(**more: object) -> World:
    return World(labels=LABELS | HOOKS, **more)  # type: ignore[arg-type]


async def hold_of(world: World) -> Hold:
    """Run one pass as the queue does, and give what the target is held for."""
    reconciler = world.reconciler()
    assert await reconciler.run_pass(TARGET, CAUSE) is not None
    verdict = reconciler.last[TARGET].verdict
    assert isinstance(verdict, Hold)
    return verdict


@pytest.mark.parametrize(
    "code, words, is_failure",
    [
        (3, "failed with exit code 3: its last line", True),
        (75, "says that it is not the time (exit code 75): its last line", False),
        (None, "did not end within 300 seconds, and may still run in its container", True),
    ],
)
async def test_a_hook_that_does_not_succeed_stops_the_update(code: int | None, words: str, is_failure: bool) -> None:
    """Nothing is touched, the target is held and tried again, and the update follows once the hook lets it."""
    world = with_hooks()
    world.engine.exits["dump"] = code
    verdict = await hold_of(world)
    assert verdict.reason == f"the pre-update hook of docker:web {words}"
    assert verdict.is_failure is is_failure
    told = [event for event, _ in world.events.told if event.startswith("hook.")]
    assert told == ["hook.failed" if is_failure else "hook.postponed"]
    assert [each["name"] for each in world.engine.containers.values()] == ["web"]
    assert [name for name in world.engine.calls if not name.startswith(("pull", "run"))] == []
    world.engine.exits["dump"] = 0
    world.engine.ran.clear()
    assert isinstance(await world.live(), Keep)
    at_rest(world, "b")


async def test_whoever_asks_again_for_what_a_hook_has_held_is_told_of_its_end() -> None:
    """Both deliveries are named by every line of the rollout from then on, and by the journal."""
    world = with_hooks()
    world.engine.exits["dump"] = 3
    reconciler = world.reconciler()
    await reconciler.run_pass(TARGET, Cause("webhook", 0.0, ("first",)))
    world.engine.exits["dump"] = 0
    await reconciler.run_pass(TARGET, Cause("cli", 1.0, ("second",)))
    (ended,) = world.events.named("rollout.succeeded")
    assert ended["delivery_ids"] == ["first", "second"]
    assert world.journal.recorded[-1].delivery_ids == ("first", "second")


async def test_a_hook_after_the_update_changes_nothing_of_its_end() -> None:
    """It is told, and the update stands: there is no way back by then."""
    world = with_hooks()
    world.engine.exits["warm"] = 1
    assert isinstance(await world.live(), Keep)
    at_rest(world, "b")
    (failed,) = world.events.named("hook.failed")
    assert (failed["hook"], failed["exit_code"], failed["output"]) == ("post-update", 1, "warm says\nits last line\n")


@pytest.mark.parametrize("status, failures, tries", [(500, 2, 3), (500, 9, 3), (400, 9, 1)])
async def test_what_fails_by_no_fault_of_the_command_is_tried_a_few_times(
    status: int, failures: int, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the update nothing else would run it again; a command that cannot be run is not tried twice."""
    monkeypatch.setattr("sidecar.targets.hooks._PAUSES_SECONDS", (0.0, 0.0))
    world = with_hooks()
    fail = failing_first(failures, EngineError("out of order", status=status))
    world.engine.fails["run"] = lambda: fail() if world.engine.ran[-1][0] == "warm" else None
    assert isinstance(await world.live(), Keep)
    assert world.engine.ran == [("dump", image_id("a")), *[("warm", image_id("b"))] * tries]
    assert [each["reason"] for each in world.events.named("hook.failed")] == (
        [] if failures < tries else ["could not be run: out of order"]
    )


async def test_what_a_hook_did_is_of_use_for_a_minute() -> None:
    """Where nothing could be begun since, what it saved is old by then, so it is run again."""
    world = with_hooks()
    world.engine.fails["create"] = failing_first(1, Transient("no space left"))
    await hold_of(world)
    assert world.engine.ran == [("dump", image_id("a"))]
    world.clock.time += 61
    await world.live()
    assert world.engine.ran == [("dump", image_id("a"))] * 2 + [("warm", image_id("b"))]


async def test_in_a_paused_container_nothing_can_run() -> None:
    """What the hook was to save would not be saved, so nothing is touched."""
    verdict = await hold_of(with_hooks(state="paused"))
    assert "its container is paused, and nothing can run in it" in verdict.reason


async def test_where_nothing_runs_nothing_is_run() -> None:
    """A stopped container that is to be recreated has nothing to save; that is said."""
    world = with_hooks(state="exited")
    world.engine.containers[world.old_id]["config"]["Labels"]["sidecar.when-stopped"] = "recreate"
    assert isinstance(await world.live(), Keep)
    assert world.engine.ran == []
    skipped = world.events.named("hook.skipped")
    assert [(each["hook"], each["reason"]) for each in skipped] == [
        ("pre-update", "its container is exited"),
        ("post-update", "its container is created"),
    ]
