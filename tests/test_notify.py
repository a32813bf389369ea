"""Docker Hub's legacy callback: followed only where it is Docker Hub's own, and never a reason to fail."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from sidecar.core.hint import Hint
from sidecar.core.image import ImageRef
from sidecar.notify import TIMEOUT, Confirmation, confirm_chain
from sidecar.ports import Delivery

CALLBACK = "https://registry.hub.docker.com/u/shop/web/hook/21a0b1C2D3e4f5/"


@dataclass
class FakeResponse:
    status: int


@dataclass
class FakeSession:
    """A session that answers with one status, or fails, and remembers what it was asked."""

    status: int = 200
    failure: BaseException | None = None
    posts: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @asynccontextmanager
    async def post(self, url: object, **options: Any) -> AsyncIterator[FakeResponse]:
        self.posts.append((str(url), options))
        if self.failure is not None:
            raise self.failure
        yield FakeResponse(self.status)


def delivery(callback_url: str = CALLBACK, ref: str = "shop/web:1.4") -> Delivery:
    hints = (Hint.of(ImageRef.parse(ref)),)
    return Delivery(id="1", source="hub", received_at=0, fate="accepted", hints=hints, callback_url=callback_url)


async def confirm(session: Any, sent: Delivery, **said: str) -> Confirmation:
    told = {"description": "web runs", "context": "sidecar"} | said
    return await confirm_chain(session, sent, state="success", **told)


async def test_the_callback_is_answered():
    """Docker Hub is told what came of the push, at once and without following it elsewhere."""
    session = FakeSession()
    assert await confirm(session, delivery(), target_url="https://shop.example.com") == Confirmation(is_confirmed=True)
    body = {
        "state": "success",
        "description": "web runs",
        "context": "sidecar",
        "target_url": "https://shop.example.com",
    }
    assert session.posts == [(CALLBACK, {"json": body, "allow_redirects": False, "timeout": TIMEOUT})]
    assert TIMEOUT.total == 5


async def test_what_is_said_is_cut_to_what_is_allowed():
    """Description and context have lengths that Docker Hub takes; an address that there is not is left out."""
    session = FakeSession()
    await confirm(session, delivery(), description="d" * 300, context="c" * 300)
    ((_, options),) = session.posts
    assert options["json"] == {"state": "success", "description": "d" * 255, "context": "c" * 100}


@pytest.mark.parametrize(
    "callback_url",
    [
        "http://registry.hub.docker.com/u/shop/web/hook/21a0/",
        "HTTPS://registry.hub.docker.com/u/shop/web/hook/21a0/",
        "https://registry.hub.docker.com:443/u/shop/web/hook/21a0/",
        "https://me@registry.hub.docker.com/u/shop/web/hook/21a0/",
        "https://registry.hub.docker.com@evil.example/u/shop/web/hook/21a0/",
        "https://registry.hub.docker.com.evil.example/u/shop/web/hook/21a0/",
        "https://registry-hub.docker.com/u/shop/web/hook/21a0/",
        "https://registryxhubxdocker.com/u/shop/web/hook/21a0/",
        "https://169.254.169.254/u/shop/web/hook/21a0/",
        "https://registry.hub.docker.com/u/shop/web/hook/21a0",
        "https://registry.hub.docker.com/u/shop/web/hook/21a0/?x=1",
        "https://registry.hub.docker.com/u/shop/web/hook/21a0/#x",
        "https://registry.hub.docker.com/u/shop/web/hook/../",
        "https://registry.hub.docker.com/u/shop/web/hook//",
        "https://registry.hub.docker.com/u/shop/web/x/hook/21a0/",
        "https://registry.hub.docker.com/v2/shop/web/hook/21a0/",
        "https://registry.hub.docker.com//u/shop/web/hook/21a0/",
        "https://registry.hub.docker.com/u/shop/web/hook/21a0/\n",
        "https://[registry.hub.docker.com/u/shop/web/hook/21a0/",
        "shop/web",
    ],
)
async def test_no_other_address_is_followed(callback_url: str):
    """An address that Docker Hub would not write is not asked, whoever wrote it."""
    session = FakeSession()
    expected = "the callback is not one of https://registry.hub.docker.com"
    assert await confirm(session, delivery(callback_url)) == Confirmation(is_confirmed=False, reason=expected)
    assert not session.posts


@pytest.mark.parametrize(
    "callback_url, ref",
    [
        (CALLBACK, "shop/api:1.4"),
        (CALLBACK, "shop/web2:1.4"),
        ("https://registry.hub.docker.com/u/shop/w%65b/hook/21a0/", "shop/web:1.4"),
        ("https://registry.hub.docker.com/u/shop/../hook/21a0/", "shop/web:1.4"),
    ],
)
async def test_the_callback_of_another_repository_is_not_followed(callback_url: str, ref: str):
    """One repository's push cannot answer for another's."""
    session = FakeSession()
    reason = "the callback belongs to another repository than the one pushed"
    assert await confirm(session, delivery(callback_url, ref)) == Confirmation(is_confirmed=False, reason=reason)
    assert not session.posts


async def test_without_a_callback_nobody_is_asked():
    """A delivery without the legacy field is left alone."""
    session = FakeSession()
    assert (await confirm(session, delivery(""))).reason == "the delivery has no callback"
    assert not session.posts


@pytest.mark.parametrize("status", [302, 400, 404, 500])
async def test_an_answer_that_is_no_success_is_only_said(status: int):
    """Docker Hub's refusal, the usual answer by now, is a reason and no failure; a redirect is none to follow."""
    confirmation = await confirm(FakeSession(status=status), delivery())
    assert confirmation == Confirmation(is_confirmed=False, reason=f"registry.hub.docker.com answered {status}")


@pytest.mark.parametrize(
    "failure", [aiohttp.ClientPayloadError("x"), TimeoutError(), OSError("x"), RuntimeError("Session is closed")]
)
async def test_a_failure_is_only_said(failure: Exception):
    """Whatever goes wrong on the way is a reason that names no address."""
    confirmation = await confirm(FakeSession(failure=failure), delivery())
    assert not confirmation.is_confirmed
    assert confirmation.reason == f"asking registry.hub.docker.com: {type(failure).__name__}"


async def test_who_ends_us_is_obeyed():
    """Being cancelled is no failure of the callback."""
    session = FakeSession(failure=asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await confirm(session, delivery())


class Nowhere(AbstractResolver):
    """A name server that knows no name, and remembers which it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        msg = "no such host"
        raise OSError(msg)

    async def close(self) -> None:
        """Have nothing to close."""


async def test_a_real_session_is_asked_for_the_pinned_host():
    """With aiohttp's own session the one host is looked up, and its absence is only said."""
    resolver = Nowhere()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver)) as session:
        confirmation = await confirm(session, delivery())
    assert resolver.asked == ["registry.hub.docker.com"]
    assert confirmation.reason == "asking registry.hub.docker.com: ClientConnectorDNSError"
