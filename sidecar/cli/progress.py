"""What is shown while an update is followed: bars, plain lines on a terminal that cannot draw, JSON lines elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from sidecar.cli.daemon import Event
from sidecar.cli.follow import Outcome, is_end
from sidecar.cli.output import say
from sidecar.cli.wording import closing, words
from sidecar.settings import environment

# Terminals that know no movements, as their `TERM` says.
_DUMB = frozenset({"", "dumb", "unknown"})


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
    if not _can_draw(environment()):
        yield PlainLines()
        return
    from sidecar.cli.bars import bars

    with bars() as drawn:
        yield drawn


def _can_draw(environ: Mapping[str, str]) -> bool:
    return environ.get("TERM", "").lower() not in _DUMB and not environ.get("NO_COLOR")


class PlainLines:
    """One line of text for whatever is new of a target; how it ended is said last, and once."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def tell(self, event: Event) -> None:
        """Write one event, unless it says what was said last; there are ten a second while a layer comes in."""
        line = f"{event.facts['target']}: {words(event)}"
        if not is_end(event) and self._said.get(event.facts["target"]) != line:
            self._said[event.facts["target"]] = line
            say(line)

    def end(self, target_id: str, outcome: Outcome) -> None:
        """Say how it ended, and why."""
        say(closing(target_id, outcome))


class JsonLines:
    """One line of JSON for each event, for programs."""

    def tell(self, event: Event) -> None:
        """Write one event."""
        sys.stdout.write(json.dumps(event.facts, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def end(self, target_id: str, outcome: Outcome) -> None:
        """Say nothing more: the event that ended it has been written."""
