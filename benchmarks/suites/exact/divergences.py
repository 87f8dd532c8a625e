"""The divergence from a reference, in the reward or in the loss: k1, k2, k3."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._reporting.claims import EXACT, Finding, between, verdict
from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results, Row, Sizes
from scorefn import policy

from . import moments

TABLE = "divergence"
VALUES = {
    "k1": lambda d: d,
    "k2": lambda d: d**2 / 2,
    "k3": lambda d: jnp.exp(-d) - 1 + d,
}
OURS = "policy.kl_estimate"
# By their distance from the reference, and whose draws they are.
CASES = {
    "near, on policy": (0.3, 0.0),
    "far, on policy": (1.5, 0.0),
    "far, draws of an older policy": (1.5, 0.5),
}
LOGITS = np.array([0.5, -0.2, 0.1, -1.0, 0.4])
AWAY, OLDER = np.array([1.0, -1.0, 0.5, 0.0, -0.7]), np.array([-0.3, 0.8, 0.2, -0.6, 0.1])


def rows(sizes: Sizes) -> list[Row]:
    """Moments over the five outcomes of one draw."""
    return [found for case in sizes["divergences"] for found in _rows(case)]


def _rows(case: str) -> list[Row]:
    distance, age = CASES[case]
    new, ref, old = (
        x - np.logaddexp.reduce(x) for x in (LOGITS, LOGITS + distance * AWAY, LOGITS + age * OLDER)
    )
    p, drawn = np.exp(new), np.exp(old)
    scores = np.eye(len(p)) - p
    exact = (p * (new - ref)) @ scores
    d = jnp.asarray(new - ref, jnp.float32)
    slopes = {}
    for kind, value in VALUES.items():
        slopes[f"{kind} in the reward"] = value(d)
        slopes[f"{kind} in the loss"] = jax.vmap(jax.grad(value))(d)
    log_weight = jnp.asarray(new - old, jnp.float32)
    slopes[OURS] = jax.vmap(jax.grad(policy.kl_estimate), (0, 0, None, 0))(
        jnp.asarray(new, jnp.float32), jnp.asarray(ref, jnp.float32), "k3", log_weight
    )
    return [
        moments.row(
            TABLE, case, name, 1, exact, np.asarray(slope, np.float64)[:, None] * scores, drawn
        )
        for name, slope in slopes.items()
    ]


def table(results: Results) -> str:
    """Gradient of KL(policy ∥ reference): relative bias, and deviation, of one draw."""
    cases = results["settings"]["divergences"]
    found = {
        (row["estimator"], row["case"]): row for row in results["rows"] if row["table"] == TABLE
    }
    names = list(dict.fromkeys(name for name, _ in found))
    header = ["placement", *(f"{case}: {what}" for case in cases for what in ("bias", "deviation"))]
    lines = [
        [
            name,
            *(
                short(0.0 if found[name, case][what] < 1e-5 else found[name, case][what], ".2g")
                for case in cases
                for what in ("bias", "deviation")
            ),
        ]
        for name in names
    ]
    return markdown(header, lines)


def findings(results: Results) -> list[Finding]:
    """The claims of Tang and Munos (2025)."""
    right = ("k1 in the reward", "k2 in the loss")
    wrong = ("k2 in the reward", "k3 in the reward", "k1 in the loss", "k3 in the loss")
    all_of_them = [row for row in results["rows"] if row["table"] == TABLE]
    found = [row for row in all_of_them if row["case"].endswith("on policy")]
    none, some = (
        [row["bias"] for row in found if row["estimator"] in names] for names in (right, wrong)
    )
    off = [row["bias"] for row in all_of_them if row not in found]
    return [
        Finding(
            "k1 in the reward and k2 in the loss have the gradient of the divergence",
            "Tang and Munos (2025)",
            "bias 0 on policy",
            f"up to {max(none):.0e}",
            "exact",
            verdict(x < 10 * EXACT for x in none),
        ),
        Finding(
            "k2 and k3 in the reward, k1 and k3 in the loss have not",
            "Tang and Munos (2025)",
            "bias above 0 on policy",
            between(some, ".2g"),
            "exact",
            verdict(x > 0.01 for x in some),
        ),
        Finding(
            "Off policy without weights none of them has; `policy.kl_estimate` with weights has",
            "Tang and Munos (2025)",
            "bias above 0; 0",
            f"{between(off[:-1], '.2g')}; {off[-1]:.0e}",
            "exact",
            verdict([*(x > 0.01 for x in off[:-1]), off[-1] < 10 * EXACT]),
        ),
    ]
