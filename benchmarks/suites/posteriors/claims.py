"""Published claims about objectives of variational inference, where the posterior is known."""

import numpy as np

from benchmarks._reporting.claims import EXACT as EXACT_ZERO
from benchmarks._reporting.claims import (
    Finding,
    above_zero,
    less,
    rows,
    signed,
    table,
    verdict,
)
from benchmarks._suite import Results

from .families import FULL, MEAN_FIELD
from .forms import DRAWS, DREG, DREG_MANY, RENYI, STICKING, WEIGHTED
from .tables import places_of_signals, slope_of, variances
from .targets import GAUSSIAN

# The only place at which a family contains the posterior.
EXACT = f"{GAUSSIAN}, {FULL}"

# The claim, its source, the objective, and the one that it is compared with.
RATIOS = (
    (
        "Independent components underestimate deviations, by the ELBO",
        "Dieng et al. (2017)",
        STICKING,
        None,
    ),
    (
        "Rényi's bound, α = 1/2, underestimates less than the ELBO",
        "Margossian et al. (2024)",
        RENYI,
        STICKING,
    ),
    (
        "The importance-weighted bound of 8 samples underestimates less than the ELBO",
        "Domke and Sheldon (2018), recalled",
        DREG,
        STICKING,
    ),
    (
        "That of 64 samples less than that of 8",
        "Domke and Sheldon (2018), recalled",
        DREG_MANY,
        DREG,
    ),
)


def claims(results: Results) -> str:
    """Published claims, and the results: by posterior, in the order of the table."""
    places = list(dict.fromkeys(f"{row['target']}, {row['family']}" for row in results["rows"]))
    found = [
        less(
            "Sticking the landing: less variance than Pathwise at the optimum",
            "Roeder et al. (2017)",
            [variances(results, place, STICKING, "late") for place in places],
        ),
        _vanishing(results),
        less(
            f"DReG: less variance than IWAE, {DRAWS} samples",
            "Tucker et al. (2019)",
            [variances(results, place, DREG, "late") for place in places],
        ),
        *_signals(results),
        *(_ratios(results, *claim) for claim in RATIOS),
    ]
    return table([one for one in found if one is not None])


def _vanishing(results: Results) -> Finding:
    """The claim that there is no noise at the posterior."""
    of_form, unit = variances(results, EXACT, STICKING, "late")
    ratio = of_form["variance"] / unit["variance"]
    return Finding(
        "Where q is the posterior, its variance vanishes",
        "Roeder et al. (2017)",
        "ratio of variances 0",
        f"{ratio:.1g}",
        f"at most {EXACT_ZERO:g}",
        verdict([ratio < EXACT_ZERO]),
    )


def _signals(results: Results) -> list[Finding]:
    """The claims on signal-to-noise ratios, near the posterior and far from it."""
    places = places_of_signals(results)
    return [
        signed(
            f"{claim}; {where}",
            source,
            f"slope {sign * 0.5:+g} for many samples",
            [slope_of(results, place, form) for place in places if (place == EXACT) == near],
            sign,
        )
        for claim, source, form, sign in (
            (
                "The signal-to-noise ratio of IWAE falls with the samples",
                "Rainforth et al. (2018)",
                WEIGHTED,
                -1,
            ),
            ("That of DReG grows", "Tucker et al. (2019)", DREG, 1),
        )
        for where, near in (("q about the posterior", True), ("independent components", False))
    ]


def _ratios(
    results: Results, claim: str, source: str, form: str, base: str | None
) -> Finding | None:
    """The claim that deviations are too small, or less so than by another objective."""
    ratio = "ratio of deviations" if base is None else "increase of the ratio of deviations"
    expected = f"{'1 - ' if base is None else ''}{ratio} above 0"
    found = []
    for row in rows(results, family=MEAN_FIELD, estimator=form):
        place = f"{row['target']}, {MEAN_FIELD}"
        ratios = _deviations(results, place, form)
        beyond = 1 - ratios if base is None else ratios - _deviations(results, place, base)
        # Without runs that have diverged.
        found.append(beyond[np.isfinite(beyond)])
    return above_zero(claim, source, expected, found) if found else None


def _deviations(results: Results, place: str, form: str) -> np.ndarray:
    return np.array(results["curves"][f"{place}: {form}"]["deviation_ratio"], float)
