"""A Docker engine on a machine of its own, to be started, stopped, killed, frozen and rebooted at will.

Which engines there are: `OLD` (Debian 12's, API 1.41) and `NEW` (Debian 13's, API 1.45); `NEW` can be given
`CONTAINERD_STORE`, the other way to keep images.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tests.testbed import trees
from tests.testbed.api import Api, ApiError
from tests.testbed.errors import PartError
from tests.testbed.init import ADDRESS
from tests.testbed.machine import Machine
from tests.testbed.processes import Process
from tests.testbed.relay import PROXY_PORT
from tests.testbed.trees import Recipe

KEEP_LABEL: Final = "sidecar-testbed.keep"
"""An image with this label survives `wipe`."""

CONTAINERD_STORE: Final = {"features": {"containerd-snapshotter": True}}
"""Engine configuration: images are kept by containerd."""

_START_SECONDS = 30.0
_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.02
_PID_FILE = "/run/docker.pid"
_OWN_NETWORKS = {"bridge", "host", "none"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """An engine's version and the tree that it is in."""

    version: str
    api_version: str
    tree: Recipe
    builder: Literal["classic", "buildkit"] = "buildkit"
    """What `docker build` used with it unless it was told otherwise."""


OLD: Final = Release(version="20.10", api_version="1.41", tree=trees.OLD_ENGINE, builder="classic")
NEW: Final = Release(version="26.1", api_version="1.45", tree=trees.NEW_ENGINE)
RELEASES: Final = {release.version: release for release in (OLD, NEW)}


