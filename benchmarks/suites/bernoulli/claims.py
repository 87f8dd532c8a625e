"""Published claims about Bernoulli variables."""

from benchmarks._reporting.claims import LIMIT, Finding, between, rows, table, verdict
from benchmarks._suite import Results


def claims(results: Results) -> str:
    """Published claims, and the results over all probabilities and targets."""

    def ratio(claim: str, source: str, name: str, base: str) -> Finding:
        pair = [rows(results, estimator=name) for name in (name, base)]
        ratios = [a["exact_variance"] / b["exact_variance"] for a, b in zip(*pair, strict=True)]
        z = max(abs(row["variance_z"]) for some in pair for row in some)
        return Finding(
            claim,
            source,
            "ratio of exact variances below 1",
            between(ratios, ".3g"),
            f"measured minus exact: z up to {z:.1f}",
            verdict(x < 1 for x in ratios),
        )

    reinmax = rows(results, estimator="ReinMax (1)")
    off = [row["exact_mean"] / row["exact_gradient"] - 1 for row in reinmax]
    z = max(abs(row["bias_z"]) for row in reinmax)
    right = Finding(
        "ReinMax has no bias where f is quadratic",
        "Liu et al. (2023)",
        "relative bias 0",
        f"{max(map(abs, off)):.1g} by formula",
        f"of the measured mean: z up to {z:.1f}",
        verdict(abs(x) < 1e-9 and z < LIMIT for x in off),
    )
    return table(
        [
            ratio(
                "DisARM has less variance than ARM", "Dong et al. (2020)", "DisARM (2)", "ARM (2)"
            ),
            ratio(
                "ARMS has less than leave-one-out, 4 draws each",
                "Dimitriev and Zhou (2021)",
                "ARMS (4)",
                "LeaveOneOut (4)",
            ),
            right,
        ]
    )
