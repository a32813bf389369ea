"""What a delivery says: which image reference may mean something else now, and never what it means."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.image import ImageRef


@dataclass(frozen=True, slots=True)
class Hint:
    """An image reference worth looking up.

    It cannot carry a digest: what a payload claims is looked up at the registry and never acted upon.
    A hint without a tag concerns every tag of its repository.
    """

    ref: ImageRef

    def __post_init__(self) -> None:
        if self.ref.digest is not None:
            msg = f"making a hint: {self.ref} carries a digest; a hint names a repository or a tag"
            raise ValueError(msg)

    @classmethod
    def of(cls, ref: ImageRef) -> Hint:
        """Make the hint of a reference; a digest in the place of a tag leaves the repository."""
        return cls(ref.with_tag(ref.tag))

    def __str__(self) -> str:
        """Write the reference that is hinted at."""
        return str(self.ref)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a source reads out of one request.

    Attributes:
        hints: the references it names, each once, in the order of the body.
        ignored: why nothing follows from it, in words for its sender; None where hints is not empty.
        pusher: the account that pushed, where the sender says so.
        callback_url: Docker Hub's legacy address for the answer; only ever used by that opt-in.
    """

    hints: tuple[Hint, ...] = ()
    ignored: str | None = None
    pusher: str | None = None
    callback_url: str | None = None
