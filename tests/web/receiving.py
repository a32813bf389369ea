"""A receiver over a real server, in a world that remembers what it was told, what it kept and what it was handed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from sidecar.ids import new_id
from sidecar.log_events import EVENTS
from sidecar.ports import Delivery
from sidecar.sources.allowed import Allowed
from sidecar.web.receiver import RUNNER_OPTIONS, NamedSource, Receiver, senders
from tests.fakes import FakeClock
from tests.memory_journal import MemoryJournal

TOKEN = "the-common-token-of-this-test"
SOURCES = {kind: NamedSource(kind=kind) for kind in ("dockerhub", "distribution", "generic")}
PAYLOADS = Path(__file__).parents[1] / "sources" / "payloads"
JSON = {"Content-Type": "application/json"}
Client = TestClient[web.Request, web.Application]


@dataclass
class Facts:
    """Whoever hears of facts, and remembers them."""

    told: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, event: str, /, **facts: object) -> None:
        assert facts.keys() <= EVENTS[event].keys
        self.told.append((event, facts))
        self.heard.set()


@dataclass
class World:
    """What the receiver is put into, and the order in which it did things."""

    sources: Mapping[str, NamedSource] = field(default_factory=dict)
    allowed: Allowed = field(default_factory=Allowed)
    clock: FakeClock = field(default_factory=FakeClock)
    facts: Facts = field(default_factory=Facts)
    steps: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    handed_over: list[Delivery] = field(default_factory=list)
    may_keep: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.journal = MemoryJournal(self.clock)
        self.may_keep.set()

    def receiver(self) -> Receiver:
        return Receiver(
            senders=senders(SOURCES | self.sources, tokens=[TOKEN]),
            allowed=self.allowed,
            accept=self.accept,
            on_accepted=self.on_accepted,
            on_wrong_credential=self.wrong.append,
            clock=self.clock,
            new_id=new_id,
            events=self.facts,
            max_body_bytes=10_000,
        )

    async def accept(self, delivery: Delivery) -> None:
        await self.may_keep.wait()
        await self.journal.accept(delivery)
        self.steps.append("kept")

    def on_accepted(self, delivery: Delivery) -> None:
        self.steps.append("handed over")
        self.handed_over.append(delivery)

    async def kept(self) -> list[Delivery]:
        return list((await self.journal.history(limit=10)).deliveries)

    def fact(self) -> tuple[str, dict[str, object]]:
        (fact,) = self.facts.told
        return fact


class Server(TestServer):
    """The test server, with the options of the real one."""

    async def _make_runner(self, **_options: Any) -> web.AppRunner:
        return web.AppRunner(self.app, **RUNNER_OPTIONS)


async def serve(receiver: Receiver, aiohttp_client: Any) -> Client:
    app = web.Application()
    app.add_routes(receiver.routes())
    client: Client = await aiohttp_client(Server(app))
    return client
