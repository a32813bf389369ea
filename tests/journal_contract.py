"""What every journal promises: one suite for the one in memory and the real one.

A subclass whose name begins with Test gives the fixture ``open_journal``: a coroutine function that opens the memory of
this test, each time it is called again, as a process that starts anew would.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from sidecar.core.hint import Hint
from sidecar.core.image import Digest, ImageRef
from sidecar.core.policy import Strategy
from sidecar.core.rollout import Phase, Revision, Rollout
from sidecar.core.target import State
from sidecar.ports import Delivery, Journal
from tests.fakes import FakeClock

OLD, NEW, NEWER = (Digest("sha256:" + letter * 64) for letter in "abc")
SERVICE, REPOSITORY = "shop/web", "docker.io/library/nginx"

OpenJournal = Callable[[], Awaitable[Journal]]


def a_delivery(delivery_id: str = "d1", **changes: Any) -> Delivery:
    facts: dict[str, Any] = {
        "source": "docker-hub",
        "received_at": 1_700_000_000.25,
        "fate": "accepted",
        "hints": (Hint(ImageRef.parse("nginx:1")),),
        "body": b'{"push_data": {"tag": "1"}}',
    }
    return Delivery(id=delivery_id, **(facts | changes))


def a_rollout(rollout_id: str = "r1", **changes: Any) -> Rollout:
    facts: dict[str, Any] = {
        "target_id": "docker:web",
        "service": SERVICE,
        "repository": REPOSITORY,
        "ref": REPOSITORY + ":1",
        "cause": "webhook",
        "started_at": 1_700_000_000.0,
        "delivery_ids": ("d1", "d2"),
        "min_ready_seconds": 10.0,
        "deadline_seconds": 300.0,
        "platform": "linux/amd64",
        "from_": Revision(digest=OLD, image_id="sha256:1", instance="c1"),
        "to": Revision(digest=NEW),
        "run_state": State.RUNNING,
    }
    return Rollout(id=rollout_id, **(facts | changes))


class JournalContract:
    @pytest.fixture
    def clock(self):
        return FakeClock()

    @pytest.fixture
    async def journal(self, open_journal: OpenJournal):
        return await open_journal()

    # deliveries

    async def test_an_accepted_delivery_is_there_until_it_is_finished(self, journal: Journal, open_journal):
        """Accepted deliveries come back as they were given but for the body, oldest first, until they are finished."""
        first = a_delivery("b", pusher="me", remote="192.0.2.1", callback_url="https://registry.example/1")
        second = a_delivery("a", body=bytes(range(256)), hints=(Hint(ImageRef.parse("ghcr.io/me/app")),), reason="ü\0")
        await journal.accept(first)
        await journal.accept(second)
        journal = await open_journal()
        assert await journal.unfinished_deliveries() == [replace(first, body=b""), replace(second, body=b"")]
        await journal.finish_deliveries(["b"])
        journal = await open_journal()
        assert await journal.unfinished_deliveries() == [replace(second, body=b"")]

    @pytest.mark.parametrize("fate", ["ignored", "refused"])
    async def test_only_accepted_deliveries_are_to_be_worked_on(self, journal: Journal, fate: str):
        """What was ignored or refused is kept for a look, with its body, and never unfinished."""
        delivery = a_delivery(fate=fate, reason="pusher is not allowed", hints=())
        await journal.accept(delivery)
        assert await journal.unfinished_deliveries() == []
        assert (await journal.history(limit=5)).deliveries == [delivery]

    async def test_finishing_what_is_not_there_is_nothing(self, journal: Journal):
        """Finishing no, unknown and already finished deliveries changes nothing and fails nothing."""
        await journal.accept(a_delivery("d1"))
        await journal.finish_deliveries([])
        await journal.finish_deliveries(["nobody", "d1"])
        await journal.finish_deliveries(iter(["d1"]))
        assert await journal.unfinished_deliveries() == []

    async def test_a_delivery_is_kept_once(self, journal: Journal):
        """Accepting an id again changes nothing: neither what was kept nor that it is finished."""
        await journal.accept(a_delivery("d1", body=b"first"))
        await journal.accept(a_delivery("d1", body=b"second"))
        assert [delivery.body for delivery in (await journal.history(limit=5)).deliveries] == [b"first"]
        await journal.finish_deliveries(["d1"])
        await journal.accept(a_delivery("d1"))
        assert await journal.unfinished_deliveries() == []

    async def test_many_are_accepted_at_once(self, journal: Journal):
        """Concurrent callers are all answered, and each delivery is kept, in the order of the calls."""
        deliveries = [a_delivery(f"d{number}") for number in range(100)]
        await asyncio.gather(*(journal.accept(delivery) for delivery in deliveries))
        assert await journal.unfinished_deliveries() == [replace(delivery, body=b"") for delivery in deliveries]

    async def test_text_that_is_no_unicode_spoils_no_delivery(self, journal: Journal):
        """A lone surrogate out of a payload is replaced; the deliveries that are kept together with it are kept."""
        strange = a_delivery("d1", pusher="\ud800me", reason="\udfff", remote="\ud800", callback_url="\ud800")
        await asyncio.gather(journal.accept(strange), journal.accept(a_delivery("d2")))
        kept = await journal.unfinished_deliveries()
        assert [(delivery.id, delivery.pusher) for delivery in kept] == [("d1", "?me"), ("d2", "")]

    # rollouts

    async def test_the_newest_value_of_a_rollout_is_given(self, journal: Journal, open_journal):
        """The open rollout is the value that was recorded last, over a restart."""
        begun = a_rollout()
        assert await journal.open_rollout("docker:web") is None
        await journal.record(begun)
        assert await journal.open_rollout("docker:web") == begun
        later = replace(
            begun,
            strategy=Strategy.START_FIRST,
            to=replace(begun.to, instance="c2", image_id="sha256:2"),
            goal_started_at=1_700_000_001.125,
            goal_starts=2,
        )
        await journal.record(later)
        journal = await open_journal()
        assert await journal.open_rollout("docker:web") == later
        # A field that returns to its first value is no change any more.
        await journal.record(replace(later, strategy=Strategy.STOP_FIRST, goal_starts=0))
        assert await journal.open_rollout("docker:web") == replace(later, strategy=Strategy.STOP_FIRST, goal_starts=0)

    async def test_the_last_rollout_is_the_newest_open_or_not(self, journal: Journal):
        """One that is over counts as one that is open; of another target none does."""
        assert await journal.last_rollout("docker:web") is None
        first = a_rollout("r1")
        await journal.record(first)
        assert await journal.last_rollout("docker:web") == first
        await journal.record(replace(first, phase=Phase.ROLLED_BACK))
        last = await journal.last_rollout("docker:web")
        assert last is not None
        assert (last.id, last.phase) == ("r1", Phase.ROLLED_BACK)
        await journal.record(a_rollout("r2"))
        last = await journal.last_rollout("docker:web")
        assert last is not None
        assert last.id == "r2"
        assert await journal.last_rollout("docker:db") is None

    async def test_every_field_comes_back_as_its_type(self, journal: Journal):
        """Digests, phases and states are read as what they are, not as texts."""
        await journal.record(a_rollout())
        rollout = await journal.open_rollout("docker:web")
        assert rollout is not None
        assert type(rollout.to.digest) is Digest
        assert rollout.phase is Phase.UPDATING
        assert rollout.run_state is State.RUNNING
        assert type(rollout.delivery_ids) is tuple

    async def test_a_plan_is_given_as_it_was_recorded_last(self, journal: Journal, open_journal):
        """A plan may come later, be replaced, return and go; the newest value says which one holds."""
        begun = a_rollout()
        plans = [None, {"old": {"Env": ["A=ü"]}, "n": [1, 2.5, None, True]}, {"old": {}}, {"n": 1}, {"old": {}}, None]
        for plan in plans:
            await journal.record(replace(begun, plan=plan))
            journal = await open_journal()
            assert await journal.open_rollout("docker:web") == replace(begun, plan=plan)
        assert [rollout.plan for rollout in await journal.open_rollouts()] == [None]

    async def test_a_plan_may_be_any_mapping(self, journal: Journal):
        """A read-only view is written as the mapping that it shows."""
        await journal.record(a_rollout(plan=MappingProxyType({"a": 1})))
        rollout = await journal.open_rollout("docker:web")
        assert rollout == a_rollout(plan={"a": 1})

    async def test_what_json_cannot_hold_is_an_error(self, journal: Journal):
        """A plan that could not be read again is refused before anything is kept of it."""
        before = a_rollout("r0")
        await journal.record(before)
        ended = before.enter(Phase.SUPERSEDED)
        with pytest.raises(TypeError):
            await journal.record(a_rollout("r1", plan={"when": {1, 2}}), after=ended)
        assert await journal.open_rollout("docker:web") == before

    @pytest.mark.parametrize("phase", [Phase.SUPERSEDED, Phase.ABANDONED])
    async def test_a_final_rollout_is_not_open(self, journal: Journal, phase: Phase):
        """Once its last value is final a rollout is only history."""
        begun = a_rollout()
        await journal.record(begun)
        await journal.record(begun.enter(phase, "because"))
        assert await journal.open_rollout("docker:web") is None
        assert await journal.open_rollouts() == []

    async def test_one_rollout_takes_the_place_of_another(self, journal: Journal, open_journal):
        """The end of one and the beginning of the next are recorded in the same breath."""
        begun = a_rollout("r1")
        await journal.record(begun)
        newer = a_rollout("r2", to=Revision(digest=NEWER))
        await journal.record(newer, after=begun.enter(Phase.SUPERSEDED, "newer"))
        journal = await open_journal()
        assert await journal.open_rollouts() == [newer]
        phases = [(each.rollout.id, each.rollout.phase) for each in (await journal.history(limit=9)).transitions]
        assert phases == [("r2", Phase.UPDATING), ("r1", Phase.SUPERSEDED), ("r1", Phase.UPDATING)]

    async def test_a_target_has_one_open_rollout(self, journal: Journal):
        """A second open rollout of a target is refused, and nothing of the call is kept."""
        first, elsewhere = a_rollout("r1"), a_rollout("r2", target_id="docker:db")
        await journal.record(first)
        await journal.record(elsewhere)
        with pytest.raises(ValueError, match="'r1' of 'docker:web' is open"):
            await journal.record(a_rollout("r3"), after=elsewhere.enter(Phase.ABANDONED))
        assert await journal.open_rollouts() == [first, elsewhere]

    async def test_what_is_final_may_be_said_again(self, journal: Journal):
        """The end of a rollout may be recorded once more, while the next one is open."""
        ended = a_rollout("r1").enter(Phase.SUPERSEDED)
        await journal.record(a_rollout("r2"), after=ended)
        await journal.record(ended)
        assert await journal.open_rollouts() == [a_rollout("r2")]

    async def test_an_id_is_that_of_a_target(self, journal: Journal):
        """Two targets may have rollouts of the same id, which are two."""
        web, db = a_rollout("r1", target_id="docker:web"), a_rollout("r1", target_id="docker:db")
        await journal.record(web)
        await journal.record(db)
        await journal.record(web.enter(Phase.ABANDONED))
        assert await journal.open_rollouts() == [db]

    # rejects

    async def test_a_digest_that_failed_its_gate_is_rejected(self, journal: Journal, open_journal):
        """Rolling back rejects the digest, with the reason of the phase, for this service and repository alone."""
        begun = a_rollout()
        await journal.record(begun)
        assert await journal.rejected(SERVICE, REPOSITORY) == {}
        rolling_back = begun.enter(Phase.ROLLING_BACK, "became unhealthy")
        await journal.record(rolling_back)
        await journal.record(rolling_back.enter(Phase.ROLLED_BACK))
        journal = await open_journal()
        rejected = await journal.rejected(SERVICE, REPOSITORY)
        assert rejected == {NEW: "became unhealthy"}
        assert {type(digest) for digest in rejected} == {Digest}
        assert await journal.rejected(SERVICE, "docker.io/library/redis") == {}
        assert await journal.rejected("shop/db", REPOSITORY) == {}

    async def test_a_digest_left_in_place_is_rejected_too(self, journal: Journal):
        """One that failed and is not rolled back, as its labels ask, is rejected as well."""
        finishing = replace(a_rollout().enter(Phase.FINISHING, "exited"), is_broken=True)
        await journal.record(finishing)
        await journal.record(finishing.enter(Phase.FAILED, "left there"))
        assert await journal.rejected(SERVICE, REPOSITORY) == {NEW: "exited"}

    @pytest.mark.parametrize("phase", [Phase.FINISHING, Phase.SUPERSEDED, Phase.ABANDONED])
    async def test_nothing_else_rejects(self, journal: Journal, phase: Phase):
        """A digest that did not fail its gate is not rejected."""
        await journal.record(a_rollout().enter(phase, "because"))
        assert await journal.rejected(SERVICE, REPOSITORY) == {}

    async def test_a_released_digest_may_be_tried_again(self, journal: Journal, open_journal):
        """Releasing forgets all rejects of a service, says how many digests there were, and leaves other services."""
        for number, (digest, service) in enumerate([(NEW, SERVICE), (NEWER, SERVICE), (NEW, "shop/db")]):
            rollout = a_rollout(f"r{number}", target_id=f"docker:{number}", service=service, to=Revision(digest=digest))
            await journal.record(rollout.enter(Phase.ROLLING_BACK, "exited"))
        assert await journal.release(SERVICE, REPOSITORY) == 2
        assert await journal.release(SERVICE, REPOSITORY) == 0
        journal = await open_journal()
        assert await journal.rejected(SERVICE, REPOSITORY) == {}
        assert await journal.rejected("shop/db", REPOSITORY) == {NEW: "exited"}

    async def test_a_release_holds_until_another_rollout_fails(self, journal: Journal):
        """What the same rollout records after the release rejects nothing again; the next that fails does."""
        rolling_back = a_rollout("r1").enter(Phase.ROLLING_BACK, "exited")
        await journal.record(rolling_back)
        await journal.release(SERVICE, REPOSITORY)
        await journal.record(replace(rolling_back, settled=True))
        assert await journal.rejected(SERVICE, REPOSITORY) == {}
        await journal.record(rolling_back.enter(Phase.ROLLED_BACK))
        await journal.record(a_rollout("r2").enter(Phase.ROLLING_BACK, "exited again"))
        assert await journal.rejected(SERVICE, REPOSITORY) == {NEW: "exited again"}

    # digests and image targets

    async def test_a_digest_is_first_seen_once(self, journal: Journal, open_journal, clock: FakeClock):
        """The first sight of a digest in a repository stays, whenever it is seen again."""
        first = clock.time
        assert await journal.note_digest(REPOSITORY, NEW) == first
        clock.time += 60
        journal = await open_journal()
        assert await journal.note_digest(REPOSITORY, NEW) == first
        assert await journal.note_digest("ghcr.io/me/app", NEW) == first + 60
        assert await journal.note_digest(REPOSITORY, NEWER) == first + 60

    async def test_image_targets_are_kept(self, journal: Journal, open_journal):
        """An image target is kept once, in the order of their making, over a restart."""
        refs = [ImageRef.parse(text) for text in ("nginx:1", "localhost:5000/a/b:x", "nginx", f"nginx@{NEW}")]
        for ref in [*refs, refs[0]]:
            await journal.add_image_target(ref)
        journal = await open_journal()
        assert await journal.image_targets() == refs

    # history

    async def test_history_is_newest_first(self, journal: Journal, clock: FakeClock):
        """Transitions and deliveries are given newest first, as many as asked for, transitions without their plan."""
        rollout = a_rollout(plan={"old": {}})
        for number in range(3):
            await journal.accept(a_delivery(f"d{number}"))
            clock.time += 1
            await journal.record(replace(rollout, goal_starts=number))
        history = await journal.history(limit=2)
        assert [delivery.id for delivery in history.deliveries] == ["d2", "d1"]
        assert [each.rollout for each in history.transitions] == [
            replace(rollout, plan=None, goal_starts=2),
            replace(rollout, plan=None, goal_starts=1),
        ]
        assert [each.recorded_at for each in history.transitions] == [clock.time, clock.time - 1]

    async def test_history_of_one_target(self, journal: Journal):
        """The history of a target has its own transitions, and the deliveries that its rollouts name."""
        for number in range(4):
            await journal.accept(a_delivery(f"d{number}"))
        await journal.record(a_rollout("r1", target_id="docker:web", delivery_ids=("d1", "d3")))
        await journal.record(a_rollout("r2", target_id="docker:db", delivery_ids=("d2",)))
        history = await journal.history(limit=5, target_id="docker:web")
        assert [each.rollout.id for each in history.transitions] == ["r1"]
        assert [delivery.id for delivery in history.deliveries] == ["d3", "d1"]
        assert await journal.history(limit=5, target_id="docker:nobody") == replace(
            history, transitions=[], deliveries=[]
        )

    async def test_a_new_journal_is_empty(self, journal: Journal):
        """A journal that was just made remembers nothing, and is well."""
        assert await journal.unfinished_deliveries() == []
        assert await journal.open_rollouts() == []
        assert await journal.image_targets() == []
        assert await journal.release(SERVICE, REPOSITORY) == 0
        assert await journal.probe() is None
