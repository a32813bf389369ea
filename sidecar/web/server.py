"""Puts routes on ports and on the control socket, and takes them off at the end; it knows no route."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web

from sidecar.errors import Misconfigured
from sidecar.web.receiver import RUNNER_OPTIONS
from sidecar.web.sockets import control_socket

# Whoever still speaks when we stop is given this long; what is accepted by then is on disk.
_SHUTDOWN_SECONDS = 1.0


async def listen(stack: AsyncExitStack, routes: Iterable[web.AbstractRouteDef], *, host: str, port: int) -> None:
    """Serve routes on a TCP port until the stack is left.

    Raises:
        Misconfigured: the address cannot be had.
    """
    try:
        await web.TCPSite(await _runner(stack, routes), host, port).start()
    except OSError as error:
        msg = f"listening on {host}:{port}: {error.strerror}; set SIDECAR_HOST and SIDECAR_PORT to what is free"
        raise Misconfigured(msg) from error


async def listen_at_socket(stack: AsyncExitStack, routes: Iterable[web.AbstractRouteDef], *, folder: Path) -> None:
    """Serve routes at the control socket in a folder until the stack is left.

    Raises:
        Misconfigured: the socket cannot be made there.
    """
    await web.SockSite(await _runner(stack, routes), control_socket(folder)).start()


async def _runner(stack: AsyncExitStack, routes: Iterable[web.AbstractRouteDef]) -> web.AppRunner:
    application = web.Application()
    application.add_routes(routes)
    runner = web.AppRunner(application, handle_signals=False, shutdown_timeout=_SHUTDOWN_SECONDS, **RUNNER_OPTIONS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return runner
