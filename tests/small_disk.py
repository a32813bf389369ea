"""A journal on a disk that is filled and freed: what it says, whoever keeps the disk small."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar.errors import Transient
from sidecar.journal import FILE_NAME, SqliteJournal
from tests.journal_contract import a_delivery, a_rollout


@dataclass
class SmallDisk:
    """A folder, and how no space is left in it, and some again."""

    folder: Path
    fill: Callable[[], object]
    free: Callable[[], object]


async def expect_a_full_disk_told(journal: SqliteJournal, disk: SmallDisk) -> None:
    """Hold that every caller of a batch is told, that nothing of it is kept, and that afterwards all is well."""
    await journal.accept(a_delivery("before"))
    await journal.record(a_rollout())
    disk.fill()
    calls = [journal.accept(a_delivery(f"d{number}", body=b"x" * 100_000)) for number in range(10)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(answer) for answer in answers} == {Transient}
    assert {str(answer) for answer in answers} == {
        f"using the journal {str(disk.folder / FILE_NAME)!r}: database or disk is full: no space is left; make some"
    }
    assert len({id(answer) for answer in answers}) == 10
    with pytest.raises(Transient, match="no space is left"):
        await journal.record(a_rollout(plan={"large": "x" * 1_000_000}))
    assert await journal.open_rollout("docker:web") == a_rollout()
    disk.free()
    await journal.accept(a_delivery("after"))
    assert [delivery.id for delivery in await journal.unfinished_deliveries()] == ["before", "after"]
    assert await journal.probe() is None
