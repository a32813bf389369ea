"""The end of a container's log."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.targets.logtail import tail_of


def framed(*texts: bytes) -> bytes:
    return b"".join(
        bytes([1 + number % 2, 0, 0, 0]) + len(text).to_bytes(4) + text for number, text in enumerate(texts)
    )


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 3, 8, 9, 1000])
@pytest.mark.parametrize(
    "log, expected",
    [
        pytest.param(b"", "", id="empty"),
        pytest.param(framed(b"one\n", b"two\n"), "one\ntwo\n", id="both streams"),
        pytest.param(framed(b"", b"two\n"), "two\n", id="an empty frame"),
        pytest.param(framed("é".encode()[:1], "é".encode()[1:]), "é", id="a character in two frames"),
        pytest.param(framed(b"\xff!"), "\N{REPLACEMENT CHARACTER}!", id="no text"),
        pytest.param(framed(b"one\n") + framed(b"two\n")[:10], "one\ntw", id="cut off"),
        pytest.param(framed(b"one\n") + b"\x01\0\0", "one\n", id="cut off in a header"),
        pytest.param(b"a terminal\r\n", "a terminal\r\n", id="terminal"),
        pytest.param(b"short", "short", id="shorter than a header"),
    ],
)
def test_a_log_is_put_together(log: bytes, expected: str, size: int):
    """Frames are taken apart, a terminal's bytes are left as they are, however the stream is cut."""
    assert tail_of(cut(log, size), limit_bytes=100) == expected


def test_only_the_end_is_kept():
    """A log longer than the limit loses its beginning."""
    assert tail_of([framed(b"0123", b"4567", b"89")], limit_bytes=5) == "56789"
    assert tail_of([b"a terminal", b" that is long"], limit_bytes=5) == " long"


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=9), max_size=9), st.integers(1, 50))
def test_any_cut_gives_the_same(texts: list[bytes], size: int):
    """Where the stream is cut makes no difference."""
    log = framed(*texts)
    assert tail_of(cut(log, size), limit_bytes=20) == b"".join(texts)[-20:].decode(errors="replace")
