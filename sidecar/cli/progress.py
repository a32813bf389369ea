"""What is shown while an update is followed: bars on a terminal, one JSON line an event elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from sidecar.cli.daemon import Event
from sidecar.cli.follow import Outcome


class Display(Protocol):
    """Shows events, and in the end what became of each target."""

    def tell(self, event: Event) -> None:
        """Show one event."""
        ...

    def end(self, target_id: str, outcome: Outcome) -> None:
        """Show how it ended."""
        ...


@contextmanager
def display(*, as_json: bool) -> Iterator[Display]:
    """Show on standard output, in the form that fits it."""
    if as_json or not sys.stdout.isatty():
        yield JsonLines()
        return
    from sidecar.cli.bars import bars

    with bars() as drawn:
        yield drawn


class JsonLines:
    """One line of JSON for each event, for programs."""

    def tell(self, event: Event) -> None:
        """Write one event."""
        sys.stdout.write(json.dumps(event.facts, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def end(self, target_id: str, outcome: Outcome) -> None:
        """Say nothing more: the event that ended it has been written."""
