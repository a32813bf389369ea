"""The journal of the tests keeps the contract of the real one."""

import pytest

from sidecar.errors import Transient
from tests.fakes import FakeClock
from tests.journal_contract import JournalContract, a_delivery, a_rollout
from tests.memory_journal import MemoryJournal


class TestMemoryJournal(JournalContract):
    @pytest.fixture
    def open_journal(self, clock: FakeClock):
        journal = MemoryJournal(clock)

        async def open_again() -> MemoryJournal:
            return journal

        return open_again


async def test_a_problem_fails_every_change():
    """While a problem is set nothing is kept and every change says so; afterwards all is as before."""
    journal = MemoryJournal(FakeClock(), problem=Transient("no space"))
    for change in (journal.accept(a_delivery()), journal.record(a_rollout()), journal.release("shop/web", "nginx")):
        with pytest.raises(Transient, match="no space"):
            await change
    assert await journal.probe() == "no space"
    journal.problem = None
    assert await journal.probe() is None
    assert await journal.unfinished_deliveries() == []
    assert await journal.open_rollouts() == []
