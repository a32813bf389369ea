"""What the API answers, as models: the contract of its bodies, and how the daemon's values become them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from sidecar.control_port import Looked, Shown, Unmanaged, WrongCredentials
from sidecar.core.policy import Policy
from sidecar.ports import Delivery, History, Transition
from sidecar.rfc3339 import written


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class TargetView(_View):
    """One target and what was judged of it."""

    id: str
    """``docker:<name>`` or ``image:<reference>``."""
    kind: str
    image: str
    """The reference as configured."""
    service: str
    project: str | None
    verdict: str
    """``keep``, ``hold`` or ``rollout``."""
    reason: str
    running: str
    """Digest of what runs; empty where unknown."""
    available: str
    """Digest that the reference means now; empty where unknown."""
    phase: str
    """Phase of its open rollout; empty where there is none."""

    @classmethod
    def of(cls, looked: Looked) -> Self:
        """Show one."""
        target = looked.target
        return cls(
            id=target.id,
            kind=target.kind,
            image=str(target.ref),
            service=target.service,
            project=target.project,
            verdict=looked.verdict,
            reason=looked.reason,
            running=looked.running,
            available=looked.available,
            phase=looked.phase,
        )


class PolicyView(_View):
    """What the labels of a target ask for."""

    action: str
    strategy: str
    min_ready_seconds: float
    deadline_seconds: float
    rollback: bool
    when_stopped: str
    depends_on: Sequence[str]

    @classmethod
    def of(cls, policy: Policy) -> Self:
        """Show it."""
        return cls(
            action=policy.action,
            strategy=policy.strategy,
            min_ready_seconds=policy.min_ready_seconds,
            deadline_seconds=policy.deadline_seconds,
            rollback=policy.rollback,
            when_stopped=policy.when_stopped,
            depends_on=policy.depends_on,
        )


class SpecView(_View):
    """What makes a container again: it holds its environment as it is, secrets included."""

    request: Mapping[str, Any]
    """The body of the create request, its platform, and the networks that are connected afterwards."""
    commands: Sequence[str]
    """The same for Docker's client; a comment says what no option does."""


class ShownView(_View):
    """All that is known of one target."""

    target: TargetView
    state: str
    """What the engine says of its container: ``missing``, ``running``, ``exited`` and so on."""
    health: str
    instance: str | None
    """Id of the container, or of the image where that is the target."""
    image_id: str | None
    digests: Sequence[str]
    """Under which its repository knows the image that runs."""
    previous_image: str
    """Id of the image before the last update, kept for a rollback; empty where there is none."""
    policy: PolicyView
    rollout: RolloutView | None
    """The newest one, open or over."""
    rejected: Mapping[str, str]
    """Digests that failed here and are not tried again, with the reason."""
    spec: SpecView | None
    """Only when asked for; of a container that is gone by what the journal keeps of its last rollout."""

    @classmethod
    def of(cls, shown: Shown) -> Self:
        """Show it."""
        observed, spec, rollout = shown.observed, shown.described.spec, shown.rollout
        return cls(
            target=TargetView.of(shown.looked),
            state=observed.state,
            health=observed.health,
            instance=observed.instance,
            image_id=observed.image.id if observed.image is not None else None,
            digests=sorted(observed.image.digests) if observed.image is not None else [],
            previous_image=shown.described.previous_image,
            policy=PolicyView.of(shown.looked.target.policy),
            rollout=RolloutView.of(Transition(rollout=rollout, recorded_at=rollout.started_at)) if rollout else None,
            rejected={str(digest): reason for digest, reason in shown.rejected.items()},
            spec=SpecView(request=spec.request, commands=spec.commands) if spec is not None else None,
        )


class ShowView(_View):
    """All that is known of the targets that are meant."""

    shown: Sequence[ShownView]

    @classmethod
    def of(cls, shown: Sequence[Shown]) -> Self:
        """Show them."""
        return cls(shown=[ShownView.of(each) for each in shown])


class UnmanagedView(_View):
    """A container that is left alone."""

    name: str
    image: str
    reason: str


class TargetsView(_View):
    """Everything on the engine."""

    targets: Sequence[TargetView]
    unmanaged: Sequence[UnmanagedView]

    @classmethod
    def of(cls, looked: Sequence[Looked], unmanaged: Sequence[Unmanaged]) -> Self:
        """Show them."""
        return cls(
            targets=[TargetView.of(each) for each in looked],
            unmanaged=[UnmanagedView(name=each.name, image=each.image, reason=each.reason) for each in unmanaged],
        )


