"""Calls whose answer comes bit by bit: a pull, the engine's events, what containers and commands write.

It reads them in the call's own thread, and of text it keeps no more than a bound; what an answer means is said by
`pull.py` and `logtail.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import requests

from sidecar.errors import Transient, Unreachable
from sidecar.targets._session import Session, filtered
from sidecar.targets._wire import EngineError, Silent
from sidecar.targets.logtail import tail_of
from sidecar.targets.pull import follow

Json = dict[str, Any]

_PULL_SILENCE_SECONDS = 600
_EVENT_SILENCE_SECONDS = 600
_NO_END_SECONDS = 7 * 86400.0
_LOG_BYTES = 64 * 1024


async def pull(
    session: Session,
    repository: str,
    digest: str,
    *,
    platform: str | None,
    auth_header: str | None,
    progress: Callable[[Json], None],
) -> str | None:
    """Pull a digest, telling how far it is, and give what went wrong, in the engine's words; see ``Engine.pull``."""
    loop = asyncio.get_running_loop()

    def use(events: Iterator[Json]) -> str | None:
        return follow(events, tell=lambda now: loop.call_soon_threadsafe(progress, now), clock=time.monotonic)

    request: Json = {
        "params": {"fromImage": repository, "tag": digest, "platform": platform},
        "headers": {"X-Registry-Auth": auth_header} if auth_header else {},
        "silence_seconds": _PULL_SILENCE_SECONDS,
    }
    try:
        async with session.stream("POST", "/images/create", use=use, **request) as reading:
            return await reading
    except EngineError as error:
        return str(error)
    except Silent as error:
        raise Transient(str(error)) from error


async def events(session: Session) -> AsyncIterator[Json]:
    """Give what happens to containers, as it happens; see ``Engine.events``."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[Json | None] = asyncio.Queue()

    def use(events: Iterator[Json]) -> None:
        for event in events:
            loop.call_soon_threadsafe(heard.put_nowait, event)

    await session.greet()  # after a lost connection it may be another version
    request: Json = {"params": filtered({"type": ["container"]}), "silence_seconds": _EVENT_SILENCE_SECONDS}
    while True:
        async with session.stream("GET", "/events", use=use, **request) as reading:
            reading.add_done_callback(lambda _: heard.put_nowait(None))
            while (event := await heard.get()) is not None:
                yield event
            lost = reading.exception()
        if not isinstance(lost, Silent):
            raise lost or Unreachable(f"listening to the engine at {session.url!r}: it ended the stream")
        # Nothing has happened, or the connection has died without a word. The next begins within the silence.
        request["params"]["since"] = int(await session.greet() - _EVENT_SILENCE_SECONDS / 2)


async def logs(session: Session, path: str, *, tail: int) -> str:
    """Give the last lines of a container's output, and of these the last 64 KiB."""

    def use(response: requests.Response) -> str:
        return tail_of(response.iter_content(_LOG_BYTES), limit_bytes=_LOG_BYTES)

    return await session.fetch("GET", path, params={"stdout": 1, "stderr": 1, "tail": tail}, use=use)


async def output_of(session: Session, path: str, *, timeout_seconds: float | None) -> str:
    """Run a prepared command to its end and give the last of its output; see ``Engine.start_exec``."""
    ends_at = time.monotonic() + (timeout_seconds or _NO_END_SECONDS)

    def pieces(response: requests.Response) -> Iterator[bytes]:
        # As it comes: the answer has neither a length nor chunks, and whatever else reads it waits for its end.
        while piece := response.raw.read1(_LOG_BYTES):
            yield piece
            if time.monotonic() > ends_at:
                raise TimeoutError

    def use(response: requests.Response) -> str:
        return tail_of(pieces(response), limit_bytes=_LOG_BYTES)

    request: Json = {"json": {"Detach": False, "Tty": False}, "read_seconds": timeout_seconds or _NO_END_SECONDS}
    try:
        return await session.fetch("POST", path, use=use, **request)
    except Silent as error:
        raise TimeoutError from error
