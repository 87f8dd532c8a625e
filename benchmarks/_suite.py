"""What a suite is: named steps that are run, kept and resumed one by one, and how to draw them."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from matplotlib.figure import Figure
from rich.table import Table

Row = dict[str, Any]
Sizes = Mapping[str, Any]
Results = Mapping[str, Any]
Step = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class Suite:
    """One question put to the estimators.

    Attributes:
        name: of the suite, its files and its command-line option.
        summary: one line for ``--list``.
        full: sizes of the default run.
        quick: sizes of a run of seconds.
        steps: ``steps(sizes, seed)``, the steps by name, in order. A step returns a dict of any of
            ``rows`` (a list; those with a variance name in ``timing`` the measurement of time it
            belongs to), ``times`` (microseconds, by name) and ``curves`` (whatever, by name).
        figures: ``figures(results)``, drawn from what the json holds, by file name.
        shown: whether a row is among those printed.
        default: whether it is part of the default run, which takes less than 3 minutes.
        table: ``table(results)``, what is printed; None is a table of variances.
    """

    name: str
    summary: str
    full: Sizes
    quick: Sizes
    steps: Callable[[Sizes, int], Mapping[str, Step]]
    figures: Callable[[Results], Mapping[str, Figure]]
    shown: Callable[[Row], bool]
    default: bool = True
    table: Callable[[Results], Table] | None = None


def step_key(seed: int, name: str) -> jax.Array:
    """The random key of one step, whichever steps have run before."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def assemble(payloads: Mapping[str, Mapping[str, Any]]) -> tuple[list[Row], dict[str, Any]]:
    """The rows with their times, and the curves, from what all steps returned."""
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
