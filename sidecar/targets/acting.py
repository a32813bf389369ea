"""Makes the one engine call that was chosen for a container target, and gives the rollout with what that taught.

Which call is right is chosen by ``sequence`` and ``dependents``; nothing is chosen here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from sidecar.core.image import ImageRef
from sidecar.core.rollout import Phase, Revision, Rollout
from sidecar.core.target import Target
from sidecar.errors import Refused, Transient
from sidecar.ports import Events
from sidecar.targets import calls, podman
from sidecar.targets import containers as reading
from sidecar.targets._engine import Engine, EngineError, NameConflict, Silent
from sidecar.targets.copying import copy
from sidecar.targets.hooks import run_hook
from sidecar.targets.images import Images
from sidecar.targets.losses import difference
from sidecar.targets.names import CANDIDATE_SUFFIX, PARKED_SUFFIX
from sidecar.targets.spec import CreateRequest, stop_grace_seconds
from sidecar.targets.written import has_own_files, left_behind

Json = dict[str, Any]

# How long what goes with a target is tried to be had back: whose network it has may be started anew meanwhile.
_PATIENCE_SECONDS = 60.0


class _DidNotStart(Transient):
    """The engine shows that a start failed whose answer did not come in time."""


class Actor:
    """Acts on one engine."""

    def __init__(self, engine: Engine, images: Images, *, events: Events) -> None:
        self._engine = engine
        self._images = images
        self._events = events
        # Since when (engine's clock) a call for what goes with a target fails, by rollout and name.
        self._failing_since: dict[tuple[str, str], float] = {}

    async def make(self, call: calls.Call | calls.Of, target: Target, rollout: Rollout) -> Rollout:
        """Make a call of the target, or of one that goes with it."""
        match call:
            case calls.Of(name=name, call=own):
                return await self._make_of(name, own, rollout)
            case calls.Create(is_parked=True):
                created = await self._create(target, rollout, is_old=True, suffix=PARKED_SUFFIX)
                return await self._fill(created, target, rollout, is_old=True)
            case calls.Create(is_old=is_old):
                created = await self._create(target, rollout, is_old=is_old)
                rollout = await self._fill(created, target, rollout, is_old=is_old)
                return await self._learned(rollout, created, is_old=is_old)
            case calls.Adopt(container_id=found, is_old=is_old):
                inspected = await self._engine.inspect_container(found)
                return await self._learned(rollout, inspected[0] if inspected else {"Id": found}, is_old=is_old)
            case calls.RunHook(container_id=ident, hook=hook):
                return await self._run_hook(rollout, hook, ident)
            case calls.SetRestartPolicy(container_id=ident, is_own=is_own):
                policy = dict((rollout.plan or {})["restart_policy"]) if is_own else {"Name": "no"}
                await self._engine.set_restart_policy(ident, policy)
            case calls.Rename(container_id=ident, is_parked=is_parked):
                await self._engine.rename(ident, target.name + (PARKED_SUFFIX if is_parked else ""))
            case calls.Connect(container_id=ident, network=network):
                wanted = CreateRequest.from_json((rollout.plan or {})["request"]).endpoints
                await self._engine.connect_network(network, ident, wanted[network])
            case calls.MoveTag(image_id=image_id):
                await self._images.move_tag(ImageRef.parse(rollout.ref), image_id)
            case calls.KeepPrevious(image_id=image_id):
                await self._images.keep_previous(target.name, image_id)
            case plain:
                if isinstance(plain, calls.Remove) and rollout.phase is Phase.FINISHING:
                    await self._tell_difference(target, rollout)
                await self._make_plain(plain)
        return rollout

    async def _make_plain(self, call: calls.Call) -> None:
        """Make a call that is the same for every container."""
        engine = self._engine
        match call:
            case calls.Stop(container_id=ident):
                await engine.stop(ident, grace_seconds=await self._grace_seconds(ident))
            case calls.Restart(container_id=ident):
                await engine.restart(ident, grace_seconds=await self._grace_seconds(ident))
            case calls.Start(container_id=ident):
                await self._start(ident)
            case calls.Pause(container_id=ident):
                await engine.pause(ident)
            case calls.Unpause(container_id=ident):
                await engine.unpause(ident)
            case calls.Disconnect(container_id=ident, network=network):
                await engine.disconnect_network(network, ident)
            case calls.Remove(container_id=ident, volumes=volumes):
                await engine.remove_container(ident, volumes=volumes)
            case _:
                msg = f"making {call}: that is no call for any container"
                raise TypeError(msg)

    async def _start(self, ident: str) -> None:
        """Start a container; where no answer comes in time, the engine may show that it failed."""
        try:
            await self._engine.start(ident)
        except Silent as error:
            inspected = await self._engine.inspect_container(ident)
            if inspected is None or not (why := reading.start_error_of(inspected[0])):
                raise
            msg = f"starting {ident[:12]}, which took too long to be told: {why}"
            raise _DidNotStart(msg) from error

    async def _grace_seconds(self, ident: str) -> int:
        inspected = await self._engine.inspect_container(ident)
        return stop_grace_seconds(inspected[0] if inspected is not None else {"Config": {}})

    # --- the target ---------------------------------------------------------------------------------------------------

    async def _create(self, target: Target, rollout: Rollout, *, is_old: bool, suffix: str = CANDIDATE_SUFFIX) -> Json:
        """Create one end under one of our names, by its configured reference and on exactly its image; inspect it."""
        plan = rollout.plan or {}
        request = CreateRequest.from_json(plan["restore" if is_old else "request"])
        if rollout.is_beside:
            request = request.unnamed()
        end, ref = rollout.from_ if is_old else rollout.to, ImageRef.parse(rollout.ref)
        await self._images.have(ref, end, platform=request.platform, target=target.id)
        created = await self._create_on(request, target.name + suffix, end, ref=ref, otherwise=rollout.from_.image_id)
        for note in request.notes:
            self._tell(rollout, note)
        return created

    async def _create_on(
        self, request: CreateRequest, name: str, end: Revision, *, ref: ImageRef | None, otherwise: str | None
    ) -> Json:
        """Create and inspect a container; without a reference its own is the id of its image, which means no other."""
        image_id = end.image_id or ""
        async with nullcontext() if ref is None else self._images.tagged(ref, image_id, otherwise=otherwise):
            try:
                ident = await self._engine.create_container(request.body, name=name, platform=request.platform)
            except NameConflict as error:
                msg = f"another updater is at work: {name} was made by somebody else"
                raise Transient(msg) from error
            inspected = await self._engine.inspect_container(ident)
        if inspected is None or inspected[0]["Image"] != image_id:
            await self._engine.remove_container(ident, volumes=True)
            msg = f"creating {name}: {request.body['Image']} was moved to another image at that moment"
            raise Transient(msg)
        for connect in request.connects:
            await self._engine.connect_network(connect.network, ident, connect.endpoint)
        # As it was created: somebody may have removed it by now, and what was made with it is still ours to clean.
        return inspected[0]

    async def _fill(self, created: Json, target: Target, rollout: Rollout, *, is_old: bool) -> Rollout:
        """Copy what Compose copied into the old one, and say how much of its own layer stays behind."""
        plan, ends = rollout.plan or {}, (rollout.from_.instance, rollout.to.instance)
        copied_bytes, copies = 0, plan.get("copies") or ()
        if copies:
            sources = [end for end in ends if end is not None]
            copied = await copy(self._engine, copies, sources=sources, container=created)
            if copied is None:  # nobody has them any more; better it runs without them than nothing at all
                self._tell(rollout, f"what Compose had copied is gone with {target.name}: {', '.join(copies)}")
                rollout = replace(rollout, plan={**plan, "copies": []})
            copied_bytes = copied or 0
        if not is_old and (written := await self._written_bytes(rollout, copies)) > copied_bytes:
            self._tell(rollout, left_behind(target.name, written - copied_bytes))
        return rollout

    async def _written_bytes(self, rollout: Rollout, copies: Collection[str]) -> int:
        """Say how much of its own the old one has outside of its volumes."""
        ident, container = rollout.from_.instance or "", (rollout.plan or {})["container"]
        try:
            changes = await self._engine.changes(ident)
            changes = podman.changes(changes) if self._engine.is_podman else changes
            is_empty = not has_own_files(container, changes, copies=copies)
            return 0 if is_empty else await self._engine.written_bytes(ident)
        except EngineError:  # the old one is gone, or the engine cannot tell: no reason not to update it
            return 0

    async def _learned(self, rollout: Rollout, created: Json, *, is_old: bool) -> Rollout:
        """Give the rollout with what was created for it: the container, and the volumes that were made with it."""
        if is_old:
            return replace(rollout, from_=replace(rollout.from_, instance=created["Id"]))
        plan = rollout.plan or {}
        made = await self._made_with(created) - reading.volumes_of(plan["container"])
        left = {*plan.get("left_volumes", ()), *plan.get("volumes", ())} - made  # of one that is not there any more
        plan = {**plan, "volumes": sorted(made), "left_volumes": sorted(left)}
        return replace(rollout, to=replace(rollout.to, instance=created["Id"]), plan=plan)

    async def _made_with(self, created: Json) -> set[str]:
        """Give the volumes that are a container's own: not those that it has of others."""
        found = reading.volumes_of(created)
        for entry in created.get("HostConfig", {}).get("VolumesFrom") or []:
            other = await self._engine.inspect_container(entry.partition(":")[0])
            if other is None:
                return set()  # nobody can tell any more: better one stays than one is lost
            found -= reading.volumes_of(other[0])
        return found

    def _tell(self, rollout: Rollout, reason: str) -> None:
        self._events.publish("rollout.noted", target=rollout.target_id, rollout_id=rollout.id, reason=reason)

    async def _run_hook(self, rollout: Rollout, hook: str, ident: str) -> Rollout:
        await run_hook(self._engine, self._events, rollout, hook, ident)
        plan = rollout.plan or {}
        return replace(rollout, plan={**plan, "ran": {**plan.get("ran", {}), hook: await self._engine.ping()}})

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

    # --- what goes with it --------------------------------------------------------------------------------------------

    async def _make_of(self, name: str, call: calls.Call | calls.Blocked, rollout: Rollout) -> Rollout:
        """Make a call of one that goes with the target; what cannot be had back for a while is told and given up."""
        key = (rollout.id, name)
        try:
            made = await self._make_for(name, call, rollout)
        except (EngineError, _DidNotStart, Refused) as error:
            if not isinstance(call, calls.Create | calls.Start | calls.Restart):
                raise
            now = await self._engine.ping()
            if now - self._failing_since.setdefault(key, now) < _PATIENCE_SECONDS:
                raise
            made = _given_up(name, call, rollout)  # or neither it nor anything newer would ever come to its end
            self._tell(rollout, f"{name}, which goes with it, is given up: {error}")
        self._failing_since.pop(key, None)
        return made

    async def _make_for(self, name: str, call: calls.Call | calls.Blocked, rollout: Rollout) -> Rollout:
        match call:
            case calls.Create():
                await self._create_dependent(name, rollout)
            case calls.Rename(container_id=ident):
                await self._engine.rename(ident, name)
            case calls.Start(container_id=ident) | calls.Restart(container_id=ident):
                await self._make_plain(call)
                return _with_done(rollout, name, started_id=ident)
            case calls.Pause(container_id=ident):
                await self._make_plain(call)
                return _with_done(rollout, name, paused_id=ident)
            case calls.Blocked(container_id=ident):
                msg = f"another updater is at work: {name + CANDIDATE_SUFFIX} ({ident[:12]}) is not ours"
                raise Transient(msg)
            case plain:
                await self._make_plain(plain)
        return rollout

    async def _create_dependent(self, name: str, rollout: Rollout) -> None:
        """Make it again on its own image, with what it had of containers that others stand for by now."""
        planned = next(each for each in (rollout.plan or {})["dependents"] if each["name"] == name)
        replaced = {}
        for reference, of in planned["parents"].items():
            if (inspected := await self._engine.inspect_container(of)) is not None:
                replaced[reference] = inspected[0]["Id"]
        request = CreateRequest.from_json(planned["request"]).rebound(replaced)
        image_id, ref = planned["image_id"], planned["ref"] and ImageRef.parse(planned["ref"])
        end = Revision(image_id=image_id)
        created = await self._create_on(request, name + CANDIDATE_SUFFIX, end, ref=ref, otherwise=image_id)
        if copies := planned.get("copies"):
            await copy(self._engine, copies, sources=[planned["id"]], container=created)


def _given_up(name: str, call: calls.Create | calls.Start | calls.Restart, rollout: Rollout) -> Rollout:
    if isinstance(call, calls.Create):
        return _with_done(rollout, name, is_given_up=True)
    return _with_done(rollout, name, started_id=call.container_id)


def _with_done(rollout: Rollout, name: str, **done: object) -> Rollout:
    """Give the rollout with what was done to which container of a dependent: it may be made once more after that."""
    plan: Mapping[str, Any] = rollout.plan or {}
    dependents = [each | done if each["name"] == name else each for each in plan["dependents"]]
    return replace(rollout, plan={**plan, "dependents": dependents})
