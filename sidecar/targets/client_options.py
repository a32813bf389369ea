"""What a create request says, as options of Docker's client: one table of Config, one of HostConfig.

What no option says is yielded as ``Unsaid``, never left out in silence; what is the client's own default is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from shlex import join
from typing import Any

from sidecar.targets.endpoints import MANY_AT_CREATE, Api, Json


@dataclass(frozen=True, slots=True)
class Unsaid:
    """What no option of the client says.

    Attributes:
        field: its place in the request.
        why: what is said instead, or what it takes; may be empty.
    """

    field: str
    why: str = ""


Said = Iterator[str | Unsaid]
_Option = Callable[[Any], Said]
_NANOS = 10**9
_RECURSIVE_SINCE = MANY_AT_CREATE  # the version of the engine whose client has `bind-recursive`


def is_default(value: object) -> bool:
    """Say whether a value asks for nothing, wherever it stands."""
    return value is None or value in ("", 0, False) or value in ([], {})


def pairs(flag: str, entries: Mapping[str, str]) -> Iterator[str]:
    """Say a map, an option for each entry."""
    for key, value in entries.items():
        yield from (flag, f"{key}={value}")


def csv_list(parts: Iterator[str]) -> str:
    """Write what the client reads as one line of comma-separated values."""
    return ",".join(f'"{part.replace(chr(34), chr(34) * 2)}"' if set(part) & set(',"\n') else part for part in parts)


def _flag(flag: str, value: Any) -> Said:
    if not is_default(value):
        yield flag


def _value(flag: str, value: Any) -> Said:
    if not is_default(value):
        yield from (flag, str(value))


def _each(flag: str, values: Any) -> Said:
    for value in values or []:
        yield from (flag, str(value))


def _pairs(flag: str, entries: Any) -> Said:
    yield from pairs(flag, entries or {})


def _nanos(flag: str, value: Any) -> Said:
    if not is_default(value):
        yield from (flag, f"{value}ns")


def _unsaid(field: str, value: Any) -> Said:
    if not is_default(value):
        yield Unsaid(field)


# --- Config ----------------------------------------------------------------------------------------------------------


def _environment(entries: Any) -> Said:
    for entry in entries or []:
        if "=" in entry:
            yield from ("--env", entry)
        else:  # the client would look for it in its own environment
            yield Unsaid("Config.Env", f"{entry} is taken away from what the image sets")


def _volumes(places: Any) -> Said:
    yield from _each("--volume", sorted(places or {}))


def _stop_timeout(seconds: Any) -> Said:
    if seconds is not None:  # 0 is none at all
        yield from ("--stop-timeout", str(seconds))


_HEALTH: Mapping[str, Callable[[Any], Said]] = {
    "Interval": partial(_nanos, "--health-interval"),
    "Timeout": partial(_nanos, "--health-timeout"),
    "StartPeriod": partial(_nanos, "--health-start-period"),
    "StartInterval": partial(_nanos, "--health-start-interval"),
    "Retries": partial(_value, "--health-retries"),
}


def _health_check(check: Any) -> Said:
    check = dict(check or {})
    test = check.pop("Test", None) or []
    if test == ["NONE"]:
        yield "--no-healthcheck"
        for key in check:  # which the client refuses beside it
            yield from _unsaid(f"Config.Healthcheck.{key}", check[key])
        return
    if test and test[0] == "CMD-SHELL":
        yield from ("--health-cmd", " ".join(test[1:]))
    elif test:
        yield from ("--health-cmd", join(test[1:]))
        yield Unsaid("Config.Healthcheck.Test", "run without a shell; here it is given to one")
    for key, value in check.items():
        yield from _HEALTH.get(key, partial(_unsaid, f"Config.Healthcheck.{key}"))(value)


CONFIG: Mapping[str, _Option] = {
    "Hostname": partial(_value, "--hostname"),
    "Domainname": partial(_value, "--domainname"),
    "User": partial(_value, "--user"),
    "Tty": partial(_flag, "--tty"),
    "OpenStdin": partial(_flag, "--interactive"),
    "Env": _environment,
    "Healthcheck": _health_check,
    "Volumes": _volumes,
    "WorkingDir": partial(_value, "--workdir"),
    "MacAddress": partial(_value, "--mac-address"),
    "Labels": partial(_pairs, "--label"),
    "StopSignal": partial(_value, "--stop-signal"),
    "StopTimeout": _stop_timeout,
}


# --- HostConfig ------------------------------------------------------------------------------------------------------


def _log_config(config: Any) -> Said:
    yield from _value("--log-driver", (config or {}).get("Type"))
    yield from _pairs("--log-opt", (config or {}).get("Config"))


def _ports(bindings: Any) -> Said:
    for port, places in (bindings or {}).items():
        for place in places or []:
            address, number = place.get("HostIp") or "", place.get("HostPort") or ""
            address = f"[{address}]" if ":" in address else address
            prefix = f"{address}:{number}:" if address else f"{number}:" if number else ""
            yield from ("--publish", prefix + port)


def _restart_policy(policy: Any) -> Said:
    name, count = (policy or {}).get("Name"), (policy or {}).get("MaximumRetryCount")
    if name not in (None, "", "no"):
        yield from ("--restart", f"{name}:{count}" if count else name)


def restart_word(policy: Mapping[str, Any]) -> str:
    """Give a restart policy as the client's `--restart` takes it."""
    return str([*_restart_policy(policy), "no"][:2][-1])


