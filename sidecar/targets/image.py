"""The driver of image targets: local tags that are only kept pulled; no container is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sidecar.core.image import ImageRef
from sidecar.core.policy import Policy
from sidecar.core.rollout import Phase, Rollout
from sidecar.core.target import Health, Kind, Observed, State, Target
from sidecar.errors import Refused
from sidecar.ports import Clock, Described, Journal
from sidecar.targets._engine import Engine
from sidecar.targets.containers import image_of
from sidecar.targets.images import Images, unused_images
from sidecar.targets.names import previous_reference

Json = dict[str, Any]
# There is no gate: an image that is pulled is as good as it gets.
_POLICY = Policy(enable=True, min_ready_seconds=0.0, rollback=False)


class ImageDriver:
    """Tags of one engine's image store."""

    def __init__(self, engine: Engine, images: Images, *, journal: Journal, clock: Clock) -> None:
        self._engine = engine
        self._images = images
        self._journal = journal
        self._clock = clock

    async def list(self) -> Sequence[Target]:
        """Give every image target ever made."""
        return [image_target(ref) for ref in await self._journal.image_targets()]

    async def observe(self, target: Target, rollout: Rollout | None) -> Observed:
        """Look at what the tag names; a tag always stands, so an image that is not there yet is no missing target."""
        now = self._clock.now()
        image = await self._engine.inspect_image(target.ref.familiar)
        return Observed(
            now=now,
            state=State.RUNNING,
            instance=image["Id"] if image is not None else None,
            image=image_of(image, image["Id"], target.ref) if image is not None else None,
            health=Health.HEALTHY,
            started_at=now,
            healthy_since=now,
            at_rest=rollout is None or await self._is_kept(target, rollout),
        )

    async def _is_kept(self, target: Target, rollout: Rollout) -> bool:
        if rollout.phase is not Phase.FINISHING or rollout.from_.image_id is None:
            return True
        kept = await self._images.id_of(":".join(previous_reference(target.name)))
        return kept == rollout.from_.image_id or await self._images.id_of(rollout.from_.image_id) is None

    async def refusal(self, target: Target) -> str | None:
        """Say nothing: an image can always be pulled."""
        del target
        return None

    async def prepare(self, target: Target, rollout: Rollout) -> Rollout:
        """Pull exactly the digest; the tag does not move yet."""
        if rollout.to.digest is None:
            msg = f"preparing {rollout.id}: it has no digest to pull"
            raise Refused(msg)
        image = await self._images.pull(target.ref, rollout.to.digest, platform=None, target=target.id)
        plan = {"images": await self._images.at_stake(target.name, rollout, image["Id"])}
        return replace(rollout, plan=plan, to=replace(rollout.to, image_id=image["Id"], instance=image["Id"]))

    async def step(self, target: Target, rollout: Rollout, observed: Observed) -> Rollout:
        """Move the tag; then keep the image it named before."""
        del observed
        if rollout.phase is Phase.UPDATING and rollout.to.image_id is not None:
            await self._images.have(target.ref, rollout.to, platform=None, target=target.id)
            await self._images.move_tag(target.ref, rollout.to.image_id)
        elif rollout.phase is Phase.FINISHING and rollout.from_.image_id is not None:
            await self._images.keep_previous(target.name, rollout.from_.image_id)
        return rollout

    async def log_tail(self, target: Target, rollout: Rollout) -> str:
        """Give nothing: an image says nothing."""
        del target, rollout
        return ""

    async def recovery(self, target: Target, rollout: Rollout) -> Sequence[str]:
        """Give nothing: a tag always names something."""
        del target, rollout
        return ()

    async def describe(self, target: Target, rollout: Rollout | None, *, with_spec: bool) -> Described:
        """Give the image before the last; nothing makes an image again but its registry."""
        del rollout, with_spec
        return Described(previous_image=await self._images.id_of(":".join(previous_reference(target.name))) or "")

    async def tidy(self, target: Target, rollout: Rollout) -> None:
        """Clean images as set, once the rollout is final."""
        await self._images.tidy(target=target.id, unused=unused_images(rollout))


def image_target(ref: ImageRef) -> Target:
    """Make the target of a reference that is kept pulled."""
    return Target(id=f"image:{ref}", kind=Kind.IMAGE, ref=ref, policy=_POLICY, service=f"image:{ref}")
