"""What is there, and the phase -> the next engine call. Pure: it chooses one call, and makes none.

Three slots belong to a container target ``web``: the current one under its own name, the candidate
``web.sidecar-new`` and the parked old one ``web.sidecar-old``. Every row below reads what the engine shows in them
and names one call that brings the phase nearer to its goal, so it does not matter how the slots came to be as they
are: by the call before, by a crash in between, by a person, or by a reboot.

The order of an update is fixed by what a crash of the whole host leaves behind: the candidate exists before the old
one stops; the old one is stopped, then loses its restart policy, then its name, so that a reboot in between brings
it back under its own name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from sidecar.core.gate import is_changed_by_others
from sidecar.core.rollout import Phase, Revision, Rollout
from sidecar.core.target import State
from sidecar.targets import dependents as going_with
from sidecar.targets.calls import (
    POST_UPDATE,
    PRE_UPDATE,
    Adopt,
    Blocked,
    Call,
    Connect,
    Create,
    Disconnect,
    KeepPrevious,
    MoveTag,
    Of,
    Pause,
    Remove,
    Rename,
    RunHook,
    SetRestartPolicy,
    Start,
    Stop,
    Unpause,
)
from sidecar.targets.dependents import Dependent

# What a hook did before the update is of use for so long; later, and with nothing begun, it is run again.
_HOOK_IS_FRESH_SECONDS = 60.0
_NO_RESTART = "no"
_IS_UP = frozenset({State.RUNNING, State.RESTARTING})
_IS_ON = _IS_UP | {State.PAUSED}
_IS_MEANT_STOPPED = frozenset({State.EXITED, State.CREATED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One container.

    Attributes:
        auto_remove: the engine removes it as soon as it ends, and the anonymous volumes that nobody else has.
        is_complete: it is connected to every network it was created for, and has what was copied into the old one.
        unnamed: networks on which it has not all the names that it was made for.
        missing: networks that it was made for, and is not connected to.
        is_misnamed: it is to have the target's name, and Compose did not live to give it.
    """

    id: str
    image_id: str
    state: State
    restart_policy: Mapping[str, Any]
    auto_remove: bool = False
    is_complete: bool = True
    unnamed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    is_misnamed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """What the engine shows of one target.

    Attributes:
        tag_image: what the configured reference names locally now; None when it names nothing.
        tag_is_shared: another container of the same reference runs the image that it names, so it is not ours to move.
        tag_is_overtaken: it names an image that a newer one took the place of before that had passed its gate.
        previous_image: what our own tag keeps as the image before the last update; known while FINISHING only.
        dependents: whatever goes with it, those first that others have something of.
        is_taken_down: somebody removed the old one, and a network of it, before the new one was started.
        now: the engine's clock.
    """

    current: Slot | None = None
    candidate: Slot | None = None
    parked: Slot | None = None
    tag_image: str | None = None
    tag_is_shared: bool = False
    tag_is_overtaken: bool = False
    previous_image: str | None = None
    dependents: tuple[Dependent, ...] = ()
    is_taken_down: bool = False
    now: float = 0.0


def next_call(rollout: Rollout, slots: Slots) -> Call | Of | Blocked | None:
    """Give the next engine call, or None when the engine shows what the phase wants."""
    if slots.is_taken_down or is_changed_by_others(rollout, slots.current.id if slots.current else None):
        return _clear(rollout, slots)
    match rollout.phase:
        case Phase.UPDATING:
            return _update(rollout, slots)
        case Phase.FINISHING:
            return _finish(rollout, slots)
        case Phase.ROLLING_BACK:
            return _roll_back(rollout, slots)
        case _:
            return None


def is_at_rest(rollout: Rollout, slots: Slots) -> bool:
    """Say whether nothing of a rollout is there to go on with or to clean, besides what is in its place."""
    has_ours = any(_is_ours(rollout, slot) for slot in (slots.candidate, slots.parked))
    is_misnamed = slots.current is not None and slots.current.is_misnamed
    call = next_call(rollout, slots)
    is_begin = call == Create() or (isinstance(call, RunHook) and call.hook == PRE_UPDATE)
    return not has_ours and not is_misnamed and (is_begin or isinstance(call, Start | None))


