"""Reads what an engine says of containers and images into our own words. Pure: decides and changes nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sidecar.core.image import Digest, ImageRef
from sidecar.core.policy import Action, Policy, is_enabled, parse_policy
from sidecar.core.target import Health, Image, Kind, State, Target

Json = dict[str, Any]

CANDIDATE_SUFFIX = ".sidecar-new"
PARKED_SUFFIX = ".sidecar-old"
PREVIOUS_REPOSITORY = "sidecar-previous"

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"
_DEPENDS_ON = "com.docker.compose.depends_on"
_ONE_OFF = "com.docker.compose.oneoff"
_STATES = {
    "created": State.CREATED,
    "running": State.RUNNING,
    "paused": State.PAUSED,
    "restarting": State.RESTARTING,
}
_LONGEST_TAG = 128
_OWN = (
    "it is the Sidecar that looks, which cannot stop itself and go on; update it by hand: "
    "docker compose pull && docker compose up -d"
)
_OWN_MOUNT = re.compile(r"/containers/([0-9a-f]{64})/(?:hostname|hosts|resolv\.conf) ")
_SHORT_ID = 12
# Of a list entry.
_DOWN = frozenset({"created", "exited", "dead", "removing"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The health of one container at one instant, on the engine's clock.

    Attributes:
        since: the first success of the unbroken tail of successes that the engine still has.
        is_unbroken: everything that it still has is a success, so one that was seen earlier may count.
    """

    health: Health
    since: float | None = None
    is_unbroken: bool = False


def discover(
    entries: Iterable[Json],
    references: Mapping[str, str],
    *,
    default_enable: bool,
    scope: str | None,
    own_id: str | None = None,
) -> list[Target]:
    """Make the targets out of the entries of one list call.

    Args:
        references: container id to the reference as configured, where the list shows an image id in its place.
        scope: which of several Sidecars on one engine asks.
        own_id: the container that this Sidecar runs in, if it runs in one.
    """
    found: dict[str, Target] = {}
    for entry in entries:
        target = _target(entry, references.get(entry["Id"], entry["Image"]), default_enable=default_enable)
        if target is not None and entry["Id"] == own_id:
            target = replace(target, refusal=_OWN)
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


def own_name(entry: Json) -> str:
    """Give the name of a list entry; links add names with more slashes."""
    names: list[str] = entry["Names"]
    return next((name[1:] for name in names if name.count("/") == 1), str(entry["Id"])[:12])


def base_name(name: str) -> str:
    """Give the name of the target that a container belongs to, be it in place, candidate or parked."""
    return name.removesuffix(CANDIDATE_SUFFIX).removesuffix(PARKED_SUFFIX)


def is_in_place(entry: Json) -> bool:
    """Say whether a list entry bears a name of its own: it is neither a candidate nor parked."""
    name = own_name(entry)
    return base_name(name) == name


def is_looked_after(entry: Json, *, default_enable: bool) -> bool:
    """Say whether a list entry is a target of some Sidecar on this engine, or what a rollout has put beside one."""
    return is_enabled(entry.get("Labels") or {}, default=default_enable) or not is_in_place(entry)


def refers_to(reference: str, ref: str) -> bool:
    """Say whether a container's reference, as it was configured, is the given one, normalised."""
    return not is_image_id(reference) and str(ImageRef.configured(reference)) == ref


def replacement_of(name: str, entries: Iterable[Json], *, since: float | None) -> str | None:
    """Give the id of what Compose made to replace a container, and did not live to give its name.

    Args:
        since: an older one was left by somebody else; None is never.
    """
    for entry in entries:
        is_for_it = replaced_name(own_name(entry), entry.get("Labels") or {}) == name
        if is_for_it and since is not None and entry["Created"] >= int(since):
            return str(entry["Id"])
    return None


def replaced_name(name: str, labels: Mapping[str, str]) -> str | None:
    """Give whose place a container of this name takes, or gives up, while Compose recreates it; None for any other.

    Compose calls it ``<12 digits of the old one's id>_<name>`` until it is done.
    """
    short_id, _, wanted = name.partition("_")
    is_named_so = bool(wanted) and len(short_id) == _SHORT_ID and is_image_id(short_id)
    return wanted if is_named_so and _PROJECT in labels else None


