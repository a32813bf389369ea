"""The memory that outlives the process: one SQLite file, and the one thread that owns it.

It keeps what it is given and decides nothing about rollouts. A change is on disk when its method returns (a write-ahead
log with ``synchronous=FULL``), and the event loop is never blocked.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from sidecar import journal_sql as sql
from sidecar import journal_values as values
from sidecar.core.image import Digest, ImageRef
from sidecar.core.rollout import Rollout
from sidecar.errors import Misconfigured, Transient
from sidecar.folder_lock import lock_folder
from sidecar.group_commit import GroupCommit
from sidecar.ports import Clock, Delivery, History, Transition

FILE_NAME = "journal.sqlite3"

# After so many more deliveries it is seen which are too old to be kept.
TRIM_EVERY = 1_000

_T = TypeVar("_T")
_Work = Callable[[sqlite3.Connection], _T]

_DAMAGED = (
    f"it is damaged, or no journal; stop Sidecar, and move {FILE_NAME} and {FILE_NAME}-wal away or put a copy back "
    "(without one the history, the rejected digests and the rollouts under way are forgotten)"
)
_ADVICE = {
    sqlite3.SQLITE_FULL: "no space is left; make some",
    sqlite3.SQLITE_READONLY: "it is read-only; let Sidecar write to its folder",
    sqlite3.SQLITE_CANTOPEN: "let Sidecar write to its folder",
    sqlite3.SQLITE_BUSY: "another program writes to it",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}


class SqliteJournal:
    """The journal of a state folder. It is made by ``open``, and has the folder to itself until ``close``.

    Where the protocol leaves it open: a delivery is kept once, so accepting its id again changes nothing. The id of a
    rollout need only be unique within its target; a second open rollout of a target is a ValueError, a defect of ours.
    A digest that was released is rejected again only by another rollout. The deliveries in the history of one target
    are those that its rollouts name.
    """

    def __init__(self, thread: ThreadPoolExecutor, database: _Database, clock: Clock) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = thread
        self._database = database
        self._clock = clock
        self._deliveries = GroupCommit(thread, self._commit)
        self._untrimmed = TRIM_EVERY
        self._is_closed = False

    @classmethod
    async def open(cls, state_dir: Path, *, clock: Clock) -> SqliteJournal:
        """Take the folder and open its journal; each is made when it is missing, an old journal is brought up to date.

        Raises:
            Misconfigured: another Sidecar has the folder, it cannot be used, or the journal in it is damaged.
            Transient: the disk is full or fails.
        """
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        try:
            database = await asyncio.get_running_loop().run_in_executor(thread, _Database, state_dir)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(thread, database, clock)

    async def close(self) -> None:
        """Write what is waiting and let go of the folder; every call after it raises Transient."""
        if self._is_closed:
            return
        self._is_closed = True
        self._deliveries.hand_over()
        await self._loop.run_in_executor(self._thread, self._database.close)
        self._thread.shutdown(wait=False)

    async def probe(self) -> str | None:
        """Write something small; say what is wrong, or None."""
        try:
            await self._write(sql.PROBE, self._clock.now())
            is_in_place = await self._loop.run_in_executor(self._thread, self._database.is_in_place)
        except Transient as error:
            return str(error)
        return None if is_in_place else f"{self._database.file} was moved or replaced; start Sidecar again"

    async def accept(self, delivery: Delivery) -> None:
        """Keep a delivery, whatever its fate; many at once are committed together."""
        self._refuse_when_closed()
        await self._deliveries.add(values.write_delivery(delivery), size_bytes=len(delivery.body))

    async def finish_deliveries(self, delivery_ids: Iterable[str]) -> None:
        """Remember that everything that these deliveries asked for has been looked at."""
        await self._write(sql.FINISH, self._clock.now(), values.encode(list(delivery_ids)))

    async def unfinished_deliveries(self) -> Sequence[Delivery]:
        """Give the accepted deliveries that are not finished, oldest first, without their bodies."""
        return [values.read_delivery(row) for row in await self._read(sql.UNFINISHED_DELIVERIES)]

    async def record(self, rollout: Rollout, *, after: Rollout | None = None) -> None:
        """Append a value of a rollout, and the reject it implies; ``after`` is one that it ends, in the same breath."""
        now = self._clock.now()
        appended = [rollout] if after is None else [after, rollout]
        await self._work(lambda connection: sql.append(connection.execute, appended, now))

    async def open_rollout(self, target_id: str) -> Rollout | None:
        """Give the rollout of a target that is not final."""
        rows = await self._read(sql.OPEN_ROLLOUT_OF_TARGET, target_id)
        return self._read_whole(*rows[0]) if rows else None

    async def last_rollout(self, target_id: str) -> Rollout | None:
        """Give the newest rollout of a target, open or not; without its plan where that is not kept any more."""
        rows = await self._read(sql.LAST_ROLLOUT_OF_TARGET, target_id)
        return self._read_whole(*rows[0]) if rows else None

    async def open_rollouts(self) -> Sequence[Rollout]:
        """Give every rollout that is not final; one that only a newer Sidecar can read holds up its own target only."""
        readable: list[Rollout] = []
        for row in await self._read(sql.OPEN_ROLLOUTS):
            with suppress(ValueError):
                readable.append(values.merge(*row))
        return readable

    async def rejected(self, service: str, repository: str) -> Mapping[Digest, str]:
        """Give the digests that failed on a service, with the reason."""
        return {Digest(digest): reason for digest, reason in await self._read(sql.REJECTED, service, repository)}

    async def release(self, service: str, repository: str) -> int:
        """Forget the rejected digests of a service; say how many there were."""
        rows = await self._write(sql.RELEASE, self._clock.now(), service, repository)
        return len({digest for (digest,) in rows})

    async def note_digest(self, repository: str, digest: Digest) -> float:
        """Remember when a digest was first seen, and give that time."""
        await self._write(sql.NOTE_DIGEST, repository, digest, self._clock.now())
        ((first_seen_at,),) = await self._read(sql.FIRST_SEEN, repository, digest)
        return float(first_seen_at)

    async def add_image_target(self, ref: ImageRef) -> None:
        """Remember an image that is kept pulled though no container uses it."""
        await self._write(sql.ADD_IMAGE_TARGET, str(ref), self._clock.now())

    async def image_targets(self) -> Sequence[ImageRef]:
        """Give every image target ever made."""
        return [ImageRef.parse(ref) for (ref,) in await self._read(sql.IMAGE_TARGETS)]

    async def history(self, *, limit: int, target_id: str | None = None) -> History:
        """Give the newest deliveries and transitions; values that only a newer Sidecar can read are left out."""
        if target_id is None:
            transitions = await self._read(sql.NEWEST_TRANSITIONS, limit)
            deliveries = await self._read(sql.NEWEST_DELIVERIES, limit)
        else:
            transitions = await self._read(sql.NEWEST_TRANSITIONS_OF_TARGET, target_id, limit)
            deliveries = await self._read(sql.NEWEST_DELIVERIES_OF_TARGET, target_id, limit)
        readable: list[Transition] = []
        for first, changed, recorded_at in transitions:
            with suppress(ValueError):
                readable.append(Transition(rollout=values.merge(first, changed), recorded_at=recorded_at))
        return History(transitions=readable, deliveries=[values.read_delivery(row) for row in deliveries])

    def _read_whole(self, first: str, changed: str, plan: str | None) -> Rollout:
        try:
            return values.merge(first, changed, plan)
        except ValueError as error:
            msg = f"reading a rollout in {self._database.file}: {error}; a newer Sidecar began it and can end it"
            raise Transient(msg) from error

    async def _read(self, statement: str, *parameters: object) -> list[Any]:
        return await self._work(lambda connection: connection.execute(statement, parameters).fetchall(), begin="BEGIN")

    async def _write(self, statement: str, *parameters: object) -> list[Any]:
        return await self._work(lambda connection: connection.execute(statement, parameters).fetchall())

    async def _work(self, work: _Work[_T], *, begin: str = "BEGIN IMMEDIATE") -> _T:
        """Let the thread do some work in a transaction of its own."""
        self._refuse_when_closed()
        return await self._loop.run_in_executor(self._thread, self._database.run, work, begin)

    def _refuse_when_closed(self) -> None:
        if self._is_closed:
            msg = f"using {self._database.file}: it is closed, for Sidecar stops"
            raise Transient(msg)

    def _commit(self, rows: Sequence[values.DeliveryRow]) -> None:
        begin = None if len(rows) <= sql.MOST_ROWS else "BEGIN IMMEDIATE"
        self._database.run(lambda connection: sql.accept(connection.execute, rows), begin)
        self._untrimmed += len(rows)
        if self._untrimmed >= TRIM_EVERY and not self._is_closed:
            self._untrimmed = 0
            # Afterwards, once the callers have been told; if it fails, the next time will do.
            self._thread.submit(self._database.run, lambda connection: sql.trim(connection.execute))


class _Database:
    """The file, its connection and the lock of its folder; only the journal's thread touches it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE_NAME
        try:
            with ExitStack() as held:
                held.callback(os.close, lock_folder(folder))
                if not self.file.exists():
                    _create(self.file)
                # Never made by SQLite on the way: an empty file is no journal, whatever emptied it.
                uri = f"{self.file.absolute().as_uri()}?mode=rw"
                self._connection = held.enter_context(closing(sqlite3.connect(uri, uri=True, isolation_level=None)))
                _prepare(self._connection, self.file)
                self._inode = self.file.stat().st_ino
                self._held = held.pop_all()
        except (sqlite3.Error, OSError) as error:
            advice = _advice(error)
            msg = f"opening the journal {str(self.file)!r}: {advice}"
            raise (Misconfigured(msg) if _DAMAGED in advice else Transient(msg)) from error

    def run(self, work: _Work[_T], begin: str | None = "BEGIN IMMEDIATE") -> _T:
        """Do some work in a transaction of its own; when it fails nothing of it stays.

        Args:
            begin: how the transaction begins; None for work that is one statement, which is a transaction by itself.

        Raises:
            Transient: SQLite could not do it.
        """
        try:
            if begin is None:
                return work(self._connection)
            self._connection.execute(begin)
            result = work(self._connection)
            self._connection.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                self._connection.rollback()
            if isinstance(error, sqlite3.Error):
                msg = f"using the journal {str(self.file)!r}: {_advice(error)}"
                raise Transient(msg) from error
            raise
        return result

    def is_in_place(self) -> bool:
        """Say whether the file still is the one under its name; what is written to any other is lost."""
        with suppress(OSError):
            return self.file.stat().st_ino == self._inode
        return False

    def close(self) -> None:
        """Let go of the file and the folder."""
        self._held.close()


