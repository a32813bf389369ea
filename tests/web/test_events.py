"""Server-sent events: what listeners get, what they catch up with, and that they hold up nobody."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from sidecar.web import events
from sidecar.web.events import LONGEST_BACKLOG, EventStream, send_events

Client = TestClient[web.Request, web.Application]


@pytest.fixture
def stream() -> EventStream:
    return EventStream(kept=5)


@pytest.fixture
async def client(stream: EventStream) -> AsyncIterator[Client]:
    async def serve(request: web.Request) -> web.StreamResponse:
        return await send_events(request, stream, heartbeat_seconds=0.01)

    app = web.Application()
    app.router.add_get("/", serve)
    async with TestClient(TestServer(app)) as client:
        yield client
        stream.close()


async def next_frame(response: ClientResponse) -> dict[str, str]:
    """Read one event, without signs of life."""
    fields: dict[str, str] = {}
    while True:
        line = (await response.content.readline()).decode().rstrip("\n")
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            return fields
        else:
            fields = {}


async def test_what_is_published_is_told(client: Client, stream: EventStream):
    """An event has its name, its id, and its facts as JSON."""
    async with client.get("/") as response:
        assert response.content_type == "text/event-stream"
        stream.publish("target.kept", target="docker:web", reason="up to date")
        frame = await next_frame(response)
    assert frame["event"] == "target.kept"
    assert frame["id"].endswith("-1")
    assert json.loads(frame["data"]) == {"event": "target.kept", "target": "docker:web", "reason": "up to date"}


async def test_who_comes_back_catches_up(client: Client, stream: EventStream):
    """With Last-Event-ID a client gets what it missed, in order, and then what happens."""
    async with client.get("/") as response:
        stream.publish("target.kept", n=1)
        first = await next_frame(response)
    stream.publish("target.kept", n=2)
    stream.publish("target.kept", n=3)
    async with client.get("/", headers={"Last-Event-ID": first["id"]}) as response:
        stream.publish("target.kept", n=4)
        seen = [json.loads((await next_frame(response))["data"])["n"] for _ in range(3)]
    assert seen == [2, 3, 4]


async def test_after_a_restart_everything_is_new(client: Client, stream: EventStream):
    """An id of an earlier process is older than everything that is kept, and that is bounded."""
    for number in range(9):
        stream.publish("target.kept", n=number)
    async with client.get("/", headers={"Last-Event-ID": "0ldb00t-7"}) as response:
        seen = [json.loads((await next_frame(response))["data"])["n"] for _ in range(5)]
    assert seen == [4, 5, 6, 7, 8]


@pytest.mark.parametrize("last_id", ["", "nonsense", "7", "-", "a-b", "x-\u0663\u00b2"])
async def test_an_id_that_is_none_is_no_id(client: Client, stream: EventStream, last_id: str):
    """Without a readable id a client hears what happens from now on."""
    stream.publish("target.kept", n=1)
    async with client.get("/", headers={"Last-Event-ID": last_id}) as response:
        stream.publish("target.kept", n=2)
        assert json.loads((await next_frame(response))["data"])["n"] == 2


async def test_progress_is_told_and_not_kept(client: Client, stream: EventStream):
    """Progress has no id, so it neither pushes out what is kept nor is caught up with."""
    stream.publish("target.kept", n=1)
    for number in range(9):
        stream.publish("pull.progressed", n=number)
    async with client.get("/", headers={"Last-Event-ID": "x-0"}) as response:
        assert (await next_frame(response))["event"] == "target.kept"
        stream.publish("pull.progressed", n=10)
        frame = await next_frame(response)
    assert "id" not in frame
    assert json.loads(frame["data"])["n"] == 10


async def test_a_quiet_stream_shows_signs_of_life(client: Client):
    """While nothing happens comments are sent, so that neither proxies nor clients give up."""
    async with client.get("/") as response:
        start = [await response.content.readline() for _ in range(4)]
        assert start[0] == b"retry: 2000\n"
        assert start[2:] == [b"\n", b":\n"]


async def test_a_client_knows_where_it_is_before_anything_happens(client: Client, stream: EventStream):
    """A stream that breaks off before its first event can be taken up where it was."""
    stream.publish("target.kept", n=1)
    async with client.get("/") as response:
        await response.content.readline()
        last_id = (await response.content.readline()).decode().removeprefix("id: ").strip()
    stream.publish("target.kept", n=2)
    async with client.get("/", headers={"Last-Event-ID": last_id}) as response:
        assert json.loads((await next_frame(response))["data"])["n"] == 2


async def test_what_was_told_before_the_end_is_sent(client: Client, stream: EventStream):
    """A daemon that stops says so before its streams end."""
    async with client.get("/") as response:
        stream.publish("daemon.stopping")
        stream.close()
        assert b"daemon.stopping" in await response.content.read()


async def test_a_slow_listener_is_dropped():
    """Who does not take what is told is cut off, and whoever tells it is never held up."""
    stream, dropped = EventStream(), []
    with stream.listen(on_drop=lambda: dropped.append(True)) as listener:
        for number in range(LONGEST_BACKLOG + 10):
            stream.publish("target.kept", n=number)
        assert dropped == [True]
        assert await listener.next(1) == b""


async def test_a_client_that_does_not_read_loses_its_connection(client: Client, stream: EventStream):
    """A connection that takes nothing is aborted: its buffers and its task do not stay."""
    async with client.get("/") as response:
        for _ in range(LONGEST_BACKLOG):
            stream.publish("target.kept", text="x" * 20_000)
            await asyncio.sleep(0)
            if response.closed or not stream.listeners:
                break
        for _ in range(LONGEST_BACKLOG + 1):
            stream.publish("target.kept")
        await asyncio.sleep(0.02)
        assert not stream.listeners


async def test_closing_ends_every_listener(client: Client, stream: EventStream):
    """A daemon that stops ends its streams, so that they do not hold it up."""
    async with client.get("/") as response:
        await response.content.readline()
        stream.close()
        await response.content.read()
        assert response.content.at_eof()


async def test_the_number_of_listeners_is_bounded(client: Client, stream: EventStream, monkeypatch: pytest.MonkeyPatch):
    """One more than can be served is told to come later."""
    monkeypatch.setattr(events, "MOST_LISTENERS", 1)
    async with client.get("/"), client.get("/") as response:
        assert response.status == 503
        assert response.headers["Retry-After"]


async def test_other_threads_may_publish(client: Client, stream: EventStream):
    """What a thread publishes reaches listeners at once."""
    async with client.get("/") as response:
        await response.content.readline()
        await asyncio.to_thread(stream.publish, "image.pulled", image="me/app:1")
        assert (await next_frame(response))["event"] == "image.pulled"


async def test_publishing_never_fails():
    """Facts of any kind are told as text, and what cannot be told at all is passed over."""

    class Unspeakable:
        def __str__(self) -> str:
            raise RuntimeError

    stream = EventStream()
    with stream.listen() as listener:
        stream.publish("target.kept", what=Unspeakable())
        stream.publish("target.kept", what=ValueError("x"), text="\udcff")
        assert b"data: " in await listener.next(1)
