"""CNCF Distribution on a loopback port of the host, with real notifications, and a client to push to it.

Docker takes plain HTTP from 127.0.0.0/8; an engine sees the registry after `engine.admit(registry.port)`.
"""

import base64
import ctypes
import ctypes.util
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.testbed import trees
from tests.testbed.errors import PartError
from tests.testbed.init import ADDRESS
from tests.testbed.machine import PROJECT
from tests.testbed.processes import Process

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MANIFESTS = f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}"

_LOOPBACK = "127.0.0.1"
_START_SECONDS = 10.0
_POLL_SECONDS = 0.01
_REQUEST_SECONDS = 30.0
_FIRST_FAILURE = 400
_UNAUTHORIZED = 401
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """Where the registry sends its events, as in `notifications.endpoints` of its configuration."""

    url: str
    name: str = "sidecar"
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: str = "1s"
    threshold: int = 3
    """Failures in a row after which it waits for `backoff`."""
    backoff: str = "1s"

    def to_config(self) -> dict[str, Any]:
        """Write the endpoint as the registry reads it."""
        headers = {name: [value] for name, value in self.headers.items()}
        return {
            "name": self.name,
            "url": self.url,
            "headers": headers,
            "timeout": self.timeout,
            "threshold": self.threshold,
            "backoff": self.backoff,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user of the registry; with one, every request needs it."""

    user: str
    password: str

    @property
    def header(self) -> str:
        """The Authorization header for it."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


class Registry:
    """A registry process; port and storage outlive it, so that it can be stopped and started again."""

    def __init__(
        self,
        directory: Path,
        *,
        notifications: Sequence[Notification] = (),
        login: Login | None = None,
        port: int | None = None,
        leashed: bool = True,
    ) -> None:
        """Take a folder and what the registry should do; leashed, it ends with the calling process."""
        self.directory = directory.absolute()
        self.notifications = list(notifications)
        self.login = login
        self.port = port or _free_port()
        self._leashed = leashed
        self._leash: int | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """The registry as it stands in an image reference."""
        return f"{_LOOPBACK}:{self.port}"

    @property
    def address_inside(self) -> str:
        """The registry for an engine and for the containers on it alike, where 127.0.0.1 is the container itself."""
        return f"{ADDRESS}:{self.port}"

    @property
    def url(self) -> str:
        """The registry as a URL."""
        return f"http://{self.address}"

    @property
    def log(self) -> Path:
        """What the registry writes, its requests too."""
        return self.directory / "registry.log"

    @property
    def process(self) -> Process | None:
        """The running registry, to send it signals; None while it is stopped."""
        try:
            pid, started = json.loads((self.directory / "registry.json").read_text())
        except (OSError, ValueError):
            return None
        process = Process(pid=pid, started=started)
        return process if process.is_alive() else None

    def start(self) -> None:
        """Start the registry with the notifications and the login it has now, and wait until it answers."""
        if self.process is not None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "config.yml"
        config.write_text(json.dumps(self._config()))  # JSON is YAML
        command = [str(trees.tool("usr/bin/docker-registry")), "serve", str(config)]
        reading: int | None = None
        if self._leashed:
            reading, self._leash = os.pipe()
            command = [sys.executable, "-m", "tests.testbed.leash", str(reading), *command]
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                command,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[] if reading is None else [reading],
                start_new_session=True,
            )
        if reading is not None:
            os.close(reading)
        self._await_start(self._child)

    def stop(self) -> None:
        """Stop the registry; port and storage are kept."""
        if process := self.process:
            self.thaw()
            process.send(signal.SIGTERM)
            if not process.wait(_START_SECONDS):
                process.kill()
        if self._child is not None:
            self._child.wait()
            self._child = None
        if self._leash is not None:
            os.close(self._leash)
            self._leash = None

    def freeze(self) -> None:
        """Let the registry hang: connections are taken and nothing is answered."""
        if process := self.process:
            process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen registry go on."""
        if process := self.process:
            process.send(signal.SIGCONT)

    def reference(self, name: str) -> str:
        """Write `repository:tag` or `repository@digest` of this registry as an image reference."""
        return f"{self.address}/{name}"

    def push_blob(self, repository: str, blob: bytes, digest: str) -> None:
        """Upload a layer or a configuration, unless it is there."""
        if self._request("HEAD", f"/v2/{repository}/blobs/{digest}", missing_ok=True) is not None:
            return
        answer = self._request("POST", f"/v2/{repository}/blobs/uploads/")
        place = (answer or {}).get("location", "").removeprefix(self.url)
        joint = "&" if "?" in place else "?"
        octets = {"Content-Type": "application/octet-stream"}
        self._request("PUT", f"{place}{joint}digest={quote(digest)}", body=blob, headers=octets)

    def push_manifest(self, name: str, manifest: bytes, media_type: str) -> str:
        """Upload a manifest under `repository:tag` and return its digest."""
        repository, tag = split_name(name)
        target = f"/v2/{repository}/manifests/{tag}"
        answer = self._request("PUT", target, body=manifest, headers={"Content-Type": media_type})
        return (answer or {})["docker-content-digest"]

    def digest(self, name: str) -> str | None:
        """Ask which digest `repository:tag` has now; None where there is none."""
        repository, tag = split_name(name)
        target = f"/v2/{repository}/manifests/{tag}"
        answer = self._request("HEAD", target, headers={"Accept": MANIFESTS}, missing_ok=True)
        return answer["docker-content-digest"] if answer else None

    def delete(self, name: str) -> None:
        """Delete the manifest that `repository:tag` has now, and with it all of its tags."""
        self._request("DELETE", f"/v2/{split_name(name)[0]}/manifests/{self.digest(name)}")

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.directory / "storage")},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.address, "secret": secrets.token_hex()},
            "notifications": {"endpoints": [notification.to_config() for notification in self.notifications]},
        }
        if self.login:
            users = self.directory / "htpasswd"
            users.write_text(f"{self.login.user}:{_bcrypt(self.login.password)}\n")
            config["auth"] = {"htpasswd": {"realm": "testbed", "path": str(users)}}
        return config

    def _await_start(self, child: subprocess.Popen[bytes]) -> None:
        process = Process.of(child.pid)
        if process:
            (self.directory / "registry.json").write_text(json.dumps([process.pid, process.started]))
        deadline = time.monotonic() + _START_SECONDS
        while not self.is_up():
            if time.monotonic() > deadline or child.poll() is not None:
                reason = self.log.read_text(errors="replace").strip()[-500:]
                message = f"Starting a registry on {self.address!r}: see {str(self.log)!r}: {reason}"
                raise PartError(message)
            time.sleep(_POLL_SECONDS)

    def is_up(self) -> bool:
        """Say whether the registry answers."""
        connection = http.client.HTTPConnection(_LOOPBACK, self.port, timeout=2)
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status in {200, _UNAUTHORIZED}
        except OSError:
            return False
        finally:
            connection.close()

    def _request(
        self,
        method: str,
        target: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        missing_ok: bool = False,
    ) -> dict[str, str] | None:
        """Send a request and return the answer's headers by their lower-case names."""
        connection = http.client.HTTPConnection(_LOOPBACK, self.port, timeout=_REQUEST_SECONDS)
        sent = dict(headers or {})
        if self.login:
            sent["Authorization"] = self.login.header
        try:
            connection.request(method, target, body=body, headers=sent)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        finally:
            connection.close()
        if answer.status == _NOT_FOUND and missing_ok:
            return None
        if answer.status >= _FIRST_FAILURE:
            message = f"Requesting {method} {target!r} of {self.address!r}: {answer.status} {text.strip()}"
            raise PartError(message)
        return {name.lower(): value for name, value in answer.getheaders()}


def _free_port() -> int:
    with socket.create_server((_LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])


def split_name(name: str) -> tuple[str, str]:
    """Split `repository:tag` or `repository@digest`."""
    repository, found, tag = name.partition("@")
    if not found:
        repository, found, tag = name.rpartition(":")
    if not found:
        message = f"Reading the name {name!r}: expected repository:tag or repository@digest"
        raise PartError(message)
    return repository, tag


def _bcrypt(password: str) -> str:
    """Hash a password as the registry wants it, by the C library (Python's own binding is deprecated)."""
    library = ctypes.CDLL(ctypes.util.find_library("crypt"))
    library.crypt.restype = ctypes.c_char_p
    salt = f"$2b$04${secrets.token_hex(11)}"
    hashed: bytes = library.crypt(password.encode(), salt.encode())
    return hashed.decode()
