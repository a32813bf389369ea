"""Podman's inspects in Docker's words, and what Podman's Docker-compatible API does not let us keep. Pure.

Podman answers like Docker, but shows what it filled in itself as if somebody had asked for it, refuses some of what it
shows, and hides some of what was asked for. Here the first two are undone, so that nothing else needs to know which of
the two is spoken with; the third is said: before an update where it is known, as a note where it only may be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from itertools import pairwise
from typing import Any

from sidecar.core.target import State, Target
from sidecar.targets.containers import parse_time, state_of
from sidecar.targets.dependents import dependents_of
from sidecar.targets.endpoints import PODMAN_KEY, networks, short_id

Json = dict[str, Any]

NATIVE_PATH = "/v4.0.0/libpod"
"""Before the paths of Podman's own API, on the same socket; each later version answers to it."""
KEPT_AS_IN: tuple[int, int] = (1, 43)
"""It says that it speaks 1.41, and keeps what Docker keeps since this version: annotations."""

_DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEFAULT_SIGNAL = "15"
# Those that images and people ask for; any other one is compared as it is written.
_SIGNALS = {
    "HUP": "1",
    "INT": "2",
    "QUIT": "3",
    "ABRT": "6",
    "KILL": "9",
    "USR1": "10",
    "USR2": "12",
    "TERM": "15",
    "WINCH": "28",
    "RTMIN+3": "37",
}
_STATES = {"configured": "created", "initialized": "created", "stopping": "running"}
_FILES_OF_ITS_OWN = ("/etc/passwd", "/etc/group")
_OWN_ANNOTATIONS = (
    "io.container.manager",
    "io.kubernetes.cri-o.",
    "io.podman.annotations.",
    "org.opencontainers.image.",
    "org.systemd.property.",
)
# On the default network hardly anybody asks for an address, and on the others nobody can.
_WITHOUT_WISHES = frozenset({"podman", "host", "none", "pasta", "slirp4netns"})
# Out of which Podman takes a network for whom nobody chose one: `default_subnet_pools`.
_POOLS = tuple(
    map(IPv4Network, ("10.88.0.0/16", "10.89.0.0/16", "10.90.0.0/15", "10.92.0.0/14", "10.96.0.0/11", "10.128.0.0/9"))
)
_CHECK_DEFAULTS = {"Interval": 30_000_000_000, "Timeout": 30_000_000_000, "Retries": 3}
_ANONYMOUS = re.compile(r"[0-9a-f]{64}:")
_CPU_PERIOD = 100_000
_NANO = 1_000_000_000
# What its native API says and the other does not.
_NATIVE = ("Pod", "Dependencies", "OCIRuntime", "Rootfs")
_NATIVE_CONFIG = (
    "CreateCommand",
    "Secrets",
    "HealthcheckOnFailureAction",
    "StartupHealthCheck",
    "SystemdMode",
    "Timeout",
)

# Of `podman run`: what neither of its inspects shows any more, though the command that it keeps does.
_HIDDEN_OPTIONS = frozenset(
    {
        "--blkio-weight",
        "--blkio-weight-device",
        "--cgroup-conf",
        "--cgroupns",
        "--chrootdirs",
        "--device-cgroup-rule",
        "--gidmap",
        "--group-entry",
        "--hosts-file",
        "--image-volume",
        "--init-path",
        "--ip",
        "--ip6",
        "--mac-address",
        "--passwd-entry",
        "--personality",
        "--rdt-class",
        "--requires",
        "--sdnotify",
        "--seccomp-policy",
        "--shm-size-systemd",
        "--subgidname",
        "--subuidname",
        "--sysctl",
        "--tz",
        "--uidmap",
        "--umask",
        "--userns",
    }
)


def is_podman(version: Json) -> bool:
    """Say whether an engine's answer to ``GET /version`` is Podman's."""
    return any(component.get("Name") == "Podman Engine" for component in version.get("Components") or [])


