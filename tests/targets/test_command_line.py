"""A create request as commands of Docker's client: every field of it is said, or a default, or named."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from sidecar.targets.client_options import restart_word
from sidecar.targets.client_words import Unsaid
from sidecar.targets.command_line import command_line, quoted
from sidecar.targets.spec import Connect, CreateRequest

OLD, NEW = (1, 41), (1, 45)


def requested(config=None, host=None, endpoints=None, connects=(), platform=None):
    body = {"Image": "app:1"} | (config or {})
    body |= {"HostConfig": host or {}, "NetworkingConfig": {"EndpointsConfig": endpoints or {}}}
    return CreateRequest(
        body=body, platform=platform, connects=tuple(Connect(network=n, endpoint=e) for n, e in connects)
    )


def said(config=None, host=None, *, api=NEW, **other):
    """Give what stands between the name and the image, and the fields that are named."""
    line = command_line(requested(config, host, **other), "web", api=api)
    words = line.commands[0]
    assert words[:5] == ("docker", "run", "--detach", "--name", "web")
    return " ".join(words[5 : words.index("app:1")]), [each.field for each in line.unsaid]


# Every field of the body of `POST /containers/create`, by the engine's own description of it, API 1.41 to 1.51.
CONFIG_FIELDS = [
    ("Hostname", "host-1", "--hostname host-1"),
    ("Domainname", "example.org", "--domainname example.org"),
    ("User", "1:2", "--user 1:2"),
    ("ExposedPorts", {"99/tcp": {}}, "--expose 99/tcp"),
    ("Tty", True, "--tty"),
    ("OpenStdin", True, "--interactive"),
    ("Env", ["A=b=c", "EMPTY="], "--env A=b=c --env EMPTY="),
    ("Env", ["GONE"], Unsaid("Config.Env")),
    ("Healthcheck", {"Test": ["CMD-SHELL", "ok || exit"]}, "--health-cmd ok || exit"),
    ("Healthcheck", {"Test": ["CMD", "/ok", "a b"]}, Unsaid("Config.Healthcheck.Test")),
    ("Healthcheck", {"Test": ["NONE"]}, "--no-healthcheck"),
    ("Healthcheck", {"Test": ["NONE"], "Retries": 3}, Unsaid("Config.Healthcheck.Retries")),
    ("Healthcheck", {"Interval": 5, "Timeout": 6}, "--health-interval 5ns --health-timeout 6ns"),
    ("Healthcheck", {"StartPeriod": 5, "StartInterval": 6}, "--health-start-period 5ns --health-start-interval 6ns"),
    ("Healthcheck", {"Retries": 3, "Interval": 0}, "--health-retries 3"),
    ("Healthcheck", {"Novelty": 1}, Unsaid("Config.Healthcheck.Novelty")),
    ("ArgsEscaped", True, Unsaid("Config.ArgsEscaped")),
    ("Volumes", {"/v": {}}, "--volume /v"),
    ("WorkingDir", "/place", "--workdir /place"),
    ("Entrypoint", ["/enter"], "--entrypoint /enter"),
    ("NetworkDisabled", True, Unsaid("Config.NetworkDisabled")),
    ("MacAddress", "02:42:0a:00:00:01", "--mac-address 02:42:0a:00:00:01"),
    ("OnBuild", ["RUN x"], Unsaid("Config.OnBuild")),
    ("Labels", {"a": "b", "empty": ""}, "--label a=b --label empty="),
    ("StopSignal", "SIGUSR1", "--stop-signal SIGUSR1"),
    ("StopTimeout", 0, "--stop-timeout 0"),
    ("Shell", ["/bin/bash"], Unsaid("Config.Shell")),
    ("StdinOnce", True, Unsaid("Config.StdinOnce")),
    ("Novelty", 1, Unsaid("Config.Novelty")),
]

RATE = [{"Path": "/dev/sda", "Rate": 5}]
HOST_FIELDS = [
    ("CpuShares", 5, "--cpu-shares 5"),
    ("Memory", 5, "--memory 5"),
    ("CgroupParent", "/p", "--cgroup-parent /p"),
    ("BlkioWeight", 5, "--blkio-weight 5"),
    ("BlkioWeightDevice", [{"Path": "/dev/sda", "Weight": 5}], "--blkio-weight-device /dev/sda:5"),
    ("BlkioDeviceReadBps", RATE, "--device-read-bps /dev/sda:5"),
    ("BlkioDeviceWriteBps", RATE, "--device-write-bps /dev/sda:5"),
    ("BlkioDeviceReadIOps", RATE, "--device-read-iops /dev/sda:5"),
    ("BlkioDeviceWriteIOps", RATE, "--device-write-iops /dev/sda:5"),
    ("CpuPeriod", 5, "--cpu-period 5"),
    ("CpuQuota", -1, "--cpu-quota -1"),
    ("CpuRealtimePeriod", 5, "--cpu-rt-period 5"),
    ("CpuRealtimeRuntime", 5, "--cpu-rt-runtime 5"),
    ("CpusetCpus", "0-1", "--cpuset-cpus 0-1"),
    ("CpusetMems", "0", "--cpuset-mems 0"),
    ("Devices", [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}], None),
    ("DeviceCgroupRules", ["c 1:3 r"], "--device-cgroup-rule c 1:3 r"),
    ("DeviceRequests", [{"Count": -1, "Capabilities": [["gpu"]]}], "--gpus count=all"),
    ("DeviceRequests", [{"Count": 2, "Capabilities": [["gpu", "utility"]]}], "--gpus count=2,capabilities=utility"),
    (
        "DeviceRequests",
        [{"Driver": "nvidia", "DeviceIDs": ["0", "1"], "Capabilities": [["gpu"]]}],
        '--gpus driver=nvidia,"device=0,1"',
    ),
    ("DeviceRequests", [{"Driver": "cdi", "DeviceIDs": ["vendor.com/gpu=0"]}], "--device vendor.com/gpu=0"),
    ("DeviceRequests", [{"Capabilities": [["tpu"]]}], Unsaid("HostConfig.DeviceRequests")),
    ("KernelMemory", 5, Unsaid("HostConfig.KernelMemory")),
    ("KernelMemoryTCP", 5, Unsaid("HostConfig.KernelMemoryTCP")),
    ("MemoryReservation", 5, "--memory-reservation 5"),
    ("MemorySwap", -1, "--memory-swap -1"),
    ("MemorySwappiness", 0, "--memory-swappiness 0"),
    ("MemorySwappiness", -1, ""),
    ("NanoCpus", 1_500_000_000, "--cpus 1.5"),
    ("NanoCpus", 20_000_000_000, "--cpus 20"),
    ("NanoCpus", 0, ""),
    ("OomKillDisable", True, "--oom-kill-disable"),
    ("Init", True, "--init"),
    ("Init", False, "--init=false"),
    ("PidsLimit", 5, "--pids-limit 5"),
    ("Ulimits", [{"Name": "core", "Soft": 0, "Hard": -1}], "--ulimit core=0:-1"),
    ("CpuCount", 5, "--cpu-count 5"),
    ("CpuPercent", 5, "--cpu-percent 5"),
    ("IOMaximumIOps", 5, "--io-maxiops 5"),
    ("IOMaximumBandwidth", 5, "--io-maxbandwidth 5"),
    ("Binds", ["data:/data:ro"], "--volume data:/data:ro"),
    ("ContainerIDFile", "/id", Unsaid("HostConfig.ContainerIDFile")),
    ("LogConfig", {"Type": "local", "Config": {"max-file": "2"}}, "--log-driver local --log-opt max-file=2"),
    ("NetworkMode", "host", "--network host"),
    ("PortBindings", {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}, "--publish 8080:80/tcp"),
    ("PortBindings", {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}, "--publish 127.0.0.1::80/tcp"),
    ("PortBindings", {"80/udp": [{"HostIp": "::1", "HostPort": "1-9"}]}, "--publish [::1]:1-9:80/udp"),
    ("PortBindings", {"80/tcp": [{"HostPort": ""}], "81/tcp": None}, "--publish 80/tcp"),
    ("RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}, "--restart on-failure:3"),
    ("RestartPolicy", {"Name": "always", "MaximumRetryCount": 0}, "--restart always"),
    ("RestartPolicy", {"Name": "no"}, ""),
    ("AutoRemove", True, "--rm"),
    ("VolumeDriver", "local", "--volume-driver local"),
    ("VolumesFrom", ["other:ro"], "--volumes-from other:ro"),
    ("ConsoleSize", [24, 80], Unsaid("HostConfig.ConsoleSize")),
    ("ConsoleSize", [0, 0], ""),
    ("Annotations", {"a": "b"}, "--annotation a=b"),
    ("CapAdd", ["NET_ADMIN"], "--cap-add NET_ADMIN"),
    ("CapDrop", ["ALL"], "--cap-drop ALL"),
    ("CgroupnsMode", "host", "--cgroupns host"),
    ("Dns", ["198.51.100.7"], "--dns 198.51.100.7"),
    ("DnsOptions", ["ndots:3"], "--dns-option ndots:3"),
    ("DnsSearch", ["."], "--dns-search ."),
    ("ExtraHosts", ["db:198.51.100.9"], "--add-host db:198.51.100.9"),
    ("GroupAdd", ["27"], "--group-add 27"),
    ("IpcMode", "shareable", "--ipc shareable"),
    ("Cgroup", "c", Unsaid("HostConfig.Cgroup")),
    ("Links", ["/db:/web/database", "peer"], "--link db:database --link peer"),
    ("OomScoreAdj", 5, "--oom-score-adj 5"),
    ("PidMode", "host", "--pid host"),
    ("Privileged", True, "--privileged"),
    ("PublishAllPorts", True, "--publish-all"),
    ("ReadonlyRootfs", True, "--read-only"),
    ("SecurityOpt", ["label=disable"], "--security-opt label=disable"),
    ("SecurityOpt", ['seccomp={"a": 1}'], Unsaid("HostConfig.SecurityOpt")),
    ("StorageOpt", {"size": "1G"}, "--storage-opt size=1G"),
    ("Tmpfs", {"/t": "size=1m", "/u": ""}, "--tmpfs /t:size=1m --tmpfs /u"),
    ("UTSMode", "host", "--uts host"),
    ("UsernsMode", "host", "--userns host"),
    ("ShmSize", 5, "--shm-size 5"),
    ("Sysctls", {"a": "1"}, "--sysctl a=1"),
    ("Runtime", "runc", "--runtime runc"),
    ("Isolation", "hyperv", "--isolation hyperv"),
    ("Isolation", "default", ""),
    ("MaskedPaths", ["/proc/kcore"], Unsaid("HostConfig.MaskedPaths")),
    ("ReadonlyPaths", ["/proc/bus"], Unsaid("HostConfig.ReadonlyPaths")),
    ("Novelty", {"a": 1}, Unsaid("HostConfig.Novelty")),
]


@pytest.mark.parametrize("field, value, words", CONFIG_FIELDS)
def test_every_field_of_the_configuration_is_said_or_named(field, value, words):
    """Each field is an option of the client, or it is named; one that asks for nothing is neither."""
    found, named = said({field: value})
    assert named == [words.field] if isinstance(words, Unsaid) else (found, named) == (words, [])
    assert said({field: None}) == ("", [])


@pytest.mark.parametrize("field, value, words", HOST_FIELDS)
def test_every_field_of_the_host_s_side_is_said_or_named(field, value, words):
    """Each field is an option of the client, or it is named; one that asks for nothing is neither."""
    found, named = said(host={field: value})
    words = "--device /dev/a:/dev/b:r" if words is None else words
    assert named == [words.field] if isinstance(words, Unsaid) else (found, named) == (words, [])
    assert said(host={field: None}) == ("", [])


BIND = {"Type": "bind", "Source": "/a", "Target": "/b"}
VOLUME = {"Type": "volume", "Target": "/b"}


@pytest.mark.parametrize(
    "api, mount, words",
    [
        (NEW, BIND | {"ReadOnly": True}, "type=bind,source=/a,target=/b,readonly"),
        (NEW, BIND | {"Consistency": "cached"}, "type=bind,source=/a,target=/b,consistency=cached"),
        (
            NEW,
            BIND | {"BindOptions": {"Propagation": "rslave"}},
            "type=bind,source=/a,target=/b,bind-propagation=rslave",
        ),
        (OLD, BIND | {"BindOptions": {"NonRecursive": True}}, "type=bind,source=/a,target=/b,bind-nonrecursive=true"),
        (NEW, BIND | {"BindOptions": {"NonRecursive": True}}, "type=bind,source=/a,target=/b,bind-recursive=disabled"),
        (
            NEW,
            BIND | {"BindOptions": {"ReadOnlyNonRecursive": True, "ReadOnlyForceRecursive": False}},
            "type=bind,source=/a,target=/b,bind-recursive=writable",
        ),
        (
            NEW,
            BIND | {"BindOptions": {"CreateMountpoint": True}},
            Unsaid("HostConfig.Mounts.BindOptions.CreateMountpoint"),
        ),
        (
            NEW,
            VOLUME | {"VolumeOptions": {"NoCopy": True, "Labels": {"a": "b"}, "Subpath": "c"}},
            "type=volume,target=/b,volume-nocopy,volume-label=a=b,volume-subpath=c",
        ),
        (
            NEW,
            VOLUME | {"VolumeOptions": {"DriverConfig": {"Name": "local", "Options": {"o": 'size=1m,"x"'}}}},
            'type=volume,target=/b,volume-driver=local,"volume-opt=o=size=1m,""x"""',
        ),
        (NEW, VOLUME | {"VolumeOptions": None}, "type=volume,target=/b"),
        (
            NEW,
            {"Type": "tmpfs", "Target": "/b", "TmpfsOptions": {"SizeBytes": 5, "Mode": 0o700}},
            "type=tmpfs,target=/b,tmpfs-size=5,tmpfs-mode=700",
        ),
        (NEW, {"Type": "tmpfs", "Target": "/b", "TmpfsOptions": {"Mode": 0, "SizeBytes": 0}}, "type=tmpfs,target=/b"),
        (
            NEW,
            {"Type": "image", "Source": "i", "Target": "/b", "ImageOptions": {"Subpath": "c"}},
            "type=image,source=i,target=/b,image-subpath=c",
        ),
        (NEW, VOLUME | {"ClusterOptions": {"a": 1}}, Unsaid("HostConfig.Mounts.ClusterOptions")),
        (NEW, VOLUME | {"Source": "", "ReadOnly": False}, "type=volume,target=/b"),
    ],
)
def test_every_option_of_a_mount_is_said_or_named(api, mount, words):
    """A mount is one word of comma-separated values; what it cannot hold is named."""
    found, named = said(host={"Mounts": [mount]}, api=api)
    assert named == [words.field] if isinstance(words, Unsaid) else (found, named) == (f"--mount {words}", [])


