"""Which containers are targets, by the entries of one list call: their labels, names and references. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sidecar.core.image import Digest, ImageRef
from sidecar.core.policy import PREFIX, Action, Policy, is_enabled, parse_policy
from sidecar.core.target import Kind, Target
from sidecar.core.watchtower import Rules, Translated
from sidecar.targets.names import base_name, is_image_id, is_in_place, own_name, replaced_name
from sidecar.targets.translated import read, translated

Json = dict[str, Any]

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"
_DEPENDS_ON = "com.docker.compose.depends_on"
_ONE_OFF = "com.docker.compose.oneoff"
_OWN = (
    "it is the Sidecar that looks; label it sidecar.enable=true to have it update itself, or update it by hand: "
    "docker compose pull && docker compose up -d"
)
# Docker: `/containers/<id>/hostname`; Podman: `/containers/storage/overlay-containers/<id>/userdata/hostname`.
_OWN_MOUNT = re.compile(r"[/-]containers/([0-9a-f]{64})/(?:userdata/)?(?:hostname|hosts|resolv\.conf) ")
# Of a list entry.
_DOWN = frozenset({"created", "exited", "dead", "removing"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which containers this Sidecar looks after.

    Attributes:
        default_enable: those without a label as well.
        name: its name among several Sidecars on one engine.
        own_id: the container that it runs in, if it runs in one.
        compat: what Watchtower's settings ask for, where its labels count; None where they do not.
    """

    default_enable: bool = False
    name: str | None = None
    own_id: str | None = None
    compat: Rules | None = None


def discover(
    entries: Iterable[Json],
    references: Mapping[str, str],
    *,
    default_enable: bool,
    scope: str | None,
    own_id: str | None = None,
    compat: Rules | None = None,
) -> list[Target]:
    """Make the targets out of the entries of one list call.

    Args:
        references: container id to the reference as configured, where the list shows an image id in its place.
        scope: which of several Sidecars on one engine asks.
        own_id: the container that this Sidecar runs in, if it runs in one.
        compat: what Watchtower's settings ask for, where its labels count.
    """
    found: dict[str, Target] = {}
    seen = list(entries)
    by_id = {entry["Id"]: entry for entry in seen}
    for entry, words in translated(seen, compat):
        target = _target(entry, words, references.get(entry["Id"], entry["Image"]), default_enable=default_enable)
        owner = by_id.get(_network_of(entry))
        if target is not None and owner is not None and _service_of(owner) not in target.depends_on:
            target = replace(target, depends_on=(*target.depends_on, _service_of(owner)))
        if target is not None and entry["Id"] == own_id:
            is_asked_for = PREFIX + "enable" in (entry.get("Labels") or {})
            target = replace(target, is_own=True, refusal=target.refusal if is_asked_for else _OWN)
        # In the middle of a rollout the name may be free while candidate and parked one stand beside it.
        if (
            target is not None
            and target.policy.scope == scope
            and (own_name(entry) == target.name or target.id not in found)
        ):
            found[target.id] = target
    return list(found.values())


def own_container(mountinfo: str) -> str | None:
    """Find the id of the container that a process runs in, in its ``/proc/self/mountinfo``; None outside of one.

    The engine mounts three files of each container's own folder, on every kind of network.
    """
    found = _OWN_MOUNT.search(mountinfo)
    return found.group(1) if found else None


def why_unmanaged(entry: Json, *, default_enable: bool, scope: str | None, compat: Rules | None = None) -> str | None:
    """Say why a container is left alone; None when it is a target."""
    words = read(entry, compat)
    labels = words.labels
    if not is_enabled(labels, default=default_enable):
        if words.excluded is not None:
            return words.excluded
        return "label sidecar.enable is not true" if not default_enable else "label sidecar.enable is false"
    if labels.get(_ONE_OFF, "").lower() == "true":
        return "a one-off run of `docker compose run`"
    if _is_passing(entry):
        return "Compose recreates a container by it; `docker compose up -d` finishes what it left"
    theirs = labels.get("sidecar.scope", "").strip() or None
    if theirs != scope:
        return f"its scope is {theirs or 'none'}, and that of this Sidecar {scope or 'none'}"
    return None


def is_looked_after(entry: Json, *, default_enable: bool, compat: Rules | None = None) -> bool:
    """Say whether a list entry is a target of some Sidecar on this engine, or what a rollout has put beside one."""
    return is_enabled(read(entry, compat).labels, default=default_enable) or not is_in_place(entry)


