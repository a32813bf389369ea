"""The journal on a real file: what it survives, and what it says when it cannot."""

import asyncio
import json
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sidecar import journal_sql as sql
from sidecar.core.rollout import Phase, Revision
from sidecar.errors import Misconfigured, Transient
from sidecar.journal import FILE_NAME, SqliteJournal
from tests.fakes import FakeClock
from tests.journal_contract import NEW, REPOSITORY, SERVICE, JournalContract, a_delivery, a_rollout
from tests.small_disk import SmallDisk, expect_a_full_disk_told

ROOT = Path(__file__).parents[1]
VERSION = len(sql.MIGRATIONS)
ONE_MEGABYTE = 1024**2


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def open_journal(tmp_path: Path, clock: FakeClock):
    """Open the journal of a folder; the one before is closed."""
    opened: list[SqliteJournal] = []

    async def open_again(folder: Path = tmp_path) -> SqliteJournal:
        for journal in opened:
            await journal.close()
        opened.append(await SqliteJournal.open(folder, clock=clock))
        return opened[-1]

    yield open_again
    for journal in opened:
        await journal.close()


class TestSqliteJournal(JournalContract):
    """The contract; its fixture ``open_journal`` is the one above."""


@contextmanager
def database(folder: Path):
    """Look into the file, or change it, as another program."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection, connection:
        yield connection


# what is on disk


def start(folder: Path, what: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.journal_process", str(folder), what], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.timeout(30)  # another interpreter starts
@pytest.mark.parametrize("answered", [1, 100, 1000])
async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, open_journal, answered: int):
    """After a kill -9 at any moment every delivery whose accept had returned is there, and the lock is free."""
    process = start(tmp_path, "accept")
    acknowledged = [process.stdout.readline().strip() for _ in range(answered)]
    process.send_signal(signal.SIGKILL)
    acknowledged += process.communicate()[0].split()
    journal = await open_journal()
    kept = {delivery.id for delivery in await journal.unfinished_deliveries()}
    assert len(acknowledged) >= answered
    assert set(acknowledged) <= kept


async def test_every_commit_is_flushed(traced, open_journal):
    """The write-ahead log is flushed with every commit, not only with every checkpoint."""
    await open_journal()
    assert [traced.asked(f"PRAGMA {name}") for name in ("journal_mode", "synchronous")] == ["wal", 2]


@pytest.mark.parametrize("many, statements, commits", [(500, 1, 0), (501, 2, 1), (1500, 3, 1)])
async def test_deliveries_at_once_are_one_commit(traced, open_journal, many: int, statements: int, commits: int):
    """Deliveries that arrive together cost one statement, or a transaction of as few as SQLite takes."""
    journal = await open_journal()
    traced.statements.clear()
    await asyncio.gather(*(journal.accept(a_delivery(f"d{number}")) for number in range(many)))
    await journal.finish_deliveries([])  # queued after the look for old ones, which follows the first batch
    assert sum("INSERT INTO deliveries" in statement for statement in traced.statements) == statements
    assert traced.statements.count("COMMIT") - 2 == commits


async def test_a_batch_is_kept_as_a_whole_or_not_at_all(open_journal, monkeypatch):
    """Of deliveries that are committed together none stays where one cannot be kept, in however many statements."""
    monkeypatch.setattr(sql, "MOST_ROWS", 2)
    journal = await open_journal()
    unfit = replace(a_delivery("unfit"), received_at="no number")
    accepting = [journal.accept(each) for each in (*(a_delivery(f"d{number}") for number in range(3)), unfit)]
    told = await asyncio.gather(*accepting, return_exceptions=True)
    assert [type(each) for each in told] == [Transient] * 4
    assert await journal.unfinished_deliveries() == []


async def test_a_known_digest_costs_no_flush(tmp_path: Path, open_journal):
    """Seeing a digest again writes nothing: a resync of many targets leaves the disk alone."""
    journal = await open_journal()
    await journal.note_digest(REPOSITORY, NEW)
    log = tmp_path / f"{FILE_NAME}-wal"
    size = log.stat().st_size
    await journal.note_digest(REPOSITORY, NEW)
    assert log.stat().st_size == size > 0


async def test_the_files_are_for_their_owner_only(tmp_path: Path, open_journal):
    """Journal and lock hold what containers were configured with: nobody else can read them."""
    folder = tmp_path / "state" / "sidecar"
    journal = await open_journal(folder)
    await journal.accept(a_delivery())
    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())}
    assert modes == {
        "sidecar": 0o700,
        "lock": 0o600,
        FILE_NAME: 0o600,
        f"{FILE_NAME}-wal": 0o600,
        f"{FILE_NAME}-shm": 0o600,
    }


async def test_closing_answers_everybody_first(open_journal, tmp_path: Path):
    """What was waiting when the journal is closed is written; what comes afterwards is told to come again."""
    journal = await open_journal()
    waiting = [asyncio.ensure_future(journal.accept(a_delivery(f"d{number}"))) for number in range(3)]
    await asyncio.sleep(0)
    await journal.close()
    await asyncio.gather(*waiting)
    await journal.close()
    for call in (journal.accept(a_delivery("late")), journal.open_rollouts(), journal.record(a_rollout())):
        with pytest.raises(Transient, match="Sidecar stops"):
            await call
    with database(tmp_path) as connection:
        assert connection.execute("SELECT count(*) FROM deliveries").fetchall() == [(3,)]


# the folder


@pytest.mark.timeout(30)  # another interpreter starts
async def test_a_folder_has_one_daemon(tmp_path: Path, open_journal):
    """A second process is told who has the folder; once that is gone, however it went, the folder is free."""
    process = start(tmp_path, "hold")
    with pytest.raises(Misconfigured, match=rf"another Sidecar uses it \(process {process.pid}\)"):
        await open_journal()
    process.kill()
    process.communicate()
    await open_journal()


async def test_a_failed_opening_lets_go_of_the_folder(tmp_path: Path, open_journal):
    """After an opening that failed the folder can be opened once what was wrong is mended."""
    (tmp_path / FILE_NAME).write_text("nonsense")
    with pytest.raises(Misconfigured):
        await open_journal()
    (tmp_path / FILE_NAME).unlink()
    await open_journal()


# damage


def write_text(file: Path) -> None:
    file.write_text("What is this?\n" * 1000)


def write_nothing(file: Path) -> None:
    file.write_bytes(b"")


def write_a_stranger(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE deliveries (id)")


async def write_a_torn_one(file: Path) -> None:
    journal = await SqliteJournal.open(file.parent, clock=FakeClock())
    await asyncio.gather(*(journal.accept(a_delivery(f"d{number}", body=b"x" * 3000)) for number in range(50)))
    await journal.close()
    with file.open("r+b") as torn:
        torn.seek(100_000)
        torn.write(b"\xff" * 8192)


@pytest.mark.parametrize("damage", [write_text, write_nothing, write_a_stranger, write_a_torn_one])
async def test_a_damaged_journal_is_left_as_it_is(tmp_path: Path, open_journal, damage: Callable):
    """A file that is no journal, or a broken one, stops the start with what to do; it is never made anew."""
    file = tmp_path / FILE_NAME
    if (pending := damage(file)) is not None:
        await pending
    before = file.read_bytes()
    with pytest.raises(Misconfigured, match=rf"{FILE_NAME}': .*damaged, or no journal; stop Sidecar, and move"):
        await open_journal()
    assert file.read_bytes() == before


async def test_a_log_without_its_journal_is_left_as_it_is(tmp_path: Path, open_journal):
    """A write-ahead log whose journal is gone would be played into a new one; that is left to a person."""
    (tmp_path / f"{FILE_NAME}-wal").write_bytes(b"log")
    with pytest.raises(Misconfigured, match=r"log journal\.sqlite3-wal is there without it"):
        await open_journal()
    assert not (tmp_path / FILE_NAME).exists()


async def test_a_creation_that_was_killed_is_begun_again(tmp_path: Path, open_journal):
    """What a killed process left of a journal in the making is no journal and in nobody's way."""
    (tmp_path / f"{FILE_NAME}.part").write_bytes(b"half")
    journal = await open_journal()
    assert await journal.probe() is None


