"""Many posts at once to the running daemon: all are answered, few passes follow, and a crash loses none."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from tests.integration.daemon import TOKEN, Daemon
from tests.integration.world import World, make_world
from tests.testbed import images
from tests.testbed.engine import Engine
from tests.testbed.images import Image
from tests.testbed.registry import Registry

POSTS, TAGS = 1000, 100
CONNECTIONS = 50
# Longer than the posts take on a busy machine: those after the first come together in one more pass.
DEBOUNCE_SECONDS = 6.0
PAYLOADS = Path(__file__).parents[1] / "sources/payloads"
LONG = {"sidecar.deadline": "10m"}


@pytest.fixture
def world(engine_26: Engine, registry: Callable[..., Registry], tmp_path: Path) -> Iterator[World]:
    """A registry that tells nobody of a push, and a daemon that is not started yet."""
    settings = {
        "SIDECAR_RESYNC_SECONDS": "0",
        "SIDECAR_DEBOUNCE_SECONDS": str(DEBOUNCE_SECONDS),
        "SIDECAR_MAX_PARALLEL_ROLLOUTS": "8",
    }
    made = make_world(engine_26, lambda **_: registry(), tmp_path, **settings)
    yield made
    made.daemon.kill()


async def post(daemon: Daemon, source: str, bodies: Sequence[bytes]) -> float:
    """Post these bodies side by side, expect a 202 for each, and give how many seconds it took."""
    url, headers = f"{daemon.url}/hooks/{source}/{TOKEN}", {"Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def one(body: bytes) -> int:
            async with session.post(url, data=body) as answer:
                return answer.status

        start = time.monotonic()
        statuses = await asyncio.gather(*map(one, bodies))
        seconds = time.monotonic() - start
    assert statuses == [202] * len(bodies)
    return seconds


def until_finished(daemon: Daemon) -> None:
    """Wait until everything that deliveries asked for has been looked at."""
    journal = f"file:{daemon.folder}/state/journal.sqlite3?mode=ro"

    def is_finished() -> bool:
        with closing(sqlite3.connect(journal, uri=True)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM deliveries WHERE finished_at IS NULL").fetchone()
        return count == 0

    daemon.until(is_finished, "every delivery is finished")


def passes(daemon: Daemon, target: str) -> int:
    """Count the passes over a target that deliveries asked for; each ends with one word."""
    told = [line for line in daemon.lines() if line["event"] in {"target.kept", "target.held"}]
    return sum(line["target"] == target and line["cause"] == "webhook" for line in told)


def expect_none_again(daemon: Daemon) -> None:
    """Hold that the next start reads no delivery again."""
    matched, kept = len(daemon.lines("delivery.matched")), len(daemon.lines("target.kept"))
    daemon.stop()
    daemon.start()
    daemon.until(lambda: len(daemon.lines("target.kept")) > kept, "the first target is looked at")
    daemon.stop()
    assert len(daemon.lines("delivery.matched")) == matched


async def test_a_thousand_posts_of_one_push_are_one_pull(world: World) -> None:
    """All are kept and answered; they are two passes at most, and one rollout."""
    daemon = world.daemon
    world.push("1")
    world.run("web", labels=LONG)
    daemon.start()
    digest = world.push("2")
    seconds = await post(daemon, "generic", [b'{"image": "%s"}' % world.ref.encode()] * POSTS)
    assert seconds < DEBOUNCE_SECONDS
    daemon.until_told("rollout.succeeded", digest=digest)
    until_finished(daemon)
    assert passes(daemon, "docker:web") <= 2
    assert len(daemon.lines("delivery.matched")) == POSTS
    assert len(daemon.lines("rollout.started")) == 1
    assert len(daemon.lines("image.pulled")) == 1
    expect_none_again(daemon)


async def test_a_thousand_posts_of_docker_hub_are_two_passes(world: World) -> None:
    """Its whole documented body; the container is held for a label, for its registry cannot be reached from here."""
    daemon = world.daemon
    images.load(world.engine, images.web("1"), "shop/web:1.4")
    labels = ("--label=sidecar.enable=true", "--label=sidecar.no-such-label=1")
    world.engine.docker("run", "--detach", "--name=web", *labels, "shop/web:1.4")
    daemon.start()
    body = (PAYLOADS / "dockerhub/push.json").read_bytes()
    seconds = await post(daemon, "dockerhub", [body] * POSTS)
    assert seconds < DEBOUNCE_SECONDS
    until_finished(daemon)
    assert 1 <= passes(daemon, "docker:web") <= 2
    assert len(daemon.lines("delivery.accepted")) == POSTS


def push_tags(world: World, count: int) -> dict[str, str]:
    """Push an image of its own under each of many tags; give the references and their digests."""
    names = [f"app/{number % 3}:{number}" for number in range(count)]
    return {world.registry.reference(name): images.push(world.registry, tiny(name), name) for name in names}


def tiny(content: str) -> Image:
    """Make an image of one file."""
    return Image(layers=(images.packed({"/it": content}),), config={})


def expect_pulled(world: World, pushed: dict[str, str]) -> None:
    """Hold that every reference names its image, and no other image is there."""
    found = world.engine.api.get("/images/json")
    repositories = {tag: each["RepoDigests"] for each in found for tag in each["RepoTags"] or []}
    assert repositories == {ref: [f"{ref.rpartition(':')[0]}@{digest}"] for ref, digest in pushed.items()}


async def test_a_hundred_tags_are_pulled_once_each(world: World) -> None:
    """Each is a target of its own: nothing is lost, and nothing is done twice."""
    daemon = world.daemon
    pushed = push_tags(world, TAGS)
    daemon.start(SIDECAR_PULL_REPOSITORIES=f"{world.registry.address}/app/*")
    await post(daemon, "generic", [b'{"image": "%s"}' % ref.encode() for ref in pushed])
    daemon.until(lambda: len(daemon.lines("rollout.succeeded")) >= TAGS, "every tag is pulled")
    for event in ("rollout.started", "image.pulled", "rollout.succeeded"):
        assert sorted(line["target"] for line in daemon.lines(event)) == sorted(f"image:{ref}" for ref in pushed)
    expect_pulled(world, pushed)
    until_finished(daemon)
    expect_none_again(daemon)


async def test_what_was_answered_is_done_though_the_process_is_killed(world: World) -> None:
    """Killed right after the last 202: the deliveries on disk are read again, and every tag is pulled in the end."""
    daemon = world.daemon
    pushed = push_tags(world, TAGS)
    daemon.start(SIDECAR_PULL_REPOSITORIES=f"{world.registry.address}/app/*")
    await post(daemon, "generic", [b'{"image": "%s"}' % ref.encode() for ref in pushed])
    daemon.kill()
    before = len(daemon.lines("rollout.succeeded"))
    assert before < TAGS
    daemon.start(SIDECAR_PULL_REPOSITORIES=f"{world.registry.address}/app/*")
    targets = {f"image:{ref}" for ref in pushed}

    def kept() -> set[str]:
        return {line["target"] for line in daemon.lines("target.kept")}

    daemon.until(lambda: targets <= kept(), "every tag is pulled")
    expect_pulled(world, pushed)
