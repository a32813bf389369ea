"""The container's health check: asks the daemon beside it. It runs every ten seconds for ever, so it starts at once."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from pathlib import Path

from sidecar.cli.output import hint, say
from sidecar.errors import Misconfigured
from sidecar.settings import peek

# Less than the 5 after which Docker gives up on it.
PATIENCE_SECONDS = 4.0
# Listening on all addresses includes these.
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to ask where it listens on all


def healthcheck(environ: Mapping[str, str], cwd: Path, *, ready: bool) -> int:
    """Say whether the daemon lives, or whether it can do its work: 0 or 1; 3 when it does not answer."""
    host, port = peek("host", environ, cwd) or "", peek("port", environ, cwd) or "8080"
    if not (port.isascii() and port.isdecimal()):
        msg = f"SIDECAR_PORT={port!r}: a number is accepted"
        raise Misconfigured(msg)
    connection = http.client.HTTPConnection(_LOOPBACK.get(host, host), int(port), timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", "/readyz" if ready else "/healthz")
        response = connection.getresponse()
        body = response.read(4096).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        hint(f"sidecar: asking port {port}: {error}")
        return 3
    finally:
        connection.close()
    say(body)
    return 0 if response.status == http.client.OK else 1
