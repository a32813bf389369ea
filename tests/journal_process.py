"""A process with a journal, for tests that kill it: ``python -m tests.journal_process <folder> hold|accept``."""

import asyncio
import os
import sys
from pathlib import Path

from sidecar.journal import SqliteJournal
from tests.fakes import FakeClock
from tests.journal_contract import a_delivery

CALLERS = 8


async def main(folder: Path, what: str) -> None:
    journal = await SqliteJournal.open(folder, clock=FakeClock())
    tell("ready")
    if what == "accept":
        await asyncio.gather(*(accept_for_ever(journal, caller) for caller in range(CALLERS)))
    await asyncio.Event().wait()


async def accept_for_ever(journal: SqliteJournal, caller: int) -> None:
    number = 0
    while True:
        number += 1
        delivery_id = f"{caller}-{number}"
        await journal.accept(a_delivery(delivery_id))
        tell(delivery_id)  # as the 202 would


def tell(line: str) -> None:
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
