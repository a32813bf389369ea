"""What is shown while an update is followed: bars on a terminal, one JSON line an event elsewhere."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from sidecar.cli.daemon import Event
from sidecar.cli.follow import Outcome
from sidecar.cli.output import say, shown

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


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
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TextColumn("{task.fields[status]}", markup=False),
    )
    with Progress(*columns) as progress:
        yield _Bars(progress)


class JsonLines:
    """One line of JSON for each event, for programs."""

    def tell(self, event: Event) -> None:
        """Write one event."""
        sys.stdout.write(json.dumps(event.facts, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def end(self, target_id: str, outcome: Outcome) -> None:
        """Say nothing more: the event that ended it has been written."""


class _Bars:
    """One bar for each target: how much of its image is there, and what is being done."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def tell(self, event: Event) -> None:
        facts = event.facts
        target_id = str(facts["target"])
        task = self._tasks.get(target_id)
        if task is None:
            task = self._progress.add_task(shown(target_id), total=None, status="")
            self._tasks[target_id] = task
        status = shown(_words(event))
        match facts:
            case {"current_bytes": int(current), "total_bytes": int(total)}:
                self._progress.update(task, completed=current, total=total or None, status=status)
            case _:
                self._progress.update(task, status=status)

    def end(self, target_id: str, outcome: Outcome) -> None:
        mark = "ok" if outcome.is_well else "FAILED"
        what = outcome.event.partition(".")[2].replace("_", " ")
        say(f"{mark}  {target_id}: {what}" + (f": {outcome.reason}" if outcome.reason else ""))


def _words(event: Event) -> str:
    if event.name == "pull.progressed":
        done, total = event.facts.get("layers_done"), event.facts.get("layers_total")
        return f"pulling, {done} of {total} layers"
    if event.name == "rollout.stepped":
        step = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(event.facts.get("step"))).lower()
        return f"{str(event.facts.get('phase')).replace('_', ' ')}: {step}"
    noun, _, verb = event.name.partition(".")
    words = verb.replace("_", " ")
    words = words if noun in {"target", "rollout"} else f"{noun} {words}"
    reason = event.facts.get("reason")
    return f"{words}: {reason}" if reason else words
