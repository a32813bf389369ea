"""Nothing is lost in silence: what cannot be kept is said before, what changed is said after."""

from __future__ import annotations

import pytest

from sidecar.targets.losses import difference, unsupported
from tests.targets.inspects import NEW_ID, OLD_ID, SHORT_ID, container, endpoint, image, volume

NEWEST = (1, 51)
OTHER_ID = "fedcba987654" + "d" * 52


@pytest.mark.parametrize(
    "made, reason",
    [
        ({"Platform": "windows"}, "Windows"),
        ({"config": {"Labels": {"com.docker.swarm.task.id": "t"}}}, "Swarm"),
        ({"networks": {}}, "disconnected from all its networks"),
        ({"networks": {"f" * 12: endpoint(), "n": endpoint()}}, "shortened id"),
    ],
)
def test_what_would_be_lost_is_refused_with_the_reason(made, reason):
    """Row 42: a container that cannot be recreated as it is, or not started again, is held before all else."""
    assert reason in unsupported(container(**made), api=NEWEST)


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"Platform": "linux", "host": {"AutoRemove": True}, "config": {"Labels": None}},
        {"networks": {}, "host": {"NetworkMode": "container:" + "a" * 64}},
        {"networks": {}, "config": {"NetworkDisabled": True}},
        {"networks": {"a": endpoint(NetworkID="1"), "b": endpoint(NetworkID="2")}},
        {"networks": {"a": endpoint(NetworkID=""), "b": endpoint(NetworkID=""), "c": None}},
    ],
)
def test_an_ordinary_container_is_not_refused(made):
    """A container that can be recreated has no reason against it: connected or not, as long as it was meant so."""
    assert unsupported(container(**made), api=NEWEST) is None


def mounting(**mount):
    return {"host": {"Mounts": [{"Type": "volume", "Target": "/x"}, {"Target": "/y"} | mount]}}


@pytest.mark.parametrize(
    "since, made",
    [
        ((1, 42), mounting(Type="bind", BindOptions={"CreateMountpoint": True})),
        ((1, 43), {"host": {"Annotations": {"a": "b"}}}),
        ((1, 44), {"config": {"Healthcheck": {"Test": ["CMD", "x"], "StartInterval": 9}}}),
        ((1, 44), mounting(Type="bind", BindOptions={"ReadOnlyForceRecursive": True})),
        ((1, 45), mounting(Type="volume", Source="v", VolumeOptions={"Subpath": "s"})),
        ((1, 48), mounting(Type="image", Source="data:1")),
        ((1, 48), {"networks": {"a": None, "n": endpoint(GwPriority=1)}}),
    ],
)
def test_an_option_that_the_api_version_would_drop_is_refused(since, made):
    """Row 44: below the version that knows an option the container is held; from that version on it is not."""
    before = (since[0], since[1] - 1)
    said = unsupported(container(**made), api=before)
    assert f"needs API 1.{since[1]}, and 1.{before[1]} is spoken with this engine" in said
    assert unsupported(container(**made), api=since) is None


def test_all_reasons_are_given_at_once():
    """Who removes one obstacle should not meet the next one only after another push."""
    old = container(networks={}, host={"Annotations": {"a": "b"}})
    assert unsupported(old, api=(1, 41)).count("; ") == 1


# --- after an update -------------------------------------------------------------------------------------------------

STATIC = {"IPAMConfig": {"IPv4Address": "10.0.0.7"}}


def test_what_an_update_means_is_no_difference():
    """Ids, times, addresses that nobody asked for, generated names and Compose's own labels differ after any update."""
    labels = {"com.docker.compose.image": OLD_ID, "com.docker.compose.replace": "x", "mine": ""}
    before = container(
        config={"Labels": labels, "Volumes": {"/x": {}}},
        host={"ContainerIDFile": "/cid", "Links": ["/db:/web/a", "/mq:/web/b"], "Binds": ["/q"]},
        networks={"n": endpoint(Aliases=["b", SHORT_ID, "a"], DriverOpts={}, IPAMConfig={}), "host": None},
        Created="yesterday",
        State={"Pid": 7},
        Mounts=[volume("/x", "v", Mode="z"), volume("/q", "w")],
    )
    after = container(
        config={
            "Labels": {"com.docker.compose.image": NEW_ID, "mine": ""},
            "Volumes": {"/x": {}},
            "Hostname": OTHER_ID[:12],
        },
        host={
            "ContainerIDFile": "",
            "Links": ["/mq:/web/b", "/db:/web/a"],
            "Binds": ["w:/q"],
            "Mounts": [{"Type": "volume", "Source": "v", "Target": "/x"}],
        },
        networks={
            "n": endpoint(Aliases=["a", "b"], IPAddress="10.0.0.9", EndpointID="9", MacAddress="02"),
            "host": None,
        },
        Id=OTHER_ID,
        Created="today",
        State={"Pid": 8},
        Image=NEW_ID,
        Mounts=[volume("/q", "w"), volume("/x", "v", Mode="")],
    )
    assert difference(before, after) == []


