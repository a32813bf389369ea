"""Times as they are written for programs and people alike: RFC 3339, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def written(seconds: float) -> str:
    """Write a time, given in seconds since 1970, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
