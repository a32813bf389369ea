"""What only engines know that cannot be run here: recorded inspects go through `spec.py` as those would."""

from __future__ import annotations

import pytest

from sidecar.targets.losses import difference, unsupported
from sidecar.targets.spec import EngineDefaults, create_request
from tests.targets import engine29

NEWEST = (1, 52)
ENGINE = EngineDefaults(platform="linux/amd64", hostname="host", runtime="runc")
OLD_IMAGE = engine29.image(engine29.OLD_INDEX, engine29.OLD_MANIFEST, "1")
NEW_IMAGE = engine29.image(engine29.NEW_INDEX, engine29.NEW_MANIFEST, "2")


def request_for(container, api=NEWEST):
    images = {"old_image": OLD_IMAGE, "new_image": NEW_IMAGE, "image": "shop/web:stable"}
    return create_request(container, **images, api=api, engine=ENGINE)


def endpoints_for(container):
    return request_for(container).body["NetworkingConfig"]["EndpointsConfig"]


@pytest.mark.fidelity(12, 15, 16, by="record")
def test_a_gateways_priority_stays():
    """Row 16: which network the default route leads to stays, beside names and static addresses."""
    names = {"Aliases": ["shop-web-1", "web"]}
    assert endpoints_for(engine29.container()) == {
        "shop_front": {"GwPriority": 9} | names,
        "shop_back": {"IPAMConfig": {"IPv4Address": "172.19.0.9"}} | names,
    }


@pytest.mark.fidelity(14, by="record")
def test_a_mac_address_that_the_inspect_hides_goes_to_its_endpoint():
    """Row 14: the address asked for, read in an older version, is sent on the endpoint; on top it would be refused."""
    old = engine29.container()
    assert all("MacAddress" not in endpoint for endpoint in endpoints_for(old).values())  # made up by the engine
    old["Config"]["MacAddress"] = "de:ad:be:ef:00:01"
    assert endpoints_for(old)["shop_front"]["MacAddress"] == "de:ad:be:ef:00:01"
    assert "MacAddress" not in request_for(old).body


@pytest.mark.fidelity(1, 27, by="record")
def test_a_mounted_image_stays():
    """Row 27: an image that is mounted, or a folder of it, is mounted again, beside a folder of a volume."""
    old = engine29.container()
    assert request_for(old).body["HostConfig"]["Mounts"] == old["HostConfig"]["Mounts"]


@pytest.mark.fidelity(33, 34, by="record")
def test_compose_finds_the_manifest_that_it_looks_for():
    """Rows 33 and 34: from 5.5 on Compose compares the platform's manifest; the label names the new image's."""
    old, labels = engine29.container(), request_for(engine29.container()).body["Labels"]
    changed = {key: value for key, value in labels.items() if old["Config"]["Labels"].get(key) != value}
    assert changed == {"com.docker.compose.image": engine29.NEW_MANIFEST}
    assert labels.keys() == old["Config"]["Labels"].keys()


@pytest.mark.fidelity(4, 5, 7, 9, 40, by="record")
def test_the_defaults_of_the_image_are_left_to_the_new_one():
    """Rows 4 to 10 and 40: what newer engines leave out of an inspect is no default lost, and the platform its own."""
    request = request_for(engine29.container())
    kept = {key for key, value in request.body.items() if value not in ("", None, [], {}, False)}
    assert kept == {"Env", "Labels", "Image", "HostConfig", "NetworkingConfig"}
    assert request.body["Env"] == ["OWN=own"]
    assert request.platform is None


@pytest.mark.fidelity(44, by="hold")
@pytest.mark.parametrize("api, reason", [((1, 47), "an image mount needs API 1.48"), (NEWEST, None)])
def test_through_an_older_version_nothing_is_dropped(api, reason):
    """Row 44: where an older API version is spoken with such a container, it is held: the engine would drop that."""
    said = unsupported(engine29.container(), api=api)
    assert said is None if reason is None else reason in str(said)


@pytest.mark.fidelity(26, by="record")
def test_what_the_request_makes_has_lost_nothing():
    """An inspect of what is made so differs in nothing that Sidecar would have to tell of."""
    old, body = engine29.container(), request_for(engine29.container()).body
    config = {key: value for key, value in body.items() if key not in {"HostConfig", "NetworkingConfig"}}
    after = old | {
        "Config": NEW_IMAGE["Config"] | {"Hostname": "", **{key: value for key, value in config.items() if value}},
        "HostConfig": body["HostConfig"] | {"Runtime": "runc"},
    }
    after["Config"]["Env"] = [*NEW_IMAGE["Config"]["Env"], *config["Env"]]
    assert difference(old, after, old_image=OLD_IMAGE, new_image=NEW_IMAGE) == []
