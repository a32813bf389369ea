"""A journal that forgets when the process ends; everything in it went through the same JSON as in the real one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sidecar.core.image import Digest, ImageRef
from sidecar.core.rollout import Rollout
from sidecar.journal_values import (
    DeliveryRow,
    encode,
    read_delivery,
    read_rollout,
    write_delivery,
    write_plan,
    write_rollout,
)
from sidecar.ports import Clock, Delivery, History, Transition


@dataclass(slots=True)
class _Reject:
    digest: Digest
    reason: str
    rollout: tuple[str, str]
    is_released: bool = False


@dataclass(slots=True)
class MemoryJournal:
    """The semantics of the real one, in dictionaries.

    Attributes:
        problem: while it is set every change fails with it, as on a full disk.
        recorded: every value that was recorded, with its plan, oldest first.
    """

    clock: Clock
    problem: Exception | None = None
    recorded: list[Rollout] = field(default_factory=list)
    _deliveries: dict[str, DeliveryRow] = field(default_factory=dict)
    _finished: set[str] = field(default_factory=set)
    _recorded_at: list[float] = field(default_factory=list)
    _newest: dict[tuple[str, str], Rollout] = field(default_factory=dict)  # by target id and rollout id
    _rejects: dict[tuple[str, str], list[_Reject]] = field(default_factory=dict)
    _digests: dict[tuple[str, Digest], float] = field(default_factory=dict)
    _image_targets: dict[str, None] = field(default_factory=dict)

    async def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    async def probe(self) -> str | None:
        return None if self.problem is None else str(self.problem)

    async def accept(self, delivery: Delivery) -> None:
        self._fail_if_told()
        self._deliveries.setdefault(delivery.id, write_delivery(delivery))

    async def finish_deliveries(self, delivery_ids: Iterable[str]) -> None:
        self._fail_if_told()
        self._finished.update(self._deliveries.keys() & set(delivery_ids))

    async def unfinished_deliveries(self) -> Sequence[Delivery]:
        deliveries = [read_delivery(row) for key, row in self._deliveries.items() if key not in self._finished]
        return [replace(delivery, body=b"") for delivery in deliveries if delivery.fate == "accepted"]

    async def record(self, rollout: Rollout, *, after: Rollout | None = None) -> None:
        self._fail_if_told()
        appended = [rollout] if after is None else [after, rollout]
        # All or nothing: what JSON cannot hold is found before anything is kept.
        appended = [read_rollout(json.loads(encode(write_rollout(each))), write_plan(each)) for each in appended]
        ended = {value.id for value in appended if not value.is_open}
        for other in await self.open_rollouts():
            if rollout.is_open and other.target_id == rollout.target_id and other.id not in {rollout.id, *ended}:
                msg = f"recording rollout {rollout.id!r}: rollout {other.id!r} of {rollout.target_id!r} is open"
                raise ValueError(msg)
        for value in appended:
            self._append(value)

    def _append(self, rollout: Rollout) -> None:
        key = (rollout.target_id, rollout.id)
        self._newest[key] = rollout
        self.recorded.append(rollout)
        self._recorded_at.append(self.clock.now())
        if rollout.rejected is None:
            return
        rejects = self._rejects.setdefault((rollout.service, rollout.repository), [])
        if all(reject.rollout != key for reject in rejects):
            rejects.append(_Reject(rollout.rejected, rollout.reason, key))

    async def open_rollout(self, target_id: str) -> Rollout | None:
        return next((rollout for rollout in await self.open_rollouts() if rollout.target_id == target_id), None)

    async def last_rollout(self, target_id: str) -> Rollout | None:
        return next((rollout for rollout in reversed(self._newest.values()) if rollout.target_id == target_id), None)

    async def open_rollouts(self) -> Sequence[Rollout]:
        return [rollout for rollout in self._newest.values() if rollout.is_open]

    async def rejected(self, service: str, repository: str) -> Mapping[Digest, str]:
        rejects = self._rejects.get((service, repository), [])
        return {reject.digest: reject.reason for reject in rejects if not reject.is_released}

    async def release(self, service: str, repository: str) -> int:
        self._fail_if_told()
        released = await self.rejected(service, repository)
        for reject in self._rejects.get((service, repository), []):
            reject.is_released = True
        return len(released)

    async def note_digest(self, repository: str, digest: Digest) -> float:
        self._fail_if_told()
        return self._digests.setdefault((repository, digest), self.clock.now())

    async def add_image_target(self, ref: ImageRef) -> None:
        self._fail_if_told()
        self._image_targets.setdefault(str(ref))

    async def image_targets(self) -> Sequence[ImageRef]:
        return [ImageRef.parse(text) for text in self._image_targets]

    async def history(self, *, limit: int, target_id: str | None = None) -> History:
        recorded = zip(self.recorded, self._recorded_at, strict=True)
        transitions = [Transition(rollout=replace(each, plan=None), recorded_at=at) for each, at in recorded]
        deliveries = [read_delivery(row) for row in self._deliveries.values()]
        if target_id is not None:
            transitions = [each for each in transitions if each.rollout.target_id == target_id]
            named = {delivery_id for each in transitions for delivery_id in each.rollout.delivery_ids}
            deliveries = [delivery for delivery in deliveries if delivery.id in named]
        return History(transitions=transitions[::-1][:limit], deliveries=deliveries[::-1][:limit])

    def _fail_if_told(self) -> None:
        if self.problem is not None:
            raise self.problem
