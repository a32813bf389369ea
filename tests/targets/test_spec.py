"""What a user configured survives a recreate; what only the old image's defaults put there does not.

The numbers are the rows of the checklist of what updaters were seen to lose.
"""

from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sidecar.targets.spec import (
    Connect,
    CreateRequest,
    EngineDefaults,
    create_request,
    foreign_platform,
    stop_grace_seconds,
)
from tests.targets.inspects import (
    NEW_ID,
    OLD_ID,
    SHORT_ID,
    container,
    endpoint,
    image,
    merged,
    volume,
)

NEWEST = (1, 51)


def request_for(old=None, *, old_image=None, new_image=None, api=NEWEST, **other):
    return create_request(
        old or container(),
        old_image=old_image or image(),
        new_image=new_image or image(NEW_ID),
        image="app:1",
        api=api,
        **other,
    )


def body_for(old=None, **other):
    return request_for(old, **other).body


def host_for(old=None, **other):
    return body_for(old, **other)["HostConfig"]


def endpoints_for(old=None, **other):
    return body_for(old, **other)["NetworkingConfig"]["EndpointsConfig"]


# --- what only the old image put there -------------------------------------------------------------------------------

TEST = {"Test": ["CMD-SHELL", "true"], "Interval": 5, "Timeout": 3, "StartPeriod": 2, "StartInterval": 1, "Retries": 4}


@pytest.mark.parametrize(
    "key, default, inspected, sent",
    [
        ("Env", ["A=1", "B=1"], ["A=1", "B=1"], []),
        ("Env", ["A=1", "B=1"], ["U=u", "A=2", "B=1"], ["U=u", "A=2"]),
        ("Env", ["A=1"], ["Z=1", "A=1=1", "Y=1", "A"], ["Z=1", "A=1=1", "Y=1", "A"]),
        ("Env", None, ["A=1"], ["A=1"]),
        ("Healthcheck", TEST, TEST, None),
        ("Healthcheck", TEST, TEST | {"Interval": 9}, {"Interval": 9}),
        ("Healthcheck", TEST, TEST | {"StartInterval": 9}, {"StartInterval": 9}),
        ("Healthcheck", TEST, TEST | {"Test": ["CMD", "a", "b"]}, {"Test": ["CMD", "a", "b"]}),
        ("Healthcheck", TEST, TEST | {"Test": ["NONE"]}, {"Test": ["NONE"]}),
        ("Healthcheck", None, {"Test": ["NONE"]}, {"Test": ["NONE"]}),
        ("Healthcheck", TEST, None, None),
        ("Volumes", {"/data": {}}, {"/data": {}, "/own": {}}, {"/own": {}}),
        ("Labels", {"a": "1", "b": "1"}, {"a": "1", "b": "2", "c": "x=y z {{.T}}"}, {"b": "2", "c": "x=y z {{.T}}"}),
        ("ExposedPorts", {"80/tcp": {}}, {"80/tcp": {}, "99/udp": {}}, {"99/udp": {}}),
    ],
)
def test_what_equals_the_old_image_is_left_out(key, default, inspected, sent):
    """Rows 4, 7, 8, 10, 32: what equals the old image's is left out, part by part; the rest stays, in order."""
    assert body_for(container(config={key: inspected}), old_image=image(**{key: default}))[key] == sent


@pytest.mark.parametrize("key", ["User", "WorkingDir", "StopSignal", "ArgsEscaped"])
def test_a_plain_value_is_sent_only_if_it_is_the_users(key):
    """Rows 9 and 10: user, working directory and stop signal of the old image are left out, another one is kept."""
    assert key not in body_for(container(config={key: "of image"}), old_image=image(**{key: "of image"}))
    assert body_for(container(config={key: "mine"}), old_image=image(**{key: "of image"}))[key] == "mine"


