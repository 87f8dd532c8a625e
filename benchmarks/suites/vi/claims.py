"""Published claims about variational inference."""

from typing import Any

from benchmarks._reporting.claims import Finding, less, rows, table, verdict
from benchmarks._suite import Results, Row
from benchmarks.suites.vi import bounds, tables
from benchmarks.suites.vi.techniques import PLAIN


def claims(results: Results) -> str:
    """Published claims, and the results."""

    def slope(claim: str, source: str, form: str, expected: float) -> Finding:
        found = tables.slope(rows(results, target=bounds.TARGET, form=form))
        off = found - expected
        right = verdict([abs(off) < 0.02])
        return Finding(claim, source, f"slope {expected:g}", f"{found:.3f}", f"{off:+.3f}", right)

    plain, last = rows(results, estimator=PLAIN), results["settings"]["stages"][-1]
    total = {_place(row): row for row in plain if row["form"] == "Pathwise, KL sampled"}
    sticking = [
        (row, total[_place(row)])
        for row in plain
        if row["form"] == "sticking the landing" and _place(row) in total and row["at"] == last
    ]
    base = {_place(row): row for row in plain if row["form"] == "Pathwise"}
    sobol = [
        (row, base[_place(row)])
        for row in rows(results, estimator="QuasiMonteCarlo", form="Pathwise")
        if row["target"] in results["settings"]
    ]
    return table(
        [
            slope(
                "The signal-to-noise ratio of the bound along q falls as 1 / sqrt(K) (IWAE)",
                "Rainforth et al. (2018)",
                "IWAE",
                -0.5,
            ),
            slope("With DReG it grows as sqrt(K)", "Tucker et al. (2019)", "DReG", 0.5),
            less(
                "Sticking the landing: less variance than the total derivative, near the posterior",
                "Roeder et al. (2017)",
                sticking,
            ),
            less(
                "Sobol points reduce the variance of Pathwise, all targets and stages",
                "Buchholz et al. (2018)",
                sobol,
            ),
        ]
    )


def _place(row: Row) -> tuple[Any, ...]:
    return row["target"], row["parameter"], row["at"]
