"""Carries TCP connections between the host's loopback and a machine's network, which share no link.

Runs on the host as `python3 -m tests.testbed.relay DIRECTORY PID`, one for each machine, and ends with
the machine's first process PID. It takes orders on the socket DIRECTORY/relay.sock, one JSON object a
line, and notes them in DIRECTORY/relay.json, which the next relay reads: a machine that was started
again has the same ports.

- `{"admit": 5000}`: the host's 127.0.0.1:5000 answers in the machine under the same address
- `{"reach": 8080, "at": null}`: the machine's port 8080 answers on a loopback port of the host

A web proxy on the machine's port `PROXY_PORT` lets builds reach what the host reaches.
"""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.testbed import namespaces
from tests.testbed.init import ADDRESS

PROXY_PORT = 3128
LOOPBACK = "127.0.0.1"

_CHUNK_BYTES = 1 << 16
_BACKLOG = 128

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Connect = Callable[[], Awaitable[tuple[Reader, Writer]]]


class Relay:
    """The open doors between the host and one machine."""

    def __init__(self, directory: Path, namespace: int) -> None:
        self._notes = directory / "relay.json"
        self._control = directory / "relay.sock"
        self._namespace = namespace
        self._admitted: set[int] = set()
        self._reached: dict[int, int] = {}
        self._servers: list[asyncio.Server] = []

    async def open(self) -> None:
        """Open the doors that were there before, the proxy, and last the control socket."""
        if self._notes.exists():
            notes = json.loads(self._notes.read_text())
            for port in notes["admitted"]:
                await self._admit(port)
            for port, at in notes["reached"]:
                await self._reach(port, at)
        inside = self._listen_inside(PROXY_PORT)
        self._servers.append(await asyncio.start_server(self._proxy, sock=inside))
        self._control.unlink(missing_ok=True)
        self._servers.append(await asyncio.start_unix_server(self._take_orders, self._control))

    async def _take_orders(self, reader: Reader, writer: Writer) -> None:
        async for line in reader:
            try:
                answer = await self._obey(json.loads(line))
            except OSError as error:
                answer = {"error": str(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    async def _obey(self, order: dict[str, Any]) -> dict[str, Any]:
        if "admit" in order:
            answer = {"port": await self._admit(order["admit"])}
        else:
            answer = {"port": await self._reach(order["reach"], order["at"])}
        notes = {"admitted": sorted(self._admitted), "reached": sorted(self._reached.items())}
        self._notes.write_text(json.dumps(notes))
        return answer

    async def _admit(self, port: int) -> int:
        if port not in self._admitted:
            outside = self._connector(port, inside=False)
            server = await asyncio.start_server(_carrier(outside), sock=self._listen_inside(port))
            self._servers.append(server)
            self._admitted.add(port)
        return port

    async def _reach(self, port: int, at: int | None) -> int:
        known = self._reached.get(port)
        if known is not None and at in {None, known}:
            return known
        inside = self._connector(port, inside=True)
        server = await asyncio.start_server(_carrier(inside), LOOPBACK, at or 0)
        self._servers.append(server)
        self._reached[port] = int(server.sockets[0].getsockname()[1])
        return self._reached[port]

    def _listen_inside(self, port: int) -> socket.socket:
        with namespaces.network(self._namespace):
            # On every address of the machine, so that containers reach it through their gateway.
            return socket.create_server(("", port), backlog=_BACKLOG)

    def _connector(self, port: int, *, inside: bool) -> Connect:
        async def connect() -> tuple[Reader, Writer]:
            if not inside:
                return await asyncio.open_connection(LOOPBACK, port)
            try:
                # As from another host: by the engine's firewall rules, which outlive a killed engine.
                return await self._connect_inside(ADDRESS, port)
            except ConnectionRefusedError:
                return await self._connect_inside(LOOPBACK, port)

        return connect

    async def _connect_inside(self, address: str, port: int) -> tuple[Reader, Writer]:
        with namespaces.network(self._namespace):
            connection = socket.socket()
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, (address, port))
        except OSError:
            connection.close()
            raise
        return await asyncio.open_connection(sock=connection)

    async def _proxy(self, reader: Reader, writer: Writer) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            writer.close()
            return
        method, target, rest = head.split(" ", 2)
        tunnel = method == "CONNECT"
        url = urlsplit(f"//{target}" if tunnel else target)
        try:
            other = await asyncio.open_connection(url.hostname, url.port or 80)
        except OSError as error:
            writer.write(f"HTTP/1.1 502 Bad Gateway\r\n\r\n{error}\n".encode())
            writer.close()
            return
        if tunnel:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = url._replace(scheme="", netloc="").geturl() or "/"
            version, _, fields = rest.partition("\r\n")
            request = f"{method} {path} {version}\r\nConnection: close\r\n{fields}"
            other[1].write(request.encode("latin-1"))
        await _carry((reader, writer), other)


def _carrier(connect: Connect) -> Callable[[Reader, Writer], Awaitable[None]]:
    async def carry(reader: Reader, writer: Writer) -> None:
        try:
            other = await connect()
        except OSError:
            writer.transport.abort()  # what the caller sees of a closed port: a reset
            return
        await _carry((reader, writer), other)

    return carry


async def _carry(one: tuple[Reader, Writer], other: tuple[Reader, Writer]) -> None:
    try:
        await asyncio.gather(_copy(one[0], other[1]), _copy(other[0], one[1]))
    finally:
        one[1].close()
        other[1].close()


async def _copy(reader: Reader, writer: Writer) -> None:
    with suppress(OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
        return
    writer.transport.abort()


async def _serve(directory: Path, pid: int) -> None:
    machine = os.pidfd_open(pid)
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(machine, ended.set)
    await Relay(directory, namespace).open()
    await ended.wait()
    os._exit(0)  # open connections die with the machine, as on a real one


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
