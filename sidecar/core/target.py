"""What Sidecar looks after, and what an engine shows of it at one instant."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sidecar.core.image import Digest, ImageRef
from sidecar.core.policy import Policy


class Kind(StrEnum):
    """Which driver a target belongs to; the first part of its id."""

    DOCKER = "docker"
    IMAGE = "image"


class Health(StrEnum):
    """The answer of a health check. Starting is not failing."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class State(StrEnum):
    """The states of a container, in Docker's words."""

    MISSING = "missing"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"

    @property
    def meant(self) -> State:
        """Give what it is meant to be: one caught between two restarts of its policy is meant to run."""
        return State.RUNNING if self is State.RESTARTING else self


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One thing that is kept up to date.

    Attributes:
        id: ``docker:<name>`` or ``image:<reference>``.
        ref: the reference it was configured with.
        service: what a rejected digest is remembered for: the replicas of one Compose service share it.
        project: the Compose project whose targets move together; None for a container on its own.
        depends_on: services that are updated before it.
        is_own: it is the container that this process runs in.
        refusal: why it cannot be looked after although its labels ask for it; None when it can.
    """

    id: str
    kind: Kind
    ref: ImageRef
    policy: Policy
    service: str
    project: str | None = None
    depends_on: tuple[str, ...] = ()
    is_own: bool = False
    refusal: str | None = None

    @property
    def name(self) -> str:
        """The id without its kind."""
        return self.id.partition(":")[2]

    @property
    def compose_service(self) -> str | None:
        """The name of its service in its Compose project; None for a container on its own."""
        return self.service.rpartition("/")[2] if self.project is not None else None

    def is_meant_by(self, hinted: ImageRef) -> bool:
        """Say whether a hint concerns it: the same repository, and the same tag where the hint has one."""
        return self.ref.name == hinted.name and hinted.tag in (None, self.ref.tag)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image in the engine's store.

    Attributes:
        id: the engine's own identifier: the digest of its configuration, or of its index on the containerd store.
        digests: under which its target's repository knows it; none, one or many.
        platform: ``os/architecture`` and a variant where there is one.
        aliases: what else it may be recognised by, as its registry says.
    """

    id: str
    digests: frozenset[Digest] = field(default_factory=frozenset)
    platform: str = "linux/amd64"
    aliases: frozenset[str] = field(default_factory=frozenset)

    @property
    def identities(self) -> frozenset[str]:
        """Everything it can be recognised by."""
        return self.digests | self.aliases | {self.id}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One target as the engine shows it. All times are the engine's clock, in seconds since 1970.

    Attributes:
        now: when this was seen.
        instance: which container (for an image target: which image) bears the target's name; None when none does.
        image: what it runs.
        started_at: when the instance was last started; None when it never was.
        finished_at: when it last ended; None when it never did.
        restarts: how often its restart policy started it again since then.
        healthy_since: the first success of the unbroken tail of successes, or the start without a health check;
            None while it is not healthy.
        detail: what the engine says of its end, for a reason: an exit code, an error of its start, out of memory.
        is_stopped: somebody stopped it, for its restart policy would have started it again.
        is_doubled: what a rollout put aside runs as well, for somebody started it.
        helper_failure: how the helper failed that is to update the container of this process; empty: it did not.
        is_taken_down: somebody removed it, and a network of it, before the new one was started.
        ahead: the new one, as it is seen beside the old one that is in place.
        is_reachable: it has every name of the old one on every network.
        is_start_next: the next call starts what the phase wants to see running, if that does not run.
        is_stripped: something that goes with it, and ran, was stopped.
        at_rest: nothing of a rollout is left to do or to clean, or nothing was begun: no candidate, nothing parked,
            restart policy and tag as they should be.
        look: the driver's own; it gets it back with the step that is decided by it.
    """

    now: float
    state: State
    instance: str | None = None
    image: Image | None = None
    health: Health = Health.STARTING
    started_at: float | None = None
    finished_at: float | None = None
    restarts: int = 0
    healthy_since: float | None = None
    detail: str = ""
    is_stopped: bool = False
    is_doubled: bool = False
    is_taken_down: bool = False
    helper_failure: str = ""
    ahead: Observed | None = None
    is_reachable: bool = True
    is_start_next: bool = True
    is_stripped: bool = False
    at_rest: bool = True
    look: object = field(default=None, compare=False, repr=False)
