"""From the networks in an inspect to the networks in a create request; must not send what the engine chose itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]
Api = tuple[int, int]

MANY_AT_CREATE: Api = (1, 44)  # the first version that takes several networks, and a MAC address on each
GATEWAY_PRIORITY: Api = (1, 48)
# The engine resolves no names on these, and refuses aliases there.
_WITHOUT_ALIASES = frozenset({"default", "bridge", "host", "none"})
SHORT_ID_LENGTH = 12
PODMAN_KEY = "Podman"
"""Beside the fields of an inspect: what Podman's own API adds to it; absent where the engine is Docker."""
# How the MAC addresses begin that engines make up; from this version on they make up any that is locally administered.
_MADE_UP_MAC = "02:42:"
_ANY_LOCAL_MAC: Api = (1, 48)
_LOCALLY_ADMINISTERED = 0x02


def short_id(container: Json) -> str:
    """Give the abbreviated id that the engine uses as hostname and alias where none was asked for."""
    return str(container["Id"])[:SHORT_ID_LENGTH]


def networks(container: Json) -> Mapping[str, Json]:
    """Give the endpoints of a container by the name of their network."""
    return (container.get("NetworkSettings") or {}).get("Networks") or {}


def endpoints(container: Json, *, api: Api) -> dict[str, Json]:
    """Give what was asked for on each network, in the order of the inspect, the primary one first."""
    primary = _primary(container)
    asked = {name: endpoint_config(container, name, api=api) for name in networks(container)}
    mac_address = (container.get("Config") or {}).get("MacAddress")
    if mac_address and primary in asked and api >= MANY_AT_CREATE:
        # The inspect says there what was asked for on the primary network; what an endpoint shows may be generated.
        asked[primary]["MacAddress"] = mac_address
    return dict(sorted(asked.items(), key=lambda item: item[0] != primary))


def endpoint_config(container: Json, name: str, *, api: Api) -> Json:
    """Give what was asked for on one network: never its operational addresses, gateways and ids."""
    endpoint = networks(container)[name] or {}
    ipam = {key: value for key, value in (endpoint.get("IPAMConfig") or {}).items() if value}
    asked: Json = {"IPAMConfig": ipam} if ipam else {}
    asked |= {key: endpoint[key] for key in ("Links", "DriverOpts") if endpoint.get(key)}
    if endpoint.get("GwPriority") and api >= GATEWAY_PRIORITY:
        asked["GwPriority"] = endpoint["GwPriority"]
    if api >= MANY_AT_CREATE and _is_chosen(endpoint.get("MacAddress") or _MADE_UP_MAC, api):
        asked["MacAddress"] = endpoint["MacAddress"]
    # Engines before 25, and API versions before 1.45, list the short id among the aliases. It would stay for ever.
    aliases = [alias for alias in endpoint.get("Aliases") or [] if alias != short_id(container)]
    if aliases and name not in _WITHOUT_ALIASES:
        asked["Aliases"] = aliases
    return asked


def _is_chosen(mac_address: str, api: Api) -> bool:
    """Say whether no engine makes up such a MAC address; which of the others a user chose, no inspect says."""
    if api < _ANY_LOCAL_MAC:
        return not mac_address.startswith(_MADE_UP_MAC)
    return not int(mac_address[:2], 16) & _LOCALLY_ADMINISTERED


def _primary(container: Json) -> str:
    """Name the network that the container was created with, or the first one where that was disconnected by hand."""
    mode = str(container["HostConfig"].get("NetworkMode") or "default")
    mode = "bridge" if mode == "default" else mode
    found = networks(container)
    if mode in found:
        return mode
    # It may be written as the id of the network, in full or shortened.
    by_id = (name for name, endpoint in found.items() if str((endpoint or {}).get("NetworkID") or "").startswith(mode))
    return next(by_id, next(iter(found), ""))
