"""The figure: time and memory by the number of devices."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._reporting.plots import legend_below, looks, panels
from benchmarks._suite import Results

from .problem import (
    ESTIMATORS,
)

KINDS = {"strong": "the same samples", "weak": "samples as devices"}


def figures(results: Results) -> Mapping[str, Figure]:
    """Times of one gradient by the number of devices, and the memory of each."""
    figure, axes = panels(1, 3)
    drawn = looks(f"{name}, {of}" for name in ESTIMATORS for of in ("wall", "CPU"))
    for axis, kind in zip(axes[0], KINDS, strict=False):
        for name in ESTIMATORS:
            curve = results["curves"][f"{kind}, {name}"]
            for of in ("wall", "CPU"):
                look = drawn[f"{name}, {of}"]
                times = np.array(curve[f"{of.lower()}_us"]) / 1e3
                axis.plot(curve["devices"], times, marker=look.marker, color=look.color)
        axis.set(title=f"{kind}: {KINDS[kind]}", ylabel="ms for one gradient")
        _by_devices(axis, curve["devices"])
    for name in ESTIMATORS:
        rows = [r for r in results["rows"] if (r["scaling"], r["estimator"]) == ("strong", name)]
        look, counts = drawn[f"{name}, wall"], [row["devices"] for row in rows]
        for column, line in {"bytes_without": "-", "bytes_in_chunks": ":"}.items():
            memory = [row[column] / 2**20 for row in rows]
            axes[0, 2].plot(counts, memory, line, marker=look.marker, color=look.color)
        _by_devices(axes[0, 2], counts)
    axes[0, 2].set(title="strong scaling; dotted: in chunks", ylabel="MiB of a device")
    device, cores = results["device"], curve["cores"]
    legend_below(figure, drawn, f"{device}; the host has {cores} cores", columns=4)
    return {"scaling": figure}


def _by_devices(axis: Axes, counts: Sequence[int]) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(counts, [str(n) for n in counts])
    axis.set_ylim(0, 1.05 * axis.dataLim.y1)
    axis.set_xlabel("devices")
