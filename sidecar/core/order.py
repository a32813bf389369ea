"""Which targets of one group may start their rollout now, from their verdicts and dependencies; nothing is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sidecar.core.decision import Hold, Keep
from sidecar.core.rollout import Rollout
from sidecar.core.target import Target

Verdict = Rollout | Keep | Hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One target of a group.

    Attributes:
        verdict: what was judged of it; for a target whose rollout is open, that rollout.
        is_open: its rollout is prepared and on record.
        is_in_hand: it is carried out at this moment.
    """

    target: Target
    verdict: Verdict
    is_open: bool = False
    is_in_hand: bool = False

    @property
    def is_changing(self) -> bool:
        """Say whether it is about to change or changes now."""
        return isinstance(self.verdict, Rollout)

    @property
    def is_begun(self) -> bool:
        """Say whether its update has a container or is about to; one that could not be created holds up nobody."""
        return self.is_open and isinstance(self.verdict, Rollout) and (self.verdict.is_begun or self.is_in_hand)

    @property
    def is_failed(self) -> bool:
        """Say whether its update failed or could not be prepared."""
        return isinstance(self.verdict, Hold) and self.verdict.is_failure


def group_of(target: Target, targets: Iterable[Target]) -> list[Target]:
    """Give what moves together with a target, and the target itself.

    That is its Compose project; outside of one, whatever depends on it or it depends on, however far.
    """
    alike = [each for each in targets if each.kind is target.kind and each.project == target.project]
    if target.project is not None:
        return alike
    services, ahead = set[str](), {target.service}
    while ahead:
        services |= ahead
        needed = {name for each in alike if each.service in ahead for name in each.depends_on}
        needing = {each.service for each in alike if not ahead.isdisjoint(each.depends_on)}
        ahead = (needed | needing) - services
    return [each for each in alike if each.service in services]


def order(members: Iterable[Member]) -> Mapping[str, Hold]:
    """Give, for each target that may not start yet, the reason; those not named may.

    Never two replicas of one service at once, never one whose dependency is about to change or changes; after a
    failure its dependents are held, and the others go on. Nor one on which another depends that is in its gate: that
    one would fail for it. A cycle of dependencies is followed once around.
    """
    group = list(members)
    services: dict[str, list[Member]] = {}
    for member in group:
        services.setdefault(member.target.service, []).append(member)
    held: dict[str, Hold] = {}
    chosen: set[str] = {member.target.service for member in group if member.is_open}
    for member in sorted(group, key=lambda member: member.target.id):
        if not member.is_changing or member.is_open:
            continue
        service = member.target.service
        if (reason := _waits_for(service, services) or _is_needed(service, services)) is not None:
            held[member.target.id] = reason
        elif service in chosen:
            held[member.target.id] = Hold(f"waits for another replica of {service}")
        else:
            chosen.add(service)
    return held


def _waits_for(service: str, services: Mapping[str, list[Member]]) -> Hold | None:
    """Give the reason to wait that lies anywhere up the dependencies of a service; a failure first."""
    upstream = [member for name in sorted(_dependencies(service, services)) for member in services[name]]
    for member in upstream:
        if member.is_failed:
            return Hold(f"dependency failed: {member.target.service}", is_failure=True)
    for member in upstream:
        if member.is_changing:
            return Hold(f"waits for its dependency {member.target.service}")
    return None


def _is_needed(service: str, services: Mapping[str, list[Member]]) -> Hold | None:
    """Give the reason to wait where something further down is between stop and the end of its gate."""
    for name in sorted(services):
        has_begun = any(member.is_begun for member in services[name])
        if has_begun and service in _dependencies(name, services):
            return Hold(f"waits for {name}, which depends on it and is updated now")
    return None


def _dependencies(service: str, services: Mapping[str, list[Member]]) -> set[str]:
    seen: set[str] = set()
    ahead = [service]
    while ahead:
        for member in services.get(ahead.pop(), ()):
            fresh = [name for name in member.target.depends_on if name in services and name not in seen]
            seen.update(fresh)
            ahead.extend(fresh)
    return seen - {service}
