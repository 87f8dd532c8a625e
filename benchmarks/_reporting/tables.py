"""Tables of any suite: on the terminal, and in markdown between the marker lines of documents."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from benchmarks._suite import Results, Row, Suite
from benchmarks._suite import Table as MarkdownTable

from . import fronts
from .markdown import markdown, short

ONLY_IN_FILES = (
    *("over", "unbiased", "exact_gradient", "exact_mean", "mean"),
    *("variance_se", "variance_z", "relative_variance_se", "relative_bias_se", "snr_se"),
    *("all_reduces", "other_collectives", "reduced_bytes", "bytes_in_chunks"),
)
FORMATS = {"bias_z": ".1f"}
# Begins the places of results that were measured with `--out benchmarks/results/gpu`.
ON_ACCELERATOR = "gpu/"
PLACE = re.compile(r"(<!-- table:(\w+) -->\n)(.*?)(<!-- /table -->)", re.DOTALL)
HEADERS = {
    "parameter": "param",
    "evaluations": "evals",
    "exact_variance": "exact",
    "bias_z": "bias z",
    "relative_variance": "rel var",
    "relative_bias": "rel bias",
    "bytes_without": "bytes",
    "time_us": "µs",
    "variance_x_time": "var × µs",
}


@dataclass(frozen=True)
class Shown:
    """The rows that a suite shows, as text; the caption speaks of all rows.

    Attributes:
        title: the suite, and what all of these rows have in common.
        caption: how many rows there are, and how far from exact values the worst is.
        header: the columns.
        textual: whether each column holds words.
        lines: the cells, row by row.
    """

    title: str
    caption: str
    header: Sequence[str]
    textual: Sequence[bool]
    lines: Sequence[Sequence[str]]


def shown(suite: Suite, results: Results) -> Shown:
    """The rows that the suite shows, in the columns that vary."""
    rows = [row for row in results["rows"] if suite.shown(row)]
    varied = [name for name in rows[0] if len({row[name] for row in rows}) > 1]
    fixed = [
        f"{name} = {value}" for name, value in rows[0].items() if _setting(name, varied, value)
    ]
    hidden = set(ONLY_IN_FILES)
    if any(row["exact_variance"] is None for row in rows):
        hidden.add("exact_variance")
    columns = [name for name in varied if name not in hidden]
    return Shown(
        title=", ".join([suite.name, *fixed]),
        caption=f"{len(rows)} of {len(results['rows'])} rows; of all: {worst(results['rows'])}",
        header=[HEADERS.get(name, name) for name in columns],
        textual=[any(isinstance(row[name], str) for row in rows) for name in columns],
        lines=[[short(row[name], FORMATS.get(name, ".3g")) for name in columns] for row in rows],
    )


def terminal(suite: Suite, results: Results) -> Table:
    """The table that the suite prints, narrow enough for 80 columns."""
    if suite.terminal is not None:
        return suite.terminal(results)
    found = shown(suite, results)
    table = Table(
        title=found.title,
        caption=found.caption,
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    for name, text in zip(found.header, found.textual, strict=True):
        table.add_column(name, justify="left" if text else "right", no_wrap=True)
    for line in found.lines:
        table.add_row(*line)
    return table


def of_rows(title: str, columns: Sequence[str], rows: Sequence[Row]) -> Table:
    """The rows for the terminal, in these columns."""
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for name in columns:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*(short(row[name]) for name in columns))
    return table


def in_markdown(found: Shown) -> str:
    """The same in markdown, without title and caption."""
    words = [i for i, text in enumerate(found.textual) if text]
    return markdown(found.header, found.lines, words=words)


def _setting(name: str, varied: Sequence[str], value: Any) -> bool:
    return not (name in varied or name in ONLY_IN_FILES or value is None)


def worst(rows: Sequence[Row]) -> str:
    """The largest distances of the rows from what is known exactly."""
    # Biased estimators are left out. NumPy's maximum does not overlook a nan.
    bias = np.max(np.abs([row["bias_z"] for row in rows if row["unbiased"]]))
    worst = f"|bias z| at most {bias:.1f}"
    variances = [row["variance_z"] for row in rows if row["exact_variance"] is not None]
    return f"{worst}, |variance z| at most {np.max(np.abs(variances)):.1f}" if variances else worst


def tables_of(suite: Suite, place: str) -> Mapping[str, MarkdownTable]:
    """The tables of the results in a folder, by their names in documents."""
    if place.startswith(ON_ACCELERATOR):
        return {f"gpu_{name}": suite.tables[name] for name in suite.accelerator_tables}
    return suite.tables


def in_markdown_of(suites: Mapping[str, Suite], results: Mapping[str, Results]) -> dict[str, str]:
    """All tables, of claims too, made from results by their places: ``NAME`` or ``gpu/NAME``."""
    found: dict[str, str] = {}
    for place, one in results.items():
        suite = suites[place.removeprefix(ON_ACCELERATOR)]
        found |= {name: table(one) for name, table in tables_of(suite, place).items()}
        if suite.claims is not None and place == suite.name:
            found[f"claims_{place}"] = suite.claims(one)
    if any(fronts.measured(suites, results)):
        found["fronts"] = fronts.table(suites, results)
    return found


def filled(text: str, tables: Mapping[str, str]) -> str:
    """A document with these tables between its marker lines. Other tables stay as they are.

    Raises:
        ValueError: a marker line has no end of its own.
    """
    if text.count("<!-- table:") != len(PLACE.findall(text)):
        raise ValueError("a table has no line <!-- /table --> of its own")
    return PLACE.sub(lambda place: place[1] + tables.get(place[2], place[3]) + place[4], text)
