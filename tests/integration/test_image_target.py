"""Images that are only kept pulled, labels that ask for less than a recreate, and what is cleaned after updates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.stack import PATIENT, gated
from tests.integration.world import World, make_world
from tests.testbed import images
from tests.testbed.engine import Engine
from tests.testbed.images import Behaviour
from tests.testbed.registry import Registry


@pytest.fixture
def world(engine_26: Engine, registry: Callable[..., Registry], tmp_path: Path) -> Iterator[World]:
    """A registry that notifies a daemon that is not started yet; nothing runs."""
    made = make_world(engine_26, registry, tmp_path, SIDECAR_RESYNC_SECONDS="0")
    yield made
    made.daemon.kill()


def all_images(world: World) -> set[str]:
    """Give the id of every image, those without a name too."""
    return {each["Id"] for each in world.engine.api.get("/images/json")}


# --- kept pulled ----------------------------------------------------------------------------------------------------


def test_an_image_that_no_container_uses_is_kept_pulled(world: World) -> None:
    """The registry's own webhook has it pulled under its tag, each time it is pushed, over a restart too."""
    pattern = f"{world.registry.address}/*"
    world.daemon.start(SIDECAR_PULL_REPOSITORIES=pattern)
    digests = [world.push("1")]
    world.daemon.until_told("rollout.succeeded", target=f"image:{world.ref}", digest=digests[-1])
    assert world.tags() == {world.ref}
    digests.append(world.push("2"))
    world.daemon.until_told("rollout.succeeded", digest=digests[-1])
    world.daemon.kill()
    digests.append(world.push("3"))
    world.daemon.start(SIDECAR_PULL_REPOSITORIES=pattern)
    world.daemon.until_told("rollout.succeeded", digest=digests[-1])
    found = world.engine.api.get(f"/images/{world.ref}/json")
    assert found["RepoDigests"] == [f"{world.ref.rpartition(':')[0]}@{digests[-1]}"]
    assert [line["digest"] for line in world.daemon.lines("image.pulled")] == digests
    assert world.names() == []


def test_an_image_that_no_pattern_names_is_not_pulled(world: World) -> None:
    """The delivery concerns nobody, and that is told."""
    world.daemon.start(SIDECAR_PULL_REPOSITORIES=f"{world.registry.address}/other*")
    world.push("1")
    told = world.daemon.until_told("delivery.unmatched")
    assert told["reason"].endswith("and PULL_REPOSITORIES does not name it")
    assert all_images(world) == set()


def test_a_label_may_ask_to_pull_only(world: World) -> None:
    """The tag moves, and the container stays what it was until somebody recreates it."""
    world.push("1")
    before = world.run(labels={"sidecar.action": "pull"})
    world.daemon.start()
    digest = world.push("2")
    world.daemon.until_told("rollout.succeeded", target=f"image:{world.ref}", digest=digest)
    after = world.inspect()
    assert after["Id"] == before
    assert after["State"]["Running"]
    assert world.version() == "1"
    assert world.image_id(world.ref) != after["Image"]


def test_a_label_may_ask_to_be_told_only(world: World) -> None:
    """That there is something newer is said, and nothing is pulled."""
    world.push("1")
    before = world.run(labels={"sidecar.action": "notify"})
    world.daemon.start()
    digest = world.push("2")
    held = world.daemon.until_told("target.held", target="docker:web", digest=digest)
    assert held["reason"].startswith(f"{digest} is available")
    assert world.inspect()["Id"] == before
    assert world.daemon.lines("image.pulled") == []


# --- cleaned --------------------------------------------------------------------------------------------------------


RUNNING, PREVIOUS, FIRST, NAMELESS, NAMED = "running", "previous", "first", "nameless", "named"


@pytest.mark.parametrize(
    "store, prune, goes",
    [
        ("engine_26", "none", set()),
        ("engine_26", "replaced", {FIRST}),
        ("engine_containerd", "replaced", {FIRST}),
        ("engine_26", "dangling", {FIRST, NAMELESS}),
        ("engine_26", "system", {FIRST, NAMELESS}),
    ],
)
def test_what_goes_of_images_after_two_updates(
    store: str,
    prune: str,
    goes: set[str],
    request: pytest.FixtureRequest,
    registry: Callable[..., Registry],
    tmp_path: Path,
) -> None:
    """Never the one that runs, the one before it, and what has a name; strangers only where that is set."""
    engine = request.getfixturevalue(store)
    world = make_world(engine, registry, tmp_path, SIDECAR_PRUNE=prune)
    try:
        ids = {}
        # The second takes the name; what loses its name to one that is loaded is gone from containerd's store.
        for name in (NAMELESS, NAMED) if store == "engine_26" else (NAMED,):
            images.load(engine, images.web(name), "stranger:1")
            ids[name] = world.image_id("stranger:1")
        world.push("1")
        world.run()
        ids[FIRST] = world.inspect()["Image"]
        assert all_images(world) == set(ids.values())
        world.daemon.start()
        for version, name in (("2", PREVIOUS), ("3", RUNNING)):
            world.daemon.until_told("rollout.succeeded", digest=world.push(version))
            ids[name] = world.inspect()["Image"]
        assert all_images(world) == {ident for name, ident in ids.items() if name not in goes}
        assert world.image_id("sidecar-previous:web") == ids[PREVIOUS]
    finally:
        world.daemon.kill()


def test_a_replaced_image_that_somebody_named_stays(world: World) -> None:
    """Also where the name is one of its own repository, which the engine would take away together with it."""
    world.push("1")
    world.run()
    mine = world.registry.reference("web:mine")
    world.engine.docker("tag", world.ref, mine)
    first = world.image_id(mine)
    world.daemon.start()
    for version in ("2", "3"):
        world.daemon.until_told("rollout.succeeded", digest=world.push(version))
    assert world.image_id(mine) == first


def test_a_prune_of_the_system_spares_what_an_open_rollout_needs(world: World) -> None:
    """Stopped containers go, and the one that another's gate may have to return to is stopped: then none goes."""
    web = World(world.engine, world.registry, world.daemon, tag="web:1")
    mail = World(world.engine, world.registry, world.daemon, tag="mail:1")
    for each, name in ((web, "web"), (mail, "mail")):
        each.push("1")
        each.run(name, labels={"sidecar.deadline": "10m"})
    world.engine.docker("run", "--name=junk", mail.ref, "echo")
    before = web.inspect()
    world.daemon.start(SIDECAR_PRUNE="system")
    web.push_image("2", images.web("2", health=PATIENT, files={"/health": gated("never")}))
    world.daemon.until_told("rollout.stepped", target="docker:web", step="Start")
    world.daemon.until_told("rollout.succeeded", target="docker:mail", digest=mail.push("2"))
    assert world.names() == ["junk", "mail", "web", "web.sidecar-old"]
    world.daemon.until_told("rollout.rolled_back", digest=web.push("3", Behaviour.UNHEALTHY))
    assert web.inspect()["Id"] == before["Id"]
    assert world.names() == ["mail", "web"]
