"""Images on one engine, for every driver: pulled exactly by digest, tagged, kept and cleaned."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from functools import partial
from typing import Any

from sidecar.core.image import Digest, ImageRef
from sidecar.core.rollout import Phase, Revision, Rollout
from sidecar.errors import Transient
from sidecar.ports import Events
from sidecar.targets._engine import Engine, EngineError
from sidecar.targets.discovery import Scope, is_looked_after
from sidecar.targets.names import previous_reference

Json = dict[str, Any]
# Gives what the engine is to present to a registry host, as the `X-Registry-Auth` header has it; None: nothing.
Authorize = Callable[[str], Awaitable[Json | None]]


class Prune(StrEnum):
    """Which images are removed after an update; the image before the last update of a target never is."""

    NONE = "none"
    REPLACED = "replaced"
    DANGLING = "dangling"
    SYSTEM = "system"


class Images:
    """The image store of one engine.

    Args:
        scope: which containers are looked after.
    """

    def __init__(
        self, engine: Engine, *, events: Events, authorize: Authorize, prune: Prune, scope: Scope | None = None
    ) -> None:
        self._engine = engine
        self._events = events
        self._authorize = authorize
        self._prune = prune
        self._scope = scope or Scope()
        # A prune of the system would take away what is created after the look that it begins with.
        self._creating_or_pruning = asyncio.Lock()
        # What was pulled for a target and not cleaned since: not everything that is prepared is carried out, and the
        # engine may fail to clean.
        self._pulled: defaultdict[str, set[str]] = defaultdict(set)
        self._pulls: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tags: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def pull(self, ref: ImageRef, digest: Digest, *, platform: str | None, target: str) -> Json:
        """Have exactly this digest in the store, and give its inspect.

        Raises:
            Transient: the pull failed.
            Refused: the registry does not give it to us.
        """
        exactly = ref.at(digest)
        async with self._pulls[exactly]:  # the replicas of a service pull once
            if platform is None and (image := await self._engine.inspect_image(exactly)) is not None:
                return image
            about = {"target": target, "image": str(ref), "digest": digest}
            progress = partial(self._tell_progress, about)
            auth = await self._authorize(ref.registry)
            await self._engine.pull(ref.name, digest, platform=platform, auth=auth, progress=progress)
            image = await self._engine.inspect_image(exactly)
        if image is None:
            msg = f"pulling {exactly}: the engine says it is done, and does not have the image; is it being pruned?"
            raise Transient(msg)
        self._pulled[target].add(image["Id"])
        self._events.publish("image.pulled", **about)
        return image

    async def have(self, ref: ImageRef, end: Revision, *, platform: str | None, target: str) -> None:
        """Have the image of one end of a rollout, which was there when it was prepared.

        Pulled by its digest it has no name: until a tag or a container has it, anybody's prune takes it away.
        """
        if end.digest is not None and await self.id_of(end.image_id or "") is None:
            await self.pull(ref, end.digest, platform=platform, target=target)

    def _tell_progress(self, about: Json, progress: Json) -> None:
        self._events.publish("pull.progressed", **about, **progress)

    async def id_of(self, reference: str) -> str | None:
        """Give the id of what a reference names locally."""
        image = await self._engine.inspect_image(reference)
        return image["Id"] if image is not None else None

    async def tag(self, image_id: str, ref: ImageRef) -> None:
        """Let a reference name this image."""
        await self._engine.tag(image_id, repository=ref.familiar_name, tag=ref.tag or "latest")

    @asynccontextmanager
    async def tagged(self, ref: ImageRef, image_id: str, *, otherwise: str | None) -> AsyncIterator[None]:
        """Let a reference name this image for a moment, then what it named before (or otherwise, where nothing).

        Containers are created by their configured reference, so that the engine shows that as their image. While a
        rollout is not through its gate the reference must not name the new image: `docker compose up` would act on it.
        """
        async with self._tags[str(ref)], self._creating_or_pruning:
            before = await self.id_of(ref.familiar)
            if before == image_id:
                yield
                return
            await self.tag(image_id, ref)
            try:
                yield
            finally:
                if (restored := before or otherwise) is not None:
                    await self.tag(restored, ref)

    async def move_tag(self, ref: ImageRef, image_id: str) -> None:
        """Let a reference name this image from now on."""
        async with self._tags[str(ref)]:
            await self.tag(image_id, ref)

    async def keep_previous(self, target: str, image_id: str) -> None:
        """Keep an image as the one before the last update of a target; what was kept so far loses that name."""
        repository, tag = previous_reference(target)
        await self._engine.tag(image_id, repository=repository, tag=tag)

    async def at_stake(self, target: str, rollout: Rollout, image_id: str) -> list[str]:
        """Name the images that may be of no use once this rollout, which pulled the given one, is over.

        Those are kept in its plan, so that a process that dies in between does not leave one behind: what it pulled,
        what was pulled by those that it takes the place of or that came to nothing, and what is kept as the one before
        the last update.
        """
        kept = await self.id_of(":".join(previous_reference(target)))
        earlier = (rollout.plan or {}).get("images", ())
        pulled = sorted(self._pulled[rollout.target_id])
        return list(dict.fromkeys(filter(None, (*earlier, *pulled, kept, image_id))))

    async def tidy(self, *, target: str, unused: Sequence[str]) -> None:
        """Clean as set, once a rollout is final; what the engine refuses to clean is told and left.

        Raises:
            Unreachable: the engine went away before the images of the rollout were removed; nobody else knows of them.
        """
        self._pulled[target].difference_update(unused)
        for image_id in unused:
            await self._drop(image_id, target=target)
        try:
            if self._prune is Prune.DANGLING:
                self._tell_pruned(target, await self._engine.prune_images())
            elif self._prune is Prune.SYSTEM:
                self._tell_pruned(target, await self._prune_system())
        except Transient as error:
            self._events.publish("image.prune_failed", target=target, reason=str(error))

    async def _prune_system(self) -> Json:
        """Prune all that is of no use, unless a container that is looked after is down: it would go, and its networks.

        Between stop and start every one of them is down, and what a person stopped is to stay as it is.
        """
        async with self._creating_or_pruning:
            down = await self._engine.list_containers(filters={"status": ["created", "exited", "dead"]})
            scope = self._scope
            is_ours = any(
                is_looked_after(entry, default_enable=scope.default_enable, compat=scope.compat) for entry in down
            )
            return await (self._engine.prune_images() if is_ours else self._engine.prune_system())

    async def _drop(self, image_id: str, *, target: str) -> None:
        """Remove an image that an update took out of use, if that may be; what has a name is somebody's.

        One that the engine fails to remove is tried again after the next update.
        """
        if self._prune is Prune.NONE:
            return
        try:
            image = await self._engine.inspect_image(image_id)
            if image is None or image.get("RepoTags"):
                return
            if await self._engine.remove_image(image_id):
                self._events.publish("image.removed", target=target, image_id=image_id)
        except EngineError as error:
            self._pulled[target].add(image_id)
            self._events.publish("image.prune_failed", target=target, reason=str(error))

    def _tell_pruned(self, target: str, answer: Json) -> None:
        self._events.publish("image.pruned", target=target, space_reclaimed_bytes=answer.get("SpaceReclaimed", 0))


def unused_images(rollout: Rollout) -> list[str]:
    """Name the images that a rollout that is over took out of use, or pulled in vain."""
    # After a failure that could not be undone nobody knows which one will be wanted.
    ends = (rollout.from_,) if rollout.phase is Phase.ROLLED_BACK else (rollout.from_, rollout.to)
    needed = {end.image_id for end in ends}
    return [image_id for image_id in (rollout.plan or {}).get("images", ()) if image_id not in needed]
