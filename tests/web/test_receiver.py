"""The receiver over a real server: who is believed, what is read, what is kept, and what the sender is told."""

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from itertools import product
from typing import Any

import pytest
from aiohttp import ClientResponse, web

from sidecar.errors import Misconfigured, Transient
from sidecar.ports import Delivery
from sidecar.sources.allowed import Allowed
from sidecar.web.receiver import NamedSource, senders
from tests.web.receiving import JSON, PAYLOADS, SOURCES, TOKEN, Client, World, serve

OLD, NEW = "the-old-token-of-a-source", "the-new-token-of-a-source"
HEADER = "Basic dGhlLWhlYWRlci1vZi10aGlzLXRlc3Q="
SECRETS = (TOKEN, OLD, NEW, HEADER, HEADER.removeprefix("Basic "))
MORE_SOURCES = {
    "distribution": NamedSource(kind="distribution", options={"registry": "registry.example.com"}),
    "hub": NamedSource(kind="dockerhub", tokens=(OLD, NEW)),
    "builds": NamedSource(kind="generic", authorization=HEADER),
}
HUB, DISTRIBUTION, GENERIC = (f"/hooks/{name}/{TOKEN}" for name in ("dockerhub", "distribution", "generic"))
PUSH = (PAYLOADS / "dockerhub/push.json").read_bytes()
EVENTS = (PAYLOADS / "distribution/push.json").read_bytes()
PULL = (PAYLOADS / "distribution/pull.json").read_bytes()
HINT = "docker.io/shop/web:1.4"


@pytest.fixture
def world() -> World:
    return World(sources=MORE_SOURCES)


@pytest.fixture
async def client(world: World, aiohttp_client: Any) -> Client:
    return await serve(world.receiver(), aiohttp_client)


async def problem(response: ClientResponse) -> str:
    """Give the detail of an RFC 9457 body, after a look at the rest of it."""
    assert response.content_type == "application/problem+json"
    body = await response.json()
    assert body["status"] == response.status
    assert body["title"] == HTTPStatus(response.status).phrase
    assert len(body["delivery"]) == 26
    return str(body["detail"])


async def test_a_delivery_is_kept_handed_over_and_answered(client: Client, world: World):
    """A push is on disk, then in the queue, then answered 202 with its id and its hints, and told in one line."""
    async with client.post(HUB, data=PUSH, headers=JSON) as response:
        assert response.status == 202
        assert response.content_type == "application/json"
        answer = await response.json()
    (kept,) = await world.kept()
    assert answer == {"delivery": kept.id, "hints": [HINT]}
    assert world.steps == ["kept", "handed over"]
    assert world.handed_over == [
        Delivery(
            id=kept.id,
            source="dockerhub",
            received_at=world.clock.now(),
            fate="accepted",
            remote="127.0.0.1",
            pusher="alice",
            hints=kept.hints,
            body=PUSH,
            callback_url="https://registry.hub.docker.com/u/shop/web/hook/21a0b1c2d3e4f5/",
        )
    ]
    assert world.fact() == (
        "delivery.accepted",
        {
            "delivery_id": kept.id,
            "source": "dockerhub",
            "images": [HINT],
            "remote": "127.0.0.1",
            "pusher": "alice",
            "reason": "",
            "status": 202,
        },
    )


async def test_nothing_is_answered_before_it_is_on_disk(client: Client, world: World):
    """The 202 waits for the journal, and so does the queue."""
    world.may_keep.clear()
    asking = asyncio.create_task(client.post(HUB, data=PUSH, headers=JSON))
    done, _ = await asyncio.wait({asking}, timeout=0.1)
    assert not done
    assert not world.handed_over
    assert not world.facts.told
    world.may_keep.set()
    assert (await asking).status == 202


@pytest.mark.parametrize(
    "path, headers, body",
    [
        (f"/?token={TOKEN}", {}, PUSH),
        (f"/hooks/hub/{OLD}", {}, PUSH),
        (f"/hooks/hub/{NEW}", {}, PUSH),
        ("/hooks/builds", {"Authorization": HEADER}, b'{"image": "shop/web:1.4"}'),
        (GENERIC, {"Content-Type": ""}, b'{"image": "shop/web:1.4"}'),
        (GENERIC, {"Content-Type": "application/vnd.shop+json"}, b'{"image": "shop/web:1.4"}'),
        (GENERIC, {"Content-Encoding": "identity"}, b'{"image": "shop/web:1.4"}'),
    ],
)
async def test_every_way_in(client: Client, path: str, headers: Mapping[str, str], body: bytes):
    """The token stands in the path, or in the query at the root; or the sender sends its header."""
    async with client.post(path, data=body, headers={**JSON, **headers}) as response:
        assert response.status == 202
        assert (await response.json())["hints"] == [HINT]


