"""Whether a new container can be started beside the old one, and what keeps it from that. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sidecar.core.policy import PREFIX
from sidecar.core.target import State
from sidecar.targets.containers import state_of
from sidecar.targets.endpoints import Api, endpoint_config, networks

Json = dict[str, Any]

_ONLY_ONE = ("host", "none")
_CHOSEN_BY_THE_ENGINE = ("", "0")


def obstacle(
    container: Json, *, api: Api, may_share_volumes: bool, dependents: bool, is_own: bool = False
) -> str | None:
    """Say why the old one has to be stopped first; None where it need not.

    Args:
        may_share_volumes: the user says that two may write to one volume.
        dependents: other containers have something of it.
        is_own: it is the Sidecar that asks.
    """
    reasons = [*_reasons(container, api), *(() if may_share_volumes else _written_by_both(container))]
    if is_own:
        reasons.append("two Sidecars cannot have one state folder")
    if dependents:
        reasons.append("other containers have a namespace, volumes or a link of it")
    return "; ".join(reasons) or None


def _reasons(container: Json, api: Api) -> Iterator[str]:
    host = container["HostConfig"]
    if state_of(container) not in (State.RUNNING, State.RESTARTING):
        yield f"it is {state_of(container)}"
    if host.get("AutoRemove"):
        yield "it was made with --rm"
    for port, bindings in sorted((host.get("PortBindings") or {}).items()):
        fixed = [binding["HostPort"] for binding in bindings or [] if _is_fixed(binding)]
        if fixed:
            yield f"{port} is published on port {', '.join(fixed)}, which only one can have"
    mode = str(host.get("NetworkMode") or "")
    if mode in _ONLY_ONE or mode.startswith("container:"):
        yield f"its network is {mode.partition(':')[0]}"
    for name in sorted(networks(container)):
        asked = endpoint_config(container, name, api=api)
        chosen = [*(asked.get("IPAMConfig") or {}).values(), asked.get("MacAddress")]
        if any(chosen):
            yield f"it has an address of its own on network {name}"
    if (container.get("Config") or {}).get("MacAddress"):
        yield "it has a MAC address of its own"
    if host.get("Devices"):
        yield "it has devices of the host"


def _is_fixed(binding: Json) -> bool:
    return binding.get("HostPort") not in (None, *_CHOSEN_BY_THE_ENGINE)


def _written_by_both(container: Json) -> Iterator[str]:
    for mount in container.get("Mounts") or []:
        if mount.get("Type") in ("volume", "bind") and mount.get("RW", True):
            yield (
                f"both would write to {mount['Destination']}; if they may, label it {PREFIX}start-first-volumes=true"
            )
