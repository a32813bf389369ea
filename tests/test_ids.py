"""Identifiers."""

import time

import pytest

from sidecar.ids import new_id

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def number_of(identifier: str) -> int:
    number = 0
    for character in identifier:
        number = number * 32 + ALPHABET.index(character)
    return number


def test_an_identifier_is_a_ulid_in_lower_case():
    """It is 26 characters of Crockford's base 32, and begins with the milliseconds of its making."""
    before = time.time_ns() // 1_000_000
    identifier = new_id()
    assert len(identifier) == 26
    assert before <= number_of(identifier) >> 80 <= time.time_ns() // 1_000_000


def test_identifiers_are_unique():
    """However many are made in a millisecond, no two are the same."""
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_identifiers_are_in_the_order_of_their_making(monkeypatch: pytest.MonkeyPatch):
    """One that is made later sorts later, by text as by number."""
    made = []
    for milliseconds in (0, 1, 31, 32, 1_024, 1_700_000_000_000, 2**48 - 1):
        monkeypatch.setattr(time, "time_ns", lambda milliseconds=milliseconds: milliseconds * 1_000_000)
        made.append(new_id())
    assert made == sorted(made)
    assert [number_of(identifier) >> 80 for identifier in made][-1] == 2**48 - 1
