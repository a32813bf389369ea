"""What a recreate would lose, said before anything is touched, and what it changed, said after it; decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from posixpath import normpath
from typing import Any

from sidecar.targets.endpoints import (
    GATEWAY_PRIORITY,
    MANY_AT_CREATE,
    Api,
    Json,
    endpoint_config,
    networks,
    short_id,
)
from sidecar.targets.spec import COMPOSE_IMAGE, COMPOSE_REPLACE, attached_volumes

_SWARM_TASK = "com.docker.swarm.task.id"


def _mounts(container: Json) -> list[Json]:
    return container["HostConfig"].get("Mounts") or []


def _has_option(container: Json, kind: str, option: str) -> bool:
    return any((mount.get(kind) or {}).get(option) for mount in _mounts(container))


def _start_interval(container: Json) -> bool:
    return bool((container["Config"].get("Healthcheck") or {}).get("StartInterval"))


# What an older API version refuses, or drops in silence, and since which one it is kept.
_SINCE: tuple[tuple[Api, str, Callable[[Json], bool]], ...] = (
    ((1, 42), "CreateMountpoint of a bind", lambda c: _has_option(c, "BindOptions", "CreateMountpoint")),
    ((1, 43), "annotations", lambda c: bool(c["HostConfig"].get("Annotations"))),
    (MANY_AT_CREATE, "the start interval of a health check", _start_interval),
    (MANY_AT_CREATE, "a recursive read-only bind", lambda c: _has_option(c, "BindOptions", "ReadOnlyForceRecursive")),
    ((1, 45), "a volume's subpath", lambda c: _has_option(c, "VolumeOptions", "Subpath")),
    ((1, 48), "an image mount", lambda c: any(mount.get("Type") == "image" for mount in _mounts(c))),
    (GATEWAY_PRIORITY, "a gateway priority", lambda c: any((e or {}).get("GwPriority") for e in networks(c).values())),
)


def unsupported(container: Json, *, api: Api) -> str | None:
    """Say why this container cannot be recreated without a loss; None where it can."""
    return "; ".join(_reasons(container, api)) or None


def _reasons(container: Json, api: Api) -> Iterator[str]:
    config, host = container["Config"], container["HostConfig"]
    if container.get("Platform") == "windows":
        yield "it is a Windows container"
    if (config.get("Labels") or {}).get(_SWARM_TASK):
        yield "it is a task of a Swarm service, and Swarm would replace it: update the service"
    shares = str(host.get("NetworkMode") or "").startswith("container:")
    if not (networks(container) or shares or config.get("NetworkDisabled")):
        yield "it was disconnected from all its networks, and a new one would be connected again"
    ids = [endpoint["NetworkID"] for endpoint in networks(container).values() if (endpoint or {}).get("NetworkID")]
    if len(set(ids)) < len(ids):
        # Engines list a network twice that was asked for by a shortened id, and connect it twice at the next start.
        yield "it was made with the shortened id of a network, and engines cannot start such a container a second time"
    for since, option, is_used in _SINCE:
        if api < since and is_used(container):
            yield f"{option} needs API {since[0]}.{since[1]}, and {api[0]}.{api[1]} is spoken with this engine"


# --- after an update -------------------------------------------------------------------------------------------------

# Keyed by what a user wrote: each key is an option of its own, and stays one when its value is empty.
_KEYED = frozenset(
    {"Annotations", "DriverOpts", "Env", "ExposedPorts", "Labels", "PortBindings", "Sysctls", "Tmpfs", "Volumes"}
)
_MOUNT_FIELDS = ("Type", "Name", "Source", "RW", "Propagation")
_NEWEST: Api = (999, 0)


def difference(before: Json, after: Json, *, old_image: Json | None = None, new_image: Json | None = None) -> list[str]:
    """List the options that differ between two inspects of a target, before and after an update.

    Left out is what an update means: ids, times, states, addresses and paths that nobody asked for, and, where the
    images are given, the defaults of one that became the defaults of the other. Values are left out as well: an
    environment or a command may hold secrets, and this goes to the log.
    """
    new_config = (new_image or {}).get("Config") or {}
    # A volume that the new image declares, where the old container had none: a default of the image.
    fresh = set(map(normpath, new_config.get("Volumes") or {}))
    fresh -= {mount["Destination"] for mount in before.get("Mounts") or []}
    old, new = _options(before), _options(after, without=fresh)
    old_defaults = _config_options((old_image or {}).get("Config") or {})
    new_defaults = _config_options(new_config)
    return [
        f"{path}: {'lost' if path not in new else 'changed' if path in old else 'added'}"
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
        and (old.get(path) != old_defaults.get(path) or new.get(path) != new_defaults.get(path))
    ]


def _options(container: Json, *, without: AbstractSet[str] = frozenset()) -> dict[str, Any]:
    host = container["HostConfig"] | attached_volumes(container) | {"ContainerIDFile": None}
    host["Links"] = sorted(host.get("Links") or [])
    host["Mounts"] = {mount["Target"]: mount for mount in host.get("Mounts") or [] if mount["Target"] not in without}
    config = container["Config"]
    if config.get("Hostname") == short_id(container):
        config = config | {"Hostname": ""}
    asked = {name: endpoint_config(container, name, api=_NEWEST) for name in networks(container)}
    rest = {
        "Name": container.get("Name"),
        "HostConfig": host,
        "Mounts": {
            mount["Destination"]: {key: mount.get(key) for key in _MOUNT_FIELDS}
            for mount in container.get("Mounts") or []
            if mount["Destination"] not in without
        },
        "Networks": {name: e | {"Aliases": sorted(e.get("Aliases", []))} for name, e in asked.items()},
    }
    return _config_options(config) | dict(_flat(rest, ""))


def _config_options(config: Json) -> dict[str, Any]:
    env = {entry.partition("=")[0]: entry for entry in config.get("Env") or []}
    labels = {k: v for k, v in (config.get("Labels") or {}).items() if k not in {COMPOSE_IMAGE, COMPOSE_REPLACE}}
    return dict(_flat(config | {"Env": env, "Labels": labels}, "Config"))


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        if value not in (None, "", []):
            yield path, value
        return
    is_keyed = path.rpartition(".")[2] in _KEYED
    for key, child in value.items():
        below = f"{path}.{key}" if path else key
        yield from [(below, (child,))] if is_keyed else _flat(child, below)
