"""The first process of a machine: makes the namespaces and the root, then only holds them.

`python3 -m tests.testbed.init` with a `Plan` as JSON on standard input prints the process id of
the machine's first process and leaves it running. When that one ends, however it ends, the kernel
ends everything in the machine and takes its mounts and network apart: nothing can be left over.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.testbed import namespaces

ADDRESS = "198.51.100.1"
"""An address of every machine beside 127.0.0.1, for what an engine does only with addresses that others can reach."""

TEMPORARY = "/run/tmp"
"""Every machine's own folder for files of a moment: it goes with the machine, and the host's own is shared with it."""

_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a machine is made of."""

    name: str
    """Its host name."""
    tree: str
    """The folder that its root is read from; changes to the root stay in memory."""
    shared: tuple[str, ...]
    """Folders of the host that are seen in the machine, under the same path."""
    leash: int | None
    """A pipe's reading end: the machine ends when the writing end is closed. None: it stays."""

    def to_json(self) -> str:
        """Write the plan for standard input."""
        return json.dumps(asdict(self))


def main() -> None:
    """Make the machine and tell the process id of its first process."""
    plan = Plan(**json.load(sys.stdin))
    told, tell = os.pipe()
    namespaces.unshare(
        namespaces.NEW_MOUNTS
        | namespaces.NEW_NETWORK
        | namespaces.NEW_PROCESSES
        | namespaces.NEW_HOSTNAME
        | namespaces.NEW_IPC
    )
    pid = os.fork()
    if pid == 0:
        os.close(told)
        _become_first(plan, tell)
    os.close(tell)
    with os.fdopen(told) as outcome:
        if reason := outcome.read():
            sys.exit(reason)
    print(pid, flush=True)


def _become_first(plan: Plan, tell: int) -> None:
    os.setsid()
    try:
        socket.sethostname(plan.name)
        namespaces.raise_loopback(ADDRESS)
        _make_root(Path(plan.tree), plan.shared)
    except (OSError, subprocess.CalledProcessError) as error:
        os.write(tell, f"Making the machine {plan.name!r}: {error}".encode())
        os._exit(1)
    for stream in range(3):
        os.close(stream)
    os.close(tell)
    _hold(plan.leash)


def _hold(leash: int | None) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans are reaped by the kernel
    while leash is None:
        signal.pause()
    os.read(leash, 1)
    os._exit(0)


def _make_root(tree: Path, shared: Sequence[str]) -> None:
    hosts = Path("/etc/resolv.conf").read_text() if Path("/etc/resolv.conf").exists() else ""
    _run("mount", "--make-rprivate", "/")
    changes = tree / "mnt"
    _run("mount", "-t", "tmpfs", "tmpfs", changes)
    (changes / "upper").mkdir()
    (changes / "work").mkdir()
    layers = f"lowerdir={tree},upperdir={changes}/upper,workdir={changes}/work"
    _run("mount", "-t", "overlay", "-o", layers, "overlay", tree)
    for folder in shared:
        inside = tree / folder.removeprefix("/")
        inside.mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", folder, inside)
    (tree / "etc/resolv.conf").unlink(missing_ok=True)
    (tree / "etc/resolv.conf").write_text(hosts)
    (tree / "etc/hosts").write_text("127.0.0.1\tlocalhost\n")
    _run("mount", "-t", "proc", "proc", tree / "proc")
    _run("mount", "--rbind", "/sys", tree / "sys")
    _run("mount", "--rbind", "/dev", tree / "dev")
    _run("mount", "-t", "tmpfs", "tmpfs", tree / "run")
    temporary = tree / TEMPORARY.removeprefix("/")
    temporary.mkdir()
    temporary.chmod(0o1777)
    _pivot(tree)


def _pivot(tree: Path) -> None:
    """Make the tree the root; with chroot, health checks and exec would see the host's files."""
    (tree / "mnt/host").mkdir()
    os.chdir(tree)
    _run("pivot_root", ".", "mnt/host")
    os.chdir("/")
    _run("umount", "--lazy", "/mnt/host")


def _run(*command: str | Path) -> None:
    arguments = [os.fspath(part) for part in command]
    subprocess.run(
        arguments,
        env={"PATH": _SYSTEM_PATH},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )


if __name__ == "__main__":
    main()
