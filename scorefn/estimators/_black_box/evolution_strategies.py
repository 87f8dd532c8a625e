"""Evolution strategies: gradients of a black box smoothed by Gaussian noise."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import gathered, stop
from scorefn._core.checks import check_number
from scorefn._core.pytree import pytree_dataclass
from scorefn._core.refusals import nondifferentiable
from scorefn._core.types import Cost, Terms, Vmap
from scorefn.distributions._distribution import Distribution

from .directions import DirectionalDifference, attached, pair_of_costs, perturbable


@pytree_dataclass
class _Evolution(DirectionalDifference):
    scale: float | jax.Array

    def __post_init__(self) -> None:
        check_number("scale", self.scale, above=0)

    def fixed_scale(self) -> jax.Array:
        """The scale, which raises if it is differentiated."""
        return nondifferentiable(
            jnp.asarray(self.scale),
            f"{type(self).__name__} does not differentiate with respect to its scale: the gradient "
            f"would silently be wrong. To learn the scale, use ScoreFunction on a Normal of that "
            f"scale.",
        )


@pytree_dataclass
class EvolutionStrategies(_Evolution):
    r"""BIASED for f, unbiased for its Gaussian smoothing: antithetic evolution strategies.

    .. code-block:: text

        e ~ Normal(0, 1), shaped like the draw x
        term        (f(x + scale e) + f(x - scale e)) / 2
        derivative  (f(x + scale e) - f(x - scale e)) / (2 scale) * e  along x

    Value and derivative are unbiased for ``E f(x + scale e)``, which is smooth even if f jumps. For
    f itself the value is biased by O(scale^2), and so is the derivative unless f is quadratic. To
    first order; for any f. Two evaluations of f for each term. For a linear f of n parameters with
    gradient g the total variance is ``(n + 1) |g|^2``.

    It is meant for parameters, ``Deterministic(params)``; any distribution with a differentiable
    sampler works. It equals `ScoreFunction` on a Normal of this scale with antithetic draws.

    Attributes:
        scale: above 0, in units of x. It is part of the objective, and fixed: a derivative with
            respect to it raises.

    Raises:
        TypeError: draws are not floats; a second derivative is taken, or one with respect to scale
            or to a parameter on which the draw depends without a derivative.
        ValueError: the scale is not positive.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(params, key):
        ...     f, point = lambda p: jnp.sign(p).sum(), sf.Deterministic(params)
        ...     return sf.expectation(f, point, key, sf.EvolutionStrategies(0.1), num_samples=8)
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(0))

    References:
        Nesterov and Spokoiny, Random gradient-free minimization of convex functions (2017);
        Salimans et al., Evolution strategies as a scalable alternative to
        reinforcement learning (2017), section 2.
    """

    when: ClassVar[str] = "a black box of many parameters, with jumps"

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        scale = self.fixed_scale()
        draw = perturbable(self, distribution, keys)
        return vmap(lambda key: attached(*pair_of_costs(f, draw, jax.random.normal, scale, key)))(
            keys
        )


@pytree_dataclass
class RankedEvolutionStrategies(_Evolution):
    r"""BIASED: evolution strategies on the ranks of the costs instead of the costs.

    .. code-block:: text

        r the ranks of all 2 num_samples costs, scaled to [-1/2, 1/2], with ties averaged
        term        (f(x + scale e) + f(x - scale e)) / 2,  e ~ Normal(0, 1)
        derivative  (r(x + scale e) - r(x - scale e)) / (2 scale) * e  along x

    The derivative is not that of the value. It depends on the order of the costs and not on their
    size, so outliers and units do not matter. Each output of f is ranked separately. Value, cost,
    order and use are those of `EvolutionStrategies`. All samples of a call are coupled. Derivatives
    with respect to parameters that f closes over are not affected.

    Attributes:
        scale: above 0, in units of x; a derivative with respect to it raises.

    Raises:
        TypeError: as `EvolutionStrategies`.
        ValueError: the scale is not positive.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(params, key):
        ...     f, point = lambda p: jnp.exp(9 * p).sum(), sf.Deterministic(params)
        ...     estimator = sf.RankedEvolutionStrategies(0.1)
        ...     return sf.expectation(f, point, key, estimator, num_samples=8)
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(0))

    References:
        Wierstra et al., Natural evolution strategies (2014), section 3.1; Salimans et al.,
        Evolution strategies as a scalable alternative to reinforcement learning (2017),
        section 2.1.
    """

    coupled: ClassVar[bool] = True
    when: ClassVar[str] = "a black box with outliers"

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        scale = self.fixed_scale()
        draw = perturbable(self, distribution, keys)
        costs, slopes, aux = vmap(
            lambda key: pair_of_costs(f, draw, jax.random.normal, scale, key)
        )(keys)

        def attach(pair: jax.Array) -> jax.Array:
            rank = _centered_ranks(gathered(stop(pair), 0))
            slope = slopes.reshape(slopes.shape + (1,) * (pair.ndim - 2)).astype(pair.dtype)
            return (pair[:, 0] + pair[:, 1]) / 2 + (rank[:, 0] - rank[:, 1]) * slope

        return jax.tree.map(attach, costs), aux


def _centered_ranks(pairs: jax.Array) -> jax.Array:
    """The ranks of costs over the first two axes, scaled to [-1/2, 1/2]."""
    flat = pairs.reshape(-1, *pairs.shape[2:])
    # Ties get their mean rank, so a pair of equal costs has slope 0.
    rank = jax.scipy.stats.rankdata(flat, axis=0).astype(pairs.dtype)
    return ((rank - 1) / (len(flat) - 1) - 0.5).reshape(pairs.shape)
