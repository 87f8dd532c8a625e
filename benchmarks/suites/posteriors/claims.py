"""Published claims about objectives of variational inference, where the posterior is known."""

import numpy as np

from benchmarks._reporting.claims import (
    CERTAIN,
    CONFIDENCE,
    Finding,
    above_zero,
    between,
    listed,
    rows,
    table,
    verdict,
)
from benchmarks._suite import Results

from .families import FULL, MEAN_FIELD
from .forms import DREG, DREG_MANY, RENYI, STICKING, WEIGHTED
from .tables import places_of_signals, relative_variance, slope_of
from .targets import GAUSSIAN

# The only place at which a family contains the posterior.
EXACT = f"{GAUSSIAN}, {FULL}"


def claims(results: Results) -> str:
    """Published claims, and the results: by posterior, in the order of the table."""
    places = list(dict.fromkeys(f"{row['target']}, {row['family']}" for row in results["rows"]))
    inexact = [place for place in places if place != EXACT]
    signals = places_of_signals(results)
    found = [
        _less_variance(
            results,
            "Sticking the landing: less variance than Pathwise at the optimum",
            "Roeder et al. (2017)",
            STICKING,
            inexact,
        ),
        _less_variance(
            results,
            "Where q is the posterior, its variance vanishes",
            "Roeder et al. (2017)",
            STICKING,
            [place for place in places if place == EXACT],
        ),
        _less_variance(
            results,
            f"DReG: less variance than IWAE, {WEIGHTED.split()[1][1:-1]} samples",
            "Tucker et al. (2019)",
            DREG,
            places,
        ),
        *(
            _slopes(results, f"{claim}; {where}", source, form, sign, some)
            for claim, source, form, sign in (
                (
                    "The signal-to-noise ratio of IWAE falls with the samples",
                    "Rainforth et al. (2018)",
                    WEIGHTED,
                    -1,
                ),
                ("That of DReG grows", "Tucker et al. (2019)", DREG, 1),
            )
            for where, some in (
                ("q about the posterior", [p for p in signals if p == EXACT]),
                ("independent components", [p for p in signals if p != EXACT]),
            )
        ),
        _ratios(
            results,
            "Independent components underestimate deviations, by the ELBO",
            "Turner and Sahani (2011)",
            "1 - ratio of deviations above 0",
            STICKING,
            None,
        ),
        *(
            _ratios(results, claim, source, "larger ratio of deviations", name, base)
            for claim, source, name, base in (
                ("Rényi's bound, α = 1/2, less so", "Li and Turner (2016)", RENYI, STICKING),
                ("DReG with 8 samples less so", "Domke and Sheldon (2018)", DREG, STICKING),
                ("With 64 samples still less", "Domke and Sheldon (2018)", DREG_MANY, DREG),
            )
        ),
    ]
    return table([one for one in found if one is not None])


def _less_variance(
    results: Results, claim: str, source: str, form: str, places: list[str]
) -> Finding | None:
    """The claim that the variance at the end is below that of the unit, by place."""
    if not places:
        return None
    found = [relative_variance(results, place, form, "late") for place in places]
    z = [(ratio - 1) / error for ratio, error in found]
    return Finding(
        claim,
        source,
        "ratio of variances below 1",
        listed([ratio for ratio, _ in found]),
        f"z {between(z, '.0f')}",
        verdict(x < -CERTAIN for x in z),
    )


def _slopes(
    results: Results, claim: str, source: str, form: str, sign: int, places: list[str]
) -> Finding:
    """The claim that the ratio falls or grows, by place."""
    found = [slope_of(results, place, form) for place in places]
    return Finding(
        claim,
        source,
        f"slope {'above' if sign > 0 else 'below'} 0, {0.5 * sign:+g} for many samples",
        ", ".join(f"{slope:.2f}" for slope, _ in found),
        f"{CONFIDENCE:.0%}: " + ", ".join(f"± {half:.2f}" for _, half in found),
        verdict(sign * slope > half for slope, half in found),
    )


def _ratios(
    results: Results, claim: str, source: str, expected: str, form: str, base: str | None
) -> Finding | None:
    """The claim that deviations are too small, or less so than by another objective."""
    differences = []
    if base is not None and not rows(results, estimator=base):
        return None
    for row in rows(results, family=MEAN_FIELD, estimator=form):
        place = f"{row['target']}, {MEAN_FIELD}"
        ratios = _deviations(results, place, form)
        differences.append(
            1 - ratios if base is None else ratios - _deviations(results, place, base)
        )
    # Runs that have diverged agree with no claim.
    finite = [found for found in differences if np.all(np.isfinite(found))]
    return above_zero(claim, source, expected, finite) if finite else None


def _deviations(results: Results, place: str, form: str) -> np.ndarray:
    return np.array(results["curves"][f"{place}: {form}"]["deviation_ratio"], float)
