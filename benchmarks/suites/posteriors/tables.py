"""The tables of the suite `posteriors`."""

from collections.abc import Sequence

import numpy as np

from benchmarks._reporting.claims import half_width, rows
from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results, Row

from .families import FULL, MEAN_FIELD
from .forms import DREG, FORMS, TOTAL, WEIGHTED

# Nats below the mean ELBO of `TOTAL` at the end.
SLACK = 1.0


def mean_field(results: Results) -> str:
    """Independent components: distances from the truth, variances of gradients, and time."""
    return _table(results, MEAN_FIELD)


def full_covariance(results: Results) -> str:
    """Full covariance: distances from the truth, variances of gradients, and time."""
    return _table(results, FULL)


def _table(results: Results, family: str) -> str:
    header = [
        "posterior",
        "objective and estimator",
        "ELBO, nats below the evidence",
        "error of means",
        "largest",
        "ratio of deviations",
        "least",
        "variance early",
        "late",
        f"CPU s to the ELBO of {TOTAL}",
    ]
    numbers = ("mean_error", "mean_error_worst", "deviation_ratio", "deviation_ratio_least")
    lines = []
    for row in rows(results, family=family):
        place, form = f"{row['target']}, {family}", row["estimator"]
        lines.append(
            [
                row["target"],
                form,
                gap(results, row),
                *(short(row[column], ".2f") for column in numbers),
                *(_relative_variance(results, place, form, when) for when in ("early", "late")),
                _seconds(results, place, form),
            ]
        )
    return markdown(header, lines, words=(0, 1))


def evidence(results: Results, target: str) -> tuple[float, bool]:
    """The log evidence, and whether it is exact; otherwise the best bound of all runs."""
    found = rows(results, target=target)
    exact = found[0]["log_evidence"]
    if exact is not None:
        return exact, True
    return max(row["bound"] for row in found if row["bound"] is not None), False


def gap(results: Results, row: Row) -> str:
    """The distance of the ELBO from the log evidence, or the least that it can be."""
    if row["elbo"] is None:
        return "diverged"
    best, exact = evidence(results, row["target"])
    distance = best - row["elbo"]
    # Below that, rounding.
    text = f"{distance if abs(distance) > 1e-3 else 0:.3g}"
    runs = results["settings"]["seeds"]
    text += "" if row["landed"] == runs else f" ({row['landed']} of {runs} runs)"
    return text if exact else f"at least {text}"


def variances(results: Results, place: str, form: str, when: str) -> tuple[Row, Row]:
    """The variance of an estimator and of its unit, each with its standard error."""
    found, unit = results["curves"][f"{place}: variances"], FORMS[form].unit
    of_form, of_unit = (
        dict(zip(("variance", "variance_se"), found[name][when], strict=True))
        for name in (form, unit)
    )
    return of_form, of_unit


def _relative_variance(results: Results, place: str, form: str, when: str) -> str:
    if FORMS[form].unit is None:
        return ""
    of_form, of_unit = variances(results, place, form, when)
    return f"{of_form['variance'] / of_unit['variance']:.2g}"


def _seconds(results: Results, place: str, form: str) -> str:
    """CPU time until the ELBO is within `SLACK` of that of `TOTAL` at the end."""
    curve, times = results["curves"][f"{place}: {form}"], results["curves"][f"{place}: times"]
    goal = goal_of(results, place)
    found = [reached(curve["step"], run, goal) for run in curve["along"]]
    seconds = [1e-6 * times[form] * step for step in found if step is not None]
    if not seconds:
        return "never"
    all_of_them = "" if len(seconds) == len(found) else f" ({len(seconds)} of {len(found)} runs)"
    return f"{np.mean(seconds):.2g}{all_of_them}"


def goal_of(results: Results, place: str) -> float:
    """The ELBO that is to be reached."""
    ends = [run[-1] for run in results["curves"][f"{place}: {TOTAL}"]["along"]]
    return float(np.mean(ends)) - SLACK


def reached(steps: Sequence[int], run: Sequence[float | None], goal: float) -> int | None:
    """The first of the steps at which the ELBO is that high."""
    for step, elbo in zip(steps, run, strict=True):
        if elbo is not None and elbo >= goal:
            return step
    return None


def signals(results: Results) -> str:
    """Signal-to-noise ratio of one gradient, by the number of samples of the bound."""
    samples = results["settings"]["samples"]
    header = ["posterior", "approximation", "estimator", *map(str, samples), "slope", "95%"]
    lines = []
    for place in places_of_signals(results):
        for form in (WEIGHTED, DREG):
            ratios = results["curves"][f"{place}: signals of {form}"]
            slope, half = slope_of(results, place, form)
            lines.append(
                [
                    *place.rsplit(", ", 1),
                    form.split()[0],
                    *(f"{ratio[0]:.2g}" for ratio in ratios),
                    f"{slope:.2f}",
                    f"± {half:.2f}",
                ]
            )
    return markdown(header, lines, words=(0, 1, 2))


def places_of_signals(results: Results) -> list[str]:
    """The posteriors with their approximations for which the ratios were measured."""
    end = f": signals of {DREG}"
    return [name.removesuffix(end) for name in results["curves"] if name.endswith(end)]


def slope_of(results: Results, place: str, form: str) -> tuple[float, float]:
    """The slope of the log of the ratio over that of the samples, and half its interval.

    The interval is that of the jackknife over groups of gradients.
    """
    ratios = np.array(results["curves"][f"{place}: signals of {form}"])
    # A ratio that noise hides counts as a small one.
    x, y = np.log(results["settings"]["samples"]), np.log(np.maximum(ratios, 1e-3))
    whole, *without = np.polyfit(x, y, 1)[0]
    groups = len(without)
    return float(whole), half_width(groups * whole - (groups - 1) * np.array(without))
