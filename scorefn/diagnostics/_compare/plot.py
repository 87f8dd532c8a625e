"""A comparison as a picture, drawn by matplotlib if it is installed."""

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from .row import Row

# Okabe and Ito (2008): told apart by readers of any colour vision, and never by colour alone.
UNBIASED = {"color": "#0072B2", "marker": "o"}
BIASED = {"color": "#D55E00", "marker": "D", "markerfacecolor": "white"}


def optional(name: str, purpose: str) -> ModuleType:
    """A package that only one method needs.

    Raises:
        ImportError: it is not installed; says what for it is wanted.
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
                *(work, places),
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


NOTE = {"va": "center", "fontsize": "small", "color": "#555555"}


def _is_biased(row: Row) -> bool:
    return row.unbiased is False or row.bias_found


def _why_no_point(row: Row) -> str:
    if row.error is not None:
        return f"raises {row.error.split(':')[0]}"
    return "no variance" if row.variance == 0 else "not finite"
