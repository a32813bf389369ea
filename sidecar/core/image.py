"""Names of images as OCI distribution and Docker write them; parses and normalises, and asks nobody anything."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Self

DOCKER_HUB = "docker.io"
# All of these are Docker Hub; the engine and old payloads use each of them.
_DOCKER_HUB_HOSTS = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})

_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")
# The grammar of github.com/distribution/reference, which engine and registries share.
_HOST = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LONGEST_REPOSITORY = 255
_HIGHEST_PORT = 65535


class Digest(str):
    """A content digest, ``sha256:`` and 64 hexadecimal digits (or ``sha512:`` and 128).

    Raises:
        ValueError: the text is anything else.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Read a digest."""
        if not _DIGEST.fullmatch(text):
            msg = f"reading a digest: {text[:160]!r} is not 'sha256:' and 64 lower-case hexadecimal digits"
            raise ValueError(msg)
        return super().__new__(cls, text)


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image reference, normalised: ``docker.io/library/nginx`` however short it was written.

    A reference with neither tag nor digest names a whole repository.

    Attributes:
        registry: host, and port where one was given; ``docker.io`` for Docker Hub under each of its names.
        repository: path below the host, lower case.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> ImageRef:
        """Read a reference as people and payloads write it; a missing tag stays missing.

        Raises:
            ValueError: the text does not follow the grammar of references.
        """
        rest, _, digest = text.strip().partition("@")
        # A colon after the last slash starts a tag; one before it belongs to the host's port.
        slash = rest.rfind("/")
        colon = rest.find(":", slash + 1)
        name, tag = (rest, None) if colon < 0 else (rest[:colon], rest[colon + 1 :])
        host, repository = _split_host(name)
        problem = _problem(host, repository, tag)
        if problem is not None or (not digest and "@" in text):
            msg = f"reading an image reference: {text[:300]!r} {problem or 'ends where a digest should follow'}"
            raise ValueError(msg)
        return cls(host, repository, tag, Digest(digest) if digest else None)

    @classmethod
    def configured(cls, text: str) -> ImageRef:
        """Read a reference as the engine does: ``latest`` where neither tag nor digest is written."""
        ref = cls.parse(text)
        return ref if ref.tag or ref.digest else ref.with_tag("latest")

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """The name as Docker shows it: ``nginx`` for ``docker.io/library/nginx``."""
        if self.registry != DOCKER_HUB:
            return self.name
        return self.repository.removeprefix("library/")

    @property
    def familiar(self) -> str:
        """The whole reference as Docker shows it."""
        return self.familiar_name + _suffix(self)

    def with_tag(self, tag: str | None) -> ImageRef:
        """Name another tag of the same repository, and no digest."""
        return replace(self, tag=tag, digest=None)

    def at(self, digest: Digest) -> str:
        """Write the reference that pulls exactly this digest."""
        return f"{self.name}@{digest}"

    def __str__(self) -> str:
        """Write the whole normalised reference."""
        return self.name + _suffix(self)


def _suffix(ref: ImageRef) -> str:
    return (f":{ref.tag}" if ref.tag else "") + (f"@{ref.digest}" if ref.digest else "")


def _split_host(name: str) -> tuple[str, str]:
    """Tell host and repository apart by Docker's rule: a host has a dot, a port, or is ``localhost``."""
    first, slash, rest = name.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    host, repository = (first.lower(), rest) if is_host else (DOCKER_HUB, name)
    if host in _DOCKER_HUB_HOSTS:
        return DOCKER_HUB, repository if "/" in repository else f"library/{repository}"
    return host, repository


def _problem(host: str, repository: str, tag: str | None) -> str | None:
    _, _, port = host.rpartition(":")
    if not _HOST.fullmatch(host) or (port.isdigit() and int(port) > _HIGHEST_PORT):
        return f"names the host {host!r}"
    if len(repository) > _LONGEST_REPOSITORY or not _REPOSITORY.fullmatch(repository):
        return "has no valid repository name (lower-case letters, digits, and . _ - / between them)"
    if tag is not None and not _TAG.fullmatch(tag):
        return f"has the tag {tag!r} (letters, digits, _ . - and at most 128 of them)"
    return None
