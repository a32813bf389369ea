"""The engine's HTTP API over its socket, as bare as tests want it: paths in, JSON out.

Does not use the Docker SDK: what the SDK hides is part of what is tested.
"""

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.testbed.errors import PartError

_SECONDS = 60.0
_FIRST_FAILURE = 400


class ApiError(PartError):
    """The engine refused a request; `status` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """Sends one request a connection, so that a restarted engine is no surprise."""

    def __init__(self, path: Path, *, timeout_seconds: float = _SECONDS) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds

    def get(self, path: str, **query: Any) -> Any:
        """Read something."""
        return self.request("GET", path, query=query)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """Make or change something; bytes are sent as a tar archive, anything else as JSON."""
        return self.request("POST", path, query=query, body=body)

    def delete(self, path: str, **query: Any) -> Any:
        """Remove something."""
        return self.request("DELETE", path, query=query)

    def request(self, method: str, path: str, *, query: Mapping[str, Any], body: Any = None) -> Any:
        """Send a request and return the answer's JSON, its text where it is none, or None where it is empty."""
        connection = _SocketConnection(self._path, self._timeout_seconds)
        raw = isinstance(body, bytes)
        content = body if raw else b"" if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/x-tar" if raw else "application/json"}
        try:
            connection.request(method, _target(path, query), body=content, headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        finally:
            connection.close()
        if answer.status >= _FIRST_FAILURE:
            message = f"Requesting {method} {path!r} of the engine: {answer.status} {text.strip()}"
            raise ApiError(answer.status, message)
        return _parsed(text)


def _target(path: str, query: Mapping[str, Any]) -> str:
    """Write a query as the engine wants it: booleans and filters as JSON."""
    values = {name: value if isinstance(value, str) else json.dumps(value) for name, value in query.items()}
    return f"{path}?{urlencode(values)}" if values else path


def _parsed(text: str) -> Any:
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text  # a stream of several JSON objects, or plain text


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__("engine", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
