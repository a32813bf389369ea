"""What Watchtower's labels ask for, in labels of ours, so that nothing behind this knows Watchtower.

A label of ours on the same container wins. Whatever is not done as Watchtower did it is a remark with the reason, or
holds the container where leaving it out would do what its owner asked not to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from sidecar.core.watchtower_names import LABELS, ORIGINAL_IMAGE, PREFIX, Fate, Remark, is_off, names_in, parse_bool

NO_SCOPE = "none"
_OURS = "sidecar."
_WHOLE = re.compile(r"[+-]?[0-9]+")
_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
_UNIT_SECONDS = (604800, 86400, 3600, 60, 1)
_STRATEGIES = {"blue-green": "start-first", "recreate": "stop-first", "rolling-restart": "stop-first"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What Watchtower's settings ask for all containers.

    Attributes:
        scope: of this Sidecar; without one every scope is looked after.
        label_take_precedence: a label wins over the setting; otherwise either of them is enough.
        no_restart: what runs is not touched; only images are kept pulled.
        disable_containers: names that are left alone.
    """

    scope: str | None = None
    monitor_only: bool = False
    no_pull: bool = False
    no_restart: bool = False
    label_take_precedence: bool = False
    lifecycle_hooks: bool = False
    include_stopped: bool = False
    disable_containers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Translated:
    """A container's labels, in words of ours.

    Attributes:
        origins: of the labels that were not there, what asked for them.
        excluded: why it is no target, where that is Watchtower's word; None otherwise.
        refusal: why it is held.
    """

    labels: Mapping[str, str]
    origins: Mapping[str, str] = field(default_factory=dict)
    excluded: str | None = None
    refusal: str | None = None
    remarks: tuple[Remark, ...] = ()

    def explained(self, problem: str) -> str:
        """Add to what is wrong with a label what asked for it."""
        origin = next((origin for label, origin in self.origins.items() if f"{label}=" in problem), None)
        return f"{problem} (asked for by {origin})" if origin is not None else problem


@dataclass(frozen=True, slots=True)
class _Asked:
    """One label of ours, and what asks for it."""

    label: str
    value: str
    origin: str


def translate(
    name: str, labels: Mapping[str, str], rules: Rules, *, neighbours: Mapping[str, str] | None = None
) -> Translated:
    """Say in labels of ours what a container's labels and the settings ask for.

    Args:
        neighbours: names of containers that it may depend on, to what ``sidecar.depends-on`` calls them.
    """
    theirs = {key: value for key, value in labels.items() if key in LABELS or key.startswith(f"{PREFIX}.")}
    own = {key: value for key, value in labels.items() if key not in theirs}
    if theirs.get(PREFIX) == "true":
        excluded = "it is a Watchtower, which updates the same containers; remove it"
        return Translated(labels=own | {f"{_OURS}enable": "false"}, excluded=excluded)
    wanted = [
        asked
        for asked in (
            *_enable(name, theirs, rules),
            *_action(theirs, rules),
            *_scope(theirs, rules),
            *_order(theirs, neighbours or {}),
            *_stopped(rules),
            *_hooks(theirs, rules),
            *_forks(theirs),
        )
        if asked.label not in own
    ]
    given = {asked.label: asked for asked in reversed(wanted)}
    is_excluded = f"{_OURS}enable" in given and given[f"{_OURS}enable"].value == "false"
    return Translated(
        labels={asked.label: asked.value for asked in given.values()} | own,
        origins={asked.label: asked.origin for asked in given.values()},
        excluded=f"{given[f'{_OURS}enable'].origin} leaves it out" if is_excluded else None,
        refusal=_refusal(theirs, own, rules, is_recreated=_is_recreated(given, own)),
        remarks=tuple(_remarks(theirs, neighbours)),
    )


def _label(name: str, theirs: Mapping[str, str]) -> str:
    return f"label {PREFIX}.{name}={theirs[f'{PREFIX}.{name}']!r}"


def _flag(name: str, theirs: Mapping[str, str], is_set: bool, rules: Rules) -> str | None:  # noqa: FBT001 - of two
    """Give what asks for a thing that a label and a setting can ask for; None where neither does."""
    said = parse_bool(theirs.get(f"{PREFIX}.{name}"))
    if said:
        return _label(name, theirs)
    if not is_set or (said is False and rules.label_take_precedence):
        return None
    return "WATCHTOWER_" + name.upper().replace("-", "_")


def _enable(name: str, theirs: Mapping[str, str], rules: Rules) -> Iterator[_Asked]:
    if name in rules.disable_containers:
        yield _Asked(f"{_OURS}enable", "false", "WATCHTOWER_DISABLE_CONTAINERS")
    if (said := parse_bool(theirs.get(f"{PREFIX}.enable"))) is not None:
        yield _Asked(f"{_OURS}enable", "true" if said else "false", _label("enable", theirs))


def _action(theirs: Mapping[str, str], rules: Rules) -> Iterator[_Asked]:
    for name, is_set in (("monitor-only", rules.monitor_only), ("no-pull", rules.no_pull)):
        if (origin := _flag(name, theirs, is_set, rules)) is not None:
            yield _Asked(f"{_OURS}action", "notify", origin)
    if rules.no_restart:
        yield _Asked(f"{_OURS}action", "pull", "WATCHTOWER_NO_RESTART")


