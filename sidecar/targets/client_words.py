"""How one field of a create request is said to Docker's client, whatever the field. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Unsaid:
    """What no option of the client says.

    Attributes:
        field: its place in the request.
        why: what is said instead, or what it takes; may be empty.
    """

    field: str
    why: str = ""


Said = Iterator[str | Unsaid]
Option = Callable[[Any], Said]


def is_default(value: object) -> bool:
    """Say whether a value asks for nothing, wherever it stands."""
    return value is None or value in ("", 0, False) or value in ([], {})


def pairs(flag: str, entries: Mapping[str, str] | None) -> Iterator[str]:
    """Say a map, an option for each entry."""
    for key, value in (entries or {}).items():
        yield from (flag, f"{key}={value}")


def csv_list(parts: Iterator[str]) -> str:
    """Write what the client reads as one line of comma-separated values."""
    return ",".join(f'"{part.replace(chr(34), chr(34) * 2)}"' if set(part) & set(',"\n') else part for part in parts)


def switch(flag: str, value: Any) -> Said:
    """Say what is on or off."""
    if not is_default(value):
        yield flag


def single(flag: str, value: Any) -> Said:
    """Say one value."""
    if not is_default(value):
        yield from (flag, str(value))


def each(flag: str, values: Any) -> Said:
    """Say a list, an option for each value."""
    for value in values or []:
        yield from (flag, str(value))


def nanoseconds(flag: str, value: Any) -> Said:
    """Say a time that the API counts in nanoseconds."""
    if not is_default(value):
        yield from (flag, f"{value}ns")


def unsaid(field: str, value: Any) -> Said:
    """Name a field that no option says, where it asks for something."""
    if not is_default(value):
        yield Unsaid(field)
