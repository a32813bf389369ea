"""CNCF Distribution (registry:2, registry:3, GitLab's registry): envelopes of events, of which few push a tag.

https://distribution.github.io/distribution/about/notifications/
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from pydantic import Field

from sidecar.core.hint import Hint, Reading
from sidecar.sources.body import Body, bounded, read, read_hint

EXPECTED = "Distribution's {'events': [{'action': 'push', 'target': {'repository': ..., 'tag': ...}}]}"
MOST_EVENTS = 1000


class EventTarget(Body):
    """What an event is about: a manifest or a blob."""

    repository: str | None = None
    """Path below the host."""
    tag: str | None = None
    """Only where a manifest was put under a tag: not for blobs, nor for the parts of an index."""
    url: str | None = None
    """Where the registry serves it."""


class EventRequest(Body):
    """The request that caused the event."""

    host: str | None = None
    """The registry, as the client that pushed called it."""


class Actor(Body):
    """Who did it."""

    name: str | None = None
    """The account; missing where the registry asks for none."""


class Event(Body):
    """One thing that happened."""

    action: str | None = None
    """``push``, ``pull``, ``mount`` or ``delete``."""
    target: EventTarget | None = None
    """What it happened to."""
    request: EventRequest | None = None
    """By which request."""
    actor: Actor | None = None
    """By whom."""


class Envelope(Body):
    """The body of a notification."""

    events: list[Event] | None = Field(max_length=MOST_EVENTS, fail_fast=True)
    """In practice one."""


def parse(_headers: Mapping[str, str], body: bytes, options: Mapping[str, str]) -> Reading:
    """Read the pushes of tags out of an envelope."""
    events = read(Envelope, body, expected=EXPECTED).events or []
    hints: dict[Hint, None] = {}
    pushers: set[str | None] = set()
    ignored = "no event is a push of a tag" if events else "the envelope is empty"
    for event in events:
        target = event.target
        if event.action != "push" or target is None or not target.tag or not target.repository:
            continue
        if not (host := _host(event, options.get("registry"))):
            ignored = "the event names no host that an image could be pulled from; set the source's option `registry`"
            continue
        hints[read_hint(f"{host}/{target.repository}:{target.tag}")] = None
        pushers.add(event.actor.name if event.actor else None)
    if not hints:
        return Reading(ignored=ignored)
    # Where several pushed there is no one who could be the allowed one.
    pusher = pushers.pop() if len(pushers) == 1 else None
    return Reading(hints=tuple(hints), pusher=bounded(pusher))


def _host(event: Event, configured: str | None) -> str | None:
    """Give the registry's host as it stands in references: what was configured, or else what the registry says."""
    request_host = event.request.host if event.request else None
    url = event.target.url if event.target else None
    names = (configured, request_host, _netloc(url or ""))
    return next((name for name in names if name and _can_stand_in_reference(name)), None)


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def _can_stand_in_reference(host: str) -> bool:
    """Tell a host from the first part of a repository by Docker's rule; ``registry`` alone would be on Docker Hub."""
    return "." in host or ":" in host or host == "localhost"
