"""Identifiers of deliveries and rollouts: unique, and in the order of their making."""

from __future__ import annotations

import os
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, in lower case


def new_id() -> str:
    """Make an identifier of 26 characters: 48 bits of milliseconds, then 80 random bits, as a ULID has them."""
    number = int(time.time() * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