@pytest.mark.parametrize("change", [Path.unlink, lambda file: file.rename(f"{file}.old")])
async def test_a_journal_that_was_taken_away_is_noticed(tmp_path: Path, open_journal, change: Callable):
    """Writing to a file that lies no more where the next start looks is as bad as not writing."""
    journal = await open_journal()
    change(tmp_path / FILE_NAME)
    assert "was moved or replaced" in await journal.probe()


# what the disk refuses


class Traced(sqlite3.Connection):
    """The journal's connection, that a test may look at and limit while its thread is idle."""

    def __init__(self, path: str, **options) -> None:
        super().__init__(path, **options | {"check_same_thread": False})
        self.statements: list[str] = []
        self.execute("PRAGMA synchronous = OFF")  # what SQLite was built to do by itself differs
        self.set_trace_callback(self.statements.append)

    def asked(self, statement: str) -> object:
        return self.execute(statement).fetchone()[0]


@dataclass
class LastConnection:
    connection: Traced | None = None

    def __getattr__(self, name: str):
        return getattr(self.connection, name)


@pytest.fixture
def traced(monkeypatch):
    """The connection that the journal opened last."""
    last, connect = LastConnection(), sqlite3.connect

    def remember(path, **options):
        if not str(path).startswith("file:"):
            return connect(path, **options)
        last.connection = connect(path, factory=Traced, **options)
        return last.connection

    monkeypatch.setattr(sqlite3, "connect", remember)
    return last


