"""Looks at the containers of one target: the one in its place, and what a rollout left beside it. Changes nothing."""

from __future__ import annotations

from asyncio import gather
from dataclasses import dataclass
from typing import Any

from sidecar.core.gate import is_changed_by_others
from sidecar.core.rollout import Phase, Rollout
from sidecar.targets._engine import Engine
from sidecar.targets.names import CANDIDATE_SUFFIX, PARKED_SUFFIX, replacement_of
from sidecar.targets.spec import CreateRequest

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The three containers of a target, inspected; and the engine's clock.

    Attributes:
        is_taken_down: the old one of an update is gone though no call of ours removed it, and so is a network of it: as
            after `docker compose down`. Where only containers are gone it may have been a prune.
    """

    now: float
    current: Json | None
    candidate: Json | None = None
    parked: Json | None = None
    is_taken_down: bool = False


async def look(engine: Engine, name: str, rollout: Rollout | None) -> Look:
    """Inspect what bears a target's name, and with a rollout what bears the names that it gives as well."""
    if rollout is None:
        now, current = await _inspect(engine, name)
        return Look(now=now, current=current)
    # Side by side: between the stop of the old one and the start of the new one every look counts.
    names = (name, name + CANDIDATE_SUFFIX, name + PARKED_SUFFIX)
    (now, current), (at_candidate, candidate), (at_parked, parked) = await gather(
        *(_inspect(engine, each) for each in names)
    )
    # One that removes itself is gone without anybody's doing; any other is put aside by us before it leaves its place.
    was_removed = parked is None and rollout.from_.instance is not None and not rollout.auto_remove
    if current is None and (was_removed or is_changed_by_others(rollout, None)):
        now, current = await _replacement(engine, name, rollout)
    now = max(now, at_candidate, at_parked) or await engine.ping()
    is_gone = was_removed and current is None and rollout.phase is Phase.UPDATING and rollout.superseded is None
    is_taken_down = is_gone and rollout.is_begun and await _lacks_network(engine, rollout)
    return Look(now=now, current=current, candidate=candidate, parked=parked, is_taken_down=is_taken_down)


async def _lacks_network(engine: Engine, rollout: Rollout) -> bool:
    request = (rollout.plan or {}).get("request")
    wanted = CreateRequest.from_json(request).endpoints if request is not None else {}
    return not all([await engine.has_network(name) for name in wanted])


async def _replacement(engine: Engine, name: str, rollout: Rollout) -> tuple[float, Json | None]:
    """Look for what Compose has made to bear the name since ours bore it, or since the rollout began."""
    # By the engine's clock, which may be another machine's; that of the start is ours.
    began_at = (rollout.plan or {}).get("prepared_at", rollout.started_at)
    since = rollout.goal_started_at if rollout.goal_started_at is not None else began_at
    entries = await engine.list_containers(filters={"name": [f"_{name}"]})
    found = replacement_of(name, entries, since=since)
    inspected = await engine.inspect_container(found) if found is not None else None
    return (inspected[1], inspected[0]) if inspected is not None else (0.0, None)


async def _inspect(engine: Engine, name: str) -> tuple[float, Json | None]:
    inspected = await engine.inspect_container(name)
    # The engine takes the beginning of an id for a name as well.
    if inspected is None or inspected[0]["Name"] != f"/{name}":
        return 0.0, None
    return inspected[1], inspected[0]