@pytest.mark.parametrize("name", ["a b", "a\tb", "", "a=b"])
def test_a_label_whose_name_the_client_does_not_take_is_named(name):
    """It refuses the whole command for it, or takes another name; a value may be any."""
    found, named = said({"Labels": {name: "c", "d": "e =f"}})
    assert (found, named) == ("--label d=e =f", ["Config.Labels"])


def test_a_published_port_is_not_exposed_again():
    """The client exposes what it publishes."""
    config = {"ExposedPorts": {"80/tcp": {}, "81/tcp": {}}}
    found, _ = said(config, {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    assert found == "--expose 81/tcp --publish 8080:80/tcp"


def test_that_nothing_is_hidden_is_one_option():
    """No option says which paths the engine hides, but one says that it hides none."""
    host = {"MaskedPaths": [], "ReadonlyPaths": []}
    assert said(host=host) == ("--security-opt systempaths=unconfined", [])


@pytest.mark.parametrize(
    "entrypoint, command, words, named",
    [
        (None, None, "app:1", []),
        (None, ["serve", ""], "app:1 serve ''", []),
        (["/a"], None, "--entrypoint /a app:1", []),
        (["/a", "b"], ["c"], "--entrypoint /a app:1 b c", ["Config.Entrypoint", "Config.Cmd"]),
        ([""], ["c"], "--entrypoint '' app:1 c", []),
        ([], ["c"], "--entrypoint '' app:1 c", []),
        ([], None, "app:1", ["Config.Entrypoint"]),
    ],
)
def test_what_is_run(entrypoint, command, words, named):
    """A cleared entry point is said to be cleared; one of several words runs the same, and is named."""
    line = command_line(requested({"Entrypoint": entrypoint, "Cmd": command}), "web", api=NEW)
    assert line.lines == [f"docker run --detach --name web {words}"]
    assert [each.field for each in line.unsaid] == named


ALL = {"IPv4Address": "10.0.0.5", "IPv6Address": "fd00::5", "LinkLocalIPs": ["169.254.9.9"]}


@pytest.mark.parametrize(
    "mode, endpoints, words",
    [
        ("default", {}, ""),
        ("default", {"bridge": None}, ""),
        ("bridge", {"bridge": {}}, "--network bridge"),
        ("none", {}, "--network none"),
        ("container:abc", {}, "--network container:abc"),
        ("3fa9", {"one": {}}, "--network 3fa9"),
        (
            "one",
            {"one": {"IPAMConfig": ALL, "Aliases": ["a", "b"], "MacAddress": "00:16:3e:00:00:01", "Links": ["p:q"]}},
            (
                "--network one --network-alias a --network-alias b --ip 10.0.0.5 --ip6 fd00::5 "
                "--link-local-ip 169.254.9.9 --mac-address 00:16:3e:00:00:01 --link p:q"
            ),
        ),
        (
            "one",
            {"one": {"DriverOpts": {"o": "1,2"}, "GwPriority": 7, "Aliases": ["a"]}},
            '--network name=one,"driver-opt=o=1,2",gw-priority=7 --network-alias a',
        ),
        (
            "one",
            {"one": {}, "two": {"IPAMConfig": ALL, "MacAddress": "00:16:3e:00:00:01", "Aliases": ["a"]}, "three": None},
            (
                "--network one --network name=two,alias=a,ip=10.0.0.5,ip6=fd00::5,link-local-ip=169.254.9.9,"
                "mac-address=00:16:3e:00:00:01 --network name=three"
            ),
        ),
    ],
)
def test_the_networks_at_create(mode, endpoints, words):
    """The first network is what the mode means; the further ones are said beside it, whole."""
    assert said(host={"NetworkMode": mode}, endpoints=endpoints) == (words, [])


def test_a_link_that_the_host_s_side_has_is_said_once():
    """The client writes a link of its own network into both places."""
    found, _ = said(host={"NetworkMode": "one", "Links": ["p:q"]}, endpoints={"one": {"Links": ["p:q"]}})
    assert found == "--network one --link p:q"


def test_what_is_connected_afterwards():
    """What the engine takes only after the creation is connected before the start; nothing of it is lost in silence."""
    joins = [
        ("two", {"IPAMConfig": ALL, "Aliases": ["a"], "Links": ["p:q"], "DriverOpts": {"o": "1"}, "GwPriority": 7}),
        ("three", {"MacAddress": "00:16:3e:00:00:01"}),
        ("four", None),
    ]
    line = command_line(
        requested({"AttachStdout": True, "AttachStderr": True}, {"NetworkMode": "one"}, {"one": {}}, joins),
        "web",
        api=OLD,
    )
    assert line.lines == [
        "docker create --name web --network one app:1",
        (
            "docker network connect --alias a --ip 10.0.0.5 --ip6 fd00::5 --link-local-ip 169.254.9.9 --link p:q "
            "--driver-opt o=1 --gw-priority 7 two web"
        ),
        "docker network connect three web",
        "docker network connect four web",
        "docker start web",
    ]
    (comment,) = line.comments
    assert comment.startswith("# not expressible: NetworkingConfig.EndpointsConfig.MacAddress (")


def test_a_link_of_a_further_network_is_connected_afterwards():
    """Only there has it an option, also where the engine takes all networks at create."""
    line = command_line(requested(None, {"NetworkMode": "one"}, {"one": {}, "two": {"Links": ["p:q"]}}), "web", api=NEW)
    assert line.lines[1:] == ["docker network connect --link p:q two web", "docker start web"]


def test_links_of_the_default_network():
    """The client takes them only where that network is not named."""
    host = {"NetworkMode": "bridge", "Links": ["p:q"]}
    assert said(host=host, endpoints={"bridge": {}}) == ("--link p:q", ["HostConfig.NetworkMode"])


def test_what_stands_beside_the_default_network_is_connected_afterwards():
    """The client refuses to have both made at once."""
    line = command_line(requested(None, {"NetworkMode": "default"}, {"bridge": {}, "two": {}}), "web", api=NEW)
    assert line.lines == [
        "docker create --name web app:1",
        "docker network connect two web",
        "docker start web",
    ]


@pytest.mark.parametrize(
    "mode, endpoints, field",
    [
        ("gone", {"two": {}}, "HostConfig.NetworkMode"),
        ("two", {"two": {"Novelty": 1}}, "NetworkingConfig.EndpointsConfig.Novelty"),
        ("two", {"two": {}, "three": {"Novelty": 1}}, "NetworkingConfig.EndpointsConfig.Novelty"),
        ("two", {"two": {"IPAMConfig": {"Novelty": 1}}}, "NetworkingConfig.EndpointsConfig.IPAMConfig.Novelty"),
    ],
)
def test_what_is_not_known_of_networks_is_named(mode, endpoints, field):
    """A mode that none of the networks explains, and what later engines take, are named."""
    assert said(host={"NetworkMode": mode}, endpoints=endpoints)[1] == [field]


OUT = {"AttachStdout": True, "AttachStderr": True}
IN = {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True}


@pytest.mark.parametrize(
    "config, words, named",
    [
        (OUT, "", []),
        ({"AttachStdout": True}, "--attach stdout ", []),
        (OUT | {"AttachStdin": True}, "--attach stdin --attach stdout --attach stderr ", []),
        (OUT | IN, "--interactive ", []),
        (
            {"OpenStdin": True, "AttachStdout": True},
            "--interactive --attach stdout ",
            ["Config.AttachStdin", "Config.StdinOnce"],
        ),
    ],
)
def test_what_a_client_was_attached_to(config, words, named):
    """A container that was made to be attached to is made so, and started."""
    line = command_line(requested(config), "web", api=NEW)
    assert line.lines == [f"docker create --name web {words}app:1", "docker start web"]
    assert [each.field for each in line.unsaid] == named


def test_one_that_is_not_to_run_is_only_created():
    """What did not run is not started; its platform is said."""
    line = command_line(requested(platform="linux/arm64"), "web", api=NEW, is_started=False)
    assert line.lines == ["docker create --name web --platform linux/arm64 app:1"]
    assert [each.field for each in line.unsaid] == ["Config.AttachStdout", "Config.AttachStderr"]


@pytest.mark.parametrize(
    "word", ["", "plain", "a b", "it's", '$HOME `x` "q" \\', "two\nlines", "é", "tab\there\x1b[1m'"]
)
def test_a_shell_reads_each_word_as_it_was(word):
    """Whatever a value holds, the shell gives it on, and the terminal that shows it takes nothing for a command."""
    written = quoted(word)
    assert all(char.isprintable() or char == "\n" for char in written)
    assert subprocess.run(["sh", "-c", f"printf %s {written}"], check=True, capture_output=True).stdout.decode() == word
    assert "\t" in word or shlex.split(written) == [word]


def test_a_comment_stays_one_line():
    """What a stranger wrote into a field does not end the comment that names it."""
    line = command_line(requested({"Env": ["A\nrm -rf /"]}), "web", api=NEW)
    assert line.comments == ["# not expressible: Config.Env (A?rm -rf / is taken away from what the image sets)"]


def test_a_restart_policy_in_a_word():
    """As `docker update --restart` takes it; none is `no`."""
    policies = [{"Name": "always"}, {"Name": "on-failure", "MaximumRetryCount": 3}, {"Name": ""}, {}]
    assert [restart_word(policy) for policy in policies] == ["always", "on-failure:3", "no", "no"]
