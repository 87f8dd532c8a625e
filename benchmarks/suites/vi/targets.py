"""Likelihoods with a standard normal prior on the weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from benchmarks._models import logistic as model
from benchmarks._models.logistic import Data, Params

from . import networks


@dataclass(frozen=True)
class Target:
    """One likelihood and its data.

    Attributes:
        title: for figures.
        cost: ``cost(weights, data)``, the negative log-likelihood in nats.
        data: all of them.
        start: ``start(key)``, the posterior before training.
        exact_loss: ``exact_loss(params, data)``, the negative ELBO, where it is known.
    """

    title: str
    cost: Callable[[jax.Array, Data], jax.Array]
    data: Callable[[], Data]
    start: Callable[[jax.Array], Params]
    exact_loss: Callable[[Params, Data], jax.Array] | None = None


def _prior(key: jax.Array) -> Params:
    del key
    zeros = jnp.zeros(model.breast_cancer().features.shape[1])
    return {"mean": zeros, "log_scale": zeros}


TARGETS: Mapping[str, Target] = {
    "logistic": Target(
        "logistic regression, breast cancer",
        model.cost,
        model.breast_cancer,
        _prior,
        model.exact_loss,
    ),
    "diabetes": Target(
        "neural network, diabetes",
        networks.diabetes_cost,
        networks.diabetes,
        partial(networks.start, networks.DIABETES_SIZES),
    ),
    "wine": Target(
        "neural network, wine",
        networks.wine_cost,
        networks.wine,
        partial(networks.start, networks.WINE_SIZES),
    ),
}


def log_prior(weights: jax.Array) -> jax.Array:
    """The log-density of N(0, I), in nats."""
    return jnp.sum(jax.scipy.stats.norm.logpdf(weights))


def mean_and_scale(params: Params) -> tuple[jax.Array, jax.Array]:
    """The mean and the standard deviations of the posterior."""
    return params["mean"], jnp.exp(params["log_scale"])


def entropy(params: Params) -> jax.Array:
    """The entropy of the posterior, in nats."""
    return jnp.sum(params["log_scale"] + jnp.log(2 * jnp.pi * jnp.e) / 2)


def mirrored(params: Params, weights: jax.Array) -> jax.Array:
    """The mirror image of a draw at the mean."""
    return 2 * params["mean"] - weights


def inverse_cdf(params: Params, u: jax.Array) -> jax.Array:
    """The draw whose cdf is u, component by component."""
    mean, scale = mean_and_scale(params)
    return mean + scale * jax.scipy.special.ndtri(u)
