"""What Compose copied into a container is in the one that takes its place, wherever the process dies in between."""

from __future__ import annotations

import pytest

from sidecar.core.decision import Cause, Hold
from tests.fakes import Behaviour, Bomb, FakeEngine, digest, image_id
from tests.test_crash import LABELS, REF, TARGET, World, at_rest

OF_COMPOSE = LABELS | {"com.docker.compose.service": "web", "com.docker.compose.project": "shop"}
SECRETS = {"/run/secrets/token": b"hunter2", "/etc/app.conf": b"a = 1\n"}
JUST_CREATED = "2023-11-14T22:13:20Z"
CREATED_FIRST = 10  # calls: the candidate of the update is made among them, that of the rollback is not
UNHEALTHY = Behaviour(unhealthy_after=1.0)


def world(new: Behaviour | None = None, kill_at: frozenset[int] = frozenset()) -> World:
    """Make a world in which Compose has copied files into the container."""
    made = World(labels=OF_COMPOSE, new=new or Behaviour(), bomb=Bomb(kill_at=set(kill_at)))
    made.engine.containers[made.old_id]["files"] = {
        path: (JUST_CREATED, content) for path, content in SECRETS.items()
    } | {"/var/cache/own": ("2023-11-14T22:13:21.5Z", b"cached")}
    return made


def copies_of(made: World) -> dict[str, bytes]:
    container = made.engine.named("web")
    assert container is not None
    return {path: content for path, (_, content) in container["files"].items()}


async def test_copies_are_in_the_new_one_and_nothing_else() -> None:
    """Rows 35 and 37: what Compose copied is copied again, the rest is not, and its size is said beforehand."""
    made = world()
    await made.live()
    at_rest(made, "b")
    assert copies_of(made) == SECRETS
    [noted] = made.events.named("rollout.noted")
    assert noted["reason"] == "6 bytes that web wrote outside of its volumes stay behind with the old container"


@pytest.mark.parametrize("new, letter", [(Behaviour(), "b"), (UNHEALTHY, "a")])
async def test_a_kill_at_any_point_loses_no_copy(new: Behaviour, letter: str) -> None:
    """Row 35: a candidate into which not all was copied is made again and never started."""
    whole = world(new)
    await whole.live()
    assert any(point.startswith("after put /etc/app.conf") for point in whole.bomb.names)
    for kill_at, point in enumerate(whole.bomb.names, start=1):
        made = world(new, frozenset({kill_at}))
        await made.live()
        at_rest(made, letter)
        left = copies_of(made)
        assert {path: left[path] for path in SECRETS} == SECRETS, point


async def test_the_next_update_finds_what_this_one_copied() -> None:
    """Row 35: copies survive any number of updates."""
    made = world()
    await made.live()
    made.clock.time += 100_000
    made.engine.has_image("c", repository="registry.test/web")
    made.registry.tags[REF] = digest("c")
    await made.live()
    assert made.engine.named("web")["image"] == image_id("c")  # type: ignore[index]
    assert copies_of(made) == SECRETS


async def test_an_old_one_that_vanished_gets_its_copies_from_the_new_one() -> None:
    """Row 35: the journal holds no content, so the failed one's is used, which is taken away after that."""
    made = world(UNHEALTHY)
    remove_in_gate(made, "web.sidecar-old")
    await made.live()
    assert copies_of(made) == SECRETS


async def test_where_nobody_has_the_copies_it_runs_without_them_and_that_is_said() -> None:
    """Row 35: a service without its secrets may fail, and one that is missing does for certain."""
    made = world(UNHEALTHY)
    remove_in_gate(made, "web.sidecar-old")

    def lose(engine: FakeEngine) -> None:
        made.look(engine)
        if engine.calls[-1] == "create web.sidecar-new" and len(engine.calls) > CREATED_FIRST:
            engine.containers = {ident: each for ident, each in engine.containers.items() if each["name"] != "web"}

    made.engine.watch = lose
    await made.live()
    assert copies_of(made) == {}
    [*_, noted] = made.events.named("rollout.noted")
    assert noted["reason"] == "what Compose had copied is gone with web: /etc/app.conf, /run/secrets/token"


def remove_in_gate(made: World, name: str) -> None:
    """Let somebody remove a container while the gate is open."""

    def remove() -> None:
        if (container := made.engine.named(name)) is not None:
            del made.engine.containers[container["id"]]

    made.hints.on_wait = remove


async def test_what_cannot_be_told_is_held() -> None:
    """Row 35: a file that may be a config or the application's own is neither lost nor carried over: it is held."""
    made = world()
    made.engine.containers[made.old_id]["files"]["/app/plugin"] = ("2023-11-14T22:20:00Z", b"x")
    made.clock.time += 3600
    verdict = await made.reconciler().reconcile(TARGET, Cause("test", made.clock.now()))
    assert isinstance(verdict, Hold)
    assert "whether /app/plugin is a config of Compose or was written by the application" in verdict.reason
    assert made.engine.calls == []
