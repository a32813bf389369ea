"""The failures of adapters, typed by what the caller does next.

An exception carries facts and a message for a person. It neither logs itself nor builds a response.
"""

from __future__ import annotations


class SidecarError(Exception):
    """The root of every error that Sidecar raises on purpose."""


class Transient(SidecarError):
    """It may work later: the target is held and tried again.

    Attributes:
        retry_after_seconds: what the other side asked us to wait, or None when it did not say.
    """

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Postponed(Transient):
    """Nothing failed, and it is not the time for it: the target is held and tried again, and nobody waits for it."""


class Unreachable(Transient):
    """The engine does not answer: nothing can be said of any target, work waits until it is back."""


class Refused(SidecarError):
    """It cannot work until somebody changes something: the target is held, and the reason says what."""


class Malformed(SidecarError):
    """An authenticated body cannot be read: the sender is told what was expected (422)."""


class Misconfigured(SidecarError):
    """A setting is wrong: the process ends with exit status 2 and says which one."""
