"""Policy gradients: published losses on a bandit, and estimators of a divergence.

(a) A contextual bandit on digits: 64 images, 8 actions each. The exact gradient is known. Variance
and bias of the gradient of each recipe at stages of one training run of RLOO, on policy and off it
(actions of the policy some batches before). Recipes scale the gradient differently, so that
``relative_variance`` is that of the gradient divided by its mean component along the exact one, in
units of RLOO on policy; ``cosine`` is that of the angle between the mean and the exact gradient.
(b) Learning curves of each recipe: the expected reward on all digits, exactly, with one step of
Adam for each batch and with four. (c) KL(policy || reference) of five outcomes from one draw, on
and off policy: variance and bias of the gradient, in units of the variance of `kl_estimate`, and
bias and variance of the value, in nats and nats^2; all exact but ``variance``.
"""

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import jax
import numpy as np

from benchmarks._measuring.measure import Measurement, measure
from benchmarks._measuring.timing import microseconds
from benchmarks._suite import Row, Sizes, Step, Suite, step_key

from . import bandit, kl, tables, training
from .claims import claims
from .figures import figures


@cache
def _reference(seed: int, group: int, batches: int, every: int) -> bandit.Params:
    """The parameters along one run of RLOO, [stages]."""
    states = training.train(
        training.REFERENCE,
        bandit.digits(),
        step_key(seed, "reference")[None],
        group=group,
        batches=batches,
        every=every,
        steps=1,
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf[0]), states)


def _at(states: bandit.Params, index: int) -> bandit.Params:
    return jax.tree.map(lambda leaf: leaf[index], states)


