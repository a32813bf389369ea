"""A machine: namespaces for processes, mounts and network, which live and die together.

Turning it off is what pulling the plug is to a host. Two machines, and the host, share no process,
mount, address, firewall rule or network interface; only folders named as shared and ports opened in
the relay go through.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.testbed import packages
from tests.testbed.errors import PartError
from tests.testbed.init import TEMPORARY, Plan
from tests.testbed.processes import Process

PROJECT = Path(__file__).parents[2]

_BOOT_SECONDS = 20.0
_CGROUP_SECONDS = 2.0
_CGROUPS = Path("/sys/fs/cgroup")
_LONGEST_SOCKET_PATH = 107
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TMPDIR": TEMPORARY}


class Machine:
    """Boots a tree as the root of its own namespaces, with its state in one folder of the host."""

    def __init__(self, directory: Path, tree: Path, *, leashed: bool = True) -> None:
        """Take a folder and a tree; a leashed machine is turned off when the calling process ends, even if killed."""
        self.directory = directory.absolute()
        self.name = "sidecar-testbed-" + hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:8]
        self._tree = tree
        self._leashed = leashed
        self._leash: int | None = None
        self._relay: subprocess.Popen[bytes] | None = None
        if len(os.fsencode(self.directory / "docker.sock")) > _LONGEST_SOCKET_PATH:
            message = f"Placing a socket in {str(self.directory)!r}: the path is too long for one, use a shorter one"
            raise PartError(message)

    @property
    def first(self) -> Process | None:
        """The process that holds the machine; None while it is off."""
        return self._noted("first")

    @property
    def prefix(self) -> list[str]:
        """The command that runs the one after it inside the machine."""
        first = self.first
        if first is None:
            message = f"Entering the machine in {str(self.directory)!r}: it is off, turn it on first"
            raise PartError(message)
        return ["nsenter", f"--target={first.pid}", "--mount", "--net", "--pid", "--uts", "--ipc", "--"]

    def turn_on(self) -> None:
        """Boot, unless it runs already."""
        if self.first is not None:
            return
        packages.ensure()
        self.turn_off()  # what a killed one left
        self.directory.mkdir(parents=True, exist_ok=True)
        first = self._boot()
        relay = self._start_relay(first)
        self._notes.write_text(json.dumps({"first": [first.pid, first.started], "relay": [relay.pid, relay.started]}))
        self._await_relay()

    def turn_off(self) -> None:
        """End every process of the machine at once, and with them its mounts and network."""
        if first := self.first:
            first.kill()
        if (relay := self._noted("relay")) and not relay.wait(_BOOT_SECONDS):
            relay.kill()
        if self._relay is not None:
            self._relay.wait()
            self._relay = None
        if self._leash is not None:
            os.close(self._leash)
            self._leash = None
        for name in ("machine.json", "relay.sock", "docker.sock"):
            (self.directory / name).unlink(missing_ok=True)
        _remove_cgroups(self.name)

    def inside(self, path: str) -> Path:
        """Name a file of the machine as the host sees it."""
        first = self.first
        return Path(f"/proc/{first.pid if first else None}/root") / path.removeprefix("/")

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command inside and wait for it; the options are those of `subprocess.run`."""
        given: dict[str, Any] = {"env": _ENVIRONMENT, "capture_output": True, "text": True, **options}
        done: subprocess.CompletedProcess[str] = subprocess.run([*self.prefix, *command], check=True, **given)
        return done

    def spawn(self, *command: str, log: Path) -> None:
        """Start a command inside and leave it to the machine's first process; its output is added to the log."""
        with log.open("ab") as output:
            # Left with us it would be ours to reap, and the machine could not end before we did.
            self.run("setsid", "--fork", *command, capture_output=False, stdout=output, stderr=output)

    def processes(self, name: str) -> list[Process]:
        """Find the machine's own processes (not those in its containers) with this command name."""
        first = self.first
        if first is None:
            return []
        home = Path(f"/proc/{first.pid}/ns/pid").readlink()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (folder / "comm").read_text().rstrip("\n") == name and (folder / "ns/pid").readlink() == home:
                    found.append(Process.of(int(folder.name)))
        return [process for process in found if process]

    def admit(self, port: int) -> None:
        """Let the host's 127.0.0.1:port answer in the machine under the same address."""
        self._order({"admit": port})

    def reach(self, port: int, *, at: int | None = None) -> int:
        """Let the machine's port answer on a loopback port of the host, and name that one."""
        return int(self._order({"reach": port, "at": at})["port"])

    @property
    def _notes(self) -> Path:
        return self.directory / "machine.json"

    def _noted(self, role: str) -> Process | None:
        try:
            pid, started = json.loads(self._notes.read_text())[role]
        except (OSError, ValueError):
            return None
        process = Process(pid=pid, started=started)
        return process if process.is_alive() else None

    def _boot(self) -> Process:
        shared = {self.directory, Path(tempfile.gettempdir()), PROJECT}
        reading: int | None = None
        if self._leashed:
            reading, self._leash = os.pipe()
        plan = Plan(
            name=self.name, tree=str(self._tree), shared=tuple(sorted(str(folder) for folder in shared)), leash=reading
        )
        command = [sys.executable, "-m", "tests.testbed.init"]
        done = subprocess.run(
            command,
            cwd=PROJECT,
            input=plan.to_json(),
            pass_fds=[] if reading is None else [reading],
            capture_output=True,
            text=True,
            check=False,
        )
        if reading is not None:
            os.close(reading)
        first = Process.of(int(done.stdout)) if done.returncode == 0 else None
        if first is None:
            raise PartError(done.stderr.strip() or f"Booting {self._tree.name!r}: its first process ended at once")
        return first

    def _start_relay(self, first: Process) -> Process:
        command = [sys.executable, "-m", "tests.testbed.relay", str(self.directory), str(first.pid)]
        with (self.directory / "relay.log").open("wb") as output:
            self._relay = subprocess.Popen(
                command,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        relay = Process.of(self._relay.pid)
        if relay is None:
            raise PartError(self._relay_failure())
        return relay

    def _await_relay(self) -> None:
        deadline = time.monotonic() + _BOOT_SECONDS
        while not self._is_relay_ready():
            if time.monotonic() > deadline or self._noted("relay") is None:
                raise PartError(self._relay_failure())
            time.sleep(0.01)

    def _is_relay_ready(self) -> bool:
        try:
            self._connect().close()
        except OSError:
            return False
        return True

    def _relay_failure(self) -> str:
        log = self.directory / "relay.log"
        return f"Starting the relay of {self.name!r}: see {str(log)!r}: {log.read_text().strip()[-500:]}"

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(self.directory / "relay.sock"))
        except OSError:
            connection.close()
            raise
        return connection

    def _order(self, order: dict[str, int | None]) -> dict[str, Any]:
        with self._connect() as connection, connection.makefile("rw") as lines:
            lines.write(json.dumps(order) + "\n")
            lines.flush()
            answer: dict[str, Any] = json.loads(lines.readline())
        if "error" in answer:
            message = f"Opening a port by {order!r}: {answer['error']}, choose another one"
            raise PartError(message)
        return answer


def _remove_cgroups(name: str) -> None:
    """Remove the control groups that a machine's containers left; the kernel keeps empty ones."""
    deadline = time.monotonic() + _CGROUP_SECONDS
    while tops := [top for top in (*_CGROUPS.glob(f"*/{name}"), _CGROUPS / name) if top.exists()]:
        for top in tops:
            _remove_empty(top)
        if time.monotonic() > deadline:
            return  # they are empty and cost nothing
        time.sleep(0.01)


def _remove_empty(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):  # the last process of it is just ending
            Path(folder).rmdir()
