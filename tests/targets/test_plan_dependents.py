"""Which containers cannot be made again with the one that they depend on."""

from typing import Any

import pytest

from sidecar.core.watchtower import Rules
from sidecar.targets.discovery import Scope
from sidecar.targets.plan_dependents import refusal_of_dependents

Json = dict[str, Any]
WATCHTOWER = "com.centurylinklabs.watchtower"


class Store:
    """An engine of which only the images are asked."""

    api_version = (1, 45)
    is_podman = False

    async def inspect_image(self, ident: str) -> Json | None:
        return {"Id": ident}


def container(name: str, network: str = "bridge", **labels: str) -> Json:
    """Make the inspect of a container."""
    return {
        "Id": f"id-of-{name}",
        "Name": f"/{name}",
        "Image": "sha256:1",
        "Config": {"Image": "app:1", "Labels": labels},
        "HostConfig": {"NetworkMode": network},
        "NetworkSettings": {"Networks": {}},
        "Mounts": [],
    }


@pytest.mark.parametrize(
    "labels, compat, words",
    [
        ({}, None, None),
        ({"sidecar.enable": "false"}, None, "its label sidecar.enable is false"),
        ({f"{WATCHTOWER}.enable": "false"}, None, None),
        ({f"{WATCHTOWER}.enable": "false"}, Rules(), f"label {WATCHTOWER}.enable='false' leaves it out"),
        ({}, Rules(disable_containers=frozenset({"vpn-user"})), "WATCHTOWER_DISABLE_CONTAINERS leaves it out"),
    ],
)
async def test_what_is_left_out_is_not_made_again_either(
    labels: dict[str, str], compat: Rules | None, words: str | None
) -> None:
    """Whose network it has is held for it; by Watchtower's labels too where they count."""
    parent, user = container("vpn"), container("vpn-user", "container:id-of-vpn", **labels)
    scope = Scope(compat=compat)
    refusal = await refusal_of_dependents(Store(), parent, [parent, user], scope=scope)  # type: ignore[arg-type]
    assert refusal is words or (words is not None and refusal is not None and refusal.endswith(words))
