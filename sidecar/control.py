"""What a person can ask of the daemon, behind the API: look, plan, enqueue; there is no second way to a rollout."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from sidecar.control_port import Looked, Shown, Unmanaged, WrongCredentials
from sidecar.core.decision import Cause, Hold, Keep
from sidecar.core.hint import Hint
from sidecar.core.image import ImageRef
from sidecar.core.rollout import Rollout
from sidecar.core.target import Kind, Target
from sidecar.errors import Refused, SidecarError
from sidecar.ids import new_id
from sidecar.judging import Judged
from sidecar.ports import Delivery, History, Ports
from sidecar.reconciler import Reconciler

# Less than the health check waits, so that it hears which part hangs.
PATIENCE_SECONDS = 3.0
_LONGEST_REASON = 300

Probe = Callable[[], Awaitable[str | None]]


class DaemonControl:
    """The daemon, for people.

    Args:
        unmanaged: gives what is left alone.
        probes: part to a question that answers what is not well with it, or None.
    """

    def __init__(
        self,
        ports: Ports,
        reconciler: Reconciler,
        *,
        unmanaged: Callable[[], Awaitable[Sequence[Unmanaged]]],
        probes: Mapping[str, Probe],
    ) -> None:
        self._ports = ports
        self._reconciler = reconciler
        self._unmanaged = unmanaged
        self._probes = probes
        self._wrong_credentials: dict[str, WrongCredentials] = {}

    async def targets(self) -> tuple[Sequence[Looked], Sequence[Unmanaged]]:
        """Give every target with its last verdict, and what is left alone."""
        under_way, last = await self._under_way(), self._reconciler.last
        looked = [_looked(target, last.get(target.id), under_way.get(target.id)) for target in await self._list()]
        return looked, await self._unmanaged()

    async def show(self, text: str, *, with_spec: bool) -> Sequence[Shown]:
        """Give all that is known of what a target id, a name, a reference or a Compose service means.

        Raises:
            Refused: nothing is meant by the text, and no rollout was ever of a target of that name.
        """
        under_way, last = await self._under_way(), self._reconciler.last
        try:
            looked = [_looked(each, last.get(each.id), under_way.get(each.id)) for each in await self._meant(text)]
        except _NobodyMeant:
            name = text if text.partition(":")[0] in list(Kind) else f"{Kind.DOCKER}:{text}"
            if (rollout := await self._ports.journal.last_rollout(name)) is None:
                raise
            gone = _looked(rollout.as_target(), None, under_way.get(name))
            looked = [gone if gone.phase else replace(gone, verdict="hold", reason="it does not exist any more")]
        return [await self._shown(each, with_spec=with_spec) for each in looked]

    async def _shown(self, looked: Looked, *, with_spec: bool) -> Shown:
        target, journal = looked.target, self._ports.journal
        driver, rollout = self._ports.drivers[target.kind], await journal.last_rollout(looked.target.id)
        return Shown(
            looked=looked,
            observed=await driver.observe(target, None),
            described=await driver.describe(target, rollout, with_spec=with_spec),
            rollout=rollout,
            rejected=await journal.rejected(target.service, target.ref.name),
        )

    async def plan(self, text: str | None) -> Sequence[Looked]:
        """Judge, and do nothing.

        Raises:
            Refused: nothing is meant by the text.
        """
        targets = await self._list() if text is None else await self._meant(text)
        under_way = await self._under_way()
        return [_looked(target, await self._judged(target), under_way.get(target.id)) for target in targets]

    async def update(self, text: str) -> tuple[str, Sequence[str]]:
        """Enqueue what a reference, a target id or a Compose service means.

        Raises:
            Refused: nothing is meant by the text.
        """
        targets = await self._meant(text)
        return await self._enqueue(targets, "cli", f"update {text}"), [target.id for target in targets]

    async def update_matching(
        self, *, images: Sequence[str], names: Sequence[str]
    ) -> tuple[str, Sequence[str], Sequence[str]]:
        """Enqueue the targets of these images and of these names, or every one where neither is given."""
        targets = await self._list()
        meant = {text: _of_image(text, targets) for text in images}
        meant |= {text: [each for each in targets if text in (each.name, each.compose_service)] for text in names}
        chosen = {each.id: each for found in meant.values() for each in found} if meant else _by_id(targets)
        reason = f"update {' '.join(meant) or 'everything'}"
        delivery_id = await self._enqueue(list(chosen.values()), "watchtower", reason)
        return delivery_id, list(chosen), [text for text, found in meant.items() if not found]

    async def _enqueue(self, targets: Sequence[Target], source: str, reason: str) -> str:
        """Keep on disk that these are asked for, and enqueue them; give the delivery's id."""
        now = self._ports.clock.now()
        delivery = Delivery(
            id=new_id(),
            source=source,
            received_at=now,
            fate="accepted",
            reason=reason[:_LONGEST_REASON],
            hints=tuple(dict.fromkeys(Hint.of(target.ref) for target in targets)),
        )
        await self._ports.journal.accept(delivery)
        # Exactly what is meant is enqueued, so nothing is left to be matched; a start looks at everything anyway.
        await self._ports.journal.finish_deliveries([delivery.id])
        for target in targets:
            self._ports.hints.add(target.id, Cause(source, now, (delivery.id,)))
        return delivery.id

    async def release(self, text: str) -> tuple[str, Mapping[str, int]]:
        """Forget what failed on the targets that are meant, so that it is tried again, and enqueue them.

        Raises:
            Refused: nothing is meant by the text.
        """
        targets = await self._meant(text)
        # The replicas of a service share what failed: the first of them counts it.
        released = {each.id: await self._ports.journal.release(each.service, each.ref.name) for each in targets}
        return await self._enqueue(targets, "cli", f"release {text}"), released

    async def history(self, *, limit: int, target_id: str | None = None) -> History:
        """Give what happened of late; of a target by its id or its name, or of those of a Compose service.

        Raises:
            Refused: there is no such target, and nothing happened to one; or several services are called so.
        """
        if target_id is None:
            return await self._ports.journal.history(limit=limit)
        if target_id.partition(":")[0] not in list(Kind):
            if named := _named(target_id, await self._list()):
                histories = [await self._ports.journal.history(limit=limit, target_id=each.id) for each in named]
                return _merged(histories, limit=limit)
            target_id = f"{Kind.DOCKER}:{target_id}"
        # By its id also that of one that is gone, and while the engine is away.
        history = await self._ports.journal.history(limit=limit, target_id=target_id)
        if not history.transitions:
            known = [target.id for target in await self._list()]
            if target_id not in known:
                msg = f"there is no target {target_id!r}; targets are {', '.join(known) or 'none'}"
                raise Refused(msg)
        return history

    def note_wrong_credential(self, source: str) -> None:
        """Count a request to a source that was turned away; the journal has none of it, for anybody can send them."""
        before = self._wrong_credentials.get(source)
        count = before.count + 1 if before is not None else 1
        now = self._ports.clock.now()
        self._wrong_credentials[source] = WrongCredentials(source=source, count=count, last_at=now)

    def wrong_credentials(self) -> Sequence[WrongCredentials]:
        """Give who was turned away for a wrong credential since the start, by source."""
        return sorted(self._wrong_credentials.values(), key=lambda each: each.source)

    async def ready(self) -> Mapping[str, str]:
        """Give what is not well, by part."""
        problems = await asyncio.gather(*(_answer(probe) for probe in self._probes.values()))
        answers = zip(self._probes, problems, strict=True)
        return {part: problem for part, problem in answers if problem is not None}

    async def _list(self) -> Sequence[Target]:
        found = {target.id: target for driver in self._ports.drivers.values() for target in await driver.list()}
        return sorted(found.values(), key=lambda target: target.id)

    async def _meant(self, text: str) -> Sequence[Target]:
        targets = await self._list()
        if named := _named(text, targets):
            return named
        try:
            ref = ImageRef.parse(text)
        except ValueError as error:
            msg = f"{text!r} is no target, and {error}"
            raise _NobodyMeant(msg) from None
        if found := [target for target in targets if target.is_meant_by(ref.with_tag(ref.tag))]:
            return found
        known = ", ".join(target.id for target in targets) or "none; label a container with sidecar.enable=true"
        msg = f"nothing is meant by {text!r}; targets are {known}"
        raise _NobodyMeant(msg)

    async def _under_way(self) -> Mapping[str, Rollout]:
        """Give the rollouts that are carried out; of what is held before it has begun the verdict says more."""
        rollouts = await self._ports.journal.open_rollouts()
        return {each.target_id: each for each in rollouts if each.is_prepared and not self._is_held(each)}

    def _is_held(self, rollout: Rollout) -> bool:
        """Say whether the last pass left it for later before it had begun: its pre-update hook failed, for example."""
        judged = self._reconciler.last.get(rollout.target_id)
        is_idle = not rollout.is_begun and not self._reconciler.is_in_hand(rollout.target_id)
        return is_idle and judged is not None and isinstance(judged.verdict, Hold)

    async def _judged(self, target: Target) -> Judged:
        try:
            return await self._reconciler.look(target, Cause("plan", self._ports.clock.now()))
        except SidecarError as error:
            return Judged(target=target, verdict=Hold(str(error)))


