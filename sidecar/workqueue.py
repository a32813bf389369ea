"""The queue between hints and passes: keyed by target, coalescing, one pass of a target at a time.

It knows nothing of targets but their ids, and nothing of passes but that they end and may ask to be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sidecar.core.decision import Cause
from sidecar.ports import Clock

# Runs one pass and says in how many seconds to look again without being told, or None.
Pass = Callable[[str, Cause], Awaitable[float | None]]


@dataclass(slots=True)
class _Key:
    """One target's place in the queue.

    Attributes:
        is_taken: what waits was given to the pass that runs as well.
    """

    hinted: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: Cause | None = None
    is_taken: bool = False
    due: float = 0.0
    not_before: float = float("-inf")
    is_running: bool = False
    timer: asyncio.Task[None] | None = None


class WorkQueue:
    """Starts the first request of a quiet target at once; those that follow closely become one more pass.

    Passes of different targets run side by side. Times are the clock's monotonic ones.

    Args:
        debounce_seconds: least time between the starts of two passes of one target.
    """

    def __init__(self, *, clock: Clock, debounce_seconds: float) -> None:
        self._run_pass: Pass = _no_pass
        self._clock = clock
        self._debounce_seconds = debounce_seconds
        self._keys: dict[str, _Key] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._is_closed = False

    async def run(self, run_pass: Pass, stopping: asyncio.Event) -> None:
        """Work until stopping is set; then wait for the passes that run, and start no more."""
        self._run_pass = run_pass
        async with asyncio.TaskGroup() as self._tasks:
            for name in self._keys:
                self._schedule(name)
            await stopping.wait()
            self._is_closed = True
            for key in self._keys.values():
                if key.timer is not None and not key.is_running:
                    key.timer.cancel()
                key.hinted.set()  # whoever waits in a gate looks up and finds that we stop

    def add(self, name: str, cause: Cause, *, delay_seconds: float = 0.0) -> None:
        """Ask for a pass; after a delay unless one that is due earlier takes it along."""
        if name not in self._keys:
            self._forget_idle()
        key = self._keys.setdefault(name, _Key())
        due = self._clock.monotonic() + delay_seconds
        key.due = due if key.waiting is None else min(key.due, due)
        key.is_taken = False
        key.waiting = cause if key.waiting is None else key.waiting.merged(cause)
        if key.is_running:
            if delay_seconds <= 0:
                key.hinted.set()
            return
        self._schedule(name)

    def wake(self, name: str) -> None:
        """Let a pass that waits in a gate look up now; asks for no pass of its own."""
        if (key := self._keys.get(name)) is not None and key.is_running:
            key.hinted.set()

    def take_hint(self, name: str) -> Cause | None:
        """Give what was asked of this target since its pass began, or since the last time, and is due by now.

        It is left for the pass after this one as well; what is to settle first is left for that alone.
        """
        key = self._keys.get(name)
        if key is None or not key.hinted.is_set():
            return None
        key.hinted.clear()
        if key.is_taken or key.due > self._clock.monotonic():
            return None
        key.is_taken = key.waiting is not None
        return key.waiting

    async def wait_for_hint(self, name: str, seconds: float) -> None:
        """Wait, but no longer than until somebody asks for this target."""
        key = self._keys.setdefault(name, _Key())
        if self._is_closed:
            return
        waiting = asyncio.ensure_future(key.hinted.wait())
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({waiting, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            sleeping.cancel()

    @property
    def depth(self) -> int:
        """How many targets wait for a pass."""
        return sum(1 for key in self._keys.values() if key.waiting is not None)

    def _forget_idle(self) -> None:
        """Forget whose last pass is over and long enough ago: names come and go with containers."""
        now = self._clock.monotonic()
        self._keys = {
            name: key
            for name, key in self._keys.items()
            if key.is_running or key.waiting is not None or key.not_before > now
        }

    def _schedule(self, name: str) -> None:
        key = self._keys[name]
        if self._tasks is None or self._is_closed or key.waiting is None or key.is_running:
            return
        if key.timer is not None:
            key.timer.cancel()
        key.timer = self._tasks.create_task(self._start_when_due(name, key), name=f"pass {name}")

    async def _start_when_due(self, name: str, key: _Key) -> None:
        # One task waits and then runs the pass, so that every task has an owner and one place to fail.
        if (pause := max(key.due, key.not_before) - self._clock.monotonic()) > 0:
            await self._clock.sleep(pause)
        if key.waiting is None or self._is_closed:
            return
        cause, key.waiting, key.is_taken = key.waiting, None, False
        key.hinted.clear()
        key.is_running = True
        key.not_before = self._clock.monotonic() + self._debounce_seconds
        try:
            again_in = await self._run_pass(name, cause)
        finally:
            key.is_running = False
        key.timer = None
        if again_in is not None:
            self.add(name, cause, delay_seconds=again_in)
        self._schedule(name)


async def _no_pass(name: str, cause: Cause) -> None:
    """Stand in until the queue runs; nothing is started before."""
    del name, cause
