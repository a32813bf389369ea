"""From deliveries to targets: finds whom the hints concern, enqueues them, and remembers when all have been looked at.

It judges nothing: a hint that concerns nobody is told and ends here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from sidecar.core.decision import Cause
from sidecar.core.image import ImageRef
from sidecar.core.target import Kind, Target
from sidecar.errors import Transient
from sidecar.ports import Delivery, Ports

_PAUSE_SECONDS = 2.0
_BREATH_SECONDS = 0.1

# Told of a delivery once everything it asked for has been looked at, and of what came of it by target.
Finished = Callable[[Delivery, Mapping[str, str]], None]


class Dispatcher:
    """Takes deliveries in at any rate and works on all that have come with one look at the engine.

    Args:
        pull_repositories: globs of images that are kept pulled though no labelled container uses them.
        settle_seconds: how long a quiet target waits after its first hint, where its labels do not say.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        pull_repositories: Sequence[str] = (),
        settle_seconds: float = 0.0,
        finished: Finished | None = None,
    ) -> None:
        self._ports = ports
        self._pull_repositories = pull_repositories
        self._settle_seconds = settle_seconds
        self._finished = finished
        self._pending: list[Delivery] = []
        self._arrived = asyncio.Event()
        self._waiting: dict[str, tuple[Delivery, dict[str, str | None]]] = {}

    def accept(self, delivery: Delivery) -> None:
        """Take one delivery that is on disk, where its body stays; never blocks."""
        # While a registry is down they wait, and a body may have a megabyte.
        self._pending.append(replace(delivery, body=b"") if delivery.body else delivery)
        self._arrived.set()

    def wake(self) -> None:
        """Let the loop see that the process ends."""
        self._arrived.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until the process ends; what is not done by then is on disk."""
        while not stopping.is_set():
            await self._arrived.wait()
            self._arrived.clear()
            batch, self._pending = self._pending, []
            try:
                if batch:
                    await self._match(batch)
                    # The first of a quiet time is looked at at once; those that come close behind share the next look.
                    await self._ports.clock.sleep(_BREATH_SECONDS)
            except Transient as error:
                # The deliveries stay, on disk and here; the engine will be back.
                self._pending = batch + self._pending
                self._arrived.set()
                self._ports.events.publish("engine.failed", reason=str(error))
                await self._ports.clock.sleep(_PAUSE_SECONDS)

    async def done(self, target_id: str, delivery_ids: Sequence[str], outcome: str) -> None:
        """Remember that a target has been looked at on behalf of these deliveries."""
        complete = []
        for delivery_id in delivery_ids:
            _, targets = self._waiting.get(delivery_id, (None, {}))
            if target_id in targets:
                targets[target_id] = outcome
            if targets and all(each is not None for each in targets.values()):
                complete.append(delivery_id)
        await self._finish([self._waiting.pop(delivery_id) for delivery_id in complete])

    async def _match(self, batch: Sequence[Delivery]) -> None:
        targets = {target.id: target for driver in self._ports.drivers.values() for target in await driver.list()}
        nobody = []
        for delivery in batch:
            concerned = {each.id: each for hint in delivery.hints for each in await self._concerned(hint.ref, targets)}
            if not concerned:
                self._tell_unmatched(delivery)
                nobody.append((delivery, dict[str, str | None]()))
                continue
            self._ports.events.publish(
                "delivery.matched", delivery_id=delivery.id, source=delivery.source, targets=sorted(concerned)
            )
            self._waiting[delivery.id] = (delivery, dict.fromkeys(concerned))
            for target in concerned.values():
                settle = target.policy.settle_seconds
                self._ports.hints.add(
                    target.id,
                    Cause("webhook", delivery.received_at, (delivery.id,)),
                    delay_seconds=self._settle_seconds if settle is None else settle,
                )
        await self._finish(nobody)

    def _tell_unmatched(self, delivery: Delivery) -> None:
        images = [str(hint) for hint in delivery.hints]
        self._ports.events.publish(
            "delivery.unmatched",
            delivery_id=delivery.id,
            source=delivery.source,
            images=images,
            reason=f"no labelled container uses {', '.join(images)}, and PULL_REPOSITORIES does not name it",
        )

    async def _concerned(self, hinted: ImageRef, targets: dict[str, Target]) -> Sequence[Target]:
        """Give whom a hint concerns; an image that nobody uses and that is to be kept pulled becomes a target."""
        found = [target for target in targets.values() if target.is_meant_by(hinted)]
        if found or not self._is_kept_pulled(hinted):
            return found
        ref = hinted if hinted.tag else hinted.with_tag("latest")
        await self._ports.journal.add_image_target(ref)
        for target in await self._ports.drivers[Kind.IMAGE].list():
            targets[target.id] = target
        return [target for target in targets.values() if target.is_meant_by(ref)]

    def _is_kept_pulled(self, ref: ImageRef) -> bool:
        return any(
            fnmatchcase(name, pattern) for pattern in self._pull_repositories for name in (ref.name, ref.familiar_name)
        )

    async def _finish(self, entries: Sequence[tuple[Delivery, dict[str, str | None]]]) -> None:
        if not entries:
            return
        try:
            await self._ports.journal.finish_deliveries([delivery.id for delivery, _ in entries])
        except Transient as error:
            # Then they are read again at the next start, which costs one look each.
            self._ports.events.publish("journal.failed", reason=str(error))
        if self._finished is not None:
            for delivery, targets in entries:
                self._finished(delivery, {name: outcome or "" for name, outcome in targets.items()})
