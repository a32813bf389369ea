"""One request of a sender -> delivery -> hints -> queue, answered at once.

The order is the contract: find the source, authenticate, bound the body, read it, judge it, keep it on disk, hand it
over, answer. What it names is looked up later and elsewhere. Tokens stand in addresses: no address is ever logged.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic_core import to_json

from sidecar.core.hint import Hint, Reading
from sidecar.errors import Malformed, Misconfigured, Transient
from sidecar.ports import Clock, Delivery, Events
from sidecar.sources import SOURCES, Source
from sidecar.sources.allowed import Allowed
from sidecar.sources.auth import Credentials, Verdict
from sidecar.sources.source import JSON
from sidecar.web.problem import problem

# Docker Hub's largest bodies hold a repository's page and a Dockerfile, some 30 KiB.
MAX_BODY_BYTES = 1024**2
# For a body that does not come with its headers; senders give up earlier.
BODY_SECONDS = 30.0
RETRY_AFTER_SECONDS = 5.0
# `POST /` is the address of this source.
ROOT_SOURCE = "dockerhub"
# For web.AppRunner. Addresses hold tokens, so there is no access log. A body that nobody asked for is neither inflated
# (a bomb would cost us a thousand times what it costs its sender) nor listened to for long. A sender that goes away
# does not stop us from keeping what it sent.
RUNNER_OPTIONS: Mapping[str, Any] = {
    "access_log": None,
    "auto_decompress": False,
    "lingering_time": 2.0,
    "handler_cancellation": False,
}
_ACCEPTED, _UNAUTHORIZED = 202, 401
# Of the errors of an authenticated request, those that would come again however often it is repeated.
_WOULD_BLOCK = frozenset({413, 415})
_EVENTS = {"accepted": "delivery.accepted", "ignored": "delivery.ignored", "refused": "delivery.rejected"}
_IDENTITY = "identity"
_JSON_HEADERS = {hdrs.CONTENT_TYPE: JSON}


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSource:
    """Who may send, as configured.

    Attributes:
        kind: a key of SOURCES.
        tokens: what may stand in its addresses.
        authorization: a whole Authorization header, or a bearer token. Without both, the common tokens count.
        options: what reading its bodies needs (``registry``).
    """

    kind: str
    tokens: tuple[str, ...] = ()
    authorization: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """A source that is ready to be asked."""

    name: str
    source: Source
    credentials: Credentials
    options: Mapping[str, str]


def senders(named: Mapping[str, NamedSource], *, tokens: Iterable[str]) -> Mapping[str, Sender]:
    """Make the senders that were configured; the tokens are for those that have no credential of their own.

    Raises:
        Misconfigured: a kind is unknown, or a source has no credential, or an empty one.
    """
    return {name: _sender(name, source, tuple(tokens)) for name, source in named.items()}


def _sender(name: str, named: NamedSource, common_tokens: tuple[str, ...]) -> Sender:
    if (source := SOURCES.get(named.kind)) is None:
        msg = f"reading the source {name!r}: the kind {named.kind!r} is not known; accepted are {', '.join(SOURCES)}"
        raise Misconfigured(msg)
    authorizations = () if named.authorization is None else (named.authorization,)
    own_tokens = named.tokens or (() if authorizations else common_tokens)
    credentials = Credentials.of(tokens=own_tokens, authorizations=authorizations)
    return Sender(name=name, source=source, credentials=credentials, options=named.options)


class _Rejected(Exception):
    """A request is not taken: with which status, and what its sender may know of the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class _Judgement(NamedTuple):
    """What becomes of an authenticated request: its fate in the journal, and the status of the answer."""

    fate: str
    reason: str
    reading: Reading = Reading()
    hints: tuple[Hint, ...] = ()
    status: int = _ACCEPTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Takes deliveries.

    Attributes:
        accept: keeps a delivery on disk; raises Transient.
        on_accepted: hands a kept delivery over to the queue; neither waits nor fails.
        on_wrong_credential: is told of the source to which somebody sent one.
        new_id: makes identifiers.
    """

    senders: Mapping[str, Sender]
    allowed: Allowed
    accept: Callable[[Delivery], Awaitable[None]]
    on_accepted: Callable[[Delivery], None]
    on_wrong_credential: Callable[[str], None]
    clock: Clock
    new_id: Callable[[], str]
    events: Events
    max_body_bytes: int = MAX_BODY_BYTES
    body_seconds: float = BODY_SECONDS

    def routes(self, prefix: str = "") -> list[web.RouteDef]:
        """Give the routes. They want RUNNER_OPTIONS, and no middleware."""
        paths = {
            "/hooks/{source}/{token}": self.receive,
            "/hooks/{source}": self.receive,
            "/": self.receive_at_root,
        }
        # We say "continue" ourselves, once we know who asks.
        return [web.post(prefix + path, handler, expect_handler=_say_nothing) for path, handler in paths.items()]

    async def receive(self, request: web.Request) -> web.Response:
        """Answer a sender that has an address of its own."""
        address = request.match_info
        return await self._receive(request, address["source"], address.get("token"))

    async def receive_at_root(self, request: web.Request) -> web.Response:
        """Answer Docker Hub at the address ``/?token=...``."""
        return await self._receive(request, ROOT_SOURCE, request.query.get("token"))

    async def _receive(self, request: web.Request, name: str, token: str | None) -> web.Response:
        delivery_id, remote = self.new_id(), request.remote or ""
        try:
            sender = self._authenticate(name, token, request.headers.get(hdrs.AUTHORIZATION))
        except _Rejected as rejected:
            # A name that is not known may be a token in the wrong place: it is told to nobody.
            return self._reject(rejected, delivery_id, remote=remote, source=name if name in self.senders else "")
        try:
            body = await self._read(request, sender.source)
        except _Rejected as rejected:
            if not (sender.source.retries_for_ever and rejected.status in _WOULD_BLOCK):
                return self._reject(rejected, delivery_id, remote=remote, source=name)
            body, judgement = b"", _Judgement("ignored", rejected.reason)
        else:
            judgement = self._judge(sender, request.headers, body)
        reading = judgement.reading
        delivery = Delivery(
            id=delivery_id,
            source=name,
            received_at=self.clock.now(),
            fate=judgement.fate,
            reason=judgement.reason,
            remote=remote,
            pusher=reading.pusher or "",
            hints=judgement.hints,
            body=body,
            callback_url=reading.callback_url or "",
        )
        return await self._keep(delivery, judgement.status)

    def _authenticate(self, name: str, token: str | None, authorization: str | None) -> Sender:
        if (sender := self.senders.get(name)) is None:
            raise _Rejected(404, "there is no such source; `sidecar url` prints the addresses that exist")
        verdict = sender.credentials.verdict(token=token, authorization=authorization)
        if verdict is Verdict.MISSING:
            raise _Rejected(401, "a credential is missing: the token in the address, or an Authorization header")
        if verdict is not Verdict.OK:
            self.on_wrong_credential(name)
            raise _Rejected(403, "the credential is wrong")
        return sender

    async def _read(self, request: web.Request, source: Source) -> bytes:
        """Give the body of somebody who is believed, if it may be read at all."""
        too_big = _Rejected(413, f"the body is larger than {self.max_body_bytes} bytes")
        if (request.content_length or 0) > self.max_body_bytes:
            raise too_big
        if request.headers.get(hdrs.CONTENT_ENCODING, _IDENTITY).lower() != _IDENTITY:
            raise _Rejected(415, "the body is compressed; expected it as it is")
        if not source.reads(request.headers.get(hdrs.CONTENT_TYPE, "")):
            raise _Rejected(415, f"the content type is not one of {source.kind}'s; expected {JSON}")
        if request.content.is_eof():  # it came along with the headers, as small ones do
            body = request.content.read_nowait()
        else:
            body = await self._wait_for_body(request)
        if len(body) > self.max_body_bytes:
            raise too_big
        return body

    async def _wait_for_body(self, request: web.Request) -> bytes:
        """Read until the end, or until there is more than we take."""
        body = bytearray()
        try:
            async with asyncio.timeout(self.body_seconds):
                if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.version >= HttpVersion11:
                    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                while len(body) <= self.max_body_bytes and (chunk := await request.content.readany()):
                    body += chunk
        except TimeoutError:
            raise _Rejected(408, f"the body did not arrive within {self.body_seconds:g} seconds") from None
        except (ConnectionError, HttpProcessingError) as error:
            raise _Rejected(400, f"the body did not arrive: {type(error).__name__}") from None
        return bytes(body)

    def _judge(self, sender: Sender, headers: Mapping[str, str], body: bytes) -> _Judgement:
        """Say what becomes of a body."""
        for_ever = sender.source.retries_for_ever
        try:
            reading = sender.source.parse(headers, body, sender.options)
        except Malformed as error:
            return _Judgement("ignored", str(error)) if for_ever else _Judgement("refused", str(error), status=422)
        if reading.ignored is not None:
            return _Judgement("ignored", reading.ignored, reading)
        admission = self.allowed.admit(reading)
        if admission.hints:
            return _Judgement("accepted", admission.refused or "", reading, admission.hints)
        status = _ACCEPTED if for_ever else 400
        return _Judgement("refused", admission.refused or "", reading, reading.hints, status=status)

    async def _keep(self, delivery: Delivery, status: int) -> web.Response:
        """Put a delivery on disk, and only then answer for it."""
        images = [str(hint) for hint in delivery.hints]
        facts: dict[str, Any] = {
            "delivery_id": delivery.id,
            "source": delivery.source,
            "images": images,
            "remote": delivery.remote,
            "pusher": delivery.pusher,
            "reason": delivery.reason,
        }
        try:
            await self.accept(delivery)
        except Transient as error:
            self.events.publish("delivery.rejected", **facts, status=503, error=str(error))
            seconds = error.retry_after_seconds or RETRY_AFTER_SECONDS
            return problem(
                503,
                "the delivery cannot be kept now; send it again",
                headers={hdrs.RETRY_AFTER: str(math.ceil(seconds))},
                delivery=delivery.id,
            )
        self.events.publish(_EVENTS[delivery.fate], **facts, status=status)
        if delivery.fate == "accepted":
            self.on_accepted(delivery)
            return _answer({"delivery": delivery.id, "hints": images})
        if status == _ACCEPTED:
            return _answer({"delivery": delivery.id, "ignored": delivery.reason})
        return problem(status, delivery.reason, delivery=delivery.id)

    def _reject(self, rejected: _Rejected, delivery_id: str, *, remote: str, source: str) -> web.Response:
        """Answer a request of which nothing is kept."""
        self.events.publish(
            "delivery.rejected",
            delivery_id=delivery_id,
            source=source,
            remote=remote,
            reason=rejected.reason,
            status=rejected.status,
        )
        headers: dict[str, str] = {hdrs.WWW_AUTHENTICATE: "Bearer"} if rejected.status == _UNAUTHORIZED else {}
        return problem(rejected.status, rejected.reason, headers=headers, delivery=delivery_id)


async def _say_nothing(_request: web.Request) -> None:
    """Leave a sender that expects a "continue" waiting for it."""


def _answer(body: Mapping[str, object]) -> web.Response:
    return web.Response(status=_ACCEPTED, body=to_json(body), headers=_JSON_HEADERS)
