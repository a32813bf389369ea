"""The journal on a file system that is full."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sidecar.errors import Misconfigured, Transient
from sidecar.journal import FILE_NAME, SqliteJournal
from tests.fakes import FakeClock
from tests.small_disk import SmallDisk, expect_a_full_disk_told


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "sidecar-test", str(folder)]
    subprocess.run(command, check=True)
    ballast = folder / "ballast"

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    try:
        yield SmallDisk(folder, fill, ballast.unlink)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
async def open_journal(disk: SmallDisk) -> AsyncIterator[Callable[[], Awaitable[SqliteJournal]]]:
    """Open the journal on it."""
    opened: list[SqliteJournal] = []

    async def open_one() -> SqliteJournal:
        opened.append(await SqliteJournal.open(disk.folder, clock=FakeClock()))
        return opened[-1]

    yield open_one
    for journal in opened:
        await journal.close()


async def test_a_full_disk_is_told_and_passes(disk: SmallDisk, open_journal):
    """Without space every caller of a batch is told so and nothing of it is kept; with space all is well again."""
    await expect_a_full_disk_told(await open_journal(), disk)


async def test_a_probe_on_a_full_disk_says_so(disk: SmallDisk, open_journal):
    """The probe writes: on a full disk it says what is wrong, and afterwards that nothing is."""
    journal = await open_journal()
    disk.fill()
    for number in range(50):  # until the log's last page is written over
        if (problem := await journal.probe()) is not None:
            break
        assert number < 49
    assert "no space is left" in problem
    disk.free()
    assert await journal.probe() is None


async def test_no_space_for_a_new_journal_is_told(disk: SmallDisk, open_journal):
    """A new journal on a full disk is not made by halves."""
    disk.fill()
    with pytest.raises((Transient, Misconfigured), match=r"[Nn]o space"):
        await open_journal()
    assert not (disk.folder / FILE_NAME).exists()
    disk.free()
    await open_journal()
