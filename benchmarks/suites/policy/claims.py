"""Published claims about policy gradients."""

from benchmarks._reporting.claims import (
    EXACT,
    LIMIT,
    Finding,
    between,
    less,
    listed,
    rows,
    table,
    verdict,
)
from benchmarks._suite import Results


def claims(results: Results) -> str:
    """Published claims, and the results on policy at each stage of training."""
    group = results["settings"]["group"]
    grpo, dr, rloo, plain = (
        rows(results, estimator=name, objective="bandit, on policy")
        for name in ("GRPO", "Dr.GRPO", "RLOO", "REINFORCE")
    )
    share = [row["relative_bias"] for row in dr]
    k1, k2, k3 = (
        rows(results, estimator=name, objective="divergence, on policy")
        for name in ("k1", "k2", "k3")
    )
    bias = [[row["relative_bias"] for row in some] for some in (k1, k2, k3)]
    values = [a["value_variance"] / b["value_variance"] for a, b in zip(k3, k1, strict=True)]
    value_bias = max(abs(row["value_bias"]) for row in k3)
    return table(
        [
            Finding(
                "Dividing by the deviation of the group biases the gradient (GRPO)",
                "Liu et al. (2025)",
                "relative bias above 0",
                listed([row["relative_bias"] for row in grpo]),
                f"z {between([abs(row['bias_z']) for row in grpo], '.0f')}",
                verdict(abs(row["bias_z"]) > LIMIT for row in grpo),
            ),
            Finding(
                "Without that division the mean is the gradient times (G - 1) / G (Dr.GRPO)",
                "Liu et al. (2025)",
                f"relative bias 1/{group} = {1 / group:.3f}",
                ", ".join(f"{x:.3f}" for x in share),
                f"up to {max(abs(x * group - 1) for x in share):.0%} of it",
                verdict(abs(x * group - 1) < 0.05 for x in share),
            ),
            less(
                "A leave-one-out baseline reduces the variance of REINFORCE; rewards of 0 and 1",
                "Kool et al. (2019)",
                list(zip(rloo, plain, strict=True)),
            ),
            Finding(
                "As losses for KL(policy ∥ reference), k2 has the right gradient, k1 and k3 do not",
                "Tang and Munos (2025)",
                "relative bias of k1: 1, k2: 0, k3: above 0",
                "; ".join(between([round(y, 9) for y in x], ".2g") for x in bias),
                "exact",
                verdict(
                    abs(a - 1) < EXACT and b < EXACT < c for a, b, c in zip(*bias, strict=True)
                ),
            ),
            Finding(
                "As a value, k3 has no bias and less variance than k1",
                "Schulman (2020)",
                "ratio of variances below 1",
                listed(values),
                f"exact; bias {value_bias:.0g}",
                verdict(x < 1 and value_bias < EXACT for x in values),
            ),
        ]
    )
