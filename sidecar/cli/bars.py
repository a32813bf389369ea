"""Progress on a terminal: a line for each target with what is done, and a bar while its image comes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from sidecar.cli.daemon import Event
from sidecar.cli.follow import Outcome
from sidecar.cli.output import say, shown
from sidecar.cli.wording import closing, words


class _WhileMeasured(ProgressColumn):
    """A column that is there while it is known how much there is to do."""

    max_refresh = 0.1

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__(Column(no_wrap=True))
        self._column = column

    def render(self, task: Task) -> RenderableType:
        return self._column.render(task) if task.total else Text()


@contextmanager
def bars() -> Iterator[Bars]:
    """Draw them for as long as this lasts."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        _WhileMeasured(BarColumn(bar_width=20)),
        _WhileMeasured(DownloadColumn()),
        # What is said at the end is said in full; here it has the rest of the line.
        TextColumn("{task.fields[status]}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
    )
    with Progress(*columns, expand=True) as progress:
        yield Bars(progress)


class Bars:
    """One line for each target."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def tell(self, event: Event) -> None:
        """Show one event."""
        target_id = str(event.facts["target"])
        if target_id not in self._tasks:
            self._tasks[target_id] = self._progress.add_task(shown(target_id), total=None, status="")
        task, status = self._tasks[target_id], shown(words(event))
        match event.facts:
            case {"current_bytes": int(current), "total_bytes": int(total)}:
                self._progress.update(task, completed=current, total=total, status=status)
            case _:
                # What was pulled has been measured; the steps after it are not.
                self._progress.update(task, completed=0, total=0, status=status)

    def end(self, target_id: str, outcome: Outcome) -> None:
        """Say how it ended, and why."""
        say(closing(target_id, outcome))