def is_image_id(reference: str) -> bool:
    """Say whether an image is named by its id and not by a reference."""
    text = reference.removeprefix("sha256:")
    is_hexadecimal = all(character in "0123456789abcdef" for character in text)
    return is_hexadecimal and (reference != text or len(text) in (12, 64))


def previous_reference(name: str) -> tuple[str, str]:
    """Give repository and tag under which the image before the last update of a target is kept."""
    tag = "".join(character if character.isalnum() or character in "_.-" else "_" for character in name)
    return PREVIOUS_REPOSITORY, tag[-_LONGEST_TAG:].lstrip(".-") or "_"


def why_unmanaged(entry: Json, *, default_enable: bool, scope: str | None) -> str | None:
    """Say why a container is left alone; None when it is a target."""
    labels = entry.get("Labels") or {}
    if not is_enabled(labels, default=default_enable):
        return "label sidecar.enable is not true" if not default_enable else "label sidecar.enable is false"
    if labels.get(_ONE_OFF, "").lower() == "true":
        return "a one-off run of `docker compose run`"
    if _is_passing(entry):
        return "Compose recreates a container by it; `docker compose up -d` finishes what it left"
    theirs = labels.get("sidecar.scope", "").strip() or None
    if theirs != scope:
        return f"its scope is {theirs or 'none'}, and that of this Sidecar {scope or 'none'}"
    return None


def _is_passing(entry: Json) -> bool:
    """Say whether a container is there for a moment only: one that runs under such a name was left so, and stays."""
    is_down = entry.get("State") in _DOWN
    return is_down and replaced_name(own_name(entry), entry.get("Labels") or {}) is not None


def _target(entry: Json, reference: str, *, default_enable: bool) -> Target | None:
    labels = entry.get("Labels") or {}
    if not is_enabled(labels, default=default_enable) or labels.get(_ONE_OFF, "").lower() == "true":
        return None
    if _is_passing(entry):
        return None
    name = base_name(own_name(entry))
    policy, refusal = _policy(labels, default_enable=default_enable)
    ref, problem = _reference(reference)
    if policy.action is Action.PULL and problem is None:
        policy = replace(policy, min_ready_seconds=0.0, rollback=False)
        return Target(
            id=f"image:{ref}", kind=Kind.IMAGE, ref=ref, policy=policy, service=f"image:{ref}", refusal=refusal
        )
    project, service = labels.get(_PROJECT), labels.get(_SERVICE)
    return Target(
        id=f"docker:{name}",
        kind=Kind.DOCKER,
        ref=ref,
        policy=policy,
        service=f"docker:{project}/{service}" if project and service else f"docker:{name}",
        project=project,
        depends_on=_depends_on(labels, policy, project),
        refusal=refusal or problem,
    )


def _policy(labels: Mapping[str, str], *, default_enable: bool) -> tuple[Policy, str | None]:
    try:
        return parse_policy(labels, default_enable=default_enable), None
    except ValueError as error:
        # Its scope decides who reports it, so that is read even where another label is wrong.
        return Policy(enable=True, scope=labels.get("sidecar.scope", "").strip() or None), str(error)


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


def _depends_on(labels: Mapping[str, str], policy: Policy, project: str | None) -> tuple[str, ...]:
    if project is None:
        return tuple(f"docker:{name}" for name in policy.depends_on)
    # Compose writes `db:service_healthy:true,cache:service_started:false`.
    compose = [part.partition(":")[0] for part in labels.get(_DEPENDS_ON, "").split(",") if part]
    names = dict.fromkeys([*compose, *policy.depends_on])
    return tuple(f"docker:{project}/{name}" for name in names)


def parse_time(text: str | None) -> float | None:
    """Read a time of the engine as seconds since 1970; its zero time means never."""
    if not text or text.startswith("0001-"):
        return None
    return datetime.fromisoformat(text).timestamp()


