"""Posteriors with known moments: how far each objective and estimator of `scorefn.vi` lands.

Gaussian approximations, independent components or a full covariance, are trained by every objective
and estimator from the same seeds, with equally many evaluations of the log joint density a step.
The distance from the truth: in nats, from fresh draws, and in true standard deviations. At two
states of one run: the variance of one gradient of each estimator, and its time. Beside the last
one: the signal-to-noise ratio of importance-weighted bounds by their number of samples.
"""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import jax
import numpy as np
from rich.table import Table as TerminalTable

from benchmarks._measuring.measure import batch
from benchmarks._measuring.timing import batches
from benchmarks._reporting.tables import of_rows
from benchmarks._suite import Results, Sizes, Step, Suite, step_key

from . import gradients, tables, training
from .claims import claims
from .families import FULL, MEAN_FIELD, Params
from .figures import figures
from .forms import DREG, FORMS, REFERENCE, STICKING, TOTAL, WEIGHTED
from .targets import GAUSSIAN, target

# The states of a run that are kept, after the first one.
STATES = 20


@cache
def _run(
    name: str, family: str, form: str, seed: int, runs: int, num_steps: int, rate: float
) -> Params:
    keys = jax.random.split(step_key(seed, f"{name} train"), runs)
    every = num_steps // STATES
    return training.train(name, family, form, keys, num_steps=num_steps, every=every, rate=rate)


def _states(name: str, family: str, form: str, seed: int, sizes: Sizes) -> Params:
    num_steps, rates, *_ = sizes["targets"][name]
    return _run(name, family, form, seed, sizes["seeds"], num_steps, rates[family])


