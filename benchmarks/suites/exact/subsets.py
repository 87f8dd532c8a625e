"""Straight-through on subsets of 5 of 10 items (SIMPLE), over all 252."""

import jax
import jax.numpy as jnp
import numpy as np

import scorefn as sf
from benchmarks._reporting.claims import Finding, listed, verdict
from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results, Row, Sizes

from . import moments

TABLE = "5 of 10"
ITEMS, CHOSEN = 10, 5
SIMPLE = "straight-through (SIMPLE), 1 draw"
PLAIN, PAIR = "score function, 1 draw", "score function, leave-one-out, 2 draws"


def _distance(b: jax.Array) -> jax.Array:
    return jnp.sum((b - jnp.cos(jnp.arange(ITEMS))) ** 2)


def _quadratic(b: jax.Array) -> jax.Array:
    matrix = jnp.cos(jnp.arange(ITEMS * ITEMS) ** 2).reshape(ITEMS, ITEMS)
    return jnp.sum((matrix @ b) ** 2)


def _log_sum_exp(b: jax.Array) -> jax.Array:
    matrix = jnp.cos(jnp.arange(ITEMS * ITEMS) ** 2).reshape(ITEMS, ITEMS)
    return jax.nn.logsumexp(matrix @ b)


# The squared distance is the cost of the paper's figure, as recalled. It is linear among subsets,
# since all have the same length, but its slope is not that of the linear function.
COSTS = {
    "squared distance to a vector": _distance,
    "quadratic with interactions": _quadratic,
    "log-sum-exp": _log_sum_exp,
}


def rows(sizes: Sizes) -> list[Row]:
    """Moments over all subsets, or pairs of them, for each cost."""
    subset = sf.Subset(jnp.sin(3.0 * jnp.arange(float(ITEMS))), k=CHOSEN)
    values = subset.values()
    probs = np.asarray(jnp.exp(jax.vmap(subset.log_prob)(values)), np.float64)
    probs /= probs.sum()
    scores = np.asarray(values, np.float64) - probs @ np.asarray(values, np.float64)
    covariance = (probs[:, None] * scores).T @ scores
    found = []
    for case in sizes["subset costs"]:
        costs, slopes = jax.vmap(jax.value_and_grad(COSTS[case]))(values)
        f, slopes = np.asarray(costs, np.float64), np.asarray(slopes, np.float64)
        exact = (probs * f) @ scores
        pairs = (f[:, None] - f)[..., None] * (scores[:, None] - scores) / 2
        both = np.ravel(probs[:, None] * probs)
        for name, estimates, weights in (
            (PLAIN, f[:, None] * scores, probs),
            (PAIR, pairs.reshape(-1, ITEMS), both),
            (SIMPLE, slopes @ covariance, probs),
        ):
            found.append(moments.row(TABLE, case, name, CHOSEN, exact, estimates, weights))
    return found


def table(results: Results) -> str:
    """5 of 10 items: one gradient, relative to the exact gradient, and the angle of its mean."""
    lines = [
        [
            row["case"],
            row["estimator"],
            short(row["bias"] if row["bias"] > moments.SMALL else 0.0, ".2g"),
            f"{max(1 - row['cosine'], 0.0):.3f}",
            short(row["deviation"]),
        ]
        for row in results["rows"]
        if row["table"] == TABLE
    ]
    header = ["cost", "estimator", "bias", "1 - cosine", "deviation"]
    return markdown(header, lines, words=(0, 1))


def findings(results: Results) -> list[Finding]:
    """The claims of Ahmed et al. (2023)."""
    cases = results["settings"]["subset costs"]
    found = {
        (row["case"], row["estimator"]): row for row in results["rows"] if row["table"] == TABLE
    }
    simple = [found[case, SIMPLE] for case in cases]
    errors = [
        (row["bias"] ** 2 + row["deviation"] ** 2) / found[case, PAIR]["deviation"] ** 2
        for case, row in zip(cases, simple, strict=True)
    ]
    ratios = [
        (found[case, SIMPLE]["deviation"] / found[case, PLAIN]["deviation"]) ** 2 for case in cases
    ]
    return [
        Finding(
            "SIMPLE has less variance than the score function",
            "Ahmed et al. (2023)",
            "ratio of variances below 1",
            listed(ratios),
            "exact",
            verdict(x < 1 for x in ratios),
        ),
        Finding(
            "Its bias is small: the mean points along the gradient",
            "Ahmed et al. (2023)",
            "1 - cosine about 0, their measure (recalled)",
            ", ".join(f"{1 - row['cosine']:.3f}" for row in simple),
            f"exact; relative bias {listed([row['bias'] for row in simple])}",
            verdict(1 - row["cosine"] < 0.05 for row in simple),
        ),
        Finding(
            "The squared error of 1 draw is below that of 2 with leave-one-out",
            "Ahmed et al. (2023)",
            "ratio below 1",
            listed(errors),
            "exact",
            verdict(x < 1 for x in errors),
        ),
    ]