class PlanView(_View):
    """What would be done now."""

    plan: Sequence[TargetView]

    @classmethod
    def of(cls, looked: Sequence[Looked]) -> Self:
        """Show it."""
        return cls(plan=[TargetView.of(each) for each in looked])


class UpdateRequest(_View):
    """What to look at now."""

    what: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
    """An image reference, a target by its id or its name, or a Compose service."""


class UpdateView(_View):
    """What was enqueued."""

    delivery: str
    """The id by which the log and the events can be followed."""
    targets: Sequence[str]


class ReleaseView(_View):
    """What was forgotten and enqueued."""

    delivery: str
    """The id by which the log and the events can be followed."""
    released: Mapping[str, int]
    """How many digests had failed, by target."""


class RolloutView(_View):
    """A rollout as it was recorded: whenever it entered a phase, and when more became known of it."""

    recorded_at: str
    rollout_id: str
    target: str
    image: str
    from_digest: str | None
    digest: str | None
    phase: str
    cause: str
    delivery_ids: Sequence[str]
    reason: str
    log_tail: str
    recovery: Sequence[str]
    """Commands by which a person puts the old container back, where that failed."""

    @classmethod
    def of(cls, transition: Transition) -> Self:
        """Show one."""
        rollout = transition.rollout
        return cls(
            recorded_at=written(transition.recorded_at),
            rollout_id=rollout.id,
            target=rollout.target_id,
            image=rollout.ref,
            from_digest=rollout.from_.digest,
            digest=rollout.to.digest,
            phase=rollout.phase,
            cause=rollout.cause,
            delivery_ids=rollout.delivery_ids,
            reason=rollout.reason,
            log_tail=rollout.log_tail,
            recovery=rollout.recovery,
        )


class DeliveryView(_View):
    """One request of a sender."""

    received_at: str
    id: str
    source: str
    fate: str
    """``accepted``, ``ignored`` or ``refused``."""
    reason: str
    remote: str
    pusher: str
    hints: Sequence[str]
    body: str | None
    """As received; only when asked for."""

    @classmethod
    def of(cls, delivery: Delivery, *, with_body: bool) -> Self:
        """Show one."""
        return cls(
            received_at=written(delivery.received_at),
            id=delivery.id,
            source=delivery.source,
            fate=delivery.fate,
            reason=delivery.reason,
            remote=delivery.remote,
            pusher=delivery.pusher,
            hints=[str(hint) for hint in delivery.hints],
            body=delivery.body.decode(errors="replace") if with_body else None,
        )


class HistoryView(_View):
    """What happened of late, newest first."""

    rollouts: Sequence[RolloutView] = Field(default_factory=tuple)
    deliveries: Sequence[DeliveryView] = Field(default_factory=tuple)

    @classmethod
    def of(cls, history: History, *, with_bodies: bool) -> Self:
        """Show it."""
        return cls(
            rollouts=[RolloutView.of(each) for each in history.transitions],
            deliveries=[DeliveryView.of(each, with_body=with_bodies) for each in history.deliveries],
        )


class WrongCredentialView(_View):
    """Requests to one source that were turned away for a wrong credential, since the daemon started."""

    source: str
    count: int
    last_at: str


class WrongCredentialsView(_View):
    """Who was turned away, by source; neither what they presented nor where they are."""

    sources: Sequence[WrongCredentialView]

    @classmethod
    def of(cls, wrong: Sequence[WrongCredentials]) -> Self:
        """Show them."""
        rows = [
            WrongCredentialView(source=each.source, count=each.count, last_at=written(each.last_at)) for each in wrong
        ]
        return cls(sources=rows)


class ScanOutcomeView(_View):
    """What came of one look at a target."""

    outcome: str
    """``updated``, ``failed``, ``kept`` (it was as it should be) or ``held``."""
    reason: str


class ScanSummaryView(_View):
    """How many targets, by what came of them."""

    scanned: int
    updated: int
    failed: int
    restarted: int
    skipped: int


class ScanTimingView(_View):
    """How long it took."""

    duration_ms: int
    duration: str


class ScanView(_View):
    """The answer of Watchtower's API, with what its forks answer."""

    status: str
    """``completed``, ``accepted`` (nobody waited) or ``timeout`` (it goes on)."""
    scanned: int
    updated: int
    failed: int
    summary: ScanSummaryView
    timing: ScanTimingView
    timestamp: str
    api_version: str
    delivery: str
    """The id by which the log and the events can be followed."""
    targets: Mapping[str, ScanOutcomeView]
    unknown: Sequence[str]
    """What was named and means nothing here."""


class SkippedScanView(_View):
    """Everything was asked for while another call had not been answered."""

    status: str
    reason: str
