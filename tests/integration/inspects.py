"""Compares the inspects of two containers field by field, by its own rules: it shares nothing with what it judges."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Json = dict[str, Any]
Changes = dict[str, tuple[Any, Any]]

# What each container has anew, however it was made: its identity, its life so far, paths and addresses of its own.
_OF_EACH = re.compile(
    r"""
    Id | Created | Image | ExecIDs | (ResolvConf|Hostname|Hosts|Log)Path | GraphDriver\.Data\..*
    | State\.(Pid|StartedAt|FinishedAt|ExitCode|Health\..*)
    | NetworkSettings\.(SandboxID|SandboxKey)
    | NetworkSettings\.(Networks\.[^.]+\.)?(EndpointID|IPAddress|GlobalIPv6Address|MacAddress)
    """,
    re.VERBOSE,
)
# What a container that was never started shows as well: what was asked for, and its mounts. Not what it is attached to
# (`docker run --detach` and `docker create` differ in that), nor the runtime, which is filled in by the start.
_ASKED = re.compile(
    r"""
    Config\.(?!AttachStd|StdinOnce).* | HostConfig\.(?!Runtime).* | Mounts\..*
    | NetworkSettings\.Networks\.[^.]+\.(IPAMConfig\..*|LinkLocalIPs|Links|DriverOpts\..*|Aliases)
    """,
    re.VERBOSE,
)
# Lists whose entries have a name in them, and maps that are sets.
_KEYS: Mapping[str, Callable[[Any], str]] = {
    "Config.Env": lambda entry: entry.partition("=")[0],
    "HostConfig.Binds": lambda entry: (entry.split(":") * 2)[1],
    "HostConfig.Mounts": lambda entry: entry["Target"],
    "Mounts": lambda entry: entry["Destination"],
}
_SETS = {"Config.Volumes", "Config.ExposedPorts"}
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")


def changes(before: Json, after: Json) -> Changes:
    """Give every field in which two containers differ, but for what each has anew."""
    return _differences(_flat(before), _flat(after))


def differs_from_new(new: Json, after: Json) -> Changes:
    """Give every field in which a container was made otherwise than one by the same command that never ran."""
    return _differences(_asked(new), _asked(after))


def _asked(container: Json) -> dict[str, Any]:
    """Leave out what only the start of a container brings, and the names of anonymous volumes."""
    flat = {path: value for path, value in _flat(container).items() if _ASKED.fullmatch(path)}
    if flat["HostConfig.NetworkMode"].startswith("container:"):
        flat.pop("Config.Hostname", None)  # the other's, once it runs
    # Older engines add these two to the aliases of a container that runs.
    added = {"<its own id>", container["Config"]["Hostname"]}
    for path, value in flat.items():
        if path.endswith(".Aliases"):
            flat[path] = [name for name in value if name not in added]
        elif isinstance(value, dict):
            flat[path] = {key: "<anonymous>" if _is_anonymous(item) else item for key, item in value.items()}
    return {path: value for path, value in flat.items() if value != []}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Changes:
    return {
        path: (old.get(path), new.get(path))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path) and not _OF_EACH.fullmatch(path)
    }


def _flat(container: Json) -> dict[str, Any]:
    """Write an inspect as one map from the path of a field to its value; null and empty are the same."""
    short = container["Id"][:12]
    flat = dict(_fields(container, ""))
    if flat.get("Config.Hostname") == short:
        flat["Config.Hostname"] = "<its own id>"
    for path, value in flat.items():
        if path.endswith((".Aliases", ".DNSNames")):
            flat[path] = sorted("<its own id>" if name == short else name for name in value)
        if path == "HostConfig.Links":
            flat[path] = sorted(link.replace(f":{container['Name']}/", ":<itself>/") for link in value)
    anonymous = {
        entry["Destination"]: entry["Name"] for entry in container["Mounts"] if _is_anonymous(entry.get("Name"))
    }
    for path in [path for path in flat if path.startswith(("HostConfig.Mounts.", "HostConfig.Binds."))]:
        _unname(flat, path, anonymous.get(path.split(".", 2)[2]))
    for place in anonymous:
        # What SELinux is told is written down only for those that are named.
        flat[f"Mounts.{place}"] = {key: value for key, value in flat[f"Mounts.{place}"].items() if key != "Mode"}
    return flat


def _fields(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if path in _KEYS:
        for entry in value or []:
            yield f"{path}.{_KEYS[path](entry)}", entry
    elif path in _SETS:
        yield from ((f"{path}.{key}", True) for key in value or {})
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _fields(child, f"{path}.{key}" if path else key)
    elif value not in (None, "", []):
        yield path, value


def _unname(flat: dict[str, Any], path: str, anonymous: str | None) -> None:
    """Leave out which anonymous volume is at a place: that is in the list of mounts, wherever it was asked for."""
    if anonymous is None:
        return
    if isinstance(flat[path], str):
        flat[path] = flat[path].removeprefix(f"{anonymous}:")
        return
    flat[path] = {key: value for key, value in flat[path].items() if (key, value) != ("Source", anonymous)}
    if flat[path].keys() <= {"Type", "Target"}:
        del flat[path]


def _is_anonymous(value: Any) -> bool:
    return isinstance(value, str) and bool(_ANONYMOUS.search(value))
