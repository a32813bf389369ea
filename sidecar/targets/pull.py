"""What the stream of a pull says: how far it is, and whether a failure is the registry's no. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_TELL_SECONDS = 0.1

_DONE = frozenset({"Pull complete", "Already exists"})
_DOWNLOADED = frozenset({"Download complete", "Verifying Checksum", "Extracting", *_DONE})
# The first event has an id as well: the tag or digest that was asked for.
_NOT_A_LAYER = "Pulling from"

# The words in which engines, with either image store, pass on that a registry does not know an image or does not let
# us see it, and that an image is made for other machines. An outage says none of them ("no such host", "i/o timeout",
# "connection refused", "received unexpected HTTP status: 503", "toomanyrequests").
_REFUSAL = re.compile(
    r"manifest unknown|name unknown|blob unknown|(manifest|reference) \S+ not found"
    r"|repository (\S+ )?(does not exist|not found)|failed to resolve reference \S+ \S+: not found"
    r"|unauthorized|authentication required|no basic auth credentials|incorrect username or password"
    r"|insufficient_scope|authorization failed|(?<!permission )\bdenied\b|\b(401|403)\b (unauthorized|forbidden)"
    r"|no matching manifest|no match for platform|does not match the specified platform"
    r"|cannot be used on this platform",
    re.IGNORECASE,
)


# An outage, whatever else stands in the message: registries answer some of these through words of refusal.
_OUTAGE = re.compile(r"toomanyrequests|too many requests|rate limit|no space left|timeout|deadline", re.IGNORECASE)


class PullProgress:
    """Adds up the events of one pull."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}
        self._done: set[str] = set()

    def feed(self, event: Mapping[str, Any]) -> None:
        """Take one event in; one that says nothing of a layer changes nothing."""
        layer, status = event.get("id"), event.get("status") or ""
        if not layer or status.startswith(_NOT_A_LAYER):
            return
        current, total = self._layers.get(layer, (0, 0))
        detail = event.get("progressDetail") or {}
        if status == "Downloading":
            current, total = detail.get("current") or 0, detail.get("total") or total
        elif status in _DOWNLOADED:
            # An engine that unpacks while it downloads never says how big a small layer is.
            current = total
        self._layers[layer] = (current, total)
        if status in _DONE:
            self._done.add(layer)

    def complete(self) -> None:
        """Take every layer for done: the stream has ended well. Engines do not say it of each (containerd's store)."""
        self._layers = {layer: (total, total) for layer, (_, total) in self._layers.items()}
        self._done = set(self._layers)

    def numbers(self) -> dict[str, int]:
        """Give the sums over all layers known by now; the total grows while the engine learns of their sizes."""
        return {
            "current_bytes": sum(current for current, _ in self._layers.values()),
            "total_bytes": sum(total for _, total in self._layers.values()),
            "layers_done": len(self._done),
            "layers_total": len(self._layers),
        }


def follow(
    events: Iterable[Mapping[str, Any]],
    *,
    tell: Callable[[dict[str, Any]], object],
    clock: Callable[[], float],
) -> str | None:
    """Read a pull to its end, telling how far it is ten times a second and at the end; give the reason if it failed."""
    progress, told = PullProgress(), float("-inf")
    for event in events:
        if (failure := _failure_of(event)) is not None:
            return failure
        progress.feed(event)
        if (now := clock()) - told >= _TELL_SECONDS:
            told = now
            tell(progress.numbers())
    progress.complete()
    tell(progress.numbers())
    return None


def is_refusal(message: str) -> bool:
    """Say whether the registry said no (trying again does not help), rather than that something was down or full."""
    return _OUTAGE.search(message) is None and _REFUSAL.search(message) is not None


def without_secrets(message: str, auth: Mapping[str, Any]) -> str:
    """Take out of a registry's words what we logged in with."""
    for name in ("password", "identitytoken", "registrytoken", "auth"):
        if secret := auth.get(name):
            message = message.replace(str(secret), "***")
    return message


def _failure_of(event: Mapping[str, Any]) -> str | None:
    detail = event.get("errorDetail")
    message = detail.get("message") if isinstance(detail, Mapping) else None
    if message or event.get("error"):
        return str(message or event["error"])
    return None if detail is None else "the engine gives no reason"
