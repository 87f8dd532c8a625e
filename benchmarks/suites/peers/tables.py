"""The table of the suite `peers`."""

from rich import box
from rich.table import Table

from benchmarks._packages.call import SAMPLES
from benchmarks._packages.toys import TOYS
from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results, Row

HEADER = ("call", "exact", "mean found", "rel bias", "bias z", "variance", "µs")


def calls(results: Results) -> str:
    """The same gradients by this library and by others, 10 samples each."""
    lines = []
    for row in results["rows"]:
        package = f"{row['package']} {row['version'] or ''}".strip()
        lines.append([row["toy"], package, row["call"], *_cells(row)])
    return markdown(["toy", "package", *HEADER], lines, words=range(5))


def _cells(row: Row) -> list[str]:
    exact = _numbers(row["exact_gradient"])
    if row["note"] is not None:
        return [exact, row["note"], "", "", "", ""]
    cells = [exact, _numbers(row["mean"]), format(row["relative_bias"], ".0%"), _z(row["bias_z"])]
    return [*cells, short(row["variance"]), short(row["time_us"])]


def _z(z: float) -> str:
    return format(z, ".1f") if abs(z) < 1000 else "> 1000" if z > 0 else "< -1000"


def _numbers(values: list[float]) -> str:
    # Rounded first: what rounds to 0 has no sign.
    return ", ".join(format(round(value, 4) + 0.0, ".3g") for value in values)


def terminal(results: Results) -> Table:
    """All rows in 80 columns, with the exact gradient in the header of each toy."""
    found = Table(title=f"peers, {SAMPLES} samples each", box=box.SIMPLE_HEAD, show_edge=False)
    found.add_column("package and call", max_width=32)
    found.add_column("mean found", max_width=24)
    for name in HEADER[3:]:
        found.add_column(name, justify="right", no_wrap=True)
    toy = ""
    for row in results["rows"]:
        if toy != row["toy"]:
            toy = row["toy"]
            exact = f"exact: {_numbers(row['exact_gradient'])}"
            found.add_row(f"{toy}: {TOYS[toy].about}", exact, style="bold")
        found.add_row(f"{row['package']} {row['call']}", *_cells(row)[1:])
    return found
