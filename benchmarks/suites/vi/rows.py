"""The rows of one form at one stage of training: every technique, measured against none."""

from collections.abc import Mapping
from typing import Any

from benchmarks._measuring.effect import compared
from benchmarks._measuring.measure import Measurement, measure
from benchmarks._measuring.timing import microseconds
from benchmarks._suite import Row, step_key

from .forms import FORMS
from .problem import gradient
from .stages import Stage
from .techniques import PLAIN, TECHNIQUES


def forms(target: str) -> list[str]:
    """The forms for a target: those that cannot train a network are left out there."""
    return [form for form in FORMS if target == "logistic" or form != "ConstantBaseline"]


def techniques(target: str, form: str) -> list[str]:
    """The techniques for a form: all that it allows; for the networks only with `Pathwise`."""
    if target != "logistic" and form != "Pathwise":
        return [PLAIN]
    return [
        name
        for name, technique in TECHNIQUES.items()
        if FORMS[form].one_by_one or technique.serves_leave_one_out
    ]


def row(
    *,
    target: str,
    at: int,
    form: str,
    estimator: str,
    parameter: str,
    evaluations: int,
    measured: Measurement,
    plain: Measurement,
) -> Row:
    """One row of an unbiased estimator, beside the same without a technique."""
    columns = measured.columns()
    return {
        "target": target,
        "at": at,
        "form": form,
        "estimator": estimator,
        "parameter": parameter,
        "unbiased": True,
        "evaluations": evaluations,
        **columns,
        **compared(columns, plain.columns()),
        "relative_bias": None,
        "snr": None,
        "snr_se": None,
        "timing": f"{target} {form}, {estimator}",
    }


def rows(stage: Stage, form: str, repeats: Mapping[str, Any]) -> dict[str, list[Row]]:
    """The rows of mean and log-scale, for each technique."""
    exact, error = stage.exact
    found: list[Row] = []
    plain: dict[str, Measurement] = {}
    for technique in techniques(stage.target, form):
        problem = stage.problem(form, technique)
        measured = measure(
            gradient,
            problem,
            step_key(stage.seed, f"{stage.target} at {stage.step} {form}, {technique}"),
            exact,
            **repeats,
            magnitude=float(len(problem.data.labels)),
            exact_error=error,
        )
        for parameter, measurement in measured.items():
            found.append(
                row(
                    target=stage.target,
                    at=stage.step,
                    form=form,
                    estimator=technique,
                    parameter=parameter,
                    evaluations=problem.evaluations,
                    measured=measurement,
                    plain=plain.setdefault(parameter, measurement),
                )
            )
    return {"rows": found}


def times(stage: Stage, timing: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Microseconds for one gradient, of every technique of every form."""
    problems = {
        f"{stage.target} {form}, {technique}": stage.problem(form, technique)
        for form in forms(stage.target)
        for technique in techniques(stage.target, form)
    }
    return {"times": microseconds(gradient, problems, stage.seed, **timing)}
