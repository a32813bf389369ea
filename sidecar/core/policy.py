"""What a container's labels ask of Sidecar; reads labels into values, and says which one is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import TypeVar

_T = TypeVar("_T")
_D = TypeVar("_D")

PREFIX = "sidecar."


class Action(StrEnum):
    """What is done when there is a new digest."""

    RECREATE = "recreate"
    PULL = "pull"
    NOTIFY = "notify"


class Strategy(StrEnum):
    """In which order the old and the new one run."""

    STOP_FIRST = "stop-first"
    START_FIRST = "start-first"


class WhenStopped(StrEnum):
    """What is done with a container that is not running."""

    HOLD = "hold"
    RECREATE = "recreate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A command that is run in the container itself, by its shell.

    Attributes:
        timeout_seconds: how long it may take; None: as long as it takes.
    """

    command: str
    timeout_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The labels of one target, read.

    Attributes:
        min_ready_seconds: how long it must be healthy (or running, without a health check).
        deadline_seconds: how long it may take to become healthy, from its first start.
        settle_seconds: how long to wait after the first hint of a quiet target; None means as set for all.
        depends_on: names of services or containers that are updated before it, beside Compose's own.
        drain_seconds: how long both answer before the old one is stopped, where the new one is started first.
        start_first_volumes: the new one may be started first though both would write to the same volumes.
        pre_update: what is run in the old one before anything is touched; where it fails, nothing is.
        post_update: what is run in the new one once it has passed its gate.
        scope: which of several Sidecars on one engine it belongs to; None is the one without a scope.
    """

    enable: bool = False
    action: Action = Action.RECREATE
    strategy: Strategy = Strategy.STOP_FIRST
    min_ready_seconds: float = 10.0
    deadline_seconds: float = 300.0
    settle_seconds: float | None = None
    rollback: bool = True
    when_stopped: WhenStopped = WhenStopped.HOLD
    depends_on: tuple[str, ...] = ()
    drain_seconds: float = 10.0
    start_first_volumes: bool = False
    pre_update: Hook | None = None
    post_update: Hook | None = None
    scope: str | None = None


# Keys of the public contract that this version cannot do yet. Ignoring one would do what its user
# asked us not to do, so a target that sets it is held with the reason instead.
_NOT_YET = {
    "policy": "digest",
    "approval": "auto",
    "window": "always",
    "min-age": "0",
}
_KNOWN = frozenset(
    {
        "enable",
        "action",
        "strategy",
        "min-ready",
        "deadline",
        "settle",
        "rollback",
        "when-stopped",
        "depends-on",
        "scope",
        "drain",
        "start-first-volumes",
        "hook.pre-update",
        "hook.pre-update-timeout",
        "hook.post-update",
        "hook.post-update-timeout",
        *_NOT_YET,
    }
)

_HOOK_SECONDS = 300.0
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def parse_duration(text: str) -> float:
    """Read ``90``, ``90s``, ``5m`` or ``1h30m`` as seconds.

    Raises:
        ValueError: the text is no duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        msg = f"{text!r} is no duration; write seconds or a form like 90s, 5m, 1h30m"
        raise ValueError(msg)
    hours, minutes, seconds = match.groups(default="0")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def parse_bool(text: str) -> bool:
    """Read ``true`` or ``false`` as people write them.

    Raises:
        ValueError: the text is neither.
    """
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        msg = f"{text!r} is neither true nor false"
        raise ValueError(msg)
    return word in _TRUE


def is_enabled(labels: Mapping[str, str], *, default: bool) -> bool:
    """Say whether the labels ask for Sidecar; a value that cannot be read counts as yes, so that it is reported."""
    text = labels.get(PREFIX + "enable")
    if text is None:
        return default
    return text.strip().lower() not in _FALSE


def parse_policy(labels: Mapping[str, str], *, default_enable: bool = False) -> Policy:
    """Read the ``sidecar.*`` labels.

    Raises:
        ValueError: a label is unknown, unreadable, or asks for what this version cannot do; the message names it.
    """
    ours = {key.removeprefix(PREFIX): value for key, value in labels.items() if key.startswith(PREFIX)}
    if problems := list(_not_accepted(ours)):
        raise ValueError("; ".join(problems))
    return Policy(
        enable=_read(ours, "enable", parse_bool, default_enable),
        action=_read(ours, "action", Action, Action.RECREATE),
        strategy=_read(ours, "strategy", Strategy, Strategy.STOP_FIRST),
        min_ready_seconds=_read(ours, "min-ready", parse_duration, 10.0),
        deadline_seconds=_read(ours, "deadline", parse_duration, 300.0),
        settle_seconds=_read(ours, "settle", parse_duration, None),
        rollback=_read(ours, "rollback", parse_bool, True),
        when_stopped=_read(ours, "when-stopped", WhenStopped, WhenStopped.HOLD),
        depends_on=_names(ours.get("depends-on", "")),
        drain_seconds=_read(ours, "drain", parse_duration, 10.0),
        start_first_volumes=_read(ours, "start-first-volumes", parse_bool, False),
        pre_update=_hook(ours, "hook.pre-update"),
        post_update=_hook(ours, "hook.post-update"),
        scope=ours.get("scope", "").strip() or None,
    )


def _not_accepted(labels: Mapping[str, str]) -> Iterator[str]:
    """Name every label that is not known, or that asks for what this version cannot do."""
    for key, value in labels.items():
        if key not in _KNOWN:
            near = get_close_matches(key, _KNOWN, n=1)
            hint = f"did you mean {PREFIX + near[0]}?" if near else f"known are {', '.join(sorted(_KNOWN))}"
            yield f"label {PREFIX + key} is not known; {hint}"
        elif value.strip() != _NOT_YET.get(key, value.strip()):
            yield f"label {PREFIX + key}={value!r} is not supported yet; remove it, or update this container by hand"


def _hook(labels: Mapping[str, str], key: str) -> Hook | None:
    timeout = _read(labels, f"{key}-timeout", parse_duration, _HOOK_SECONDS)
    command = labels.get(key, "").strip()
    return Hook(command=command, timeout_seconds=timeout or None) if command else None


def _read(labels: Mapping[str, str], key: str, parse: Callable[[str], _T], default: _D) -> _T | _D:
    if (text := labels.get(key)) is None:
        return default
    try:
        return parse(text.strip())
    except ValueError as error:
        choices = f"; accepted are {', '.join(parse)}" if isinstance(parse, type) and issubclass(parse, StrEnum) else ""
        msg = f"label {PREFIX + key}={text!r}: {error}{choices}"
        raise ValueError(msg) from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
