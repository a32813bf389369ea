"""How a command writes: tables for people on a terminal, plain columns into a pipe, JSON when asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

Row = Sequence[str]


def say(text: str = "") -> None:
    """Write a line to standard output."""
    sys.stdout.write(shown(text) + "\n")
    sys.stdout.flush()


def hint(text: str) -> None:
    """Write a line for a person, out of the way of what a program reads."""
    sys.stderr.write(shown(text) + "\n")


def say_json(value: object) -> None:
    """Write a value as JSON."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def shown(text: object) -> str:
    """Leave out of a text what a terminal would take for a command: some of it was written by strangers."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in str(text))


def say_table(columns: Row, rows: Sequence[Row], *, explained: bool = False) -> None:
    """Write rows: as a table on a terminal, in plain columns that grep and awk understand elsewhere.

    Args:
        explained: whether the last column is a text that explains the rest of its row.
    """
    rows = [[" ".join(shown(cell).split()) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from sidecar.cli.table import draw

        draw(columns, rows, explained=explained)
        return
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    for row in (columns, *rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
