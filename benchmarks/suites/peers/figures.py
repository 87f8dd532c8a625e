"""The figure: the error of one gradient by each call."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from benchmarks._packages.toys import TOYS
from benchmarks._reporting.plots import PALETTE, panels
from benchmarks._suite import Results

LEAST = 0.1


def figures(results: Results) -> Mapping[str, Figure]:
    """The error of one gradient relative to the exact one, bias and noise together."""
    rows = [row for row in results["rows"] if row["note"] is None]
    figure, axes = panels(1, 1, size=(6.5, 0.19 * len(rows) + 0.6))
    axis = axes[0, 0]
    for i, row in enumerate(rows):
        norm = np.sum(np.square(row["exact_gradient"]))
        error = np.sqrt(row["relative_bias"] ** 2 + row["variance"] / norm)
        # What is exact stands at the edge.
        error = max(error, LEAST)
        color = PALETTE[list(TOYS).index(row["toy"]) % len(PALETTE)]
        wrong = abs(row["bias_z"]) > 6
        axis.plot(error, i, "X" if wrong else "o", color=color, ms=8 if wrong else 4)
    labels = [f"{row['toy']}: {row['package']} {row['call']}" for row in rows]
    axis.set_yticks(range(len(rows)), labels)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set(xscale="log", xlim=(LEAST, 3))
    axis.set_xticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    axis.set_xticks([], minor=True)
    figure.supxlabel("root mean squared error / norm of the gradient; crosses: biased", size=9)
    return {"peers": figure}