def _update(rollout: Rollout, slots: Slots) -> Call | Of | Blocked | None:
    current, candidate, parked = slots.current, slots.candidate, slots.parked
    if (call := _quiet(parked)) is not None:
        return call  # somebody started the parked one, by `docker compose start` for example
    if current is not None and current.id == rollout.to.instance:
        is_up = current.state in _IS_UP or rollout.run_state in _IS_MEANT_STOPPED
        return None if is_up else _start(current)
    if candidate is None:
        is_old = current is not None and current.id == rollout.from_.instance and not rollout.is_begun
        return (_hook(rollout, PRE_UPDATE, current, now=slots.now) if is_old else None) or Create()
    if candidate.id == rollout.superseded:
        return _discard(candidate)
    if candidate.id != rollout.to.instance:
        is_old_here = any(slot is not None and slot.id == rollout.from_.instance for slot in (current, parked))
        is_old_here = is_old_here or _is_spare(parked, rollout)
        is_mistaken = is_old_here and _is_mistaken(candidate, wanted=rollout.to, other=rollout.from_)
        return Remove(candidate.id, volumes=True) if is_mistaken else _adopt_or_blocked(rollout, candidate)
    # What takes the name before it was ever started has left a network, and joins it again at once.
    is_between_networks = current is None and rollout.is_beside and bool(candidate.missing)
    if not candidate.is_complete and candidate.state is State.CREATED and not is_between_networks:
        return Remove(candidate.id, volumes=True)
    if _is_tag_astray(rollout, slots):
        return MoveTag(rollout.from_.image_id or "")
    if current is None:
        # Started first, it may be off its networks at this moment, and the old one removed by somebody else.
        return (
            Adopt(parked.id, is_old=True) if _is_spare(parked, rollout) else _rejoin(candidate) or Rename(candidate.id)
        )
    if current.id == rollout.superseded:
        return _discard(current)
    if (spare := _have_spare(rollout, current, parked)) is not None:
        return spare
    if rollout.is_beside and current.id == rollout.from_.instance and not _is_taking_over(rollout, candidate):
        return _beside(rollout, candidate)
    return _park(current, slots.dependents)


def _have_spare(rollout: Rollout, current: Slot, parked: Slot | None) -> Call | None:
    """Make what stands in for one of which nothing will be left, while that runs; it has its volumes from then on."""
    if current.auto_remove and current.state in _IS_ON and parked is None:
        return Create(is_old=True, is_parked=True)
    is_half_made = _is_spare(parked, rollout) and not parked.is_complete
    return Remove(parked.id, volumes=True) if parked is not None and is_half_made else None


def _beside(rollout: Rollout, candidate: Slot) -> Call | None:
    """Start the new one, then give it the names of the old one; on a network that takes leaving and joining it."""
    if not rollout.settled:
        return None if candidate.state in _IS_UP else _start(candidate)
    return _rejoin(candidate)


def _rejoin(candidate: Slot) -> Call | None:
    """Give what was started without its names all of them."""
    if candidate.unnamed:
        return Disconnect(candidate.id, candidate.unnamed[0])
    return Connect(candidate.id, candidate.missing[0]) if candidate.missing else None


def _is_taking_over(rollout: Rollout, candidate: Slot) -> bool:
    return rollout.drained_at is not None and not candidate.unnamed and not candidate.missing


def _park(old: Slot, dependents: Sequence[Dependent]) -> Call | Of:
    """Take the running one out of the way, so that a reboot at any point brings it back under its own name."""
    if old.state in _IS_ON and (first := going_with.stop(dependents)) is not None:
        return first
    if (call := _quiet(old)) is not None:
        return call
    if old.auto_remove and old.state is State.EXITED:
        return Remove(old.id, volumes=False)  # it is on its way; what it had in its volumes the new one has
    if old.restart_policy.get("Name") not in ("", _NO_RESTART):
        return SetRestartPolicy(old.id)
    return Rename(old.id, is_parked=True)


