"""The figure: time and temporary memory by the number of samples."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from benchmarks._reporting.plots import panels
from benchmarks._suite import Results

from .many import ESTIMATORS
from .tables import clock


def figures(results: Results) -> Mapping[str, Figure]:
    """Time and temporary memory by the number of samples."""
    figure, axes = panels(1, 2, size=(3.6, 2.8))
    time, memory = axes[0]
    for estimator, color in zip(ESTIMATORS, ("#0072B2", "#D55E00"), strict=True):
        rows = [
            found
            for found in results["rows"]
            if found["part"] == "many" and found["case"].startswith(estimator)
        ]
        samples = [found["samples"] for found in rows]
        for whose, line in {"": "o-", "other_": "s:"}.items():
            label = f"{estimator}, {'unchunked jit' if whose else 'scorefn'}"
            seconds = np.array([found[f"{whose}time_us"] for found in rows], float) / 1e6
            time.plot(samples, seconds, line, color=color, label=label)
            held = np.array([found[f"{whose}temp_bytes"] for found in rows], float) / 2**20
            memory.plot(samples, held, line, color=color)
    for axis, title in {
        time: f"{clock(results)} of one gradient, s",
        memory: "temporary memory, MiB",
    }.items():
        axis.set(title=title, xlabel="samples", xscale="log", yscale="log")
    figure.legend(loc="outside lower center", ncols=2, title=f"on {results['device']}")
    return {"speed": figure}
