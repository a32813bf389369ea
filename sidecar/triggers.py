"""Everything but a delivery that enqueues: the start, the resync, and what the engine tells of its containers.

It asks for passes and runs none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Mapping
from functools import partial

from sidecar.core.decision import Cause
from sidecar.dispatch import Dispatcher
from sidecar.errors import Transient
from sidecar.ports import Ports
from sidecar.targets._engine import Engine
from sidecar.targets.names import base_name, replaced_name
from sidecar.workqueue import WorkQueue

_RECONNECT_SECONDS = 2.0
# What an engine tells of its containers comes in bursts, and a container may restart for ever.
_ENGINE_QUIET_SECONDS = 10.0
# Of the engine's events those after which a container may be another one, or be healthy or not.
_TELLING = frozenset({"create", "start", "die", "destroy", "rename", "update", "health_status"})


class Triggers:
    """Asks for passes.

    Args:
        known: the ids of targets that have been looked at.
        manages: says by its labels whether a container is looked after.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        engine: Engine,
        queue: WorkQueue,
        dispatcher: Dispatcher,
        known: Container[str],
        manages: Callable[[Mapping[str, str]], bool],
    ) -> None:
        self._ports = ports
        self._engine = engine
        self._queue = queue
        self._dispatcher = dispatcher
        self._known = known
        self._manages = manages

    async def look_at_all(self, resync_seconds: float) -> None:
        """Enqueue at the start what was left open and everything there is; everything again as often; 0: never."""
        await self._eventually(self._resume)
        await self._eventually(partial(self._ask_all, "start-up"))
        while resync_seconds:
            await self._ports.clock.sleep(resync_seconds)
            await self._eventually(partial(self._ask_all, "resync"))

    async def follow_engine(self) -> None:
        """Take what the engine tells as hints; once it was away, look at everything."""
        while True:
            try:
                async for event in self._engine.events():
                    self.take(event)
            except Transient as error:
                self._ports.events.publish("engine.failed", reason=str(error))
            await self._ports.clock.sleep(_RECONNECT_SECONDS)
            await self._eventually(self._engine.ping)
            self._ports.events.publish("engine.connected")
            await self._eventually(partial(self._ask_all, "engine"))

    def take(self, event: Mapping[str, object]) -> None:
        """Take one event: a gate looks up at once, and a target that we look after is looked at once it is quiet."""
        actor = event.get("Actor")
        attributes = actor.get("Attributes", {}) if isinstance(actor, dict) else {}
        action, name = str(event.get("Action", "")).partition(":")[0], str(attributes.get("name", ""))
        if action not in _TELLING:
            return
        target_id = f"docker:{base_name(name)}"
        if target_id not in self._known and (replaced := replaced_name(name, attributes)) is not None:
            target_id = f"docker:{replaced}"  # what Compose makes in its place, or takes out of it, is gone in a moment
        self._queue.wake(target_id)
        if target_id in self._known or self._manages(attributes):
            self._queue.add(target_id, Cause("engine", self._ports.clock.now()), delay_seconds=_ENGINE_QUIET_SECONDS)

    async def _resume(self) -> None:
        now = self._ports.clock.now()
        for rollout in await self._ports.journal.open_rollouts():
            self._queue.add(rollout.target_id, Cause("start-up", now, rollout.delivery_ids))
        for delivery in await self._ports.journal.unfinished_deliveries():
            self._dispatcher.accept(delivery)

    async def _ask_all(self, kind: str) -> None:
        """Enqueue everything there is; of a project one target, for its pass judges all of them."""
        now, projects = self._ports.clock.now(), set[str]()
        for driver in self._ports.drivers.values():
            for target in await driver.list():
                if target.project is None or target.project not in projects:
                    self._queue.add(target.id, Cause(kind, now))
                projects |= {target.project} if target.project else set()

    async def _eventually(self, act: Callable[[], Awaitable[object]]) -> None:
        """Do something that engine or journal may refuse for now."""
        while True:
            try:
                await act()
            except Transient as error:
                self._ports.events.publish("engine.failed", reason=str(error))
                await self._ports.clock.sleep(_RECONNECT_SECONDS)
            else:
                return
