"""Published claims of estimators, beside what the suites found on toys and an autoencoder."""

from typing import Any

from benchmarks._suite import Results, Row

from .claims import CERTAIN, LIMIT, Finding, between, less, rows, table, verdict


def bernoulli(results: Results) -> str:
    """Published claims, and what the suite found over all probabilities and targets."""

    def ratio(claim: str, source: str, name: str, base: str) -> Finding:
        pair = [rows(results, estimator=name) for name in (name, base)]
        ratios = [a["exact_variance"] / b["exact_variance"] for a, b in zip(*pair, strict=True)]
        z = max(abs(row["variance_z"]) for some in pair for row in some)
        return Finding(
            claim,
            source,
            "ratio of exact variances below 1",
            between(ratios, ".3g"),
            f"of measured ones to exact ones: z up to {z:.1f}",
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


def gaussian(results: Results) -> str:
    """Published claims, and what the suite found along the mean, over k."""

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


def discrete(results: Results) -> str:
    """Published claims, and what the suite found; several places in its order."""

    def pairs(name: str, base: str, *objectives: str) -> list[tuple[Row, Row]]:
        mine = [row for row in rows(results, estimator=name) if row["objective"] in objectives]
        at = {(row["objective"], row["at"]): row for row in rows(results, estimator=base)}
        return [(row, at[row["objective"], row["at"]]) for row in mine]

    sets = [
        pair
        for n in range(2, 9)
        for pair in pairs(f"UnorderedSet ({n})", f"LeaveOneOut ({n})", "without_replacement")
        if pair[0]["at"] == 0.0
    ]
    return table(
        [
            less(
                "DisARM has less variance than leave-one-out of 2; autoencoder in training",
                "Dong et al. (2020)",
                pairs("DisARM (2)", "LeaveOneOut (2)", "vae"),
            ),
            less(
                "ARMS of 4 has less than leave-one-out of 4; autoencoder in training",
                "Dimitriev and Zhou (2021)",
                pairs("ARMS (4)", "LeaveOneOut (4)", "vae"),
            ),
            less(
                "Double control variates have less than leave-one-out; autoencoder in training",
                "Titsias and Shi (2022)",
                pairs("DoubleCV (2)", "LeaveOneOut (2)", "vae"),
            ),
            less(
                "Unordered sets, high entropy, 2 to 8 draws: no more variance than leave-one-out",
                "Kool et al. (2020)",
                sets,
                or_equal=True,
            ),
            less(
                "Unordered sets, 1000 categories, falling entropy: no more than leave-one-out",
                "Kool et al. (2020)",
                pairs("UnorderedSet (4)", "LeaveOneOut (4)", "thousand"),
                or_equal=True,
            ),
        ]
    )