def state_of(container: Json) -> State:
    """Read the state of an inspected container; one that is dead or being removed has exited."""
    return _STATES.get(container["State"].get("Status", ""), State.EXITED)


def was_stopped(container: Json) -> bool:
    """Say whether somebody stopped a container: the engine itself would have started it again."""
    policy = (container["HostConfig"].get("RestartPolicy") or {}).get("Name")
    has_ended = state_of(container) is State.EXITED and not container["State"].get("Error")
    return has_ended and policy in ("always", "unless-stopped")


def health_of(container: Json) -> Checked:
    """Read its health: that of its check, or that it stays up where it has none."""
    state = container["State"]
    check = state.get("Health") or {}
    if state_of(container) is not State.RUNNING:
        return Checked(health=Health.STARTING)
    if check.get("Status", "none") in ("none", ""):
        return Checked(health=Health.HEALTHY, since=parse_time(state.get("StartedAt")))
    if check["Status"] == "unhealthy":
        return Checked(health=Health.UNHEALTHY)
    results = check.get("Log") or []
    tail: list[Json] = []
    for result in reversed(results):
        if result.get("ExitCode") != 0:
            break
        tail.append(result)
    if check["Status"] != "healthy" or not tail:
        return Checked(health=Health.STARTING)
    return Checked(health=Health.HEALTHY, since=parse_time(tail[-1].get("End")), is_unbroken=len(tail) == len(results))


def volumes_of(container: Json) -> set[str]:
    """Name the volumes of an inspected container."""
    return {mount["Name"] for mount in container.get("Mounts") or [] if mount.get("Type") == "volume"}


def detail_of(container: Json) -> str:
    """Say what the engine knows of a container's trouble, for a reason; empty when it knows of none."""
    state = container["State"]
    words = []
    if state.get("OOMKilled"):
        words.append("out of memory")
    if state.get("Error"):
        words.append(str(state["Error"])[:500])
    if state.get("ExitCode"):
        words.append(f"exit code {state['ExitCode']}")
    last = ((state.get("Health") or {}).get("Log") or [{}])[-1]
    if last.get("ExitCode"):
        words.append(f"health check: exit code {last['ExitCode']}, {str(last.get('Output', '')).strip()[:200]!r}")
    return ", ".join(words)


def image_of(image: Json | None, ident: str, ref: ImageRef) -> Image:
    """Read an inspected image; of its digests those count under which the target's repository knows it."""
    if image is None:
        return Image(id=ident)
    digests = set()
    for text in image.get("RepoDigests") or []:
        try:
            known = ImageRef.parse(text)
        except ValueError:
            continue  # `<none>@<none>` of an image whose repository was removed
        if known.name == ref.name and known.digest is not None:
            digests.add(known.digest)
    return Image(id=image["Id"], digests=frozenset[Digest](digests), platform=platform_of(image))


def platform_of(image: Json) -> str:
    """Give ``os/architecture`` and the variant of an inspected image."""
    return "/".join(filter(None, (image.get("Os"), image.get("Architecture"), image.get("Variant"))))


def sharers(others: Collection[Json], container_id: str, name: str) -> list[str]:
    """Name the containers that have a namespace, volumes or a link of this one, and would lose it with it."""
    names = {other["Name"].lstrip("/") for other in others}

    def is_this_one(given: str) -> bool:
        # Volumes may be asked for by the beginning of an id; the engine takes a name before that.
        return given == name or (given not in names and container_id.startswith(given))

    return sorted(
        other["Name"].lstrip("/")
        for other in others
        if other["Id"] != container_id and any(map(is_this_one, _parents(other["HostConfig"])))
    )


def _parents(host: Json) -> set[str]:
    """Give the containers that one of this configuration was made from, by name or id as the engine shows them."""
    modes = [str(host.get(key) or "").partition(":") for key in ("NetworkMode", "IpcMode", "PidMode")]
    parents = {parent for kind, _, parent in modes if kind == "container"}
    parents |= {entry.partition(":")[0] for entry in host.get("VolumesFrom") or []}
    # A link of the default network holds on to the container itself, under whatever name that has.
    return parents | {link.partition(":")[0].lstrip("/") for link in host.get("Links") or []}
