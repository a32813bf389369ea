"""What is decided about a target, and what it is decided from: values that can be printed and compared."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.image import Digest


@dataclass(frozen=True, slots=True)
class Keep:
    """It is as it should be."""

    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Something could be done and is not; the reason is for the operator.

    Attributes:
        retry_at: when to look again without being told (our clock, seconds since 1970); None: when something changes.
        is_failure: its update failed or could not be prepared, so what depends on it is not updated either.
    """

    reason: str
    retry_at: float | None = None
    is_failure: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """Let the driver make its next engine call.

    Attributes:
        is_start: it starts the container that the phase wants to see running; these are counted.
    """

    is_start: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again after this many seconds, or when a hint comes."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a reference means now, as its registry says.

    Attributes:
        digest: of the manifest or index that the reference names.
        identities: everything this platform's image may be recognised by: that digest, the digest of the platform's
            manifest in the index, the digest of its configuration; as far as they are known.
    """

    digest: Digest
    identities: frozenset[str]

    @classmethod
    def of(cls, digest: Digest, *more: str) -> Resolved:
        """Make one from its digest and whatever else is known."""
        return cls(digest=digest, identities=frozenset({digest, *more}))


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a target is looked at.

    Attributes:
        kind: ``webhook``, ``start-up``, ``resync``, ``engine``, ``project``, ``retry``, ``cli``.
        at: since when it is wanted (our clock, seconds since 1970).
        delivery_ids: the deliveries that asked for it.
    """

    kind: str
    at: float
    delivery_ids: tuple[str, ...] = ()

    def merged(self, later: Cause) -> Cause:
        """Take another one along; deliveries are what people look for, so the first that has some names the whole."""
        if later.delivery_ids and not self.delivery_ids:
            return later
        ids = dict.fromkeys(self.delivery_ids + later.delivery_ids)
        at = min(self.at, later.at) if later.delivery_ids or not self.delivery_ids else self.at
        return Cause(self.kind, at, tuple(ids))
