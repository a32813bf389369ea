"""Every event that Sidecar logs or streams, with its level, its keys and its meaning. Alerts are built on this table.

Every line has ``timestamp``, ``level`` and ``event`` beside these keys. What is not known is left out: no key is ever
null or empty. Times are texts as in RFC 3339, in UTC; ids and digests are whole.
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


# What each key means, wherever it stands.
KEYS: Mapping[str, str] = {
    "admin_port": "Second port, of everything but webhooks.",
    "cause": "Why a target was looked at: webhook, cli, plan, start-up, resync, engine, project or watchtower.",
    "current_bytes": "So much of an image has come in.",
    "delivery_id": "One request of a sender or a person.",
    "delivery_ids": "The deliveries that asked for it.",
    "difference": "What is not as before, by place in the engine's inspect.",
    "digest": "What the reference means now, and what is run.",
    "duration_seconds": "How long it took, from when it was wanted; of the daemon: how long it ran.",
    "env": "ENV as set.",
    "error": "What failed: its type and its text.",
    "exit_code": "Of the command; 75 of a pre-update hook says that it is not the time.",
    "from_digest": "What ran before.",
    "grace_seconds": "How long the step in hand is given.",
    "hook": "pre-update or post-update.",
    "host": "Address it listens on.",
    "image": "The image reference as configured, normalised.",
    "image_id": "The engine's own id of an image.",
    "images": "The image references that a sender named.",
    "is_failure": "It failed, or could not be prepared; left out where it is held for any other reason.",
    "layers_done": "So many layers are there.",
    "layers_total": "Of so many.",
    "log_tail": "The last lines of the container that failed.",
    "logger": "The library's logger.",
    "message": "What the library said.",
    "method": "The request's method.",
    "output": "The last lines that a command wrote.",
    "phase": "Phase of the rollout.",
    "pid": "Process id.",
    "port": "Port it listens on.",
    "pusher": "Who pushed, as the sender says.",
    "reason": "Why, in words for a person.",
    "recovery": "Commands by which a person puts the old container back, in their order.",
    "remote": "Address that the request came from.",
    "retry_at": "When it is looked at again without being told.",
    "rollout_id": "One rollout, from its start to its end.",
    "setting": "Name of a setting.",
    "route": "The request's route, without what a client put into it.",
    "spec": "The command that prints what makes the container again; secrets are in what that prints, not here.",
    "source": "Name of the source in SOURCES.",
    "space_reclaimed_bytes": "So much disk is free again, as the engine says.",
    "state_dir": "Folder of journal and tokens.",
    "status": "The HTTP status that the sender was answered.",
    "step": "The engine call.",
    "target": "Id of the target.",
    "targets": "Ids of the targets that a delivery concerns.",
    "total_bytes": "Of so much.",
    "traceback": "Where it failed; at level debug only.",
    "version": "Version of Sidecar.",
    "volume": "Name of a volume.",
}

_DELIVERY = ("delivery_id", "source", "remote", "pusher", "images", "reason", "status")
_PASS = ("target", "cause", "delivery_ids", "image", "digest", "reason")
_ROLLOUT = (*_PASS, "rollout_id", "from_digest", "phase")
_PHASE = (*_ROLLOUT, "duration_seconds", "log_tail")
_HOOK = ("target", "rollout_id", "hook", "reason", "exit_code", "duration_seconds", "output")

EVENTS: Mapping[str, Event] = {
    "daemon.started": _event("info", "It serves.", "version", "env", "host", "port", "admin_port", "state_dir", "pid"),
    "daemon.stopping": _event("info", "It was told to stop.", "grace_seconds"),
    "daemon.failed": _event("error", "It cannot start; its exit status is 3.", "reason"),
    "daemon.stopped": _event("info", "It is done.", "duration_seconds"),
    "setting.ignored": _event("warning", "A name of Watchtower's asks for what is not done.", "setting", "reason"),
    "delivery.accepted": _event("info", "A request was believed and kept.", *_DELIVERY),
    "delivery.ignored": _event("info", "A request was believed and nothing follows from it.", *_DELIVERY),
    "delivery.rejected": _event("warning", "A request was not believed or not allowed.", *_DELIVERY, "error"),
    "delivery.matched": _event("info", "Whom a delivery concerns is known.", "delivery_id", "source", "targets"),
    "delivery.unmatched": _event(
        "warning", "A delivery concerns nobody here.", "delivery_id", "source", "images", "reason"
    ),
    "delivery.confirmed": _event(
        "info", "Docker Hub's legacy callback was answered.", "delivery_id", "source", "reason"
    ),
    "delivery.unconfirmed": _event(
        "warning", "Docker Hub's legacy callback could not be answered.", "delivery_id", "source", "reason"
    ),
    "credentials.failed": _event(
        "warning", "Registry credentials cannot be read; the engine asks as nobody.", "reason"
    ),
    "engine.failed": _event("warning", "The engine does not answer; work waits.", "reason"),
    "engine.connected": _event("info", "The engine answers."),
    "image.resolved": _event(
        "debug", "A registry said what a reference means now.", "target", "cause", "image", "digest"
    ),
    "image.pulled": _event("info", "An image is in the engine's store.", "target", "image", "digest"),
    "image.removed": _event("info", "An image that an update took out of use was removed.", "target", "image_id"),
    "image.pruned": _event("info", "What nothing uses was removed.", "target", "space_reclaimed_bytes"),
    "volume.remove_failed": _event(
        "warning", "A volume that was made for a container which is gone stays behind.", "target", "volume", "reason"
    ),
    "image.prune_failed": _event("warning", "Cleaning up failed; nothing depends on it.", "target", "reason"),
    "pull.progressed": _event(
        None,
        "How far a pull is.",
        *("target", "image", "digest", "current_bytes", "total_bytes", "layers_done", "layers_total"),
    ),
    "target.kept": _event("info", "A target is as it should be.", *_PASS),
    "target.held": _event(
        "warning", "Something could be done for a target and is not.", *_PASS, "retry_at", "is_failure"
    ),
    "rollout.started": _event("info", "A rollout began.", *_ROLLOUT),
    "rollout.updating": _event("debug", "The new container takes the place of the old one.", *_PHASE),
    "rollout.finishing": _event("info", "The new one passed its gate; what is left is to tidy up.", *_PHASE),
    "rollout.rolling_back": _event("warning", "It failed its gate; the old one is put back.", *_PHASE),
    "rollout.succeeded": _event("info", "The new one runs.", *_PHASE),
    "rollout.rolled_back": _event("error", "The old one runs again.", *_PHASE, "spec"),
    "rollout.failed": _event("error", "Neither runs as it should.", *_PHASE, "spec", "recovery"),
    "rollout.superseded": _event("info", "A newer digest took its place.", *_PHASE),
    "rollout.abandoned": _event("warning", "Somebody else changed the target meanwhile; it is left alone.", *_PHASE),
    "rollout.stepped": _event("debug", "The next engine call is made.", "target", "rollout_id", "phase", "step"),
    "rollout.noted": _event(
        "info",
        "Something will be different though nothing is lost, or is lost by design.",
        "target",
        "rollout_id",
        "reason",
    ),
    "rollout.changed": _event(
        "info", "What the recreate changed beside the image.", "target", "rollout_id", "difference"
    ),
    "hook.succeeded": _event("info", "A command of the user ran in a container.", *_HOOK),
    "hook.postponed": _event("info", "A command of the user says that it is not the time for the update.", *_HOOK),
    "hook.failed": _event("warning", "A command of the user failed.", *_HOOK),
    "hook.skipped": _event("warning", "A command of the user was not run.", *_HOOK),
    "rollout.delayed": _event("warning", "A call failed; it is tried again.", *_ROLLOUT),
    "pass.crashed": _event("error", "A defect of Sidecar; the target is looked at again.", "target", "error"),
    "journal.failed": _event("error", "The journal cannot be written.", *_ROLLOUT),
    "request.failed": _event(
        "error", "A defect of Sidecar; the client was answered 500.", "method", "route", "error", "traceback"
    ),
    "library.logged": _event("warning", "What a library had to say.", "logger", "message", "error", "traceback"),
}
