"""Equal questions that are asked at the same time share one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

_Answer = TypeVar("_Answer")


class SingleFlight(Generic[_Answer]):
    """Runs a question once for all who ask it; it owns the task, so an asker who is cancelled takes it from nobody."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[_Answer]] = set()
        self._flying: dict[Hashable, asyncio.Task[_Answer]] = {}
        self._boarding: dict[Hashable, asyncio.Task[_Answer]] = {}

    async def share(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, _Answer]]) -> _Answer:
        """Join the question that is under way, or ask it. For answers that do not age."""
        task = self._flying.get(key) or self._start(key, ask())
        return await asyncio.shield(task)

    async def share_fresh(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, _Answer]]) -> _Answer:
        """Join the question that is about to be asked, never one already sent: what it brings may be older than we are.

        Those who come too late are one more question together, asked when the one under way has ended.
        """
        task = self._boarding.get(key)
        if task is None:
            task = self._start(key, self._depart(key, ask, self._flying.get(key)))
            self._boarding[key] = task
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Cancel what is under way and wait for its end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _depart(
        self,
        key: Hashable,
        ask: Callable[[], Coroutine[Any, Any, _Answer]],
        before: asyncio.Task[_Answer] | None,
    ) -> _Answer:
        if before is not None:
            await asyncio.wait([before])
        del self._boarding[key]
        return await ask()

    def _start(self, key: Hashable, question: Coroutine[Any, Any, _Answer]) -> asyncio.Task[_Answer]:
        task = asyncio.create_task(question)
        self._tasks.add(task)
        self._flying[key] = task
        task.add_done_callback(lambda ended: self._land(key, ended))
        return task

    def _land(self, key: Hashable, task: asyncio.Task[_Answer]) -> None:
        self._tasks.discard(task)
        if self._flying.get(key) is task:
            del self._flying[key]
        if self._boarding.get(key) is task:
            del self._boarding[key]
        if not task.cancelled():
            task.exception()  # looked at, also where every asker was cancelled
