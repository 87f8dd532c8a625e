"""The table of the suite `sample_size`."""

import numpy as np

from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results


def samples(results: Results) -> str:
    """Variance of one gradient and ELBO after training, by the number of samples."""
    stages, end = results["settings"]["stages"], results["settings"]["num_steps"]
    seeds = results["settings"]["seeds"]
    header = ["estimator, samples", "evaluations of f"]
    header += [f"variance at step {stage}, nats²" for stage in stages]
    header += [
        f"ELBO at step {end}, nats",
        "range over the seeds",
        f"of {seeds} diverged",
        "time, µs",
    ]
    lines = []
    found = {(row["estimator"], row["samples"], row["step"]): row for row in results["rows"]}
    for name, n in dict.fromkeys((name, n) for name, n, _ in found):
        rows = [found[name, n, stage] for stage in stages]
        cells = [f"{name}, {n}", str(rows[-1]["evaluations"])]
        cells += [short(row["variance"]) for row in rows]
        cells += [*_elbo(last_elbo(results, name, n)), short(rows[-1]["time_us"])]
        lines.append(cells)
    return markdown(header, lines)


def _elbo(seeds: np.ndarray) -> tuple[str, str, str]:
    """The median and range of the converged seeds, and the number that diverged."""
    good = seeds[np.isfinite(seeds)]
    astray = str(len(seeds) - len(good))
    if not len(good):
        return "", "", astray
    return f"{np.median(good):.1f}", f"{good.min():.1f} to {good.max():.1f}", astray


def last_elbo(results: Results, name: str, n: int) -> np.ndarray:
    """The ELBO at the end of training, [seeds]; nan for a run that diverged."""
    curve = results["curves"][f"{name}, {n}"]
    return np.array([run[-1] for run in curve["elbo"]], float)
