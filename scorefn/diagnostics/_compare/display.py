"""A comparison as text, at most 80 columns wide, and as a picture by matplotlib."""

import math
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from .row import Row

WIDTH = 80
HEADER = ("variance", "±", "time, µs", "var × µs", "evals", "snr", "bias", "z")
SPACES = (9, 5, 9, 9, 7, 7, 6, 7)
MARK = " (b)"
# Okabe and Ito (2008): told apart by readers of any color vision, and never by color alone.
UNBIASED = {"color": "#0072B2", "marker": "o"}
BIASED = {"color": "#D55E00", "marker": "D", "markerfacecolor": "white"}
NOTE = {"va": "center", "fontsize": "small", "color": "#555555"}


def table(rows: Sequence[Row]) -> str:
    """The rows under a header; columns without any entry are left out."""
    cells = [_cells(row) for row in rows if row.error is None]
    shown = [i for i in range(len(HEADER)) if any(line[i] for line in cells)]
    spaces = [SPACES[i] for i in shown]
    longest = max(len(row.estimator) + len(MARK) * (row.unbiased is False) for row in rows)
    width = min(max(longest, len("estimator")), WIDTH - sum(spaces))

    def line(name: str, entries: Sequence[str]) -> str:
        columns = zip((entries[i] for i in shown), spaces, strict=True)
        return f"{name:{width}s}" + "".join(f"{entry:>{n}s}" for entry, n in columns)

    lines, given = [line("estimator", HEADER)], iter(cells)
    for row in rows:
        # A biased estimator may win by its variance: the table says so.
        mark = MARK if row.unbiased is False else ""
        name = short(row.estimator, width - len(mark)) + mark
        failed = row.error is not None
        lines.append(
            short(f"{name:{width}s}  {row.error}", WIDTH) if failed else line(name, next(given))
        )
    return "\n".join(lines)


def short(text: str, width: int) -> str:
    """The first line of a text, cut to the width."""
    first = text.split("\n")[0]
    return first if len(first) <= width else first[: width - 1] + "…"


def _cells(row: Row) -> list[str]:
    error = row.variance_se / row.variance if row.variance else math.nan
    return [
        _number(row.variance),
        _number(error, ".0%"),
        _number(row.time_us),
        _number(row.variance_x_time),
        "" if row.evaluations is None else str(row.evaluations),
        _number(row.snr),
        _number(row.relative_bias, ".0%") if row.bias_found else "",
        _number(row.bias_z, ".1f" if row.bias_z < 100 else ".3g"),
    ]


def _number(value: float, form: str = ".3g") -> str:
    return "" if math.isnan(value) else format(value, form)


def optional(name: str, purpose: str) -> ModuleType:
    """A package that only one method needs.

    Raises:
        ImportError: it is not installed; the message names the method.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise ImportError(
            f"{purpose} needs {package}, which is not installed: pip install {package}."
        ) from error


def plot(rows: Sequence[Row], axis: Any) -> Any:
    """Variance x time of each row with 3 standard errors, the best on top."""
    if axis is None:
        pyplot = optional("matplotlib.pyplot", "Comparison.plot")
        height = 1.3 + 0.3 * len(rows)
        _, axis = pyplot.subplots(figsize=(6.4, height), layout="constrained")
    positive = [row for row in rows if row.is_finite and row.variance_x_time > 0]
    for look, label in ((UNBIASED, "unbiased"), (BIASED, "biased")):
        shown = [row for row in positive if _is_biased(row) is (look is BIASED)]
        if shown:
            work = [row.variance_x_time for row in shown]
            bars = [3 * row.variance_x_time_se for row in shown]
            # On a logarithmic axis a bar may not reach 0.
            below = [min(bar, 0.9 * w) for bar, w in zip(bars, work, strict=True)]
            places = [rows.index(row) for row in shown]
            axis.errorbar(
                work,
                places,
                xerr=[below, bars],
                **look,
                linestyle="none",
                capsize=2,
                markersize=5,
                linewidth=1.3,
                label=label,
            )
    if positive:
        axis.set_xscale("log")
        # 3 and not 3 × 10^0, where less than a decade is shown.
        ticker = optional("matplotlib.ticker", "Comparison.plot")
        axis.xaxis.set_minor_formatter(ticker.LogFormatter(minor_thresholds=(1, 0.4)))
    for place, row in enumerate(rows):
        if row not in positive:
            axis.text(0.01, place, _why_no_point(row), transform=axis.get_yaxis_transform(), **NOTE)
    axis.set_yticks(range(len(rows)), [row.estimator for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlabel("variance × time of one gradient, µs (bars: ± 3 standard errors)")
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    if any(map(_is_biased, positive)):
        axis.legend(frameon=False)
    return axis


def _is_biased(row: Row) -> bool:
    return row.unbiased is False or row.bias_found


def _why_no_point(row: Row) -> str:
    if row.error is not None:
        return f"raises {row.error.split(':')[0]}"
    return "no variance" if row.variance == 0 else "not finite"
