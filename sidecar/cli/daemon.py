"""The daemon, as a command reaches it: over the control socket in the state folder, or by its address with the token.

Only the standard library, and no asyncio: a command asks one thing and prints it.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode, urlsplit

from sidecar.errors import Misconfigured, Refused, SidecarError

API = "/api/v1"
SOCKET = "control.sock"
# A plan asks every registry.
_ANSWER_SECONDS = 120.0
# The daemon shows a sign of life every 15 seconds.
_SILENCE_SECONDS = 50.0
_LONGEST_LINE = 1_000_000
_NO_HEADERS: Mapping[str, str] = {}
_UNAUTHORIZED = frozenset({401, 403})
_MALFORMED = frozenset({400, 413, 422})


class DaemonUnreachable(SidecarError):
    """The daemon, or the engine behind it, does not answer: exit status 3."""


class Event(NamedTuple):
    """What happened; the id, which progress has none of, is what to come back with."""

    id: str
    name: str
    facts: dict[str, Any]


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket that is a file."""

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Daemon:
    """One daemon; every question is a connection of its own."""

    def __init__(self, *, path: Path | None = None, server: str = "", token: str = "") -> None:
        self._path = path
        self._server = urlsplit(server)
        self._token = token

    @classmethod
    def in_folder(cls, state_dir: Path) -> Self:
        """Reach the one that keeps its state in this folder."""
        return cls(path=state_dir / SOCKET)

    @classmethod
    def at(cls, server: str, token: str) -> Self:
        """Reach the one that serves at this address.

        Raises:
            Misconfigured: that is no address.
        """
        try:
            parts = urlsplit(server)
            is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_address = False
        if not is_address:
            msg = f"reaching {server!r}: it is no address; something like https://sidecar.example.com is accepted"
            raise Misconfigured(msg)
        return cls(server=server, token=token)

    def get(self, path: str, **query: str | int | None) -> Any:  # noqa: ANN401 - JSON
        """Ask for something."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._ask("GET", f"{path}?{urlencode(given)}" if given else path)

    def post(self, path: str, body: Mapping[str, object]) -> Any:  # noqa: ANN401 - JSON
        """Ask for something to be done."""
        return self._ask("POST", path, json.dumps(body))

    def _ask(self, method: str, path: str, body: str | None = None) -> Any:  # noqa: ANN401 - JSON
        with self._answer(method, path, body, timeout_seconds=_ANSWER_SECONDS) as response, self._failures():
            return _read_json(response.read())

    @contextmanager
    def events(self, last_id: str = "") -> Iterator[Iterator[Event]]:
        """Listen; once this is entered, nothing is missed."""
        headers = {"Last-Event-ID": last_id} if last_id else {}
        with self._answer("GET", "/events", None, timeout_seconds=_SILENCE_SECONDS, headers=headers) as response:
            yield self._read_events(response)

    def _read_events(self, response: http.client.HTTPResponse) -> Iterator[Event]:
        """Take a stream of server-sent events apart; it ends when the daemon ends it."""
        fields: dict[str, str] = {}
        while line := self._read_line(response):
            name, _, value = line.rstrip("\r\n").partition(":")
            if name:
                fields[name] = value.removeprefix(" ")
            elif fields:
                # One without data says where the stream is before anything happens.
                yield Event(
                    fields.get("id", ""), fields.get("event", ""), _read_json(fields.get("data", "{}").encode())
                )
                fields = {}

    def _read_line(self, response: http.client.HTTPResponse) -> str:
        with self._failures():
            return response.readline(_LONGEST_LINE).decode(errors="replace")

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        body: str | None,
        *,
        timeout_seconds: float,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Iterator[http.client.HTTPResponse]:
        """Hold the answer to one request.

        Raises:
            DaemonUnreachable, Misconfigured, Refused: it did not come, or is no success.
        """
        connection = self._connection(timeout_seconds)
        sent = {"Content-Type": "application/json", **headers}
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        with closing(connection):
            with self._failures():
                connection.request(method, self._server.path.rstrip("/") + API + path, body, sent)
                response = connection.getresponse()
                self._raise_for(response)
            yield response

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            raise DaemonUnreachable(self._unreached(error)) from error

    def _connection(self, timeout_seconds: float) -> http.client.HTTPConnection:
        if self._path is not None:
            return _UnixConnection(self._path, timeout_seconds)
        host, port = self._server.hostname or "", self._server.port
        if self._server.scheme == "https":
            return http.client.HTTPSConnection(
                host, port, timeout=timeout_seconds, context=ssl.create_default_context()
            )
        return http.client.HTTPConnection(host, port, timeout=timeout_seconds)

    def _raise_for(self, response: http.client.HTTPResponse) -> None:
        status = response.status
        if status < http.client.BAD_REQUEST:
            return
        body = response.read(_LONGEST_LINE)
        try:
            detail = str(json.loads(body)["detail"])
        except (ValueError, KeyError, TypeError):
            detail = body.decode(errors="replace")[:200].strip() or response.reason
        if status in _UNAUTHORIZED:
            msg = f"asking {self._name}: {detail}; set SIDECAR_ADMIN_TOKEN to what `sidecar token --admin` says there"
            raise Misconfigured(msg)
        if status in _MALFORMED:
            raise Misconfigured(detail)
        if status == http.client.SERVICE_UNAVAILABLE:
            raise DaemonUnreachable(detail)
        if status == http.client.NOT_FOUND and response.headers.get_content_type() != "application/problem+json":
            msg = f"asking {self._name}: there is no Sidecar API ({status})"
            raise DaemonUnreachable(msg)
        raise Refused(detail)

    @property
    def _name(self) -> str:
        return str(self._path) if self._path is not None else self._server.geturl()

    def _unreached(self, error: Exception) -> str:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        if self._path is None:
            return f"reaching the daemon at {self._name}: {reason}"
        if isinstance(error, PermissionError):
            return f"reaching the daemon at {self._path}: {reason}; run this as the user that it runs as"
        return (
            f"reaching the daemon at {self._path}: {reason}; start it (`sidecar run`), run this where it runs "
            "(`docker exec <its container> sidecar ...`), or name it by --server and SIDECAR_ADMIN_TOKEN"
        )


def _read_json(body: bytes) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(body)
    except ValueError as error:
        msg = "asking the daemon: its answer is no JSON"
        raise DaemonUnreachable(msg) from error
