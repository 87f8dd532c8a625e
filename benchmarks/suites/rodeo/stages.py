"""Stages of the training run of each network, and the gradient at each of them."""

from dataclasses import dataclass, replace
from functools import cache

import jax
import numpy as np

from benchmarks._measuring.measure import batch
from benchmarks._models import vae
from benchmarks._suite import step_key

from . import model, training
from .problem import LONG, Problem, gradient, started, tuned


@dataclass(frozen=True)
class Stage:
    """The place at which gradients are measured.

    Attributes:
        network: of `HIDDEN`.
        step: of its run.
        seed: of all random numbers.
        num_steps: of the whole run.
        every: the steps between two weights that are kept.
        images: of which the gradient is measured.
        tuning: steps in which an estimator learns.
        long_run: gradients of which the mean stands for the exact one.
    """

    network: str
    step: int
    seed: int
    num_steps: int
    every: int
    images: int
    tuning: int
    long_run: int

    @property
    def weights(self) -> model.Params:
        """The weights of the run, after so many steps."""
        states = run(self.network, self.seed, self.num_steps, self.every)
        return jax.tree.map(lambda leaf: leaf[self.step // self.every], states)

    def key(self, purpose: str) -> jax.Array:
        """The random key for one purpose at this stage."""
        return step_key(self.seed, f"{self.network} at {self.step} {purpose}")

    def problem(self, name: str) -> Problem:
        """The gradient of one estimator, whose leaves are learned first, on all images."""
        return _problem(self, name)

    @property
    def long(self) -> np.ndarray:
        """Gradients whose mean stands for the exact one, [long_run, images, 200]."""
        return _long(self)


@cache
def run(network: str, seed: int, num_steps: int, every: int) -> model.Params:
    """The weights along one training run, [stages]."""
    key = step_key(seed, f"{network} train")
    return training.train(network, vae.digits(), key, num_steps=num_steps, every=every)


@cache
def _problem(stage: Stage, name: str) -> Problem:
    start_key, key = jax.random.split(stage.key(f"learn {name}"))
    problem = started(stage.weights, vae.digits()[: stage.images], name, start_key)
    if problem.learned is None:
        return problem
    whole = started(stage.weights, vae.digits(), name, start_key)
    return replace(problem, learned=tuned(whole, key, num_steps=stage.tuning))


@cache
def _long(stage: Stage) -> np.ndarray:
    keys = jax.random.split(stage.key("long run"), stage.long_run)
    return np.asarray(batch(gradient, stage.problem(LONG), keys, at_once=1)["logits"], np.float64)
