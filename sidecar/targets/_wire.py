"""Carries a call to the engine on a thread and brings back its answer, or says what was in the way.

It knows no call by name. Each call has a thread of its own, a daemon, and their number is bounded: those of an executor
are joined when the interpreter ends, whatever its `shutdown` was told, so that one call to a hanging engine would hold
up a SIGTERM. A client serves one call at a time and is then used again: a `requests.Session` does not promise to be
safe between threads, and the sockets of a client of its own are nobody else's to close.
"""

from __future__ import annotations

import asyncio
import json
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import requests

from sidecar.errors import Transient, Unreachable

Json = dict[str, Any]
T = TypeVar("T")

_MOST_CALLS = 16
_MESSAGE_CHARACTERS = 1000
_FIRST_REFUSING_STATUS = 300
# How a proxy before the engine's socket says that nobody is behind it; the engine's own answers are JSON.
_OF_A_PROXY = {requests.codes.bad_gateway, requests.codes.service_unavailable, requests.codes.gateway_timeout}


class EngineError(Transient):
    """The engine answered, and its answer was no.

    Attributes:
        status: of HTTP.
        is_missing: what was asked for does not exist, rather than the call itself.
    """

    def __init__(self, message: str, *, status: int, is_missing: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.is_missing = is_missing


class Silent(Unreachable):
    """The engine took the call and did not answer in time; it may still do what it was asked."""


class Client(Protocol):
    """What is needed of the SDK's client."""

    base_url: str

    @property
    def request(self) -> Callable[..., requests.Response]:
        """Make an HTTP request."""
        ...

    def close(self) -> None:
        """Close the connections that are not in use."""
        ...


class Wire:
    """All connections to one engine.

    Attributes:
        url: of the engine's socket.
    """

    def __init__(self, url: str, *, new_client: Callable[[], Client], timeout_seconds: float) -> None:
        self.url = url
        self._new_client = new_client
        self._timeout_seconds = timeout_seconds
        self._idle: list[Client] = []
        self._is_closed = False
        self._streams: set[_Stream] = set()
        self._short = _Threads(patience_seconds=timeout_seconds)
        # Kept apart, so that many pulls and stops leave room for a look at the engine.
        self._long = _Threads(patience_seconds=None)

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        use: Callable[[requests.Response], T],
        read_seconds: float | None = None,
        **request: Any,
    ) -> T:
        """Make a call and give what ``use`` makes of the answer, in the call's thread.

        A call that may take longer than others says how long. Given up, it goes on in its thread.

        Raises:
            EngineError, Unreachable.
        """

        def call() -> T:
            with self._opened(method, path, read_seconds or self._timeout_seconds, request) as response:
                return use(response)

        threads = self._short if read_seconds is None else self._long
        return await (await threads.start(call))

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        use: Callable[[Iterator[Json]], T],
        silence_seconds: float,
        **request: Any,
    ) -> AsyncIterator[asyncio.Future[T]]:
        """Make a call whose answer is one JSON object a line, read by ``use`` in a thread as they come.

        Leaving the context ends the call, also in the engine.

        Raises:
            Silent: from the future, where nothing came for so long.
        """
        stream = _Stream()

        def call() -> T:
            with self._opened(method, path, silence_seconds, request) as response:
                return use(stream.events_of(response))

        reading = await self._long.start(call)
        self._streams.add(stream)
        try:
            yield reading
        finally:
            if not reading.cancel() and not reading.cancelled():
                reading.exception()  # it has been seen, also where nobody waits for it
            stream.abort()
            self._streams.discard(stream)

    def close(self) -> None:
        """Cut off the streams and wait for nothing; a client that is in use is closed when its call ends."""
        self._is_closed = True
        for stream in self._streams:
            stream.abort()
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _opened(self, method: str, path: str, read_seconds: float | None, request: Json) -> Iterator[requests.Response]:
        call = f"{method} {path}"
        with self._client() as client, self._failures_of(call):
            send = partial(client.request, timeout=(self._timeout_seconds, read_seconds), stream=True)
            with send(method, client.base_url + path, allow_redirects=False, **request) as response:
                if (
                    response.status_code >= _FIRST_REFUSING_STATUS
                    and response.status_code != requests.codes.not_modified
                ):
                    raise _refusal_of(call, response)
                yield response

    @contextmanager
    def _client(self) -> Iterator[Client]:
        try:
            client = self._idle.pop()
        except IndexError:
            client = self._new_client()
        try:
            yield client
        finally:
            if self._is_closed:
                client.close()
            else:
                self._idle.append(client)

    @contextmanager
    def _failures_of(self, call: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            message = (
                f"reading the answer to {call} of the engine at {self.url!r}: it is cut off or not the JSON expected"
            )
            raise Unreachable(message) from error
        except requests.RequestException as error:
            cause = _system_error(error)
            kind = Silent if isinstance(cause, TimeoutError) else Unreachable
            message = f"calling {call} of the engine at {self.url!r}: {_advice(cause, self.url)}"
            raise kind(message) from error


class _Threads:
    """Runs so many calls at once; one that is given up takes its room until its thread ends."""

    def __init__(self, *, patience_seconds: float | None) -> None:
        self._room = asyncio.Semaphore(_MOST_CALLS)
        self._patience_seconds = patience_seconds

    async def start(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Start a call as soon as there is room."""
        try:
            async with asyncio.timeout(self._patience_seconds):
                await self._room.acquire()
        except TimeoutError as error:
            message = f"calling the engine: {_MOST_CALLS} calls wait for its answer already"
            raise Unreachable(message) from error
        loop = asyncio.get_running_loop()
        outcome: Future[T] = Future()
        outcome.set_running_or_notify_cancel()

        def run() -> None:
            try:
                outcome.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                outcome.set_exception(error)
            with suppress(RuntimeError):  # the loop has ended before the call
                loop.call_soon_threadsafe(self._room.release)

        threading.Thread(target=run, name="engine", daemon=True).start()
        return asyncio.wrap_future(outcome)


class _Stream:
    """An answer that one thread reads and another can cut off."""

    def __init__(self) -> None:
        self._response: requests.Response | None = None
        self._is_aborted = False

    def events_of(self, response: requests.Response) -> Iterator[Json]:
        self._response = response  # before the question: whoever gives up now sees the one or is seen by the other
        for line in () if self._is_aborted else response.iter_lines(chunk_size=None):
            if self._is_aborted:
                break
            if line:
                yield json.loads(line)
        if self._is_aborted:
            message = "reading a stream of the engine: it was given up"
            raise Unreachable(message)

    def abort(self) -> None:
        """Let the reading thread see the end of the stream; it then closes the connection, which ends the call."""
        self._is_aborted = True
        if self._response is not None:
            with suppress(OSError, RuntimeError, ValueError):  # it has just ended by itself
                self._response.raw.shutdown()


def _refusal_of(call: str, response: requests.Response) -> Transient:
    status = response.status_code
    try:
        reason = str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        reason = ""
    text = (reason or response.text).strip()[:_MESSAGE_CHARACTERS]
    message = f"calling {call}: the engine answered {status}: {text}"
    if not reason and status in _OF_A_PROXY:
        return Unreachable(message)
    is_missing = status == requests.codes.not_found and reason not in {"", "page not found"}
    return EngineError(message, status=status, is_missing=is_missing)


def _system_error(error: BaseException | None) -> OSError | None:
    """Find what the operating system said, under the wrappings of two libraries."""
    found = None
    while error is not None:
        if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
            found = error
        error = error.__cause__ or error.__context__
    return found


def _advice(cause: OSError | None, url: str) -> str:
    path = Path(urlsplit(url).path)
    match cause:
        case FileNotFoundError():
            return f'there is no such socket; mount it, in Compose with `volumes: ["{path}:{path}"]`'
        case PermissionError() | ConnectionRefusedError() if _is_folder(url):
            return (
                "there is a folder and no socket: the path did not exist on the host when it was mounted, so that "
                "Docker made a folder of it; start the engine first, and remove the folder"
            )
        case PermissionError():
            return f"permission denied; {_whose(path)}"
        case ConnectionRefusedError():
            return "nobody listens; start the engine, and Sidecar after it if the mounted socket was made anew"
        case TimeoutError():
            return "it did not answer in time"
        case None:
            return "the connection was cut"
        case _:
            return cause.strerror or str(cause)


def _is_folder(url: str) -> bool:
    parts = urlsplit(url)
    with suppress(OSError):
        return parts.scheme == "unix" and Path(parts.path).is_dir()
    return False


def _whose(path: Path) -> str:
    """Say who may use a socket, and the line that makes us one of them."""
    try:
        found = path.stat()
    except OSError:
        return "the folder of the socket must be open to Sidecar's user"
    if found.st_mode & stat.S_IWGRP:
        return f'its group is {found.st_gid}, in Compose say `group_add: ["{found.st_gid}"]`'
    return f'it is for user {found.st_uid} alone, in Compose say `user: "{found.st_uid}"`'
