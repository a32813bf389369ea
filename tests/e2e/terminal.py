"""A terminal, on which commands show what they show to people."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping
from typing import Final

COLUMNS: Final = 80
_ROWS = 24
_MOVES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(command: list[str], environ: Mapping[str, str]) -> tuple[int, list[str]]:
    """Run a command on a terminal of the usual size; give its status, and each line as it stood there at some time."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, COLUMNS, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    environment = {**inherited, "TERM": "xterm", **environ}
    with subprocess.Popen(command, env=environment, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        written = _all_of(ours)
    os.close(ours)
    lines = re.split(r"[\r\n]+", _MOVES.sub("", written.decode()))
    return process.returncode, [line.rstrip() for line in lines if line.strip()]


def _all_of(terminal: int) -> bytes:
    written = b""
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # nobody has it open any more
            return written
        if not chunk:
            return written
        written += chunk
