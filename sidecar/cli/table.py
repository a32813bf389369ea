"""A table on a terminal, however narrow: what explains a row goes below it where it finds no room beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_GAP = "  "
_INDENT = 4
_NARROWEST = 12
# Words that stand alone in a cell and say how it went.
_STYLES: Mapping[str, str] = {
    "keep": "green",
    "succeeded": "green",
    "accepted": "green",
    "ok": "green",
    "hold": "yellow",
    "warning": "yellow",
    "ignored": "dim",
    "rollout": "cyan",
    "refused": "red",
    "rolled_back": "red",
    "failed": "red",
}


def draw(columns: Sequence[str], rows: Sequence[Sequence[str]], *, explained: bool) -> None:
    """Draw it.

    Args:
        explained: whether the last column is a text that explains the rest of its row.
    """
    console = Console(highlight=False)
    for line in _lines(columns, rows, console, explained=explained):
        console.print(line, no_wrap=True, overflow="ignore", crop=False)


def _lines(
    columns: Sequence[str], rows: Sequence[Sequence[str]], console: Console, *, explained: bool
) -> Iterator[Text]:
    widths = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    if explained and _total(widths) > console.width:
        widths.pop()
    _narrow(widths, console.width)
    yield from _laid_out([Text(name, style="bold") for name in columns[: len(widths)]], widths, console)
    yield Text("─" * _total(widths))
    for row in rows:
        cells = [Text(cell, style=_STYLES.get(cell, "")) for cell in row]
        yield from _laid_out(cells[: len(widths)], widths, console)
        if explanation := Text().join(cells[len(widths) :]):
            yield from _laid_out([Text(), explanation], [_INDENT - len(_GAP), console.width - _INDENT], console)


def _laid_out(cells: Sequence[Text], widths: Sequence[int], console: Console) -> Iterator[Text]:
    """Give the lines of one row; a cell that is too wide goes on in the next one."""
    wrapped = [cell.wrap(console, width, overflow="fold") for cell, width in zip(cells, widths, strict=True)]
    for parts in zip_longest(*wrapped, fillvalue=Text()):
        padded = [part + Text(" " * (width - part.cell_len)) for part, width in zip(parts, widths, strict=True)]
        line = Text(_GAP).join(padded)
        line.rstrip()
        yield line


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _narrow(widths: list[int], most: int) -> None:
    """Take what is too much from the widest column, then from the next."""
    while (excess := _total(widths) - most) > 0 and (widest := max(widths)) > _NARROWEST:
        widths[widths.index(widest)] = max(_NARROWEST, widest - excess)
