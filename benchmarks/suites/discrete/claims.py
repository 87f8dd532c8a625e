"""Published claims about discrete draws."""

from benchmarks._reporting.claims import less, rows, table
from benchmarks._suite import Results, Row


def claims(results: Results) -> str:
    """Published claims, and the results; several places in their order."""

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