@pytest.mark.parametrize(
    "path, headers, status, detail",
    [
        ("/", {}, 401, "a credential is missing: the token in the address, or an Authorization header"),
        ("/?token=", {}, 401, "a credential is missing: the token in the address, or an Authorization header"),
        ("/hooks/dockerhub", {}, 401, "a credential is missing: the token in the address, or an Authorization header"),
        ("/hooks/builds", {}, 401, "a credential is missing: the token in the address, or an Authorization header"),
        (f"/?token={TOKEN}x", {}, 403, "the credential is wrong"),
        (f"/hooks/dockerhub/{TOKEN[:-1]}", {}, 403, "the credential is wrong"),
        ("/hooks/dockerhub/gr%C3%B6%C3%9Fer%FF", {}, 403, "the credential is wrong"),
        (f"/hooks/hub/{TOKEN}", {}, 403, "the credential is wrong"),
        ("/hooks/builds", {"Authorization": "Bearer something"}, 403, "the credential is wrong"),
        ("/hooks/nobody/something", {}, 404, "there is no such source; `sidecar url` prints the addresses that exist"),
        (f"/hooks/{TOKEN}", {}, 404, "there is no such source; `sidecar url` prints the addresses that exist"),
    ],
)
async def test_who_is_not_believed(
    client: Client, world: World, path: str, headers: Mapping[str, str], status: int, detail: str
):
    """No credential is 401, a wrong one 403 without a word of how, an unknown source 404; nothing is kept."""
    async with client.post(path, data=PUSH, headers={**JSON, **headers}) as response:
        assert response.status == status
        assert ("WWW-Authenticate" in response.headers) is (status == 401)
        assert await problem(response) == detail
    assert not await world.kept()
    event, facts = world.fact()
    assert event == "delivery.rejected"
    assert facts["status"] == status
    assert facts["reason"] == detail
    assert facts["remote"] == "127.0.0.1"
    assert facts["source"] in {*SOURCES, *MORE_SOURCES, ""}
    assert world.wrong == ([facts["source"]] if status == 403 else [])
    assert (facts["source"] == "") is (status == 404)


async def test_an_address_is_posted_to(client: Client):
    """A browser that follows the address is told the method."""
    async with client.get(HUB) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "path, headers, body, reason",
    [
        (GENERIC, JSON, b"[]", "reading the body: Input should be an object; expected {'image': 'repository:tag'} or"),
        (HUB, JSON, b"", "reading the body: Invalid JSON: EOF while parsing a value"),
        (
            HUB,
            JSON,
            b'{"repository": {"repo_name": "A B"}, "push_data": {"tag": "1"}}',
            "reading the body: 'docker.io/",
        ),
    ],
)
async def test_an_unreadable_body_is_422_and_kept(
    client: Client, world: World, path: str, headers: Mapping[str, str], body: bytes, reason: str
):
    """An authenticated sender is told what was expected, and its body is kept for a look."""
    async with client.post(path, data=body, headers=headers) as response:
        assert response.status == 422
        assert (await problem(response)).startswith(reason)
    (kept,) = await world.kept()
    assert (kept.fate, kept.body, kept.hints) == ("refused", body, ())
    assert kept.reason.startswith(reason)
    assert world.fact()[0] == "delivery.rejected"
    assert not world.handed_over


async def test_what_nothing_follows_from_is_ignored(client: Client, world: World):
    """An event that is no push of a tag is answered 202 with the reason, and kept."""
    async with client.post(DISTRIBUTION, data=PULL, headers=JSON) as response:
        assert response.status == 202
        answer = await response.json()
    (kept,) = await world.kept()
    assert answer == {"delivery": kept.id, "ignored": "no event is a push of a tag"}
    assert (kept.fate, kept.reason, kept.body) == ("ignored", "no event is a push of a tag", PULL)
    event, facts = world.fact()
    assert event == "delivery.ignored"
    assert facts["reason"] == kept.reason
    assert not world.handed_over


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    """Send a body without saying how long it is."""
    for start in range(0, len(body), 1_000):
        yield body[start : start + 1_000]
        await asyncio.sleep(0)