def _link(links: Any) -> Said:
    for link in links or []:
        # The engine shows both ends as it keeps them: `/db:/web/database`.
        of, _, alias = link.partition(":")
        yield from ("--link", ":".join(filter(None, (of.lstrip("/"), alias.rpartition("/")[2]))))


def _security(entries: Any) -> Said:
    for entry in entries or []:
        if entry.startswith(("seccomp={", "seccomp:{")):
            yield Unsaid("HostConfig.SecurityOpt", "its seccomp profile has to be in a file, for seccomp=FILE")
        else:
            yield from ("--security-opt", entry)


def security_of_paths(host: Json) -> Said:
    """Say what the engine hides and keeps from being written: by itself, or nothing; no option says which paths."""
    both = [host.get(key) for key in ("MaskedPaths", "ReadonlyPaths")]
    if both == [[], []]:
        yield from ("--security-opt", "systempaths=unconfined")
        return
    for key, paths in zip(("MaskedPaths", "ReadonlyPaths"), both, strict=True):
        if paths is not None:
            yield Unsaid(f"HostConfig.{key}")


def _devices(devices: Any) -> Said:
    for device in devices or []:
        parts = (device["PathOnHost"], device.get("PathInContainer"), device.get("CgroupPermissions"))
        yield from ("--device", ":".join(filter(None, parts)))


def _device_requests(requests: Any) -> Said:
    for request in requests or []:
        capabilities = request.get("Capabilities") or []
        if request.get("Driver") == "cdi":
            yield from _each("--device", request.get("DeviceIDs"))
        elif len(capabilities) == 1 and "gpu" in capabilities[0] and not request.get("Options"):
            yield from ("--gpus", csv_list(_gpus(request, [each for each in capabilities[0] if each != "gpu"])))
        else:
            yield Unsaid("HostConfig.DeviceRequests", str(capabilities))


def _gpus(request: Json, capabilities: list[str]) -> Iterator[str]:
    if request.get("Driver"):
        yield f"driver={request['Driver']}"
    if request.get("DeviceIDs"):
        yield f"device={','.join(request['DeviceIDs'])}"
    else:
        yield f"count={'all' if request.get('Count') == -1 else request.get('Count')}"
    if capabilities:
        yield f"capabilities={','.join(capabilities)}"


def _ulimits(limits: Any) -> Said:
    for limit in limits or []:
        yield from ("--ulimit", f"{limit['Name']}={limit['Soft']}:{limit['Hard']}")


def _cpus(nanos: Any) -> Said:
    if nanos:
        yield from ("--cpus", f"{(Decimal(nanos) / _NANOS).normalize():f}")


def _swappiness(value: Any) -> Said:
    if value not in (None, -1):  # 0 is to swap as little as possible
        yield from ("--memory-swappiness", str(value))


def _initial(value: Any) -> Said:
    if value is not None:
        yield "--init" if value else "--init=false"


def _isolation(value: Any) -> Said:
    if value != "default":
        yield from _value("--isolation", value)


def _tmpfs(places: Any) -> Said:
    yield from _each("--tmpfs", [f"{place}:{options}".rstrip(":") for place, options in (places or {}).items()])


def _by_device(flag: str, key: str, values: Any) -> Said:
    yield from _each(flag, [f"{value['Path']}:{value[key]}" for value in values or []])


def _console(size: Any) -> Said:
    if any(size or ()):
        yield Unsaid("HostConfig.ConsoleSize")


def host_options(api: Api) -> Mapping[str, _Option]:
    """Give the table of HostConfig, for the client of an engine of a version."""
    return {**HOST, "Mounts": partial(_mounts, api)}


