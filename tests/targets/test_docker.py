"""What the driver does where the engine is not as it left it; the crash test holds the rest."""

from __future__ import annotations

import pytest

from sidecar.core.decision import Cause, Keep
from sidecar.errors import Refused, Transient
from tests.fakes import Behaviour, image_id
from tests.test_crash import REF, TARGET, World, at_rest


def without_its_image() -> World:
    """Make a world in which the image that the container runs is gone, as containerd's store lets it go."""
    world = World()
    del world.engine.images[image_id("a")]
    del world.engine.tags["registry.test/web:1"]
    return world


async def test_an_image_that_the_engine_lost_is_pulled_again() -> None:
    """Its defaults are needed to tell them from what was configured; on that store its id is what a registry knows."""
    world = without_its_image()
    world.engine.pullable[image_id("a")] = image_id("a")
    world.engine.offered[image_id("a")]["RepoDigests"].append(f"registry.test/web@{image_id('a')}")
    assert isinstance(await world.live(), Keep)
    assert world.engine.pulls[0] == f"registry.test/web@{image_id('a')}"
    at_rest(world, "b")


@pytest.mark.parametrize(
    "failure, reason",
    [
        (Refused("manifest unknown"), "web runs .* which the engine does not have any more: .*manifest unknown"),
        (Transient("connection reset"), "connection reset"),
    ],
)
async def test_without_its_image_a_container_is_left_alone(failure: Exception, reason: str) -> None:
    """What nobody has any more is said to be so; what cannot be asked for now is asked for again."""
    world = without_its_image()
    world.engine.fails["pull"] = lambda: failure
    with pytest.raises(type(failure), match=reason):
        await world.reconciler().reconcile(TARGET, Cause("test", 0.0))
    assert world.engine.named("web")["up"]  # type: ignore[index]
    assert "create_container" not in str(world.engine.calls)


@pytest.mark.parametrize("others", [("other", "api"), ("api", "other")])
async def test_a_tag_that_another_container_is_on_is_left_to_it(others: tuple[str, str]) -> None:
    """Where two of one reference end differently it names what runs on the one that succeeded, among any others."""
    world = World(new=Behaviour(unhealthy_after=1.0))
    world.engine.images[image_id("b")] = world.engine.offered[image_id("b")]
    references = {"other": "registry.test/other:1", "api": REF}
    for name in others:
        world.engine.tags[references[name]] = image_id("b")
        world.engine.run(name, references[name], labels={})
    await world.live(passes=1)
    assert world.engine.named("web")["image"] == image_id("a")  # type: ignore[index]
    assert world.engine.tags[REF] == image_id("b")
