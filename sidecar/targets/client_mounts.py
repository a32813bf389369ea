"""How the mounts of a container are said to Docker's client, each as one line of comma-separated values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from sidecar.targets.client_words import Option, Said, Unsaid, csv_list, is_default, switch, unsaid
from sidecar.targets.endpoints import MANY_AT_CREATE, Api, Json

_RECURSIVE_SINCE = MANY_AT_CREATE  # the version of the engine whose client has `bind-recursive`


def mounts_options(api: Api, mounts: Any) -> Said:
    """Say the mounts of a container, for the client of an engine of a version."""
    for mount in mounts or []:
        said = list(_mount(api, mount))
        yield from ("--mount", csv_list(part for part in said if isinstance(part, str)))
        yield from (part for part in said if isinstance(part, Unsaid))


def _mount(api: Api, mount: Json) -> Said:
    for key, value in mount.items():
        match key:
            case "Type" | "Source" | "Target" | "Consistency" if not is_default(value):
                yield f"{key.lower()}={value}"
            case "ReadOnly" if value:
                yield "readonly"
            case "BindOptions":
                yield from _bind_options(api, value or {})
            case "VolumeOptions":
                yield from _options("VolumeOptions", _VOLUME, value or {})
            case "TmpfsOptions":
                yield from _options("TmpfsOptions", _TMPFS, value or {})
            case "ImageOptions":
                yield from _options("ImageOptions", _IMAGE, value or {})
            case _:
                yield from unsaid(f"HostConfig.Mounts.{key}", value)


def _options(kind: str, table: Mapping[str, Option], options: Json) -> Said:
    for key, value in options.items():
        yield from table.get(key, partial(unsaid, f"HostConfig.Mounts.{kind}.{key}"))(value)


def _bind_options(api: Api, options: Json) -> Said:
    new = api >= _RECURSIVE_SINCE
    flags = {
        "NonRecursive": "bind-recursive=disabled" if new else "bind-nonrecursive=true",
        "ReadOnlyNonRecursive": "bind-recursive=writable",
        "ReadOnlyForceRecursive": "bind-recursive=readonly",
    }
    table = {key: partial(switch, flag) for key, flag in flags.items()} | {
        "Propagation": partial(_part, "bind-propagation")
    }
    yield from _options("BindOptions", table, options)


def _part(key: str, value: Any) -> Said:
    if not is_default(value):
        yield f"{key}={value}"


def _parts(key: str, entries: Any) -> Said:
    for name, value in (entries or {}).items():
        yield f"{key}={name}={value}"


def _driver(config: Any) -> Said:
    yield from _part("volume-driver", (config or {}).get("Name"))
    yield from _parts("volume-opt", (config or {}).get("Options"))


def _mode(value: Any) -> Said:
    if value:
        yield f"tmpfs-mode={value:o}"


_VOLUME: Mapping[str, Option] = {
    "NoCopy": partial(switch, "volume-nocopy"),
    "Labels": partial(_parts, "volume-label"),
    "DriverConfig": _driver,
    "Subpath": partial(_part, "volume-subpath"),
}
_TMPFS: Mapping[str, Option] = {"SizeBytes": partial(_part, "tmpfs-size"), "Mode": _mode}
_IMAGE: Mapping[str, Option] = {"Subpath": partial(_part, "image-subpath")}
