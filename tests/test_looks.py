"""What a look at a target finds before any rollout: what is told of it, and whom it asks."""

from __future__ import annotations

import pytest

from sidecar.core.decision import Cause, Hold, Keep
from sidecar.core.image import ImageRef
from sidecar.errors import Refused
from tests.fakes import FakeRegistry, image_id
from tests.test_crash import LABELS, World
from tests.test_reconciler import TARGET, Project, hint_of

CAUSE = Cause("webhook", 0.0)
REFUSAL = "resolving registry.test/web:1: registry registry.test does not know registry.test/web:1 (404)"
BUILT_HERE = "was built on this machine, never pushed or pulled"
NOTE = (
    "the old one is stopped before the new one is started: both would write to /data; "
    "if they may, label it sidecar.start-first-volumes=true"
)


def refuse(registry: FakeRegistry, *, only: str = "") -> None:
    """Let a registry know nothing, or not this reference."""
    resolve = registry.resolve

    async def refusing(ref: ImageRef) -> object:
        if only in ("", str(ref)):
            raise Refused(REFUSAL)
        return await resolve(ref)

    registry.resolve = refusing  # type: ignore[assignment,method-assign]


# --- what is told ---------------------------------------------------------------------------------------------------


async def test_when_it_is_tried_again_is_told_as_a_time() -> None:
    """Whoever reads the log reads a time as in RFC 3339, like the one at the beginning of its line."""
    world = World()
    world.registry.is_down = True
    await world.reconciler().run_pass(TARGET, CAUSE)
    (held,) = world.events.named("target.held")
    assert held["retry_at"] == "2023-11-14T22:13:25.000Z"


# --- refused --------------------------------------------------------------------------------------------------------


async def test_what_would_be_lost_is_said_before_anything_is_begun() -> None:
    """A container that cannot be recreated as it was is held with the reason, and no rollout is told or left open."""
    world = World()
    container = world.engine.named("web")
    assert container is not None
    container["config"]["Labels"]["com.docker.swarm.task.id"] = "some"
    verdict = await world.reconciler().reconcile(TARGET, CAUSE)
    assert isinstance(verdict, Hold)
    assert verdict.reason.startswith("web cannot be recreated without a loss: ")
    assert verdict.is_failure
    assert world.events.named("rollout.started") == []
    assert await world.journal.open_rollouts() == []


# --- held for its labels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["sidecar.approval=manual", "sidecar.deadline=soon", "sidecar.unknown=1"])
async def test_what_is_held_for_its_labels_costs_no_question(label: str) -> None:
    """A label that a later version knows, or that cannot be read, is judged before the registry is asked."""
    name, _, value = label.partition("=")
    world = World(labels=LABELS | {name: value})
    verdict = await world.reconciler().reconcile(TARGET, CAUSE)
    assert isinstance(verdict, Hold)
    assert name in verdict.reason
    assert world.registry.asked == []


async def test_one_held_for_its_labels_costs_its_project_no_question() -> None:
    """Of a project only those are asked for that may be updated."""
    project = Project({"db": "", "web": ""})
    database = project.engine.named("shop-db-1")
    assert database is not None
    database["config"]["Labels"]["sidecar.window"] = "Mon-Fri 02:00-05:00"
    project.registry.asked.clear()
    await project.hint("web-1")
    assert set(project.registry.asked) == {"registry.test/web:1"}


# --- never pushed ---------------------------------------------------------------------------------------------------


async def test_an_image_that_was_built_here_is_held_with_words_that_say_so() -> None:
    """No registry knows it, and that is no failure of anybody: the words say what it is, and what its registry said."""
    world = World()
    world.engine.images[image_id("a")]["RepoDigests"] = []
    refuse(world.registry)
    verdict = await world.reconciler().reconcile(TARGET, CAUSE)
    assert isinstance(verdict, Hold)
    assert verdict.reason.startswith(f"registry.test/web:1 {BUILT_HERE}, so that nothing can be newer; push it, or ")
    assert verdict.reason.endswith(f"({REFUSAL})")
    assert not verdict.is_failure


async def test_an_image_that_came_from_its_registry_is_held_with_what_that_says() -> None:
    """Then the registry has forgotten it, or does not let us in, which is somebody's to put right."""
    world = World()
    refuse(world.registry)
    assert await world.reconciler().reconcile(TARGET, CAUSE) == Hold(REFUSAL, is_failure=True)


async def test_where_the_store_does_not_tell_both_are_said() -> None:
    """On containerd's store every image has a digest, that of its index, so that it may have come from anywhere."""
    world = World()
    world.engine.images[image_id("a")]["RepoDigests"] = [f"registry.test/web@{image_id('a')}"]
    refuse(world.registry)
    expected = Hold(f"{REFUSAL}; or it was built on this machine, never pushed or pulled", is_failure=True)
    assert await world.reconciler().reconcile(TARGET, CAUSE) == expected


async def test_what_depends_on_an_image_that_was_built_here_is_updated() -> None:
    """The one is as its owner wants it; the other has a newer digest."""
    project = Project({"db": "", "web": "db:service_started:false"})
    project.engine.images[image_id("da")]["RepoDigests"] = []
    refuse(project.registry, only="registry.test/db:1")
    project.offer("web", "b")
    verdicts = await project.hint("web-1")
    assert BUILT_HERE in str(verdicts["docker:shop-db-1"])
    assert project.running() == {"db-1": "a", "web-1": "b"}


# --- the strategy in force ------------------------------------------------------------------------------------------


async def test_a_strategy_that_is_not_possible_is_noted_once_a_rollout() -> None:
    """Who asked for start-first reads in the log that it stops first; a newer digest is another rollout."""
    world = World(labels=LABELS | {"sidecar.strategy": "start-first"})
    world.hints.on_wait = hint_of(world, "c")
    assert isinstance(await world.live(), Keep)
    started = [facts["rollout_id"] for facts in world.events.named("rollout.started")]
    noted = world.events.named("rollout.noted")
    assert [facts["rollout_id"] for facts in noted] == started
    assert {(facts["target"], facts["reason"]) for facts in noted} == {(TARGET, NOTE)}
    assert len(started) == 2


async def test_a_strategy_in_force_as_asked_for_needs_no_note() -> None:
    """Nothing is said where the labels get what they ask for."""
    world = World()
    await world.live()
    assert world.events.named("rollout.noted") == []
