"""Commits together what arrives while the disk is busy: one hand-over to a thread and one flush for many callers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

from sidecar.errors import SidecarError, Transient

# More than this waiting means that the disk stands still; senders are better told so than kept.
MOST_WAITING, MOST_WAITING_BYTES = 10_000, 64 * 1024**2

_T = TypeVar("_T")


class GroupCommit(Generic[_T]):
    """Gathers items on the event loop; only the commit itself runs in the thread.

    Args:
        thread: runs one call after another.
        commit: keeps a batch as a whole, or fails as a whole; called in the thread.
    """

    def __init__(self, thread: Executor, commit: Callable[[Sequence[_T]], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = thread
        self._commit = commit
        self._gathered: list[tuple[_T, int, asyncio.Future[None]]] = []
        self._items = 0
        self._bytes = 0
        self._is_committing = False

    async def add(self, item: _T, *, size_bytes: int) -> None:
        """Return when the item is committed.

        Raises:
            Transient: the batch could not be committed, or too much is waiting.
        """
        if self._items >= MOST_WAITING or self._bytes >= MOST_WAITING_BYTES:
            msg = f"keeping a delivery: {self._items} others wait for the disk already"
            raise Transient(msg, retry_after_seconds=1.0)
        committed: asyncio.Future[None] = self._loop.create_future()
        self._gathered.append((item, size_bytes, committed))
        self._items += 1
        self._bytes += size_bytes
        if len(self._gathered) == 1 and not self._is_committing:
            # Not at once: whoever else is ready in this turn of the loop comes along.
            self._loop.call_soon(self.hand_over)
        await committed

    def hand_over(self) -> None:
        """Let the thread commit what was gathered, after all that it was given before."""
        if self._gathered:
            batch, self._gathered = self._gathered, []
            self._is_committing = True
            self._thread.submit(self._run, batch)

    def _run(self, batch: Sequence[tuple[_T, int, asyncio.Future[None]]]) -> None:
        problem: str | None = None
        try:
            self._commit([item for item, _, _ in batch])
        except SidecarError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - nobody is above this but the callers, who must not wait for ever
            problem = f"keeping a delivery: {error!r}"
        self._loop.call_soon_threadsafe(self._settle, batch, problem)

    def _settle(self, batch: Sequence[tuple[_T, int, asyncio.Future[None]]], problem: str | None) -> None:
        for _, size_bytes, committed in batch:
            self._items -= 1
            self._bytes -= size_bytes
            if committed.done():
                continue  # its caller was cancelled meanwhile
            if problem is None:
                committed.set_result(None)
            else:
                committed.set_exception(Transient(problem))
        self._is_committing = False
        if self._gathered:
            self._loop.call_soon(self.hand_over)  # after the callers that were just told
