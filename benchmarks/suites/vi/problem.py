"""One gradient of the negative ELBO, and the leaves of its estimator learned."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import scorefn as sf
from benchmarks._measuring.trajectory import descended
from benchmarks._models.logistic import Data, Params, posterior
from scorefn._core.pytree import pytree_dataclass, static_field

from .forms import FORMS, Bound
from .targets import TARGETS, mean_and_scale
from .techniques import TECHNIQUES, Around, Learned, Quadratic

TUNING_RATE = 0.02
LEVEL_SAMPLES = 256


@pytree_dataclass
class Problem:
    """Everything that one gradient depends on, besides its key.

    Attributes:
        params: of the posterior: mean and log_scale, [d] each.
        learned: the leaves of the form and of the technique.
        taylor: the negative log-likelihood, to second order around the mean.
        level: its expectation, in nats, roughly: for a constant baseline.
        data: all data.
        target: of `TARGETS`.
        form: of `FORMS`.
        technique: of `TECHNIQUES`.
        draws: for one gradient.
    """

    params: Params
    learned: Learned
    taylor: Quadratic
    level: jax.Array
    data: Data
    target: str = static_field()
    form: str = static_field()
    technique: str = static_field()
    draws: int = static_field()

    @property
    def estimator(self) -> sf.Estimator:
        """The estimator, with the technique around it."""
        # A tenth of a nat for each datum: so one learning rate fits all leaves.
        unit = len(self.data.labels) / 10
        around = Around(self._quadratic(), self.learned, unit)
        inner = FORMS[self.form].estimator(self.level)
        return TECHNIQUES[self.technique].around(inner, around)

    @property
    def evaluations(self) -> int:
        """The evaluations of f for one gradient."""
        return TECHNIQUES[self.technique].evaluations(self.draws)

    def _quadratic(self) -> Quadratic:
        # Of f: with as much of the prior and of q, which are quadratic, as the form samples.
        prior, own = FORMS[self.form].quadratic(self.learned)
        mean, scale = jax.lax.stop_gradient(mean_and_scale(self.params))
        curvature = jnp.diag(prior - own / scale**2) + self.taylor.curvature
        return replace(self.taylor, slope=self.taylor.slope + prior * mean, curvature=curvature)


def started(target: str, form: str, technique: str, params: Params, draws: int) -> Problem:
    """The problem at a posterior, with the leaves as they are before they are learned."""
    mean = jnp.asarray(params["mean"])
    learned = FORMS[form].learned | TECHNIQUES[technique].learned(len(mean))
    return Problem(
        params=params,
        learned=learned,
        taylor=taylor(target, mean),
        level=_level(target, params),
        data=TARGETS[target].data(),
        target=target,
        form=form,
        technique=technique,
        draws=draws,
    )


@partial(jax.jit, static_argnames="target")
def taylor(target: str, mean: jax.Array) -> Quadratic:
    """The negative log-likelihood of all data, to second order."""
    data = TARGETS[target].data()

    def cost(weights: jax.Array) -> jax.Array:
        return TARGETS[target].cost(weights, data)

    return Quadratic(jax.grad(cost)(mean), jax.hessian(cost)(mean), mean)


@partial(jax.jit, static_argnames="target")
def _level(target: str, params: Params) -> jax.Array:
    data, q = TARGETS[target].data(), posterior(params)
    keys = jax.random.split(jax.random.key(0), LEVEL_SAMPLES)
    return jnp.mean(jax.vmap(lambda key: TARGETS[target].cost(q.draw(key), data))(keys))


def loss(params: Params, key: jax.Array, learned: Learned, problem: Problem) -> jax.Array:
    """An estimate of the negative ELBO, in nats. Consumes the key."""
    problem = replace(problem, learned=learned)
    bound = Bound(
        log_likelihood=lambda weights: -TARGETS[problem.target].cost(weights, problem.data),
        params=params,
        key=key,
        estimator=problem.estimator,
        num_samples=TECHNIQUES[problem.technique].terms(problem.draws),
        learned=learned,
    )
    return -FORMS[problem.form].elbo(bound)


def gradient(problem: Problem, key: jax.Array) -> dict[str, jax.Array]:
    """One estimate of the gradient along the mean and along the log of the scale."""
    return jax.grad(loss)(problem.params, key, problem.learned, problem)


def slope(params: Params, key: jax.Array, learned: Learned, problem: Problem) -> Any:
    """An estimate of how the variance of the gradient depends on the leaves. Consumes the key."""

    def difference(params: Params, key: jax.Array, learned: Learned) -> jax.Array:
        # E|g - g'|^2 = 2 Var(g): the gradient's own mean, early in training far larger than its
        # noise, would drown what the leaves change.
        one, other = jax.random.split(key)
        return loss(params, one, learned, problem) - loss(params, other, learned, problem)

    return jax.grad(sf.squared_gradient, argnums=3)(difference, params, key, learned)


@partial(jax.jit, static_argnames="num_steps")
def tuned(problem: Problem, key: jax.Array, *, num_steps: int) -> Problem:
    """The problem with its leaves learned, by Adam on the squared gradient. Consumes the key."""

    def along(learned: Learned, key: jax.Array) -> Any:
        return slope(problem.params, key, learned, problem)

    optimizer = optax.adam(optax.cosine_decay_schedule(TUNING_RATE, num_steps))
    learned = descended(along, problem.learned, key, optimizer, num_steps=num_steps)
    return replace(problem, learned=learned)