def _prepare(connection: sqlite3.Connection, file: Path) -> None:
    """Check the journal and bring it up to date; one of a newer Sidecar is left as it is."""
    is_ours = _pragma(connection, "application_id") == str(sql.APPLICATION_ID)
    if not is_ours or _pragma(connection, "quick_check(1)") != "ok":
        raise sqlite3.DatabaseError(_DAMAGED)
    if _pragma(connection, "journal_mode = WAL") != "wal":
        msg = f"opening the journal {str(file)!r}: its file system has no write-ahead log; use a local disk"
        raise Misconfigured(msg)
    connection.execute("PRAGMA synchronous = FULL")
    if (version := int(_pragma(connection, "user_version"))) < len(sql.MIGRATIONS):
        _copy(connection, file.with_name(f"{file.name}.before-{len(sql.MIGRATIONS)}"))
        _migrate(connection, version)


def _create(file: Path) -> None:
    if file.with_name(f"{file.name}-wal").exists():
        # SQLite would play it into the new file, whose log it is not.
        msg = f"making the journal {str(file)!r}: its log {file.name}-wal is there without it; put it back or move both"
        raise Misconfigured(msg)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:
        _migrate(memory, 0)
        _copy(memory, file)


def _copy(connection: sqlite3.Connection, to: Path) -> None:
    """Copy a database so that the copy is there as a whole or not at all, and for its owner only."""
    part = to.with_name(f"{to.name}.part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    with closing(sqlite3.connect(part)) as copy:
        connection.backup(copy)
    part.replace(to)
    folder = os.open(to.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    for number, script in enumerate(sql.MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def _pragma(connection: sqlite3.Connection, pragma: str) -> str:
    return str(connection.execute(f"PRAGMA {pragma}").fetchall()[0][0])


def _advice(error: Exception) -> str:
    """Say what went wrong and, where it is known, what helps."""
    advice = _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    return f"{error}: {advice}" if advice else str(error)
