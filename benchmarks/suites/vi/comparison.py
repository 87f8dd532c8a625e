"""Forms of the ELBO beside `Pathwise`, without a technique."""

from collections.abc import Sequence
from typing import Any

from benchmarks._measuring.effect import compared
from benchmarks._suite import Row

from .techniques import PLAIN


def beside_pathwise(rows: Sequence[Row]) -> list[Row]:
    """The rows without a technique, relative to `Pathwise` at the same place."""
    plain = [row for row in rows if row["estimator"] == PLAIN and row["effect"] is not None]
    base = {_place(row): row for row in plain if row["form"] == "Pathwise"}
    others = [row for row in plain if row["form"] != "Pathwise"]
    return [row | compared(row, base[_place(row)]) for row in others]


def _place(row: Row) -> tuple[Any, ...]:
    return row["target"], row["at"], row["parameter"]
