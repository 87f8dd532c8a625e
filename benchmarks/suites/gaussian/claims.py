"""Published claims about Gaussian variables."""

from typing import Any

from benchmarks._reporting.claims import CERTAIN, Finding, between, less, rows, table, verdict
from benchmarks._suite import Results, Row


def claims(results: Results) -> str:
    """Published claims, and the results along the mean, over k."""

    def named(name: str, cost: str, **more: Any) -> list[Row]:
        place = {"over": "k", "parameter": "mu", "cost": cost}
        return rows(results, estimator=name, **place, **more)

    score, path, weak = "REINFORCE (1)", "Pathwise (1)", "MeasureValued (4)"
    source = "Mohamed et al. (2020)"
    flat = named(path, "square")
    z = [(row["variance"] - 4) / row["variance_se"] for row in flat]
    rough = {cost: max(results["settings"]["ks"][cost]) for cost in ("exp", "cos")}
    rough_title = f"Rough costs, exp(-{rough['exp']:g} x²) and cos({rough['cos']:g} x)"
    return table(
        [
            Finding(
                "Cost (x - k)²: the variance of Pathwise along μ does not depend on k",
                source,
                "4 σ² = 4",
                between([row["variance"] for row in flat], ".3g"),
                f"z {between(z, '.1f')}",
                verdict(abs(x) < CERTAIN for x in z),
            ),
            less(
                "Cost (x - k)²: Pathwise has less variance along μ than the score function",
                source,
                list(zip(flat, named(score, "square"), strict=True)),
            ),
            *(
                less(
                    f"{rough_title}: {title} has less variance along μ than Pathwise",
                    source,
                    [
                        (named(name, cost, k=k)[0], named(path, cost, k=k)[0])
                        for cost, k in rough.items()
                    ],
                )
                for title, name in (
                    ("the score function", score),
                    ("the measure-valued derivative", weak),
                )
            ),
        ]
    )
