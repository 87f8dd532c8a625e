"""The parts of a suite: named steps that are run and resumed one by one, figures and tables."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from matplotlib.figure import Figure
from rich.table import Table as TerminalTable

Row = dict[str, Any]
Sizes = Mapping[str, Any]
Results = Mapping[str, Any]
Step = Callable[[], Mapping[str, Any]]
Table = Callable[[Results], str]


@dataclass(frozen=True)
class Ranking:
    """The estimators of one gradient by variance and time, and which of them the docs advise.

    Attributes:
        title: the class of problems, in words.
        where: the values that these rows have in common, by column.
        advised: the advised estimators. Each with the largest ratio of its variance to that of
            the best unbiased estimator which takes no more time: 1 is on the Pareto front.
        without: estimators that do not apply, since they differentiate f for example.
    """

    title: str
    where: Mapping[str, Any]
    advised: Mapping[str, float]
    without: Sequence[str] = ()

    def rows(self, results: Results) -> list[Row]:
        """The rows of unbiased estimators of this class."""
        wanted = {**self.where, "unbiased": True}
        return [
            row
            for row in results["rows"]
            if row["estimator"] not in self.without
            and all(row[name] == value for name, value in wanted.items())
        ]


@dataclass(frozen=True)
class Suite:
    """One question about the estimators.

    Attributes:
        name: the name of the suite, of its files and of its command-line option.
        summary: one line for ``--list``.
        full: the sizes of a full run.
        quick: the sizes of a run of some seconds.
        steps: ``steps(sizes, seed)``, the steps by name, in order. A step returns a dict of any of
            ``rows`` (a list; a row with a variance names in ``timing`` the time that belongs to
            it), ``times`` (microseconds, by name) and ``curves`` (any values, by name).
        shown: whether a row is printed.
        figures: ``figures(results)``, the figures by file name, drawn from the results alone.
        rankings: estimators by variance and time, for each class of problems.
        default: whether the suite is part of the default run, which takes less than 3 minutes.
        tables: the tables in markdown, by the name that marks their place in a document.
        accelerator_tables: the names of the tables that are also made from results measured on an
            accelerator, if there are any.
        claims: the table of published claims, if there is one.
        terminal: ``terminal(results)``, the table that is printed. None prints the variances.
    """

    name: str
    summary: str
    full: Sizes
    quick: Sizes
    steps: Callable[[Sizes, int], Mapping[str, Step]]
    shown: Callable[[Row], bool]
    figures: Callable[[Results], Mapping[str, Figure]] = lambda _: {}
    rankings: Sequence[Ranking] = ()
    default: bool = True
    tables: Mapping[str, Table] = field(default_factory=dict)
    accelerator_tables: Sequence[str] = ()
    claims: Table | None = None
    terminal: Callable[[Results], TerminalTable] | None = None


def step_key(seed: int, name: str) -> jax.Array:
    """The random key of one step, which does not depend on the steps before it."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def assemble(payloads: Mapping[str, Mapping[str, Any]]) -> tuple[list[Row], dict[str, Any]]:
    """The rows with their times, and the curves, of all steps."""
    times: dict[str, float] = {}
    curves: dict[str, Any] = {}
    for payload in payloads.values():
        times |= payload.get("times", {})
        curves |= payload.get("curves", {})
    rows = [row for payload in payloads.values() for row in payload.get("rows", [])]
    return [_timed(row, times) for row in rows], curves


def _timed(row: Row, times: Mapping[str, float]) -> Row:
    if "timing" not in row:
        return row
    time_us = times[row["timing"]]
    kept = {name: value for name, value in row.items() if name != "timing"}
    return kept | {"time_us": time_us, "variance_x_time": row["variance"] * time_us}
