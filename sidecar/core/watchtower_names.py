"""Every name of Watchtower's and of its forks that Sidecar knows, what becomes of it, and how its value is read.

``docs/migrate-from-watchtower.md`` says the same to people; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

PREFIX = "com.centurylinklabs.watchtower"
ORIGINAL_IMAGE = "com.centurylinklabs.zodiac.original-image"


# As Go's strconv.ParseBool reads them.
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class Fate(StrEnum):
    """What becomes of a name of Watchtower's."""

    HONOURED = "honoured"
    REPLACED = "replaced"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Known:
    """One name of Watchtower's, or of a fork.

    Attributes:
        words: why it is not honoured and what to do instead; of one that is honoured nothing is to be said.
    """

    fate: Fate
    words: str = ""


@dataclass(frozen=True, slots=True)
class Remark:
    """One name that is not honoured as it stands, and what to do about it."""

    name: str
    says: str

    def __str__(self) -> str:
        """Write it in one line."""
        return f"{self.name}: {self.says}"


_HONOURED = Known(Fate.HONOURED)
_POLLED = "it is run at every poll, and Sidecar does not poll; use lifecycle.pre-update, or the image's health check"
_AGE = "sidecar.min-age takes its place: it lets a digest rest since it was first seen here"
_INTERNAL = "a mark that the fork makes for itself; Sidecar needs none"
LABELS: Mapping[str, Known] = {
    PREFIX: _HONOURED,
    **{
        f"{PREFIX}.{name}": known
        for name, known in {
            "enable": _HONOURED,
            "monitor-only": _HONOURED,
            "no-pull": Known(
                Fate.REPLACED,
                "images that are only built or pulled here are not watched: it is told what the registry has, and "
                "nothing is done (sidecar.action=notify); `docker compose up -d` recreates on the local image",
            ),
            "scope": _HONOURED,
            "depends-on": _HONOURED,
            "stop-signal": Known(
                Fate.REFUSED,
                "a container is stopped by its own signal, which Watchtower ignored: set `stop_signal` in its Compose "
                "file or STOPSIGNAL in its image, and take the label away; until then it is held",
            ),
            "lifecycle.pre-check": Known(Fate.REFUSED, _POLLED),
            "lifecycle.post-check": Known(Fate.REFUSED, _POLLED),
            "lifecycle.pre-update": _HONOURED,
            "lifecycle.post-update": _HONOURED,
            "lifecycle.pre-update-timeout": _HONOURED,
            "lifecycle.post-update-timeout": _HONOURED,
            "lifecycle.uid": Known(Fate.REFUSED, "hooks run as the container's own user; with hooks it is held"),
            "lifecycle.gid": Known(Fate.REFUSED, "hooks run as the container's own user; with hooks it is held"),
            "cooldown-delay": Known(Fate.REPLACED, _AGE),
            "image-cooldown": Known(Fate.REPLACED, _AGE),
            "container-chain": Known(Fate.REFUSED, _INTERNAL),
            "ephemeral-orchestrator": Known(Fate.REFUSED, _INTERNAL),
            "health-check-timeout": Known(Fate.REPLACED, "sidecar.deadline takes its place, health check or not"),
            "update-strategy": Known(
                Fate.REPLACED,
                "sidecar.strategy takes its place: blue-green is start-first; replicas are updated one by one anyway",
            ),
            "blue-green.drain": Known(Fate.REPLACED, "sidecar.drain takes its place"),
            "no-init-deps": Known(Fate.REFUSED, "Sidecar starts no container but the one that it updates"),
        }.items()
    },
    ORIGINAL_IMAGE: Known(
        Fate.REFUSED,
        "only the reference counts that the container was made with: make it anew by this one, and take the label "
        "away; until then it is held",
    ),
}


