"""The driver of standalone and Compose containers: lists, observes, and makes the one engine call it is told.

Which call is right is chosen by ``sequence``, how the new container is made by ``spec``; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sidecar.control_port import Unmanaged
from sidecar.core.image import ImageRef
from sidecar.core.rollout import Phase, Rollout
from sidecar.core.target import Observed, State, Target
from sidecar.errors import Transient
from sidecar.ports import Described, Events, Spec
from sidecar.targets import containers as reading
from sidecar.targets import discovery, podman, sequence
from sidecar.targets._engine import Engine, EngineError
from sidecar.targets.acting import Actor
from sidecar.targets.calls import Blocked, Create, Of, Start, Stop
from sidecar.targets.copying import find_copies, has_copies
from sidecar.targets.discovery import Scope
from sidecar.targets.endpoints import networks
from sidecar.targets.images import Images, unused_images
from sidecar.targets.look_dependents import look_at_dependents
from sidecar.targets.looking import Look, look
from sidecar.targets.names import (
    CANDIDATE_SUFFIX,
    is_image_id,
    is_in_place,
    own_name,
    previous_reference,
    refers_to,
)
from sidecar.targets.own_container import Helper
from sidecar.targets.preparing import Preparer
from sidecar.targets.recovery import recovery, spec_of, spec_of_rollout
from sidecar.targets.sequence import Slot, Slots
from sidecar.targets.spec import CreateRequest

Json = dict[str, Any]
_LOG_LINES = 30
_ARE_DOWN = frozenset({State.CREATED, State.EXITED})


class DockerDriver:
    """Containers of one engine."""

    def __init__(
        self, engine: Engine, images: Images, *, events: Events, scope: Scope, helper: Helper | None = None
    ) -> None:
        self._engine = engine
        self._images = images
        self._preparer = Preparer(engine, images, scope=scope)
        self._actor = Actor(engine, images, events=events)
        self._events = events
        self._scope = scope
        self._helper = helper
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
        found = discovery.discover(
            entries,
            self._references,
            default_enable=self._scope.default_enable,
            scope=self._scope.name,
            own_id=self._scope.own_id,
            compat=self._scope.compat,
        )
        return podman.hold_local(found) if self._engine.is_podman else found

    async def unmanaged(self) -> Sequence[Unmanaged]:
        """Give every container that is left alone, and why."""
        found, scope = [], self._scope
        for entry in await self._engine.list_containers():
            reason = discovery.why_unmanaged(
                entry, default_enable=scope.default_enable, scope=scope.name, compat=scope.compat
            )
            if reason is not None:
                found.append(Unmanaged(name=own_name(entry), image=entry["Image"], reason=reason))
        return found

    def manages(self, labels: Mapping[str, str]) -> bool:
        """Say whether a container with these labels is looked after."""
        scope = self._scope
        return discovery.is_recreated(
            labels, default_enable=scope.default_enable, scope=scope.name, compat=scope.compat
        )

    async def _learn_reference(self, entry: Json) -> None:
        # The list shows an image's id once its tag means another one; only then an inspect is needed, once.
        if entry["Id"] in self._references or not is_image_id(entry["Image"]):
            return
        if (inspected := await self._engine.inspect_container(entry["Id"])) is not None:
            self._references[entry["Id"]] = inspected[0]["Config"]["Image"]

    async def observe(self, target: Target, rollout: Rollout | None) -> Observed:
        """Look at the container that bears the target's name, and at what a rollout left beside it."""
        seen = await look(self._engine, target.name, rollout)
        slots, is_at_rest, is_start_next = None, True, True
        if rollout is not None:
            slots = await self._slots(target, rollout, seen)
            is_at_rest = sequence.is_at_rest(rollout, slots)
            is_start_next = isinstance(sequence.next_call(rollout, slots), Start)
        if seen.current is None:
            taken = seen.is_taken_down
            return Observed(now=seen.now, state=State.MISSING, is_taken_down=taken, at_rest=is_at_rest, look=slots)
        in_place = await self._observed(target, seen.current, seen.now)
        ahead = None
        if rollout is not None and rollout.is_beside and seen.candidate is not None:
            ahead = await self._observed(target, seen.candidate, seen.now, key=target.id + CANDIDATE_SUFFIX)
            unnamed, missing = _lacking(seen.candidate, rollout)
            ahead = replace(ahead, is_reachable=not unnamed and not missing, is_start_next=is_start_next)
        is_doubled = seen.parked is not None and reading.state_of(seen.parked) not in _ARE_DOWN
        failure = ""
        if self._helper is not None and rollout is not None and seen.current["Id"] == self._scope.own_id:
            failure = await self._helper.failure(target.name) or ""
        in_place = replace(in_place, helper_failure=failure, ahead=ahead, is_doubled=is_doubled)
        is_stripped = slots is not None and any(each.is_stopped for each in slots.dependents)
        return replace(in_place, is_start_next=is_start_next, is_stripped=is_stripped, at_rest=is_at_rest, look=slots)

    async def _observed(self, target: Target, container: Json, now: float, *, key: str | None = None) -> Observed:
        checked = reading.health_of(container)
        image = await self._engine.inspect_image(container["Image"])
        return Observed(
            now=now,
            state=reading.state_of(container),
            instance=container["Id"],
            image=reading.image_of(image, container["Image"], target.ref),
            health=checked.health,
            started_at=reading.parse_time(container["State"].get("StartedAt")),
            finished_at=reading.parse_time(container["State"].get("FinishedAt")),
            restarts=container.get("RestartCount") or 0,
            healthy_since=self._remembered(key or target.id, container, checked),
            detail=reading.detail_of(container),
            is_stopped=reading.was_stopped(container),
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
        is_overtaken = _is_overtaken(rollout, tag_image)
        is_new = is_overtaken or tag_image == rollout.to.image_id
        is_finishing = rollout.phase is Phase.FINISHING
        return Slots(
            current=_slot(seen.current, name=target.name),
            candidate=await self._made(seen.candidate, rollout),
            parked=await self._made(seen.parked, rollout) if rollout.auto_remove else _slot(seen.parked),
            tag_image=tag_image,
            tag_is_shared=is_new and await self._is_shared(target, rollout, tag_image or ""),
            tag_is_overtaken=is_overtaken,
            previous_image=await self._previous(target, rollout) if is_finishing else None,
            dependents=await look_at_dependents(self._engine, self._images, rollout, seen),
            is_taken_down=seen.is_taken_down,
            now=seen.now,
        )

    async def _previous(self, target: Target, rollout: Rollout) -> str | None:
        previous = await self._images.id_of(":".join(previous_reference(target.name)))
        if previous == rollout.from_.image_id:
            return previous
        is_gone = await self._images.id_of(rollout.from_.image_id or "") is None
        return rollout.from_.image_id if is_gone else previous  # nothing is left to keep

    async def _made(self, container: Json | None, rollout: Rollout) -> Slot | None:
        """Give what was made for a rollout; one that lacks what Compose copied into the old one is not complete."""
        slot, copies = _slot(container, rollout), (rollout.plan or {}).get("copies")
        if container is None or slot is None or not copies or slot.state is not State.CREATED:
            return slot
        return replace(slot, is_complete=slot.is_complete and await has_copies(self._engine, container, copies))

    async def _is_shared(self, target: Target, rollout: Rollout, image_id: str) -> bool:
        """Say whether another container of the same reference is on an image."""
        entries = await self._engine.list_containers(filters={"ancestor": [image_id]})
        return any(
            is_in_place(entry)
            and own_name(entry) != target.name
            and entry["ImageID"] == image_id
            and refers_to(self._references.get(entry["Id"], str(entry["Image"])), rollout.ref)
            for entry in entries
        )

    # --- preparing --------------------------------------------------------------------------------------------------

    async def refusal(self, target: Target) -> str | None:
        """Say what would be lost if the container were recreated."""
        inspected = await self._engine.inspect_container(target.name)
        if inspected is None:
            return None
        container, now = inspected
        return podman.unwatched(container, now=now) or await self._preparer.refusal(target, container)

    async def prepare(self, target: Target, rollout: Rollout) -> Rollout:
        """Inspect, refuse what would be lost, pull, and write down the create requests of both ends."""
        return await self._preparer.prepare(target, rollout)

    # --- acting -----------------------------------------------------------------------------------------------------

    async def step(self, target: Target, rollout: Rollout, observed: Observed) -> Rollout:
        """Make the next call towards the phase's goal, and give the rollout with what it learned."""
        assert isinstance(observed.look, Slots)  # noqa: S101 - it is from our own look, with a rollout
        call = sequence.next_call(rollout, observed.look)
        if call is None:
            msg = f"{target.name} is in a state in which no call is due yet; looking again"
            raise Transient(msg)
        if isinstance(call, Blocked):
            msg = f"another updater is at work: {target.name + CANDIDATE_SUFFIX} ({call.container_id[:12]}) is not ours"
            raise Transient(msg)
        chosen = f"{type(call.call).__name__} {call.name}" if isinstance(call, Of) else type(call).__name__
        self._events.publish(
            "rollout.stepped", target=target.id, rollout_id=rollout.id, phase=rollout.phase, step=chosen
        )
        if isinstance(call, Create) and not rollout.is_begun:
            rollout = await self._preparer.renew(target, rollout)
        if self._helper is not None and isinstance(call, Stop) and call.container_id == self._scope.own_id:
            await self._helper.hand_over(target.name, rollout)
        return await self._actor.make(call, target, rollout)

    async def _remove_volumes(self, target: Target, rollout: Rollout) -> None:
        """Remove the volumes of candidates that somebody else removed without them, or that were left with theirs."""
        plan, is_left = rollout.plan or {}, rollout.phase is Phase.ABANDONED
        for name in (*plan.get("left_volumes", ()), *(plan.get("volumes", ()) if is_left else ())):
            try:
                await self._engine.remove_volume(name)
            except EngineError as error:
                self._events.publish("volume.remove_failed", target=target.id, volume=name, reason=str(error))

    async def log_tail(self, target: Target, rollout: Rollout) -> str:
        """Give the last lines of the new container; the engine's trouble with them is no reason to wait."""
        del target
        try:
            return await self._engine.logs(rollout.to.instance or "", tail=_LOG_LINES)
        except Transient:
            return ""

    # --- for people -------------------------------------------------------------------------------------------------

    async def recovery(self, target: Target, rollout: Rollout) -> Sequence[str]:
        """Give the commands by which a person puts the old one back, by what the engine shows."""
        return recovery(rollout, await self._slots(target, rollout, await look(self._engine, target.name, rollout)))

    async def describe(self, target: Target, rollout: Rollout | None, *, with_spec: bool) -> Described:
        """Say which image is kept for a rollback, and what makes the container again."""
        previous = await self._images.id_of(":".join(previous_reference(target.name)))
        spec = await self._spec(target, rollout) if with_spec else None
        return Described(previous_image=previous or "", spec=spec)

    async def _spec(self, target: Target, rollout: Rollout | None) -> Spec | None:
        inspected = await self._engine.inspect_container(target.name)
        if inspected is None or inspected[0]["Name"] != f"/{target.name}":
            api = self._engine.api_version
            return spec_of_rollout(rollout, target.name, api=api) if rollout is not None else None
        container, _ = inspected
        return spec_of(
            await self._preparer.as_it_is(container),
            target.name,
            image_id=container["Image"],
            api=self._engine.api_version,
            is_started=reading.state_of(container).meant not in _ARE_DOWN,
            copies=list((await find_copies(self._engine, container)).copied),
        )

    async def tidy(self, target: Target, rollout: Rollout) -> None:
        """Clean up once a rollout is over: images out of use, what others left of it, and what is set beyond."""
        await self._remove_volumes(target, rollout)
        if self._helper is not None and self._scope.own_id in (rollout.from_.instance, rollout.to.instance):
            await self._helper.remove(target.name)
        await self._images.tidy(target=target.id, unused=unused_images(rollout))


def _is_overtaken(rollout: Rollout, image_id: str | None) -> bool:
    """Say whether an image is one that was pulled for what this rollout took the place of."""
    ends = (rollout.from_.image_id, rollout.to.image_id)
    return image_id not in ends and image_id in (rollout.plan or {}).get("overtaken", ())


def _slot(container: Json | None, rollout: Rollout | None = None, *, name: str | None = None) -> Slot | None:
    if container is None:
        return None
    unnamed, missing = _lacking(container, rollout) if rollout is not None and rollout.is_beside else ((), ())
    return Slot(
        id=container["Id"],
        image_id=container["Image"],
        state=reading.state_of(container),
        restart_policy=container["HostConfig"].get("RestartPolicy") or {},
        auto_remove=bool(container["HostConfig"].get("AutoRemove")),
        is_complete=rollout is None or _has_networks(container, rollout),
        unnamed=unnamed,
        missing=missing,
        is_misnamed=name is not None and container["Name"] != f"/{name}",
    )


def _lacking(container: Json, rollout: Rollout) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name the networks on which a candidate has not all its names, and those that it is not connected to."""
    plan = rollout.plan or {}
    if "request" not in plan:
        return (), ()
    wanted, found = CreateRequest.from_json(plan["request"]).endpoints, networks(container)
    unnamed = [
        name
        for name in sorted(wanted.keys() & found.keys())
        if not set(wanted[name].get("Aliases") or []) <= set((found[name] or {}).get("Aliases") or [])
    ]
    return tuple(unnamed), tuple(sorted(wanted.keys() - found.keys()))


def _has_networks(container: Json, rollout: Rollout) -> bool:
    plan = rollout.plan or {}
    connects = CreateRequest.from_json(plan["request"]).connects if "request" in plan else ()
    return reading.is_connected(container, (connect.network for connect in connects))