@pytest.mark.parametrize(
    "of_image, inspected, sent",
    [
        ((["e"], ["c"]), (["e"], ["c"]), (None, None)),
        ((["e"], ["c"]), (["e"], ["mine"]), (None, ["mine"])),
        ((["e"], ["c"]), (["mine"], ["c"]), (["mine"], ["c"])),
        ((["e"], ["c"]), (["mine"], None), (["mine"], None)),
        ((["e"], ["c"]), (["e"], None), (["e"], None)),
        ((["e"], ["c"]), (None, ["c"]), ([""], ["c"])),
        ((["e"], None), (None, ["mine"]), ([""], ["mine"])),
        ((["e"], ["c"]), ([], ["c"]), ([], None)),
        ((["e"], ["c"]), ([], ["mine"]), ([], ["mine"])),
        ((None, ["c"]), (None, ["c"]), (None, None)),
        ((None, ["c"]), ([], ["c"]), (None, None)),
        (([], ["c"]), (None, ["mine"]), (None, ["mine"])),
    ],
)
def test_the_command_is_inherited_only_with_the_entrypoint(of_image, inspected, sent):
    """Rows 5 and 6: Cmd is left out only beside an inherited Entrypoint; a cleared Entrypoint is cleared again."""
    config = dict(zip(("Entrypoint", "Cmd"), inspected, strict=True))
    body = body_for(container(config=config), old_image=image(Entrypoint=of_image[0], Cmd=of_image[1]))
    assert (body["Entrypoint"], body["Cmd"]) == sent


def test_the_new_images_defaults_play_no_part():
    """Row 11: only the image that the container runs says what was a default; the tag may mean the new one already."""
    old = container(config={"Env": ["A=1"], "User": "app"})
    body = body_for(old, old_image=image(Env=["A=0"]), new_image=image(NEW_ID, Env=["A=1"], User="app"))
    assert (body["Env"], body["User"]) == (["A=1"], "app")


def test_an_image_without_configuration_has_no_defaults():
    """Row 11: an image that was imported, or inspected by an API that omits what is empty, leaves all to the user."""
    bare = {"Id": OLD_ID, "Config": None}
    assert body_for(container(config={"User": "app", "Env": ["A=1"]}), old_image=bare)["Env"] == ["A=1"]


def test_a_published_port_stays_exposed():
    """Row 10: an engine publishes only what is exposed, so a port of the old image that is published is the user's."""
    old = container(
        config={"ExposedPorts": {"80/tcp": {}, "81/tcp": {}}}, host={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}
    )
    assert body_for(old, old_image=image(ExposedPorts={"80/tcp": {}, "81/tcp": {}}))["ExposedPorts"] == {"80/tcp": {}}


def test_labels_of_compose_are_never_left_out():
    """Row 10: an image built by Compose carries its project label; without it Compose would not find the container."""
    labels = {"com.docker.compose.project": "shop", "other": "1"}
    body = body_for(container(config={"Labels": labels}), old_image=image(Labels=labels))
    assert body["Labels"] == {"com.docker.compose.project": "shop"}


# --- what is kept --------------------------------------------------------------------------------------------------


def test_the_rest_goes_over_verbatim():
    """Rows 22, 24, 25, 27, 31, 39: a field that spec.py does not know is kept, in Config and in HostConfig."""
    config = {"Tty": True, "OpenStdin": True, "StopTimeout": 300, "Domainname": "example.org", "Unheard": {"of": [1]}}
    host = {
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "DeviceRequests": [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}],
        "Mounts": [
            {"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {"Subpath": "s", "NoCopy": True}},
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 9}},
        ],
        "Binds": ["named:/n:ro", "/host:/h:rslave"],
        "ExtraHosts": ["db:10.0.0.9"],
        "NanoCpus": 500000000,
        "Links": ["/db:/web/alias"],
        "MemorySwappiness": 0,
        "Annotations": {"a": "b"},
        "Unheard": {"of": [1]},
    }
    body = body_for(container(config=config, host=host))
    assert {key: body[key] for key in config} == config
    assert {key: body["HostConfig"][key] for key in host} == host


def test_the_inspect_is_not_changed():
    """The inspect is kept in the journal for a rollback: making a request leaves it as it was."""
    old = container(
        config={"Labels": {"com.docker.compose.image": OLD_ID}, "Volumes": {"/x": {}}},
        host={"VolumesFrom": ["a:ro"], "Mounts": [{"Type": "volume", "Target": "/z"}]},
        Mounts=[volume("/x", "v1"), volume("/z", "v2")],
    )
    before = deepcopy(old)
    request = request_for(old)
    assert request.rebound({"a": "b"}) != request
    request.body["HostConfig"]["Mounts"].clear()
    assert old == before


def test_it_is_created_by_the_configured_reference():
    """Row 41: the image is named as configured, whatever the inspect shows, and by no id."""
    old = container(config={"Image": OLD_ID})
    assert body_for(old)["Image"] == "app:1"


# --- volumes ---------------------------------------------------------------------------------------------------------

VOLUMES_FROM_A = {"VolumesFrom": ["a"]}


