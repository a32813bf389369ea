"""The daemon as a process of its own, as a user runs it: started, killed, started again; its log read as it comes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.integration.forks import Forked, forks
from tests.testbed.engine import Engine

TOKEN = "a-token-for-tests-1234567890"
ADMIN_TOKEN = "an-admin-token-for-tests-1234567890"
PATIENCE_SECONDS = 60.0
# Whoever asks is as busy as whoever answers, and what takes long is asked for less often.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 0.4


class Daemon:
    """One Sidecar beside one engine; its state folder outlives the process.

    Args:
        environ: further ``SIDECAR_*`` settings.
        around: a command that becomes the daemon's, which is added to it.
        forked: it starts at once, from a process that has imported everything; not where a command is around it.
    """

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        *,
        port: int,
        environ: Mapping[str, str] | None = None,
        around: Sequence[str] = (),
        forked: bool = True,
    ) -> None:
        self.engine = engine
        self.folder = folder
        self.port = port
        self.environ = dict(environ or {})
        self.around = around
        self.forked = forked
        self.log = folder / "sidecar.log"
        self._told: list[dict[str, Any]] = []
        self._read_bytes = 0
        self._process: subprocess.Popen[bytes] | Forked | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def hook(self) -> str:
        """The address that a Distribution registry is given."""
        return f"{self.url}/hooks/distribution/{TOKEN}"

    def start(self, *, wait: bool = True, **environ: str) -> None:
        """Start the process, and wait until it is ready."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        settings = {
            "SIDECAR_HOST": "127.0.0.1",
            "SIDECAR_PORT": str(self.port),
            "SIDECAR_STATE_DIR": str(self.folder / "state"),
            "SIDECAR_TOKEN": TOKEN,
            "SIDECAR_ADMIN_TOKEN": ADMIN_TOKEN,
            "SIDECAR_DOCKER_HOST": self.engine.host,
            "SIDECAR_LOG_LEVEL": "debug",
            "SIDECAR_LOG_FORMAT": "json",
            "SIDECAR_DEBOUNCE_SECONDS": "0.2",
            **self.environ,
            **environ,
        }
        if self._process is not None:
            self._process.wait(timeout=PATIENCE_SECONDS)  # it was killed, and is on its way
        self._process = self._started(inherited | settings)
        if wait:
            self.until(self.is_ready, "the daemon is ready")

    def _started(self, environ: Mapping[str, str]) -> subprocess.Popen[bytes] | Forked:
        if self.forked and not self.around:
            return forks().start(["run"], environ=environ, cwd=self.folder, log=self.log)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self.around, sys.executable, "-m", "sidecar", "run"],
                env=environ,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def kill(self) -> None:
        """Kill the process, as a crash does."""
        if (process := self._process) is not None:  # a proxy's thread kills while the test starts the next one
            process.kill()
            process.wait()

    def stop(self) -> int:
        """Tell the process to stop, and give its exit status."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """Wait until the process ends by itself, and give its exit status."""
        assert self._process is not None
        return self._process.wait(timeout=PATIENCE_SECONDS)

    @property
    def pid(self) -> int:
        """The process that was started last."""
        assert self._process is not None
        return self._process.pid

    def is_ready(self) -> bool:
        """Say whether it answers that it is ready."""
        if self._process is not None and self._process.poll() is not None:
            message = f"the daemon ended with {self._process.returncode}: {self.log.read_text()[-3000:]}"
            raise AssertionError(message)
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def get(self, path: str) -> tuple[int, Any]:
        """Ask for a path with the admin token; give status and body."""
        return self._ask(urllib.request.Request(self.url + path))

    def post(self, path: str, body: object) -> tuple[int, Any]:
        """Post JSON with the admin token; give status and body."""
        content = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=content, headers={"Content-Type": "application/json"})
        return self._ask(request)

    def _ask(self, request: urllib.request.Request) -> tuple[int, Any]:
        request.add_header("Authorization", f"Bearer {ADMIN_TOKEN}")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Give the log so far, or the lines of one event."""
        with self.log.open("rb") as log:
            log.seek(self._read_bytes)
            whole, newline, _ = log.read().rpartition(b"\n")
        self._read_bytes += len(whole) + len(newline)
        self._told += [json.loads(line) for line in whole.splitlines() if line.startswith(b"{") and line.endswith(b"}")]
        return [line for line in self._told if event in (None, line["event"])]

    def until(self, is_so: Callable[[], object], what: str, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for something that has to come; never for something that must not."""
        end, pause = time.monotonic() + seconds, _FIRST_PAUSE_SECONDS
        while not is_so():
            if time.monotonic() > end:
                tail = self.log.read_text()[-6000:] if self.log.exists() else ""
                message = f"waited {seconds:g} s in vain until {what}\n{tail}"
                raise AssertionError(message)
            time.sleep(pause)
            pause = min(pause * 1.2, _LONGEST_PAUSE_SECONDS)

    def until_told(self, event: str, count: int = 1, **facts: object) -> dict[str, Any]:
        """Wait for the n-th line of an event with these facts, and give it."""

        def told() -> list[dict[str, Any]]:
            return [line for line in self.lines(event) if all(line.get(key) == value for key, value in facts.items())]

        self.until(lambda: len(told()) >= count, f"{event} is told {count} times with {facts}")
        return told()[count - 1]
