"""Anything that can send JSON, such as a job of a build server: ``{"image": "repository:tag"}``."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from sidecar.core.hint import Reading
from sidecar.errors import Malformed
from sidecar.sources.body import Body, bounded, read, read_hint

EXPECTED = "{'image': 'repository:tag'} or {'images': ['repository:tag', ...]}"
MOST_IMAGES = 100


class Images(Body):
    """The body."""

    image: str | None = None
    """An image reference; without a tag, or with a digest in its place, it concerns the whole repository."""
    images: list[str] | None = Field(default=None, max_length=MOST_IMAGES, fail_fast=True)
    """Several of them."""
    pusher: str | None = None
    """Who says so, for ALLOWED_PUSHERS."""


def parse(_headers: Mapping[str, str], body: bytes, _options: Mapping[str, str]) -> Reading:
    """Read the references."""
    named = read(Images, body, expected=EXPECTED)
    if named.image is None and named.images is None:
        msg = f"reading the body: it has neither image nor images; expected {EXPECTED}"
        raise Malformed(msg)
    texts = [*([] if named.image is None else [named.image]), *(named.images or [])]
    hints = dict.fromkeys(map(read_hint, texts))
    return Reading(hints=tuple(hints), ignored=None if hints else "it names no image", pusher=bounded(named.pusher))
