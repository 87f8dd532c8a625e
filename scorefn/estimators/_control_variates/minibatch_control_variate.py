"""A control variate for the noise of draws and minibatches, from stored quadratics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import abstract_key, stop
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.renamed import renamed_keyword
from scorefn._core.types import Cost, Terms, Vmap
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._interop.moments import Moments, read_moments
from scorefn.estimators._base import Estimator, Transformation

from .control_variate import ControlVariate


@pytree_dataclass
class DatumSurrogates:
    """Quadratic approximations ``slope . x + curvature . x^2 / 2`` of the cost of each datum.

    An immutable state that a training loop carries like an optimizer state. The constants of the
    quadratics have no effect and are not stored.

    Attributes:
        slope: [N, ...], for N data and draws [...].
        curvature: [N, ...], the diagonals of second derivatives.
        slope_sum: [...], the sum of the slopes of all data.
        curvature_sum: [...], the sum of the curvatures of all data.

    Example:
        >>> import jax.numpy as jnp, scorefn as sf
        >>> data = jnp.array([1.0, 3.0])
        >>> costs = lambda x: (x[0] - data) ** 2
        >>> stored = sf.DatumSurrogates.zeros(2, (1,)).refresh(
        ...     costs, jnp.zeros(1), batch=jnp.array([0, 1]))
        >>> print(stored.slope[:, 0], stored.curvature_sum)
        [-2. -6.] [4.]
    """

    slope: jax.Array
    curvature: jax.Array
    slope_sum: jax.Array
    curvature_sum: jax.Array

    @classmethod
    def zeros(cls, num_data: int, shape: tuple[int, ...]) -> DatumSurrogates:
        """Surrogates that are 0 for every datum, for draws of the given shape."""
        return cls(*[jnp.zeros((num_data, *shape))] * 2, *[jnp.zeros(shape)] * 2)

    @renamed_keyword("centre", "center")
    def refresh(
        self,
        costs: Callable[[jax.Array], jax.Array],
        center: jax.Array,
        batch: jax.Array,
        *,
        degree: int = 2,
    ) -> DatumSurrogates:
        """The surrogates with new Taylor expansions for the data of a minibatch.

        One gradient of each cost and, for degree 2, one of its second derivatives for each
        component of a draw, computed one after the other.

        Args:
            costs: ``costs(x)``, [B], the cost of each datum of the minibatch.
            center: the expansion point, shaped like a draw: best the mean of the distribution.
            batch: [B], the indices of the data, from 0 to N - 1; an index may occur twice.
            degree: 2, or 1 for no second derivatives, with curvature 0.
        """
        center = stop(jnp.asarray(center, self.slope.dtype))
        slopes = jax.jacrev(costs)
        curvature = jnp.zeros((len(batch), *center.shape), center.dtype)
        if degree == 2:
            basis = jnp.eye(center.size, dtype=center.dtype).reshape(-1, *center.shape)

            def second(v: jax.Array) -> jax.Array:
                along = jax.jvp(slopes, (center,), (v,))[1]
                return jnp.sum(along * v, axis=range(1, along.ndim))

            curvature = jax.lax.map(second, basis).T.reshape(curvature.shape)
        # Stored as expansions around 0, so that sums over data need no centers.
        slope = slopes(center) - curvature * center
        once = _first_occurrences(batch).reshape(-1, *[1] * center.ndim)

        def total(old: jax.Array, table: jax.Array, new: jax.Array) -> jax.Array:
            return old + jnp.sum(jnp.where(once, new - table[batch], 0), axis=0)

        return DatumSurrogates(
            self.slope.at[batch].set(slope),
            self.curvature.at[batch].set(curvature),
            total(self.slope_sum, self.slope, slope),
            total(self.curvature_sum, self.curvature, curvature),
        )

    def resummed(self) -> DatumSurrogates:
        """The surrogates with recomputed sums, which removes rounding errors accumulated so far."""
        sums = jnp.sum(self.slope, axis=0), jnp.sum(self.curvature, axis=0)
        return replace(self, slope_sum=sums[0], curvature_sum=sums[1])


@pytree_dataclass
class MinibatchControlVariate(Transformation):
    r"""Any estimator, with a control variate for the noise of draws and minibatches.

    .. code-block:: text

        f(x)        N / B times the cost of the B data of a minibatch
        h(x)        N / B times the sum of their quadratics at x
        E h         over draws and minibatches: the sum of the means of ALL quadratics
        term        the estimator's term for f - c h, plus c E h

    Unbiased for the cost of all N data, at the orders of the wrapped estimator, if minibatches are
    drawn uniformly, with or without replacement, and independently of the stored quadratics:
    refresh these after use. Given one minibatch, the mean is NOT that of the minibatch cost; it is
    right only on average over minibatches. A control variate for draws leaves the noise of the
    minibatches, and one for minibatches (SAGA, SVRG) leaves the noise of the draws; this one
    reduces both. Costs the evaluations of the wrapped estimator, and B quadratics once.

    Attributes:
        estimator: the wrapped estimator.
        surrogates: a `DatumSurrogates`.
        batch: [B], the indices of the data in f.
        coefficient: c, a number; a leaf, which `squared_gradient` learns.
        moments: as for `DeltaMethod`.

    Raises:
        TypeError: the estimator is not an instance of one; a draw is not one array of floats; the
            moments cannot be read.
        ValueError: the surrogates do not fit a draw; batch does not have the shape [B].

    Example:
        >>> import distrax, jax, jax.numpy as jnp, scorefn as sf
        >>> data = jnp.linspace(-1.0, 3.0, 100)
        >>> costs = lambda x, batch: jnp.logaddexp(0.0, x[0] - data[batch])
        >>> def step(state, key):
        ...     mean, stored = state
        ...     draw_key, batch_key = jax.random.split(key)
        ...     batch = jax.random.randint(batch_key, (10,), 0, 100)
        ...     def loss(mean):
        ...         estimator = sf.MinibatchControlVariate(sf.Pathwise(), stored, batch)
        ...         f = lambda x: 10 * jnp.sum(costs(x, batch))
        ...         return sf.expectation(f, distrax.Normal(mean, 0.5), draw_key, estimator)
        ...     moved = mean - 1e-3 * jax.grad(loss)(mean)
        ...     return (moved, stored.refresh(lambda x: costs(x, batch), mean, batch)), None
        >>> state = jnp.zeros(1), sf.DatumSurrogates.zeros(100, (1,))
        >>> state, _ = jax.lax.scan(step, state, jax.random.split(jax.random.key(0), 50))

    References:
        Wang, Geffner and Domke, Joint control variate for faster black-box variational inference
        (2024), equations 11 and 12; Defazio, Bach and Lacoste-Julien, SAGA (2014).
    """

    estimator: Estimator
    surrogates: DatumSurrogates
    batch: jax.Array
    coefficient: float | jax.Array = 1.0
    moments: Callable[[Any], Moments] | None = static_field(default=None, kw_only=True, repr=False)

    evaluations: ClassVar[str] = "as the wrapped estimator"
    when: ClassVar[str] = "minibatches of data that are visited many times"
    needs: ClassVar[str] = "mean and covariance of the draws; a stored quadratic for each datum"

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        name = "MinibatchControlVariate"
        mean, scale = read_moments(name, self.moments, distribution, abstract_key(keys))
        stored = self.surrogates
        if stored.slope.shape[1:] != mean.shape or jnp.ndim(self.batch) != 1:
            raise ValueError(
                f"{name} needs surrogates [N, ...] of draws {mean.shape} and a batch [B], got "
                f"{stored.slope.shape} and {jnp.shape(self.batch)}."
            )
        weight = len(stored.slope) / len(self.batch)
        chosen = (jnp.sum(x[self.batch], axis=0) for x in (stored.slope, stored.curvature))
        slope, curvature = (weight * x.astype(mean.dtype) for x in chosen)
        variance = jnp.square(scale)
        variance = variance if scale.shape == mean.shape else jnp.sum(variance, axis=1)

        def of_batch(x: jax.Array) -> jax.Array:
            return jnp.sum(slope * x + curvature * jnp.square(x) / 2)

        def of_all(_: Any) -> jax.Array:
            slope, curvature = (
                x.astype(mean.dtype) for x in (stored.slope_sum, stored.curvature_sum)
            )
            return jnp.sum(slope * mean + curvature * (jnp.square(mean) + variance) / 2)

        controlled = ControlVariate(self.estimator, of_batch, of_all, self.coefficient)
        return controlled.terms(f, distribution, keys, vmap)


def _first_occurrences(batch: jax.Array) -> jax.Array:
    """Whether each index occurs for the first time in the batch, [B]."""
    order = jnp.argsort(batch)
    ordered = batch[order]
    new = jnp.append(True, ordered[1:] != ordered[:-1])
    return jnp.zeros(len(batch), bool).at[order].set(new)
