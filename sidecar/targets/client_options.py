"""What a create request says, as options of Docker's client: one table of Config, one of HostConfig.

What no option says is yielded as ``Unsaid``, never left out in silence; what is the client's own default is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import partial
from shlex import join
from typing import Any

from sidecar.targets.client_mounts import mounts_options
from sidecar.targets.client_words import (
    Option,
    Said,
    Unsaid,
    csv_list,
    each,
    nanoseconds,
    pairs,
    single,
    switch,
    unsaid,
)
from sidecar.targets.endpoints import Api, Json

_NANOS = 10**9


# --- Config ----------------------------------------------------------------------------------------------------------


def _environment(entries: Any) -> Said:
    for entry in entries or []:
        if "=" in entry:
            yield from ("--env", entry)
        else:  # the client would look for it in its own environment
            yield Unsaid("Config.Env", f"{entry} is taken away from what the image sets")


def _labels(labels: Any) -> Said:
    for key, value in (labels or {}).items():
        if not key or set(key) & set(" \t="):
            yield Unsaid("Config.Labels", f"{key!r}, a name that the client does not take")
        else:
            yield from ("--label", f"{key}={value}")


def _volumes(places: Any) -> Said:
    yield from each("--volume", sorted(places or {}))


def _stop_timeout(seconds: Any) -> Said:
    if seconds is not None:  # 0 is none at all
        yield from ("--stop-timeout", str(seconds))


_HEALTH: Mapping[str, Callable[[Any], Said]] = {
    "Interval": partial(nanoseconds, "--health-interval"),
    "Timeout": partial(nanoseconds, "--health-timeout"),
    "StartPeriod": partial(nanoseconds, "--health-start-period"),
    "StartInterval": partial(nanoseconds, "--health-start-interval"),
    "Retries": partial(single, "--health-retries"),
}


def _health_check(check: Any) -> Said:
    check = dict(check or {})
    test = check.pop("Test", None) or []
    if test == ["NONE"]:
        yield "--no-healthcheck"
        for key in check:  # which the client refuses beside it
            yield from unsaid(f"Config.Healthcheck.{key}", check[key])
        return
    if test and test[0] == "CMD-SHELL":
        yield from ("--health-cmd", " ".join(test[1:]))
    elif test:
        yield from ("--health-cmd", join(test[1:]))
        yield Unsaid("Config.Healthcheck.Test", "run without a shell; here it is given to one")
    for key, value in check.items():
        yield from _HEALTH.get(key, partial(unsaid, f"Config.Healthcheck.{key}"))(value)


CONFIG: Mapping[str, Option] = {
    "Hostname": partial(single, "--hostname"),
    "Domainname": partial(single, "--domainname"),
    "User": partial(single, "--user"),
    "Tty": partial(switch, "--tty"),
    "OpenStdin": partial(switch, "--interactive"),
    "Env": _environment,
    "Healthcheck": _health_check,
    "Volumes": _volumes,
    "WorkingDir": partial(single, "--workdir"),
    "MacAddress": partial(single, "--mac-address"),
    "Labels": _labels,
    "StopSignal": partial(single, "--stop-signal"),
    "StopTimeout": _stop_timeout,
}


# --- HostConfig ------------------------------------------------------------------------------------------------------


def _log_config(config: Any) -> Said:
    yield from single("--log-driver", (config or {}).get("Type"))
    yield from pairs("--log-opt", (config or {}).get("Config"))


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
            yield from each("--device", request.get("DeviceIDs"))
        elif len(capabilities) == 1 and "gpu" in capabilities[0] and not request.get("Options"):
            yield from ("--gpus", csv_list(_gpus(request, [name for name in capabilities[0] if name != "gpu"])))
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
        yield from single("--isolation", value)


def _tmpfs(places: Any) -> Said:
    yield from each("--tmpfs", [f"{place}:{options}".rstrip(":") for place, options in (places or {}).items()])


def _by_device(flag: str, key: str, values: Any) -> Said:
    yield from each(flag, [f"{value['Path']}:{value[key]}" for value in values or []])


def _console(size: Any) -> Said:
    if any(size or ()):
        yield Unsaid("HostConfig.ConsoleSize")


def host_options(api: Api) -> Mapping[str, Option]:
    """Give the table of HostConfig, for the client of an engine of a version."""
    return {**HOST, "Mounts": partial(mounts_options, api)}


HOST: Mapping[str, Option] = {
    "Binds": partial(each, "--volume"),
    "LogConfig": _log_config,
    "PortBindings": _ports,
    "RestartPolicy": _restart_policy,
    "AutoRemove": partial(switch, "--rm"),
    "VolumeDriver": partial(single, "--volume-driver"),
    "VolumesFrom": partial(each, "--volumes-from"),
    "ConsoleSize": _console,
    "Annotations": partial(pairs, "--annotation"),
    "CapAdd": partial(each, "--cap-add"),
    "CapDrop": partial(each, "--cap-drop"),
    "CgroupnsMode": partial(single, "--cgroupns"),
    "Dns": partial(each, "--dns"),
    "DnsOptions": partial(each, "--dns-option"),
    "DnsSearch": partial(each, "--dns-search"),
    "ExtraHosts": partial(each, "--add-host"),
    "GroupAdd": partial(each, "--group-add"),
    "IpcMode": partial(single, "--ipc"),
    "Links": _link,
    "OomScoreAdj": partial(single, "--oom-score-adj"),
    "PidMode": partial(single, "--pid"),
    "Privileged": partial(switch, "--privileged"),
    "PublishAllPorts": partial(switch, "--publish-all"),
    "ReadonlyRootfs": partial(switch, "--read-only"),
    "SecurityOpt": _security,
    "StorageOpt": partial(pairs, "--storage-opt"),
    "Tmpfs": _tmpfs,
    "UTSMode": partial(single, "--uts"),
    "UsernsMode": partial(single, "--userns"),
    "ShmSize": partial(single, "--shm-size"),
    "Sysctls": partial(pairs, "--sysctl"),
    "Runtime": partial(single, "--runtime"),
    "Isolation": _isolation,
    "CpuShares": partial(single, "--cpu-shares"),
    "Memory": partial(single, "--memory"),
    "NanoCpus": _cpus,
    "CgroupParent": partial(single, "--cgroup-parent"),
    "BlkioWeight": partial(single, "--blkio-weight"),
    "BlkioWeightDevice": partial(_by_device, "--blkio-weight-device", "Weight"),
    "BlkioDeviceReadBps": partial(_by_device, "--device-read-bps", "Rate"),
    "BlkioDeviceWriteBps": partial(_by_device, "--device-write-bps", "Rate"),
    "BlkioDeviceReadIOps": partial(_by_device, "--device-read-iops", "Rate"),
    "BlkioDeviceWriteIOps": partial(_by_device, "--device-write-iops", "Rate"),
    "CpuPeriod": partial(single, "--cpu-period"),
    "CpuQuota": partial(single, "--cpu-quota"),
    "CpuRealtimePeriod": partial(single, "--cpu-rt-period"),
    "CpuRealtimeRuntime": partial(single, "--cpu-rt-runtime"),
    "CpusetCpus": partial(single, "--cpuset-cpus"),
    "CpusetMems": partial(single, "--cpuset-mems"),
    "Devices": _devices,
    "DeviceCgroupRules": partial(each, "--device-cgroup-rule"),
    "DeviceRequests": _device_requests,
    "MemoryReservation": partial(single, "--memory-reservation"),
    "MemorySwap": partial(single, "--memory-swap"),
    "MemorySwappiness": _swappiness,
    "OomKillDisable": partial(switch, "--oom-kill-disable"),
    "PidsLimit": partial(single, "--pids-limit"),
    "Ulimits": _ulimits,
    "CpuCount": partial(single, "--cpu-count"),
    "CpuPercent": partial(single, "--cpu-percent"),
    "IOMaximumIOps": partial(single, "--io-maxiops"),
    "IOMaximumBandwidth": partial(single, "--io-maxbandwidth"),
    "Init": _initial,
}