def _finish(rollout: Rollout, slots: Slots) -> Call | Of | Blocked | None:
    current, parked = slots.current, slots.parked
    if (call := _quiet(parked)) is not None:
        return call
    if rollout.to.image_id is not None and slots.tag_image != rollout.to.image_id:
        return MoveTag(rollout.to.image_id)
    is_same = rollout.from_.image_id in (None, rollout.to.image_id)  # it went back to what it was in its gate
    if not is_same and slots.previous_image != rollout.from_.image_id:
        return KeepPrevious(rollout.from_.image_id or "")
    if slots.candidate is not None and _is_ours(rollout, slots.candidate):
        return _discard(slots.candidate)
    if current is not None and (rest := _complete(rollout, current, slots)) is not None:
        return rest
    if parked is not None and parked.id == rollout.from_.instance:
        return Remove(parked.id, volumes=False)
    return None


def _complete(rollout: Rollout, current: Slot, slots: Slots) -> Call | Of | None:
    """Give what goes with the new one what it needs of it; then what its user wants done, then the state it had."""
    if (dependent := _restore_dependents(rollout, current, slots)) is not None:
        return dependent
    if not rollout.is_broken and (call := _hook(rollout, POST_UPDATE, current, now=slots.now)) is not None:
        return call
    if (dependent := going_with.restart(slots.dependents)) is not None:
        return dependent
    is_to_pause = rollout.run_state is State.PAUSED and current.state is State.RUNNING
    return Pause(current.id) if is_to_pause else None


def _restore_dependents(rollout: Rollout, current: Slot, slots: Slots) -> Of | None:
    is_replaced = current.id != (rollout.plan or {}).get("container", {}).get("Id", rollout.from_.instance)
    is_up = current.state in _IS_UP
    return going_with.restore(slots.dependents, goal=current.id, is_replaced=is_replaced, is_up=is_up)


def _hook(rollout: Rollout, hook: str, current: Slot | None, *, now: float) -> Call | None:
    plan = rollout.plan or {}
    if current is None or hook not in plan.get("hooks", {}):
        return None
    ran_at = plan.get("ran", {}).get(hook)
    is_done = ran_at is not None and (hook != PRE_UPDATE or now - ran_at < _HOOK_IS_FRESH_SECONDS)
    return None if is_done else RunHook(current.id, hook)


def _roll_back(rollout: Rollout, slots: Slots) -> Call | Of | Blocked | None:
    current, candidate, parked = slots.current, slots.candidate, slots.parked
    failed = (rollout.to.instance, rollout.superseded)
    if all(slot is None or slot.id != rollout.from_.instance for slot in (current, candidate, parked)):
        # The old one is gone: what the journal keeps of it stands in, before the failed one is taken away.
        if candidate is None:
            return Create(is_old=True)
        is_failed = candidate.id in failed or _is_mistaken(candidate, wanted=rollout.from_, other=rollout.to)
        return _discard(candidate) if is_failed else _adopt_or_blocked(rollout, candidate, is_old=True)
    for slot in (current, candidate):
        if slot is not None and slot.id in failed:
            return _discard(slot)
    if _is_spare(parked, rollout):
        return _discard(parked)
    if _is_tag_astray(rollout, slots):
        return MoveTag(rollout.from_.image_id or "")
    if current is None:
        return Rename(rollout.from_.instance or "")
    if (call := _restore(rollout, current)) is not None:
        return call
    if (put_back := _restore_dependents(rollout, current, slots)) is not None:
        return put_back
    return going_with.restart(slots.dependents) if rollout.settled and rollout.goal_starts else None


def _restore(rollout: Rollout, old: Slot) -> Call | None:
    wanted = (rollout.plan or {}).get("restart_policy", {})
    if old.restart_policy.get("Name") != wanted.get("Name", old.restart_policy.get("Name")):
        return SetRestartPolicy(old.id, is_own=True)
    if rollout.run_state in _IS_MEANT_STOPPED:
        return None
    if rollout.settled and rollout.run_state is State.PAUSED:
        return Pause(old.id) if old.state is State.RUNNING else None
    return None if old.state in _IS_UP else _start(old)


