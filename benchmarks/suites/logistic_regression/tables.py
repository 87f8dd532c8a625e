"""The table of the suite `logistic_regression`."""

from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results


def variances(results: Results) -> str:
    """Variances at each stage of training, one estimator a line."""
    stages = results["settings"]["stages"]
    last = stages[-1]
    header = [
        "estimator",
        "evaluations of f",
        *(f"variance at step {stage}, nats²" for stage in stages),
        "time, µs",
        f"variance × time at step {last}",
        f"ELBO at step {results['settings']['num_steps']}, nats",
    ]
    lines = []
    for name, curve in results["curves"].items():
        found = {row["step"]: row for row in results["rows"] if row["estimator"] == name}
        cells = [name, str(found[last]["evaluations"])]
        cells += [short(found[stage]["variance"]) for stage in stages]
        cells += [short(found[last]["time_us"]), short(found[last]["variance_x_time"])]
        lines.append([*cells, short(curve["elbo"][-1], ".1f")])
    return markdown(header, lines)
