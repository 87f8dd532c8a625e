"""The mean squared error of a group of G answers: a U-statistic of second order.

The gradient with leave-one-out is the mean over all pairs of (f_i - f_j) (s_i - s_j) / 2. Its error
relative to that of G draws whose baseline is the exact mean follows from two variances.
"""

import numpy as np

import scorefn as sf
from benchmarks._reporting.claims import EXACT, Finding, between, verdict
from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results, Row, Sizes
from scorefn import policy

from . import moments
from .policies import POLICIES, Policy

TABLE = "group size"
ORACLE, LEAVE_ONE_OUT = "exact mean as baseline", "leave-one-out (RLOO)"
FORMULA = "leave-one-out, by the formula"
GROUP_MEAN, WHITENED = "mean of the group (Dr.GRPO)", "divided by the deviation (GRPO)"


def rows(sizes: Sizes) -> list[Row]:
    """Moments over all groups of each size."""
    return [
        found
        for case, answers in POLICIES.items()
        for n in sizes["groups"]
        for found in _rows(case, answers, n)
    ]


def _rows(case: str, answers: Policy, n: int) -> list[Row]:
    drawn, weights = answers.groups(n)
    f = answers.rewards[drawn].astype(np.float32)
    advantages = {
        ORACLE: f - answers.probs @ answers.rewards,
        LEAVE_ONE_OUT: f - np.asarray(sf.leave_one_out(f, axis=1)),
        GROUP_MEAN: f - f.mean(axis=1, keepdims=True),
        WHITENED: np.asarray(policy.whiten(f, axis=1)),
    }
    found = [
        moments.row(TABLE, case, name, n, answers.gradient, answers.estimates(drawn, a), weights)
        for name, a in advantages.items()
    ]
    variance = _of_pairs(answers, n)
    exact = answers.gradient
    return [*found, moments.known(TABLE, case, FORMULA, n, exact, exact, variance)]


def _of_pairs(answers: Policy, n: int) -> float:
    """The variance of a U-statistic of second order, by the variances of its kernel."""
    p, f, s = answers.probs, answers.rewards, answers.scores
    kernel = (f[:, None] - f)[..., None] * (s[:, None] - s) / 2
    given_one = np.einsum("j,ijd->id", p, kernel) - answers.gradient
    first = p @ np.sum(given_one**2, axis=1)
    second = np.einsum("i,j,ijd->", p, p, (kernel - answers.gradient) ** 2)
    return float((4 * (n - 2) * first + 2 * second) / (n * (n - 1)))


def _errors(results: Results, case: str) -> dict[tuple[str, int], float]:
    """The mean squared errors, relative to the squared length of the gradient."""
    return {
        (row["estimator"], row["size"]): row["bias"] ** 2 + row["deviation"] ** 2
        for row in results["rows"]
        if row["table"] == TABLE and row["case"] == case
    }


def table(results: Results) -> str:
    """Mean squared error of a group, relative to that of an exact baseline and as many draws."""
    sizes = results["settings"]["groups"]
    lines = []
    for case in POLICIES:
        errors = _errors(results, case)
        for name in (LEAVE_ONE_OUT, GROUP_MEAN, WHITENED):
            ratios = [errors[name, n] / errors[ORACLE, n] for n in sizes]
            lines.append([case, name, *(short(x, ".3g") for x in ratios)])
    return markdown(["policy", "advantage", *(f"G = {n}" for n in sizes)], lines, words=(0, 1))


def findings(results: Results) -> list[Finding]:
    """The claims of Zhou et al. (2026)."""
    sizes = results["settings"]["groups"]
    all_of_them = [_errors(results, case) for case in POLICIES]
    apart = [
        abs(errors[LEAVE_ONE_OUT, n] / errors[FORMULA, n] - 1)
        for errors in all_of_them
        for n in sizes
    ]
    surplus = [
        (errors[LEAVE_ONE_OUT, n] / errors[ORACLE, n] - 1) * (n - 1)
        for errors in all_of_them
        for n in sizes
    ]
    last = [errors[LEAVE_ONE_OUT, sizes[-1]] / errors[ORACLE, sizes[-1]] for errors in all_of_them]
    constant = [
        np.ptp(surplus[i : i + len(sizes)]) < 1e-3 for i in range(0, len(surplus), len(sizes))
    ]
    return [
        Finding(
            "The gradient of a group is a U-statistic of second order",
            "Zhou et al. (2026)",
            "variance that of the formula",
            f"relative difference up to {max(apart):.0e}",
            "exact",
            verdict(x < 10 * EXACT for x in apart),
        ),
        Finding(
            "Its mean squared error tends to that with the exact value as baseline, as 1/G",
            "Zhou et al. (2026)",
            "ratio 1 + c / (G - 1)",
            f"G = {sizes[-1]}: {between(last, '.3f')}; c {between(surplus, '.2g')}",
            "exact",
            verdict(constant),
        ),
    ]
