"""resolve -> observe -> judge, for one target: what it is, what it should be, and what follows; changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sidecar.core.decide import hold_unasked, judge, judge_unresolved
from sidecar.core.decision import Cause, Hold, Resolved
from sidecar.core.image import ImageRef
from sidecar.core.order import Verdict
from sidecar.core.rollout import Rollout
from sidecar.core.target import Observed, Target
from sidecar.errors import Refused, SidecarError
from sidecar.ids import new_id
from sidecar.ports import Ports
from sidecar.resolving import compare_platforms, resolve

# What references mean, as one pass has asked it.
Asked = dict[ImageRef, Resolved | SidecarError]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One look at one target: what was found, and what follows."""

    target: Target
    verdict: Verdict
    resolved: Resolved | None = None
    observed: Observed | None = None
    is_open: bool = False


async def look(ports: Ports, target: Target, cause: Cause, asked: Asked) -> Judged:
    """Resolve, observe and judge; changes nothing.

    Args:
        asked: what was resolved in this pass already, or why not: one question for each reference, however many
            containers, for a registry that hangs would take its time for each.

    Raises:
        SidecarError: registry, engine or journal failed.
    """
    if (held := hold_unasked(target)) is not None:
        return Judged(target=target, verdict=held)
    driver = ports.drivers[target.kind]
    if target.ref not in asked:
        asked[target.ref] = await _resolve(ports, target, cause)
    match asked[target.ref]:
        case Refused() as error:
            observed = await driver.observe(target, None)
            return Judged(target=target, verdict=judge_unresolved(target, observed, str(error)), observed=observed)
        case SidecarError() as error:
            raise error
        case answer:
            resolved = answer
    observed = await driver.observe(target, None)
    if observed.image is not None:
        resolved, image = await compare_platforms(ports.registry, target.ref, resolved, observed.image)
        observed = replace(observed, image=image)
    rejected = await ports.journal.rejected(target.service, target.ref.name)
    verdict: Verdict = judge(target, resolved, observed, rejected=rejected, cause=cause, rollout_id=new_id())
    if isinstance(verdict, Rollout) and (refusal := await driver.refusal(target)) is not None:
        verdict = Hold(refusal, is_failure=True)
    return Judged(target=target, verdict=verdict, resolved=resolved, observed=observed)


async def _resolve(ports: Ports, target: Target, cause: Cause) -> Resolved | SidecarError:
    try:
        return await resolve(ports, target, target.ref, cause)
    except SidecarError as error:
        return error
