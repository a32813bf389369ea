"""What people may ask of the daemon, as a protocol with the values that it answers with; no code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sidecar.core.image import Digest
from sidecar.core.rollout import Rollout
from sidecar.core.target import Observed, Target
from sidecar.ports import Described, History


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was judged of one target, for people.

    Attributes:
        verdict: ``keep``, ``hold`` or ``rollout``; the reason says why in words.
        running, available: digests; empty where unknown.
    """

    target: Target
    verdict: str
    reason: str
    running: str = ""
    available: str = ""
    phase: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmanaged:
    """A container that Sidecar leaves alone, and why."""

    name: str
    image: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongCredentials:
    """Requests to a source that were turned away for a wrong credential, since the start; never the credential."""

    source: str
    count: int
    last_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """All that is known of one target, for people.

    Attributes:
        rollout: the newest one, open or not.
        rejected: digests that failed on its service, with the reason.
    """

    looked: Looked
    observed: Observed
    described: Described
    rollout: Rollout | None = None
    rejected: Mapping[Digest, str] = field(default_factory=dict)


class Control(Protocol):
    """What a person can ask of the daemon; the API is a thin skin over it."""

    async def targets(self) -> tuple[Sequence[Looked], Sequence[Unmanaged]]:
        """Give every target with its last verdict, and everything that is not managed with the reason."""
        ...

    async def show(self, text: str, *, with_spec: bool) -> Sequence[Shown]:
        """Give all that is known of the targets that are meant, of one that is gone by its last rollout.

        Raises:
            Refused: nothing is meant by the text.
        """
        ...

    async def plan(self, text: str | None) -> Sequence[Looked]:
        """Judge every target (or those that a reference, a target id or a Compose service means) and do nothing.

        Raises:
            Refused: nothing is meant by the text.
        """
        ...

    async def update(self, text: str) -> tuple[str, Sequence[str]]:
        """Enqueue the targets that a reference, target id or service means; give the delivery id and the target ids.

        Raises:
            Refused: nothing is meant by the text.
        """
        ...

    async def update_matching(
        self, *, images: Sequence[str], names: Sequence[str]
    ) -> tuple[str, Sequence[str], Sequence[str]]:
        """Enqueue the targets of these images and of these names, or every one where neither is given.

        Gives the delivery id, the target ids, and which of the texts mean nothing.
        """
        ...

    async def release(self, text: str) -> tuple[str, Mapping[str, int]]:
        """Forget the digests that failed on the targets that are meant, and enqueue these; give how many, by target.

        Raises:
            Refused: nothing is meant by the text.
        """
        ...

    async def history(self, *, limit: int, target_id: str | None = None) -> History:
        """Give what happened of late; of a target by its id or name, or of those of a Compose service.

        Raises:
            Refused: nothing is meant by the text.
        """
        ...

    def wrong_credentials(self) -> Sequence[WrongCredentials]:
        """Give who was turned away for a wrong credential, by source."""
        ...

    async def ready(self) -> Mapping[str, str]:
        """Give what is not well, by part (``engine``, ``journal``); empty when the daemon is ready."""
        ...
