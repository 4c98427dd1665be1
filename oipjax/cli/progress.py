"""Progress on the terminal: a bar per phase, on stderr, with count, rate and time left."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

stderr = Console(stderr=True, highlight=False)

Report = Callable[[str, int, int], None]
"""Called with (phase, done, in all)."""


class _Rate(ProgressColumn):
    """Work done per second."""

    def render(self, task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="dim")


@contextlib.contextmanager
def progress() -> Iterator[Report]:
    """A bar per phase on stderr, with count, rate and time left."""
    bars = Progress(
        TextColumn("{task.description:>23}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=stderr,
    )
    tasks: dict[str, TaskID] = {}

    def report(phase: str, done: int, total: int) -> None:
        if phase not in tasks:
            tasks[phase] = bars.add_task(_label(phase), total=total)
            bars.start()
        bars.update(tasks[phase], completed=done, total=total)

    try:
        yield report
    finally:
        if tasks:
            bars.stop()


def _label(phase: str) -> str:
    """The text beside the bar of a phase."""
    name = phase.removesuffix("-on")
    words = name.replace("-", " ")
    return words if name == phase else f"{words} continued"


class DownloadBar:
    """The progress bar that pooch expects, on top of ours."""

    def __init__(self, report: Report):
        self.report = report
        self.total = 0
        self.done = 0

    def update(self, count: int) -> None:
        """Add some bytes that have been read."""
        self.done += count
        self.report("download", self.done, self.total)

    def reset(self) -> None:
        """Begin the next file; pooch then sets ``total``."""
        self.done = 0

    def close(self) -> None:
        """Nothing to do: the bar belongs to the display."""
