"""Baselines that remember the costs of earlier calls: their state is updated after use."""

from collections.abc import Callable
from dataclasses import field, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ._baselines import Baseline, repeated
from ._distribution import stop
from ._record import record
from ._score import leave_one_out

PyTree = Any


@record()
class MovingAverage(Baseline):
    """The exponentially weighted mean of the costs of earlier calls.

    Unbiased, because only earlier calls count: `update` comes after use and returns a new value.
    Raw sums are kept and divided on reading, so the average of a constant is that constant from
    the first update on; before it, the baseline is 0.

    Attributes:
        decay: how much of the past is kept at each update, in [0, 1).
        total: the decayed sum of mean costs: a scalar, or zeros shaped like what f returns.
        weight_sum: the decayed sum of the weights.

    Example:
        >>> import jax.numpy as jnp
        >>> baseline = MovingAverage(0.9).update(jnp.array([1.0, 5.0]))
        >>> print(baseline(jnp.array([7.0])))
        [3.]

    References:
        Williams, Simple statistical gradient-following algorithms (1992), section 8.
    """

    decay: float | jax.Array = 0.99
    total: PyTree = field(default_factory=lambda: jnp.zeros(()))
    weight_sum: jax.Array = field(default_factory=lambda: jnp.zeros(()))

    coupled: ClassVar[bool] = False

    def __call__(self, costs: PyTree, weights: PyTree = None) -> PyTree:
        del weights
        started = self.weight_sum > 0
        weight = jnp.where(started, self.weight_sum, 1)
        average = jax.tree.map(lambda total: total / weight.astype(total.dtype), self.total)
        return repeated(average, costs, "MovingAverage.total")

    def update(self, costs: PyTree) -> "MovingAverage":
        """The average after these costs, [n, ...] or without the sample axis; stopped."""

        def step(total: jax.Array, cost: jax.Array) -> jax.Array:
            cost = stop(jnp.asarray(cost))
            if cost.shape[cost.ndim - total.ndim :] != total.shape or cost.ndim > total.ndim + 1:
                raise ValueError(
                    f"costs have shape {cost.shape}; MovingAverage keeps an average of shape "
                    f"{total.shape} and takes costs of that shape, with or without a leading "
                    f"sample axis. Start it with total=jnp.zeros(shape of what f returns)."
                )
            mean = jnp.mean(cost, axis=tuple(range(cost.ndim - total.ndim)))
            return self.decay * total + (1 - self.decay) * mean.astype(total.dtype)

        total = jax.tree.map(step, self.total, costs)
        return replace(
            self, total=total, weight_sum=self.decay * self.weight_sum + (1 - self.decay)
        )


@record()
class ShrunkLeaveOneOut(Baseline):
    """The mean cost of the other samples, drawn towards 0 by as much as it is noise.

    .. code-block:: text

        baseline    c mean of the other costs,  c = m^2 / (m^2 + v / (n - 1))

    where m and v are the mean and the variance of the costs of earlier calls: `update` comes after
    use and returns a new value. With few samples `LeaveOneOut` is so noisy that it can lose to no
    baseline at all where E f is near 0: then c is small, and elsewhere near 1. Unbiased, because no
    sample sees its own cost and c was made before. Needs at least 2 samples. Before the first
    update c is 1.

    For a score component h and g = E[f h], the c of least variance is ``m E[f h^2] / ((m^2 +
    v / (n - 1)) E[h^2] + g^2 / (n - 1))``; the one used is that of f and h^2 uncorrelated, g = 0.

    Attributes:
        decay: how much of the past is kept at each update, in [0, 1).
        mean_sum: the decayed sum of mean costs: a scalar, or zeros shaped like what f returns.
        variance_sum: the decayed sum of variances of a cost, shaped alike.
        weight_sum: the decayed sum of the weights.

    Example:
        >>> import jax.numpy as jnp
        >>> baseline = ShrunkLeaveOneOut().update(jnp.array([1.0, 5.0]))
        >>> print(jnp.round(100 * baseline(jnp.array([1.0, 5.0]))))
        [265.  53.]

    References:
        Kool, van Hoof and Welling, Buy 4 REINFORCE samples, get a baseline for free (2019); James
        and Stein, Estimation with quadratic loss (1961).
    """

    decay: float | jax.Array = 0.99
    mean_sum: PyTree = field(default_factory=lambda: jnp.zeros(()))
    variance_sum: PyTree = field(default_factory=lambda: jnp.zeros(()))
    weight_sum: jax.Array = field(default_factory=lambda: jnp.zeros(()))

    min_samples: ClassVar[int] = 2

    def __call__(self, costs: PyTree, weights: PyTree = None) -> PyTree:
        del weights
        n = len(jax.tree.leaves(costs)[0])
        started = self.weight_sum > 0
        weight = jnp.where(started, self.weight_sum, 1)

        def share(mean_sum: jax.Array, variance_sum: jax.Array) -> jax.Array:
            square = jnp.square(mean_sum / weight.astype(mean_sum.dtype))
            noise = variance_sum / weight.astype(variance_sum.dtype) / (n - 1)
            known = started & (square + noise > 0)
            return jnp.where(known, square / jnp.where(known, square + noise, 1), 1)

        shares = jax.tree.map(share, self.mean_sum, self.variance_sum)
        shares = repeated(shares, costs, "ShrunkLeaveOneOut.mean_sum")
        return jax.tree.map(lambda share, cost: share * leave_one_out(cost), shares, costs)

    def update(self, costs: PyTree) -> "ShrunkLeaveOneOut":
        """The same after these costs, [n, ...], n >= 2; stopped."""

        def kept(total: jax.Array, cost: jax.Array, moment: Callable[..., jax.Array]) -> jax.Array:
            cost = stop(jnp.asarray(cost))
            if cost.ndim != total.ndim + 1 or cost.shape[1:] != total.shape or len(cost) < 2:
                raise ValueError(
                    f"costs have shape {cost.shape}; ShrunkLeaveOneOut keeps moments of shape "
                    f"{total.shape} and takes costs of that shape with a leading sample axis, 2 "
                    f"samples at least. Start it with zeros of the shape of what f returns."
                )
            return self.decay * total + (1 - self.decay) * moment(cost).astype(total.dtype)

        mean, variance = partial(jnp.mean, axis=0), partial(jnp.var, axis=0, ddof=1)
        return replace(
            self,
            mean_sum=jax.tree.map(partial(kept, moment=mean), self.mean_sum, costs),
            variance_sum=jax.tree.map(partial(kept, moment=variance), self.variance_sum, costs),
            weight_sum=self.decay * self.weight_sum + (1 - self.decay),
        )
