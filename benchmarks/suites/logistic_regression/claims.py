"""Published claims about Bayesian logistic regression."""

from benchmarks._reporting.claims import less, pairs, table
from benchmarks._suite import Results


def claims(results: Results) -> str:
    """Published claims, and the results at each stage of training."""
    source = "Mohamed et al. (2020)"
    return table(
        [
            less(
                "Pathwise has less variance than the score function with a moving average",
                source,
                pairs(results, "Pathwise", "MovingAverage"),
            ),
            less(
                "A moving average reduces the variance of the score function",
                source,
                pairs(results, "MovingAverage", "REINFORCE, no baseline"),
            ),
        ]
    )
