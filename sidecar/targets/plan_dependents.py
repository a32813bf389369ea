"""Finds whatever goes with a container on an engine, says what would be lost of it, and writes the plan for each.

Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sidecar.core.image import ImageRef
from sidecar.core.policy import PREFIX, is_enabled
from sidecar.targets import dependents as going_with
from sidecar.targets import podman
from sidecar.targets._engine import Engine
from sidecar.targets.containers import state_of
from sidecar.targets.copying import find_copies
from sidecar.targets.discovery import Scope, asks_for_restart
from sidecar.targets.losses import unsupported
from sidecar.targets.names import base_name, is_full_id, is_image_id
from sidecar.targets.spec import EngineDefaults, create_request
from sidecar.targets.translated import read
from sidecar.targets.written import why_unclear

Json = dict[str, Any]


async def everything_on(engine: Engine) -> list[Json]:
    """Inspect every container in its place; what a rollout has put beside one belongs to that rollout."""
    inspected = [await engine.inspect_container(entry["Id"]) for entry in await engine.list_containers()]
    found = [each[0] for each in inspected if each is not None]
    return [each for each in found if base_name(each["Name"]) == each["Name"]]


def unsupported_by(engine: Engine, container: Json) -> str | None:
    """Say why a container cannot be recreated on this engine without a loss; None where it can."""
    api = max(engine.api_version, podman.KEPT_AS_IN if engine.is_podman else (0, 0))
    return "; ".join(filter(None, (unsupported(container, api=api), *podman.unsupported(container)))) or None


async def refusal_of_dependents(
    engine: Engine, container: Json, everything: Sequence[Json], *, scope: Scope
) -> str | None:
    """Say which container cannot go with this one, and why not; None where all can."""
    for each in going_with.dependents_of(container, everything):
        if (reason := await _refusal_of(engine, each, scope)) is not None:
            name, of = each["Name"].lstrip("/"), container["Name"].lstrip("/")
            return f"{name} has a namespace, volumes or a link of {of}, and cannot be recreated with it: {reason}"
    return None


async def _refusal_of(engine: Engine, container: Json, scope: Scope) -> str | None:
    listed = {"Id": container["Id"], "Names": [container["Name"]], "Labels": container["Config"].get("Labels")}
    words = read(listed, scope.compat)
    if container["Id"] == scope.own_id:
        return "it is the Sidecar that would do it; recreate both by hand"
    if not is_enabled(words.labels, default=True):
        return words.excluded or f"its label {PREFIX}enable is false"
    if container["HostConfig"].get("AutoRemove"):
        return "it was made with --rm, so that nothing is left of it once it stops; stop it, or recreate both by hand"
    if (reason := unsupported_by(engine, container)) is not None:
        return reason
    if unclear := (await find_copies(engine, container)).unclear:
        return why_unclear(container["Name"].lstrip("/"), unclear)
    if await engine.inspect_image(container["Image"]) is None:
        return f"it runs {container['Image']}, which the engine does not have any more; recreate both by hand"
    return None


async def plan_dependents(
    engine: Engine, container: Json, everything: Sequence[Json], *, defaults: EngineDefaults, own_id: str | None
) -> list[Json]:
    """Write down how each is made again, those first that others have something of; then who is started anew."""
    found = going_with.dependents_of(container, everything)
    replaced = {each["Id"]: each["Name"].lstrip("/") for each in (container, *found)}
    plans = [await _plan(engine, each, replaced, everything, defaults=defaults) for each in found]
    labels = container["Config"].get("Labels") or {}
    others = [each for each in everything if each["Id"] not in (*replaced, own_id)]
    asking = [each for each in others if asks_for_restart(each["Config"].get("Labels") or {}, labels)]
    return plans + [_described(each) | {"is_remade": False} for each in asking]


async def _plan(
    engine: Engine, container: Json, replaced: dict[str, str], everything: Sequence[Json], *, defaults: EngineDefaults
) -> Json:
    image = await engine.inspect_image(container["Image"]) or {}
    reference = container["Config"]["Image"]
    request = create_request(
        container, old_image=image, new_image=image, image=reference, api=engine.api_version, engine=defaults
    )
    host, own_name = container["HostConfig"], container["Name"].lstrip("/")
    meant = {name: going_with.meant_by(name, everything) for name in going_with.references(host)}
    # A name leads to whatever bears it by then, an id has to be exchanged.
    parents = {
        name: replaced[found["Id"]]
        for name, found in meant.items()
        if found is not None and found["Id"] in replaced and replaced[found["Id"]] != name
    }
    needs = {replaced[found["Id"]] for found in meant.values() if found is not None and found["Id"] in replaced}
    first = next(iter(replaced.values()))
    return _described(container) | {
        "is_remade": True,
        "ref": _reference(reference),
        "request": request.to_json(),
        "copies": list((await find_copies(engine, container)).copied),
        "parents": parents,
        "needs": sorted(needs - {first, own_name}),
        "stays": sorted(name for name in meant if is_full_id(name) and name not in parents),
        "shares_namespace": going_with.shares_namespace(host),
    }


def _described(container: Json) -> Json:
    return {
        "name": container["Name"].lstrip("/"),
        "id": container["Id"],
        "image_id": container["Image"],
        "run_state": state_of(container).meant,
        "needs": [],
        "stays": [],
        "shares_namespace": False,
    }


def _reference(text: str) -> str | None:
    """Give the reference by which a container is made, where that can come to mean another image."""
    if is_image_id(text):
        return None
    ref = ImageRef.configured(text)
    return str(ref) if ref.digest is None else None
