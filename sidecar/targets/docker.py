"""The driver of standalone and Compose containers: lists, observes, and makes the one engine call it is told.

Which call is right is chosen by ``sequence``, how the new container is made by ``spec``; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sidecar.core.image import ImageRef
from sidecar.core.rollout import Phase, Rollout
from sidecar.core.target import Observed, State, Target
from sidecar.errors import Transient
from sidecar.ports import Events, Unmanaged
from sidecar.targets import containers as reading
from sidecar.targets import discovery, sequence
from sidecar.targets._engine import Engine, NameConflict
from sidecar.targets.discovery import Scope
from sidecar.targets.images import Images, unused_images
from sidecar.targets.looking import Look, look
from sidecar.targets.losses import difference
from sidecar.targets.names import (
    CANDIDATE_SUFFIX,
    PARKED_SUFFIX,
    is_image_id,
    is_in_place,
    own_name,
    previous_reference,
    refers_to,
)
from sidecar.targets.preparing import Preparer
from sidecar.targets.sequence import Slot, Slots
from sidecar.targets.spec import CreateRequest, stop_grace_seconds

Json = dict[str, Any]
_LOG_LINES = 30
_ARE_DOWN = frozenset({State.CREATED, State.EXITED})


class DockerDriver:
    """Containers of one engine."""

    def __init__(self, engine: Engine, images: Images, *, events: Events, scope: Scope) -> None:
        self._engine = engine
        self._images = images
        self._preparer = Preparer(engine, images)
        self._events = events
        self._scope = scope
        # The configured reference of containers that the list shows by their image's id; it never changes.
        self._references: dict[str, str] = {}
        # Since when a container is healthy: the engine keeps five results, so that is remembered from look to look.
        self._healthy_since: dict[str, tuple[tuple[object, ...], float]] = {}

    # --- looking ----------------------------------------------------------------------------------------------------

    async def list(self) -> Sequence[Target]:
        """Give every labelled container, by one list call."""
        entries = await self._engine.list_containers()
        for entry in entries:
            await self._learn_reference(entry)
        return discovery.discover(
            entries,
            self._references,
            default_enable=self._scope.default_enable,
            scope=self._scope.name,
            own_id=self._scope.own_id,
        )

    async def unmanaged(self) -> Sequence[Unmanaged]:
        """Give every container that is left alone, and why."""
        found = []
        for entry in await self._engine.list_containers():
            reason = discovery.why_unmanaged(entry, default_enable=self._scope.default_enable, scope=self._scope.name)
            if reason is not None:
                found.append(Unmanaged(name=own_name(entry), image=entry["Image"], reason=reason))
        return found

    def manages(self, labels: Mapping[str, str]) -> bool:
        """Say whether a container with these labels is looked after."""
        return discovery.is_recreated(labels, default_enable=self._scope.default_enable, scope=self._scope.name)

    async def _learn_reference(self, entry: Json) -> None:
        # The list shows an image's id once its tag means another one; only then an inspect is needed, once.
        if entry["Id"] in self._references or not is_image_id(entry["Image"]):
            return
        if (inspected := await self._engine.inspect_container(entry["Id"])) is not None:
            self._references[entry["Id"]] = inspected[0]["Config"]["Image"]

    async def observe(self, target: Target, rollout: Rollout | None) -> Observed:
        """Look at the container that bears the target's name, and at what a rollout left beside it."""
        seen = await look(self._engine, target.name, rollout)
        is_at_rest = rollout is None or sequence.is_at_rest(rollout, await self._slots(target, rollout, seen))
        container = seen.current
        if container is None:
            return Observed(now=seen.now, state=State.MISSING, at_rest=is_at_rest)
        checked = reading.health_of(container)
        image = await self._engine.inspect_image(container["Image"])
        return Observed(
            now=seen.now,
            state=reading.state_of(container),
            instance=container["Id"],
            image=reading.image_of(image, container["Image"], target.ref),
            health=checked.health,
            started_at=reading.parse_time(container["State"].get("StartedAt")),
            finished_at=reading.parse_time(container["State"].get("FinishedAt")),
            restarts=container.get("RestartCount") or 0,
            healthy_since=self._remembered(target.id, container, checked),
            detail=reading.detail_of(container),
            is_stopped=reading.was_stopped(container),
            is_doubled=seen.parked is not None and reading.state_of(seen.parked) not in _ARE_DOWN,
            at_rest=is_at_rest,
        )

    def _remembered(self, target_id: str, container: Json, checked: reading.Checked) -> float | None:
        key = (container["Id"], container["State"].get("StartedAt"), container.get("RestartCount"))
        known, since = self._healthy_since.get(target_id, ((), checked.since))
        is_same_tail = known == key and checked.is_unbroken and checked.since is not None
        if not is_same_tail or since is None:
            since = checked.since
        if since is None:
            self._healthy_since.pop(target_id, None)
        else:
            self._healthy_since[target_id] = (key, since)
        return since

    async def _slots(self, target: Target, rollout: Rollout, seen: Look) -> Slots:
        ref = ImageRef.parse(rollout.ref)
        tag_image = await self._images.id_of(ref.familiar)
        previous = await self._images.id_of(":".join(previous_reference(target.name)))
        if rollout.phase is Phase.FINISHING and previous != rollout.from_.image_id:
            gone = await self._images.id_of(rollout.from_.image_id or "") is None
            previous = rollout.from_.image_id if gone else previous  # nothing is left to keep
        return Slots(
            current=_slot(seen.current, name=target.name),
            candidate=_slot(seen.candidate, rollout),
            parked=_slot(seen.parked),
            tag_image=tag_image,
            tag_is_shared=tag_image == rollout.to.image_id and await self._is_shared(target, rollout),
            previous_image=previous,
        )

    async def _is_shared(self, target: Target, rollout: Rollout) -> bool:
        """Say whether another container of the same reference is on the new image."""
        entries = await self._engine.list_containers(filters={"ancestor": [rollout.to.image_id or ""]})
        return any(
            is_in_place(entry)
            and own_name(entry) != target.name
            and entry["ImageID"] == rollout.to.image_id
            and refers_to(self._references.get(entry["Id"], str(entry["Image"])), rollout.ref)
            for entry in entries
        )

    # --- preparing --------------------------------------------------------------------------------------------------

    async def refusal(self, target: Target) -> str | None:
        """Say what would be lost if the container were recreated."""
        inspected = await self._engine.inspect_container(target.name)
        return await self._preparer.refusal(target, inspected[0]) if inspected is not None else None

    async def prepare(self, target: Target, rollout: Rollout) -> Rollout:
        """Inspect, refuse what would be lost, pull, and write down the create requests of both ends."""
        return await self._preparer.prepare(target, rollout)

    # --- acting -----------------------------------------------------------------------------------------------------

    async def step(self, target: Target, rollout: Rollout) -> Rollout:
        """Make the next call towards the phase's goal, and give the rollout with what it learned."""
        slots = await self._slots(target, rollout, await look(self._engine, target.name, rollout))
        call = sequence.next_call(rollout, slots)
        if call is None:  # what was to be done has come about since the look that asked for it
            msg = f"{target.name} changed at that moment; looking again"
            raise Transient(msg)
        if isinstance(call, sequence.Blocked):
            msg = f"another updater is at work: {target.name + CANDIDATE_SUFFIX} ({call.container_id[:12]}) is not ours"
            raise Transient(msg)
        self._events.publish(
            "rollout.stepped", target=target.id, rollout_id=rollout.id, phase=rollout.phase, step=type(call).__name__
        )
        if isinstance(call, sequence.Create) and not rollout.is_begun:
            rollout = await self._preparer.renew(target, rollout)
        if isinstance(call, sequence.Remove) and rollout.phase is Phase.FINISHING:
            await self._tell_difference(target, rollout)
        return await self._make(call, target, rollout)

    async def _make(self, call: sequence.Call, target: Target, rollout: Rollout) -> Rollout:
        engine = self._engine
        match call:
            case sequence.Create(is_old=is_old):
                return await self._learned(rollout, await self._create(target, rollout, is_old=is_old), is_old=is_old)
            case sequence.Adopt(container_id=found, is_old=is_old):
                return await self._learned(rollout, found, is_old=is_old)
            case sequence.Stop(container_id=ident):
                await self._stop(ident)
            case sequence.Start(container_id=ident):
                await engine.start(ident)
            case sequence.Pause(container_id=ident):
                await engine.pause(ident)
            case sequence.Unpause(container_id=ident):
                await engine.unpause(ident)
            case sequence.SetRestartPolicy(container_id=ident, is_own=is_own):
                policy = dict((rollout.plan or {})["restart_policy"]) if is_own else {"Name": "no"}
                await engine.set_restart_policy(ident, policy)
            case sequence.Rename(container_id=ident, is_parked=is_parked):
                await engine.rename(ident, target.name + (PARKED_SUFFIX if is_parked else ""))
            case sequence.Remove(container_id=ident, volumes=volumes):
                await engine.remove_container(ident, volumes=volumes)
            case sequence.MoveTag(image_id=image_id):
                await self._images.move_tag(ImageRef.parse(rollout.ref), image_id)
            case sequence.KeepPrevious(image_id=image_id):
                await self._images.keep_previous(target.name, image_id)
        return rollout

    async def _stop(self, ident: str) -> None:
        if (inspected := await self._engine.inspect_container(ident)) is not None:
            await self._engine.stop(ident, grace_seconds=stop_grace_seconds(inspected[0]))

    async def _create(self, target: Target, rollout: Rollout, *, is_old: bool) -> str:
        """Create one end under the candidate's name, by its configured reference and on exactly its image."""
        plan = rollout.plan or {}
        request = CreateRequest.from_json(plan["restore" if is_old else "request"])
        wanted = rollout.from_ if is_old else rollout.to
        image_id = wanted.image_id or ""
        name, ref = target.name + CANDIDATE_SUFFIX, ImageRef.parse(rollout.ref)
        await self._images.have(ref, wanted, platform=request.platform, target=target.id)
        async with self._images.tagged(ref, image_id, otherwise=rollout.from_.image_id):
            try:
                ident = await self._engine.create_container(request.body, name=name, platform=request.platform)
            except NameConflict as error:
                msg = f"another updater is at work: {name} was made by somebody else"
                raise Transient(msg) from error
            inspected = await self._engine.inspect_container(ident)
        if inspected is None or inspected[0]["Image"] != image_id:
            await self._engine.remove_container(ident, volumes=True)
            msg = f"creating {name}: {rollout.ref} was moved to another image at that moment"
            raise Transient(msg)
        for connect in request.connects:
            await self._engine.connect_network(connect.network, ident, connect.endpoint)
        for note in request.notes:
            self._events.publish("rollout.noted", target=target.id, rollout_id=rollout.id, reason=note)
        return ident

    async def _learned(self, rollout: Rollout, ident: str, *, is_old: bool) -> Rollout:
        """Give the rollout with what was created for it: the container, and the volumes that were made with it."""
        if is_old:
            return replace(rollout, from_=replace(rollout.from_, instance=ident))
        plan, inspected = rollout.plan or {}, await self._engine.inspect_container(ident)
        made = reading.volumes_of(inspected[0]) - reading.volumes_of(plan["container"]) if inspected else set[str]()
        return replace(rollout, to=replace(rollout.to, instance=ident), plan={**plan, "volumes": sorted(made)})

    async def _remove_volumes(self, target: Target, rollout: Rollout) -> None:
        """Remove the volumes of a candidate that somebody else removed without them."""
        try:
            for name in (rollout.plan or {}).get("volumes", ()):
                await self._engine.remove_volume(name)
        except Transient as error:
            self._events.publish("image.prune_failed", target=target.id, reason=str(error))

    async def _tell_difference(self, target: Target, rollout: Rollout) -> None:
        """Say what the recreate changed, as long as both can be inspected."""
        old = (rollout.plan or {}).get("container")
        new = await self._engine.inspect_container(rollout.to.instance or "")
        if old is None or new is None:
            return
        images = [await self._engine.inspect_image(image["Image"]) for image in (old, new[0])]
        changed = difference(old, new[0], old_image=images[0], new_image=images[1])
        if changed:
            self._events.publish("rollout.changed", target=target.id, rollout_id=rollout.id, difference=changed)

    async def log_tail(self, target: Target, rollout: Rollout) -> str:
        """Give the last lines of the new container; the engine's trouble with them is no reason to wait."""
        del target
        try:
            return await self._engine.logs(rollout.to.instance or "", tail=_LOG_LINES)
        except Transient:
            return ""

    async def tidy(self, target: Target, rollout: Rollout) -> None:
        """Clean up once a rollout is over: images out of use, what others left of it, and what is set beyond."""
        if rollout.phase is Phase.ABANDONED:
            await self._remove_volumes(target, rollout)
        await self._images.tidy(target=target.id, unused=unused_images(rollout))


def _slot(container: Json | None, rollout: Rollout | None = None, *, name: str | None = None) -> Slot | None:
    if container is None:
        return None
    return Slot(
        id=container["Id"],
        image_id=container["Image"],
        state=reading.state_of(container),
        restart_policy=container["HostConfig"].get("RestartPolicy") or {},
        is_complete=rollout is None or _has_networks(container, rollout),
        is_misnamed=name is not None and container["Name"] != f"/{name}",
    )


def _has_networks(container: Json, rollout: Rollout) -> bool:
    plan = rollout.plan or {}
    if "request" not in plan:
        return True
    wanted = {connect.network for connect in CreateRequest.from_json(plan["request"]).connects}
    return wanted <= set((container.get("NetworkSettings") or {}).get("Networks") or {})
