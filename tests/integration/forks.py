"""Daemons that start at once: forked from a process that has imported everything, which is most of what a start does.

It starts and ends processes; what a daemon does is its own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Final

import sidecar.app  # noqa: F401 -- what every daemon imports
from sidecar.cli import main

_PROJECT: Final = Path(__file__).parents[2]
_LONGEST_ORDER_BYTES: Final = 1 << 16


class Forked:
    """A process of Sidecar's, which is spoken to as to one of `subprocess`.

    Args:
        pidfd: the process, which no other can be taken for.
        end: where its exit status can be read once it has ended.
    """

    def __init__(self, pid: int, pidfd: int, end: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = pidfd
        self._end = end
        self._lock = Lock()  # a proxy's thread kills while the test waits

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process is known to have ended."""
        with self._lock:
            if self.returncode is None:
                try:
                    signal.pidfd_send_signal(self._pidfd, number)
                except ProcessLookupError:
                    return  # it has ended, and nobody was told yet

    def kill(self) -> None:
        """End the process at once."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """Give the exit status; None: it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and give the exit status: the negative number of the signal that ended it.

        Raises:
            TimeoutError: it did not end in time.
        """
        if (status := self._ended(timeout)) is None:
            message = f"process {self.pid} did not end within {timeout} s"
            raise TimeoutError(message)
        return status

    def _ended(self, timeout: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._end], [], [], timeout)[0]:
                told = os.read(self._end, 16)
                assert told, "the process that forks daemons has ended"
                self.returncode = int(told)
                os.close(self._end)
                os.close(self._pidfd)
            return self.returncode


class Forks:
    """The process that has imported everything; with the one that started it all its daemons end."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = Lock()
        command = [sys.executable, "-m", "tests.integration.forks", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(command, cwd=_PROJECT, pass_fds=[theirs.fileno()])

    def start(self, arguments: Sequence[str], *, environ: Mapping[str, str], cwd: Path, log: Path) -> Forked:
        """Run a command of Sidecar's whose output is added to a file."""
        order = {"arguments": list(arguments), "environ": dict(environ), "cwd": str(cwd), "log": str(log)}
        end, tell = os.pipe()
        with self._lock:
            socket.send_fds(self._orders, [json.dumps(order).encode()], [tell])
            os.close(tell)
            pid, (pidfd,), _, _ = socket.recv_fds(self._orders, 16, 1)
        return Forked(int(pid), pidfd, end)


@cache
def forks() -> Forks:
    """Give the one of this test run."""
    return Forks()


class _Forking:
    """What forks: it waits for orders, and for the ends of what it forked."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._running: dict[int, tuple[int, int]] = {}  # by its file descriptor: a process, and where its end is told

    def serve(self) -> int:
        """Fork until nobody orders any more; in what was forked give the exit status of the command."""
        while True:
            ready = select.select([self._orders, *self._running], [], [])[0]
            for pidfd in self._running.keys() & ready:
                self._tell_end(pidfd)
            if self._orders in ready and (status := self._take_order()) is not None:
                return status

    def _tell_end(self, pidfd: int) -> None:
        pid, tell = self._running.pop(pidfd)
        _, status = os.waitpid(pid, 0)
        os.write(tell, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(tell)
        os.close(pidfd)

    def _take_order(self) -> int | None:
        message, fds, _, _ = socket.recv_fds(self._orders, _LONGEST_ORDER_BYTES, 1)
        if not message:
            for pid, _ in self._running.values():
                os.kill(pid, signal.SIGKILL)
            return 0
        if (pid := os.fork()) == 0:
            self._orders.detach()
            return _run(**json.loads(message))
        pidfd = os.pidfd_open(pid)
        self._running[pidfd] = (pid, fds[0])
        socket.send_fds(self._orders, [str(pid).encode()], [pidfd])
        return None


def _run(*, arguments: list[str], environ: dict[str, str], cwd: str, log: str) -> int:
    """Become a process as `python -m sidecar` starts as: with files, environment and folder of its own."""
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number, file in enumerate((nothing, output, output)):
        os.dup2(file, number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    return main(arguments)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # that of the terminal is for the tests, which end it
    sys.exit(_Forking(socket.socket(fileno=int(sys.argv[1]))).serve())
