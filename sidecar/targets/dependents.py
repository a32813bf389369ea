"""Containers that have a namespace, volumes or a link of another: which they are, and their next call. Pure.

A reference to another container is to that one, whatever comes under its name: once the target is replaced, they have
to be made again against the new one. They are stopped before it, and made again, each from its own record and on its
own image, once the new one has passed its gate; after a rollback they are started again. Nothing here is about the
image of any of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.core.target import State
from sidecar.targets.calls import Blocked, Call, Create, Of, Pause, Remove, Rename, Restart, Start, Stop, Unpause

Json = dict[str, Any]

_IS_UP = frozenset({State.RUNNING, State.RESTARTING})
_IS_MEANT_STOPPED = frozenset({State.EXITED, State.CREATED})
_NAMESPACES = ("NetworkMode", "IpcMode", "PidMode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """One container of a dependent.

    Attributes:
        references: the ids of containers that it was made from.
        is_dangling: one of those is gone, so that it cannot run.
        is_mistaken: it was made for a rollout and is of another image, for its tag named that when the engine looked.
    """

    id: str
    image_id: str
    state: State
    references: frozenset[str] = frozenset()
    is_complete: bool = True
    is_dangling: bool = False
    is_mistaken: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependent:
    """A container that goes with the target, or is only started anew after it.

    Attributes:
        id, image_id, run_state: of the container that there was when the rollout was prepared.
        needs: names of other dependents that it has something of, beside the target.
        stays: ids of the containers that it has something of and that stay.
        shares_namespace: it runs only while those do that it was made from.
        is_remade: it is made again; otherwise it only asks, by Compose's ``restart: true``, to be started anew.
        is_given_up: it could not be made again for a while, and nobody waits for it any more.
        is_started, is_paused: that was done, for this rollout, to the container that there is now.
    """

    name: str
    id: str
    image_id: str
    run_state: State
    needs: frozenset[str] = frozenset()
    stays: frozenset[str] = frozenset()
    shares_namespace: bool = False
    is_remade: bool = True
    is_given_up: bool = False
    is_started: bool = False
    is_paused: bool = False
    current: Beside | None = None
    candidate: Beside | None = None

    @property
    def is_stopped(self) -> bool:
        """Say whether it is stopped, and is to run."""
        is_to_run = self.is_remade and self.run_state not in _IS_MEANT_STOPPED
        return is_to_run and self.current is not None and self.current.state in _IS_MEANT_STOPPED


# --- which they are --------------------------------------------------------------------------------------------------


def references(host: Json) -> set[str]:
    """Give the containers that one of this configuration was made from, by name or id as the engine shows them."""
    # A link of the default network holds on to the container itself, under whatever name that has.
    links = {link.partition(":")[0].lstrip("/") for link in host.get("Links") or []}
    return _namespaces(host) | {entry.partition(":")[0] for entry in host.get("VolumesFrom") or []} | links


def shares_namespace(host: Json) -> bool:
    """Say whether a container of this configuration lives in another's network, IPC or PID namespace."""
    return bool(_namespaces(host))


def _namespaces(host: Json) -> set[str]:
    modes = [str(host.get(key) or "").partition(":") for key in _NAMESPACES]
    return {parent for kind, _, parent in modes if kind == "container"}


def meant_by(reference: str, containers: Iterable[Json]) -> Json | None:
    """Find the container that a reference means; the engine takes a name before the beginning of an id."""
    found = list(containers)
    named = next((each for each in found if each["Name"] == f"/{reference}"), None)
    return named or next((each for each in found if reference and each["Id"].startswith(reference)), None)


def dependents_of(container: Json, others: Collection[Json]) -> list[Json]:
    """Give every container that has something of this one, or of one that has; whoever has something comes later."""
    everything = [container, *(other for other in others if other["Id"] != container["Id"])]
    parents = {
        each["Id"]: {of["Id"] for name in references(each["HostConfig"]) if (of := meant_by(name, everything))}
        for each in everything
    }
    found: list[Json] = []
    known = {container["Id"]}
    while fresh := [
        each
        for each in sorted(everything, key=lambda each: str(each["Name"]))
        if each["Id"] not in known and not parents[each["Id"]].isdisjoint(known)
    ]:
        found += fresh
        known |= {each["Id"] for each in fresh}
    return _parents_first(found, parents)


