"""A comparison as text, at most 80 columns wide."""

import math
from collections.abc import Sequence

from .row import Row

WIDTH = 80
HEADER = ("variance", "±", "time, µs", "var × µs", "evals", "snr", "bias", "z")
SPACES = (9, 5, 9, 9, 7, 7, 6, 7)
MARK = " (b)"


def table(rows: Sequence[Row]) -> str:
    """One row a line, under a header; columns without any entry are left out."""
    cells = [_cells(row) for row in rows if row.error is None]
    shown = [i for i in range(len(HEADER)) if any(line[i] for line in cells)]
    spaces = [SPACES[i] for i in shown]
    longest = max(len(row.estimator) + len(MARK) * (row.unbiased is False) for row in rows)
    width = min(max(longest, len("estimator")), WIDTH - sum(spaces))

    def line(name: str, entries: Sequence[str]) -> str:
        columns = zip((entries[i] for i in shown), spaces, strict=True)
        return f"{name:{width}s}" + "".join(f"{entry:>{n}s}" for entry, n in columns)

    lines, given = [line("estimator", HEADER)], iter(cells)
    for row in rows:
        # What says that it is biased shall not win by its variance unseen.
        mark = MARK if row.unbiased is False else ""
        name = short(row.estimator, width - len(mark)) + mark
        failed = row.error is not None
        lines.append(
            short(f"{name:{width}s}  {row.error}", WIDTH) if failed else line(name, next(given))
        )
    return "\n".join(lines)


def short(text: str, width: int) -> str:
    """The first line of a text, cut to the width."""
    first = text.split("\n")[0]
    return first if len(first) <= width else first[: width - 1] + "…"


def _cells(row: Row) -> list[str]:
    error = row.variance_se / row.variance if row.variance else math.nan
    return [
        _number(row.variance),
        _number(error, ".0%"),
        _number(row.time_us),
        _number(row.variance_x_time),
        "" if row.evaluations is None else str(row.evaluations),
        _number(row.snr),
        _number(row.relative_bias, ".0%") if row.bias_found else "",
        _number(row.bias_z, ".1f" if row.bias_z < 100 else ".3g"),
    ]


def _number(value: float, form: str = ".3g") -> str:
    return "" if math.isnan(value) else format(value, form)
