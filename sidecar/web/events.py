"""What happens, told as it happens to everybody who listens (server-sent events); it never holds up who tells it."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from aiohttp import hdrs, web
from pydantic_core import to_json

from sidecar.web.problem import problem

# What a client that lost its connection can catch up with.
KEPT = 1000
# How far a listener may fall behind before it is dropped; it comes back with Last-Event-ID.
LONGEST_BACKLOG = 500
MOST_LISTENERS = 64
HEARTBEAT_SECONDS = 15.0
# Progress is of no use later, and there is so much of it that it would push out what is.
FLEETING = frozenset({"pull.progressed"})
_RETRY_MILLISECONDS = 2000


class _Message(NamedTuple):
    """What happened; it is written only for somebody who listens, for nobody does most of the time."""

    event: str
    facts: Mapping[str, object]
    number: int = 0

    def frame(self, run: str) -> bytes:
        """Write it as server-sent events are written; what is not kept has no id."""
        place = f"id: {run}-{self.number}\n" if self.number else ""
        data = _as_json({"event": self.event, **self.facts})
        return b"%bevent: %b\ndata: %b\n\n" % (place.encode(), self.event.encode(), data)


def _as_json(facts: Mapping[str, object]) -> bytes:
    with suppress(ValueError):  # half of a pair of surrogates
        return to_json(facts)  # in a fifth of the time
    return json.dumps(facts, ensure_ascii=False, default=str).encode(errors="backslashreplace")


class Listener:
    """One who listens: what has not been sent to it yet."""

    def __init__(self, missed: Collection[bytes], on_drop: Callable[[], None]) -> None:
        self._frames = deque(missed)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._news = asyncio.Event()
        self._on_drop = on_drop
        self.is_over = False

    def offer(self, frame: bytes) -> None:
        """Add what happened; one who is too far behind is dropped."""
        if self.is_over:
            return
        if len(self._frames) >= LONGEST_BACKLOG:
            self._frames.clear()
            self.end()
            self._on_drop()
            return
        self._frames.append(frame)
        self._wake()

    def end(self) -> None:
        """Tell it that nothing more comes."""
        self.is_over = True
        self._wake()

    def _wake(self) -> None:
        if threading.get_ident() == self._thread:
            self._news.set()
        else:
            self._loop.call_soon_threadsafe(self._news.set)

    async def next(self, patience_seconds: float) -> bytes:
        """Give what has come, or a sign of life when nothing came; nothing at all when it is over."""
        if not self._frames and not self.is_over:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_seconds):
                    await self._news.wait()
        self._news.clear()
        frames = b"".join(self._frames)
        self._frames.clear()
        return frames or (b"" if self.is_over else b":\n\n")


class EventStream:
    """Tells every listener what is published, and keeps the newest for those who come back."""

    def __init__(self, *, kept: int = KEPT) -> None:
        # A number of another process means nothing in this one.
        self._run = secrets.token_hex(4)
        self._number = 0
        self._kept: deque[_Message] = deque(maxlen=kept)
        self._listeners: set[Listener] = set()

    @property
    def listeners(self) -> int:
        """Say how many listen."""
        return len(self._listeners)

    def publish(self, event: str, /, **facts: object) -> None:
        """Tell whoever listens; never blocks and never fails."""
        with suppress(Exception):
            if event in FLEETING:
                message = _Message(event, facts)
            else:
                self._number += 1
                message = _Message(event, facts, self._number)
                self._kept.append(message)
            if self._listeners:
                frame = message.frame(self._run)
                for listener in tuple(self._listeners):
                    listener.offer(frame)

    @contextmanager
    def listen(self, last_id: str = "", *, on_drop: Callable[[], None] = lambda: None) -> Iterator[Listener]:
        """Listen from now on, or from after an event of which the client remembers the id."""
        listener = Listener(self._since(last_id), on_drop)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def _since(self, last_id: str) -> list[bytes]:
        run, _, number = last_id.rpartition("-")
        if not run or not number.isdecimal():
            return []
        # After a restart of ours everything that is kept is new to whoever comes back.
        last = int(number) if run == self._run else 0
        frames = []
        for message in self._kept:
            if message.number > last:
                with suppress(Exception):  # what cannot be written was told nobody else either
                    frames.append(message.frame(self._run))
        return frames

    def place(self) -> bytes:
        """Give a frame that tells a client where it is before anything happens, so that it can come back to there."""
        return f"id: {self._run}-{self._number}\n\n".encode()

    def close(self) -> None:
        """End every listener: we are about to stop."""
        for listener in tuple(self._listeners):
            listener.end()


async def send_events(
    request: web.Request, stream: EventStream, *, heartbeat_seconds: float = HEARTBEAT_SECONDS
) -> web.StreamResponse:
    """Send events to one client until it, or we, go."""
    if stream.listeners >= MOST_LISTENERS:
        return problem(503, f"{MOST_LISTENERS} clients listen already", headers={hdrs.RETRY_AFTER: "10"})
    response = web.StreamResponse(
        headers={
            hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
            hdrs.CACHE_CONTROL: "no-store",
            # A proxy that collects an answer before it passes it on would hold back every event.
            "X-Accel-Buffering": "no",
        }
    )
    transport = request.transport
    on_drop = transport.abort if transport is not None else (lambda: None)
    # Listening begins before the client sees our headers: what it causes after them is not missed.
    last_id = request.headers.get("Last-Event-ID", "")
    start = f"retry: {_RETRY_MILLISECONDS}\n".encode() + stream.place() if not last_id else b""
    with stream.listen(last_id, on_drop=on_drop) as listener, suppress(ConnectionError):
        await response.prepare(request)
        await response.write(start)
        while frames := await listener.next(heartbeat_seconds):
            await response.write(frames)
    return response
