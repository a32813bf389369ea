"""Whether a rollout begins, gives way to a newer digest, or is given up: same arguments, same answer.

What moves one forward that is open is decided in ``gate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sidecar.core.decision import Cause, Hold, Keep, Resolved
from sidecar.core.image import Digest
from sidecar.core.policy import Action, WhenStopped
from sidecar.core.rollout import Phase, Revision, Rollout
from sidecar.core.target import Health, Observed, State, Target


def hold_unasked(target: Target) -> Hold | None:
    """Say whether a target is held whatever its registry would say, so that nobody is asked."""
    return Hold(target.refusal) if target.refusal is not None else None


def judge_unresolved(target: Target, observed: Observed, reason: str) -> Hold:
    """Say how a target is held of whose reference its registry will not say anything.

    Args:
        reason: why it does not.
    """
    image = observed.image
    if image is not None and image.id in image.digests:
        # containerd's store gives every image a digest, whether a registry knows it or not.
        return Hold(f"{reason}; or it was built on this machine, never pushed or pulled", is_failure=True)
    if image is None or image.digests:
        return Hold(reason, is_failure=True)
    # No failure: it is as its owner wants it, and what depends on it goes its own way.
    return Hold(
        f"{target.ref.familiar} was built on this machine, never pushed or pulled, so that nothing can be newer; "
        f"push it, or leave out its label sidecar.enable ({reason})"
    )


def judge(
    target: Target,
    resolved: Resolved,
    observed: Observed,
    *,
    rejected: Mapping[Digest, str],
    cause: Cause,
    rollout_id: str,
) -> Rollout | Keep | Hold:
    """Say whether a rollout begins.

    Args:
        rejected: digests that failed on this service before, with the reason.
    """
    if (held := hold_unasked(target)) is not None:
        return held
    if observed.state is State.MISSING:
        return Hold(f"{target.name} does not exist (any more)")
    if observed.image is not None and resolved.identities & observed.image.identities:
        if resolved.digest in rejected and observed.health is not Health.HEALTHY:
            failed = f"{resolved.digest} failed here ({rejected[resolved.digest]}) and was left there; push another"
            return Hold(failed, is_failure=True)
        is_same_digest = resolved.digest in observed.image.identities
        return Keep("up to date" if is_same_digest else "same image for this platform")
    if resolved.digest in rejected:
        return Hold(
            f"{resolved.digest} failed here before ({rejected[resolved.digest]}); "
            f"push another, or release it: sidecar release {target.id}",
            is_failure=True,
        )
    if target.policy.action is Action.NOTIFY:
        return Hold(f"{resolved.digest} is available; label sidecar.action is notify")
    is_stopped = observed.state in (State.EXITED, State.CREATED)
    if is_stopped and target.policy.when_stopped is WhenStopped.HOLD:
        return Hold(
            f"{target.name} is {observed.state}, and what was stopped stays stopped; "
            f"start it, or update it without starting: sidecar.when-stopped=recreate"
        )
    return _begin(target, resolved, observed, cause, rollout_id)


def _begin(target: Target, resolved: Resolved, observed: Observed, cause: Cause, rollout_id: str) -> Rollout:
    image = observed.image
    return Rollout(
        id=rollout_id,
        target_id=target.id,
        service=target.service,
        repository=target.ref.name,
        ref=str(target.ref),
        cause=cause.kind,
        started_at=cause.at,
        delivery_ids=cause.delivery_ids,
        min_ready_seconds=target.policy.min_ready_seconds,
        deadline_seconds=target.policy.deadline_seconds,
        rollback=target.policy.rollback,
        drain_seconds=target.policy.drain_seconds,
        platform=image.platform if image else "",
        from_=Revision(
            digest=min(image.digests, default=None) if image else None,
            image_id=image.id if image else None,
            instance=observed.instance,
        ),
        to=Revision(digest=resolved.digest),
        run_state=observed.state.meant,
    )


def supersede(
    rollout: Rollout, resolved: Resolved, *, rejected: Mapping[Digest, str], cause: Cause, rollout_id: str
) -> tuple[Rollout, Rollout] | None:
    """Say whether a digest resolved meanwhile takes the place of an open rollout, and give both.

    The old rollout ends superseded, which rejects nothing; the new one returns to the same container if it must.
    Once a rollout finishes or rolls back it is carried to its end first.
    """
    if rollout.phase is not Phase.UPDATING or rollout.changed_at is not None or resolved.digest in rejected:
        return None
    if rollout.to.digest is None or rollout.to.digest in resolved.identities:
        return None
    newer = replace(
        rollout.with_unstarted_goal(),
        id=rollout_id,
        cause=cause.kind,
        started_at=cause.at,
        delivery_ids=cause.delivery_ids,
        to=Revision(digest=resolved.digest),
        superseded=rollout.to.instance or rollout.superseded,
    )
    return rollout.enter(Phase.SUPERSEDED, f"{resolved.digest} is newer"), newer


def take_back(rollout: Rollout, reason: str) -> Rollout | None:
    """Give up a rollout whose new container cannot be made any more, and return to the old one; None: it goes on."""
    if rollout.phase is not Phase.UPDATING or rollout.from_.instance is None:
        return None
    return replace(rollout.enter(Phase.ROLLING_BACK, reason), is_taken_back=True)
