"""Senders of webhooks: one file each, from headers and body to hints. Nothing here does I/O or reads a clock.

A new kind of sender is one file, and one row of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sidecar.sources import distribution, dockerhub, generic
from sidecar.sources.source import Source

__all__ = ["SOURCES", "Source"]

_ROWS = (
    Source(kind="dockerhub", parse=dockerhub.parse),
    # Its queue is serial and never drops an event: one error blocks every notification of that registry.
    Source(kind="distribution", parse=distribution.parse, retries_for_ever=True),
    Source(kind="generic", parse=generic.parse),
)

SOURCES: Mapping[str, Source] = MappingProxyType({source.kind: source for source in _ROWS})
