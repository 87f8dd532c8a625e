"""The tables of the suite `policy`."""

import numpy as np

from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results, Row


def recipes(results: Results) -> str:
    """Direction and variance of each recipe's gradient, and the rewards after training."""
    settings = results["settings"]
    last, rows = settings["stages"][-1], results["rows"]
    found = {(row["estimator"], row["objective"], row["at"]): row for row in rows}
    header = ["recipe"]
    header += [f"variance, {how} policy" for how in ("on", "off")]
    header += [f"angle, {how} policy" for how in ("on", "off")]
    header += [f"wrong after {settings['batches']} batches, {n} each" for n in settings["steps"]]
    header.append("time, µs")
    lines = []
    for name in settings["recipes"]:
        pair = [found[name, f"bandit, {how} policy", last] for how in ("on", "off")]
        cells = [
            name,
            *(short(row["relative_variance"], ".2g") for row in pair),
            *(_angle(row) for row in pair),
        ]
        for steps in settings["steps"]:
            reward = results["curves"][f"{name}, {steps}"]["reward"]
            cells.append(format(1 - np.mean([run[-1] for run in reward]), ".1%"))
        lines.append([*cells, short(pair[0]["time_us"], ".0f")])
    return markdown(header, lines)


def _angle(row: Row) -> str:
    """The angle in degrees; 0 for an unbiased estimator."""
    return "0" if row["cosine"] is None else f"{np.degrees(np.arccos(row['cosine'])):.0f}"


def divergences(results: Results) -> str:
    """Bias and variance of each way to estimate a divergence, exactly, farthest from 0."""
    rows = [row for row in results["rows"] if row["objective"].startswith("divergence")]
    last = max(row["at"] for row in rows)
    found = {(row["estimator"], row["objective"]): row for row in rows if row["at"] == last}
    header = ["estimator", "mean of the value"]
    for how in ("on", "off"):
        header += [f"bias of the gradient, {how} policy", f"variance, {how} policy"]
    lines = []
    for name in dict.fromkeys(row["estimator"] for row in rows):
        pair = [found[name, f"divergence, {how} policy"] for how in ("on", "off")]
        cells = [name, format(last + pair[0]["value_bias"], ".3f")]
        for row in pair:
            cells += [format(row["relative_bias"], ".0%"), short(row["exact_variance"])]
        lines.append(cells)
    return markdown(header, lines)
