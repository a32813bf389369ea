"""The daemon itself, `sidecar run` beside a real engine: how soon it is ready, and what it needs when idle."""

from __future__ import annotations

import http.client
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.accept.process import PATIENCE_SECONDS, Server, free_port, running

IDLE_SECONDS = 5.0
USUAL_SOCKET = Path("/var/run/docker.sock")


def measure_start(folder: Path, host: str, runs: int) -> str:
    """Start the daemon some times; give the medians as text."""
    measured = [_start(folder / f"start-{number}", host) for number in range(runs)]
    seconds, memory_mib = (statistics.median(values) for values in zip(*measured, strict=True))
    return f"Daemon: ready after {seconds:.2f} s, {memory_mib:.0f} MiB when idle (medians of {runs} starts)\n"


@contextmanager
def an_engine(folder: Path) -> Iterator[str]:
    """Give the address of the engine that is there, or else of one of the test bed."""
    if host := os.environ.get("DOCKER_HOST") or (f"unix://{USUAL_SOCKET}" if USUAL_SOCKET.exists() else ""):
        yield host
        return
    from tests.testbed.engine import RELEASES, Engine  # noqa: PLC0415 - only where there is no engine

    engine = Engine(folder / "engine", next(iter(RELEASES.values())))
    engine.start()
    try:
        yield engine.host
    finally:
        engine.turn_off()


def daemon_settings(folder: Path, host: str, port: int) -> dict[str, str]:
    """Give the environment of a daemon."""
    return {
        "SIDECAR_HOST": "127.0.0.1",
        "SIDECAR_PORT": str(port),
        "SIDECAR_STATE_DIR": str(folder),
        "SIDECAR_DOCKER_HOST": host,
    }


def _start(folder: Path, host: str) -> tuple[float, float]:
    folder.mkdir()
    port = free_port()
    environ = daemon_settings(folder, host, port)
    begun = time.monotonic()
    with running(
        [sys.executable, "-m", "sidecar", "run"], port=port, output=folder / "output", environ=environ
    ) as server:
        _wait_until_ready(server)
        seconds = time.monotonic() - begun
        time.sleep(IDLE_SECONDS)
        return seconds, server.memory_mib


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
        connection.close()
        if status == http.HTTPStatus.OK:
            return
        time.sleep(0.002)
    sys.exit("the daemon does not become ready")
