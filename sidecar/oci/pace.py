"""How often hosts want to be asked: the waits they asked for, and the limits they state."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.errors import Transient
from sidecar.oci.headers import RateLimit, read_rate_limit, read_retry_after
from sidecar.ports import Clock

_TOO_MANY_REQUESTS = 429
_UNAVAILABLE = 503


class Pace:
    """Remembers per host what its answers said, and stops requests that it asked not to be sent."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._quiet_until: dict[str, float] = {}
        self.rate_limits: dict[str, RateLimit] = {}

    def raise_if_quiet(self, host: str) -> None:
        """Send nothing to a host before the time it asked for is over.

        Raises:
            Transient: it is not over.
        """
        seconds = self._quiet_until.get(host, 0.0) - self._clock.monotonic()
        if seconds > 0:
            msg = f"{host} asked not to be asked again for another {seconds:.0f} seconds"
            raise Transient(msg, retry_after_seconds=seconds)
        self._quiet_until.pop(host, None)

    def note(self, host: str, status: int, headers: Mapping[str, str]) -> None:
        """Take in an answer.

        Raises:
            Transient: it says that we ask too often, or that the host cannot answer now.
        """
        if (limit := read_rate_limit(headers)) is not None:
            self.rate_limits[host] = limit
        if status not in {_TOO_MANY_REQUESTS, _UNAVAILABLE}:
            return
        wait = read_retry_after(headers, now=self._clock.now())
        if wait is not None:
            self._quiet_until[host] = self._clock.monotonic() + wait
        what = "429 (too many requests)" if status == _TOO_MANY_REQUESTS else "503 (unavailable)"
        msg = f"{host} answered {what}" + ("" if wait is None else f" and asks us to wait {wait:.0f} seconds")
        raise Transient(msg, retry_after_seconds=wait)
