"""The lock that makes a state folder the folder of one process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from sidecar.errors import Misconfigured

LOCK_NAME = "lock"


def lock_folder(folder: Path) -> int:
    """Make the folder ours, and the folder itself if it is missing; give what ``os.close`` ends it with.

    The kernel ends it as well when the process dies, however it dies.

    Raises:
        Misconfigured: another process has it, or it cannot be used.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        msg = f"opening the state folder {str(folder)!r}: {error.strerror}; it has to be a folder Sidecar can write to"
        raise Misconfigured(msg) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        owner = os.pread(lock, 20, 0).decode(errors="replace").strip()
        os.close(lock)
        raise Misconfigured(_explain(folder, error, owner)) from error
    return lock


def _explain(folder: Path, error: OSError, owner: str) -> str:
    if isinstance(error, BlockingIOError):
        # Its number may be that of another container, where every Sidecar is process 1.
        return (
            f"locking the state folder {str(folder)!r}: another Sidecar uses it (process {owner or 'unknown'}); "
            "stop that one, or give this one a folder of its own"
        )
    return f"locking the state folder {str(folder)!r}: {error.strerror}; it has to lie on a local disk"
