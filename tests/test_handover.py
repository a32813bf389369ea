"""What is handed over to the helper outlives whoever has it in hand, and the journal stays the daemon's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.core.image import ImageRef
from sidecar.core.rollout import Phase, Rollout
from sidecar.errors import Misconfigured, Transient
from sidecar.handover import HandoverFile, HandoverJournal
from sidecar.ports import Delivery, Journal
from tests.core.values import NEW, rollout
from tests.fakes import FakeClock
from tests.memory_journal import MemoryJournal

VALUE = rollout(plan={"restart_policy": {"Name": "always"}})


def test_a_rollout_is_kept_as_it_is(tmp_path: Path) -> None:
    """With its plan; the last value counts; for its owner only, for it holds secrets."""
    file = HandoverFile(tmp_path)
    assert file.read() is None
    file.write(VALUE)
    file.write(replace(VALUE, goal_starts=1))
    assert file.read() == replace(VALUE, goal_starts=1)
    (kept,) = tmp_path.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    file.remove()
    file.remove()
    assert file.read() is None


def test_what_cannot_be_written_or_read_is_said(tmp_path: Path) -> None:
    """With the file's name."""
    with pytest.raises(Transient, match=r"writing '.*/handover.json': No such file or directory"):
        HandoverFile(tmp_path / "none").write(VALUE)
    (tmp_path / "handover.json").write_text("{")
    with pytest.raises(Transient, match=r"reading '.*/handover.json'"):
        HandoverFile(tmp_path).read()


class Daemons:
    """The daemon's own journal, which may be in use."""

    def __init__(self) -> None:
        self.journal = MemoryJournal(FakeClock())
        self.is_alone = True
        self.is_locked = False
        self.closed = 0

    async def alone(self, value: Rollout) -> bool:
        del value
        return self.is_alone

    async def open(self) -> tuple[Journal, Callable[[], Awaitable[None]]]:
        if self.is_locked:
            raise Misconfigured("another Sidecar uses it")
        return self.journal, self.close

    async def close(self) -> None:
        self.closed += 1


async def test_where_no_daemon_runs_its_journal_is_written_too(tmp_path: Path) -> None:
    """And let go of each time: the next thing may be to start one."""
    daemons = Daemons()
    journal = HandoverJournal(HandoverFile(tmp_path), is_alone=daemons.alone, open_journal=daemons.open)
    await journal.record(VALUE)
    assert await journal.open_rollout("docker:web") == VALUE
    assert await daemons.journal.open_rollout("docker:web") == VALUE
    assert daemons.closed == 1
    daemons.is_alone = False
    further = replace(VALUE, goal_starts=1)
    await journal.record(further)
    assert await journal.open_rollouts() == [further]
    assert await daemons.journal.open_rollout("docker:web") == VALUE


async def test_where_a_daemon_was_faster_that_is_said(tmp_path: Path) -> None:
    """The file has the value all the same, and the daemon knows by itself."""
    daemons = Daemons()
    daemons.is_locked = True
    journal = HandoverJournal(HandoverFile(tmp_path), is_alone=daemons.alone, open_journal=daemons.open)
    with pytest.raises(Transient, match="another Sidecar uses it"):
        await journal.record(VALUE)
    assert await journal.open_rollout("docker:web") == VALUE


async def test_what_is_over_is_not_open(tmp_path: Path) -> None:
    """Nor is it another target's; and a helper knows of nothing else."""
    file, daemons = HandoverFile(tmp_path), Daemons()
    journal = HandoverJournal(file, is_alone=daemons.alone, open_journal=daemons.open)
    assert await journal.open_rollouts() == []
    file.write(replace(VALUE, phase=Phase.SUCCEEDED))
    assert await journal.open_rollout("docker:web") is None
    assert await journal.open_rollouts() == []
    file.write(VALUE)
    assert await journal.open_rollout("docker:other") is None
    assert await journal.rejected("docker:web", "app") == {}
    assert await journal.unfinished_deliveries() == []
    assert await journal.image_targets() == []
    assert await journal.release("docker:web", "app") == 0
    assert (await journal.history(limit=1)).transitions == ()
    await journal.finish_deliveries(["delivery-1"])
    await journal.add_image_target(ImageRef.parse("app:1"))
    delivery = Delivery(id="delivery-1", source="generic", received_at=0.0, fate="accepted")
    with pytest.raises(Transient, match="keeping delivery delivery-1: this is a helper"):
        await journal.accept(delivery)
    with pytest.raises(Transient, match="a helper asks no registry"):
        await journal.note_digest("app", NEW)
