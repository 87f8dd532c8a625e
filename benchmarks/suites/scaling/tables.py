"""The tables of the suite scaling: on the terminal, and in docs/scaling.md."""

from collections.abc import Iterator

from rich import box
from rich.table import Table

from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results

HEADER = [
    *("estimator", "devices", "samples", "all-reduces", "bytes in each", "other collectives"),
    *("memory of a device, MiB", "in chunks"),
]


def terminal(results: Results) -> Table:
    """The messages of one gradient."""
    title = "scaling: the compiled program of one gradient"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for i, name in enumerate(HEADER):
        table.add_column(name, justify="right" if i else "left")
    for line in _lines(results):
        table.add_row(*line)
    return table


def scaling(results: Results) -> str:
    """Communication and memory of one gradient, one number of devices a line."""
    return markdown(HEADER, list(_lines(results)))


def _lines(results: Results) -> Iterator[list[str]]:
    for row in results["rows"]:
        counts = [str(row[name]) for name in ("devices", "samples", "all_reduces")]
        each = ", ".join(map(str, row["reduced_bytes"])) or "none"
        memory = [short(row[of] / 2**20, ".2f") for of in ("bytes_without", "bytes_in_chunks")]
        yield [row["estimator"], *counts, each, str(row["other_collectives"]), *memory]
