"""Podman behind its Docker-compatible socket, on a machine of its own, with the interface of a Docker engine.

There is no daemon: `podman system service` answers on the socket, and each container has a supervisor (`conmon`) that
lives on without it. There is no systemd either, whose timers run the health checks elsewhere: `Timers` do that, unless
a test wants none.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tests.testbed import trees
from tests.testbed.api import Api, ApiError
from tests.testbed.engine import Engine, Release, install_client
from tests.testbed.init import ADDRESS
from tests.testbed.processes import Process

PODMAN: Final = Release(version="5.4", api_version="1.41", tree=trees.NEW_ENGINE, builder="classic")

_NATIVE = "/v4.0.0/libpod"
_OWN_NETWORKS = {"bridge", "host", "none", "podman"}
_FILES = {
    "containers.conf": """
[network]
firewall_driver = "iptables"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
""",
    "storage.conf": """
[storage]
driver = "overlay"
graphroot = "{directory}/data"
runroot = "/run/containers/storage"
""",
    "registries.conf": f"""
[[registry]]
location = "127.0.0.1"
insecure = true
[[registry]]
location = "{ADDRESS}"
insecure = true
""",
}
"""What the machine lacks (nftables, systemd, a journal), where its state is, and registries without TLS."""


_TIMER_SECONDS = 0.5
_SLOWEST_CHECK_SECONDS = 5


class Timers:
    """Runs every health check again and again, as systemd does by `podman healthcheck run` on a timer."""

    def __init__(self, socket: Path) -> None:
        self._api = Api(socket, timeout_seconds=_SLOWEST_CHECK_SECONDS)
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless they run already."""
        if self._thread is None:
            self._is_over.clear()
            self._thread = threading.Thread(target=self._run, name="podman timers", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Let no check run any more."""
        if self._thread is not None:
            self._is_over.set()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._is_over.wait(_TIMER_SECONDS):
            with suppress(OSError, ApiError):  # it is down, or the container is going
                for container in self._api.get("/containers/json"):
                    self._check(container["Id"])

    def _check(self, ident: str) -> None:
        with suppress(OSError, ApiError):  # it has no check
            self._api.get(f"{_NATIVE}/containers/{ident}/healthcheck")


_SERVE = """
[ -e /run/own-cgroups ] && below= || below=/$1
for root in $(grep -o ' /sys/fs/cgroup[^ ]* .* - cgroup2\\? ' /proc/self/mountinfo | cut -d ' ' -f 2 | sort -u); do
  mkdir -p "$root$below"
  for file in cpuset.cpus cpuset.mems; do
    [ -z "$below" ] || [ ! -e "$root$below/$file" ] || cat "$root/$file" > "$root$below/$file"
  done
  echo $$ > "$root$below/cgroup.procs"
done
exec unshare --cgroup sh -euc '
  [ -e /run/own-cgroups ] || grep " - cgroup" /proc/self/mountinfo | while read -r line; do
    place=$(echo "$line" | cut -d " " -f 5)
    set -- ${line##* - }
    mount -t "$1" -o "$(echo ",$3," | sed "s/,rw,/,/; s/,ro,/,/; s/^,//; s/,$//")" cgroup "$place"
  done
  touch /run/own-cgroups
  exec podman system service --time=0 "$0"
' "$2"
"""
"""Serves in a namespace of control groups, below that of the machine: Podman is told of no other place for its own."""


class Podman(Engine):
    """One Podman; killed or stopped, it is its service that ends, and never a container."""

    @property
    def timers(self) -> Timers:
        """What runs its health checks."""
        if self._timers is None:
            self._timers = Timers(self.socket)
        return self._timers

    _timers: Timers | None = None

    def start(self) -> None:
        """Start the service, its machine first, and what runs health checks."""
        super().start()
        self.timers.start()

    def turn_off(self) -> None:
        """End everything at once, as by pulling the plug."""
        self.timers.stop()
        super().turn_off()

    @property
    def log(self) -> Path:
        """What the service writes."""
        return self.directory / "podman.log"

    def podman(self, *arguments: str, **options: Any) -> str:
        """Run Podman's own command against this service and return its output."""
        return self.machine.run("podman", "--url", self.host, *arguments, **options).stdout

    def wipe(self) -> None:
        """Bring it back to how it was started: no container, pod, secret, volume, network or image."""
        self.thaw()
        self.start()
        for container in self.api.get("/containers/json", all=True):
            with suppress(ApiError):  # it went with another one, or with its pod
                self.api.delete(f"{_NATIVE}/containers/{container['Id']}", force=True, depend=True, v=True, timeout=0)
        for pod in self.api.get(f"{_NATIVE}/pods/json"):
            self.api.delete(f"{_NATIVE}/pods/{pod['Id']}", force=True)
        for secret in self.api.get(f"{_NATIVE}/secrets/json"):
            self.api.delete(f"{_NATIVE}/secrets/{secret['ID']}")
        for network in self.api.get("/networks"):
            if network["Name"] not in _OWN_NETWORKS:
                self.api.delete(f"/networks/{network['Id']}")
        for volume in self.api.get("/volumes")["Volumes"] or []:
            self.api.delete(f"/volumes/{volume['Name']}", force=True)
        for image in self.api.get("/images/json"):
            with suppress(ApiError):  # it went with another one
                self.api.delete(f"/images/{image['Id']}", force=True)

    def _command(self) -> Sequence[str]:
        return "sh", "-euc", _SERVE, "sh", self.machine.name, self.host

    def _is_running(self) -> bool:
        # In this order: each becomes the next.
        return any(self.machine.processes(name) for name in ("setsid", "sh", "unshare", "podman"))

    def _processes(self) -> list[Process]:
        # `conmon` runs `podman container cleanup` when a container has ended.
        found = self.machine.processes("podman")
        return [process for process in found if b"service" in Path(f"/proc/{process.pid}/cmdline").read_bytes()]

    def _clear_leftovers(self) -> None:
        self.socket.unlink(missing_ok=True)

    def _write_files(self) -> None:
        for name, text in _FILES.items():
            place = self.machine.inside(f"/etc/containers/{name}")
            place.write_text(text.format(directory=self.directory))
        install_client(self.directory / "client")
