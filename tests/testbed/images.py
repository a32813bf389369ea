"""Images made as bytes, without an engine: a web server with a version and a health of choice, in milliseconds.

The same arguments give the same digest, on every machine of the same Debian. Nothing is run to make one.
"""

import gzip
import hashlib
import io
import json
import platform as host
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import IO, Any

from tests.testbed import trees
from tests.testbed.engine import Engine
from tests.testbed.registry import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Registry, split_name

PORT = 8080
"""What the web server listens on; it answers with its version."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PLATFORM = f"linux/{_ARCHITECTURES.get(host.machine(), host.machine())}"
OTHER_PLATFORM = "linux/arm64" if PLATFORM == "linux/amd64" else "linux/amd64"

_MADE = "2024-01-01T00:00:00Z"
_CONFIG_TYPES = {
    DOCKER_MANIFEST: "application/vnd.docker.container.image.v1+json",
    OCI_MANIFEST: "application/vnd.oci.image.config.v1+json",
}
_LAYER_TYPES = {
    DOCKER_MANIFEST: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    OCI_MANIFEST: "application/vnd.oci.image.layer.v1.tar+gzip",
}
_MILLISECOND = 1_000_000
_APPLETS: tuple[str, ...] = ("sh", "cat", "echo", "env", "httpd", "id", "ls", "mkdir", "ps")
_APPLETS += ("rm", "seq", "sleep", "stat", "touch", "wget")


class Behaviour(StrEnum):
    """What a web image does with its life."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    """Serves, but its health check fails."""
    FLAPPING = "flapping"
    """Four good health checks, four bad ones, and so on."""
    UNCHECKED = "unchecked"
    """Serves, and has no health check."""
    CRASHING = "crashing"
    """Ends with status 1 at once."""
    FADING = "fading"
    """Is healthy for two seconds, then ends with status 1."""
    STUBBORN = "stubborn"
    """Is healthy and ignores SIGTERM: only its stop timeout ends it."""
    GRACEFUL = "graceful"
    """Is healthy, and on SIGTERM takes no new request but answers those that it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer: its tar archive, compressed or not, and the digest of the archive itself."""

    content: bytes | Path
    diff_id: str

    @property
    def size_bytes(self) -> int:
        """The size as it is sent."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    def open(self) -> IO[bytes]:
        """Open what is sent."""
        return self.content.open("rb") if isinstance(self.content, Path) else io.BytesIO(self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Layers and a configuration, for one platform."""

    layers: tuple[Layer, ...]
    config: Mapping[str, Any]
    """The part of the configuration that a container gets: `Cmd`, `Env`, `Healthcheck`, `Labels`, ..."""
    platform: str = PLATFORM
    media_type: str = DOCKER_MANIFEST

    @property
    def config_json(self) -> bytes:
        """The configuration as it is stored; its digest is what Docker calls the image's id."""
        system, architecture = self.platform.split("/")
        content = {
            "architecture": architecture,
            "os": system,
            "created": _MADE,
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]},
            "history": [{"created": _MADE, "created_by": "sidecar-testbed"} for _ in self.layers],
        }
        return json.dumps(content).encode()

    @property
    def manifest(self) -> bytes:
        """The manifest as it is pushed."""
        blobs = [layer.content for layer in self.layers if isinstance(layer.content, bytes)]
        content = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": _described(self.config_json, _CONFIG_TYPES[self.media_type]),
            "layers": [_described(blob, _LAYER_TYPES[self.media_type]) for blob in blobs],
        }
        return json.dumps(content).encode()

    @property
    def digest(self) -> str:
        """The digest under which a registry has it."""
        return digest_of(self.manifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How often an image's health check runs; fast, for tests wait for it."""

    interval_ms: int = 250
    timeout_ms: int = 2000
    start_period_ms: int = 0
    retries: int = 2

    def to_config(self) -> dict[str, Any]:
        """Write it as an image's configuration has it."""
        return {
            "Test": ["CMD", "/health"],
            "Interval": self.interval_ms * _MILLISECOND,
            "Timeout": self.timeout_ms * _MILLISECOND,
            "StartPeriod": self.start_period_ms * _MILLISECOND,
            "Retries": self.retries,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A multi-platform image: one image for each platform under one name."""

    images: tuple[Image, ...]
    media_type: str = OCI_INDEX

    @property
    def manifest(self) -> bytes:
        """The index as it is pushed."""
        entries = []
        for image in self.images:
            system, architecture = image.platform.split("/")
            described = _described(image.manifest, image.media_type)
            entries.append({**described, "platform": {"os": system, "architecture": architecture}})
        content = {"schemaVersion": 2, "mediaType": self.media_type, "manifests": entries}
        return json.dumps(content).encode()

    @property
    def digest(self) -> str:
        """The digest under which a registry has it."""
        return digest_of(self.manifest)


def base() -> Image:
    """Make the smallest image with a shell: busybox and its applets."""
    return Image(layers=(_busybox(),), config={"Cmd": ["sh"], "Env": ["PATH=/bin"]})


def web(
    version: str,
    behaviour: Behaviour = Behaviour.HEALTHY,
    *,
    health: Health = Health(),
    platform: str = PLATFORM,
    media_type: str = DOCKER_MANIFEST,
    labels: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    **config: Any,
) -> Image:
    """Make an image that serves its version on `PORT`; `config` adds to its configuration, e.g. `Volumes`."""
    content = {"/www/index.html": f"{version}\n", "/serve": _serve(behaviour), "/health": _health(behaviour)}
    settings: dict[str, Any] = {
        "Cmd": ["/serve"],
        "Env": ["PATH=/bin", f"VERSION={version}"],
        "ExposedPorts": {f"{PORT}/tcp": {}},
        "Labels": {"org.opencontainers.image.version": version, **(labels or {})},
        **config,
    }
    if behaviour is not Behaviour.UNCHECKED:
        settings["Healthcheck"] = health.to_config()
    layers = (_busybox(), packed({**content, **(files or {})}))
    return Image(layers=layers, config=settings, platform=platform, media_type=media_type)


def push(registry: Registry, image: Image | Index, name: str) -> str:
    """Push an image as `repository:tag` and return its digest; what is there already is not sent again."""
    repository, _ = split_name(name)
    if isinstance(image, Index):
        for one in image.images:
            push(registry, one, f"{repository}@{one.digest}")
    else:
        blobs = [layer.content for layer in image.layers if isinstance(layer.content, bytes)]
        for blob in (*blobs, image.config_json):
            registry.push_blob(repository, blob, digest_of(blob))
    return registry.push_manifest(name, image.manifest, image.media_type)


def load(engine: Engine, image: Image, *tags: str) -> None:
    """Put an image into an engine under these tags, without a registry."""
    archive = engine.directory / "load.tar"
    try:
        with archive.open("wb") as output:
            _write_archive(output, image, tags)
        engine.docker("load", "--quiet", "--input", str(archive))
    finally:
        archive.unlink(missing_ok=True)


def packed(files: Mapping[str, str | bytes]) -> Layer:
    """Make a layer of executable files."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, content in sorted(files.items()):
            _add_file(tar, path, content.encode() if isinstance(content, str) else content)
    return _compressed(archive.getvalue())


def digest_of(content: bytes) -> str:
    """Compute the digest of a blob or manifest."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


@cache
def _busybox() -> Layer:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add_file(tar, "/bin/busybox", trees.tool("bin/busybox").read_bytes())
        for applet in _APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for folder, mode in (("etc", 0o755), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add_file(tar, "/etc/passwd", b"root:x:0:0:root:/:/bin/sh\nweb:x:1000:1000:web:/:/bin/sh\n")
        _add_file(tar, "/etc/group", b"root:x:0:\nweb:x:1000:\n")
    return _compressed(archive.getvalue())


def _add_file(tar: tarfile.TarFile, path: str, content: bytes) -> None:
    entry = tarfile.TarInfo(path.removeprefix("/"))
    entry.size, entry.mode = len(content), 0o755
    tar.addfile(entry, io.BytesIO(content))


def _compressed(archive: bytes) -> Layer:
    return Layer(content=gzip.compress(archive, compresslevel=1, mtime=0), diff_id=digest_of(archive))


def _serve(behaviour: Behaviour) -> str:
    if behaviour is Behaviour.CRASHING:
        return "#!/bin/sh\necho crashing as it should >&2\nexit 1\n"
    # The server forks for each request: with the first of its processes it stops listening, and the others go on.
    ends = {Behaviour.STUBBORN: "trap '' TERM", Behaviour.GRACEFUL: "trap 'kill $!; sleep 0.5; exit 0' TERM INT"}
    trap = ends.get(behaviour, "trap 'exit 0' TERM INT")
    rest = "sleep 2; exit 1" if behaviour is Behaviour.FADING else "wait"
    return f"#!/bin/sh\n{trap}\necho serving $VERSION\nhttpd -f -p {PORT} -h /www &\n{rest}\n"


def _health(behaviour: Behaviour) -> str:
    ask = f"exec wget -q -O - http://127.0.0.1:{PORT}/"
    if behaviour is Behaviour.UNHEALTHY:
        return "#!/bin/sh\necho unhealthy as it should be\nexit 1\n"
    if behaviour is Behaviour.FLAPPING:
        count = "n=$(cat /tmp/checks 2>/dev/null || echo 0)\necho $((n + 1)) >/tmp/checks\n"
        return f"#!/bin/sh\n{count}[ $((n / 4 % 2)) = 0 ] || exit 1\n{ask}\n"
    return f"#!/bin/sh\n{ask}\n"


def _described(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "size": len(content), "digest": digest_of(content)}


def _write_archive(output: IO[bytes], image: Image, tags: Sequence[str]) -> None:
    """Write what `docker save` would."""
    names = [f"{number}/layer.tar" for number, _ in enumerate(image.layers)]
    entry = {"Config": "config.json", "RepoTags": list(tags), "Layers": names}
    with tarfile.open(fileobj=output, mode="w") as tar:
        _add_file(tar, "config.json", image.config_json)
        _add_file(tar, "manifest.json", json.dumps([entry]).encode())
        for name, layer in zip(names, image.layers, strict=True):
            member = tarfile.TarInfo(name)
            member.size = layer.size_bytes
            with layer.open() as content:
                tar.addfile(member, content)
