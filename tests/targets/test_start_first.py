"""What keeps a new container from being started beside the old one."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.targets.start_first import obstacle
from tests.targets.inspects import container, endpoint, volume

Json = dict[str, Any]
RUNNING = {"State": {"Status": "running"}}
BIND = {"Type": "bind", "Source": "/srv", "Destination": "/srv", "RW": True}


def why_not(
    *, may_share_volumes: bool = False, dependents: bool = False, is_own: bool = False, **made: Any
) -> str | None:
    values = RUNNING | made
    return obstacle(
        container(**values), api=(1, 45), may_share_volumes=may_share_volumes, dependents=dependents, is_own=is_own
    )


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"State": {"Status": "restarting"}},
        {"host": {"PortBindings": {"80/tcp": [{"HostPort": ""}, {"HostPort": "0"}], "81/tcp": None}}},
        {"networks": {"shop": endpoint(Aliases=["web"]), "other": None}},
        {"networks": {"shop": endpoint(MacAddress="02:42:ac:11:00:02", IPAMConfig={})}},
        {"Mounts": [volume("/data", "v", RW=False), BIND | {"RW": False}, {"Type": "tmpfs", "Destination": "/t"}]},
        {"Mounts": [volume("/data", "v"), BIND], "may_share_volumes": True},
    ],
)
def test_what_only_one_can_have_is_not_in_the_way(made: Json) -> None:
    """Ports that the engine chooses, names, generated addresses, and what is only read or may be shared."""
    assert why_not(**made) is None


@pytest.mark.parametrize(
    "made, reason",
    [
        ({"State": {"Status": "paused"}}, "it is paused"),
        ({"State": {"Status": "exited"}}, "it is exited"),
        ({"host": {"AutoRemove": True}}, "it was made with --rm"),
        (
            {"host": {"PortBindings": {"80/tcp": [{"HostPort": "80"}, {"HostPort": ""}]}}},
            "80/tcp is published on port 80, which only one can have",
        ),
        (
            {"host": {"PortBindings": {"80/tcp": [{"HostPort": "8000-8009"}]}}},
            "80/tcp is published on port 8000-8009, which only one can have",
        ),
        ({"host": {"NetworkMode": "host"}}, "its network is host"),
        ({"host": {"NetworkMode": "none"}}, "its network is none"),
        ({"host": {"NetworkMode": "container:abc"}}, "its network is container"),
        (
            {"networks": {"shop": endpoint(IPAMConfig={"IPv4Address": "10.0.0.9"})}},
            "it has an address of its own on network shop",
        ),
        (
            {"networks": {"shop": endpoint(MacAddress="00:16:3e:00:00:01")}},
            "it has an address of its own on network shop",
        ),
        ({"config": {"MacAddress": "02:42:0a:00:00:01"}}, "it has a MAC address of its own"),
        ({"host": {"Devices": [{"PathOnHost": "/dev/null"}]}}, "it has devices of the host"),
        ({"is_own": True}, "two Sidecars cannot have one state folder"),
        ({"dependents": True}, "other containers have a namespace, volumes or a link of it"),
        (
            {"Mounts": [volume("/data", "v")]},
            "both would write to /data; if they may, label it sidecar.start-first-volumes=true",
        ),
        ({"Mounts": [BIND]}, "both would write to /srv; if they may, label it sidecar.start-first-volumes=true"),
    ],
)
def test_each_obstacle_is_named(made: Json, reason: str) -> None:
    """The reason says what it is, so that its user can take it out of the way."""
    assert why_not(**made) == reason


def test_all_obstacles_are_named_at_once() -> None:
    """Who takes one out of the way should not meet the next one only at the next push."""
    said = why_not(host={"AutoRemove": True, "NetworkMode": "host"}, dependents=True)
    assert said is not None
    assert said.count("; ") == 2
