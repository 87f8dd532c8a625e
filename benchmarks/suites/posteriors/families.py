"""Gaussian approximations of a posterior: independent components, or a full covariance."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import scorefn as sf

Params = dict[str, jax.Array]


@dataclass(frozen=True)
class Family:
    """A family of Gaussians.

    Attributes:
        start: ``start(size)``, the parameters before training.
        posterior: ``posterior(params)``.
    """

    start: Callable[[int], Params]
    posterior: Callable[[Any], sf.Distribution]


# Of the scales, before training.
START = -2.0
MEAN_FIELD, FULL = "mean-field", "full covariance"


def _normal(params: Params, z: jax.Array) -> jax.Array:
    return jnp.sum(jax.scipy.stats.norm.logpdf(z, params["mean"], jnp.exp(params["log_scale"])))


def _normal_draw(params: Params, key: jax.Array) -> jax.Array:
    noise = jax.random.normal(key, params["mean"].shape)
    return params["mean"] + jnp.exp(params["log_scale"]) * noise


def _unit_root(params: Params) -> jax.Array:
    return jnp.tril(params["below"], -1) + jnp.eye(len(params["mean"]))


def _full(params: Params, z: jax.Array) -> jax.Array:
    # The inverse is computed once for all draws; a triangular system for each is far slower.
    root = _unit_root(params)
    inverse = jax.scipy.linalg.solve_triangular(
        root, jnp.eye(len(root)), lower=True, unit_diagonal=True
    )
    noise = inverse @ ((z - params["mean"]) / jnp.exp(params["log_scale"]))
    return jnp.sum(jax.scipy.stats.norm.logpdf(noise) - params["log_scale"])


def _full_draw(params: Params, key: jax.Array) -> jax.Array:
    noise = _unit_root(params) @ jax.random.normal(key, params["mean"].shape)
    return params["mean"] + jnp.exp(params["log_scale"]) * noise


FAMILIES: Mapping[str, Family] = {
    MEAN_FIELD: Family(
        lambda size: {"mean": jnp.zeros(size), "log_scale": jnp.full(size, START)},
        lambda params: sf.Distribution(_normal, _normal_draw, params),
    ),
    # The root of the covariance has the scales for its diagonal.
    FULL: Family(
        lambda size: {
            "mean": jnp.zeros(size),
            "log_scale": jnp.full(size, START),
            "below": jnp.zeros((size, size)),
        },
        lambda params: sf.Distribution(_full, _full_draw, params),
    ),
}
