"""The table of the suite `rodeo`."""

from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results


def variances(results: Results) -> str:
    """Variances relative to leave-one-out (2) with 200 bits, by network and training step."""
    rows, last = results["rows"], results["settings"]["networks"][-1]
    places = list(dict.fromkeys((row["network"], row["step"]) for row in rows))
    found = {(row["estimator"], row["network"], row["step"]): row for row in rows}
    header = ["estimator", *(f"{network}, {step}" for network, step in places), f"time, {last}, µs"]
    lines = []
    for name in dict.fromkeys(row["estimator"] for row in rows):
        of_name = [found[name, *place] for place in places]
        cells = [short(row["relative_variance"], ".2g") for row in of_name]
        lines.append([name, *cells, short(of_name[-1]["time_us"], ".0f")])
    return markdown(header, lines)
