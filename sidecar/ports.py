"""What the line needs of the outside world, as protocols; no code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sidecar.core.decision import Cause, Resolved
from sidecar.core.hint import Hint
from sidecar.core.image import Digest, ImageRef
from sidecar.core.rollout import Rollout
from sidecar.core.target import Kind, Observed, Target


class Registry(Protocol):
    """Whoever knows what a reference means now."""

    async def resolve(self, ref: ImageRef) -> Resolved:
        """Ask what a tag means now, by a request that counts as no pull.

        Raises:
            Transient: the registry is down, busy, or answers nonsense.
            Refused: it does not know the reference, or does not let us see it.
        """
        ...

    async def identities(self, ref: ImageRef, digest: Digest, *, platform: str) -> frozenset[str]:
        """Give everything that a digest's image for a platform may be recognised by, the digest included.

        Raises:
            Transient, Refused: as ``resolve``.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What makes a container again. It holds the container's environment, secrets and all: never log it.

    Attributes:
        request: the body of the create request, the platform and what is connected afterwards.
        commands: the same for Docker's client, one line for a shell each; comments say what those do not.
    """

    request: Mapping[str, Any] = field(repr=False)
    commands: Sequence[str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What a driver knows of a target beside what it observes.

    Attributes:
        previous_image: id of the image before the last update, which is kept for a rollback; empty where none is.
    """

    previous_image: str = ""
    spec: Spec | None = None


class TargetDriver(Protocol):
    """What one kind of target needs: look, prepare, and make one engine call at a time."""

    async def list(self) -> Sequence[Target]:
        """Give every target of this kind, those that cannot be looked after included (with the reason).

        Raises:
            Unreachable: the engine does not answer.
        """
        ...

    async def observe(self, target: Target, rollout: Rollout | None) -> Observed:
        """Look at the engine, now; with a rollout, in the light of what it has to restore and to clean.

        Raises:
            Unreachable: the engine does not answer.
        """
        ...

    async def refusal(self, target: Target) -> str | None:
        """Say what keeps a target that is due from being updated until somebody changes it; None: nothing is known.

        Raises:
            Unreachable: the engine does not answer.
        """
        ...

    async def prepare(self, target: Target, rollout: Rollout) -> Rollout:
        """Do all that can fail cheaply and give the rollout with its plan; nothing that runs is touched.

        Raises:
            Transient: the pull or the engine failed, no space is left: tried again later.
            Refused: this container cannot be recreated without a loss.
        """
        ...

    async def step(self, target: Target, rollout: Rollout, observed: Observed) -> Rollout:
        """Make at most one state-changing engine call towards the phase's goal; give the rollout with what it learned.

        Args:
            observed: what was seen just now, with this rollout.

        Raises:
            Transient: the engine refused or does not answer: looked at again, without limit.
        """
        ...

    async def log_tail(self, target: Target, rollout: Rollout) -> str:
        """Give the last lines of the container that failed its gate; empty when there is none."""
        ...

    async def recovery(self, target: Target, rollout: Rollout) -> Sequence[str]:
        """Give the commands by which a person puts the old one back, where the rollout failed to; none is a secret.

        Raises:
            Unreachable: the engine does not answer.
        """
        ...

    async def describe(self, target: Target, rollout: Rollout | None, *, with_spec: bool) -> Described:
        """Say what only the driver knows of a target: what makes it again, and which image is kept for its rollback.

        Args:
            rollout: its last one; what it planned stands in where nothing of the target is to be seen on the engine.

        Raises:
            Unreachable: the engine does not answer.
        """
        ...

    async def tidy(self, target: Target, rollout: Rollout) -> None:
        """Clean images as set, once a rollout is final; what the engine refuses to clean is told and left.

        Raises:
            Unreachable: the engine went away.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One request of a sender, as it is kept.

    Attributes:
        received_at: our clock, seconds since 1970.
        fate: ``accepted``, ``ignored`` or ``refused``; only accepted ones are worked on.
        reason: why it was ignored or refused.
        body: as received, bounded; what was refused is kept for a later look.
    """

    id: str
    source: str
    received_at: float
    fate: str
    reason: str = ""
    remote: str = ""
    pusher: str = ""
    hints: tuple[Hint, ...] = ()
    body: bytes = b""
    callback_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One value of a rollout in the history, without its plan."""

    rollout: Rollout
    recorded_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What the journal remembers of late, newest first."""

    transitions: Sequence[Transition] = field(default_factory=tuple)
    deliveries: Sequence[Delivery] = field(default_factory=tuple)


class Journal(Protocol):
    """The memory that outlives the process. Every method returns once it is on disk, or raises Transient."""

    async def accept(self, delivery: Delivery) -> None:
        """Keep a delivery, whatever its fate."""
        ...

    async def finish_deliveries(self, delivery_ids: Iterable[str]) -> None:
        """Remember that everything that these deliveries asked for has been looked at."""
        ...

    async def unfinished_deliveries(self) -> Sequence[Delivery]:
        """Give the accepted deliveries that are not finished, oldest first, without their bodies."""
        ...

    async def record(self, rollout: Rollout, *, after: Rollout | None = None) -> None:
        """Append a value of a rollout, and the reject it implies; ``after`` is one that it ends, in the same breath."""
        ...

    async def open_rollout(self, target_id: str) -> Rollout | None:
        """Give the rollout of a target that is not final."""
        ...

    async def last_rollout(self, target_id: str) -> Rollout | None:
        """Give the newest rollout of a target, open or not; without its plan where that is not kept any more."""
        ...

    async def open_rollouts(self) -> Sequence[Rollout]:
        """Give every rollout that is not final; one that only a newer Sidecar can read holds up its own target only."""
        ...

    async def rejected(self, service: str, repository: str) -> Mapping[Digest, str]:
        """Give the digests that failed on a service, with the reason."""
        ...

    async def release(self, service: str, repository: str) -> int:
        """Forget the rejected digests of a service; say how many there were."""
        ...

    async def note_digest(self, repository: str, digest: Digest) -> float:
        """Remember when a digest was first seen, and give that time."""
        ...

    async def add_image_target(self, ref: ImageRef) -> None:
        """Remember an image that is kept pulled though no container uses it."""
        ...

    async def image_targets(self) -> Sequence[ImageRef]:
        """Give every image target ever made."""
        ...

    async def history(self, *, limit: int, target_id: str | None = None) -> History:
        """Give the newest deliveries and transitions."""
        ...


class Clock(Protocol):
    """Time, so that tests own it."""

    def now(self) -> float:
        """Give the time of day, in seconds since 1970."""
        ...

    def monotonic(self) -> float:
        """Give a time that only ever goes forward, for our own intervals."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class Events(Protocol):
    """What happens, as it happens: one fact for the log, and for whoever listens."""

    def publish(self, event: str, /, **facts: object) -> None:
        """Tell one fact under its name of the log contract; never blocks and never fails."""
        ...


class Hints(Protocol):
    """The queue, as the line sees it."""

    def add(self, name: str, cause: Cause, *, delay_seconds: float = 0.0) -> None:
        """Ask for a pass of a target."""
        ...

    def take_hint(self, name: str) -> Cause | None:
        """Give what was asked of a target since its pass began, or since the last time."""
        ...

    async def wait_for_hint(self, name: str, seconds: float) -> None:
        """Wait, but no longer than until somebody asks for this target."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The outside world, as the line is given it."""

    registry: Registry
    drivers: Mapping[Kind, TargetDriver]
    journal: Journal
    hints: Hints
    clock: Clock
    events: Events
