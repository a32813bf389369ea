"""What the application could do that Sidecar began from, one test each: a FastAPI receiver of Docker Hub's webhook."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sidecar.notify import confirm_chain
from sidecar.sources.allowed import Allowed
from tests.web.receiving import JSON, PAYLOADS, TOKEN, World, serve

PUSH = (PAYLOADS / "dockerhub/push.json").read_bytes()
ADDRESS = f"/?token={TOKEN}"


async def test_receives_docker_hubs_body_at_the_root(aiohttp_client: Any):
    """Docker Hub posts its body to ``/`` and is answered at once."""
    client = await serve(World().receiver(), aiohttp_client)
    async with client.post(ADDRESS, data=PUSH, headers=JSON) as response:
        assert response.status == 202
        assert (await response.json())["hints"] == ["docker.io/shop/web:1.4"]


@pytest.mark.parametrize(
    "part, field, value",
    [
        ("push_data", "pushed_at", {}),
        ("push_data", "pusher", 5),
        ("push_data", "tag", ["1.4"]),
        ("repository", "namespace", 5),
        ("repository", "date_created", []),
        ("repository", "comment_count", "many"),
        ("repository", "is_private", "perhaps"),
        ("repository", "status", {}),
    ],
)
async def test_validates_every_field_of_the_body(aiohttp_client: Any, part: str, field: str, value: object):
    """A field of another type is 422, and the sender is told which one."""
    body = json.loads(PUSH)
    body[part][field] = value
    client = await serve(World().receiver(), aiohttp_client)
    async with client.post(ADDRESS, json=body) as response:
        assert response.status == 422
        assert f"{part}.{field}" in (await response.json())["detail"]


async def test_answers_400_to_accounts_that_are_not_trusted(aiohttp_client: Any):
    """A push by an account that is not on the list is a bad request, and nothing is done for it."""
    world = World(allowed=Allowed.of(pushers=["account1", "account2"]))
    client = await serve(world.receiver(), aiohttp_client)
    async with client.post(ADDRESS, data=PUSH, headers=JSON) as response:
        assert response.status == 400
        assert (await response.json())["detail"] == "the pusher 'alice' is not allowed"
    assert not world.handed_over


async def test_keeps_a_refused_body_for_a_later_look(aiohttp_client: Any):
    """What an untrusted account sent is kept whole, with who sent it, and logged."""
    world = World(allowed=Allowed.of(pushers=["account1"]))
    client = await serve(world.receiver(), aiohttp_client)
    await client.post(ADDRESS, data=PUSH, headers=JSON)
    (kept,) = await world.kept()
    assert (kept.fate, kept.body, kept.pusher, kept.remote) == ("refused", PUSH, "alice", "127.0.0.1")
    event, facts = world.fact()
    assert (event, facts["pusher"], facts["images"]) == ("delivery.rejected", "alice", ["docker.io/shop/web:1.4"])


class Response:
    """Docker Hub's answer."""

    status = 200


class DockerHub:
    """Docker Hub as a chain of webhooks sees it: it is answered at the address that it gave."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, Any]] = []

    @asynccontextmanager
    async def post(self, url: object, *, json: Any, **_options: object) -> AsyncIterator[Response]:
        self.answers.append((str(url), json))
        yield Response()


async def test_confirms_the_chain_where_it_is_asked_to(aiohttp_client: Any):
    """The callback address of a push is kept with it, and answered with state, description, context and target."""
    world, hub = World(), DockerHub()
    client = await serve(world.receiver(), aiohttp_client)
    await client.post(ADDRESS, data=PUSH, headers=JSON)
    (delivery,) = world.handed_over
    confirmation = await confirm_chain(
        hub,
        delivery,
        state="success",
        description="web runs",
        context="sidecar",
        target_url="https://shop.example.com",
    )
    assert confirmation.is_confirmed
    assert hub.answers == [
        (
            "https://registry.hub.docker.com/u/shop/web/hook/21a0b1c2d3e4f5/",
            {
                "state": "success",
                "description": "web runs",
                "context": "sidecar",
                "target_url": "https://shop.example.com",
            },
        )
    ]


async def test_works_after_the_answer(aiohttp_client: Any):
    """A sender is answered without waiting for a pull: the delivery is handed over, and that is all."""
    world = World()
    client = await serve(world.receiver(), aiohttp_client)
    async with client.post(ADDRESS, data=PUSH, headers=JSON) as response:
        assert response.status == 202
    assert [str(hint) for delivery in world.handed_over for hint in delivery.hints] == ["docker.io/shop/web:1.4"]


async def test_keeps_a_history_of_received_bodies(aiohttp_client: Any):
    """Every body is kept as it came, newest first, with what became of it."""
    world = World(allowed=Allowed.of(pushers=["alice"]))
    client = await serve(world.receiver(), aiohttp_client)
    bodies = {
        "accepted": PUSH,
        "ignored": b'{"push_data": {}, "repository": {"repo_name": "shop/web"}}',
        "refused": PUSH.replace(b"alice", b"mallory"),
    }
    for body in bodies.values():
        await client.post(ADDRESS, data=body, headers=JSON)
    assert [(kept.fate, kept.body) for kept in await world.kept()] == list(reversed(bodies.items()))