def _parents_first(found: Sequence[Json], parents: dict[str, set[str]]) -> list[Json]:
    ordered: list[Json] = []
    left = list(found)
    while left:
        waiting = {each["Id"] for each in left}
        # A container cannot have been made from one that was made from it.
        ready = [each for each in left if parents[each["Id"]].isdisjoint(waiting - {each["Id"]})]
        ordered += ready or left
        left = [each for each in left if each not in ordered]
    return ordered


# --- their next call -------------------------------------------------------------------------------------------------


def stop(dependents: Sequence[Dependent]) -> Of | None:
    """Give the call that stops the next of them, before what they were made from is; the last ones first."""
    for each in reversed(dependents):
        is_there = each.is_remade and each.current is not None and each.current.id == each.id
        if is_there and each.current is not None and (call := _quiet(each.current)) is not None:
            return Of(each.name, call)
    return None


def restore(dependents: Sequence[Dependent], *, goal: str, is_replaced: bool, is_up: bool) -> Of | None:
    """Give the next call after which one more of them has what it had, of the container that is in place by now.

    Args:
        goal: the id of that container.
        is_replaced: it is another one than the one that they were made from.
        is_up: it runs.
    """
    there: dict[str, str] = {}
    for each in dependents:
        if not each.is_remade or (each.current is None and each.candidate is None):
            continue  # somebody removed it
        if each.is_given_up or not each.needs <= there.keys():
            if (left := _leave(each)) is not None:
                return Of(each.name, left)
            continue  # or somebody removed what it needs
        allowed = {goal, *each.stays, *(there[name] for name in each.needs)}
        is_first = each.current is not None and each.current.id == each.id
        is_stale = each.current is not None and ((is_first and is_replaced) or each.current.is_dangling)
        if (call := _remake(each, allowed, is_stale=is_stale) or _run(each, is_up=is_up)) is not None:
            return Of(each.name, call)
        there |= {each.name: each.current.id} if each.current is not None else {}
    return None


def clear(dependents: Sequence[Dependent]) -> Of | None:
    """Give the next call after which they are as they can be where the target is gone for good."""
    for each in dependents:
        if each.is_remade and (call := _leave(each)) is not None:
            return Of(each.name, call)
    return None


def restart(dependents: Iterable[Dependent]) -> Of | None:
    """Give the call that starts the next one anew that asks for that and runs."""
    for each in dependents:
        if not each.is_remade and not each.is_started and each.current is not None and each.current.state in _IS_UP:
            return Of(each.name, Restart(each.current.id))
    return None


def _remake(each: Dependent, allowed: Collection[str], *, is_stale: bool) -> Call | Blocked | None:
    current, candidate = each.current, each.candidate
    if candidate is not None and candidate.image_id != each.image_id:
        return Remove(candidate.id, volumes=True) if candidate.is_mistaken else Blocked(candidate.id)
    is_wanted = current is None or is_stale
    if candidate is not None and not (is_wanted and candidate.is_complete and candidate.references <= set(allowed)):
        return _discard(candidate, volumes=True)
    if candidate is None:
        return Create() if is_stale else None
    if current is not None:
        return _discard(current, volumes=False)
    return Rename(candidate.id)


def _leave(each: Dependent) -> Call | None:
    """Leave one as it can be where what it was made from is gone: nothing of ours beside it, and running if it can."""
    candidate = each.candidate
    if candidate is not None and (candidate.is_mistaken or candidate.image_id == each.image_id):
        # With the name it is that container; without it, it would be one more.
        is_all = each.current is None and not candidate.is_mistaken
        return Rename(candidate.id) if is_all else _discard(candidate, volumes=True)
    return _run(each, is_up=False)


def _run(each: Dependent, *, is_up: bool) -> Call | None:
    current = each.current
    if current is None or each.run_state in _IS_MEANT_STOPPED:
        return None
    if current.state in _IS_MEANT_STOPPED and not each.is_started and (is_up or not each.shares_namespace):
        return Start(current.id)
    if current.state is State.RUNNING and each.run_state is State.PAUSED and not each.is_paused:
        return Pause(current.id)
    return None


def _discard(container: Beside, *, volumes: bool) -> Call:
    return _quiet(container) or Remove(container.id, volumes=volumes)


def _quiet(container: Beside) -> Call | None:
    if container.state is State.PAUSED:
        return Unpause(container.id)
    return Stop(container.id) if container.state in _IS_UP else None