HOST: Mapping[str, _Option] = {
    "Binds": partial(_each, "--volume"),
    "LogConfig": _log_config,
    "PortBindings": _ports,
    "RestartPolicy": _restart_policy,
    "AutoRemove": partial(_flag, "--rm"),
    "VolumeDriver": partial(_value, "--volume-driver"),
    "VolumesFrom": partial(_each, "--volumes-from"),
    "ConsoleSize": _console,
    "Annotations": partial(_pairs, "--annotation"),
    "CapAdd": partial(_each, "--cap-add"),
    "CapDrop": partial(_each, "--cap-drop"),
    "CgroupnsMode": partial(_value, "--cgroupns"),
    "Dns": partial(_each, "--dns"),
    "DnsOptions": partial(_each, "--dns-option"),
    "DnsSearch": partial(_each, "--dns-search"),
    "ExtraHosts": partial(_each, "--add-host"),
    "GroupAdd": partial(_each, "--group-add"),
    "IpcMode": partial(_value, "--ipc"),
    "Links": _link,
    "OomScoreAdj": partial(_value, "--oom-score-adj"),
    "PidMode": partial(_value, "--pid"),
    "Privileged": partial(_flag, "--privileged"),
    "PublishAllPorts": partial(_flag, "--publish-all"),
    "ReadonlyRootfs": partial(_flag, "--read-only"),
    "SecurityOpt": _security,
    "StorageOpt": partial(_pairs, "--storage-opt"),
    "Tmpfs": _tmpfs,
    "UTSMode": partial(_value, "--uts"),
    "UsernsMode": partial(_value, "--userns"),
    "ShmSize": partial(_value, "--shm-size"),
    "Sysctls": partial(_pairs, "--sysctl"),
    "Runtime": partial(_value, "--runtime"),
    "Isolation": _isolation,
    "CpuShares": partial(_value, "--cpu-shares"),
    "Memory": partial(_value, "--memory"),
    "NanoCpus": _cpus,
    "CgroupParent": partial(_value, "--cgroup-parent"),
    "BlkioWeight": partial(_value, "--blkio-weight"),
    "BlkioWeightDevice": partial(_by_device, "--blkio-weight-device", "Weight"),
    "BlkioDeviceReadBps": partial(_by_device, "--device-read-bps", "Rate"),
    "BlkioDeviceWriteBps": partial(_by_device, "--device-write-bps", "Rate"),
    "BlkioDeviceReadIOps": partial(_by_device, "--device-read-iops", "Rate"),
    "BlkioDeviceWriteIOps": partial(_by_device, "--device-write-iops", "Rate"),
    "CpuPeriod": partial(_value, "--cpu-period"),
    "CpuQuota": partial(_value, "--cpu-quota"),
    "CpuRealtimePeriod": partial(_value, "--cpu-rt-period"),
    "CpuRealtimeRuntime": partial(_value, "--cpu-rt-runtime"),
    "CpusetCpus": partial(_value, "--cpuset-cpus"),
    "CpusetMems": partial(_value, "--cpuset-mems"),
    "Devices": _devices,
    "DeviceCgroupRules": partial(_each, "--device-cgroup-rule"),
    "DeviceRequests": _device_requests,
    "MemoryReservation": partial(_value, "--memory-reservation"),
    "MemorySwap": partial(_value, "--memory-swap"),
    "MemorySwappiness": _swappiness,
    "OomKillDisable": partial(_flag, "--oom-kill-disable"),
    "PidsLimit": partial(_value, "--pids-limit"),
    "Ulimits": _ulimits,
    "CpuCount": partial(_value, "--cpu-count"),
    "CpuPercent": partial(_value, "--cpu-percent"),
    "IOMaximumIOps": partial(_value, "--io-maxiops"),
    "IOMaximumBandwidth": partial(_value, "--io-maxbandwidth"),
    "Init": _initial,
}


# --- mounts ----------------------------------------------------------------------------------------------------------


def _mounts(api: Api, mounts: Any) -> Said:
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
                yield from _unsaid(f"HostConfig.Mounts.{key}", value)


def _options(kind: str, table: Mapping[str, _Option], options: Json) -> Said:
    for key, value in options.items():
        yield from table.get(key, partial(_unsaid, f"HostConfig.Mounts.{kind}.{key}"))(value)


def _bind_options(api: Api, options: Json) -> Said:
    new = api >= _RECURSIVE_SINCE
    flags = {
        "NonRecursive": "bind-recursive=disabled" if new else "bind-nonrecursive=true",
        "ReadOnlyNonRecursive": "bind-recursive=writable",
        "ReadOnlyForceRecursive": "bind-recursive=readonly",
    }
    table = {key: partial(_flag, flag) for key, flag in flags.items()} | {
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


_VOLUME: Mapping[str, _Option] = {
    "NoCopy": partial(_flag, "volume-nocopy"),
    "Labels": partial(_parts, "volume-label"),
    "DriverConfig": _driver,
    "Subpath": partial(_part, "volume-subpath"),
}
_TMPFS: Mapping[str, _Option] = {"SizeBytes": partial(_part, "tmpfs-size"), "Mode": _mode}
_IMAGE: Mapping[str, _Option] = {"Subpath": partial(_part, "image-subpath")}
