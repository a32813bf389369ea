"""Identifiers of deliveries and rollouts: unique, and in the order of their making."""

from __future__ import annotations

import random
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, in lower case
# Ten bits at a time: one is made for every request.
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_SHIFTS = range(120, -1, -10)


def new_id() -> str:
    """Make an identifier of 26 characters: 48 bits of milliseconds, then 80 random bits, as a ULID has them."""
    # Unique, not secret; asking the kernel each time would let another thread in, in the middle of every request.
    number = time.time_ns() // 1_000_000 << 80 | random.getrandbits(80)
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])
