"""The progress bar, and an estimate of the time left from the seconds that steps took before."""

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

# So many seconds pass before the speed of this machine outweighs that of the earlier run.
TRUSTED = 10.0


@dataclass
class Pace:
    """How long steps take, as recorded by an earlier run and corrected by this one.

    Attributes:
        title: what stands before the bar.
        recorded: the seconds of each step of this suite in an earlier run, as far as known.
        later: those of all suites that follow; None if they are not known.
        taken: the seconds of each step in this run.
    """

    title: str = ""
    recorded: Mapping[str, float] = field(default_factory=dict)
    later: float | None = 0.0
    taken: dict[str, float] = field(default_factory=dict)

    def add(self, step: str, seconds: float) -> None:
        """Learns from a step that is done."""
        self.taken[step] = seconds

    def left(self, steps: Sequence[str]) -> float | None:
        """The seconds that these steps and the later suites will take; None if nothing is known."""
        both = [step for step in self.taken if step in self.recorded]
        spent, expected = (sum(x[step] for step in both) for x in (self.taken, self.recorded))
        slower = (spent + TRUSTED) / (expected + TRUSTED)
        new = [step for step in steps if step not in self.recorded]
        known = slower * sum(self.recorded[step] for step in steps if step in self.recorded)
        if new and not self.taken:
            return None
        # Of most suites the first step, the times of all estimators, is by far the longest.
        usual = statistics.median(self.taken.values()) if new else 0.0
        return known + len(new) * usual + slower * (self.later or 0.0)

    def ends(self, steps: Sequence[str]) -> tuple[float, bool] | None:
        """When that will be, by the monotonic clock, and whether suites not known come after it."""
        left = self.left(steps)
        return None if left is None else (time.monotonic() + left, self.later is None)


def total(recorded: Iterable[Mapping[str, float]]) -> float | None:
    """The seconds of several suites; None if one of them has no record."""
    sums = [sum(suite.values()) for suite in recorded]
    return sum(sums) if all(sums) else None


class _Left(ProgressColumn):
    """The time left; with a > before it if there are suites of which no time is known."""

    def render(self, task: Task) -> Text:
        ends = task.fields.get("ends")
        return Text(remaining(ends) if ends else "", style="progress.remaining", no_wrap=True)


def remaining(ends: tuple[float, bool]) -> str:
    """Minutes and seconds."""
    end, more = ends
    seconds = max(0, round(end - time.monotonic()))
    return f"{'> ' if more else ''}{seconds // 60}:{seconds % 60:02d} left"


def bar(console: Console) -> Progress:
    """The progress of one suite."""
    # In 80 columns the name of the step gives way, not the numbers.
    return Progress(
        TextColumn("{task.description:20s}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=7)),
        _Left(table_column=Column(no_wrap=True, min_width=12)),
        TextColumn(
            "{task.fields[step]}",
            style="dim",
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
        console=console,
        expand=True,
    )