@pytest.mark.parametrize(
    "config, host, mounts, attached",
    [
        # of the image or of `-v /x`, wherever the path has a slash too many
        ({"Volumes": {"/x/": {}}}, {}, [volume("/x", "v")], (None, [("v", "/x")])),
        ({}, {}, [volume("/b", "v2"), volume("/a", "v1")], (None, [("v1", "/a"), ("v2", "/b")])),
        # as Compose writes it
        ({}, {"Mounts": [{"Type": "volume", "Target": "/x/"}]}, [volume("/x", "v")], (None, [("v", "/x/")])),
        # through the oldest of the three forms
        ({}, {"Binds": ["/x"]}, [volume("/x", "v")], (["v:/x"], [])),
        # asked for by name already
        ({}, {"Binds": ["v:/x/:ro"]}, [volume("/x", "v")], (["v:/x/:ro"], [])),
        (
            {},
            {"Mounts": [{"Type": "volume", "Source": "v", "Target": "/x"}]},
            [volume("/x", "v")],
            (None, [("v", "/x")]),
        ),
        # hidden by what was asked for at the same place
        ({"Volumes": {"/x": {}}}, {"Tmpfs": {"/x/": ""}}, [volume("/x", "v")], (None, [])),
        ({"Volumes": {"/x": {}}}, {"Binds": ["/host:/x"]}, [{"Type": "bind", "Destination": "/x"}], (["/host:/x"], [])),
        ({}, {"Mounts": [{"Type": "tmpfs", "Target": "/x"}]}, [volume("/x", "v")], (None, [(None, "/x")])),
        # of another container, which brings it again; declared here too it may be our own
        ({}, VOLUMES_FROM_A, [volume("/x", "v")], (None, [])),
        ({"Volumes": {"/x": {}}}, VOLUMES_FROM_A, [volume("/x", "v")], (None, [("v", "/x")])),
        # nothing to attach
        ({}, {"Mounts": [{"Type": "volume", "Target": "/x"}], "Binds": ["/y"]}, [], (["/y"], [(None, "/x")])),
        ({}, {}, None, (None, [])),
    ],
)
def test_an_anonymous_volume_is_attached_by_its_name(config, host, mounts, attached):
    """Rows 1, 2 and 28: what is only in the list of mounts comes along by name, and no place is mounted twice."""
    made = host_for(container(config=config, host=host, Mounts=mounts))
    assert (made["Binds"], [(m.get("Source"), m["Target"]) for m in made.get("Mounts", [])]) == attached


@pytest.mark.parametrize(
    "inspected, extra",
    [
        (volume("/x", "v"), {}),
        (volume("/x", "v", RW=False), {"ReadOnly": True}),
        (volume("/x", "v", Driver="nfs"), {"VolumeOptions": {"DriverConfig": {"Name": "nfs"}}}),
    ],
)
def test_an_attached_volume_keeps_its_mode_and_driver(inspected, extra):
    """Row 2: an anonymous volume stays read-only if it was, and on the driver that holds it."""
    made = host_for(container(Mounts=[inspected]))
    assert made["Mounts"] == [{"Type": "volume", "Source": "v", "Target": "/x"} | extra]


def test_a_volume_that_the_user_declared_stays_declared():
    """Row 2: the path of `-v /x` stays in Config, so that the inspect shows what was asked for."""
    old = container(config={"Volumes": {"/x": {}, "/data": {}}}, Mounts=[volume("/x", "v")])
    assert body_for(old, old_image=image(Volumes={"/data": {}}))["Volumes"] == {"/x": {}}


# --- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, inspected, api, sent",
    [
        ("n", endpoint(), NEWEST, {}),
        ("n", None, NEWEST, {}),
        ("n", endpoint(IPAMConfig={}, DriverOpts={}, Links=[], Aliases=[]), NEWEST, {}),
        (
            "n",
            endpoint(IPAMConfig={"IPv4Address": "10.0.0.7", "IPv6Address": "", "LinkLocalIPs": ["169.254.1.1"]}),
            NEWEST,
            {"IPAMConfig": {"IPv4Address": "10.0.0.7", "LinkLocalIPs": ["169.254.1.1"]}},
        ),
        ("n", endpoint(DriverOpts={"a": "b"}, Links=["db:x"]), NEWEST, {"DriverOpts": {"a": "b"}, "Links": ["db:x"]}),
        ("n", endpoint(GwPriority=7), (1, 48), {"GwPriority": 7}),
        ("n", endpoint(GwPriority=7), (1, 47), {}),
        ("n", endpoint(Aliases=["web", SHORT_ID, "shop-web-1"]), (1, 41), {"Aliases": ["web", "shop-web-1"]}),
        ("n", endpoint(Aliases=[SHORT_ID]), (1, 44), {}),
        ("bridge", endpoint(Aliases=["web"]), NEWEST, {}),
        ("host", endpoint(Aliases=["web"]), NEWEST, {}),
        ("none", endpoint(Aliases=["web"]), NEWEST, {}),
    ],
)
def test_only_what_was_asked_for_on_a_network_is_sent(name, inspected, api, sent):
    """Rows 12, 15, 16: static addresses and a user's aliases are kept, operational addresses and the old id are not."""
    assert endpoints_for(container(host={"NetworkMode": name}, networks={name: inspected}), api=api) == {name: sent}


