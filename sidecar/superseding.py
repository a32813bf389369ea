"""Looks for a newer digest beside a rollout that is in its gate, and prepares what it finds.

It touches nothing that runs and records nothing: the gate is watched, and rolls back, as if nobody looked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

from sidecar.core.decide import supersede
from sidecar.core.decision import Cause, Resolved
from sidecar.core.image import Digest, ImageRef
from sidecar.core.rollout import Rollout
from sidecar.core.target import Target
from sidecar.ids import new_id
from sidecar.ports import Ports


@dataclass(frozen=True, slots=True)
class _Found:
    """What the registry says, and the rollout that would follow, as it was judged and as it was prepared."""

    resolved: Resolved
    rejected: dict[Digest, str]
    intent: Rollout
    prepared: Rollout


class Search:
    """One look for a newer digest, on its way from the moment that it is made.

    Args:
        rollout: the one that may be superseded.

    Attributes:
        cause: on whose behalf.
        has_turn: it prepares what it found, which counts against what may pull at once.
    """

    def __init__(
        self, ports: Ports, target: Target, rollout: Rollout, cause: Cause, *, turns: asyncio.Semaphore
    ) -> None:
        self.has_turn = False
        self._ports = ports
        self._turns = turns
        self.cause = cause
        self._task = asyncio.create_task(self._look(target, rollout))

    @property
    def is_done(self) -> bool:
        """Say whether it is known what there is."""
        return self._task.done()

    async def known(self) -> None:
        """Wait until it is known what there is."""
        await asyncio.wait({self._task})

    async def wait(self, other: Awaitable[None]) -> None:
        """Wait for something else, but no longer than until it is known what there is."""
        waiting = asyncio.ensure_future(other)
        try:
            await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    async def end(self) -> None:
        """Give it up where nothing is prepared yet; what is being prepared is waited for."""
        if not self.has_turn:
            self._task.cancel()
        await self.known()
        if not self._task.cancelled():
            self._task.exception()  # nobody asks for what it found any more, nor for why it found nothing

    def superseded_by(self, rollout: Rollout) -> tuple[Rollout, Rollout] | None:
        """Give the end of a rollout and the prepared one that takes its place; None where it is to go on.

        Raises:
            SidecarError: registry, engine or journal failed.
        """
        found = self._task.result()
        if found is None:
            return None
        # Whatever has become of it meanwhile: only what would be judged the same now is what was prepared.
        pair = supersede(rollout, found.resolved, rejected=found.rejected, cause=self.cause, rollout_id=found.intent.id)
        return (pair[0], found.prepared) if pair is not None and pair[1] == found.intent else None

    async def _look(self, target: Target, rollout: Rollout) -> _Found | None:
        ref = ImageRef.parse(rollout.ref)  # as it was when it began
        resolved = await self._ports.registry.resolve(ref)
        rejected = dict(await self._ports.journal.rejected(target.service, ref.name))
        pair = supersede(rollout, resolved, rejected=rejected, cause=self.cause, rollout_id=new_id())
        if pair is None:
            return None
        async with self._turns:
            self.has_turn = True
            try:
                prepared = await self._ports.drivers[target.kind].prepare(target, pair[1])
            finally:
                self.has_turn = False
        return _Found(resolved, rejected, pair[1], prepared)
