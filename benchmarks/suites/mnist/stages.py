"""Stages of one training run of each network, and the gradient at each of them."""

from dataclasses import dataclass, replace
from functools import cache

import jax
import numpy as np

from benchmarks._measuring.measure import batch
from benchmarks._suite import step_key

from . import model, training
from .data import binarized, intensities
from .entries import LONG, UNIT, entry
from .problem import Problem, gradient, tuned


@dataclass(frozen=True)
class Stage:
    """The place at which gradients are measured.

    Attributes:
        network: of `NETWORKS`.
        step: of its run with the estimator `UNIT`.
        seed: of all random numbers.
        num_steps: of the whole run.
        every: the steps between two states.
        images: of which the gradient is measured, equally many of each digit.
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
        return _run(self.network, self.seed, self.num_steps, self.every)[self.step // self.every]

    def key(self, purpose: str) -> jax.Array:
        """The random key for one purpose at this stage."""
        return step_key(self.seed, f"{self.network} at {self.step} {purpose}")

    def problem(self, name: str) -> Problem:
        """The gradient of one estimator, whose leaves are learned first, on all images."""
        return _problem(self, name)

    @property
    def long(self) -> np.ndarray:
        """Gradients whose mean stands for the exact one, [long_run, images, *code]."""
        return _long(self)


def run_key(seed: int, network: str, which: int) -> jax.Array:
    """The random key of one training run: the same for all estimators."""
    return jax.random.fold_in(step_key(seed, f"{network} train"), which)


@cache
def _run(network: str, seed: int, num_steps: int, every: int) -> list[model.Params]:
    key = run_key(seed, network, 0)
    states = training.train(network, UNIT, key, num_steps=num_steps, every=every)
    return [state.weights for state in states]


@cache
def _problem(stage: Stage, name: str) -> Problem:
    start_key, binary_key, key = jax.random.split(stage.key(f"learn {name}"), 3)
    start = entry(stage.network, name).start
    learned = None if start is None else start(start_key)
    every = len(intensities()[0]) // stage.images
    some = binarized(intensities()[0][::every], step_key(stage.seed, "measured images"))
    problem = _at(stage, name, some)
    if learned is None:
        return problem
    whole = replace(_at(stage, name, binarized(intensities()[0], binary_key)), learned=learned)
    return replace(problem, learned=tuned(whole, key, num_steps=stage.tuning))


def _at(stage: Stage, name: str, images: jax.Array) -> Problem:
    logits = model.NETWORKS[stage.network].encode(stage.weights["encoder"], images)
    return Problem(stage.weights["decoder"], logits, images, None, stage.network, name)


@cache
def _long(stage: Stage) -> np.ndarray:
    keys = jax.random.split(stage.key("long run"), stage.long_run)
    return np.asarray(batch(gradient, stage.problem(LONG), keys, at_once=1)["logits"], np.float64)