def _scope(theirs: Mapping[str, str], rules: Rules) -> Iterator[_Asked]:
    if rules.scope is None:
        return
    text = theirs.get(f"{PREFIX}.scope", "")
    origin = _label("scope", theirs) if text else "WATCHTOWER_SCOPE"
    yield _Asked(f"{_OURS}scope", text or NO_SCOPE, origin)


def _order(theirs: Mapping[str, str], neighbours: Mapping[str, str]) -> Iterator[_Asked]:
    if names := names_in(theirs.get(f"{PREFIX}.depends-on", "")):
        value = ",".join(neighbours.get(name, name) for name in names)
        yield _Asked(f"{_OURS}depends-on", value, _label("depends-on", theirs))


def _stopped(rules: Rules) -> Iterator[_Asked]:
    if rules.include_stopped:
        yield _Asked(f"{_OURS}when-stopped", "recreate", "WATCHTOWER_INCLUDE_STOPPED")


def _hooks(theirs: Mapping[str, str], rules: Rules) -> Iterator[_Asked]:
    for name in ("pre-update", "post-update") if rules.lifecycle_hooks else ():
        if not (command := theirs.get(f"{PREFIX}.lifecycle.{name}", "")):
            continue
        origin = _label(f"lifecycle.{name}", theirs)
        yield _Asked(f"{_OURS}hook.{name}", command, origin)
        minutes = _minutes(theirs.get(f"{PREFIX}.lifecycle.{name}-timeout", ""))
        yield _Asked(f"{_OURS}hook.{name}-timeout", f"{1 if minutes is None else max(minutes, 0)}m", origin)


def _minutes(text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text) else None


def _forks(theirs: Mapping[str, str]) -> Iterator[_Asked]:
    """Translate what the forks added, as far as it can be read."""
    for name, ours in (
        ("cooldown-delay", "min-age"),
        ("image-cooldown", "min-age"),
        ("health-check-timeout", "deadline"),
        ("blue-green.drain", "drain"),
    ):
        if (duration := _duration(theirs.get(f"{PREFIX}.{name}", ""))) is not None:
            yield _Asked(_OURS + ours, duration, _label(name, theirs))
    if (strategy := _STRATEGIES.get(theirs.get(f"{PREFIX}.update-strategy", ""))) is not None:
        yield _Asked(f"{_OURS}strategy", strategy, _label("update-strategy", theirs))


def _duration(text: str) -> str | None:
    """Write ``3d`` or ``1h30m`` as labels of ours have it; None where it is no duration."""
    if text == "0":
        return "0"
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        return None
    seconds = sum(int(number) * unit for number, unit in zip(match.groups(default="0"), _UNIT_SECONDS, strict=True))
    unit, letter = next(((unit, letter) for unit, letter in ((3600, "h"), (60, "m")) if seconds % unit == 0), (1, "s"))
    return f"{seconds // unit}{letter}" if seconds else "0"


def _is_recreated(given: Mapping[str, _Asked], own: Mapping[str, str]) -> bool:
    action = f"{_OURS}action"
    return action not in given and own.get(action, "recreate") == "recreate"


def _refusal(theirs: Mapping[str, str], own: Mapping[str, str], rules: Rules, *, is_recreated: bool) -> str | None:
    """Say why a container is held: to leave out what is asked for would do what its owner asked not to do."""
    has_hooks = (
        is_recreated
        and rules.lifecycle_hooks
        and any(theirs.get(f"{PREFIX}.lifecycle.{name}-update") for name in ("pre", "post"))
    )
    held = [ORIGINAL_IMAGE]
    held += [f"{PREFIX}.stop-signal"] if is_recreated else []
    held += [f"{PREFIX}.lifecycle.uid", f"{PREFIX}.lifecycle.gid"] if has_hooks else []
    for key in held:
        if theirs.get(key):
            return f"label {key}={theirs[key]!r} is not supported: {LABELS[key].words}"
    for name in ("cooldown-delay", "image-cooldown"):
        text = theirs.get(f"{PREFIX}.{name}", "")
        if text and _duration(text) is None and f"{_OURS}min-age" not in own:
            return f"{_label(name, theirs)} is no duration; a form like 24h, 3d or 1w is accepted"
    return None


def _remarks(theirs: Mapping[str, str], neighbours: Mapping[str, str] | None) -> Iterator[Remark]:
    for key, value in theirs.items():
        if key not in LABELS:
            close = get_close_matches(key, LABELS, n=1)
            yield Remark(key, "is no label of Watchtower's" + (f"; did you mean {close[0]}?" if close else ""))
        elif LABELS[key].fate is not Fate.HONOURED and not is_off(value):
            yield Remark(key, LABELS[key].words)
    for name in ("enable", "monitor-only", "no-pull"):
        if (text := theirs.get(f"{PREFIX}.{name}")) is not None and parse_bool(text) is None:
            yield Remark(f"{PREFIX}.{name}", f"{text!r} is neither true nor false, and counts as not set")
    for name in ("lifecycle.pre-update-timeout", "lifecycle.post-update-timeout"):
        if (text := theirs.get(f"{PREFIX}.{name}")) is not None and _minutes(text) is None:
            yield Remark(f"{PREFIX}.{name}", f"{text!r} is no whole number of minutes; one minute counts")
    for name in names_in(theirs.get(f"{PREFIX}.depends-on", "")):
        if neighbours is not None and name not in neighbours and name not in neighbours.values():
            says = f"{name!r} is no container of its Compose project (or outside of any, as it is itself)"
            yield Remark(f"{PREFIX}.depends-on", f"{says}; it is updated without regard to that")