@pytest.mark.parametrize(
    "mode, primary",
    [
        ("b", "b"),
        ("default", "bridge"),
        (None, "bridge"),
        ("bb" * 32, "b"),  # the id of a network
        ("cc" * 6, "c"),  # a shortened one
        ("gone", "a"),  # disconnected by hand: the first that is left, and never connected again
    ],
)
def test_old_engines_take_one_network_at_create(mode, primary):
    """Rows 16 and 42: before API 1.44 the network it was made with comes first, and all others are connected after."""
    networks = {
        "a": endpoint(NetworkID="aa" * 32),
        "b": endpoint(NetworkID="bb" * 32),
        "bridge": endpoint(NetworkID=None),
        "c": endpoint(NetworkID="cc" * 32, IPAMConfig={"IPv4Address": "10.0.0.9"}, Aliases=["hand"]),
    }
    asked = {"a": {}, "b": {}, "bridge": {}, "c": {"IPAMConfig": {"IPv4Address": "10.0.0.9"}, "Aliases": ["hand"]}}
    old = container(host={"NetworkMode": mode}, networks=networks)
    request = request_for(old, api=(1, 43))
    assert request.body["NetworkingConfig"] == {"EndpointsConfig": {primary: asked.pop(primary)}}
    assert request.connects == tuple(Connect(network=name, endpoint=asked[name]) for name in asked)
    assert request.body["HostConfig"]["NetworkMode"] == mode


def test_newer_engines_take_all_networks_at_create():
    """Row 16: from API 1.44 on nothing is left to connect, so a candidate is never seen half connected."""
    old = container(host={"NetworkMode": "b"}, networks={"a": endpoint(), "b": endpoint(Aliases=["x"])})
    request = request_for(old, api=(1, 44))
    assert request.body["NetworkingConfig"] == {"EndpointsConfig": {"b": {"Aliases": ["x"]}, "a": {}}}
    assert request.connects == ()


@pytest.mark.parametrize(
    "api, on_top, on_primary",
    [((1, 43), "02:00:00:00:00:01", {}), ((1, 44), None, {"MacAddress": "02:00:00:00:00:01"})],
)
def test_a_mac_address_goes_where_the_api_takes_it(api, on_top, on_primary):
    """Row 14: one that was asked for is kept, on the primary endpoint from API 1.44 on; a generated one never."""
    networks = {"a": endpoint(), "n": endpoint()}
    old = container(config={"MacAddress": "02:00:00:00:00:01"}, host={"NetworkMode": "n"}, networks=networks)
    request = request_for(old, api=api)
    assert request.body.get("MacAddress") == on_top
    assert request.body["NetworkingConfig"]["EndpointsConfig"]["n"] == on_primary


@pytest.mark.parametrize(
    "api, address, sent",
    [
        ((1, 43), "de:ad:be:ef:00:01", {}),
        ((1, 44), "de:ad:be:ef:00:01", {"MacAddress": "de:ad:be:ef:00:01"}),
        ((1, 47), "02:42:0a:00:00:07", {}),
        ((1, 48), "de:ad:be:ef:00:01", {}),
        ((1, 48), "02:42:0a:00:00:07", {}),
        ((1, 48), "00:11:22:00:00:01", {"MacAddress": "00:11:22:00:00:01"}),
        ((1, 48), "", {}),
    ],
)
def test_a_mac_address_on_a_further_network_is_kept_where_no_engine_makes_up_such(api, address, sent):
    """Row 14: the inspect says only of the primary one whether it was asked for; of others their look has to say it."""
    networks = {"a": endpoint(), "n": endpoint(MacAddress=address)}
    request = request_for(container(host={"NetworkMode": "a"}, networks=networks), api=api)
    further = {connect.network: connect.endpoint for connect in request.connects}
    assert (request.body["NetworkingConfig"]["EndpointsConfig"] | further)["n"] == sent


