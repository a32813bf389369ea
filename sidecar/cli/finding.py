"""What `sidecar doctor` finds: one line each, and what to do where something is to be done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        part: what it belongs to: ``engine``, ``state``, ``registry``...
        says: what was found.
        advice: what to do about it; empty where nothing is to be done.
    """

    status: Status
    part: str
    says: str
    advice: str = ""


def well(part: str, says: str) -> Finding:
    """Find nothing wrong."""
    return Finding(Status.OK, part, says)


def doubtful(part: str, says: str, advice: str) -> Finding:
    """Find what may be meant so."""
    return Finding(Status.WARNING, part, says, advice)


def broken(part: str, says: str, advice: str) -> Finding:
    """Find what keeps it from working."""
    return Finding(Status.FAILED, part, says, advice)
