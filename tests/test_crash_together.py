"""Kill the process at every side effect while two containers of one reference are updated side by side.

They share one local tag, which is lent to the new image for each creation and moved by whoever ends first.
"""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.decision import Cause
from tests.fakes import Behaviour, Bomb, Killed, image_id
from tests.test_crash import LABELS, REF, World

NAMES = ("api", "web")


async def together(bomb: Bomb, new: Behaviour) -> World:
    """Update both until it is quiet, starting again after every kill."""
    world = World(bomb=bomb, new=new)
    world.engine.run("api", REF, labels=LABELS)
    reconciler, left = world.reconciler(), 3
    while left:
        cause = Cause("test", world.clock.now())
        passes = (reconciler.reconcile(f"docker:{name}", cause) for name in NAMES)
        # A dead process ends in all that it does: each of its next side effects kills it as well.
        outcomes = await asyncio.gather(*passes, return_exceptions=True)
        if any(isinstance(each, Killed) for each in outcomes):
            world.clock.time += 5
            reconciler = world.reconciler()
            continue
        left -= 1
        assert [each for each in outcomes if isinstance(each, BaseException)] == []
    return world


def both_on(world: World, letter: str) -> None:
    """Hold that both run this image, as they were configured, that the tag names it, and that nothing is left."""
    assert sorted(each["name"] for each in world.engine.containers.values()) == list(NAMES)
    assert {each["image"] for each in world.engine.containers.values()} == {image_id(letter)}
    assert {each["host"]["RestartPolicy"]["Name"] for each in world.engine.containers.values()} == {"always"}
    assert all(each["up"] for each in world.engine.containers.values())
    assert world.engine.tags[REF] == image_id(letter)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("new, letter", [(Behaviour(), "b"), (Behaviour(unhealthy_after=2.0), "a")])
async def test_a_kill_at_any_point_changes_nothing_of_the_end_of_two(new: Behaviour, letter: str) -> None:
    """Killed once anywhere, and once more some steps later, both end as without it, and the tag with them."""
    calm = Bomb()
    both_on(await together(calm, new), letter)
    for kill_at in range(1, calm.points + 1):
        for gap in (None, 1, 7):
            both_on(await together(Bomb(kill_at={kill_at} if gap is None else {kill_at, kill_at + gap}), new), letter)
