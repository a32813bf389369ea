"""The main job on real parts: a push reaches a running container, through the registry's own webhook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.engines import ON_EACH
from tests.integration.world import World, make_world
from tests.testbed import images
from tests.testbed.engine import Engine
from tests.testbed.images import OTHER_PLATFORM, PLATFORM, Behaviour, Index
from tests.testbed.registry import OCI_MANIFEST, Registry

pytestmark = ON_EACH


@pytest.fixture
def world(engine: Engine, registry: Callable[..., Registry], tmp_path: Path) -> Iterator[World]:
    """A container on version 1, and a daemon that runs."""
    made = make_world(engine, registry, tmp_path)
    made.push("1")
    made.run()
    made.daemon.start()
    yield made
    made.daemon.kill()


def test_a_push_reaches_the_running_container(world: World) -> None:
    """The registry notifies, the digest is pulled, the container is recreated and becomes healthy, the old one goes."""
    before = world.inspect()
    digest = world.push("2")
    line = world.daemon.until_told("rollout.succeeded", digest=digest)
    assert world.names() == ["web"]
    assert world.version() == "2"
    after = world.inspect()
    assert after["Id"] != before["Id"]
    assert after["Config"]["Image"] == world.ref
    assert after["HostConfig"]["RestartPolicy"] == before["HostConfig"]["RestartPolicy"]
    assert line["delivery_ids"]
    assert world.tags() == {world.ref, "sidecar-previous:web"}
    assert world.image_id(world.ref) == after["Image"]
    assert world.image_id("sidecar-previous:web") == before["Image"]


def test_a_version_that_never_becomes_healthy_is_rolled_back_and_not_tried_again(world: World) -> None:
    """The old container runs again under its name, and another hint of the same digest does nothing."""
    before = world.inspect()
    digest = world.push("2", Behaviour.UNHEALTHY)
    world.daemon.until_told("rollout.rolled_back", digest=digest)
    assert world.names() == ["web"]
    after = world.inspect()
    assert after["Id"] == before["Id"]
    assert after["HostConfig"]["RestartPolicy"] == before["HostConfig"]["RestartPolicy"]
    assert after["State"]["Running"]
    assert world.tags() == {world.ref}
    assert world.image_id(world.ref) == before["Image"]
    status, _ = world.daemon.post("/api/v1/updates", {"what": "web"})
    assert status == 202
    world.daemon.until_told("target.held", digest=digest, count=2)
    assert len(world.daemon.lines("rollout.started")) == 1


def test_an_image_that_was_built_here_is_held_with_words_that_say_so(world: World) -> None:
    """No registry gave it and none was given it: the words say that, and what the registry says stands behind them."""
    own = world.registry.reference("own:1")
    images.load(world.engine, images.web("1"), own)
    world.engine.docker("run", "--detach", "--name=own", "--label=sidecar.enable=true", own)
    status, _ = world.daemon.post("/api/v1/updates", {"what": "own"})
    assert status == 202
    held = world.daemon.until_told("target.held", target="docker:own")
    assert held["reason"].startswith(f"{own} was built on this machine, never pushed or pulled")
    assert "(404)" in held["reason"]
    assert "retry_at" not in held


def assert_untouched(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])


def test_a_tag_that_is_moved_back_is_followed_back(world: World) -> None:
    """What the tag means is what runs, be it older; the image that is here already is run by exactly its digest."""
    first, second = world.image_id(world.ref), world.push("2")
    world.daemon.until_told("rollout.succeeded", digest=second)
    digest = world.push("1")
    world.daemon.until_told("rollout.succeeded", digest=digest)
    assert (world.version(), world.inspect()["Image"], world.image_id(world.ref)) == ("1", first, first)
    assert world.names() == ["web"]


def test_an_image_for_other_machines_only_is_held(world: World) -> None:
    """Nothing is touched and nothing is rejected; the reason names the platform that it lacks."""
    before = world.inspect()
    world.push_image("2", Index(images=(images.web("2", platform=OTHER_PLATFORM, media_type=OCI_MANIFEST),)))
    held = world.daemon.until_told("target.held", target="docker:web")
    assert PLATFORM in held["reason"]
    assert_untouched(before, world.inspect())
    assert world.daemon.lines("rollout.stepped") == []
    world.daemon.until_told("rollout.succeeded", digest=world.push("3"))


def test_an_image_that_is_gone_from_its_registry_is_held(world: World) -> None:
    """The container stays as it is, however often it is asked for; what is pushed there later is rolled out."""
    before = world.inspect()
    world.registry.delete(world.tag)
    assert world.daemon.post("/api/v1/updates", {"what": "web"})[0] == 202
    held = world.daemon.until_told("target.held", target="docker:web")
    assert "(404)" in held["reason"]
    assert_untouched(before, world.inspect())
    world.daemon.until_told("rollout.succeeded", digest=world.push("2"))