def test_a_mac_address_of_a_network_left_by_hand_is_gone_with_it():
    """Rows 14 and 42: without the endpoint that it was asked for on, a MAC address has no place."""
    old = container(config={"MacAddress": "02:00:00:00:00:01"}, host={"NetworkMode": "n"}, networks={})
    assert endpoints_for(old) == {}


# --- what the engine filled in ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hostname, host, engine, sent",
    [
        ("web", {}, "", "web"),
        (SHORT_ID, {}, "", None),
        ("box", {"NetworkMode": "host"}, "box", None),
        ("box", {"NetworkMode": "host"}, "", None),
        ("mine", {"NetworkMode": "host"}, "box", "mine"),
        (SHORT_ID, {"UTSMode": "host"}, "", None),
        ("box", {"UTSMode": "host"}, "box", None),
        ("parents", {"NetworkMode": "container:" + "a" * 64}, "", None),
    ],
)
def test_a_hostname_that_nobody_asked_for_is_left_out(hostname, host, engine, sent):
    """Row 19: neither the old id nor the host's name is frozen; what a user set survives, on the host's network too."""
    old = container(config={"Hostname": hostname, "Domainname": "example.org"}, host=host)
    assert body_for(old, engine=EngineDefaults(hostname=engine)).get("Hostname") == sent


def test_a_container_in_anothers_network_sends_nothing_that_the_engine_refuses_there():
    """Row 17: hostname, domain, MAC address and exposed ports are the parent's, and the engine refuses them."""
    old = container(
        config={"Hostname": "p", "Domainname": "d", "ExposedPorts": {"80/tcp": {}}, "MacAddress": "02:00:00:00:00:01"},
        host={"NetworkMode": "container:" + "a" * 64},
        networks={},
    )
    body = body_for(old)
    assert not {"Hostname", "Domainname", "ExposedPorts", "MacAddress"} & body.keys()
    assert body["HostConfig"]["NetworkMode"] == "container:" + "a" * 64
    assert body["NetworkingConfig"] == {"EndpointsConfig": {}}


@pytest.mark.parametrize(
    "host, parents, sent",
    [
        ({"NetworkMode": "container:old"}, {"old": "new"}, {"NetworkMode": "container:new"}),
        ({"IpcMode": "container:old", "PidMode": "container:other"}, {"old": "new"}, {"IpcMode": "container:new"}),
        ({"IpcMode": "shareable", "PidMode": "host"}, {"old": "new"}, {"IpcMode": "shareable", "PidMode": "host"}),
        ({"VolumesFrom": ["old:ro", "old", "db"]}, {"old": "new"}, {"VolumesFrom": ["new:ro", "new", "db"]}),
        ({"VolumesFrom": ["old:ro"]}, {}, {"VolumesFrom": ["old:ro"]}),
    ],
)
def test_references_to_a_replaced_container_follow_it(host, parents, sent):
    """Rows 17 and 18: namespaces and volumes of a parent that was recreated are taken from what replaced it."""
    made = request_for(container(host=host)).rebound(parents).body["HostConfig"]
    assert {key: made[key] for key in host} == host | sent


