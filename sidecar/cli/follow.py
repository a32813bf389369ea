"""What became of an update: follows the events of its targets to the end of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sidecar.cli.daemon import Event
from sidecar.endings import ending
from sidecar.log_events import EVENTS


def is_end(event: Event) -> bool:
    """Say whether a target is done with this."""
    return ending(event.name, event.facts.get("reason")) is not None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended for one target."""

    is_well: bool
    event: str
    reason: str
    recovery: Sequence[str] = ()


@dataclass(slots=True)
class Followed:
    """The targets of one update, and how it ended for those that are done."""

    delivery_id: str
    target_ids: Sequence[str]
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def waiting(self) -> list[str]:
        """Give the targets that are not done."""
        return [target_id for target_id in self.target_ids if target_id not in self.outcomes]

    @property
    def is_well(self) -> bool:
        """Say whether every target is as it should be."""
        return not self.waiting and all(outcome.is_well for outcome in self.outcomes.values())

    def feed(self, event: Event) -> bool:
        """Take one event in; say whether it concerns this update."""
        target_id = event.facts.get("target")
        if target_id not in self.target_ids or not self._is_ours(event):
            return False
        reason = str(event.facts.get("reason") or "")
        is_well = ending(event.name, reason)
        if is_well is not None and target_id not in self.outcomes:
            recovery = event.facts.get("recovery") or ()
            self.outcomes[str(target_id)] = Outcome(is_well=is_well, event=event.name, reason=reason, recovery=recovery)
        return True

    def _is_ours(self, event: Event) -> bool:
        """Tell our pass from one that was under way; progress belongs to a target and says no more."""
        known = EVENTS.get(event.name)
        # A pass that nobody asked for has no ids, and is not ours either.
        says_whose = known is not None and "delivery_ids" in known.keys
        return not says_whose or self.delivery_id in event.facts.get("delivery_ids", ())
