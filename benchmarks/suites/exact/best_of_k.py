"""Weights for the best of k answers out of n, over all groups."""

import numpy as np

from benchmarks._reporting.claims import EXACT, Finding, between, verdict
from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results, Row, Sizes
from scorefn import policy

from . import moments
from .policies import POLICIES, Policy

TABLE = "best of k"
SEPARATE, PLAIN = "separate groups of k", "all groups of k, no baseline"
OTHERS, FEWER = "all groups, best of k others", "all groups, best of k - 1 others"
BASELINES = {PLAIN: None, OTHERS: "others", FEWER: "k-1"}
SHOWN = ("right with probability 0.1", "graded rewards")


def rows(sizes: Sizes) -> list[Row]:
    """Moments over all groups, for each k of n."""
    return [
        found
        for case in SHOWN
        for k, n in sizes["best of"]
        for found in _rows(f"{case}, k = {k}", POLICIES[case], k, n)
    ]


def _rows(case: str, answers: Policy, k: int, n: int) -> list[Row]:
    few, chances = answers.groups(k)
    best = answers.rewards[few].max(axis=1)
    whole = best[:, None] * np.sum(answers.scores[few], axis=1)
    exact = chances @ whole
    variance = float(chances @ np.sum((whole - exact) ** 2, axis=1)) / (n // k)
    found = [moments.known(TABLE, case, SEPARATE, n, exact, exact, variance)]
    drawn, weights = answers.groups(n)
    for name, baseline in BASELINES.items():
        reward = answers.rewards[drawn].astype(np.float32)
        advantage = np.asarray(policy.best_of(reward, k, baseline=baseline), np.float64)
        estimates = answers.estimates(drawn, advantage)
        found.append(moments.row(TABLE, case, name, n, exact, estimates, weights))
    return found


def _found(results: Results) -> dict[tuple[str, int], dict[str, Row]]:
    places: dict[tuple[str, int], dict[str, Row]] = {}
    for row in results["rows"]:
        if row["table"] == TABLE:
            places.setdefault((row["case"], row["size"]), {})[row["estimator"]] = row
    return places


def table(results: Results) -> str:
    """Best of k of n: variance relative to separate groups of k."""
    names = (PLAIN, OTHERS, FEWER)
    lines = [
        [f"{case}, n = {n}", *(short(_ratio(found, name), ".3g") for name in names)]
        for (case, n), found in _found(results).items()
    ]
    return markdown(["policy", *names], lines)


def _ratio(found: dict[str, Row], name: str, base: str = SEPARATE) -> float:
    return float((found[name]["deviation"] / found[base]["deviation"]) ** 2)


def findings(results: Results) -> list[Finding]:
    """The claims of Walder and Karkhanis (2025)."""
    places = _found(results).values()
    bias = max(row["bias"] for found in places for row in found.values())
    pooled = [_ratio(found, PLAIN) for found in places]
    better = [min(_ratio(found, name, PLAIN) for name in (OTHERS, FEWER)) for found in places]
    return [
        Finding(
            "Weights for pass@k and max@k are unbiased for every k of n",
            "Walder and Karkhanis (2025)",
            "bias 0",
            f"up to {bias:.0e}",
            "exact",
            verdict([bias < 10 * EXACT]),
        ),
        Finding(
            "All groups of k have less variance than separate ones",
            "Walder and Karkhanis (2025)",
            "ratio of variances below 1",
            between(pooled, ".2g"),
            "exact",
            verdict(x < 1 for x in pooled),
        ),
        Finding(
            "A baseline of other draws reduces it further",
            "Walder and Karkhanis (2025)",
            "ratio of variances below 1, the better baseline",
            between(better, ".2g"),
            "exact",
            verdict(x < 1 for x in better),
        ),
    ]
