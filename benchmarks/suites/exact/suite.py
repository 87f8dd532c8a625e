"""Bias and deviation of gradient estimators, by sums over all outcomes or by quadrature.

Nine small problems, a file for each: what a paper says of them is checked without any statistics.
All numbers are relative to the length of the exact gradient.
"""

from functools import partial
from types import ModuleType

from rich.table import Table as TerminalTable

from benchmarks._reporting import claims
from benchmarks._reporting.tables import of_rows
from benchmarks._suite import Results, Sizes, Step, Suite

from . import (
    best_of_k,
    divergences,
    greeks,
    group_size,
    own_sample,
    particles,
    random_walk,
    subsets,
    unrolls,
)
from .figures import figures

PROBLEMS: dict[str, ModuleType] = {
    "group_size": group_size,
    "best_of_k": best_of_k,
    "own_sample": own_sample,
    "divergences": divergences,
    "subsets": subsets,
    "particles": particles,
    "greeks": greeks,
    "random_walk": random_walk,
    "unrolls": unrolls,
}


def steps(sizes: Sizes, seed: int) -> dict[str, Step]:
    """One step for each problem. Nothing is random."""
    del seed

    def rows(problem: ModuleType) -> dict[str, object]:
        return {"rows": problem.rows(sizes)}

    return {name: partial(rows, problem) for name, problem in PROBLEMS.items()}


def all_claims(results: Results) -> str:
    """Published claims, and the exact results."""
    return claims.table(
        [found for problem in PROBLEMS.values() for found in problem.findings(results)]
    )


def terminal(results: Results) -> TerminalTable:
    """All rows."""
    return of_rows("exact", list(results["rows"][0]), results["rows"])


SUITE = Suite(
    name="exact",
    summary="nine small problems: bias and deviation by sums over all outcomes, or quadrature",
    full={
        "groups": [2, 4, 8, 16, 32, 64],
        "best of": [[2, 4], [2, 16], [4, 8], [4, 16], [8, 16]],
        "divergences": list(divergences.CASES),
        "subset costs": list(subsets.COSTS),
        "particles": [1, 2, 3, 4, 8, 16],
        "dates": [[1, 100_000], [2, 1500]],
        "walks": [3, 10, 30, 100],
        "unrolls": [1, 2, 4, 8, 16, 32],
        "unroll points": 4_000_000,
    },
    quick={
        "groups": [2, 4],
        "best of": [[2, 4]],
        "divergences": list(divergences.CASES),
        "subset costs": ["squared distance to a vector"],
        "particles": [1, 2, 3],
        "dates": [[1, 10_000], [2, 100]],
        "walks": [3, 10],
        "unrolls": [2, 16],
        "unroll points": 100_000,
    },
    steps=steps,
    figures=figures,
    shown=lambda _: True,
    tables={f"exact_{name}": problem.table for name, problem in PROBLEMS.items()},
    claims=all_claims,
    terminal=terminal,
)