@pytest.fixture
def small_file(tmp_path: Path, traced):
    """A file that SQLite itself keeps from growing."""
    return SmallDisk(
        tmp_path,
        lambda: traced.asked(f"PRAGMA max_page_count = {traced.asked('PRAGMA page_count')}"),
        lambda: traced.asked("PRAGMA max_page_count = 1000000"),
    )


async def test_a_full_disk_is_told_and_passes(small_file: SmallDisk, open_journal):
    """Without space every caller of a batch is told so and nothing of it is kept; with space all is well again."""
    await expect_a_full_disk_told(await open_journal(small_file.folder), small_file)


async def test_a_disk_that_fails_is_told_and_passes(tmp_path: Path, open_journal):
    """An error of the disk is told; when it is gone the journal goes on."""
    journal = await open_journal()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # any write beyond it fails
    try:
        with pytest.raises(Transient, match="disk I/O error"):
            await journal.accept(a_delivery("d1", body=b"x" * ONE_MEGABYTE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await journal.accept(a_delivery("d2", body=b"x" * ONE_MEGABYTE))
    assert [delivery.id for delivery in await journal.unfinished_deliveries()] == ["d2"]


async def test_a_read_only_journal_can_still_be_read(traced, open_journal):
    """When nothing can be written any more what is known can be read, and the rest says why it fails."""
    journal = await open_journal()
    await journal.record(a_rollout())
    traced.execute("PRAGMA query_only = ON")
    with pytest.raises(Transient, match="it is read-only; let Sidecar write to its folder"):
        await journal.record(a_rollout().enter(Phase.ABANDONED))
    assert "it is read-only" in await journal.probe()
    assert await journal.open_rollout("docker:web") == a_rollout()


async def test_another_writer_is_told(traced, tmp_path: Path, open_journal):
    """Another program that writes to the journal holds it up for a while only, and is named."""
    journal = await open_journal()
    traced.execute("PRAGMA busy_timeout = 1")
    with database(tmp_path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(Transient, match="another program writes to it"):
            await journal.accept(a_delivery())
    await journal.accept(a_delivery())


@pytest.mark.parametrize("folder", ["file/below", "file"])
async def test_a_folder_that_is_none_is_told(tmp_path: Path, open_journal, folder: str):
    """A state folder that cannot be made or is a file stops the start with its name."""
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match=rf"{folder}': .*; it has to be a folder Sidecar can write to"):
        await open_journal(tmp_path / folder)


async def test_a_file_system_without_shared_memory_is_told(tmp_path: Path, open_journal, monkeypatch):
    """Where SQLite can keep no write-ahead log the start is stopped, not made slow or unsafe."""
    connect = sqlite3.connect
    monkeypatch.setattr(  # locks by files, as on a network's file system: it has no log either
        sqlite3, "connect", lambda path, **options: connect(str(path).replace("=rw", "=rw&vfs=unix-dotfile"), **options)
    )
    with pytest.raises(Misconfigured, match="has no write-ahead log; use a local disk"):
        await open_journal()


# other versions


ADDITION = "ALTER TABLE deliveries ADD COLUMN colour TEXT; CREATE TABLE colours (name TEXT) STRICT;"


def copies(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.before-*")]


async def test_an_older_journal_is_copied_and_brought_up_to_date(tmp_path: Path, open_journal, monkeypatch):
    """Before a migration the file is copied as it was; afterwards everything in it is there."""
    journal = await open_journal()
    await journal.accept(a_delivery())
    await journal.record(a_rollout())
    monkeypatch.setattr(sql, "MIGRATIONS", (*sql.MIGRATIONS, ADDITION, "CREATE TABLE shapes (name TEXT) STRICT;"))
    journal = await open_journal()
    assert (await journal.history(limit=5)).deliveries == [a_delivery()]
    assert await journal.open_rollout("docker:web") == a_rollout()
    with database(tmp_path) as connection:
        assert connection.execute("PRAGMA user_version").fetchall() == [(VERSION + 2,)]
        assert connection.execute("SELECT * FROM colours, shapes").fetchall() == []
    copy = tmp_path / f"{FILE_NAME}.before-{VERSION + 2}"
    assert copies(tmp_path) == [copy.name]
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA user_version").fetchall() == [(VERSION,)]
        assert connection.execute("SELECT id FROM deliveries").fetchall() == [("d1",)]


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path, open_journal, monkeypatch):
    """A migration is done as a whole or not at all, and the journal opens as before without it."""
    journal = await open_journal()
    await journal.accept(a_delivery())
    with monkeypatch.context() as patch:
        patch.setattr(sql, "MIGRATIONS", (*sql.MIGRATIONS, ADDITION + "CREATE TABLE deliveries (id TEXT);"))
        with pytest.raises(Transient, match="already exists"):
            await open_journal()
    with database(tmp_path) as connection:
        assert connection.execute("PRAGMA user_version").fetchall() == [(VERSION,)]
        assert "colour" not in {column[1] for column in connection.execute("PRAGMA table_info(deliveries)")}
    journal = await open_journal()
    assert (await journal.history(limit=5)).deliveries == [a_delivery()]


async def test_a_newer_journal_opens(tmp_path: Path, open_journal, monkeypatch):
    """What a newer Sidecar made is read and written without a copy, and its version stays what it is."""
    with monkeypatch.context() as patch:
        patch.setattr(sql, "MIGRATIONS", (*sql.MIGRATIONS, ADDITION))
        journal = await open_journal()
        await journal.accept(a_delivery("d1"))
    journal = await open_journal()
    await journal.accept(a_delivery("d2"))
    await journal.record(a_rollout())
    assert [delivery.id for delivery in await journal.unfinished_deliveries()] == ["d1", "d2"]
    with database(tmp_path) as connection:
        assert connection.execute("PRAGMA user_version").fetchall() == [(VERSION + 1,)]
    assert copies(tmp_path) == []


def test_migrations_only_add():
    """Every script makes tables and indexes or adds columns; nothing is dropped, renamed or rewritten."""
    for script in sql.MIGRATIONS:
        lines = [line.partition("--")[0] for line in script.splitlines()]
        for statement in " ".join(" ".join(lines).split()).split(";"):
            assert (
                statement.strip().startswith(
                    ("CREATE TABLE", "CREATE INDEX", "CREATE UNIQUE INDEX", "PRAGMA application_id")
                )
                or (statement.strip().startswith("ALTER TABLE") and " ADD COLUMN " in statement)
                or not statement.strip()
            )


async def test_fields_of_other_versions(tmp_path: Path, open_journal):
    """Fields of a rollout that this version does not know are dropped, missing ones take their defaults until set."""
    journal = await open_journal()
    await journal.record(a_rollout(delivery_ids=(), reason="why"))
    await journal.close()
    with database(tmp_path) as connection:
        ((first,),) = connection.execute("SELECT first FROM rollouts").fetchall()
        values = json.loads(first)
        del values["reason"], values["goal_starts"]
        values["colour"] = "red"
        values["to"]["size"] = 3
        connection.execute("UPDATE rollouts SET first = ?", (json.dumps(values),))
        connection.execute("""UPDATE transitions SET changed = '{"colour": "blue"}'""")
    journal = await open_journal()
    assert await journal.open_rollout("docker:web") == a_rollout(delivery_ids=())
    await journal.record(a_rollout(delivery_ids=(), goal_starts=3))
    assert await journal.open_rollout("docker:web") == a_rollout(delivery_ids=(), goal_starts=3)


async def test_a_phase_that_only_a_newer_sidecar_knows(tmp_path: Path, open_journal):
    """A rollout that cannot be understood is never taken for none; the others and the history go on without it."""
    journal = await open_journal()
    await journal.record(a_rollout("r0").enter(Phase.ABANDONED))
    await journal.record(a_rollout("r1"))
    await journal.close()
    with database(tmp_path) as connection:
        connection.execute("""UPDATE transitions SET changed = '{"phase": "draining"}' WHERE seq = 2""")
    journal = await open_journal()
    await journal.record(a_rollout("r2", target_id="docker:db"))
    with pytest.raises(Transient, match="'draining' is not a valid Phase; a newer Sidecar began it and can end it"):
        await journal.open_rollout("docker:web")
    assert [each.id for each in await journal.open_rollouts()] == ["r2"]
    assert [each.rollout.id for each in (await journal.history(limit=5)).transitions] == ["r2", "r0"]


async def test_a_hint_that_cannot_be_read_keeps_nobody_from_the_rest(tmp_path: Path, open_journal):
    """What another Sidecar took for a reference and this one does not is left out; its delivery is still there."""
    journal = await open_journal()
    await journal.accept(a_delivery("d1"))
    await journal.close()
    with database(tmp_path) as connection:
        connection.execute("""UPDATE deliveries SET hints = '["docker.io/me/app:1", "host:99999/me/app", "UPPER"]'""")
    (read,) = await (await open_journal()).unfinished_deliveries()
    assert [str(hint) for hint in read.hints] == ["docker.io/me/app:1"]


# what is kept


async def test_old_deliveries_go_and_unfinished_ones_stay(tmp_path: Path, open_journal, monkeypatch):
    """The newest deliveries are kept, and of the older ones those that are still to be worked on."""
    monkeypatch.setattr(sql, "KEPT_DELIVERIES", 10)
    monkeypatch.setattr("sidecar.journal.TRIM_EVERY", 5)
    journal = await open_journal()
    await journal.accept(a_delivery("waiting"))
    await journal.accept(a_delivery("finished"))
    await journal.finish_deliveries(["finished"])
    for number in range(40):
        await journal.accept(a_delivery(f"d{number}", fate="ignored"))
    kept = [delivery.id for delivery in (await journal.history(limit=100)).deliveries]
    assert kept[:10] == [f"d{number}" for number in range(39, 29, -1)]
    assert 11 <= len(kept) <= 15
    assert kept[-1] == "waiting"


async def test_large_bodies_go_before_their_number_is_reached(tmp_path: Path, open_journal, monkeypatch):
    """Few deliveries with large bodies are bounded by their bytes, and the file with them; the unfinished stay."""
    monkeypatch.setattr(sql, "KEPT_BODY_BYTES", 10 * 100_000)
    monkeypatch.setattr("sidecar.journal.TRIM_EVERY", 5)
    journal = await open_journal()
    await journal.accept(a_delivery("waiting", body=b"x" * 100_000))
    for number in range(60):
        await journal.accept(a_delivery(f"d{number}", fate="refused", body=b"x" * 100_000))
    kept = [delivery.id for delivery in (await journal.history(limit=100)).deliveries]
    assert kept[:10] == [f"d{number}" for number in range(59, 49, -1)]
    assert 11 <= len(kept) <= 15
    assert kept[-1] == "waiting"
    await journal.close()
    assert (tmp_path / FILE_NAME).stat().st_size < 2_000_000


async def test_plans_of_old_rollouts_go(tmp_path: Path, open_journal, monkeypatch):
    """What drivers prepared is kept of the newest rollouts and of every open one; the rollouts all stay."""
    monkeypatch.setattr(sql, "KEPT_PLANS", 2)
    journal = await open_journal()
    await journal.record(a_rollout("open", target_id="docker:db", plan={"of": "open"}))
    for number in range(5):
        rollout = a_rollout(f"r{number}", plan={"of": number})
        await journal.record(rollout)
        await journal.record(rollout.enter(Phase.ABANDONED))
    await journal.accept(a_delivery())
    assert len((await journal.history(limit=100)).transitions) == 11
    with database(tmp_path) as connection:
        plans = [json.loads(plan)["of"] for (plan,) in connection.execute("SELECT plan FROM plans")]
    assert plans == ["open", 3, 4]


async def test_a_plan_is_stored_once(tmp_path: Path, open_journal):
    """However often a rollout is recorded, each of its plans is in the file once."""
    journal = await open_journal()
    rollout = a_rollout(plan={"old": "x" * 1000})
    for number in range(5):
        await journal.record(replace(rollout, goal_starts=number))
    await journal.record(replace(rollout, plan={"old": "y"}))
    with database(tmp_path) as connection:
        assert connection.execute("SELECT count(*) FROM plans").fetchall() == [(2,)]
        changed = [json.loads(text) for (text,) in connection.execute("SELECT changed FROM transitions")]
    assert changed[:3] == [{}, {"goal_starts": 1}, {"goal_starts": 2}]


async def test_a_release_is_history(tmp_path: Path, open_journal, clock: FakeClock):
    """A reject that was released stays in the file, with both times and its rollout."""
    journal = await open_journal()
    await journal.record(a_rollout(to=Revision(digest=NEW)).enter(Phase.ROLLING_BACK, "exited"))
    rejected_at = clock.time
    clock.time += 60
    await journal.release(SERVICE, REPOSITORY)
    with database(tmp_path) as connection:
        rows = connection.execute(
            """SELECT digest, reason, rejected_at, released_at, id FROM rejects JOIN rollouts ON number = rollout"""
        ).fetchall()
    assert rows == [(NEW, "exited", rejected_at, rejected_at + 60, "r1")]
