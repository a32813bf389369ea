"""With which events a target is done with what was asked of it, for everybody who waits for that."""

from __future__ import annotations

from collections.abc import Mapping

# Whether that is what was asked for stands beside it.
_ENDS: Mapping[str, bool] = {
    "target.kept": True,
    "target.held": False,
    "rollout.succeeded": True,
    "rollout.rolled_back": False,
    "rollout.failed": False,
    "rollout.abandoned": False,
}
# Others of its project go first, or the daemon starts anew: the target is looked at again without being asked for.
_GOES_ON = ("waits for ", "left to the next start")
# What becomes of Sidecar's own container is known by the next daemon; whoever waits has to ask that one.
_HANDED_OVER = " is updated by its helper "


def ending(event: str, reason: object) -> bool | None:
    """Say whether a target ends well with this event; None: it is not done."""
    is_well = _ENDS.get(event)
    if event == "target.held" and _HANDED_OVER in str(reason or ""):
        return True
    return None if is_well is None or str(reason or "").startswith(_GOES_ON) else is_well
