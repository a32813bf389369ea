"""What is swept: an update each, how it is made, and how it ends when nothing comes in between."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tests.testbed.images import Behaviour, Health

# Time decides nothing: a bad version fails by its health check, which says no at once, and a good one may take long.
LABELS = {"sidecar.enable": "true", "sidecar.min-ready": "0.5s", "sidecar.deadline": "10m"}
PATIENT = Health(interval_ms=1000, timeout_ms=30_000, retries=1000)
# Nobody waits for what is only replaced, and its checks are most of what a run costs.
IDLE = Health(interval_ms=10_000, timeout_ms=30_000, retries=1000)
IMPATIENT = Health(interval_ms=250, timeout_ms=30_000, retries=2)
HOOKS = {"sidecar.hook.pre-update": "echo pre >>/data/ran", "sidecar.hook.post-update": "echo post >>/data/ran"}
# Both may have the volume, so that what becomes of it is seen here as well.
START_FIRST = {
    "sidecar.strategy": "start-first",
    "sidecar.start-first-volumes": "true",
    "sidecar.drain": "1s",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """An update, and how it ends.

    Attributes:
        restart: the restart policy.
        labels: besides those that every container of a sweep has.
        outcomes: how the reason may begin that the target is left with.
        answer: how the reason begins that a further hint gets.
        is_start_first: with a network of its own, on which it has an alias.
        removes_itself: it is made with ``--rm``.
        has_dependents: one that has its network, and one that has its volumes.
    """

    behaviour: Behaviour
    health: Health
    restart: dict[str, Any]
    outcomes: tuple[str, ...]
    answer: str
    labels: dict[str, str]
    is_rolled_back: bool = False
    is_start_first: bool = False
    removes_itself: bool = False
    has_dependents: bool = False

    @property
    def first_health(self) -> Health:
        """How often the first version is checked, which is in the gate of a rollback only."""
        return PATIENT if self.is_rolled_back else IDLE

    @property
    def has_hooks(self) -> bool:
        """Say whether commands are run in it."""
        return HOOKS.items() <= self.labels.items()


UPDATE = Scenario(
    behaviour=Behaviour.HEALTHY,
    health=PATIENT,
    restart={"Name": "unless-stopped", "MaximumRetryCount": 0},
    outcomes=("updated to {digest}", "up to date"),
    answer="up to date",
    labels={},
)
ROLLBACK = Scenario(
    behaviour=Behaviour.UNHEALTHY,
    health=IMPATIENT,
    restart={"Name": "on-failure", "MaximumRetryCount": 7},
    outcomes=("rolled_back: became unhealthy", "{digest} failed here before"),
    answer="{digest} failed here before (became unhealthy",
    labels={},
    is_rolled_back=True,
)
NO_RESTART = {"Name": "no", "MaximumRetryCount": 0}
SCENARIOS = {
    "update": UPDATE,
    "rollback": ROLLBACK,
    "start-first": replace(UPDATE, labels=START_FIRST, is_start_first=True),
    "start-first-rollback": replace(ROLLBACK, labels=START_FIRST, is_start_first=True),
    "rm": replace(UPDATE, restart=NO_RESTART, removes_itself=True),
    "rm-rollback": replace(ROLLBACK, restart=NO_RESTART, removes_itself=True),
    "dependents": replace(UPDATE, has_dependents=True),
    "dependents-rollback": replace(ROLLBACK, has_dependents=True),
    "hooks": replace(UPDATE, labels=HOOKS),
}
# Those whose every call is tried whenever the tests are run; of the others every fourth is.
MAIN = ("update", "rollback")
