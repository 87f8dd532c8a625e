"""Variance and bias of a gradient estimator at fixed parameters, from independent repeats."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from scorefn.diagnostics._compare.gradients import (
    Batch,
    Components,
    computed_whole,
    directions,
)
from scorefn.diagnostics._compare.moments import Moments

Gradient = Callable[[Any, jax.Array], dict[str, jax.Array]]


def batch(
    gradient: Gradient, problem: Any, keys: jax.Array, *, at_once: int
) -> dict[str, jax.Array]:
    """Independent gradients, one for each key, [n, ...]; so many in one vmap.

    With one at a time each is computed whole, as in training: what does not depend on the key is
    computed again and again.
    """
    return gradients(gradient, problem, keys, 0.0, at_once=at_once)


@partial(jax.jit, static_argnames=("gradient", "at_once"))
def gradients(
    gradient: Gradient, problem: Any, keys: jax.Array, zero: jax.Array, *, at_once: int
) -> dict[str, jax.Array]:
    """The program of `batch`, where zero is 0."""
    run = partial(gradient, problem)

    def one(key: jax.Array) -> dict[str, jax.Array]:
        return computed_whole(run, zero, jax.eval_shape(run, key), key)

    return jax.lax.map(one, keys, batch_size=at_once if at_once > 1 else None)


@dataclass(frozen=True)
class Measurement:
    """The moments of one parameter's gradient.

    Attributes:
        mean: of the repeats, shaped like the gradient.
        variance: of ONE gradient, summed over its components: the mean squared distance to the
            exact mean, where that is known.
        variance_se: the standard error of `variance`.
        bias_z: (mean - exact) / standard error; of several components or directions the largest in
            absolute value, with its sign.
        repeats: how many gradients were measured.
    """

    mean: np.ndarray
    variance: float
    variance_se: float
    bias_z: float
    repeats: int

    def relative_bias(self, exact: np.ndarray) -> float:
        """The norm of the bias relative to the exact gradient, corrected for noise."""
        square = np.sum((self.mean - exact) ** 2) - self.variance / self.repeats
        return float(np.sqrt(max(square, 0.0) / np.sum(exact**2)))

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
    batches: int,
    size: int,
    at_once: int,
    expected: Mapping[str, Any] | None = None,
    biased: bool = False,
    magnitude: float = 0.0,
    projected: bool = False,
    exact_error: Mapping[str, Any] | None = None,
    long_run: bool = False,
) -> dict[str, Measurement]:
    """The measurement of each parameter.

    Args:
        gradient: ``gradient(problem, key)``, one estimate for each parameter; defined once, at the
            top of its module, so that it is compiled once.
        problem: a pytree; what is static in it is compiled for.
        key: one random key. It is consumed.
        exact: the exact gradient of each parameter.
        batches: the number of batches.
        size: independent gradients in each batch.
        at_once: how many of these in one vmap; 1 means one after the other.
        expected: the mean of the estimator, where it is biased and known.
        biased: whether it is biased, and its mean unknown.
        magnitude: of the largest term that is cancelled on the way to a gradient; float32 rounds
            by so much times 1e-6, which counts as error even where the variance is 0.
        projected: whether the bias is looked for along the exact gradient and a few random
            directions, not component by component: for gradients of which one component is so
            rarely far from 0 that its mean is not normal.
        exact_error: the standard error of `exact`, where that is the mean of a long run itself.
        long_run: whether `exact` holds the gradients of such a run themselves, [n, ...], since
            errors that go together matter along directions; the first half gives a direction, the
            other half what is exact: a mean is too large along itself. The variance is then around
            the mean of the repeats.
    """
    keys = jax.random.split(key, (batches, size))
    found = [batch(gradient, problem, chunk, at_once=at_once) for chunk in keys]
    return {
        name: measurement(
            np.concatenate([np.asarray(estimates[name]) for estimates in found]),
            np.asarray(exact[name], np.float64),
            None if biased or long_run else np.asarray((expected or exact)[name], np.float64),
            magnitude=magnitude,
            exact_error=0.0 if exact_error is None else exact_error[name],
            long_run=long_run,
            projected=projected,
        )
        for name in exact
    }


def measurement(
    estimates: np.ndarray,
    exact: np.ndarray,
    expected: np.ndarray | None,
    *,
    magnitude: float = 0.0,
    exact_error: ArrayLike = 0.0,
    long_run: bool = False,
    projected: bool = False,
) -> Measurement:
    """The measurement of estimates [n, ...], wherever they are from; see `measure`.

    ``expected`` is None where the mean of the estimator is unknown.
    """
    estimates, n = np.asarray(estimates, np.float64), len(estimates)
    toward, runs = exact, exact[None]
    if long_run:
        half = len(exact) // 2
        toward, runs = exact[:half].mean(axis=0), exact[half:]
        exact = runs.mean(axis=0)
    rounding = 8 * np.finfo(np.float32).eps * np.maximum(np.abs(exact), magnitude)
    center = estimates.mean(axis=0) if expected is None else expected
    errors = (estimates - center).reshape(n, -1)
    along = _directions(toward) if projected else np.eye(errors.shape[1])
    components = Components(np.zeros(errors.shape[1], np.float32), along)
    moments = Moments(components, ["gradient"])
    squares = np.sum(errors**2, axis=1)
    batch = Batch(np.ravel(center), errors.mean(axis=0), squares, errors @ along.T)
    moments.add([batch], known=expected is not None)
    beside = np.ravel(rounding**2 + np.asarray(exact_error, np.float64) ** 2)
    unsure = moments.along.covariance[:, 0, 0] / n + along**2 @ beside
    if long_run:
        unsure += (runs.reshape(len(runs), -1) @ along.T).var(axis=0, ddof=1) / len(runs)
    z = (moments.along.mean[:, 0] - components.project(np.ravel(exact))) / np.sqrt(unsure)
    variance = moments.distance.mean[0]
    # (d + r)^2 = d^2 + 2 d r + r^2: what rounding by r does to a squared distance d^2.
    noise = np.sum(rounding**2)
    rounded = 2 * np.sqrt(variance * noise) + noise
    return Measurement(
        mean=moments.mean[0].reshape(exact.shape),
        variance=float(variance),
        variance_se=float(np.sqrt(moments.distance.covariance[0, 0] / n + rounded**2)),
        bias_z=float(z[np.argmax(np.abs(z))]),
        repeats=n,
    )


def _directions(exact: np.ndarray) -> np.ndarray:
    """The exact gradient, and eight vectors of random signs, [9, d]."""
    return np.vstack([np.ravel(exact), directions(np.ravel(exact))])
