"""The control socket: a file in the state folder that only its owner can open."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from sidecar.errors import Misconfigured

NAME = "control.sock"


def control_socket(folder: Path) -> socket.socket:
    """Make the socket in the state folder, in the place of one that a killed daemon left.

    The folder's lock has to be held: whoever holds it may take the name.

    Raises:
        Misconfigured: it cannot be made there.
    """
    path = folder / NAME
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        # Before it is bound, so that there is no moment at which others could open it.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        listener.close()
        msg = f"making the control socket {str(path)!r}: {error.strerror or error}; a writable folder is accepted"
        raise Misconfigured(msg) from error
    listener.setblocking(False)
    return listener
