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
from sidecar.core.target import Image, Target
from sidecar.errors import SidecarError
from sidecar.ids import new_id
from sidecar.ports import Ports
from sidecar.resolving import compare_platforms, resolve


@dataclass(frozen=True, slots=True)
class _Found:
    """What the registry says, and the rollout that follows, prepared."""

    resolved: Resolved
    rejected: dict[Digest, str]
    prepared: Rollout


class Search:
    """One look for a newer digest, on its way from the moment that it is made.

    Args:
        rollout: the one that may be superseded.

    Attributes:
        cause: on whose behalf.
    """

    def __init__(
        self, ports: Ports, target: Target, rollout: Rollout, cause: Cause, *, turns: asyncio.Semaphore
    ) -> None:
        self.cause = cause
        self._ports = ports
        self._turns = turns
        self._has_turn = False
        self._task = asyncio.create_task(self._look(target, rollout))

    @property
    def is_done(self) -> bool:
        """Say whether it is over."""
        return self._task.done()

    async def wait(self, other: Awaitable[None]) -> None:
        """Wait for something else, but no longer than until this is over."""
        waiting = asyncio.ensure_future(other)
        try:
            await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if waiting.done():
            waiting.result()

    def hand_over_turn(self) -> bool:
        """Give away the turn in which something is prepared, and say whether there was one."""
        has_turn, self._has_turn = self._has_turn, False
        return has_turn

    async def end(self) -> None:
        """Give it up, whatever it is at: nothing that it does is missed when it is done again.

        Raises:
            Exception: it had failed, with a defect of ours.
        """
        self._task.cancel()
        await asyncio.wait({self._task})
        error = None if self._task.cancelled() else self._task.exception()
        if error is not None and not isinstance(error, SidecarError):
            raise error

    def superseded_by(self, rollout: Rollout) -> tuple[Rollout, Rollout] | None:
        """Give the end of a rollout and the prepared one that takes its place; None where it is to go on.

        Raises:
            SidecarError: registry, engine or journal failed.
        """
        found = self._task.result()
        if found is None:
            return None
        # Judged anew, for it may have passed its gate or been changed by others meanwhile. What was prepared holds:
        # a search is ended before anything is done to what its rollout has in hand.
        ident = found.prepared.id
        pair = supersede(rollout, found.resolved, rejected=found.rejected, cause=self.cause, rollout_id=ident)
        return (pair[0], found.prepared) if pair is not None else None

    async def _look(self, target: Target, rollout: Rollout) -> _Found | None:
        ref = ImageRef.parse(rollout.ref)  # as it was when it began
        resolved = await resolve(self._ports, target, ref, self.cause)
        if resolved.digest != rollout.to.digest and await self._is_same_here(ref, resolved, rollout):
            return None
        rejected = dict(await self._ports.journal.rejected(target.service, ref.name))
        pair = supersede(rollout, resolved, rejected=rejected, cause=self.cause, rollout_id=new_id())
        if pair is None:
            return None
        await self._turns.acquire()
        self._has_turn = True
        try:
            prepared = await self._ports.drivers[target.kind].prepare(target, pair[1])
        finally:
            if self.hand_over_turn():
                self._turns.release()
        return _Found(resolved, rejected, prepared)

    async def _is_same_here(self, ref: ImageRef, resolved: Resolved, rollout: Rollout) -> bool:
        """Say whether what the reference means is, for the platform of the rollout, the image that is in its gate."""
        if rollout.to.digest is None:
            return False
        image = Image(id=rollout.to.image_id or "", digests=frozenset({rollout.to.digest}), platform=rollout.platform)
        resolved, image = await compare_platforms(self._ports.registry, ref, resolved, image)
        return not resolved.identities.isdisjoint(image.identities)
