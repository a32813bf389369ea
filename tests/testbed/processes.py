"""Processes named so that a reused process id is never mistaken for the one that was started."""

import os
import select
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.testbed.errors import PartError

_START_TICKS = 18
"""Where `starttime` stands in /proc/PID/stat, counted from the field after the state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process id and the moment it was started, in clock ticks since the host's boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """Identify a running process; None where there is none, or only its zombie."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        state, *fields = text.rpartition(")")[2].split()
        if state in "ZX":
            return None
        return cls(pid=pid, started=int(fields[_START_TICKS]))

    def is_alive(self) -> bool:
        """Say whether this very process still runs."""
        return Process.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Signal this very process; one that has ended is left alone."""
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if self.is_alive():
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)

    def wait(self, seconds: float) -> bool:
        """Wait until this process has ended; False where it outlives the time."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            return not self.is_alive() or bool(poll.poll(seconds * 1000))
        finally:
            os.close(handle)

    def kill(self, seconds: float = 10) -> None:
        """Kill this process and wait for its end."""
        self.send(signal.SIGKILL)
        if not self.wait(seconds):
            message = f"Killing process {self.pid!r}: it still runs after {seconds!r} s"
            raise PartError(message)
