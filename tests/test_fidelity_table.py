"""The table for users says of each row what the marked tests hold, and on which engines they hold it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TABLE = TESTS.parent / "docs/fidelity.md"
ROWS = range(1, 45)
ENGINES = ("20.10", "26.1", "26.1 containerd")
NEWER = frozenset(ENGINES[1:])
ON = {
    "line": frozenset(ENGINES),
    "any_engine": frozenset(ENGINES),
    "newer_line": NEWER,
    "engine_containerd": frozenset(ENGINES[2:]),
    "testbed": frozenset({ENGINES[1]}),  # engines of the test's own, with the classic store
}
"""On which engines a test runs that asks for a fixture."""

pytestmark = pytest.mark.timeout(20)  # it parses every test


@dataclass(frozen=True, slots=True)
class Marked:
    """A test with a mark: the rows that it holds, and where it holds them."""

    name: str
    rows: tuple[int, ...]
    where: frozenset[str]


@cache
def marked() -> tuple[Marked, ...]:
    """Find every test that is marked, without importing it."""
    return tuple(found for path in sorted(TESTS.rglob("test_*.py")) for found in _marked_in(path))


def _marked_in(path: Path) -> Iterator[Marked]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fidelity":
                given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in mark.keywords}
                rows = tuple(ast.literal_eval(row) for row in mark.args)
                yield Marked(f"{path.name}::{node.name}", rows, _where(node, given.get("by", "engine")))


def _where(test: ast.FunctionDef | ast.AsyncFunctionDef, by: str) -> frozenset[str]:
    engines = frozenset[str]().union(*(ON.get(argument.arg, frozenset()) for argument in test.args.args))
    return engines if by == "engine" else engines | {by}


@cache
def table() -> dict[int, list[str]]:
    """Read the table: the cells of each row after its number."""
    lines = re.findall(r"^\| (\d+) \| (.+) \|$", TABLE.read_text(), re.MULTILINE)
    return {int(number): cells.split(" | ") for number, cells in lines}


def held() -> dict[int, set[str]]:
    """Say where each row is held."""
    where: dict[int, set[str]] = defaultdict(set)
    for test in marked():
        for row in test.rows:
            where[row] |= test.where
    return where


def test_every_row_is_in_the_table_once():
    """The table has all rows, in order, each with what it is about, what Sidecar does and where that was tested."""
    assert list(table()) == list(ROWS)
    assert {row: len(cells) for row, cells in table().items()} == dict.fromkeys(ROWS, 3)


def test_every_mark_names_rows_and_a_place():
    """No test holds a row that is not there, and none holds one nowhere."""
    assert {test.name: test.rows for test in marked() if not set(test.rows) <= set(ROWS) or not test.rows} == {}
    assert [test.name for test in marked() if not test.where or test.where - {*ENGINES, "record", "hold"}] == []


def test_every_row_is_held_on_every_engine():
    """A row is tested on each of the three engines: that it is preserved, or that its container is left alone."""
    assert {row: lacking for row in ROWS if (lacking := sorted(set(ENGINES) - held()[row]))} == {}


def test_the_table_says_where_each_row_was_tested():
    """What users read about the engines is what the marks say."""
    order = [*ENGINES, "record", "hold"]
    wanted = {row: ", ".join(sorted(held()[row], key=order.index)) for row in ROWS}
    assert {row: cells[-1] for row, cells in table().items()} == wanted
