"""The table of docs/scaling.md, made from the json."""

from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results


def scaling(results: Results) -> str:
    """Times, variance, memory and communication of one gradient, one number of devices a line."""
    header = [
        *("scaling", "estimator", "devices", "samples", "wall time, ms", "CPU time, ms"),
        *("variance", "memory of a device, MiB", "in chunks", "all-reduces", "bytes in them"),
    ]
    lines = []
    for row in results["rows"]:
        curve = results["curves"][f"{row['scaling']}, {row['estimator']}"]
        cpu = curve["cpu_us"][curve["devices"].index(row["devices"])]
        cells = [row["scaling"], row["estimator"], str(row["devices"]), str(row["evaluations"])]
        cells += [short(row["time_us"] / 1e3, ".2f"), short(cpu / 1e3, ".2f")]
        cells.append(short(row["variance"]))
        cells += [short(row[of] / 2**20, ".2f") for of in ("bytes_without", "bytes_in_chunks")]
        lines.append([*cells, str(row["all_reduces"]), str(row["reduced_bytes"])])
    return markdown(header, lines, words=(0, 1))
