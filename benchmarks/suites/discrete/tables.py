"""The tables of the suite `discrete`."""

from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results, Row


def bits(results: Results) -> str:
    """Variances relative to leave-one-out (2) where draws are bits, one estimator a line."""
    columns = [("separable", 0.5), ("separable", 0.9), ("quadratic", 1.0)]
    columns += [("vae", stage) for stage in results["settings"]["stages"]]
    last = columns[-1]
    titles = [f"{objective}, {at:g}" for objective, at in columns]
    header = ["estimator", *titles, f"bias, {titles[-1]}", "time, vae, µs"]
    lines = []
    found = {(row["estimator"], row["objective"], row["at"]): row for row in results["rows"]}
    for name in dict.fromkeys(name for name, objective, _ in found if objective == "vae"):
        cells = [_relative(found.get((name, *column))) for column in columns]
        row = found[name, *last]
        bias = "" if row["unbiased"] else format(row["relative_bias"], ".0%")
        lines.append([name, *cells, bias, short(row["time_us"], ".0f")])
    return markdown(header, lines)


def categories(results: Results) -> str:
    """Variances relative to leave-one-out (2) of one variable with 1000 values, by its entropy."""
    rows = [row for row in results["rows"] if row["objective"] == "thousand"]
    found = {(row["estimator"], row["at"]): row for row in rows}
    ats = list(dict.fromkeys(row["at"] for row in rows))
    header = ["estimator", *(f"entropy {at:g}" for at in ats), "time, µs"]
    lines = []
    for name in dict.fromkeys(row["estimator"] for row in rows):
        cells = [_relative(found[name, at]) for at in ats]
        lines.append([name, *cells, short(found[name, ats[0]]["time_us"], ".1f")])
    return markdown(header, lines)


def _relative(row: Row | None) -> str:
    return "" if row is None else short(row["relative_variance"], ".2g")
