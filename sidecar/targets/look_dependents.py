"""Looks at what goes with a target while a rollout of it is open, for ``dependents`` to decide by; changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sidecar.core.gate import is_changed_by_others
from sidecar.core.image import ImageRef
from sidecar.core.rollout import Phase, Rollout
from sidecar.core.target import State
from sidecar.targets import containers as reading
from sidecar.targets._engine import Engine
from sidecar.targets.copying import has_copies
from sidecar.targets.dependents import Beside, Dependent, references
from sidecar.targets.images import Images
from sidecar.targets.looking import Look
from sidecar.targets.names import CANDIDATE_SUFFIX, is_full_id, own_name
from sidecar.targets.spec import CreateRequest

Json = dict[str, Any]


async def look_at_dependents(engine: Engine, images: Images, rollout: Rollout, seen: Look) -> tuple[Dependent, ...]:
    """Look at what goes with a target, where a call may be due for it, by one list call.

    Args:
        seen: the target itself.
    """
    planned = (rollout.plan or {}).get("dependents", ())
    in_place = seen.current["Id"] if seen.current is not None else None
    is_between = in_place in (None, rollout.to.instance, rollout.superseded)
    is_left = seen.is_taken_down or is_changed_by_others(rollout, in_place)
    if not planned or (rollout.phase is Phase.UPDATING and is_between and not is_left):
        return ()
    entries = {own_name(entry): entry for entry in await engine.list_containers()}
    there = {entry["Id"] for entry in entries.values()}
    found = []
    for each in planned:
        current, candidate = entries.get(each["name"]), entries.get(each["name"] + CANDIDATE_SUFFIX)
        made = _dependent(each, current)
        if made.current is not None and made.current.id != each["id"]:
            made = replace(made, current=await _checked(engine, made.current, there | made.stays))
        if candidate is not None:
            made = replace(made, candidate=await _candidate(engine, images, each, candidate["Id"]))
        found.append(made)
    return tuple(found)


async def _checked(engine: Engine, made: Beside, there: Collection[str]) -> Beside:
    """Look whether what was made again, by us or by somebody else, was made from something that is gone by now."""
    inspected = await engine.inspect_container(made.id)
    found = _parents(inspected[0]) if inspected is not None else frozenset()
    return replace(made, references=found, is_dangling=not found <= set(there))


async def _candidate(engine: Engine, images: Images, planned: Json, ident: str) -> Beside | None:
    """Look at what was made to take the place of a dependent."""
    if (inspected := await engine.inspect_container(ident)) is None:
        return None
    container, state = inspected[0], reading.state_of(inspected[0])
    request, ref, copies = CreateRequest.from_json(planned["request"]), planned["ref"], planned.get("copies")
    is_mistaken = False
    if container["Image"] != planned["image_id"] and ref is not None and state is State.CREATED:
        # As with the target: made by its tag, after that was put back for a caller whose connection broke.
        is_mistaken = container["Image"] == await images.id_of(ImageRef.parse(ref).familiar)
    is_connected = reading.is_connected(container, (connect.network for connect in request.connects))
    return Beside(
        id=container["Id"],
        image_id=container["Image"],
        state=state,
        references=_parents(container),
        is_complete=is_connected and (not copies or await has_copies(engine, container, copies)),
        is_mistaken=is_mistaken,
    )


def _dependent(planned: Mapping[str, Any], entry: Json | None) -> Dependent:
    return Dependent(
        **{key: planned[key] for key in ("name", "id", "image_id", "is_remade", "shares_namespace")},
        run_state=State(planned["run_state"]),
        is_given_up=bool(planned.get("is_given_up")),
        needs=frozenset(planned["needs"]),
        stays=frozenset(planned["stays"]),
        is_started=entry is not None and planned.get("started_id") == entry["Id"],
        is_paused=entry is not None and planned.get("paused_id") == entry["Id"],
        current=None if entry is None else _listed(entry),
    )


def _listed(entry: Json) -> Beside:
    return Beside(id=entry["Id"], image_id=entry["ImageID"], state=reading.state_named(entry["State"]))


def _parents(container: Json) -> frozenset[str]:
    return frozenset(filter(is_full_id, references(container["HostConfig"])))
