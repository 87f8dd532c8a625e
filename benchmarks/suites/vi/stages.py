"""Stages of one training run shared by all estimators, and their gradients."""

from dataclasses import dataclass, replace
from functools import cache

import jax
import numpy as np

from benchmarks._measuring.measure import batch
from benchmarks._models.logistic import Params
from benchmarks._suite import step_key

from . import training
from .problem import Problem, gradient, started, tuned
from .targets import TARGETS
from .techniques import PLAIN, TECHNIQUES, Learned

# Of one gradient of the long run that stands for the exact one.
LONG_DRAWS = 256

Gradients = dict[str, np.ndarray]


@dataclass(frozen=True)
class Stage:
    """The place at which gradients are measured.

    Attributes:
        target: of `TARGETS`.
        step: of the run.
        seed: of all random numbers.
        num_steps: of the whole run.
        every: the steps between two posteriors that are kept.
        trained_with: draws for each step of the run.
        seeds: runs that were made together; this is the first of them.
        draws: for one gradient that is measured.
        tuning: steps in which leaves are learned.
        long_run: gradients of which the mean stands for the exact one, where that is not known.
    """

    target: str
    step: int
    seed: int
    num_steps: int
    every: int
    trained_with: int
    seeds: int
    draws: int
    tuning: int
    long_run: int

    @property
    def params(self) -> Params:
        """The posterior."""
        sizes = self.num_steps, self.every, self.trained_with
        states = run(self.target, training.REFERENCE, self.seed, self.seeds, *sizes)
        return jax.tree.map(lambda leaf: leaf[0, self.step // self.every], states)

    def earlier(self, steps: int) -> "Stage":
        """The stage so many steps earlier, or the start."""
        return replace(self, step=max(0, self.step - steps))

    @property
    def exact(self) -> tuple[Gradients, Gradients]:
        """The gradient of the negative ELBO, and its standard error."""
        return _exact(self)

    def problem(self, form: str, technique: str) -> Problem:
        """One gradient, whose leaves are learned first.

        What only the form has to learn is learned without a technique, once.
        """
        first = started(self.target, form, technique, self.params, self.draws)
        if not first.learned:
            return first
        taught = technique if TECHNIQUES[technique].learned(1) else PLAIN
        return replace(first, learned=_learned(self, form, taught))


@cache
def run(target: str, name: str, seed: int, seeds: int, *sizes: int) -> Params:
    """The posteriors along training runs, [seeds, ...]; sizes: of `train`."""
    num_steps, every, draws = sizes
    keys = jax.random.split(step_key(seed, f"{target} train"), seeds)
    return training.train(target, name, keys, num_steps=num_steps, every=every, draws=draws)


@cache
def _learned(stage: Stage, form: str, technique: str) -> Learned:
    key = step_key(stage.seed, f"{stage.target} at {stage.step} learn {form}, {technique}")
    problem = started(stage.target, form, technique, stage.params, stage.draws)
    return tuned(problem, key, num_steps=stage.tuning).learned


@cache
def _exact(stage: Stage) -> tuple[Gradients, Gradients]:
    params, exact = stage.params, TARGETS[stage.target].exact_loss
    if exact is not None:
        found = jax.jit(jax.grad(exact))(params, TARGETS[stage.target].data())
        return _wide(found), {name: np.zeros(()) for name in found}
    problem = started(stage.target, "Pathwise", "QuasiMonteCarlo", params, LONG_DRAWS)
    key = step_key(stage.seed, f"{stage.target} at {stage.step} long run")
    runs = _wide(batch(gradient, problem, jax.random.split(key, stage.long_run), at_once=1))
    errors = {name: run.std(axis=0, ddof=1) / np.sqrt(len(run)) for name, run in runs.items()}
    return {name: run.mean(axis=0) for name, run in runs.items()}, errors


def _wide(gradients: dict[str, jax.Array]) -> Gradients:
    return {name: np.asarray(found, np.float64) for name, found in gradients.items()}
