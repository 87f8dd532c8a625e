"""The matrix: estimators on problems, in precisions and chunks, under transformations.

A landing is checked with each estimator on one problem, in float64, and with one of each family of
estimators in chunks. ``SWEEP=1`` makes all rows.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from support.exact import PROBLEMS, Problem, assert_close, scale
from support.registry import ENTRIES, KIN, Entry, once, problem
from support.transformations import SAMPLES, Loss, loss_of

import scorefn as sf

# Two whole chunks: the rest of a third one would compile all of it once more.
CHUNK = 3
SWEPT = bool(os.environ.get("SWEEP"))
# Rounding errors that are allowed, relative to the largest derivative, in units of the precision.
ROUNDINGS = {"float64": 4.5e3, "float32": 500.0, "bfloat16": 16.0}


@dataclass(frozen=True)
class Row:
    """An estimator on a problem, in one precision, in chunks or not."""

    entry: Entry
    kind: str
    dtype: str = "float64"
    chunk_size: int | None = None

    @property
    def name(self) -> str:
        parts = [self.entry.name]
        parts += [self.kind] * SWEPT + [self.dtype] * (self.dtype != "float64")
        return "-".join(parts + ["chunks"] * (self.chunk_size is not None))

    @property
    def problem(self) -> Problem:
        return problem(self.kind).in_dtype(self.dtype)

    def estimator(self) -> sf.Estimator:
        return self.entry.build(self.problem)

    def loss(self, **options: Any) -> tuple[Loss, jax.Array]:
        some = SAMPLES if self.chunk_size is None else 2 * CHUNK
        options = {"num_samples": some, "chunk_size": self.chunk_size} | options
        return loss_of(self.problem, self.estimator(), **options)

    def assert_same(self, found: Any, desired: Any) -> None:
        atol = ROUNDINGS[self.dtype] * float(jnp.finfo(self.dtype).eps) * scale(desired)
        assert_close(found, desired, atol=atol)


def rows(
    *,
    num_samples: int = SAMPLES,
    kinds: Sequence[str] = tuple(PROBLEMS),
    precisions: Sequence[str] = tuple(ROUNDINGS),
    chunks: bool = False,
) -> list[Any]:
    """The rows of estimators that take so many samples, on problems of those kinds."""
    found = []
    for entry in ENTRIES:
        on = [kind for kind in entry.kinds if kind in kinds]
        whole = [
            Row(entry, kind, dtype)
            for kind in (on if SWEPT else on[:1])
            for dtype in (precisions if SWEPT else precisions[:1])
        ]
        is_kin = entry.name in KIN
        if entry.at_most >= num_samples:
            found += [pytest.param(row, id=row.name, marks=once(is_kin=is_kin)) for row in whole]
        if chunks and entry.at_most >= 2 * CHUNK and (SWEPT or not is_kin):
            parts = [replace(row, chunk_size=CHUNK) for row in whole]
            found += [pytest.param(row, id=row.name, marks=pytest.mark.slow) for row in parts]
    return found
