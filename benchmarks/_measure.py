"""Variance and bias of a gradient estimator at fixed parameters, from independent repeats."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import scorefn as sf

Gradient = Callable[[Any, jax.Array], dict[str, jax.Array]]


@dataclass(frozen=True)
class Measurement:
    """The moments of one parameter's gradient.

    Attributes:
        mean: of the repeats, shaped like the gradient.
        variance: of ONE gradient, summed over its components.
        variance_se: the standard error of `variance`.
        bias_z: (mean - exact) / standard error; of several components the largest in absolute
            value, with its sign.
    """

    mean: np.ndarray
    variance: float
    variance_se: float
    bias_z: float

    def columns(self, exact_variance: float | None = None) -> dict[str, float | None]:
        """The columns that every suite reports."""
        z = None
        if exact_variance is not None:
            z = (self.variance - exact_variance) / self.variance_se
        return {
            "variance": self.variance,
            "variance_se": self.variance_se,
            "exact_variance": exact_variance,
            "variance_z": z,
            "bias_z": self.bias_z,
        }


def measure(
    gradient: Gradient,
    problem: Any,
    key: jax.Array,
    exact: Mapping[str, Any],
    *,
    num_repeats: int,
    chunk_size: int,
    magnitude: float = 0.0,
) -> dict[str, Measurement]:
    """The measurement of each parameter.

    Args:
        gradient: ``gradient(problem, key)``, one estimate for each parameter; defined once, at the
            top of its module, so that it is compiled once.
        problem: a pytree; what is static in it is compiled for.
        key: one random key. It is consumed.
        exact: the exact gradient of each parameter.
        num_repeats: independent gradients.
        chunk_size: gradients at a time.
        magnitude: of the largest term that is cancelled on the way to a gradient; float32 rounds
            by so much times 1e-6, which counts as error even where the variance is 0.
    """
    centre = {name: jnp.asarray(value, jnp.float32) for name, value in exact.items()}
    means, variances, squares = _moments(gradient, problem, key, centre, num_repeats, chunk_size)
    found = {}
    for name in exact:
        value, mean, variance, square = (
            np.asarray(tree[name], np.float64) for tree in (exact, means, variances, squares)
        )
        rounding = 8 * np.finfo(np.float32).eps * np.maximum(np.abs(value), magnitude)
        z = (mean - value) / np.sqrt(variance / num_repeats + rounding**2)
        total, noise = float(np.sum(variance)), float(np.sum(rounding**2))
        # (d + r)^2 = d^2 + 2 d r + r^2: what rounding by r does to a squared deviation d^2.
        rounded = 2 * np.sqrt(total * noise) + noise
        found[name] = Measurement(
            mean=mean,
            variance=total,
            variance_se=float(np.sqrt(square / num_repeats + rounded**2)),
            bias_z=float(np.ravel(z)[np.argmax(np.abs(z))]),
        )
    return found


@partial(jax.jit, static_argnames=("gradient", "num_repeats", "chunk_size"))
def _moments(
    gradient: Gradient,
    problem: Any,
    key: jax.Array,
    centre: dict[str, jax.Array],
    num_repeats: int,
    chunk_size: int,
) -> tuple[Any, Any, Any]:
    """Mean and variance of each gradient, and variance of its squared distance to the centre."""

    def one(key: jax.Array) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        estimate = gradient(problem, key)
        distance = jax.tree.map(lambda g, c: jnp.sum(jnp.square(g - c)), estimate, centre)
        return estimate, distance

    keys = jax.random.split(key, num_repeats)
    (mean, _), (variance, spread), _ = sf.moments(one, keys, chunk_size=chunk_size)
    return mean, variance, spread