def is_recreated(
    labels: Mapping[str, str], *, default_enable: bool, scope: str | None, compat: Rules | None = None
) -> bool:
    """Say whether a container with these labels is a target itself; of some only the image is kept pulled.

    Args:
        labels: as the engine tells them with what happens to a container, its name among them.
    """
    entry = {"Labels": labels, "Names": [f"/{labels.get('name', '')}"], "Id": ""}
    is_managed = why_unmanaged(entry, default_enable=default_enable, scope=scope, compat=compat) is None
    policy, _ = _policy(read(entry, compat), default_enable=default_enable)
    return is_managed and policy.action is not Action.PULL


def _is_passing(entry: Json) -> bool:
    """Say whether a container is there for a moment only: one that runs under such a name was left so, and stays."""
    is_down = entry.get("State") in _DOWN
    return is_down and replaced_name(own_name(entry), entry.get("Labels") or {}) is not None


def _target(entry: Json, words: Translated, reference: str, *, default_enable: bool) -> Target | None:
    labels = words.labels
    if not is_enabled(labels, default=default_enable) or labels.get(_ONE_OFF, "").lower() == "true":
        return None
    if _is_passing(entry):
        return None
    name = base_name(own_name(entry))
    policy, refusal = _policy(words, default_enable=default_enable)
    ref, problem = _reference(reference)
    if policy.action is Action.PULL and problem is None:
        policy = replace(policy, min_ready_seconds=0.0, rollback=False)
        return Target(
            id=f"image:{ref}", kind=Kind.IMAGE, ref=ref, policy=policy, service=f"image:{ref}", refusal=refusal
        )
    project = labels.get(_PROJECT)
    return Target(
        id=f"docker:{name}",
        kind=Kind.DOCKER,
        ref=ref,
        policy=policy,
        service=_service_of(entry),
        project=project,
        depends_on=_depends_on(labels, policy, project),
        refusal=refusal or problem,
    )


def _service_of(entry: Json) -> str:
    labels = entry.get("Labels") or {}
    project, service = labels.get(_PROJECT), labels.get(_SERVICE)
    return f"docker:{project}/{service}" if project and service else f"docker:{base_name(own_name(entry))}"


def _network_of(entry: Json) -> str:
    """Give the id of the container in whose network it lives; it goes with that one, so it comes after it."""
    kind, _, owner = str((entry.get("HostConfig") or {}).get("NetworkMode") or "").partition(":")
    return owner if kind == "container" else ""


def _policy(words: Translated, *, default_enable: bool) -> tuple[Policy, str | None]:
    try:
        return parse_policy(words.labels, default_enable=default_enable), words.refusal
    except ValueError as error:
        # Its scope decides who reports it, so that is read even where another label is wrong.
        scope = words.labels.get("sidecar.scope", "").strip() or None
        return Policy(enable=True, scope=scope), words.explained(str(error))


def _reference(text: str) -> tuple[ImageRef, str | None]:
    """Read a container's reference, and say why no registry can have a newer image for it."""
    nothing = ImageRef("", "")
    if is_image_id(text):
        return (
            nothing,
            f"it runs the image id {text[:19]}, which no registry can have a newer image for; run it by a tag",
        )
    try:
        ref = ImageRef.configured(text)
    except ValueError as error:
        return nothing, str(error)
    if ref.digest is not None:
        return ref, _pinned(ref.digest)
    return ref, None


def _pinned(digest: Digest) -> str:
    return f"its reference is pinned to {digest}; nothing can be newer"


def is_pinned(target: Target) -> bool:
    """Say whether a target is held since its reference is a digest, and for nothing else."""
    return target.ref.digest is not None and target.refusal == _pinned(target.ref.digest)


def asks_for_restart(labels: Mapping[str, str], of: Mapping[str, str]) -> bool:
    """Say whether a container is to be started anew after another one was recreated: Compose's ``restart: true``.

    Args:
        labels: of the one that may ask.
        of: those of the other one.
    """
    is_together = _PROJECT in of and labels.get(_PROJECT) == of[_PROJECT] and labels.get(_ONE_OFF) != "True"
    return is_together and (of.get(_SERVICE, ""), True) in _compose_depends_on(labels)


def _compose_depends_on(labels: Mapping[str, str]) -> list[tuple[str, bool]]:
    # Compose writes `db:service_healthy:true,cache:service_started:false`.
    parts = [part.split(":") for part in labels.get(_DEPENDS_ON, "").split(",") if part]
    return [(name, rest[-1:] == ["true"]) for name, *rest in parts]


def _depends_on(labels: Mapping[str, str], policy: Policy, project: str | None) -> tuple[str, ...]:
    if project is None:
        return tuple(f"docker:{name}" for name in policy.depends_on)
    compose = [name for name, _ in _compose_depends_on(labels)]
    names = dict.fromkeys([*compose, *policy.depends_on])
    return tuple(f"docker:{project}/{name}" for name in names)
