"""Published claims about estimators for autoencoders with discrete codes."""

import numpy as np

from benchmarks._reporting.claims import (
    CERTAIN,
    Finding,
    above_zero,
    between,
    less,
    listed,
    rows,
    table,
    verdict,
)
from benchmarks._suite import Results, Row


def claims(results: Results) -> str:
    """Published claims, and the results: by network, linear first, and by stage of training."""

    def lower(name: str, base: str, *names: tuple[str, str]) -> Finding:
        """The finding on variances, from the pair of names for each number of evaluations."""
        found = [pair for both in names for pair in _pairs(results, *both)]
        return less(f"{name} has less variance than {base}", _source(name), found)

    def better(name: str, base: str, *names: tuple[str, str]) -> Finding:
        """The finding on bounds at the end of training."""
        differences = [
            _differences(results, network, *both)
            for both in names
            for network in results["settings"]["networks"]
            if all(f"{network} {one}" in results["curves"] for one in both)
        ]
        claim = f"{name} trains to a better ELBO than {base}"
        return above_zero(claim, _source(name), "nats above 0", differences)

    disarm, double = ("DisARM (2)", "LeaveOneOut (2)"), ("DoubleCV (2)", "DisARM (2)")
    arms, coupled = ("ARMS (3)", "LeaveOneOut (3)"), ("CoupledCategorical (2)", "LeaveOneOut (2)")
    rodeo = [(f"RODEO ({n})", f"LeaveOneOut ({n})") for n in (2, 3)]
    return table(
        [
            lower("DisARM", "leave-one-out, 2 evaluations", disarm),
            better("DisARM", "leave-one-out, 2 evaluations", disarm),
            lower("ARMS", "leave-one-out, 3 evaluations", arms),
            better("ARMS", "leave-one-out, 3 evaluations", arms),
            lower("Double CV", "DisARM, 2 evaluations", double),
            better("Double CV", "DisARM, 2 evaluations", double),
            lower("RODEO", "leave-one-out, 2 and 3 evaluations", *rodeo),
            lower("RODEO", "DisARM, 2 evaluations", ("RODEO (2)", "DisARM (2)")),
            better("RODEO", "DisARM, 2 evaluations", ("RODEO (2)", "DisARM (2)")),
            lower("RODEO", "double control variates", ("RODEO (2)", "DoubleCV (2)")),
            lower("RODEO", "ARMS, 3 evaluations", ("RODEO (3)", "ARMS (3)")),
            better("RODEO", "ARMS, 3 evaluations", ("RODEO (3)", "ARMS (3)")),
            lower("RODEO", "RELAX, 3 evaluations", ("RODEO (3)", "RELAX (3)")),
            better("RODEO", "RELAX, 3 evaluations", ("RODEO (3)", "RELAX (3)")),
            lower("DisARM-IW", "leave-one-out, 2 evaluations; categories", coupled),
            better("DisARM-IW", "leave-one-out, 2 evaluations; categories", coupled),
            *(_less_bias(results, base) for base in ("StraightThrough", "ST-GumbelSoftmax")),
            *(
                better("ReinMax", base, ("ReinMax (1)", f"{base} (1)"))
                for base in ("StraightThrough", "ST-GumbelSoftmax", "GumbelRao")
            ),
        ]
    )


SOURCES = {
    "DisARM": "Dong et al. (2020)",
    "ARMS": "Dimitriev and Zhou (2021)",
    "Double CV": "Titsias and Shi (2022)",
    "RODEO": "Shi et al. (2022)",
    "DisARM-IW": "Dong et al. (2021)",
    "ReinMax": "Liu et al. (2023)",
}


def _source(name: str) -> str:
    return SOURCES[name]


def _pairs(results: Results, name: str, base: str) -> list[tuple[Row, Row]]:
    """The rows of one estimator, each beside that of another at the same place."""
    other = {(row["network"], row["step"]): row for row in rows(results, estimator=base)}
    found = [(row, (row["network"], row["step"])) for row in rows(results, estimator=name)]
    return [(row, other[place]) for row, place in found if place in other]


def _differences(results: Results, network: str, name: str, base: str) -> np.ndarray:
    """The ELBO of one estimator less that of another at the end of training, for each seed."""
    ends = [
        np.array([run[-1] for run in results["curves"][f"{network} {one}"]["train"]])
        for one in (name, base)
    ]
    return ends[0] - ends[1]


def _less_bias(results: Results, base: str) -> Finding:
    """The claim that ReinMax has less bias than another biased estimator."""
    both = _pairs(results, "ReinMax (1)", f"{base} (1)")
    z = [
        (ours["relative_bias"] - other["relative_bias"])
        / np.hypot(ours["relative_bias_se"], other["relative_bias_se"])
        for ours, other in both
    ]
    return Finding(
        f"ReinMax has less bias than {base}",
        SOURCES["ReinMax"],
        "ratio of biases below 1",
        listed([ours["relative_bias"] / other["relative_bias"] for ours, other in both]),
        f"z {between(z, '.0f')}",
        "undecided" if max(map(abs, z)) < CERTAIN else verdict(x < -CERTAIN for x in z),
    )