class Engine:
    """One engine; all of its state is in one folder, so that another process can take it over."""

    def __init__(
        self, directory: Path, release: Release, *, config: Mapping[str, Any] | None = None, leashed: bool = True
    ) -> None:
        """Take a folder, a release and the engine's configuration; leashed, it ends with the calling process."""
        self.directory = directory.absolute()
        self.release = release
        self._config = dict(config or {})
        self.machine = Machine(directory, trees.ready(release.tree), leashed=leashed)
        self.socket = self.directory / "docker.sock"
        self.api = Api(self.socket)

    @property
    def host(self) -> str:
        """The engine's address, as in DOCKER_HOST."""
        return f"unix://{self.socket}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which `docker` and `docker compose` on the host speak to this engine."""
        settings = self.directory / "client"
        path = os.pathsep.join([str(settings / "bin"), os.environ.get("PATH", os.defpath)])
        return {"DOCKER_HOST": self.host, "DOCKER_CONFIG": str(settings), "PATH": path}

    @property
    def exec_prefix(self) -> list[str]:
        """The command that runs the one after it where the engine runs: its files, network and processes."""
        return self.machine.prefix

    def is_up(self) -> bool:
        """Say whether the engine answers."""
        try:
            Api(self.socket, timeout_seconds=2).get("/_ping")
        except (OSError, ApiError):
            return False
        return True

    def start(self) -> None:
        """Start the engine, its machine first, and wait until it answers."""
        if self.is_up():
            self._expect_release()
            return
        self.machine.turn_on()
        self._clear_leftovers()
        self._write_files()
        self.machine.spawn(*self._command(), log=self.log)
        self._await_start()

    def stop(self) -> None:
        """Stop the engine as a service manager does; the machine stays on."""
        self.thaw()
        for process in self._processes():
            process.send(signal.SIGTERM)
            if not process.wait(_STOP_SECONDS):
                message = f"Stopping the engine in {str(self.directory)!r}: it did not end in {_STOP_SECONDS!r} s"
                raise PartError(message)

    def kill(self) -> None:
        """Kill the engine alone; its containers run on."""
        for process in self._processes():
            process.kill()

    def restart(self) -> None:
        """Stop the engine and start it again."""
        self.stop()
        self.start()

    def turn_off(self) -> None:
        """End the engine, its containers and all that belongs to them at once, as by pulling the plug."""
        self.machine.turn_off()

    def reboot(self) -> None:
        """Do to the engine what the reboot of its host does: everything ends, and the engine alone is started."""
        self.turn_off()
        self.start()

    def freeze(self) -> None:
        """Let the engine hang: connections are taken and nothing is answered."""
        for process in self._processes():
            process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen engine go on."""
        for process in self._processes():
            process.send(signal.SIGCONT)

    def admit(self, port: int) -> None:
        """Let the host's 127.0.0.1:port answer where the engine runs, under the same address: a registry, a hook."""
        self.machine.admit(port)

    def reach(self, port: int, *, at: int | None = None) -> int:
        """Make a port that a container publishes answer on the host's loopback, and name the port there."""
        return self.machine.reach(port, at=at)

    def docker(self, *arguments: str, **options: Any) -> str:
        """Run the Docker client against this engine and return its output."""
        return self._client("docker", *arguments, **options)

    def compose(self, *arguments: str, **options: Any) -> str:
        """Run Compose against this engine and return its output; `cwd` names the project's folder."""
        return self._client("docker", "compose", *arguments, **options)

    def build(self, context: Path, tag: str, *arguments: str, **build_args: str) -> None:
        """Build an image with the release's own builder; `RUN` reaches over HTTP and HTTPS what the host reaches."""
        proxy = f"http://127.0.0.1:{PROXY_PORT}"
        reach = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), proxy)
        given = [part for name, value in {**reach, **build_args}.items() for part in ("--build-arg", f"{name}={value}")]
        kind = {"buildkit": ("1", ["--provenance=false"]), "classic": ("0", [])}
        buildkit, own = kind[self.release.builder]
        command = ("build", *own, "--network", "host", "--tag", tag, *given, *arguments, str(context))
        self.docker(*command, env={"DOCKER_BUILDKIT": buildkit})

    def wipe(self) -> None:
        """Bring the engine back to how it was started: no container, volume, network or image that was not kept."""
        self.thaw()
        self.start()
        with suppress(ApiError):  # 503 where it is in no swarm
            self.api.post("/swarm/leave", force=True)
        for container in self.api.get("/containers/json", all=True):
            with suppress(ApiError):  # 404 or 409 where it is going by itself
                self.api.delete(f"/containers/{container['Id']}", force=True, v=True)
        for network in self.api.get("/networks"):
            if network["Name"] not in _OWN_NETWORKS:
                self.api.delete(f"/networks/{network['Id']}")
        for volume in self.api.get("/volumes")["Volumes"] or []:
            self.api.delete(f"/volumes/{volume['Name']}", force=True)
        self.api.post("/images/prune", filters={"dangling": ["false"], "label!": [KEEP_LABEL]})

    @property
    def log(self) -> Path:
        """What the engine writes."""
        return self.directory / "dockerd.log"

    def _client(self, *command: str, **options: Any) -> str:
        environment = {**os.environ, **self.environment, **options.pop("env", {})}
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, **options
        )
        if done.returncode != 0:
            message = f"Running {' '.join(command)!r}: {done.stderr.strip()[-2000:]}"
            raise PartError(message)
        return done.stdout

    def _command(self) -> Sequence[str]:
        return (
            "dockerd",
            *("--config-file", str(self.directory / "daemon.json")),
            *("--data-root", str(self.directory / "data")),
            *("--exec-root", "/run/docker"),
            *("--pidfile", _PID_FILE),
            *("--host", self.host),
            *("--host", "unix:///run/docker.sock"),  # where a container looks for it
        )

    def _processes(self) -> list[Process]:
        return self.machine.processes("dockerd")

    def _clear_leftovers(self) -> None:
        """Remove what a killed engine left: it would not start beside its old containerd (20.10)."""
        for process in self.machine.processes("containerd"):
            process.kill()
        self.machine.inside(_PID_FILE).unlink(missing_ok=True)

    def _write_files(self) -> None:
        config = {
            "cgroup-parent": f"/{self.machine.name}/docker",
            "insecure-registries": [f"{ADDRESS}/32"],
            **self._config,
        }
        (self.directory / "daemon.json").write_text(json.dumps(config))
        install_client(self.directory / "client")

    def _expect_release(self) -> None:
        version = self.api.get("/version")["Version"]
        if not version.startswith(self.release.version):
            message = (
                f"Starting engine {self.release.version!r}: {version!r} runs in {str(self.directory)!r}, end it first"
            )
            raise PartError(message)

    def _is_running(self) -> bool:
        # In this order: one becomes the other.
        return bool(self.machine.processes("setsid") or self._processes())

    def _await_start(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self.is_up():
            if time.monotonic() > deadline or not self._is_running():
                reason = self.log.read_text(errors="replace").strip()[-500:]
                message = f"Starting engine {self.release.version!r}: see {str(self.log)!r}: {reason}"
                raise PartError(message)
            time.sleep(_POLL_SECONDS)


def install_client(directory: Path) -> None:
    """Put the Docker client and its plugins for Compose and BuildKit into a folder, for DOCKER_CONFIG and PATH."""
    for name in ("docker-compose", "docker-buildx"):
        _place(trees.tool(f"usr/libexec/docker/cli-plugins/{name}"), directory / "cli-plugins" / name)
    _place(trees.tool("usr/bin/docker"), directory / "bin/docker")


def compose_plugin(directory: Path) -> Path:
    """Put the client into a folder and name its Compose plugin, which also runs by itself."""
    install_client(directory)
    return directory / "cli-plugins/docker-compose"


def _place(source: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