def filters(wanted: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Give the filters of a list in Podman's words: an image's id has no prefix, and nothing is ever dead."""
    found = {key: list(values) for key, values in wanted.items()}
    if "ancestor" in found:
        found["ancestor"] = [value.removeprefix("sha256:") for value in found["ancestor"]]
    if "status" in found:
        found["status"] = [value for value in found["status"] if value != "dead"]
    return found


def hold_local(targets: Iterable[Target]) -> list[Target]:
    """Hold those whose image no registry can have a newer one of: Podman calls by `localhost/` what it built itself."""
    return [
        replace(target, refusal=f"{target.ref.familiar} was built on this machine, as `localhost/` says; push it")
        if target.ref.registry == "localhost" and not target.refusal
        else target
        for target in targets
    ]


# --- inspects in Docker's words --------------------------------------------------------------------------------------


def container_of(shown: Json, native: Json) -> Json:
    """Give an inspected container as Docker would show it.

    Args:
        shown: by the Docker-compatible API.
        native: the same one by Podman's own.
    """
    host, settings = dict(shown["HostConfig"]), dict(shown.get("NetworkSettings") or {})
    kept = {key: native.get(key) for key in _NATIVE if native.get(key)}
    kept |= {key: native["Config"].get(key) for key in _NATIVE_CONFIG if native["Config"].get(key)}
    kept["OwnUserNamespace"] = bool(native["HostConfig"].get("IDMappings"))
    config = dict(shown["Config"])
    container = shown | {"Config": config, "HostConfig": host, "NetworkSettings": settings, PODMAN_KEY: kept}
    container["State"] = shown["State"] | {"Status": _status(shown)}
    host |= _host_config(host, native)
    settings["Networks"] = {} if _is_in_other_network(host) else dict(_networks(container))
    config["Env"] = [entry for entry in config.get("Env") or [] if entry not in _filled_in(container)]
    config["StopSignal"] = _signal(config.get("StopSignal"))
    return container


def image_of(shown: Json, native: Json) -> Json:
    """Give an inspected image with what Podman fills in where it says nothing, as its containers show it."""
    config = dict(shown.get("Config") or {})
    if check := native.get("Healthcheck"):
        config["Healthcheck"] = _CHECK_DEFAULTS | {key: value for key, value in check.items() if value}
    config["StopSignal"] = _signal(config.get("StopSignal"))
    config["WorkingDir"] = config.get("WorkingDir") or "/"
    if not any(entry.startswith("PATH=") for entry in config.get("Env") or []):
        config["Env"] = [*(config.get("Env") or []), _DEFAULT_PATH]
    # Once its tag names another image, an image is not shown with the digest any more that it was pulled by.
    known = set(shown.get("RepoDigests") or [])
    if digest := native.get("Digest"):
        known |= {f"{_repository(name)}@{digest}" for name in native.get("NamesHistory") or []}
    return shown | {"Config": config, "RepoDigests": sorted(known)}


def _repository(name: str) -> str:
    """Give a reference without tag and digest; a colon before the last slash is a port's."""
    path, slash, last = name.partition("@")[0].rpartition("/")
    return path + slash + last.partition(":")[0]


def _status(shown: Json) -> str:
    """Give the state by Docker's words; between an end and the restart that its policy wants, Podman says "stopped"."""
    status = str(shown["State"].get("Status"))
    if status != "stopped":
        return _STATES.get(status, status)
    policy = shown["HostConfig"].get("RestartPolicy") or {}
    if policy.get("Name") == "on-failure":
        most = policy.get("MaximumRetryCount") or 0
        is_left = not most or (shown.get("RestartCount") or 0) < most
        return "restarting" if shown["State"].get("ExitCode") and is_left else "exited"
    return "restarting" if policy.get("Name") in ("always", "unless-stopped") else "exited"


def _signal(text: str | None) -> str:
    """Give a signal by its number, as a container shows it."""
    name = str(text or _DEFAULT_SIGNAL).upper().removeprefix("SIG")
    return _SIGNALS.get(name, name)


def _filled_in(container: Json) -> Iterator[str]:
    """Give the variables that Podman sets in every container where nobody else does."""
    config = container["Config"]
    yield "container=podman"
    yield f"HOSTNAME={config.get('Hostname')}"
    if _is_in_other_network(container["HostConfig"]):  # the other's
        yield from (entry for entry in config.get("Env") or [] if entry.startswith("HOSTNAME="))
    if config.get("Tty"):
        yield "TERM=xterm"
    # From the image's own list of users. One that was set to the same is set to the same again.
    user = (config.get("User") or "root").partition(":")[0]
    yield from ("HOME=/", "HOME=/root", f"HOME=/home/{user}")


def _host_config(host: Json, native: Json) -> Json:
    """Give what has to be written otherwise to be taken again, or to be seen as what nobody asked for."""
    found: Json = {
        "Annotations": {k: v for k, v in (host.get("Annotations") or {}).items() if not k.startswith(_OWN_ANNOTATIONS)},
        # An inspect says "oci" for any of them.
        "Runtime": native.get("OCIRuntime") or "",
        # Not asked for; and where control groups are of the second version no number is taken.
        "MemorySwappiness": host.get("MemorySwappiness") or -1,
        "Ulimits": [
            each | {"Name": each["Name"].removeprefix("RLIMIT_").lower()} for each in host.get("Ulimits") or []
        ],
        "Devices": [
            each | {"CgroupPermissions": each.get("CgroupPermissions") or "rwm"} for each in host.get("Devices") or []
        ],
    }
    if size := (native["HostConfig"].get("LogConfig") or {}).get("Size"):
        log = host.get("LogConfig") or {}
        found["LogConfig"] = log | {"Config": (log.get("Config") or {}) | {"max-size": size}}
    if not host.get("VolumesFrom"):
        # These are listed as if they had been asked for by their name.
        found["Binds"] = [bind for bind in host.get("Binds") or [] if not _ANONYMOUS.match(bind)]
    return found | _processor_time(host)


def _processor_time(host: Json) -> Json:
    """Give one of the two ways to say the same: both are shown, and both together are refused."""
    period, quota, nano = host.get("CpuPeriod") or 0, host.get("CpuQuota") or 0, host.get("NanoCpus") or 0
    if not (nano and quota):
        return {}
    is_plain = period == _CPU_PERIOD and quota * (_NANO // _CPU_PERIOD) == nano
    return {"CpuPeriod": 0, "CpuQuota": 0} if is_plain else {"NanoCpus": 0}


def _is_in_other_network(host: Json) -> bool:
    return str(host.get("NetworkMode") or "").startswith("container:")


def _networks(container: Json) -> Iterator[tuple[str, Json]]:
    """Give each endpoint with the address that it has to keep, and without the aliases that come by themselves."""
    own = {short_id(container), container["Config"].get("Hostname")}
    for name, endpoint in networks(container).items():
        shown = endpoint or {}
        aliases = [alias for alias in shown.get("Aliases") or [] if alias not in own]
        asked = {"IPv4Address": shown["IPAddress"]} if _is_in_chosen_subnet(shown) else None
        yield name, shown | {"Aliases": aliases, "IPAMConfig": shown.get("IPAMConfig") or asked}


def _is_in_chosen_subnet(endpoint: Json) -> bool:
    """Say whether somebody chose the subnet that an endpoint is in: an address may then have been asked for."""
    if not endpoint.get("IPAddress"):
        return False
    subnet = IPv4Network(f"{endpoint['IPAddress']}/{endpoint['IPPrefixLen']}", strict=False)
    return not any(subnet.subnet_of(pool) for pool in _POOLS)


# --- what cannot be kept ---------------------------------------------------------------------------------------------


def unsupported(container: Json) -> Iterator[str]:
    """Say what this container has that Podman's Docker-compatible API cannot give to another one."""
    kept, labels = container.get(PODMAN_KEY) or {}, container["Config"].get("Labels") or {}
    if unit := labels.get("PODMAN_SYSTEMD_UNIT"):
        yield f"it belongs to the systemd unit {unit}, which would start its own again: `podman auto-update` updates it"
    if kept and container["HostConfig"].get("AutoRemove"):
        yield "it was made with --rm, which was not tried with Podman"
    if kept.get("Pod"):
        yield f"it is in the pod {kept['Pod'][:12]}, and a new one would be outside of it"
    if kept.get("Rootfs"):
        yield "it runs a folder and no image"
    if kept.get("Secrets"):
        names = ", ".join(str(secret.get("Name")) for secret in kept["Secrets"])
        yield f"it has secrets of Podman ({names}), which only `podman run` can give to a new one"
    if kept.get("HealthcheckOnFailureAction", "none") != "none":
        yield f"it has --health-on-failure={kept['HealthcheckOnFailureAction']}, which only `podman run` knows"
    if kept.get("StartupHealthCheck"):
        yield "it has a health check for its start, which only `podman run` knows"
    if kept.get("Timeout"):
        yield f"it has --timeout={kept['Timeout']}, which only `podman run` knows"
    if kept.get("OwnUserNamespace"):
        yield "it has a user namespace of its own, which Podman's Docker-compatible API does not know"
    if hidden := sorted(set(_hidden(kept.get("CreateCommand") or []))):
        yield f"it was made with {', '.join(hidden)}, which Podman does not show and a new one would not have"


def unwatched(container: Json, *, now: float) -> str | None:
    """Say why nobody could tell whether a new container is healthy: the checks of the one that runs never ran.

    Podman leaves it to systemd to run them. Where there is none, nobody does, and says nothing.
    """
    check, health = container["Config"].get("Healthcheck") or {}, container["State"].get("Health") or {}
    is_checked = (check.get("Test") or ["NONE"])[0] != "NONE" and check.get("Interval")
    if PODMAN_KEY not in container or state_of(container) is not State.RUNNING or not is_checked or health.get("Log"):
        return None
    due = sum(check.get(key) or 0 for key in ("StartPeriod", "Interval", "Timeout")) / _NANO
    if now - (parse_time(container["State"].get("StartedAt")) or now) <= due:
        return None
    return (
        "its health check has not run once since it was started, so a new one could not pass its gate: Podman has "
        "systemd run these, which is not there; take the check away, or let a timer call `podman healthcheck run`"
    )


def notes(container: Json) -> Iterator[str]:
    """Say what may be different in the new container, for Podman does not tell whether it was asked for."""
    if PODMAN_KEY not in container:
        return
    for name, endpoint in networks(container).items():
        if name in _WITHOUT_WISHES:
            continue
        kept = (endpoint.get("IPAMConfig") or {}).get("IPv4Address")
        shown = [endpoint.get(key) for key in ("IPAddress", "GlobalIPv6Address")]
        addresses = " and ".join(address for address in shown if address and address != kept)
        if addresses or not any(shown):
            what = f"its address {addresses}" if addresses else "the address that it has while it runs"
            yield f"{what} on {name} was chosen by Podman or asked for, which Podman does not tell; it gets another one"


def changes(found: Iterable[Json]) -> list[Json]:
    """Leave out of a layer's changes the two files in which Podman itself enters a container's user."""
    left = [change for change in found if change["Path"] not in _FILES_OF_ITS_OWN]
    is_else = any(change["Path"].startswith("/etc/") for change in left)
    return [change for change in left if is_else or change["Path"] != "/etc"]


def holders(container: Json, others: Iterable[Json]) -> list[str]:
    """Name the containers that have something of this one, or that require it: Podman does not let go of it."""
    found = list(others)
    requiring = [
        other for other in found if container["Id"] in ((other.get(PODMAN_KEY) or {}).get("Dependencies") or ())
    ]
    return sorted({other["Name"].lstrip("/") for other in (*requiring, *dependents_of(container, found))})


def _hidden(command: Iterable[str]) -> Iterator[str]:
    for word, following in pairwise([*command, ""]):
        option, equals, text = word.partition("=")
        value = text if equals else following
        if option in _HIDDEN_OPTIONS:
            yield option
        if option in ("--network", "--net") and _has_options(value):
            yield f"options of {option}"
        if option == "--device" and value.count(":") > 1:
            yield option


def _has_options(network: str) -> bool:
    """Say whether more than aliases was asked for on a network: addresses, or what pasta is to do."""
    name, _, options = network.partition(":")
    return name not in ("container", "ns") and any(not each.startswith("alias=") for each in options.split(",") if each)
