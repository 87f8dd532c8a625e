"""The figure: CPU time of each stage, by the library and by hand."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from benchmarks._reporting.plots import panels
from benchmarks._suite import Results

from .measuring import STAGES

COLORS = ("#0072B2", "#E69F00", "#999999")


def figures(results: Results) -> Mapping[str, Figure]:
    """Two bars for each case, relative to the hand-written code."""
    rows = [row for row in results["rows"] if row["note"] is None][::-1]
    figure, axes = panels(1, 1, size=(7.0, 0.8 + 0.42 * len(rows)))
    axis = axes[0, 0]
    total = np.array([sum(row[f"hand_{stage}_ms"] for stage in STAGES) for row in rows])
    for whose, shift in {"": 0.19, "hand_": -0.19}.items():
        left = np.zeros(len(rows))
        for stage, color in zip(STAGES, COLORS, strict=True):
            width = np.array([row[f"{whose}{stage}_ms"] for row in rows]) / total
            label = stage if whose == "" else None
            options = {"height": 0.36, "alpha": 1.0 if whose == "" else 0.5}
            at = np.arange(len(rows)) + shift
            axis.barh(at, width, left=left, color=color, label=label, **options)
            left += width
    axis.set_yticks(range(len(rows)), [row["case"] for row in rows])
    axis.set_xlabel("CPU time relative to hand-written code (pale)")
    figure.legend(loc="outside lower center", ncols=3)
    return {"compile": figure}
