"""Does all that can fail cheaply before the container of a rollout is touched, and writes the plan of it.

Nothing that runs is touched here, and nothing is created.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sidecar.core.image import Digest
from sidecar.core.policy import Strategy
from sidecar.core.rollout import Rollout
from sidecar.core.target import Target
from sidecar.errors import Refused, Transient
from sidecar.targets import podman
from sidecar.targets._engine import Engine
from sidecar.targets.calls import POST_UPDATE, PRE_UPDATE
from sidecar.targets.copying import find_copies
from sidecar.targets.discovery import Scope
from sidecar.targets.images import Images
from sidecar.targets.looking import look
from sidecar.targets.plan_dependents import (
    everything_on,
    plan_dependents,
    refusal_of_dependents,
    unsupported_by,
)
from sidecar.targets.spec import CreateRequest, EngineDefaults, create_request, foreign_platform
from sidecar.targets.start_first import obstacle
from sidecar.targets.written import why_unclear

Json = dict[str, Any]


class Preparer:
    """Prepares rollouts of containers on one engine."""

    def __init__(self, engine: Engine, images: Images, *, scope: Scope) -> None:
        self._engine = engine
        self._images = images
        self._scope = scope
        self._defaults: EngineDefaults | None = None

    async def prepare(self, target: Target, rollout: Rollout) -> Rollout:
        """Inspect, refuse what would be lost, pull, and write down the create requests of both ends."""
        container = await self._container_of(target, rollout)
        is_begun = rollout.plan is not None and rollout.is_begun
        if not is_begun and (reason := await self.refusal(target, container)) is not None:
            raise Refused(reason)
        await self._refuse_strangers(target, rollout)
        if rollout.to.digest is None:
            msg = f"preparing {rollout.id}: it has no digest to pull"
            raise Refused(msg)
        engine = await self._engine_defaults()
        old_image = await self._image_of(target, container, engine)
        platform = foreign_platform(container, old_image, engine=engine.platform)
        new_image = await self._images.pull(target.ref, rollout.to.digest, platform=platform, target=target.id)
        _refuse_other_platform(old_image, new_image, rollout)
        plan = await self._plan(target, rollout, container, (old_image, new_image), engine)
        plan["images"] = await self._images.at_stake(target.name, rollout, new_image["Id"])
        plan |= await self._carried_over(rollout, new_image["Id"])
        return replace(
            rollout,
            plan=plan,
            strategy=rollout.strategy if is_begun else Strategy(plan["strategy"]),
            strategy_note=plan["strategy_note"],
            dependents=tuple(f"{target.kind}:{each['name']}" for each in plan["dependents"]),
            auto_remove=bool(container["HostConfig"].get("AutoRemove")),
            to=replace(rollout.to, image_id=new_image["Id"]),
        )

    async def _carried_over(self, rollout: Rollout, image_id: str) -> Json:
        """Give what has to be known of what this rollout takes the place of, and since when (engine's clock).

        The images for which the reference may name them at this moment, and the volumes that were made for its
        containers.
        """
        earlier = rollout.plan or {}
        overtaken = dict.fromkeys(filter(None, (*earlier.get("overtaken", ()), earlier.get("image"))))
        return {
            "image": image_id,
            "overtaken": [each for each in overtaken if each != image_id],
            "prepared_at": earlier.get("prepared_at") or await self._engine.ping(),
            **{key: earlier[key] for key in ("volumes", "left_volumes") if key in earlier},
        }

    async def renew(self, target: Target, rollout: Rollout) -> Rollout:
        """Give a rollout that has not begun with the plan as it has to be by now.

        A pull, a queue and an engine that refuses may lie between the plan and its use, and people change containers:
        `docker update` and `docker network connect` leave it the same one.
        """
        container = await self._container_of(target, rollout)
        old_image = await self._engine.inspect_image(container["Image"])
        new_image = await self._engine.inspect_image(rollout.to.image_id or "")
        if old_image is None or new_image is None:
            return await self.prepare(target, rollout)
        engine, known = await self._engine_defaults(), rollout.plan or {}
        plan = await self._plan(target, rollout, container, (old_image, new_image), engine)
        is_same = all(plan[key] == known.get(key) for key in plan.keys() - {"container"})
        return rollout if is_same else await self.prepare(target, rollout)

    async def _plan(
        self, target: Target, rollout: Rollout, container: Json, images: tuple[Json, Json], engine: EngineDefaults
    ) -> Json:
        """Write down what makes the new container, what would make the old one again, and what goes with them."""
        old_image, _ = images
        made = (
            create_request(
                container,
                old_image=old_image,
                new_image=image,
                image=container["Config"]["Image"],
                api=self._engine.api_version,
                engine=engine,
            )
            for image in reversed(images)
        )
        request, restore = (replace(each, notes=(*each.notes, *podman.notes(container))).to_json() for each in made)
        dependents = await self._dependents(rollout, container, engine)
        strategy, note = self._strategy(target, container, dependents)
        hooks = {PRE_UPDATE: target.policy.pre_update, POST_UPDATE: target.policy.post_update}
        return {
            "container": container,
            "request": request,
            "restore": restore,
            "restart_policy": container["HostConfig"].get("RestartPolicy") or {},
            "copies": list((await find_copies(self._engine, container)).copied),
            "strategy": strategy,
            "strategy_note": note,
            "dependents": dependents,
            "hooks": {
                name: {"command": hook.command, "timeout": hook.timeout_seconds}
                for name, hook in hooks.items()
                if hook is not None
            },
        }

    def _strategy(self, target: Target, container: Json, dependents: Sequence[Json]) -> tuple[Strategy, str]:
        """Give the strategy in force, and why it is not the one that the labels ask for."""
        if target.policy.strategy is Strategy.STOP_FIRST:
            return Strategy.STOP_FIRST, ""
        why_not = obstacle(
            container,
            api=self._engine.api_version,
            may_share_volumes=target.policy.start_first_volumes,
            dependents=any(each["is_remade"] for each in dependents),
            is_own=target.is_own,
        )
        if why_not is None:
            return Strategy.START_FIRST, ""
        return Strategy.STOP_FIRST, f"the old one is stopped before the new one is started: {why_not}"

    async def _dependents(self, rollout: Rollout, container: Json, engine: EngineDefaults) -> list[Json]:
        if rollout.plan is not None and rollout.is_begun:  # they are stopped by now
            return list(rollout.plan.get("dependents", ()))
        everything = await everything_on(self._engine)
        return await plan_dependents(self._engine, container, everything, defaults=engine, own_id=self._scope.own_id)

    async def _image_of(self, target: Target, container: Json, engine: EngineDefaults) -> Json:
        """Give the image that a container runs: its defaults have to be told from what was configured."""
        image_id = container["Image"]
        if (image := await self._engine.inspect_image(image_id)) is not None:
            return image
        # containerd's store lets an image go when a pull by hand takes its tag. There its id is what a registry knows.
        platform = foreign_platform(container, {}, engine=engine.platform)
        try:
            return await self._images.pull(target.ref, Digest(image_id), platform=platform, target=target.id)
        except (Refused, ValueError) as error:
            msg = (
                f"{target.name} runs {image_id}, which the engine does not have any more: what came from that image "
                f"cannot be told apart from what was configured, so recreate it by hand ({error})"
            )
            raise Refused(msg) from error

    async def _container_of(self, target: Target, rollout: Rollout) -> Json:
        if rollout.plan is not None and rollout.is_begun:  # the old one may be parked, and changed by us
            return dict(rollout.plan["container"])
        inspected = await self._engine.inspect_container(rollout.from_.instance or "")
        if inspected is None or inspected[0]["Name"] != f"/{target.name}":
            msg = f"{target.name} was replaced by somebody else meanwhile"
            raise Transient(msg)
        return inspected[0]

    async def as_it_is(self, container: Json) -> CreateRequest:
        """Give what makes a container again on the image that it runs."""
        engine = await self._engine_defaults()
        image = await self._engine.inspect_image(container["Image"])
        return create_request(
            container,
            old_image=image or {},  # of one that is gone nothing can be told apart: it is all kept
            new_image=image or {"Id": container["Image"]},
            image=container["Config"]["Image"],
            api=self._engine.api_version,
            engine=engine,
        )

    async def refusal(self, target: Target, container: Json) -> str | None:
        """Say what would be lost, here or in others, if the container were recreated; None: nothing."""
        if (reason := unsupported_by(self._engine, container)) is not None:
            return f"{target.name} cannot be recreated without a loss: {reason}"
        if unclear := (await find_copies(self._engine, container)).unclear:
            return why_unclear(target.name, unclear)
        everything = await everything_on(self._engine)
        if self._engine.is_podman and (names := podman.holders(container, everything)):
            return f"{', '.join(names)} would lose {target.name}, which Podman does not let go of; recreate all by hand"
        return await refusal_of_dependents(self._engine, container, everything, scope=self._scope)

    async def _refuse_strangers(self, target: Target, rollout: Rollout) -> None:
        ours = (rollout.from_.instance, rollout.to.instance, rollout.superseded)
        seen = await look(self._engine, target.name, rollout)
        for stranger in (seen.candidate, seen.parked):
            if stranger is not None and stranger["Id"] not in ours:
                name = stranger["Name"].lstrip("/")
                msg = (
                    f"another updater is at work, or our journal was lost: no rollout explains {name}; docker rm {name}"
                )
                raise Transient(msg)

    async def _engine_defaults(self) -> EngineDefaults:
        if self._defaults is None:
            info = await self._engine.info()
            self._defaults = EngineDefaults(
                platform=self._engine.platform, hostname=info.get("Name", ""), runtime=info.get("DefaultRuntime", "")
            )
        return self._defaults


def _refuse_other_platform(old_image: Json, new_image: Json, rollout: Rollout) -> None:
    old, new = ("/".join((image["Os"], image["Architecture"])) for image in (old_image, new_image))
    if old != new:
        msg = f"{rollout.to.digest} is an image for {new}, and {rollout.target_id} runs one for {old}"
        raise Refused(msg)
