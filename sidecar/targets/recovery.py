"""The commands by which a person puts the old container back where an update failed and so did putting it back.

They follow from what the engine shows and from what the journal keeps, and hold nothing that is secret: where nothing
is left of the old container they name the command that prints what makes it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from shlex import join

from sidecar.core.image import ImageRef
from sidecar.core.rollout import Phase, Rollout
from sidecar.core.target import State
from sidecar.ports import Spec
from sidecar.targets.client_options import restart_word
from sidecar.targets.command_line import command_line
from sidecar.targets.dependents import Dependent
from sidecar.targets.endpoints import Api
from sidecar.targets.names import CANDIDATE_SUFFIX, PARKED_SUFFIX, is_image_id
from sidecar.targets.sequence import Slot, Slots
from sidecar.targets.spec import CreateRequest

_IS_UP = frozenset({State.RUNNING, State.RESTARTING})
_IS_MEANT_STOPPED = frozenset({State.EXITED, State.CREATED})


def recovery(rollout: Rollout, slots: Slots) -> list[str]:
    """Give the commands, in their order; where one is a comment for a shell, it says what no command does."""
    return list(_recovery(rollout, slots, rollout.target_id.partition(":")[2]))


def _recovery(rollout: Rollout, slots: Slots, name: str) -> Iterator[str]:
    current = slots.current
    in_place = current.id[:12] if current is not None and current.is_misnamed else name
    places = {in_place: current, name + CANDIDATE_SUFFIX: slots.candidate, name + PARKED_SUFFIX: slots.parked}
    found = {place: slot for place, slot in places.items() if slot is not None}
    old_name = next((place for place, slot in found.items() if slot.id == rollout.from_.instance), None)
    for place in found:
        if place != old_name:
            yield join(("docker", "rm", "--force", place))
    old_image = rollout.from_.image_id
    if old_image is not None and slots.tag_image != old_image and (old_name is None or not slots.tag_is_shared):
        yield join(("docker", "tag", old_image, ImageRef.parse(rollout.ref).familiar))
    if old_name is None:
        yield f"{join(('sidecar', 'show', rollout.target_id, '--spec'))} | sh"
    else:
        yield from _put_back(rollout, found[old_name], old_name, name)
    for each in slots.dependents:
        yield from _with_it(each, is_anew=old_name is None)


def _put_back(rollout: Rollout, old: Slot, place: str, name: str) -> Iterator[str]:
    if place != name:
        yield join(("docker", "rename", place, name))
    wanted = (rollout.plan or {}).get("restart_policy") or {}
    if not old.auto_remove and restart_word(wanted) != restart_word(old.restart_policy):
        yield join(("docker", "update", "--restart", restart_word(wanted), name))
    if rollout.run_state in _IS_MEANT_STOPPED:
        return
    if old.state is State.PAUSED:
        yield join(("docker", "unpause", name))
    # One that runs and is not healthy is given another chance.
    yield join(("docker", "start" if old.state in _IS_MEANT_STOPPED else "restart", name))
    if rollout.run_state is State.PAUSED:
        yield join(("docker", "pause", name))


def _with_it(each: Dependent, *, is_anew: bool) -> Iterator[str]:
    """Have what goes with it run against it; one that was made from a container that is no more has to be made anew."""
    if not each.is_remade or each.run_state in _IS_MEANT_STOPPED:
        return
    if is_anew or (each.current is None and each.candidate is None):
        yield f"# {each.name} was made from a container that is gone: make it again after that"
        return
    if each.current is None:
        yield join(("docker", "rename", each.name + CANDIDATE_SUFFIX, each.name))
    is_up = each.current is not None and each.current.state in _IS_UP
    if not is_up:
        yield join(("docker", "start", each.name))
    elif each.shares_namespace:
        yield join(("docker", "restart", each.name))  # what it shares was stopped for a moment


# --- what makes a container again ------------------------------------------------------------------------------------


def spec_of(
    request: CreateRequest,
    name: str,
    *,
    image_id: str | None,
    api: Api,
    is_started: bool,
    copies: Sequence[str] = (),
) -> Spec:
    """Give what makes a container of a name, as the create request and as commands.

    Args:
        image_id: what its reference has to name before.
        copies: files that Compose copied into it, which no command brings back.
    """
    made = command_line(request, name, api=api, is_started=is_started)
    missing = [f"# not in it: {path}, which Compose copied into the container" for path in copies]
    reference = str(request.body["Image"])
    is_tag = not is_image_id(reference) and "@" not in reference
    tag = [join(("docker", "tag", image_id, reference))] if image_id and is_tag else []
    asked = asdict(request)
    return Spec(
        request={key: asked[key] for key in ("body", "platform", "connects")},
        commands=(*made.comments, *map(_in_a_line, missing), *tag, *made.lines),
    )


def spec_of_rollout(rollout: Rollout, name: str, *, api: Api) -> Spec | None:
    """Give what makes the container again that a rollout ended with, or was to; None where its plan is not kept."""
    plan, is_new = rollout.plan or {}, rollout.phase in (Phase.FINISHING, Phase.SUCCEEDED) and not rollout.is_broken
    key, end = ("request", rollout.to) if is_new else ("restore", rollout.from_)
    if key not in plan:
        return None
    return spec_of(
        CreateRequest.from_json(plan[key]),
        name,
        image_id=end.image_id,
        api=api,
        is_started=rollout.run_state not in _IS_MEANT_STOPPED,
        copies=plan.get("copies", ()),
    )


def _in_a_line(comment: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in comment)
