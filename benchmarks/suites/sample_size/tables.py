"""The table of the suite `sample_size`."""

from collections.abc import Callable, Mapping

import numpy as np

from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results

from .suite import last_elbo


def samples(results: Results) -> str:
    """Variance of one gradient and what training reached, by the number of samples."""
    stages, end = results["settings"]["stages"], results["settings"]["num_steps"]
    seeds = results["settings"]["seeds"]
    header = ["estimator, samples", "evaluations of f"]
    header += [f"variance at step {stage}, nats²" for stage in stages]
    header += [f"ELBO at step {end}, nats", "of the seeds", f"of {seeds} astray", "time, µs"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    found = {(row["estimator"], row["samples"], row["step"]): row for row in results["rows"]}
    for name, n in dict.fromkeys((name, n) for name, n, _ in found):
        rows = [found[name, n, stage] for stage in stages]
        cells = [f"{name}, {n}", str(rows[-1]["evaluations"])]
        cells += [short(row["variance"]) for row in rows]
        cells += [*_elbo(last_elbo(results, name, n)), short(rows[-1]["time_us"])]
        lines.append(cells)
    return markdown(lines)


def _elbo(seeds: np.ndarray) -> tuple[str, str, str]:
    """The median and the range of the seeds that did not go astray, and how many did."""
    good = seeds[np.isfinite(seeds)]
    astray = str(len(seeds) - len(good))
    if not len(good):
        return "", "", astray
    return f"{np.median(good):.1f}", f"{good.min():.1f} to {good.max():.1f}", astray


TABLES: Mapping[str, Callable[[Results], str]] = {"sample_size": samples}
