"""Stands between a daemon and its engine, knows every call that changes something, and lets a chosen one go wrong.

It passes HTTP/1.1 on as it comes: connections that are used again, bodies with a length or in chunks, streams that
never end. When the daemon is gone, the engine sees its connection end too, as it would without a proxy.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.testbed.api import Api, ApiError

_READ_BYTES = 1 << 16
_HARMLESS_METHODS = frozenset({"GET", "HEAD"})
_HARMLESS_VERBS = frozenset({"attach", "auth", "resize", "wait"})
_WITHOUT_BODY = frozenset({"204", "304"})
_REFUSAL = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length: 34\r\n\r\n"
    b'{"message":"refused by the proxy"}'
)


class Fault(StrEnum):
    """What goes wrong with a call; all but the last two end the connection without an answer."""

    CALL_LOST = "before"
    """The engine never hears of it."""
    CALL_CUT = "during"
    """The engine hears of it, and at once that its caller is gone."""
    ANSWER_LOST = "after"
    """The engine has done it and said so."""
    REFUSED = "refused"
    """The engine never hears of it, and the caller gets an error 500."""
    DELAYED = "delayed"
    """The engine has done it, and the caller hears of it only once it is released."""


@dataclass(frozen=True, slots=True)
class _Trap:
    at: int
    fault: Fault
    act: Callable[[], None]


class EngineProxy:
    """One socket in front of an engine's.

    Attributes:
        calls: the changing calls that came, by name (``POST rename web.sidecar-old``), the one that went wrong too.
        sprung: set once the chosen call has gone wrong; of one that is held, once it has come so far.
        on_created: told the id of each container that the engine made, before the caller is.
    """

    def __init__(self, engine: Path, path: Path) -> None:
        self.path = path
        self.calls: list[str] = []
        self.sprung = threading.Event()
        self.on_created: Callable[[str], None] = lambda _: None
        self._engine = engine
        self._api = Api(engine)
        self._trap: _Trap | None = None
        self._is_held = False
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, name="engine proxy", daemon=True).start()

    @property
    def host(self) -> str:
        """The address that a client is given."""
        return f"unix://{self.path}"

    def arm(self, at: int, fault: Fault, act: Callable[[], None] = lambda: None) -> None:
        """Let the n-th changing call from the beginning go wrong, and do something at that moment."""
        self.sprung.clear()
        self._trap = _Trap(at, fault, act)

    def hold(self, at: int, fault: Fault) -> None:
        """Let the n-th changing call go wrong, but only when it is released; till then no other changes anything."""
        self._released.clear()
        self.arm(at, fault, self._wait)
        self._is_held = True

    def release(self) -> None:
        """Let what is held go on; it goes wrong at this moment."""
        self._is_held = False
        self._released.set()

    def disarm(self) -> None:
        """Let everything pass from now on."""
        self._trap = None
        self.release()

    def close(self) -> None:
        """Cut every connection."""
        with self._lock:
            for one in (self._listener, *self._open):
                with suppress(OSError):  # it has just ended by itself
                    one.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), name="engine proxy", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with ExitStack() as held, suppress(OSError):  # one of the two sides is gone
            held.enter_context(client)
            engine = held.enter_context(socket.socket(socket.AF_UNIX))
            with self._lock:
                self._open |= {client, engine}
            held.callback(self._forget, client, engine)
            engine.connect(str(self._engine))
            # A client tells by its connection that the engine has ended, before it asks anything of that again.
            asked, answered = _Reader(client, other=engine), _Reader(engine, other=client)
            while (call := _Call.read(asked)) is not None:
                if not self._pass_on(call, client, engine, answered):
                    return

    def _forget(self, *sockets: socket.socket) -> None:
        with self._lock:
            self._open -= set(sockets)

    def _pass_on(self, call: _Call, client: socket.socket, engine: socket.socket, answered: _Reader) -> bool:
        """Carry a call and its answer; say whether the connection goes on."""
        if call.is_changing and self._is_held and self.sprung.is_set():
            self._released.wait()  # its caller grew tired of the one that is held
        trap = self._note(call) if call.is_changing else None
        if trap is not None and trap.fault is Fault.REFUSED:
            client.sendall(_REFUSAL)
            return self._spring(trap)
        if trap is not None and trap.fault is Fault.CALL_LOST:
            return self._spring(trap)
        engine.sendall(call.content)
        if trap is not None and trap.fault is Fault.CALL_CUT:
            return self._spring(trap)
        answer = _answer(answered, call)
        if trap is None and not call.is_creation:
            for piece in answer:
                client.sendall(piece)
            return not answered.has_ended
        whole = b"".join(answer)
        if call.is_creation and b'"Id":"' in whole:
            self.on_created(whole.partition(b'"Id":"')[2].partition(b'"')[0].decode())
        if trap is not None and not self._spring(trap):
            return False
        client.sendall(whole)
        return not answered.has_ended

    def _note(self, call: _Call) -> _Trap | None:
        """Keep the name of a changing call, and give the trap where it is the one to go wrong."""
        name = call.name(self._name_of)
        with self._lock:
            self.calls.append(name)
            is_chosen = self._trap is not None and self._trap.at == len(self.calls)
            return self._trap if is_chosen else None

    def _wait(self) -> None:
        self.sprung.set()
        self._released.wait()

    def _spring(self, trap: _Trap) -> bool:
        trap.act()
        self.sprung.set()
        return trap.fault in (Fault.REFUSED, Fault.DELAYED)

    def _name_of(self, ident: str) -> str:
        try:
            name: str = self._api.get(f"/containers/{ident}/json")["Name"]
        except ApiError:
            return ident[:12]
        return name.removeprefix("/")


class _Reader:
    """Reads one side of a connection; gives up when the other side, who waits for what is read, is gone.

    Attributes:
        has_ended: the other side has closed it, which may be how it says that its answer is complete.
    """

    def __init__(self, source: socket.socket, *, other: socket.socket | None = None) -> None:
        self._source = source
        self._buffer = b""
        self.has_ended = False
        self._poll = select.poll()
        self._poll.register(source, select.POLLIN)
        self._other = other.fileno() if other is not None else None
        if self._other is not None:
            self._poll.register(self._other, select.POLLRDHUP)

    def until(self, end: bytes) -> bytes:
        """Read up to and with these bytes; nothing where the connection ended."""
        while end not in self._buffer:
            if not self._fill():
                return b""
        found, _, self._buffer = self._buffer.partition(end)
        return found + end

    def pieces(self, size_bytes: int | None) -> Iterator[bytes]:
        """Read so many bytes as they come, or to the end of the connection."""
        while size_bytes is None or size_bytes > 0:
            if not self._buffer and not self._fill():
                if size_bytes is None:
                    return
                raise ConnectionResetError
            piece = self._buffer[:size_bytes]
            self._buffer = self._buffer[len(piece) :]
            size_bytes = None if size_bytes is None else size_bytes - len(piece)
            yield piece

    def _fill(self) -> bool:
        if self._other in {descriptor for descriptor, _ in self._poll.poll()}:
            raise ConnectionResetError
        more = self._source.recv(_READ_BYTES)
        self._buffer += more
        self.has_ended = not more
        return bool(more)


@dataclass(frozen=True, slots=True)
class _Head:
    """The first line of a message and its header, by lower-case names."""

    content: bytes
    first: Sequence[str]
    fields: Mapping[str, str]

    @classmethod
    def read(cls, reader: _Reader) -> _Head | None:
        """Read one; None where the connection ended instead."""
        if not (content := reader.until(b"\r\n\r\n")):
            return None
        first, *lines = content.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        return cls(content, first.split(" "), {name.lower(): value.strip() for name, _, value in pairs})

    def body(self, reader: _Reader, *, size_bytes: int | None) -> Iterator[bytes]:
        """Read what follows, as it is sent; the size is that of a body that does not say it."""
        if "chunked" in self.fields.get("transfer-encoding", ""):
            return _chunks(reader)
        given = self.fields.get("content-length")
        return reader.pieces(int(given) if given is not None else size_bytes)


def _chunks(reader: _Reader) -> Iterator[bytes]:
    while True:
        if not (head := reader.until(b"\r\n")):
            raise ConnectionResetError
        yield head
        size_bytes = int(head.partition(b";")[0], 16)
        if size_bytes == 0:
            yield reader.until(b"\r\n")  # no trailer: neither side sends one
            return
        yield from reader.pieces(size_bytes + len(b"\r\n"))


@dataclass(frozen=True, slots=True)
class _Call:
    """A request, read to its end."""

    content: bytes
    method: str
    parts: Sequence[str]
    query: Mapping[str, list[str]]

    @classmethod
    def read(cls, reader: _Reader) -> _Call | None:
        """Read one; None where the connection ended instead."""
        if (head := _Head.read(reader)) is None:
            return None
        content = head.content + b"".join(head.body(reader, size_bytes=0))
        url = urlsplit(head.first[1])
        parts = [unquote(part) for part in url.path.split("/") if part]
        return cls(content, head.first[0], parts[1:] if parts[0].startswith("v1.") else parts, parse_qs(url.query))

    @property
    def is_changing(self) -> bool:
        """Say whether the engine is another one afterwards."""
        return self.method not in _HARMLESS_METHODS and self.parts[-1] not in _HARMLESS_VERBS

    @property
    def is_creation(self) -> bool:
        """Say whether it makes a container."""
        return self.method == "POST" and self.parts == ["containers", "create"]

    def name(self, name_of: Callable[[str], str]) -> str:
        """Say what it does to what; an id is turned into the container's name of that moment."""
        asked = {key: values[0] for key, values in self.query.items()}
        match self.parts:
            case ["containers", "create"]:
                words = ["create", asked.get("name", "")]
            case ["containers", _, "rename"]:
                words = ["rename", asked["name"]]
            case ["containers", ident, *verb]:
                words = [*verb, name_of(ident)]
            case ["exec", _, verb]:
                words = ["exec", verb]
            case ["networks", network, verb]:
                words = [verb, network]
            case ["images", "create"]:
                words = ["pull", asked["fromImage"]]
            case ["images", *_, "tag"]:
                words = ["tag", f"{asked['repo']}:{asked['tag']}"]
            case ["images", *_] if self.method == "DELETE":
                words = ["image"]
            case parts:
                words = ["/".join(parts)]
        return " ".join([self.method, *words])


def _answer(reader: _Reader, call: _Call) -> Iterator[bytes]:
    """Read the answer to a call as it comes."""
    if (head := _Head.read(reader)) is None:
        raise ConnectionResetError
    yield head.content
    if call.method != "HEAD" and head.first[1] not in _WITHOUT_BODY:
        yield from head.body(reader, size_bytes=None)
