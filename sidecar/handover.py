"""What the daemon hands over to the helper that updates Sidecar's own container, as a file in the state folder.

Neither can stop itself and go on, so the one that runs gives the rollout in hand to a helper, which has no other
memory. The journal stays the daemon's: the helper writes to it only while no daemon runs, and where it cannot the file
says how far it is. It decides nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from sidecar.core.image import Digest, ImageRef
from sidecar.core.rollout import Rollout
from sidecar.errors import Misconfigured, Transient
from sidecar.journal_values import read_rollout, write_plan, write_rollout
from sidecar.ports import Delivery, History, Journal

FILE_NAME: Final = "handover.json"


class HandoverFile:
    """The rollout of Sidecar's own container, as whoever has it in hand knows it."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / FILE_NAME

    def write(self, rollout: Rollout) -> None:
        """Keep a value of the rollout, as a whole or not at all, for its owner only.

        Raises:
            Transient: the folder cannot be written to.
        """
        part = self._file.with_suffix(".part")
        try:
            part.touch(mode=0o600)
            with part.open("w") as output:
                json.dump({"rollout": write_rollout(rollout), "plan": write_plan(rollout)}, output)
                output.flush()
                os.fsync(output.fileno())  # or the host may come up again with an empty file under that name
            part.replace(self._file)
        except OSError as error:
            msg = f"writing {str(self._file)!r}: {error.strerror}"
            raise Transient(msg) from error

    def read(self) -> Rollout | None:
        """Give the rollout; None where there is none, or no longer.

        Raises:
            Transient: it cannot be read.
        """
        try:
            kept = json.loads(self._file.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            msg = f"reading {str(self._file)!r}: {error}"
            raise Transient(msg) from error
        return read_rollout(kept["rollout"], kept["plan"])

    def remove(self) -> None:
        """Forget it: the rollout is over."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)


class HandoverJournal:
    """The journal, as the helper has it: its file, and the daemon's own wherever no daemon has that.

    Args:
        is_alone: says whether neither the old nor the new daemon runs, which would need the journal for itself.
        open_journal: opens the daemon's, and gives what closes it.
    """

    def __init__(
        self,
        file: HandoverFile,
        *,
        is_alone: Callable[[Rollout], Awaitable[bool]],
        open_journal: Callable[[], Awaitable[tuple[Journal, Callable[[], Awaitable[None]]]]],
    ) -> None:
        self._file = file
        self._is_alone = is_alone
        self._open_journal = open_journal

    async def record(self, rollout: Rollout, *, after: Rollout | None = None) -> None:
        """Keep a value in the file, and in the journal where that is free."""
        self._file.write(rollout)
        if not await self._is_alone(rollout):
            return
        try:
            journal, close = await self._open_journal()
        except Misconfigured as error:  # a daemon has just begun: from here on it knows by itself
            raise Transient(str(error)) from error
        try:
            await journal.record(rollout, after=after)
        finally:
            await close()

    async def open_rollout(self, target_id: str) -> Rollout | None:
        """Give the rollout in hand."""
        rollout = self._file.read()
        return rollout if rollout is not None and rollout.is_open and rollout.target_id == target_id else None

    async def last_rollout(self, target_id: str) -> Rollout | None:
        """Give the rollout in hand, over or not; others are the daemon's."""
        rollout = self._file.read()
        return rollout if rollout is not None and rollout.target_id == target_id else None

    async def open_rollouts(self) -> Sequence[Rollout]:
        """Give the rollout in hand; others are the daemon's."""
        rollout = self._file.read()
        return [rollout] if rollout is not None and rollout.is_open else []

    async def rejected(self, service: str, repository: str) -> Mapping[Digest, str]:
        """Give none: a helper begins nothing."""
        del service, repository
        return {}

    async def accept(self, delivery: Delivery) -> None:
        """Refuse: nobody delivers to a helper."""
        msg = f"keeping delivery {delivery.id}: this is a helper; send it to the daemon"
        raise Transient(msg)

    async def finish_deliveries(self, delivery_ids: Iterable[str]) -> None:
        """Leave that to the daemon."""
        del delivery_ids

    async def unfinished_deliveries(self) -> Sequence[Delivery]:
        """Leave those to the daemon."""
        return []

    async def release(self, service: str, repository: str) -> int:
        """Leave that to the daemon."""
        del service, repository
        return 0

    async def note_digest(self, repository: str, digest: Digest) -> float:
        """Refuse: a helper asks no registry."""
        msg = f"noting {digest} of {repository}: a helper asks no registry"
        raise Transient(msg)

    async def add_image_target(self, ref: ImageRef) -> None:
        """Leave that to the daemon."""
        del ref

    async def image_targets(self) -> Sequence[ImageRef]:
        """Give none."""
        return []

    async def history(self, *, limit: int, target_id: str | None = None) -> History:
        """Give none."""
        del limit, target_id
        return History()
