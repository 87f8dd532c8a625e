"""Published claims about Bayesian logistic regression."""

from benchmarks._reporting.claims import less, rows, table
from benchmarks._suite import Results, Row


def claims(results: Results) -> str:
    """Published claims, and what the suite found at each stage of training."""

    def pairs(name: str, base: str) -> list[tuple[Row, Row]]:
        return list(zip(rows(results, estimator=name), rows(results, estimator=base), strict=True))

    source = "Mohamed et al. (2020)"
    return table(
        [
            less(
                "Pathwise has less variance than the score function with a moving average",
                source,
                pairs("Pathwise", "MovingAverage"),
            ),
            less(
                "A moving average takes variance from the score function",
                source,
                pairs("MovingAverage", "REINFORCE, no baseline"),
            ),
        ]
    )