PROC = ["asound", "acpi", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi"]
MASKED = [*(f"/proc/{name}" for name in PROC), "/sys/firmware"]
MASKED_LATER = [
    "/sys/devices/virtual/powercap",
    "/proc/interrupts",
    "/sys/devices/system/cpu/cpu11/thermal_throttle",
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


@pytest.mark.parametrize(
    "inspected, engine, sent",
    [
        ({"Runtime": "runc"}, EngineDefaults(runtime="runc"), {"Runtime": ""}),
        ({"Runtime": "nvidia"}, EngineDefaults(runtime="runc"), {"Runtime": "nvidia"}),
        ({"Runtime": "runc"}, EngineDefaults(), {"Runtime": "runc"}),
        ({"MemorySwappiness": -1}, EngineDefaults(), {"MemorySwappiness": None}),
        ({"ContainerIDFile": "/run/web.cid"}, EngineDefaults(), {"ContainerIDFile": ""}),
        ({"Ulimits": [{"Name": "nofile"}]}, EngineDefaults(), {"Ulimits": [{"Name": "nofile"}]}),
        ({"MaskedPaths": MASKED}, EngineDefaults(), {"MaskedPaths": None}),
        ({"MaskedPaths": [*MASKED, *MASKED_LATER]}, EngineDefaults(), {"MaskedPaths": None}),
        ({"MaskedPaths": [*MASKED, "/own"]}, EngineDefaults(), {"MaskedPaths": [*MASKED, "/own"]}),
        ({"MaskedPaths": MASKED[1:]}, EngineDefaults(), {"MaskedPaths": MASKED[1:]}),
        ({"MaskedPaths": [], "ReadonlyPaths": []}, EngineDefaults(), {"MaskedPaths": [], "ReadonlyPaths": []}),
        ({"MaskedPaths": None, "ReadonlyPaths": None}, EngineDefaults(), {"MaskedPaths": None, "ReadonlyPaths": None}),
        ({"ReadonlyPaths": READ_ONLY}, EngineDefaults(), {"ReadonlyPaths": None}),
        ({"ReadonlyPaths": READ_ONLY[1:]}, EngineDefaults(), {"ReadonlyPaths": READ_ONLY[1:]}),
    ],
)
def test_only_what_is_certainly_noise_is_not_frozen(inspected, engine, sent):
    """Rows 24 and 26: an engine's own default is left to it where it is known for one; what may be a wish is kept."""
    made = host_for(container(host=inspected), engine=engine)
    assert {key: made[key] for key in sent} == sent


# --- Compose ---------------------------------------------------------------------------------------------------------

AMD64 = {"os": "linux", "architecture": "amd64"}
ARM = {"os": "linux", "architecture": "arm"}
OLD_MANIFEST, NEW_MANIFEST = "sha256:" + "8" * 64, "sha256:" + "9" * 64


def manifest(digest, platform=None, *, kind="image", available=True):
    return {"ID": digest, "Kind": kind, "Available": available, "ImageData": platform and {"Platform": platform}}


@pytest.mark.parametrize(
    "labelled, platform, manifests, updated",
    [
        (OLD_ID, AMD64, [], NEW_ID),
        (OLD_MANIFEST, AMD64, [manifest("m1", ARM), manifest(NEW_MANIFEST, AMD64)], NEW_MANIFEST),
        (OLD_MANIFEST, AMD64, [manifest("m1", ARM), manifest(NEW_MANIFEST, AMD64 | {"variant": "v2"})], NEW_MANIFEST),
        (
            OLD_MANIFEST,
            ARM | {"variant": "v7"},
            [manifest("m1", ARM | {"variant": "v6"}), manifest(NEW_MANIFEST, ARM | {"variant": "v7"})],
            NEW_MANIFEST,
        ),
        (OLD_MANIFEST, AMD64, [manifest("a", kind="attestation"), manifest(NEW_MANIFEST)], NEW_MANIFEST),
        (OLD_MANIFEST, None, [manifest("m1", AMD64, available=False), manifest(NEW_MANIFEST, ARM)], NEW_MANIFEST),
        (OLD_MANIFEST, AMD64, [manifest("m1", ARM), manifest("m2", ARM)], OLD_MANIFEST),
        (OLD_MANIFEST, AMD64, None, OLD_MANIFEST),
        ("sha256:of another tool", AMD64, [], "sha256:of another tool"),
    ],
)
def test_compose_finds_the_new_image_on_its_label(labelled, platform, manifests, updated):
    """Row 33: what Compose compares names the new image, by id or by manifest as before; else it recreates at once."""
    old = container(
        config={"Labels": {"com.docker.compose.image": labelled, "com.docker.compose.config-hash": "h"}},
        ImageManifestDescriptor={"digest": OLD_MANIFEST, "platform": platform},
    )
    new_image = image(NEW_ID) | ({} if manifests is None else {"Manifests": manifests})
    labels = body_for(old, new_image=new_image)["Labels"]
    assert labels == {"com.docker.compose.image": updated, "com.docker.compose.config-hash": "h"}


@pytest.mark.parametrize("labels", [{}, {"com.docker.compose.replace": "shop-web-1"}])
def test_no_label_of_compose_is_invented_or_carried_over_wrongly(labels):
    """Rows 33, 34: what is not Compose's gets no label, and what this container replaced is not said of the next."""
    assert body_for(container(config={"Labels": labels}))["Labels"] == {}


# --- platform, ports, stop, journal ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "descriptor, of_image, engine, kept",
    [
        (None, {"Os": "linux", "Architecture": "amd64"}, "linux/amd64", None),
        (None, {"Os": "linux", "Architecture": "amd64", "Variant": "v2"}, "linux/amd64", None),
        (None, {"Os": "linux", "Architecture": "386", "Variant": ""}, "linux/amd64", "linux/386"),
        (None, {"Os": "linux", "Architecture": "arm64", "Variant": "v8"}, "linux/amd64", "linux/arm64/v8"),
        (None, {"Os": "linux", "Architecture": "arm64"}, "", None),
        (None, {"Os": "linux", "Architecture": ""}, "linux/amd64", None),
        ({"platform": ARM}, {"Os": "linux", "Architecture": "amd64"}, "linux/amd64", "linux/arm"),
        ({"platform": None}, {"Os": "linux", "Architecture": "amd64"}, "linux/amd64", None),
    ],
)
def test_a_foreign_platform_is_kept(descriptor, of_image, engine, kept):
    """Row 40: a container of another platform than the engine's stays on it; the others ask for none."""
    old = container(ImageManifestDescriptor=descriptor)
    assert foreign_platform(old, of_image, engine=engine) == kept
    request = request_for(old, old_image=image() | {"Variant": ""} | of_image, engine=EngineDefaults(platform=engine))
    assert request.platform == kept


@pytest.mark.parametrize(
    "asked, live, notes",
    [
        ({"80/tcp": [{"HostPort": "8080"}]}, {"80/tcp": [{"HostPort": "8080"}, {"HostPort": "8080"}]}, ()),
        ({"80/tcp": [{"HostPort": ""}]}, {"80/tcp": [{"HostPort": "49153"}, {"HostPort": "49153"}]}, ("49153",)),
        ({"80/tcp": None}, {"80/tcp": [{"HostPort": "49153"}]}, ("49153",)),
        ({"80/tcp": [{"HostPort": "8000-8010"}]}, {"80/tcp": [{"HostPort": "8003"}]}, ("8003",)),
        (None, {"80/tcp": [{"HostPort": "49153"}], "81/tcp": None}, ("49153",)),
        ({}, None, ()),
    ],
)
def test_a_port_that_the_engine_chose_may_change_and_the_log_says_so(asked, live, notes):
    """Row 29: a random port was asked for and stays one; a fixed one is worth no word."""
    old = container(host={"PortBindings": asked})
    old["NetworkSettings"]["Ports"] = live
    request = request_for(old)
    said = (f"80/tcp was published on port {port}, which the engine chose; it chooses anew" for port in notes)
    assert request.notes == tuple(said)
    assert request.body["HostConfig"]["PortBindings"] == asked


@pytest.mark.parametrize("config, seconds", [({}, 10), ({"StopTimeout": 300}, 300), ({"StopTimeout": 0}, 0)])
def test_the_stop_grace_is_the_containers_own(config, seconds):
    """Row 22: a stop is given the time that the container asks for, or the engine's ten seconds."""
    assert stop_grace_seconds(container(config=config)) == seconds


def test_what_keeps_its_volume_though_it_removes_itself_is_said():
    """Row 21: the engine takes away only those volumes of a --rm container that it was not told the names of."""
    mounts = [volume("/data", "a" * 64), volume("/asked", "mine"), volume("/mounted", "other")]
    host = {"Binds": ["mine:/asked"], "Mounts": [{"Type": "volume", "Source": "other", "Target": "/mounted"}]}
    assert request_for(container(host=host, Mounts=mounts)).notes == ()
    (note,) = request_for(container(host=host | {"AutoRemove": True}, Mounts=mounts)).notes
    assert note == "/data keeps its volume aaaaaaaaaaaa for good, also when --rm removes the container"


@pytest.mark.parametrize("api, connects", [((1, 41), ["b"]), ((1, 45), [])])
def test_a_request_can_be_made_without_names(api, connects):
    """Started first, nobody is to find it yet: all but its aliases is asked for, on each network."""
    asked = {"a": endpoint(Aliases=["web"], DriverOpts={"x": "y"}), "b": endpoint(Aliases=["there"])}
    request = request_for(container(host={"NetworkMode": "a"}, networks=asked), api=api)
    assert {name: each.get("Aliases") for name, each in request.endpoints.items()} == {"a": ["web"], "b": ["there"]}
    bare = request.unnamed()
    assert bare.endpoints == {"a": {"DriverOpts": {"x": "y"}}, "b": {}}
    assert [connect.network for connect in bare.connects] == connects
    assert bare.body | {"NetworkingConfig": None} == request.body | {"NetworkingConfig": None}


def test_a_request_survives_the_journal():
    """What is read from the journal after a crash is what was written: the same body, platform and connects."""
    old = container(host={"NetworkMode": "a"}, networks={"a": endpoint(), "b": endpoint(Aliases=["é"])})
    request = request_for(old, api=(1, 41), old_image=image() | {"Architecture": "arm"}, engine=EngineDefaults())
    assert CreateRequest.from_json(request.to_json()) == request


def test_a_request_does_not_print_its_secrets():
    """An environment holds secrets: the representation of a request, which an error may show, leaves the body out."""
    assert "hunter2" not in repr(request_for(container(config={"Env": ["PASSWORD=hunter2"]})))


# --- for any options and any image -----------------------------------------------------------------------------------

names = st.sampled_from(["A", "B", "C"])
words = st.sampled_from(["1", "2"])
commands = st.sampled_from([None, ["one"], ["two", "2"]])
maps = st.dictionaries(names, words, max_size=3)
sets = st.dictionaries(names, st.just({}), max_size=3)
environments = maps.map(lambda env: [f"{name}={value}" for name, value in env.items()])
healthchecks = st.none() | st.dictionaries(st.sampled_from(list(TEST)), st.integers(1, 3), max_size=3)


def configs(entrypoints):
    return st.fixed_dictionaries(
        {
            "Env": environments,
            "Labels": maps,
            "Volumes": sets,
            "ExposedPorts": sets,
            "User": st.sampled_from(["", "1", "2"]),
            "WorkingDir": st.sampled_from(["", "/1", "/2"]),
            "StopSignal": st.sampled_from(["", "SIGINT", "SIGTERM"]),
            "Healthcheck": healthchecks,
            "Entrypoint": entrypoints,
            "Cmd": commands,
        }
    )


OPTIONS = (
    "Env",
    "Labels",
    "Volumes",
    "ExposedPorts",
    "User",
    "WorkingDir",
    "StopSignal",
    "Healthcheck",
    "Entrypoint",
    "Cmd",
)
images = configs(commands)
requests = configs(st.sampled_from([None, [""], [], ["one"], ["two", "2"]]))


def comparable(config):
    """Give a configuration without what makes no difference: the order of the environment, null for empty."""
    return {key: sorted(config[key]) if key == "Env" else config[key] or None for key in OPTIONS}


def recreated(asked, old_defaults, new_defaults):
    """Create with options on an image, recreate on another one; give both configurations as the engine shows them."""
    inspected = merged(asked, old_defaults)
    assume(inspected["Entrypoint"] or inspected["Cmd"])  # "no command specified": the engine makes no such container
    body = body_for(container(config=inspected), old_image=image(**old_defaults))
    return inspected, merged(body, new_defaults)


@settings(max_examples=50)
@given(asked=requests, defaults=images)
def test_on_the_same_image_any_container_comes_back_the_same(asked, defaults):
    """Rows 4 to 10: for any options and any image, the image taken for its own successor changes nothing."""
    inspected, again = recreated(asked, defaults, defaults)
    assert comparable(again) == comparable(inspected)


@settings(max_examples=50)
@given(old_defaults=images, new_defaults=images)
def test_no_default_of_an_old_image_outlives_it(old_defaults, new_defaults):
    """Rows 4 to 10: for any two images, a container without options is afterwards as if made on the new one."""
    nothing = dict.fromkeys(OPTIONS)
    _, now = recreated(nothing, old_defaults, new_defaults)
    assert comparable(now) == comparable(merged(nothing, new_defaults))


@settings(max_examples=50)
@given(asked=requests, old_defaults=images, new_defaults=images)
def test_no_value_of_a_user_is_lost(asked, old_defaults, new_defaults):
    """Rows 4 to 10: for any options and any two images, what the user set and the old image did not is still there."""
    _, now = recreated(asked, old_defaults, new_defaults)
    assert set(asked["Env"]) - set(old_defaults["Env"]) <= set(now["Env"])
    for key in ("Labels", "Volumes", "ExposedPorts", "Healthcheck"):
        mine, theirs, left = ((config[key] or {}).items() for config in (asked, old_defaults, now))
        assert all(item in left for item in mine if item not in theirs)
    for key in ("User", "WorkingDir", "StopSignal"):
        assert asked[key] in {"", old_defaults[key], now[key]}
    # That an entrypoint was cleared on an image without one, no inspect shows.
    undetectable = [None, [], old_defaults["Entrypoint"], *([] if old_defaults["Entrypoint"] else [[""]])]
    if asked["Entrypoint"] not in undetectable:
        assert (now["Entrypoint"] or [""], now["Cmd"]) == (asked["Entrypoint"], asked["Cmd"])
