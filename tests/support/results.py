"""The committed results, and checks of the rows of any results."""

import json
from pathlib import Path
from typing import Any

from benchmarks._registry import SUITES

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PLACES = (*SUITES, "gpu/speed")
# A right row goes beyond 6 standard errors with probability 2e-9, or less than 3e-6 for all of the
# 1100 z that are looked at here; heavy tails make it more. The seed is fixed: such an accident can
# only come with another random generator.
LIMIT = 6.0


def committed(name: str) -> dict[str, Any]:
    """The results of that name, for example ``vi`` or ``gpu/speed``."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def check_rows(rows: list[dict[str, Any]]) -> None:
    assert rows
    for row in rows:
        # Rows of suites that measure no variances have columns of their own.
        if row.get("variance") is None:
            continue
        if row["unbiased"]:
            assert abs(row["bias_z"]) < LIMIT, row
        if row["exact_variance"] is not None:
            assert abs(row["variance_z"]) < LIMIT, row
        assert row["variance_x_time"] == row["variance"] * row["time_us"]
        assert row["variance_x_time"] > 0 or not row["unbiased"]


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
