"""Values that many tests begin with."""

from sidecar.core.decision import Cause
from sidecar.core.image import Digest, ImageRef
from sidecar.core.policy import Policy
from sidecar.core.rollout import Revision, Rollout
from sidecar.core.target import Health, Image, Kind, Observed, State, Target

OLD = Digest("sha256:" + "a" * 64)
NEW = Digest("sha256:" + "b" * 64)
NEWER = Digest("sha256:" + "c" * 64)
REF = "registry.test/web:1"
NOW = 1000.0
CAUSE = Cause("webhook", NOW - 5, ("delivery-1",))


def target(**changes: object) -> Target:
    """Make a labelled container ``web``."""
    values: dict[str, object] = {
        "id": "docker:web",
        "kind": Kind.DOCKER,
        "ref": ImageRef.configured(REF),
        "policy": Policy(enable=True),
        "service": "docker:web",
    }
    return Target(**(values | changes))  # type: ignore[arg-type]


def observed(**changes: object) -> Observed:
    """Make the look at a container that runs the old image and is healthy."""
    values: dict[str, object] = {
        "now": NOW,
        "state": State.RUNNING,
        "instance": "old-container",
        "image": Image(id="old-image", digests=frozenset({OLD})),
        "health": Health.HEALTHY,
        "started_at": NOW - 100,
        "healthy_since": NOW - 90,
    }
    return Observed(**(values | changes))  # type: ignore[arg-type]


def rollout(**changes: object) -> Rollout:
    """Make a rollout from the old digest to the new one, just begun."""
    values: dict[str, object] = {
        "id": "rollout-1",
        "target_id": "docker:web",
        "service": "docker:web",
        "repository": "registry.test/web",
        "ref": REF,
        "cause": "webhook",
        "started_at": NOW,
        "delivery_ids": ("delivery-1",),
        "min_ready_seconds": 10.0,
        "deadline_seconds": 60.0,
        "platform": "linux/amd64",
        "from_": Revision(digest=OLD, image_id="old-image", instance="old-container"),
        "to": Revision(digest=NEW, image_id="new-image", instance="new-container"),
        "run_state": State.RUNNING,
    }
    return Rollout(**(values | changes))  # type: ignore[arg-type]
