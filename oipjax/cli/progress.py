"""Progress on the terminal: a bar per phase, on stderr, with count, rate and time left."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

stderr = Console(stderr=True, highlight=False)


class _Rate(ProgressColumn):
    """Work done per second."""

    def render(self, task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="dim")


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar per phase on stderr, with count, rate and time left."""
    columns = (
        TextColumn("{task.description:>11}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(),
    )  # fmt: skip
    bars, tasks = Progress(*columns, console=stderr), {}

    def report(phase: str, done: int, total: int) -> None:
        if phase not in tasks:
            tasks[phase] = bars.add_task(phase, total=total)
            bars.start()
        bars.update(tasks[phase], completed=done, total=total)

    try:
        yield report
    finally:
        if tasks:
            bars.stop()


class DownloadBar:
    """What pooch wants of a progress bar, on top of ours."""

    def __init__(self, report: Callable[[str, int, int], None]):
        self.report, self.total, self.done = report, 0, 0

    def update(self, count: int) -> None:
        """Some bytes have come."""
        self.done += count
        self.report("download", self.done, self.total)

    def reset(self) -> None:
        """The next file begins; pooch then sets ``total``."""
        self.done = 0

    def close(self) -> None:
        """Nothing to do: the bar belongs to the display."""
