"""What the host itself must have; the engines and tools live in cached trees (see `trees`).

Does not install an engine on the host: that could start one, or push out one that is there.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.testbed.errors import PartError

COMMANDS = {
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "nsenter": "util-linux",
    "pivot_root": "util-linux",
    "unshare": "util-linux",
}
"""Command needed on the host: Debian package that brings it."""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""What the trees' packages are checked with; Debian has it, its relatives may not."""

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOCK_SECONDS = 300


def missing() -> list[str]:
    """List the packages whose command is not there."""
    lost = {package for command, package in COMMANDS.items() if find(command) is None}
    if not KEYRING.exists():
        lost.add("debian-archive-keyring")
    return sorted(lost)


def find(command: str) -> str | None:
    """Find a command on the system's own path, whatever PATH says."""
    return shutil.which(command, path=_SYSTEM_PATH)


def ensure() -> None:
    """Install what is missing; do nothing, quickly, where all is there."""
    require_root()
    if lost := missing():
        _install(lost)


def require_root() -> None:
    """Stop with a plain sentence where namespaces and mounts would be refused."""
    if (uid := os.geteuid()) != 0:
        message = f"Making namespaces as user id {uid!r}: root is needed, run it with sudo"
        raise PartError(message)


def _install(packages: Iterable[str]) -> None:
    apt = find("apt-get")
    names = list(packages)
    if apt is None:
        message = f"Installing {names!r}: there is no apt-get here, install them by hand"
        raise PartError(message)
    wait = ["-o", f"DPkg::Lock::Timeout={_LOCK_SECONDS}"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = [apt, *wait, "install", "--yes", "--no-install-recommends", *names]
    for command in ([apt, *wait, "update"], install):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            message = f"Running {' '.join(command)!r}: {done.stderr.strip()[-500:]}"
            raise PartError(message)
