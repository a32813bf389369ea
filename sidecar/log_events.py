"""Every event that Sidecar logs or streams, with its level, its keys and its meaning. Alerts are built on this table.

Every line has ``timestamp``, ``level`` and ``event`` beside these keys; a key that has nothing to say may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of fact.

    Attributes:
        level: that it is logged at; None: it is only streamed to those who watch.
        keys: what it may say.
    """

    level: Level | None
    keys: frozenset[str]
    meaning: str


def _event(level: Level | None, meaning: str, *keys: str) -> Event:
    return Event(level, frozenset(keys), meaning)


_DELIVERY = ("delivery_id", "source", "remote", "pusher", "images", "reason", "status", "error")
_PASS = ("target", "cause", "delivery_ids", "image", "digest", "reason", "retry_at", "error")
_ROLLOUT = (*_PASS, "rollout_id", "from_digest", "phase", "duration_seconds")

EVENTS: Mapping[str, Event] = {
    "daemon.started": _event("info", "It serves.", "version", "env", "host", "port", "admin_port", "state_dir", "pid"),
    "daemon.stopping": _event("info", "It was told to stop.", "signal", "grace_seconds"),
    "daemon.failed": _event("error", "It cannot start; its exit status is 3.", "reason"),
    "daemon.stopped": _event("info", "It is done.", "duration_seconds", "reason"),
    "delivery.accepted": _event("info", "A request was believed and kept.", *_DELIVERY),
    "delivery.ignored": _event("info", "A request was believed and nothing follows from it.", *_DELIVERY),
    "delivery.rejected": _event("warning", "A request was not believed or not allowed.", *_DELIVERY),
    "delivery.matched": _event("info", "Whom a delivery concerns is known.", "delivery_id", "source", "targets"),
    "delivery.unmatched": _event("warning", "A delivery concerns nobody here.", *_DELIVERY),
    "delivery.confirmed": _event("info", "Docker Hub's legacy callback was answered.", *_DELIVERY),
    "delivery.unconfirmed": _event("warning", "Docker Hub's legacy callback could not be answered.", *_DELIVERY),
    "credentials.failed": _event(
        "warning", "Registry credentials cannot be read; the engine asks as nobody.", "reason"
    ),
    "engine.failed": _event("warning", "The engine does not answer; work waits.", "reason"),
    "engine.connected": _event("info", "The engine answers.", "url", "api_version", "platform"),
    "image.resolved": _event("debug", "A registry said what a reference means now.", *_PASS),
    "image.pulled": _event("info", "An image is in the engine's store.", *_ROLLOUT, "bytes"),
    "image.removed": _event("info", "An image that an update took out of use was removed.", "target", "image_id"),
    "image.pruned": _event("info", "What nothing uses was removed.", "target", "space_reclaimed_bytes"),
    "image.prune_failed": _event("warning", "Cleaning up failed; nothing depends on it.", "target", "reason"),
    "pull.progressed": _event(
        None, "How far a pull is.", *_ROLLOUT, "current_bytes", "total_bytes", "layers_done", "layers_total"
    ),
    "target.kept": _event("info", "A target is as it should be.", *_PASS),
    "target.held": _event("warning", "Something could be done for a target and is not.", *_PASS),
    "rollout.started": _event("info", "A rollout began.", *_ROLLOUT),
    "rollout.updating": _event("debug", "The new container takes the place of the old one.", *_ROLLOUT),
    "rollout.finishing": _event("info", "The new one passed its gate; what is left is to tidy up.", *_ROLLOUT),
    "rollout.rolling_back": _event("warning", "It failed its gate; the old one is put back.", *_ROLLOUT, "log_tail"),
    "rollout.succeeded": _event("info", "The new one runs.", *_ROLLOUT),
    "rollout.rolled_back": _event("error", "The old one runs again.", *_ROLLOUT, "log_tail"),
    "rollout.failed": _event("error", "Neither runs as it should.", *_ROLLOUT, "log_tail"),
    "rollout.stepped": _event("debug", "The next engine call is made.", *_ROLLOUT, "step"),
    "rollout.noted": _event("info", "Something will be different though nothing is lost.", *_ROLLOUT),
    "rollout.changed": _event("info", "What the recreate changed beside the image.", *_ROLLOUT, "difference"),
    "rollout.superseded": _event("info", "A newer digest took its place.", *_ROLLOUT),
    "rollout.abandoned": _event("warning", "Somebody else changed the target meanwhile; it is left alone.", *_ROLLOUT),
    "rollout.delayed": _event("warning", "A call failed; it is tried again.", *_ROLLOUT),
    "pass.crashed": _event("error", "A defect of Sidecar; the target is looked at again.", *_PASS),
    "journal.failed": _event("error", "The journal cannot be written.", *_ROLLOUT),
    "request.failed": _event("error", "A defect of Sidecar; the client was answered 500.", "method", "route", "error"),
    "library.logged": _event("warning", "What a library had to say.", "logger", "message", "error", "traceback"),
}
