"""The tables of the suite compile: on the terminal, and in documents."""

from rich import box
from rich.table import Table

from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results, Row

from .measuring import STAGES


def terminal(results: Results) -> Table:
    """Ratios, and what was skipped."""
    title = "compile: ratio of CPU time to that of hand-written code"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("case")
    for name in ("ratio", "quartiles"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in results["rows"]:
        spread = "" if row["note"] else f"{row['q25']:.2f}-{row['q75']:.2f}"
        table.add_row(row["case"], row["note"] or f"{row['ratio']:.2f}", spread)
    return table


def table(results: Results) -> str:
    """CPU time of each stage, by the library and by hand, and the ratio of the sums."""
    header = ["gradient of", *(f"{stage}, ms" for stage in STAGES)]
    header += ["ratio of the sums", "operations"]
    lines = []
    for row in results["rows"]:
        if row["note"] is None:
            pairs = [_beside(row, f"{stage}_ms") for stage in STAGES]
            ratio = f"{row['ratio']:.2f} ({row['q25']:.2f} to {row['q75']:.2f})"
            lines.append([row["case"], *pairs, ratio, _beside(row, "operations")])
    return markdown(header, lines)


def _beside(row: Row, name: str) -> str:
    return f"{short(row[name], '.0f')} / {short(row[f'hand_{name}'], '.0f')}"