def _trained(name: str, family: str, form: str, seed: int, sizes: Sizes) -> dict[str, Any]:
    """The row of one objective and estimator, and all of its runs."""
    states = _states(name, family, form, seed, sizes)
    key = step_key(seed, f"{name} evaluate")
    found: dict[str, list[float]] = {}
    for which in range(sizes["seeds"]):
        last = jax.tree.map(partial(_at, which, STATES), states)
        elbo, bound, mean, deviation = training.evaluate(name, family, last, key, sizes["draws"])
        ends = {"elbo": float(elbo), "bound": float(bound)}
        for what, value in (ends | training.distances(name, mean, deviation)).items():
            found.setdefault(what, []).append(value)
    row = {
        "target": name,
        "family": family,
        "estimator": form,
        "evaluations": FORMS[form].num_samples,
        "log_evidence": target(name).log_evidence,
        "landed": int(np.sum(np.isfinite(found["elbo"]))),
        **{what: _mean(values) for what, values in found.items()},
    }
    along = training.elbos(name, family, states, key, sizes["draws_along"])
    num_steps, *_ = sizes["targets"][name]
    curve = {
        "step": list(range(0, num_steps + 1, num_steps // STATES)),
        "along": [[_finite(elbo) for elbo in run] for run in along.tolist()],
        **{what: [_finite(value) for value in values] for what, values in found.items()},
    }
    return {"rows": [row], "curves": {f"{name}, {family}: {form}": curve}}


def _forms(sizes: Sizes) -> list[str]:
    return [form for form in FORMS if form in sizes.get("estimators", FORMS)]


def _at(which: int, state: int, leaf: jax.Array) -> jax.Array:
    return leaf[which, state]


def _finite(value: float) -> float | None:
    """The number; None where a run has diverged."""
    return value if np.isfinite(value) else None


def _mean(values: Sequence[float]) -> float | None:
    """The mean over the runs that have not diverged; None if all have."""
    landed = [value for value in values if np.isfinite(value)]
    return float(np.mean(landed)) if landed else None


def _problems(
    name: str, family: str, state: int, seed: int, sizes: Sizes
) -> Mapping[str, gradients.Problem]:
    """The gradients of all estimators at one state of the first run of `REFERENCE`."""
    states = _states(name, family, REFERENCE, seed, sizes)
    params = jax.tree.map(partial(_at, 0, state), states)
    return {
        form: gradients.Problem(params, name, family, form, FORMS[form].num_samples)
        for form in _forms(sizes)
    }


def _variances(name: str, family: str, seed: int, sizes: Sizes) -> dict[str, Any]:
    """The variance of one gradient of each estimator, with its error, early and late in a run."""
    found: dict[str, dict[str, Any]] = {}
    _, _, repeats, _ = sizes["targets"][name]
    for when, state in (("early", 1), ("late", STATES)):
        for form, problem in _problems(name, family, state, seed, sizes).items():
            key = step_key(seed, f"{name} {family} {form} {when}")
            keys = jax.random.split(key, repeats)
            values = batch(gradients.gradient, problem, keys, at_once=1)["q"]
            measured = gradients.variance(np.asarray(values, np.float64))
            found.setdefault(form, {})[when] = measured
    return {"curves": {f"{name}, {family}: variances": found}}


def _times(name: str, family: str, seed: int, sizes: Sizes) -> dict[str, Any]:
    """CPU time of one gradient of each estimator, in turns, in microseconds."""
    problems = _problems(name, family, STATES, seed, sizes)
    _, _, size, _ = sizes["targets"][name]
    watch = batches(gradients.gradient, problems, seed, rounds=sizes["rounds"], size=size)
    medians = (1e6 * np.median(watch.cpu, axis=0) / size).tolist()
    return {"curves": {f"{name}, {family}: times": dict(zip(problems, medians, strict=True))}}


def _signals(name: str, family: str, form: str, seed: int, sizes: Sizes) -> dict[str, Any]:
    """Signal-to-noise ratios by the number of samples, of all gradients and without each group."""
    states = _states(name, family, REFERENCE, seed, sizes)
    params = gradients.moved(jax.tree.map(partial(_at, 0, STATES), states), sizes["moved"])
    *_, repeats = sizes["targets"][name]
    ratios = []
    for num_samples in sizes["samples"]:
        problem = gradients.Problem(params, name, family, form, num_samples)
        keys = jax.random.split(step_key(seed, f"{name} {family} {form} {num_samples}"), repeats)
        values = np.asarray(batch(gradients.gradient, problem, keys, at_once=10)["q"], np.float64)
        groups = values.reshape(sizes["groups"], -1, values.shape[-1])
        ratios.append(gradients.signal_to_noise(groups))
    return {"curves": {f"{name}, {family}: signals of {form}": ratios}}


def steps(sizes: Sizes, seed: int) -> dict[str, Step]:
    """The runs, variances and times of each target and family, and the signals."""
    plan: dict[str, Step] = {}
    for name, (_, rates, *_) in sizes["targets"].items():
        for family in rates:
            for form in _forms(sizes):
                step = f"{name}, {family} train {form}"
                plan[step] = partial(_trained, name, family, form, seed, sizes)
            plan[f"{name}, {family} variances"] = partial(_variances, name, family, seed, sizes)
            # All of it is compiled by now.
            plan[f"{name}, {family} timing"] = partial(_times, name, family, seed, sizes)
            if family == MEAN_FIELD or name == GAUSSIAN:
                for form in (WEIGHTED, DREG):
                    step = f"{name}, {family} signals of {form}"
                    plan[step] = partial(_signals, name, family, form, seed, sizes)
    return plan


def terminal(results: Results) -> TerminalTable:
    """The distances of all rows from the truth."""
    columns = ("target", "family", "estimator", "elbo", "mean_error", "deviation_ratio")
    return of_rows("posteriors", columns, results["rows"])


SUITE = Suite(
    name="posteriors",
    summary="posteriors with true means and deviations: where objectives land, and how fast",
    full={
        # Steps of training, the learning rate of each family, and gradients: for a variance, and
        # for a signal.
        "targets": {
            "eight schools": [4000, {MEAN_FIELD: 0.1, FULL: 0.1}, 2000, 10_000],
            "Brownian motion": [4000, {MEAN_FIELD: 0.03, FULL: 0.01}, 2000, 10_000],
            "Brownian motion, unknown scales": [4000, {MEAN_FIELD: 0.03, FULL: 0.01}, 2000, 10_000],
            "stochastic volatility": [20_000, {MEAN_FIELD: 0.1}, 2000, 10_000],
            "item response": [1000, {MEAN_FIELD: 0.03}, 200, 200],
        },
        "seeds": 4,
        "draws": 4000,
        "draws_along": 200,
        "rounds": 3,
        "moved": 0.05,
        "samples": [4, 16, 64, 256],
        "groups": 10,
    },
    quick={
        "targets": {"Brownian motion": [400, {MEAN_FIELD: 0.1, FULL: 0.03}, 400, 400]},
        "estimators": [TOTAL, STICKING, WEIGHTED, DREG],
        "seeds": 2,
        "draws": 1000,
        "draws_along": 50,
        "rounds": 3,
        "moved": 0.05,
        "samples": [4, 64],
        "groups": 4,
    },
    steps=steps,
    figures=figures,
    shown=lambda _: True,
    default=False,
    tables={
        "posteriors": tables.mean_field,
        "posteriors_full": tables.full_covariance,
        "posteriors_signals": tables.signals,
    },
    claims=claims,
    terminal=terminal,
)
