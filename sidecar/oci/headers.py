"""Header fields of registries and token servers, read into values: challenges, waits, rate limits. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

# Whatever a host says, it is asked again after this long: Docker Hub's window of six hours is the longest known.
LONGEST_WAIT_SECONDS = 6 * 3600.0

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a token of RFC 9110's grammar
_SCHEME = re.compile(rf"({_TOKEN})(?:[ \t]+|$|(?=,))")
# Unquoted values are not held to RFC 9110: registries in the field leave the quotes off whole addresses.
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')
_BETWEEN = re.compile(r"[\s,]*")
_RATE = re.compile(r"\s*(\d{1,12})\s*(?:;\s*w\s*=\s*(\d{1,9}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One way to log in that a 401 offers.

    Attributes:
        scheme: ``bearer``, ``basic`` or another, lower case.
        parameters: by lower-case name.
    """

    scheme: str
    parameters: Mapping[str, str]

    @property
    def realm(self) -> str:
        """The token server's address (for ``basic``: a name for people)."""
        return self.parameters.get("realm", "")

    @property
    def service(self) -> str:
        """What the token server calls the registry."""
        return self.parameters.get("service", "")

    @property
    def scope(self) -> str:
        """What has to be allowed; several are separated by spaces."""
        return self.parameters.get("scope", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """How many pulls a registry allows in a window, and how many are left."""

    limit: int
    remaining: int
    window_seconds: int


def read_challenges(fields: Iterable[str]) -> tuple[Challenge, ...]:
    """Read every challenge of the ``WWW-Authenticate`` fields; what is no challenge is left out."""
    return tuple(challenge for field in fields for challenge in _challenges(field))


def choose_challenge(challenges: Iterable[Challenge]) -> Challenge | None:
    """Give the one to answer: a token where there is a server to ask for it, a password otherwise."""
    known = list(challenges)
    bearer = (challenge for challenge in known if challenge.scheme == "bearer" and challenge.realm)
    basic = (challenge for challenge in known if challenge.scheme == "basic")
    return next(bearer, None) or next(basic, None)


def _challenges(field: str) -> Iterator[Challenge]:
    scheme, parameters, position = "", dict[str, str](), 0
    while (position := _past(_BETWEEN, field, position)) < len(field):
        if scheme and (found := _PARAMETER.match(field, position)):
            name, quoted, plain = found.groups()
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(name.lower(), value)
        elif found := _SCHEME.match(field, position):
            if scheme:
                yield Challenge(scheme=scheme, parameters=parameters)
            scheme, parameters = found[1].lower(), {}
        else:
            break
        position = found.end()
    if scheme:
        yield Challenge(scheme=scheme, parameters=parameters)


def _past(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position


def read_retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Give the seconds that ``Retry-After`` asks to wait, at most six hours; None where it says nothing readable.

    A date is compared with the answer's own ``Date``, so that a clock that is wrong on either side does not matter.

    Args:
        now: our time of day, for an answer without a date.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), LONGEST_WAIT_SECONDS)
    until = _seconds(text)
    if until is None:
        return None
    sent = _seconds(headers.get("Date", ""))
    return min(max(until - (now if sent is None else sent), 0.0), LONGEST_WAIT_SECONDS)


def _seconds(http_date: str) -> float | None:
    try:
        seconds = parsedate_to_datetime(http_date).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return seconds if math.isfinite(seconds) else None


def read_rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Read Docker Hub's ``ratelimit-limit: 100;w=21600`` and its ``ratelimit-remaining``; None without both."""
    limit = _RATE.match(headers.get("RateLimit-Limit", ""))
    remaining = _RATE.match(headers.get("RateLimit-Remaining", ""))
    if limit is None or remaining is None:
        return None
    window = limit[2] or remaining[2] or "0"
    return RateLimit(limit=int(limit[1]), remaining=int(remaining[1]), window_seconds=int(window))
