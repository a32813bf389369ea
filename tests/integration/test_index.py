"""Multi-platform images on each image store: only what this platform runs counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.world import World, make_world
from tests.testbed import images
from tests.testbed.engine import NEW, OLD, Engine
from tests.testbed.images import OTHER_PLATFORM, Index
from tests.testbed.parts import STORE_VERSION, Parts
from tests.testbed.registry import OCI_MANIFEST, Registry


@pytest.fixture(params=[OLD.version, NEW.version, STORE_VERSION])
def world(
    request: pytest.FixtureRequest, testbed: Parts, registry: Callable[..., Registry], tmp_path: Path
) -> Iterator[World]:
    """A container on version 1 of an index, and a daemon that runs; on each engine and store."""
    engine: Engine = testbed.engine(request.param)
    made = make_world(engine, registry, tmp_path, SIDECAR_RESYNC_SECONDS="0")
    made.push_image("1", index(own="1", other="1"))
    made.run()
    made.daemon.start()
    made.daemon.until_told("target.kept", reason="up to date")
    yield made
    made.daemon.kill()
    engine.wipe()


def index(*, own: str, other: str) -> Index:
    """Make an index of two platforms, each with a version of its own."""
    ours = images.web(own, media_type=OCI_MANIFEST)
    theirs = images.web(other, media_type=OCI_MANIFEST, platform=OTHER_PLATFORM)
    return Index(images=(theirs, ours))


def test_only_what_this_platform_runs_is_rolled_out(world: World) -> None:
    """An index of which another platform changed is another index, and recreates and pulls nothing.

    Nor does the very image that runs, alone under the tag. Once this platform changed it is rolled out.
    """
    before = world.inspect()
    digest = world.push_image("2", index(own="1", other="2"))
    world.daemon.until_told("target.kept", digest=digest, reason="same image for this platform")
    digest = world.push_image("alone", index(own="1", other="1").images[1])
    world.daemon.until_told("target.kept", digest=digest)
    assert world.inspect()["Id"] == before["Id"]
    assert world.daemon.lines("rollout.started") == []
    assert world.daemon.lines("image.pulled") == []

    digest = world.push_image("3", index(own="3", other="2"))
    world.daemon.until_told("rollout.succeeded", digest=digest)
    assert world.version() == "3"
    assert world.names() == ["web"]

    after = world.inspect()
    digest = world.push_image("4", index(own="3", other="4"))
    world.daemon.until_told("target.kept", digest=digest, reason="same image for this platform")
    assert world.inspect()["Id"] == after["Id"]
    assert world.tags() == {world.ref, "sidecar-previous:web"}