@pytest.mark.parametrize(
    "before, after, said",
    [
        (
            {"config": {"Env": ["A=1", "B=1"]}},
            {"config": {"Env": ["B=2"]}},
            ["Config.Env.A: lost", "Config.Env.B: changed"],
        ),
        ({"config": {"Labels": {"a.b": ""}}}, {"config": {"Labels": None}}, ["Config.Labels.a.b: lost"]),
        ({}, {"config": {"Tty": True}}, ["Config.Tty: added"]),
        ({"config": {"Hostname": "web"}}, {}, ["Config.Hostname: lost"]),
        ({"config": {"Healthcheck": {"Test": ["NONE"]}}}, {}, ["Config.Healthcheck.Test: lost"]),
        ({"host": {"Init": False}}, {"host": {"Init": None}}, ["HostConfig.Init: lost"]),
        ({"host": {"Tmpfs": {"/t": ""}}}, {}, ["HostConfig.Tmpfs./t: lost"]),
        ({"host": {"PortBindings": {"80/tcp": []}}}, {}, ["HostConfig.PortBindings.80/tcp: lost"]),
        (
            {"host": {"RestartPolicy": {"Name": "always"}}},
            {"host": {"RestartPolicy": {"Name": "no"}}},
            ["HostConfig.RestartPolicy.Name: changed"],
        ),
        (
            {"host": {"Mounts": [{"Target": "/x", "Type": "tmpfs", "TmpfsOptions": {"SizeBytes": 9}}]}},
            {"host": {"Mounts": [{"Target": "/x", "Type": "tmpfs"}]}},
            ["HostConfig.Mounts./x.TmpfsOptions.SizeBytes: lost"],
        ),
        (
            {"Mounts": [volume("/x", "v")]},
            {"Mounts": [volume("/x", "fresh")]},
            ["HostConfig.Mounts./x.Source: changed", "Mounts./x.Name: changed"],
        ),
        (
            {"networks": {"n": endpoint(**STATIC)}},
            {"networks": {"n": endpoint()}},
            ["Networks.n.IPAMConfig.IPv4Address: lost"],
        ),
        (
            {"networks": {"n": endpoint(Aliases=["a", "b"])}},
            {"networks": {"n": endpoint(Aliases=["a"])}},
            ["Networks.n.Aliases: changed"],
        ),
        ({"Name": "/web"}, {"Name": "/web.sidecar-new"}, ["Name: changed"]),
    ],
)
def test_a_difference_names_the_option(before, after, said):
    """Every option that is not what it was is named, and whether it was lost, added or changed."""
    assert difference(container(**before), container(**after)) == said


def test_a_difference_tells_no_value():
    """The log gets this, and an environment, a label or a command may hold a secret."""
    before = container(config={"Env": ["TOKEN=hunter2"], "Cmd": ["--token", "hunter2"], "Labels": {"a": "hunter2"}})
    assert "hunter2" not in str(difference(before, container()))


OLD = image(
    Env=["A=1", "B=1"], User="old", Volumes={"/data/": {}}, Healthcheck={"Retries": 1}, ExposedPorts={"80/tcp": {}}
)
NEW = image(NEW_ID, Env=["A=2", "C=2"], User="new", Volumes={"/fresh/": {}}, Cmd=["x"], ExposedPorts=None)


def test_defaults_that_the_new_image_changed_are_no_difference():
    """What the images themselves brought is the purpose of an update, a volume that only the new one declares too."""
    before = container(config=OLD["Config"], Mounts=[volume("/data", "v")])
    after = container(
        config=NEW["Config"],
        host={"Mounts": [{"Type": "volume", "Source": "v", "Target": "/data"}]},
        Mounts=[volume("/data", "v"), volume("/fresh", "w")],
    )
    assert difference(before, after, old_image=OLD, new_image=NEW) == []
    assert "Config.Env.C: added" in difference(before, after)


@pytest.mark.parametrize(
    "before, after, said",
    [
        ({"Env": ["A=mine", "B=1"], "User": "old"}, {"Env": ["A=2", "C=2"], "User": "new"}, ["Config.Env.A: changed"]),
        ({"Env": ["A=1", "B=1"], "User": "old"}, {"Env": ["A=1", "C=2"], "User": "new"}, []),
        ({"Env": ["A=1"], "User": "old"}, {"Env": ["A=2"], "User": "old"}, []),
        ({"Env": ["A=1"], "User": "old"}, {"Env": ["A=2"], "User": "strange"}, ["Config.User: changed"]),
    ],
)
def test_only_a_default_that_became_a_default_is_left_out(before, after, said):
    """A user's value that gave way to a default is a loss, and a default that gave way to anything else is strange."""
    changed = difference(container(config=before), container(config=after), old_image=OLD, new_image=NEW)
    assert changed == said


def test_images_without_configuration_are_compared_too():
    """An image may have no configuration at all: then every option is the user's."""
    bare = {"Id": OLD_ID, "Config": None}
    assert difference(container(), container(config={"User": "u"}), old_image=bare, new_image=bare) == [
        "Config.User: added"
    ]