class _NobodyMeant(Refused):
    """There is no target of that name now."""


def _named(text: str, targets: Sequence[Target]) -> Sequence[Target]:
    """Give the target of this id or name, or else those of the Compose service that is called so.

    Raises:
        Refused: services of several projects are called so.
    """
    # The name of an image target is its reference, which means containers as well.
    names = {target.id: {target.id} if target.kind is Kind.IMAGE else {target.id, target.name} for target in targets}
    if exact := [target for target in targets if text in names[target.id]]:
        return exact
    found = [target for target in targets if target.compose_service == text]
    if len({target.project for target in found}) > 1:
        candidates = ", ".join(f"{target.id} of project {target.project}" for target in found)
        msg = f"services of several projects are called {text!r}; name one of {candidates}"
        raise Refused(msg)
    return found


def _by_id(targets: Sequence[Target]) -> dict[str, Target]:
    return {target.id: target for target in targets}


def _of_image(text: str, targets: Sequence[Target]) -> Sequence[Target]:
    """Give the targets of an image, with its tag or of every tag; none for what is no reference."""
    try:
        ref = ImageRef.parse(text)
    except ValueError:
        return []
    return [target for target in targets if target.is_meant_by(ref.with_tag(ref.tag))]


def _merged(histories: Sequence[History], *, limit: int) -> History:
    transitions = [each for history in histories for each in history.transitions]
    deliveries = {each.id: each for history in histories for each in history.deliveries}
    return History(
        transitions=sorted(transitions, key=lambda each: each.recorded_at, reverse=True)[:limit],
        deliveries=sorted(deliveries.values(), key=lambda each: each.received_at, reverse=True)[:limit],
    )


async def _answer(probe: Probe) -> str | None:
    """Ask one part, which may hang: whoever asks whether we are ready does not wait for ever."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await probe()
    except TimeoutError:
        return f"did not answer within {PATIENCE_SECONDS:g} seconds"


def _looked(target: Target, judged: Judged | None, rollout: Rollout | None) -> Looked:
    verdict, reason = _words(judged.verdict if judged is not None else None, target)
    image = judged.observed.image if judged is not None and judged.observed is not None else None
    return Looked(
        target=target,
        verdict="rollout" if rollout is not None else verdict,
        reason=rollout.reason or f"to {rollout.to.digest}" if rollout is not None else reason,
        running=min(image.digests, default=image.id) if image is not None else "",
        available=judged.resolved.digest if judged is not None and judged.resolved is not None else "",
        phase=rollout.phase if rollout is not None else "",
    )


def _words(verdict: Rollout | Keep | Hold | None, target: Target) -> tuple[str, str]:
    match verdict:
        case None:
            return ("hold", target.refusal) if target.refusal else ("keep", "not looked at yet")
        case Keep(reason=reason):
            return "keep", reason
        case Hold(reason=reason):
            return "hold", reason
        case Rollout():
            return "rollout", f"to {verdict.to.digest}"
