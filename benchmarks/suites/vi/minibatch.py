"""The logistic regression with minibatches: the noise of the draws and of the data, together."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import scorefn as sf
from benchmarks._measuring.measure import Measurement, measure
from benchmarks._measuring.timing import microseconds
from benchmarks._models import logistic as model
from benchmarks._models.logistic import Data, Params
from benchmarks._models.logistic_training import MINIBATCH
from benchmarks._suite import Row, step_key
from scorefn import vi
from scorefn._core.pytree import pytree_dataclass, static_field

from .rows import row
from .stages import Stage
from .targets import inverse_cdf, mean_and_scale

TARGET = "minibatches"
DRAWS = 8
# How long ago the stored quadratics of the data were made, in steps of the common run.
AGES = {"MinibatchControlVariate": 0, "MinibatchControlVariate, 50 steps old": 50}
NAMES = ("plain", "QuasiMonteCarlo", "DeltaMethod, c = 1", *AGES, "all data, plain")


@pytree_dataclass
class Problem:
    """Everything that one gradient depends on, besides its key.

    Attributes:
        params: of the posterior.
        stored: a quadratic for each datum, or None.
        data: all data.
        name: of the technique.
    """

    params: Params
    stored: sf.DatumSurrogates | None
    data: Data
    name: str = static_field()

    def estimator(self, batch: jax.Array) -> sf.Estimator:
        """The estimator of the cost of a minibatch."""
        if self.stored is not None:
            return sf.MinibatchControlVariate(
                sf.Pathwise(), self.stored, batch, moments=mean_and_scale
            )
        if self.name == "QuasiMonteCarlo":
            return sf.QuasiMonteCarlo(sf.Pathwise(), inverse_cdf)
        if self.name == "DeltaMethod, c = 1":
            return sf.DeltaMethod(sf.Pathwise(), moments=mean_and_scale)
        return sf.Pathwise()


def log_likelihoods(weights: jax.Array, data: Data, batch: jax.Array) -> jax.Array:
    """The log-likelihood of each datum of a minibatch, in nats."""
    features, labels = jnp.asarray(data.features)[batch], jnp.asarray(data.labels)[batch]
    return -jax.nn.softplus(-labels * (features @ weights))


def _loss(params: Params, key: jax.Array, problem: Problem) -> jax.Array:
    n = len(problem.data.labels)
    batch_key, key = jax.random.split(key)
    batch = jax.random.randint(batch_key, (MINIBATCH,), 0, n)
    if problem.name == "all data, plain":
        batch = jnp.arange(n)

    def log_likelihood(weights: jax.Array) -> jax.Array:
        return n / len(batch) * jnp.sum(log_likelihoods(weights, problem.data, batch))

    return -vi.elbo(
        log_likelihood,
        model.posterior(params),
        key,
        problem.estimator(batch),
        num_samples=DRAWS,
        entropy=-model.divergence(params),
    )


def gradient(problem: Problem, key: jax.Array) -> dict[str, jax.Array]:
    """One estimate of the gradient on all data, from one minibatch."""
    return jax.grad(_loss)(problem.params, key, problem)


@jax.jit
def _stored(mean: jax.Array, data: Data) -> sf.DatumSurrogates:
    n = len(data.labels)
    everything = jnp.arange(n)
    empty = sf.DatumSurrogates.zeros(n, mean.shape)
    return empty.refresh(partial(log_likelihoods, data=data, batch=everything), mean, everything)


def _problem(stage: Stage, name: str) -> Problem:
    data = model.breast_cancer()
    if name not in AGES:
        return Problem(stage.params, None, data, name)
    # Before any training there is nothing older than the start.
    then = stage.earlier(AGES[name])
    return Problem(stage.params, _stored(then.params["mean"], data), data, name)


def rows(stage: Stage, repeats: Mapping[str, Any]) -> dict[str, list[Row]]:
    """The rows of mean and log-scale, for each technique, over minibatches and draws."""
    exact, _ = stage.exact
    found: list[Row] = []
    plain: dict[str, Measurement] = {}
    for name in NAMES:
        key = step_key(stage.seed, f"{TARGET} at {stage.step} {name}")
        measured = measure(gradient, _problem(stage, name), key, exact, **repeats, magnitude=569.0)
        for parameter, measurement in measured.items():
            found.append(
                row(
                    target=TARGET,
                    at=stage.step,
                    form="Pathwise",
                    estimator=name,
                    parameter=parameter,
                    evaluations=DRAWS + 6 * (name == "DeltaMethod, c = 1"),
                    measured=measurement,
                    plain=plain.setdefault(parameter, measurement),
                )
            )
    return {"rows": found}


def times(stage: Stage, timing: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Microseconds for one gradient of each technique."""
    problems = {f"{TARGET} Pathwise, {name}": _problem(stage, name) for name in NAMES}
    return {"times": microseconds(gradient, problems, stage.seed, **timing)}
