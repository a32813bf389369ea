"""Whose pushes, and pushes to what, count: the settings ALLOWED_PUSHERS and ALLOWED_REPOSITORIES."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate

from sidecar.core.hint import Hint, Reading
from sidecar.core.image import ImageRef
from sidecar.sources.body import shown

_MOST_NAMED = 3  # in a reason


@dataclass(frozen=True, slots=True)
class Admission:
    """What is let in of a reading.

    Attributes:
        hints: those that count.
        refused: why others, or all, do not; None when nothing is refused.
    """

    hints: tuple[Hint, ...]
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Allowed:
    """Two lists of exact names or globs, upper and lower case told apart; None lets everything in."""

    pushers: re.Pattern[str] | None = None
    repositories: re.Pattern[str] | None = None

    @classmethod
    def of(cls, *, pushers: Iterable[str] = (), repositories: Iterable[str] = ()) -> Allowed:
        """Take the settings; an empty list lets everything in."""
        return cls(_any_of(pushers), _any_of(repositories))

    def admit(self, reading: Reading) -> Admission:
        """Judge a reading: by its pusher as a whole, by its repositories one at a time."""
        if self.pushers is not None and not self.pushers.fullmatch(reading.pusher or ""):
            who = f"the pusher {shown(reading.pusher)}" if reading.pusher else "a push that does not name its pusher"
            return Admission((), f"{who} is not allowed")
        if self.repositories is None:
            return Admission(reading.hints)
        admitted = tuple(hint for hint in reading.hints if _names(hint.ref, self.repositories))
        if len(admitted) == len(reading.hints):
            return Admission(admitted)
        refused = dict.fromkeys(hint.ref.familiar_name for hint in reading.hints if hint not in admitted)
        names = ", ".join(list(refused)[:_MOST_NAMED]) + (", ..." if len(refused) > _MOST_NAMED else "")
        return Admission(admitted, f"not an allowed repository: {names}")


def _names(ref: ImageRef, pattern: re.Pattern[str]) -> bool:
    return (pattern.fullmatch(ref.familiar_name) or pattern.fullmatch(ref.name)) is not None


def _any_of(patterns: Iterable[str]) -> re.Pattern[str] | None:
    parts = [translate(pattern) for pattern in patterns]
    return re.compile("|".join(parts)) if parts else None