def _clear(rollout: Rollout, slots: Slots) -> Call | Of | None:
    """Take away what is ours and leave alone what a person made of the target, or finish it where that failed."""
    parked = slots.parked
    if slots.current is None and parked is not None and parked.id == rollout.from_.instance and parked.state in _IS_UP:
        return _restore(rollout, parked) or Rename(parked.id)  # it was started in the place of ours
    for slot in (slots.candidate, slots.parked):
        if slot is not None and _is_ours(rollout, slot):
            return _discard(slot, volumes=slot.id != rollout.from_.instance)
    current = slots.current
    if current is None:
        return going_with.clear(slots.dependents)
    if current.id == rollout.from_.instance:
        return _restore(rollout, current) or _restore_dependents(rollout, current, slots)
    if not current.is_misnamed:
        return _restore_dependents(rollout, current, slots)
    # Started before it is named: with the name it would look like one that a person made and did not start.
    is_due = current.state is State.CREATED and rollout.run_state not in _IS_MEANT_STOPPED
    return Start(current.id) if is_due else Rename(current.id)


def _is_ours(rollout: Rollout, slot: Slot | None) -> bool:
    if slot is None:
        return False
    known = (rollout.from_.instance, rollout.to.instance, rollout.superseded)
    return slot.id in known or _is_unrecorded(rollout, slot) or _is_spare(slot, rollout)


def _is_spare(slot: Slot | None, rollout: Rollout) -> TypeGuard[Slot]:
    """Say whether it was made to stand in for an old one that removes itself, and is not on record as that yet."""
    is_like_it = slot is not None and slot.auto_remove and slot.image_id == rollout.from_.image_id
    return slot is not None and is_like_it and slot.id not in (rollout.from_.instance, rollout.to.instance)


def _is_unrecorded(rollout: Rollout, slot: Slot) -> bool:
    """Say whether it can only be the candidate whose creation we did not live to record."""
    return rollout.to.instance is None and rollout.to.image_id is not None and slot.image_id == rollout.to.image_id


def _is_mistaken(candidate: Slot, *, wanted: Revision, other: Revision) -> bool:
    """Say whether what was made for one end of a rollout is of the other's image, and was never started.

    The engine looks up a tag when it comes to it: for a caller whose connection broke, after that was put back.
    """
    is_of_other = other.image_id is not None and candidate.image_id == other.image_id
    return is_of_other and candidate.image_id != wanted.image_id and candidate.state is State.CREATED


def _adopt_or_blocked(rollout: Rollout, candidate: Slot, *, is_old: bool = False) -> Call | Blocked:
    wanted = rollout.from_ if is_old else rollout.to
    if wanted.image_id is not None and candidate.image_id == wanted.image_id and not candidate.is_complete:
        return Remove(candidate.id, volumes=True)
    if wanted.image_id is not None and candidate.image_id == wanted.image_id:
        return Adopt(candidate.id, is_old=is_old)
    return Blocked(candidate.id)


def _is_tag_astray(rollout: Rollout, slots: Slots) -> bool:
    """Say whether the tag names the new image before that has passed its gate."""
    names_new = slots.tag_is_overtaken or (rollout.to.image_id is not None and slots.tag_image == rollout.to.image_id)
    return names_new and rollout.from_.image_id not in (None, rollout.to.image_id) and not slots.tag_is_shared


def _quiet(slot: Slot | None) -> Call | None:
    if slot is None:
        return None
    if slot.state is State.PAUSED:
        return Unpause(slot.id)
    return Stop(slot.id) if slot.state in _IS_UP else None


def _start(slot: Slot) -> Call:
    return Unpause(slot.id) if slot.state is State.PAUSED else Start(slot.id)


def _discard(slot: Slot, *, volumes: bool = True) -> Call:
    return _quiet(slot) or Remove(slot.id, volumes=volumes)
