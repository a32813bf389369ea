"""The end of a container's log, out of the engine's stream. Pure."""

from __future__ import annotations

from collections.abc import Iterable

_HEADER_BYTES = 8


def tail_of(chunks: Iterable[bytes], *, limit_bytes: int) -> str:
    """Read a log to its end and give the last of it; memory stays bounded however long it is.

    Without a terminal the engine cuts stdout and stderr into frames: one byte for the stream, three of zero, four for
    the length. With one it sends the bytes as they are, and those never begin like a frame. Not every engine says by
    the content type which it is.
    """
    pending, kept = bytearray(), bytearray()
    is_framed: bool | None = None
    for chunk in chunks:
        pending += chunk
        if is_framed is None and len(pending) >= _HEADER_BYTES:
            is_framed = _begins_frame(pending)
        if is_framed is not None:
            kept += _payloads(pending) if is_framed else _all(pending)
            del kept[:-limit_bytes]
    # What is left was cut in the middle of a frame, or is a raw log shorter than a header.
    kept += pending[_HEADER_BYTES:] if is_framed else pending
    return kept[-limit_bytes:].decode(errors="replace")


def _begins_frame(data: bytearray) -> bool:
    return data[0] <= 2 and data[1:4] == b"\0\0\0"  # noqa: PLR2004 - stdin, stdout, stderr


def _payloads(pending: bytearray) -> bytearray:
    """Take the complete frames off the front and give what is in them."""
    payloads, start = bytearray(), 0
    while len(pending) >= start + _HEADER_BYTES:
        end = start + _HEADER_BYTES + int.from_bytes(pending[start + 4 : start + _HEADER_BYTES])
        if end > len(pending):
            break
        payloads += pending[start + _HEADER_BYTES : end]
        start = end
    del pending[:start]
    return payloads


def _all(pending: bytearray) -> bytes:
    data = bytes(pending)
    pending.clear()
    return data
