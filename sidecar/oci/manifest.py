"""Manifests and indexes as registries give them, and the choice of a platform in an index. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from sidecar.core.image import Digest

MEDIA_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

_VERSION = re.compile(r"v?(\d)(?:\.\d)?")
_OLDEST_ARM = 5
_ARCHITECTURES = {
    "i386": ("386", ""),
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "aarch64": ("arm64", None),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on. Read and compared as containerd does it."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``os/architecture`` or ``os/architecture/variant``."""
        system, _, rest = text.partition("/")
        architecture, _, variant = rest.partition("/")
        return cls.normalised(system, architecture, variant)

    @classmethod
    def normalised(cls, system: str, architecture: str, variant: str = "") -> Platform:
        """Write one platform in one way: ``arm64`` for ``aarch64/v8``, ``arm/v7`` for ``arm``."""
        architecture, variant = architecture.lower(), variant.lower()
        architecture, fixed = _ARCHITECTURES.get(architecture, (architecture, None))
        variant = variant if fixed is None else fixed
        if architecture in {"arm", "arm64"} and variant.isdigit():
            variant = f"v{variant}"
        if (architecture, variant) in {("amd64", "v1"), ("arm64", "v8")}:
            variant = ""
        if (architecture, variant) == ("arm", ""):
            variant = "v7"
        return cls(system.lower(), architecture, variant)

    def runnable(self) -> Iterator[Platform]:
        """Give every platform whose images run on this one, the best first."""
        yield self
        found = _VERSION.fullmatch(self.variant)
        version = int(found[1]) if found else 0
        match self.architecture:
            case "amd64":
                yield from (self._at("amd64", lower) for lower in range(version - 1, 0, -1))
                yield Platform(self.os, "386")
            case "arm64":
                yield Platform(self.os, "arm64")
                yield from (self._at("arm", lower) for lower in range(8, _OLDEST_ARM - 1, -1))
            case "arm":
                yield from (self._at("arm", lower) for lower in range(version - 1, _OLDEST_ARM - 1, -1))
            case _:
                pass

    def _at(self, architecture: str, version: int) -> Platform:
        return Platform.normalised(self.os, architecture, f"v{version}")


@dataclass(frozen=True, slots=True)
class Child:
    """An entry of an index; its platform may be left out."""

    digest: Digest
    platform: Platform | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What counts of a manifest (its configuration) or of an index (its children)."""

    config: Digest | None = None
    children: tuple[Child, ...] = ()

    def child_for(self, platform: Platform) -> Digest | None:
        """Choose the entry that an engine of this platform would pull; None where there is none."""
        for wanted in platform.runnable():
            for child in self.children:
                if child.platform == wanted:
                    return child.digest
        nameless = [child.digest for child in self.children if child.platform is None]
        return nameless[0] if len(nameless) == 1 else None


def digest_of(content: bytes, *, algorithm: str = "sha256") -> Digest:
    """Compute the digest of what was received."""
    return Digest(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")


def is_digest_of(digest: Digest, content: bytes) -> bool:
    """Say whether the content is what a digest names."""
    return digest_of(content, algorithm=digest.partition(":")[0]) == digest


def read_manifest(body: bytes) -> Manifest:
    """Read a manifest or an index.

    Raises:
        ValueError: it is neither, or both (which one reader takes for this and another for that).
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        msg = "is not JSON"
        raise ValueError(msg) from None
    match document:
        case {"manifests": list(entries)} if not document.keys() & {"config", "layers"}:
            return Manifest(children=tuple(_children(entries)))
        case {"config": {"digest": str(digest)}} if "manifests" not in document:
            return Manifest(config=Digest(digest))
        case _:
            msg = "is neither an image manifest nor an index"
            raise ValueError(msg)


def _children(entries: list[object]) -> Iterator[Child]:
    for entry in entries:
        match entry:
            # Attestations are children too; their platform is unknown/unknown, which no engine is.
            case {"digest": str(digest), "platform": {"os": str(system), "architecture": str(architecture), **rest}}:
                yield Child(Digest(digest), Platform.normalised(system, architecture, str(rest.get("variant") or "")))
            case {"digest": str(digest)}:
                yield Child(Digest(digest), None)
            case _:
                msg = "has an entry without a digest"
                raise ValueError(msg)
