"""Any create request that an engine takes, for the image of `versions`, as the engine's own JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.integration.versions import SECOND
from tests.testbed.engine import OLD, Release

Json = dict[str, Any]
SUBNETS = {"one": "10.91.0.0/24", "two": "10.92.0.0/24"}
"""Networks that have to be there, with their subnets; containers: `peer` on all of them, `lender` with a volume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What makes a container.

    Attributes:
        body: for ``POST /containers/create``, but for the image.
        joins: endpoints of the networks that it is connected to afterwards, by name.
    """

    body: Json
    joins: Mapping[str, Json]


def some(**options: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """Draw any part of some options."""
    return st.fixed_dictionaries({}, optional=options)


def subsets(*values: Any, **limits: int) -> st.SearchStrategy[list[Any]]:
    """Draw some of these, in any order."""
    return st.lists(st.sampled_from(values), unique_by=repr, **limits)


ODD = st.sampled_from(["", "mine", "a=b", "{{.Name}} \"'$HOME", "é\n"])
ENVIRONMENT = st.dictionaries(st.sampled_from(["OWN", "VERSION", "ONLY_1", "ONLY_2"]), ODD).map(
    lambda env: [f"{name}={value}" for name, value in env.items()]
)
LABELS = st.dictionaries(st.sampled_from(["own", "only-1", "only-2", "with.dots and blanks"]), ODD)
COMMANDS = st.sampled_from(
    [
        {},
        {"Cmd": ["/serve", "mine"]},
        {"Entrypoint": ["/serve"]},
        {"Entrypoint": ["/enter", "mine"], "Cmd": ["/serve"]},
        {"Entrypoint": [""], "Cmd": ["/serve", "mine"]},
        {"Entrypoint": []},
        {"Entrypoint": [], "Cmd": ["/serve", "mine"]},
    ]
)
HEALTH = some(
    Test=st.sampled_from([["CMD", "/health", "mine"], ["CMD-SHELL", "/health mine || exit 1"], ["NONE"]]),
    Interval=st.just(SECOND // 5),
    Timeout=st.just(40 * SECOND),
    StartPeriod=st.just(3 * SECOND),
    Retries=st.just(9),
)
CONFIG = some(
    Env=ENVIRONMENT,
    Labels=LABELS,
    Healthcheck=HEALTH,
    User=st.sampled_from(["0", "1009", "web", "1009:1009"]),
    WorkingDir=st.sampled_from(["/", "/mine"]),
    Hostname=st.sampled_from(["mine", "mine.example.org"]),
    Domainname=st.just("example.org"),
    StopSignal=st.sampled_from(["KILL", "SIGTERM", "9"]),
    StopTimeout=st.sampled_from([0, 20, -1]),
    Tty=st.booleans(),
    OpenStdin=st.booleans(),
    StdinOnce=st.booleans(),
    AttachStdin=st.booleans(),
    AttachStdout=st.booleans(),
    AttachStderr=st.booleans(),
    Shell=st.just(["/bin/sh", "-ec"]),
    ExposedPorts=st.dictionaries(st.sampled_from(["99/tcp", "98/udp", "8102/udp"]), st.just({})),
    Volumes=st.dictionaries(st.sampled_from(["/v1", "/v2/", "/data", "/only-2"]), st.just({})),
)
BINDS = subsets("here:/b1", "there:/b2:ro", "/usr:/b3:ro", "/b4", "here:/data", "/only-2")
IN_MEMORY = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
MOUNTS = subsets(
    {"Type": "volume", "Target": "/m1"},
    {"Type": "volume", "Target": "/m2", "VolumeOptions": {"NoCopy": True, "Labels": {"a": "b"}}},
    {"Type": "volume", "Source": "here", "Target": "/m3", "ReadOnly": True},
    {"Type": "tmpfs", "Target": "/m4", "TmpfsOptions": {"SizeBytes": 65536, "Mode": 0o700}},
    {"Type": "bind", "Source": "/usr", "Target": "/m5", "ReadOnly": True, "BindOptions": {"NonRecursive": True}},
    {"Type": "bind", "Source": "/usr", "Target": "/m7", "BindOptions": {"Propagation": "private"}},
    {"Type": "volume", "Target": "/m6", "VolumeOptions": {"DriverConfig": {"Name": "local", "Options": IN_MEMORY}}},
    {"Type": "tmpfs", "Target": "/only-1"},
)
MOUNTS_SINCE_25 = subsets(
    {"Type": "bind", "Source": "/srv/made", "Target": "/n1", "BindOptions": {"CreateMountpoint": True}},
    {
        "Type": "bind",
        "Source": "/usr",
        "Target": "/n2",
        "ReadOnly": True,
        "BindOptions": {"ReadOnlyNonRecursive": True},
    },
)
# An engine takes one of the two ways to say it.
CPUS = st.one_of(
    some(NanoCpus=st.sampled_from([0, 1_500_000_000])),
    some(CpuPeriod=st.just(50_000), CpuQuota=st.sampled_from([25_000, -1])),
)
MEMORY = st.one_of(
    some(Memory=st.sampled_from([0, 256 << 20]), MemoryReservation=st.sampled_from([0, 64 << 20])),
    st.fixed_dictionaries({"Memory": st.just(256 << 20), "MemorySwap": st.sampled_from([-1, 256 << 20, 512 << 20])}),
)
RESTARTS = st.sampled_from(
    [
        {"Name": "no"},
        {"Name": "always"},
        {"Name": "unless-stopped"},
        {"Name": "on-failure"},
        {"Name": "on-failure", "MaximumRetryCount": 3},
    ]
)
LOGS = st.sampled_from(
    [
        {"Type": "none"},
        {"Type": "local"},
        {"Type": "json-file", "Config": {"max-size": "1m", "labels": "own"}},
        {"Type": "", "Config": {"max-file": "2"}},
    ]
)
HOST = some(
    Binds=BINDS,
    Mounts=MOUNTS,
    Tmpfs=st.dictionaries(st.sampled_from(["/t1", "/only-1"]), st.sampled_from(["", "size=64k,mode=1777"])),
    RestartPolicy=RESTARTS,
    LogConfig=LOGS,
    CapAdd=subsets("NET_ADMIN", "CAP_SYS_TIME"),
    CapDrop=subsets("MKNOD", "CAP_AUDIT_WRITE"),
    Ulimits=subsets(
        {"Name": "nofile", "Soft": 1000, "Hard": 2000},
        {"Name": "core", "Soft": 0, "Hard": -1},
    ),
    Dns=subsets("198.51.100.7", "198.51.100.8"),
    DnsOptions=subsets("ndots:3", "timeout:9"),
    DnsSearch=subsets("example.org", "."),
    ExtraHosts=subsets("db:198.51.100.9", "gate:host-gateway"),
    GroupAdd=subsets("1009", "web", "27"),
    Init=st.booleans(),
    ShmSize=st.sampled_from([0, 1 << 20]),
    IpcMode=st.sampled_from(["", "none", "private", "shareable", "host"]),
    PidMode=st.sampled_from(["", "host"]),
    CgroupnsMode=st.sampled_from(["", "host", "private"]),
    UsernsMode=st.sampled_from(["", "host"]),
    ReadonlyRootfs=st.booleans(),
    SecurityOpt=subsets("no-new-privileges", "seccomp=unconfined", "label=disable", "apparmor=unconfined"),
    MaskedPaths=st.sampled_from([[], ["/proc/kcore"]]),
    ReadonlyPaths=st.sampled_from([[], ["/proc/bus"]]),
    OomScoreAdj=st.sampled_from([0, 100]),
    OomKillDisable=st.just(False),
    MemorySwappiness=st.sampled_from([-1, 0, 60]),
    CpuShares=st.sampled_from([0, 512]),
    CpusetCpus=st.sampled_from(["", "0", "0-1"]),
    CpusetMems=st.sampled_from(["", "0"]),
    BlkioWeight=st.sampled_from([0, 300]),
    ConsoleSize=st.just([24, 80]),
    Privileged=st.booleans(),
    PidsLimit=st.sampled_from([0, -1, 500]),
    Devices=subsets(
        {"PathOnHost": "/dev/null", "PathInContainer": "/dev/mine", "CgroupPermissions": "r"},
        {"PathOnHost": "/dev/zero", "PathInContainer": "/dev/zero", "CgroupPermissions": "rwm"},
    ),
    DeviceCgroupRules=subsets("c 1:3 rwm", "b 8:* r"),
    Sysctls=st.sampled_from([{}, {"kernel.msgmax": "9000"}, {"net.ipv4.ip_forward": "1"}]),
    Runtime=st.sampled_from(["", "runc", "io.containerd.runc.v2"]),
    VolumesFrom=subsets("lender:ro"),
    VolumeDriver=st.sampled_from(["", "local"]),
    PublishAllPorts=st.booleans(),
)


def ports(number: int) -> st.SearchStrategy[Json]:
    """Draw what is published where; each number has other ports."""
    first = 18_200 + 20 * number
    bindings = [
        [{"HostIp": "127.0.0.1", "HostPort": f"{first}"}],
        [{"HostPort": f"{first + 1}"}, {"HostIp": "127.0.0.1", "HostPort": f"{first + 2}"}],
        [{"HostPort": ""}],
        [{"HostIp": "0.0.0.0", "HostPort": f"{first + 3}-{first + 9}"}],
    ]
    return st.dictionaries(
        st.sampled_from(["8080/tcp", "99/tcp", "8101/udp"]), st.sampled_from(bindings), min_size=1, max_size=2
    )


def endpoints(name: str, number: int, release: Release = OLD) -> st.SearchStrategy[Json]:
    """Draw what may be asked for on a network; each number has another address, and with newer engines another MAC."""
    own_mac = f"00:16:3e:{list(SUBNETS).index(name):02}:00:{number:02}"
    address = SUBNETS[name].replace("0/24", f"{100 + number}")
    both = {"IPv4Address": address, "LinkLocalIPs": [f"169.254.9.{100 + number}"]}
    return some(
        Aliases=subsets("mine", "other", min_size=1),
        IPAMConfig=st.sampled_from([{"IPv4Address": address}, both]),
        DriverOpts=st.just({"some.option": name}),
        Links=st.just(["peer:friend"]),
        **({} if release is OLD else {"MacAddress": st.just(own_mac)}),
    )


@st.composite
def requests(draw: st.DrawFn, *, release: Release, number: int = 0) -> Request:
    """Draw a request; those of different numbers can run side by side. An engine may still refuse a combination."""
    body = draw(COMMANDS) | draw(CONFIG)
    host = draw(HOST) | draw(CPUS) | draw(MEMORY)
    if not {"Hostname", "Domainname"} & body.keys():
        host |= draw(some(UTSMode=st.just("host")))
    modes = ["default", "bridge", *SUBNETS, "none", *(["host"] if number == 0 else [])]
    mode = draw(st.sampled_from(modes))
    if release is not OLD:
        host |= draw(some(Annotations=st.just({"a": "b"})))
        body["Healthcheck"] = body.get("Healthcheck", {}) | draw(some(StartInterval=st.just(SECOND // 5)))
        host["Mounts"] = host.get("Mounts", []) + draw(MOUNTS_SINCE_25)
    asked: Json = {}
    joins: Json = {}
    if mode not in ("none", "host"):
        body |= draw(some(MacAddress=st.just(f"02:42:0a:5b:00:{number:02}")))
        host |= draw(some(PortBindings=ports(number)))
        # An engine publishes what is exposed; the client exposes what it publishes.
        published: Json = {port: {} for port in host.get("PortBindings", {})}
        body["ExposedPorts"] = body.get("ExposedPorts", {}) | published
        further = draw(subsets(*(sorted(SUBNETS.keys() - {mode}))))
        joins = {name: draw(endpoints(name, number, release)) for name in further}
    if mode in SUBNETS:
        asked = {mode: draw(endpoints(mode, number))}
        if release is not OLD and draw(st.booleans()):  # which takes several at once
            asked, joins = asked | joins, {}
    if mode in ("default", "bridge"):
        host |= draw(some(Links=st.just(["peer:friend"])))
    body["HostConfig"] = host | {"NetworkMode": mode}
    body["NetworkingConfig"] = {"EndpointsConfig": asked}
    return Request(body=body, joins=joins)
