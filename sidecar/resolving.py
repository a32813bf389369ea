"""Asks a registry what a reference means now, and by what else that and an image are recognised; judges nothing."""

from __future__ import annotations

from dataclasses import replace

from sidecar.core.decision import Cause, Resolved
from sidecar.core.image import ImageRef
from sidecar.core.target import Image, Target
from sidecar.errors import Refused
from sidecar.ports import Ports, Registry


async def resolve(ports: Ports, target: Target, ref: ImageRef, cause: Cause) -> Resolved:
    """Ask what a reference of a target means now, note when its digest was first seen, and tell.

    Raises:
        SidecarError: the registry does not say it, or the journal failed.
    """
    resolved = await ports.registry.resolve(ref)
    await ports.journal.note_digest(ref.name, resolved.digest)
    ports.events.publish("image.resolved", image=str(ref), digest=resolved.digest, target=target.id, cause=cause.kind)
    return resolved


async def compare_platforms(
    registry: Registry, ref: ImageRef, resolved: Resolved, image: Image
) -> tuple[Resolved, Image]:
    """Find out what else both sides are known by: an index may have changed for another platform only.

    Raises:
        SidecarError: the registry does not say it.
    """
    if resolved.identities & image.identities:
        return resolved, image
    wanted = await registry.identities(ref, resolved.digest, platform=image.platform)
    resolved = replace(resolved, identities=resolved.identities | wanted)
    if wanted & image.identities or image.id not in image.digests:
        return resolved, image
    # On the containerd store an image's id is the digest of its index, so the old index is looked into as well.
    aliases: frozenset[str] = frozenset()
    for digest in image.digests:
        try:
            aliases |= await registry.identities(ref, digest, platform=image.platform)
        except Refused:
            continue  # the registry has forgotten the old one: then it is another one
    return resolved, replace(image, aliases=aliases)
