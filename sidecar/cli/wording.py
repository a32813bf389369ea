"""What the events of an update say to a person."""

from __future__ import annotations

import re

from sidecar.cli.daemon import Event
from sidecar.cli.follow import Outcome


def words(event: Event) -> str:
    """Say what happened, for a person."""
    if event.name == "pull.progressed":
        done, total = event.facts.get("layers_done"), event.facts.get("layers_total")
        return f"pulling, {done} of {total} layers" if total else "pulling"
    if event.name == "rollout.stepped":
        step = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(event.facts.get("step"))).lower()
        step = "started; it is watched until it is healthy" if step == "start" else step
        return f"{str(event.facts.get('phase')).replace('_', ' ')}: {step}"
    noun, _, verb = event.name.partition(".")
    said = verb.replace("_", " ")
    said = said if noun in {"target", "rollout"} else f"{noun} {said}"
    reason = event.facts.get("reason")
    return f"{said}: {reason}" if reason else said


def closing(target_id: str, outcome: Outcome) -> str:
    """Say how it ended for a target, and why."""
    what = outcome.event.partition(".")[2].replace("_", " ")
    mark = "ok" if outcome.is_well else "FAILED"
    said = f"{mark}  {target_id}: {what}" + (f": {outcome.reason}" if outcome.reason else "")
    by_hand = "".join(f"\n    {command}" for command in outcome.recovery)
    return said + (f"\nby hand it is put back by:{by_hand}" if by_hand else "")
