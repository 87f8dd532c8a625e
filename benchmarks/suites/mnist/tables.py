"""The tables of the suite `mnist`, and the time at which a run reaches a bound."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results

from .entries import UNIT


def linear(results: Results) -> str:
    """MNIST, 200 bits, one layer: variance, bias, bounds and time."""
    return _table(results, "linear")


def nonlinear(results: Results) -> str:
    """MNIST, 200 bits, two hidden layers: variance, bias, bounds and time."""
    return _table(results, "nonlinear")


def categorical(results: Results) -> str:
    """MNIST, 12 variables of 16 categories, two hidden layers: variance, bias, bounds and time."""
    return _table(results, "categorical")


def _table(results: Results, network: str) -> str:
    rows = [row for row in results["rows"] if row["network"] == network]
    stages = list(dict.fromkeys(row["step"] for row in rows))
    found = {(row["estimator"], row["step"]): row for row in rows}
    header = [
        "estimator",
        *(f"variance, step {step}" for step in stages),
        f"bias, step {stages[-1]}",
        "training ELBO, nats",
        "test bound, nats",
        "CPU ms per step",
        f"CPU s to the bound of {UNIT}",
    ]
    lines = []
    for name in dict.fromkeys(row["estimator"] for row in rows):
        of_name = [found[name, step] for step in stages]
        curve = results["curves"][f"{network} {name}"]
        bias, error = (of_name[-1][column] for column in ("relative_bias", "relative_bias_se"))
        lines.append(
            [
                name,
                *(short(row["relative_variance"], ".2g") for row in of_name),
                "" if bias is None else f"{bias:.0%} ± {error:.0%}",
                spread([run[-1] for run in curve["train"]]),
                spread(curve["test_iwae"]),
                short(1e-3 * of_name[0]["time_us"], ".1f"),
                _seconds(reached(curve, goal(results, network)), of_name[0]["time_us"]),
            ]
        )
    return markdown(header, lines)


def spread(values: Sequence[float]) -> str:
    """The mean of some runs, and the standard deviation between them."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return f"{np.mean(values):.1f} ± {deviation:.1f}"


def _seconds(steps: Sequence[float | None], microseconds: float) -> str:
    found = [1e-6 * microseconds * step for step in steps if step is not None]
    if not found:
        return "never"
    return f"{np.mean(found):.1f}" + (
        "" if len(found) == len(steps) else f" ({len(found)} of {len(steps)} runs)"
    )


def goal(results: Results, network: str) -> float:
    """The ELBO on test images that all runs of leave-one-out with 2 samples reach at the end."""
    return float(min(run[-1] for run in results["curves"][f"{network} {UNIT}"]["test"]))


def reached(curve: Mapping[str, Any], target: float) -> list[float | None]:
    """The steps until the ELBO on test images is that high, for each run; None where it is not.

    Linear between the states that were evaluated.
    """
    found: list[float | None] = []
    for run in curve["test"]:
        above = next((i for i, elbo in enumerate(run) if elbo >= target), None)
        if above is None:
            found.append(None)
            continue
        i = max(above, 1)
        found.append(float(np.interp(target, run[i - 1 : i + 1], curve["step"][i - 1 : i + 1])))
    return found