LARGE = b'{"image": "' + b"a" * 20_000 + b'"}'
TOO_BIG = "the body is larger than 10000 bytes"


@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_body_that_is_too_big_is_413(client: Client, world: World, is_declared: bool):
    """A body over the limit is refused by its declared length, or where it passes the limit."""
    async with client.post(GENERIC, data=LARGE if is_declared else chunks(LARGE), headers=JSON) as response:
        assert response.status == 413
        assert await problem(response) == TOO_BIG
    assert not await world.kept()
    assert world.fact()[1]["reason"] == TOO_BIG


async def test_a_body_in_parts_is_read(client: Client):
    """A body without a declared length is read to its end."""
    padded = b'{"image": "shop/web:1.4", "padding": "' + b"a" * 9_000 + b'"}'
    async with client.post(GENERIC, data=chunks(padded), headers=JSON) as response:
        assert (await response.json())["hints"] == [HINT]


@pytest.mark.parametrize("content_type", ["text/html", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_another_content_type_is_415(client: Client, content_type: str):
    """A body that is declared as something else is not read."""
    async with client.post(HUB, data=PUSH, headers={"Content-Type": content_type}) as response:
        assert response.status == 415
        assert await problem(response) == "the content type is not one of dockerhub's; expected application/json"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
async def test_a_compressed_body_is_415(client: Client, encoding: str):
    """No sender compresses, and a body that grows when it is opened is nothing we take: it is never inflated."""
    bomb = gzip.compress(b"\x00" * 5_000_000)
    assert len(bomb) < 10_000
    async with client.post(HUB, data=bomb, headers={**JSON, "Content-Encoding": encoding}) as response:
        assert response.status == 415
        assert await problem(response) == "the body is compressed; expected it as it is"


@pytest.mark.parametrize(
    "headers, body, reason, kept_body",
    [
        (JSON, b"[]", "reading the body: Input should be an object; expected Distribution's", b"[]"),
        (JSON, LARGE, TOO_BIG, b""),
        ({"Content-Type": "text/html"}, EVENTS, "the content type is not one of distribution's", b""),
        ({**JSON, "Content-Encoding": "gzip"}, gzip.compress(EVENTS), "the body is compressed", b""),
    ],
)
async def test_who_repeats_for_ever_is_told_ignored(
    client: Client, world: World, headers: Mapping[str, str], body: bytes, reason: str, kept_body: bytes
):
    """An error would block a registry's whole queue: what cannot be read is answered 202, kept and told."""
    async with client.post(DISTRIBUTION, data=body, headers=headers) as response:
        assert response.status == 202
        assert (await response.json())["ignored"].startswith(reason)
    (kept,) = await world.kept()
    assert (kept.fate, kept.body) == ("ignored", kept_body)
    assert kept.reason.startswith(reason)
    assert world.fact()[0] == "delivery.ignored"


@pytest.mark.parametrize("path, status", [(f"/hooks/distribution/{TOKEN}x", 403), ("/hooks/distribution", 401)])
async def test_who_repeats_for_ever_is_not_spared_the_credential(client: Client, path: str, status: int):
    """Before it is authenticated nobody is spared an error."""
    async with client.post(path, data=b"[]", headers=JSON) as response:
        assert response.status == status


ONLY_BOB, ONLY_OTHERS = Allowed.of(pushers=["bob"]), Allowed.of(repositories=["other/*"])
NAMED = b'{"image": "shop/web:1.4", "pusher": "ci"}'


@pytest.mark.parametrize(
    "allowed, path, body, status, reason",
    [
        (ONLY_BOB, HUB, PUSH, 400, "the pusher 'alice' is not allowed"),
        (ONLY_BOB, GENERIC, NAMED, 400, "the pusher 'ci' is not allowed"),
        (ONLY_BOB, DISTRIBUTION, EVENTS, 202, "the pusher 'ci' is not allowed"),
        (ONLY_OTHERS, HUB, PUSH, 400, "not an allowed repository: shop/web"),
        (ONLY_OTHERS, GENERIC, NAMED, 400, "not an allowed repository: shop/web"),
        (ONLY_OTHERS, DISTRIBUTION, EVENTS, 202, "not an allowed repository: registry.example.com/team/app"),
    ],
)
async def test_what_is_not_allowed_is_refused_and_kept(
    aiohttp_client: Any, world: World, allowed: Allowed, path: str, body: bytes, status: int, reason: str
):
    """A pusher or repository off the list is 400 (202 to who repeats for ever), told with its sender, and kept."""
    client = await serve(replace(world.receiver(), allowed=allowed), aiohttp_client)
    async with client.post(path, data=body, headers=JSON) as response:
        assert response.status == status
        said = (await response.json())["ignored"] if status == 202 else await problem(response)
        assert said == reason
    (kept,) = await world.kept()
    assert (kept.fate, kept.reason, kept.body) == ("refused", reason, body)
    assert kept.hints
    assert not world.handed_over
    event, facts = world.fact()
    assert event == "delivery.rejected"
    assert (facts["delivery_id"], facts["pusher"], facts["remote"]) == (kept.id, kept.pusher, "127.0.0.1")
    assert facts["pusher"] in {"alice", "ci"}
    assert facts["reason"] == reason


async def test_what_is_allowed_of_a_delivery_is_accepted(aiohttp_client: Any, world: World):
    """Of several images those on the list are accepted, and the line says which are not."""
    client = await serve(replace(world.receiver(), allowed=Allowed.of(repositories=["shop/web"])), aiohttp_client)
    body = {"images": ["shop/web:1.4", "shop/other:1"]}
    async with client.post(GENERIC, json=body) as response:
        assert (await response.json())["hints"] == [HINT]
    event, facts = world.fact()
    assert event == "delivery.accepted"
    assert facts["images"] == [HINT]
    assert facts["reason"] == "not an allowed repository: shop/other"


@pytest.mark.parametrize(
    "problem_of_journal, retry_after",
    [(Transient("disk full"), "5"), (Transient("disk full", retry_after_seconds=0.2), "1")],
)
@pytest.mark.parametrize("path, body", [(HUB, PUSH), (DISTRIBUTION, PULL), (GENERIC, b"[]")])
async def test_a_delivery_that_cannot_be_kept_is_503(
    client: Client, world: World, problem_of_journal: Exception, retry_after: str, path: str, body: bytes
):
    """What is not on disk is not accepted: the sender is told when to come again, and nothing is handed over."""
    world.journal.problem = problem_of_journal
    async with client.post(path, data=body, headers=JSON) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == retry_after
        assert await problem(response) == "the delivery cannot be kept now; send it again"
    event, facts = world.fact()
    assert event == "delivery.rejected"
    assert (facts["status"], facts["error"]) == (503, "disk full")
    assert not world.handed_over


async def test_ids_are_in_the_order_of_arrival(client: Client, world: World):
    """Each delivery has an identifier of its own."""
    answers = [await (await client.post(HUB, data=PUSH, headers=JSON)).json() for _ in range(3)]
    assert len({answer["delivery"] for answer in answers}) == 3


async def send(client: Client, *parts: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send bytes as they are, for what no client would send."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.01)
    return reader, writer


def head(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: sidecar", *headers, "", ""]).encode()


@pytest.mark.parametrize(
    "path, length, status",
    [
        ("/hooks/dockerhub/wrong", 500, b"403"),
        ("/hooks/dockerhub", 500, b"401"),
        ("/hooks/nobody/wrong", 500, b"404"),
        (HUB, 10**12, b"413"),
    ],
)
async def test_the_body_is_not_waited_for(client: Client, path: str, length: int, status: bytes):
    """Who is not believed, or sends too much, has the answer before a byte of the body was read."""
    reader, writer = await send(client, head(path, f"Content-Length: {length}"))
    assert (await reader.readline()).split()[1] == status
    writer.close()


@pytest.mark.parametrize(
    "path, expect, first",
    [
        ("/hooks/dockerhub/wrong", "100-continue", b"HTTP/1.1 403 Forbidden"),
        (HUB, "100-continue", b"HTTP/1.1 100 Continue"),
        (HUB, "100-Continue", b"HTTP/1.1 100 Continue"),
    ],
)
async def test_only_who_is_believed_is_told_to_continue(client: Client, path: str, expect: str, first: bytes):
    """A sender that asks before it sends its body is asked for it once it is believed."""
    reader, writer = await send(client, head(path, f"Content-Length: {len(PUSH)}", f"Expect: {expect}"))
    assert (await reader.readline()).strip() == first
    if b"100" in first:
        await reader.readline()
        writer.write(PUSH)
        assert (await reader.readline()).strip() == b"HTTP/1.1 202 Accepted"
    writer.close()


async def test_a_body_that_does_not_arrive_is_408(aiohttp_client: Any, world: World):
    """A sender that stops in the middle of its body is not waited for, and nothing is kept."""
    client = await serve(replace(world.receiver(), body_seconds=0.05), aiohttp_client)
    reader, writer = await send(client, head(DISTRIBUTION, "Content-Length: 100"), b"{")
    assert (await reader.readline()).split()[1] == b"408"
    writer.close()
    assert world.fact()[1]["reason"] == "the body did not arrive within 0.05 seconds"
    assert not await world.kept()


async def test_a_body_without_an_end_is_read_no_further_than_its_bound(aiohttp_client: Any, world: World):
    """One that does not say how long it is has the answer as soon as it is too long, though it goes on."""
    client = await serve(replace(world.receiver(), max_body_bytes=1000), aiohttp_client)
    reader, writer = await send(client, head(HUB, "Transfer-Encoding: chunked"), b"3e9\r\n" + b"x" * 1001 + b"\r\n")
    async with asyncio.timeout(10):  # long before we would give up waiting for the rest
        assert (await reader.readline()).split()[1] == b"413"
    writer.close()
    assert not await world.kept()


async def test_a_sender_that_goes_away_is_told_of_in_one_line(
    client: Client, world: World, caplog: pytest.LogCaptureFixture
):
    """A connection that breaks in the middle of a body is one fact, and no error of ours."""
    _, writer = await send(client, head(HUB, "Content-Length: 100"), b"{")
    writer.transport.abort()
    await asyncio.wait_for(world.facts.heard.wait(), 1)
    assert world.fact()[1]["reason"] == "the body did not arrive: ConnectionResetError"
    assert not await world.kept()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_no_secret_is_told(client: Client, world: World, caplog: pytest.LogCaptureFixture):
    """No token and no header stands in an answer, a fact or a log, whatever is wrong with the request."""
    caplog.set_level(logging.DEBUG)
    paths = [
        "/hooks/dockerhub/{}",
        "/hooks/hub/{}",
        "/hooks/{}",
        "/hooks/{0}/{0}",
        "/hooks/dockerhub/{}/x",
        "/?token={}",
    ]
    said = []
    for secret, path, body in product(SECRETS, paths, (PUSH, b"[]", LARGE)):
        headers = {"Authorization": secret, **JSON}
        async with client.post(path.format(secret), data=body, headers=headers) as response:
            said.append(f"{response.status} {response.headers} {await response.text()}")
    assert {text[:3] for text in said} >= {"202", "403", "404", "413", "422"}
    ours = [record for record in caplog.records if record.name != "asyncio"]
    told = "\n".join([*said, json.dumps(world.facts.told), *(record.getMessage() for record in ours)])
    assert not [secret for secret in SECRETS if secret in told]


async def test_routes_may_stand_below_a_prefix(world: World, aiohttp_client: Any):
    """Behind a proxy that passes its prefix on, the addresses begin with it."""
    app = web.Application()
    app.add_routes([*world.receiver().routes(), *world.receiver().routes("/sidecar")])
    client = await aiohttp_client(app)
    for path in (HUB, f"/sidecar{HUB}", f"/sidecar/?token={TOKEN}"):
        async with client.post(path, data=PUSH, headers=JSON) as response:
            assert response.status == 202


def test_a_source_with_a_credential_of_its_own_has_no_other():
    """The common token opens only what has no credential of its own."""
    ready = senders(SOURCES | MORE_SOURCES, tokens=[TOKEN, NEW])
    assert ready["generic"].credentials.tokens == (TOKEN.encode(), NEW.encode())
    assert ready["hub"].credentials.tokens == (OLD.encode(), NEW.encode())
    assert ready["builds"].credentials.tokens == ()
    assert ready["builds"].credentials.authorizations == (HEADER.encode(),)


@pytest.mark.parametrize(
    "source, message",
    [
        (NamedSource(kind="dockerhubb"), "'dockerhubb' is not known; accepted are dockerhub, distribution, generic"),
        (NamedSource(kind="generic"), "one is empty"),
        (NamedSource(kind="generic", tokens=("",)), "one is empty"),
        (NamedSource(kind="generic", authorization=""), "one is empty"),
    ],
)
def test_a_source_without_kind_or_credential_is_an_error(source: NamedSource, message: str):
    """What nobody could use, or everybody, is refused at the start."""
    with pytest.raises(Misconfigured, match=message):
        senders({"x": source}, tokens=[])