def _problem(objective: str, stage: int, seed: int, sizes: Sizes, name: str) -> bandit.Problem:
    every, group = sizes["every"], sizes["group"]
    states = _reference(seed, group, sizes["batches"], every)
    # Off policy the actions are those of the state before.
    before = {"on": stage, "off": stage - every}[objective]
    now, then = (_at(states, at // every) for at in (stage, before))
    data = bandit.digits()
    few = bandit.Data(data.images[: sizes["images"]], data.labels[: sizes["images"]])
    return bandit.Problem(now, then, few, name, group)


def _bandit_row(
    objective: str, stage: int, seed: int, key: jax.Array, sizes: Sizes, name: str
) -> dict[str, list[Row]]:
    problem = _problem(objective, stage, seed, sizes, name)
    exact = np.asarray(bandit.exact_gradient(problem.params, problem.data), np.float64)
    known = bandit.exact_variance(problem) if objective == "on" else None
    unbiased = name in bandit.UNBIASED[objective]
    found = measure(
        bandit.gradient,
        problem,
        key,
        {"policy": exact},
        **sizes["repeats"],
        biased=not unbiased,
        magnitude=1.0 / len(problem.data.labels),
        projected=True,
    )["policy"]
    along = found.mean @ exact / np.linalg.norm(exact)
    unit = bandit.exact_variance(_problem("on", stage, seed, sizes, training.REFERENCE))
    row = {
        "objective": f"bandit, {objective} policy",
        "at": stage,
        "estimator": name,
        "unbiased": unbiased,
        "evaluations": sizes["group"],
        **found.columns(known),
        "relative_variance": float(found.variance / along**2 / (unit or 1) * (exact @ exact)),
        "relative_bias": None if unbiased else found.relative_bias(exact),
        "cosine": None if unbiased else _cosine(found, exact),
        "value_bias": None,
        "value_variance": None,
        "timing": f"bandit {name}",
    }
    return {"rows": [row]}


def _cosine(found: Measurement, exact: np.ndarray) -> float:
    """The cosine of the angle between mean and exact gradient, corrected for noise."""
    square = np.sum(found.mean**2) - found.variance / found.repeats
    return float(min(1.0, found.mean @ exact / np.sqrt(square * np.sum(exact**2))))


def _kl_row(
    objective: str, distance: float, name: str, key: jax.Array, repeats: Mapping[str, Any]
) -> dict[str, list[Row]]:
    drawn, way = {"on": "new", "off": "old"}[objective], kl.WAYS[name]
    problem = kl.problem(name, distance, drawn=drawn)
    exact, unit = kl.exact(problem), kl.exact(kl.problem(KL_UNIT, distance, drawn=drawn))
    unbiased = {"on": way.on, "off": way.off}[objective] == "kl"
    found = measure(
        kl.gradient,
        problem,
        key,
        {"logits": exact.gradient},
        **repeats,
        expected={"logits": exact.mean},
        magnitude=1.0,
    )["logits"]
    row = {
        "objective": f"divergence, {objective} policy",
        "at": round(exact.kl, 3),
        "estimator": name,
        "unbiased": unbiased,
        "evaluations": 1,
        **found.columns(exact.variance),
        "relative_variance": exact.variance / unit.variance,
        "relative_bias": exact.relative_bias,
        "cosine": None,
        "value_bias": exact.value - exact.kl,
        "value_variance": exact.value_variance,
        "timing": f"divergence {name}",
    }
    return {"rows": [row]}


KL_UNIT = "kl_estimate, k3"


def _times(seed: int, sizes: Sizes) -> dict[str, dict[str, float]]:
    stage = sizes["stages"][-1]
    names = sizes["recipes"]
    recipes = {f"bandit {name}": _problem("on", stage, seed, sizes, name) for name in names}
    ways = {f"divergence {name}": kl.problem(name, 1.0, drawn="new") for name in sizes["ways"]}
    times = {
        **microseconds(bandit.gradient, recipes, seed, **sizes["timing"]),
        **microseconds(kl.gradient, ways, seed, **sizes["timing"]),
    }
    return {"times": times}


def _curves(name: str, steps: int, seed: int, sizes: Sizes) -> dict[str, Any]:
    batches, every = sizes["batches"], sizes["every"]
    keys = jax.random.split(step_key(seed, "train"), sizes["seeds"])
    settings = {"group": sizes["group"], "batches": batches, "every": every, "steps": steps}
    states = training.train(name, bandit.digits(), keys, **settings)
    reward = np.asarray(training.evaluate(states, bandit.digits()), np.float64)
    curve = {"batch": list(range(0, batches + 1, every)), "reward": reward.tolist()}
    return {"curves": {f"{name}, {steps}": curve}}


def steps(sizes: Sizes, seed: int) -> dict[str, Step]:
    """The times, the rows of the bandit, the training runs, the rows of the divergence."""
    plan: dict[str, Step] = {"timing": partial(_times, seed, sizes)}
    for objective in ("on", "off"):
        for stage in sizes["stages"]:
            # At the start there is no policy before.
            for name in sizes["recipes"] if objective == "on" or stage else ():
                step = f"bandit {objective} {stage} {name}"
                key = step_key(seed, step)
                plan[step] = partial(_bandit_row, objective, stage, seed, key, sizes, name)
    for updates in sizes["steps"]:
        for name in sizes["trained"]:
            plan[f"train {name}, {updates}"] = partial(_curves, name, updates, seed, sizes)
    for objective in ("on", "off"):
        for distance in sizes["distances"]:
            for name in sizes["ways"]:
                step = f"divergence {objective} {distance} {name}"
                key, repeats = step_key(seed, step), sizes["draws"]
                plan[step] = partial(_kl_row, objective, distance, name, key, repeats)
    return plan


SUITE = Suite(
    name="policy",
    summary="policy gradients: published losses on a bandit, estimators of a divergence",
    full={
        "recipes": list(bandit.ENTRIES),
        "trained": list(bandit.ENTRIES),
        "ways": list(kl.WAYS),
        "images": 64,
        "group": 8,
        "batches": 400,
        "every": 20,
        "stages": [0, 40, 400],
        "steps": [1, 4],
        "seeds": 3,
        "distances": [0.7, 2.2],
        "repeats": {"batches": 4, "size": 500, "at_once": 50},
        "draws": {"batches": 4, "size": 20_000, "at_once": 20_000},
        "timing": {"rounds": 11, "size": 1000},
    },
    quick={
        "recipes": ["RLOO", "Dr.GRPO", "GRPO", "RLOO, ratio"],
        "trained": ["GRPO"],
        "ways": ["k3", "ratio * k1", "kl_estimate, k3"],
        "images": 16,
        "group": 4,
        "batches": 40,
        "every": 20,
        "stages": [20],
        "steps": [2],
        "seeds": 2,
        "distances": [0.7],
        "repeats": {"batches": 2, "size": 250, "at_once": 50},
        "draws": {"batches": 2, "size": 5_000, "at_once": 5_000},
        "timing": {"rounds": 3, "size": 200},
    },
    steps=steps,
    figures=figures,
    tables={"recipes": tables.recipes, "divergences": tables.divergences},
    claims=claims,
    shown=lambda row: row["objective"] == "bandit, on policy" and row["at"] in (20, 400),
    default=False,
)
