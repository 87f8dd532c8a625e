"""Tables: on the terminal, and in markdown made from the committed json."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from benchmarks._suite import Results, Row, Suite
from benchmarks.suites.peers import suite as peers
from benchmarks.suites.rodeo import tables as rodeo_tables
from benchmarks.suites.sample_size import tables as sample_size_tables
from benchmarks.suites.scaling import tables as scaling_tables
from benchmarks.suites.speed import tables as speed_tables
from benchmarks.suites.vi import tables as vi_tables

from . import reproductions
from .markdown import markdown, short

ONLY_IN_FILES = (
    *("over", "unbiased", "exact_gradient", "exact_mean", "mean"),
    *("variance_se", "variance_z", "relative_variance_se", "snr_se"),
    *("all_reduces", "other_collectives", "reduced_bytes", "bytes_in_chunks"),
)
FORMATS = {"bias_z": ".1f"}
# The results of a suite that was run there with `--out benchmarks/results/gpu`.
ON_GPU = "gpu/speed"
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
    """What the suite prints, narrow enough for 80 columns."""
    if suite.table is not None:
        return suite.table(results)
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


def in_markdown(found: Shown) -> str:
    """The same in markdown, without title and caption."""
    rule = ["---" if text else "---:" for text in found.textual]
    return markdown([found.header, rule, *found.lines])


def _setting(name: str, varied: Sequence[str], value: Any) -> bool:
    return not (name in varied or name in ONLY_IN_FILES or value is None)


def worst(rows: Sequence[Row]) -> str:
    """How far the rows are from what is known exactly."""
    # A biased estimator's bias is no surprise. NumPy's maximum does not overlook a nan.
    bias = np.max(np.abs([row["bias_z"] for row in rows if row["unbiased"]]))
    worst = f"|bias z| at most {bias:.1f}"
    variances = [row["variance_z"] for row in rows if row["exact_variance"] is not None]
    return f"{worst}, |variance z| at most {np.max(np.abs(variances)):.1f}" if variances else worst


def logistic_regression(results: Results) -> str:
    """Variances at each stage of training, one estimator a line."""
    stages = results["settings"]["stages"]
    last = stages[-1]
    header = [
        "estimator",
        "evaluations of f",
        *(f"variance at step {stage}, nats²" for stage in stages),
        "time, µs",
        f"variance × time at step {last}",
        f"ELBO at step {results['settings']['num_steps']}, nats",
    ]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for name, curve in results["curves"].items():
        found = {row["step"]: row for row in results["rows"] if row["estimator"] == name}
        cells = [name, str(found[last]["evaluations"])]
        cells += [short(found[stage]["variance"]) for stage in stages]
        cells += [short(found[last]["time_us"]), short(found[last]["variance_x_time"])]
        lines.append([*cells, short(curve["elbo"][-1], ".1f")])
    return markdown(lines)


def bits(results: Results) -> str:
    """Variances relative to leave-one-out (2) where draws are bits, one estimator a line."""
    columns = [("separable", 0.5), ("separable", 0.9), ("quadratic", 1.0)]
    columns += [("vae", stage) for stage in results["settings"]["stages"]]
    last = columns[-1]
    titles = [f"{objective}, {at:g}" for objective, at in columns]
    header = ["estimator", *titles, f"bias, {titles[-1]}", "time, vae, µs"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    found = {(row["estimator"], row["objective"], row["at"]): row for row in results["rows"]}
    for name in dict.fromkeys(name for name, objective, _ in found if objective == "vae"):
        cells = [_relative(found.get((name, *column))) for column in columns]
        row = found[name, *last]
        bias = "" if row["unbiased"] else format(row["relative_bias"], ".0%")
        lines.append([name, *cells, bias, short(row["time_us"], ".0f")])
    return markdown(lines)


def categories(results: Results) -> str:
    """Variances relative to leave-one-out (2) of one variable with 1000 values, by its entropy."""
    rows = [row for row in results["rows"] if row["objective"] == "thousand"]
    found = {(row["estimator"], row["at"]): row for row in rows}
    ats = list(dict.fromkeys(row["at"] for row in rows))
    header = ["estimator", *(f"entropy {at:g}" for at in ats), "time, µs"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for name in dict.fromkeys(row["estimator"] for row in rows):
        cells = [_relative(found[name, at]) for at in ats]
        lines.append([name, *cells, short(found[name, ats[0]]["time_us"], ".1f")])
    return markdown(lines)


def recipes(results: Results) -> str:
    """Direction, variance and what training reached, of each recipe on the bandit."""
    settings = results["settings"]
    last, rows = settings["stages"][-1], results["rows"]
    found = {(row["estimator"], row["objective"], row["at"]): row for row in rows}
    header = ["recipe"]
    header += [f"variance, {how} policy" for how in ("on", "off")]
    header += [f"angle, {how} policy" for how in ("on", "off")]
    header += [f"wrong after {settings['batches']} batches, {n} each" for n in settings["steps"]]
    lines = [[*header, "time, µs"], ["---", *["---:"] * len(header)]]
    for name in settings["recipes"]:
        pair = [found[name, f"bandit, {how} policy", last] for how in ("on", "off")]
        cells = [name, *(_relative(row) for row in pair), *(_angle(row) for row in pair)]
        for steps in settings["steps"]:
            reward = results["curves"][f"{name}, {steps}"]["reward"]
            cells.append(format(1 - np.mean([run[-1] for run in reward]), ".1%"))
        lines.append([*cells, short(pair[0]["time_us"], ".0f")])
    return markdown(lines)


def _angle(row: Row) -> str:
    """In degrees; the mean of an unbiased estimator has none."""
    return "0" if row["cosine"] is None else f"{np.degrees(np.arccos(row['cosine'])):.0f}"


def divergences(results: Results) -> str:
    """Bias and variance of each way to estimate a divergence, exactly, farthest from 0."""
    rows = [row for row in results["rows"] if row["objective"].startswith("divergence")]
    last = max(row["at"] for row in rows)
    found = {(row["estimator"], row["objective"]): row for row in rows if row["at"] == last}
    header = ["estimator", "mean of the value"]
    for how in ("on", "off"):
        header += [f"bias of the gradient, {how} policy", f"variance, {how} policy"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for name in dict.fromkeys(row["estimator"] for row in rows):
        pair = [found[name, f"divergence, {how} policy"] for how in ("on", "off")]
        cells = [name, format(last + pair[0]["value_bias"], ".3f")]
        for row in pair:
            cells += [format(row["relative_bias"], ".0%"), short(row["exact_variance"])]
        lines.append(cells)
    return markdown(lines)


# By the name of the table: the suite it is made from, and how.
MARKDOWN: Mapping[str, tuple[str, Callable[[Results], str]]] = {
    "logistic_regression": ("logistic_regression", logistic_regression),
    "bits": ("discrete", bits),
    "categories": ("discrete", categories),
    **{name: ("rodeo", table) for name, table in rodeo_tables.TABLES.items()},
    **{name: ("sample_size", table) for name, table in sample_size_tables.TABLES.items()},
    **{name: ("vi", table) for name, table in vi_tables.TABLES.items()},
    "recipes": ("policy", recipes),
    "divergences": ("policy", divergences),
    **reproductions.TABLES,
    **{name: ("speed", table) for name, table in speed_tables.TABLES.items()},
    **{f"gpu_{name}": (ON_GPU, speed_tables.TABLES[name]) for name in speed_tables.GPU_TABLES},
    **{name: ("scaling", table) for name, table in scaling_tables.TABLES.items()},
    "peers": ("peers", peers.table),
}


def _relative(row: Row | None) -> str:
    return "" if row is None else short(row["relative_variance"], ".2g")


def in_markdown_of(results: Mapping[str, Results]) -> dict[str, str]:
    """By its name, each table of what there are results of: suites, and `ON_GPU`."""
    return {n: table(results[suite]) for n, (suite, table) in MARKDOWN.items() if suite in results}


def filled(text: str, tables: Mapping[str, str]) -> str:
    """A document with these tables between its marker lines; others stay as they are.

    Raises:
        ValueError: a marker line has no end of its own.
    """
    if text.count("<!-- table:") != len(PLACE.findall(text)):
        raise ValueError("a table has no line <!-- /table --> of its own")
    return PLACE.sub(lambda place: place[1] + tables.get(place[2], place[3]) + place[4], text)