_NOT_NOTIFIED = Known(
    Fate.REFUSED,
    "nothing is sent yet: follow the log (one JSON line a fact) or GET /api/v1/events, and alert on "
    "rollout.rolled_back, rollout.failed and target.held",
)
# Whatever begins so is about notifications.
NOTIFICATIONS = "WATCHTOWER_NOTIFICATION"
ENVIRONMENT: Mapping[str, Known] = {
    "WATCHTOWER_CLEANUP": _HONOURED,
    "WATCHTOWER_DEBUG": _HONOURED,
    "WATCHTOWER_DISABLE_CONTAINERS": _HONOURED,
    "WATCHTOWER_HTTP_API_METRICS": _HONOURED,
    "WATCHTOWER_HTTP_API_PERIODIC_POLLS": _HONOURED,
    "WATCHTOWER_HTTP_API_TOKEN": _HONOURED,
    "WATCHTOWER_HTTP_API_UPDATE": _HONOURED,
    "WATCHTOWER_INCLUDE_RESTARTING": _HONOURED,
    "WATCHTOWER_INCLUDE_STOPPED": _HONOURED,
    "WATCHTOWER_LABEL_ENABLE": _HONOURED,
    "WATCHTOWER_LABEL_TAKE_PRECEDENCE": _HONOURED,
    "WATCHTOWER_LIFECYCLE_HOOKS": _HONOURED,
    "WATCHTOWER_LOG_FORMAT": _HONOURED,
    "WATCHTOWER_LOG_LEVEL": _HONOURED,
    "WATCHTOWER_MONITOR_ONLY": _HONOURED,
    "WATCHTOWER_NO_PULL": Known(Fate.REPLACED, LABELS[f"{PREFIX}.no-pull"].words),
    "WATCHTOWER_NO_RESTART": Known(
        Fate.REPLACED,
        "images are kept pulled and no container is touched (sidecar.action=pull); Watchtower stopped and removed it, "
        "for systemd to make it anew: let that be done when image.pulled is logged",
    ),
    "WATCHTOWER_NO_STARTUP_MESSAGE": _HONOURED,
    NOTIFICATIONS + "*": _NOT_NOTIFIED,
    "WATCHTOWER_POLL_INTERVAL": _HONOURED,
    "WATCHTOWER_PORCELAIN": Known(
        Fate.REFUSED, "`sidecar update --json --wait` and `sidecar history --json` are for programs"
    ),
    "WATCHTOWER_REMOVE_VOLUMES": Known(
        Fate.REFUSED, "volumes are never removed with a container; `docker volume prune` removes what nothing uses"
    ),
    "WATCHTOWER_REVIVE_STOPPED": Known(
        Fate.REFUSED, "what was stopped stays stopped: start it, or give it a restart policy"
    ),
    "WATCHTOWER_ROLLING_RESTART": _HONOURED,
    "WATCHTOWER_RUN_ONCE": Known(
        Fate.REFUSED, "the daemon stays; from cron run `sidecar update TARGET --wait`, or ask /v1/update"
    ),
    "WATCHTOWER_SCHEDULE": Known(
        Fate.REFUSED,
        "there is no timetable: webhooks say when, and SIDECAR_RESYNC_SECONDS how often it looks by itself (0: never); "
        "for a fixed time let cron ask /v1/update",
    ),
    "WATCHTOWER_SCOPE": _HONOURED,
    "WATCHTOWER_TIMEOUT": Known(
        Fate.REPLACED,
        "each container's own stop grace counts: `stop_grace_period` in its Compose file (10 seconds without)",
    ),
    "WATCHTOWER_TRACE": _HONOURED,
    "WATCHTOWER_WARN_ON_HEAD_FAILURE": Known(
        Fate.REFUSED, "a registry that does not answer is always told, and no image is pulled to find out"
    ),
    "REPO_USER": _HONOURED,
    "REPO_PASS": _HONOURED,
    "DOCKER_API_VERSION": Known(Fate.REFUSED, "the version is negotiated with the engine at the start"),
    "DOCKER_CONFIG": _HONOURED,
    "DOCKER_HOST": _HONOURED,
    "DOCKER_TLS_VERIFY": Known(
        Fate.REFUSED, "client certificates are not supported: mount the engine's socket, or put a proxy before it"
    ),
    "NO_COLOR": Known(
        Fate.REPLACED, "lines have colours on a terminal only; SIDECAR_LOG_FORMAT=logfmt has none anywhere"
    ),
    "TZ": Known(Fate.REFUSED, "every time is written in UTC, as RFC 3339 has it"),
}


def fate_of(variable: str) -> Known | None:
    """Look up a variable of the environment; None when neither Watchtower nor we know it."""
    return ENVIRONMENT.get(NOTIFICATIONS + "*" if variable.startswith(NOTIFICATIONS) else variable)


def parse_bool(text: str | None) -> bool | None:
    """Read true or false as Go does; None for anything else, which counts as not set."""
    return True if text in _TRUE else False if text in _FALSE else None


def names_in(text: str) -> list[str]:
    """Read names as they are listed; a slash before one is the engine's."""
    return [name.strip().removeprefix("/") for name in re.split(r"[,\s]+", text) if name.strip("/ ")]


def is_off(text: str) -> bool:
    """Say whether a value asks for nothing."""
    return not text.strip() or parse_bool(text) is False
