"""Estimators that never differentiate f backwards: finite, smoothed and forward directions."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from .._arguments import check_number
from .._distribution import Distribution, stop
from .._guard import Reach, guard
from .._poison import first_order, poisoned
from .._score import zero_along
from ._estimator import Cost, Estimator, PyTree, Vmap

Direction = Callable[..., jax.Array]


@partial(jax.tree_util.register_dataclass, data_fields=["step"], meta_fields=[])
@dataclass(frozen=True)
class SPSA(Estimator):
    r"""BIASED by O(step^2): simultaneous perturbation, two evaluations of a black box f.

    .. code-block:: text

        d of independent random signs, shaped like the draw x
        term        (f(x + step d) + f(x - step d)) / 2
        derivative  (f(x + step d) - f(x - step d)) / (2 step) * d  along x

    Its mean is the derivative of f exactly if f is quadratic in x; the value is then off by
    ``step^2 trace(f'') / 2``. To first order; for any f. Two evaluations of f for each term,
    whatever the size of x. For a linear f of n parameters with gradient g the total variance is
    ``(n - 1) |g|^2``.

    It is meant for parameters, ``Deterministic(params)``. Any other distribution with a
    differentiable sampler will do: this is then `Pathwise` with df/dx estimated. In float32 the
    difference of two costs near c carries an error of 1e-7 c: no smaller a step than that bears.

    Attributes:
        step: above 0, in units of x. No derivative passes through it.

    Raises:
        TypeError: draws that are not floats; a second derivative is taken, or one with respect to
            a parameter that the draw depends on without a derivative.
        ValueError: a step that is not positive.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(params, key):
        ...     f, point = lambda p: jnp.round(p, 2).sum(), sf.Deterministic(params)
        ...     return sf.expectation(f, point, key, sf.SPSA(0.1), num_samples=8)
        >>> gradient = jax.jit(jax.grad(loss))(jnp.ones(3), jax.random.key(0))

    References:
        Spall, Multivariate stochastic approximation using a simultaneous perturbation gradient
        approximation (1992), equation 2.2.
    """

    step: float | jax.Array

    unbiased: ClassVar[bool] = False
    order: ClassVar[float] = 1
    evaluations: ClassVar[str] = "2"
    needs: ClassVar[str] = (
        "parameters, as scorefn.Deterministic, or a differentiable sampler; any f"
    )

    def __post_init__(self) -> None:
        check_number("step", self.step, above=0)

    def terms(
        self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
    ) -> tuple[PyTree, PyTree]:
        step = stop(jnp.asarray(self.step))
        draw = _draw(self, distribution, keys[0])
        return vmap(lambda key: _attached(*_pair(f, draw, jax.random.rademacher, step, key)))(keys)


@partial(jax.tree_util.register_dataclass, data_fields=["scale"], meta_fields=[])
@dataclass(frozen=True)
class EvolutionStrategies(Estimator):
    r"""Antithetic Gaussian smoothing: unbiased for the smoothed objective, not for f itself.

    .. code-block:: text

        e ~ Normal(0, 1), shaped like the draw x
        term        (f(x + scale e) + f(x - scale e)) / 2
        derivative  (f(x + scale e) - f(x - scale e)) / (2 scale) * e  along x

    Unbiased, value and derivative, for ``E f(x + scale e)``, which is smooth even where f jumps;
    for f itself the value is biased by O(scale^2), and so is the derivative unless f is quadratic.
    To first order; for any f. Two evaluations of f for each term. For a linear f of n parameters
    with gradient g the total variance is ``(n + 1) |g|^2``.

    It is meant for parameters, ``Deterministic(params)``; any distribution with a differentiable
    sampler will do. It is `ScoreFunction` on a Normal of that scale, with draws in opposite pairs.

    Attributes:
        scale: above 0, in units of x. It is part of the objective, and fixed: a derivative with
            respect to it raises.

    Raises:
        TypeError: draws that are not floats; a second derivative is taken, or one with respect to
            scale or to a parameter that the draw depends on without a derivative.
        ValueError: a scale that is not positive.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(params, key):
        ...     f, point = lambda p: jnp.sign(p).sum(), sf.Deterministic(params)
        ...     return sf.expectation(f, point, key, sf.EvolutionStrategies(0.1), num_samples=8)
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(0))

    References:
        Nesterov and Spokoiny, Random gradient-free minimization of convex functions (2017),
        equation 30; Salimans et al., Evolution strategies as a scalable alternative to
        reinforcement learning (2017), section 2.
    """

    scale: float | jax.Array

    unbiased: ClassVar[bool] = False
    order: ClassVar[float] = 1
    evaluations: ClassVar[str] = "2"
    needs: ClassVar[str] = (
        "parameters, as scorefn.Deterministic, or a differentiable sampler; any f"
    )

    def __post_init__(self) -> None:
        check_number("scale", self.scale, above=0)

    def terms(
        self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
    ) -> tuple[PyTree, PyTree]:
        scale = _fixed_scale(self, self.scale)
        draw = _draw(self, distribution, keys[0])
        return vmap(lambda key: _attached(*_pair(f, draw, jax.random.normal, scale, key)))(keys)


@partial(jax.tree_util.register_dataclass, data_fields=["scale"], meta_fields=[])
@dataclass(frozen=True)
class RankedEvolutionStrategies(Estimator):
    r"""BIASED on purpose: evolution strategies on the ranks of the costs, not on the costs.

    .. code-block:: text

        r the ranks of all 2 num_samples costs, scaled to [-1/2, 1/2], ties shared
        term        (f(x + scale e) + f(x - scale e)) / 2,  e ~ Normal(0, 1)
        derivative  (r(x + scale e) - r(x - scale e)) / (2 scale) * e  along x

    The derivative is not that of the value: it points downhill and forgets the size of f, so that
    outliers and units do not matter. Each scalar that f returns is ranked by itself. The value is
    that of `EvolutionStrategies`, as are cost, order and what it is meant for. All samples of a
    call are coupled. Derivatives with respect to what f closes over are the plain ones.

    Attributes:
        scale: above 0, in units of x; a derivative with respect to it raises.

    Raises:
        TypeError: as `EvolutionStrategies`.
        ValueError: a scale that is not positive.

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

    scale: float | jax.Array

    unbiased: ClassVar[bool] = False
    order: ClassVar[float] = 1
    evaluations: ClassVar[str] = "2, coupled"
    needs: ClassVar[str] = (
        "parameters, as scorefn.Deterministic, or a differentiable sampler; any f"
    )

    def __post_init__(self) -> None:
        check_number("scale", self.scale, above=0)

    def terms(
        self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
    ) -> tuple[PyTree, PyTree]:
        scale = _fixed_scale(self, self.scale)
        draw = _draw(self, distribution, keys[0])
        costs, slopes, aux = vmap(lambda key: _pair(f, draw, jax.random.normal, scale, key))(keys)

        def attach(pair: jax.Array) -> jax.Array:
            rank = _centred_ranks(stop(pair))
            slope = slopes.reshape(slopes.shape + (1,) * (pair.ndim - 2)).astype(pair.dtype)
            return (pair[:, 0] + pair[:, 1]) / 2 + (rank[:, 0] - rank[:, 1]) * slope

        return jax.tree.map(attach, costs), aux


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["direction"])
@dataclass(frozen=True)
class ForwardGradient(Estimator):
    r"""The derivative along one random direction, by forward mode: no backward pass through f.

    .. code-block:: text

        v random with mean 0 and covariance 1, shaped like the draw x
        term        f(x)
        derivative  (df/dx . v) v  along x

    Unbiased, to first order, if f has a forward derivative: it may hold a ``while_loop`` that
    reverse mode refuses, and no memory grows with its length. One evaluation of f and of its
    derivative for each term; for parameters the value of f is computed once for all. For n parameters and the gradient g the total variance of a
    deterministic f is ``(n - 1) |g|^2`` with signs and ``(n + 1) |g|^2`` with normal directions.

    It is meant for parameters, ``Deterministic(params)``; any distribution with a differentiable
    sampler will do: this is then `Pathwise` with df/dx estimated.

    Attributes:
        direction: ``direction(key, shape, dtype)``, independent numbers of mean 0 and variance 1:
            ``jax.random.rademacher`` (random signs, the default) or ``jax.random.normal``.

    Raises:
        TypeError: draws that are not floats, f returns integers; a second derivative is taken, or
            one with respect to a parameter that the draw depends on without a derivative.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(params, key):
        ...     f, point = lambda p: (p**2).sum(), sf.Deterministic(params)
        ...     return sf.expectation(f, point, key, sf.ForwardGradient(), num_samples=8)
        >>> gradient = jax.jit(jax.grad(loss))(jnp.ones(3), jax.random.key(0))

    References:
        Baydin et al., Gradients without backpropagation (2022), definition 1.
    """

    direction: Direction = jax.random.rademacher

    order: ClassVar[float] = 1
    evaluations: ClassVar[str] = "1 with a forward derivative"
    needs: ClassVar[str] = (
        "parameters, as scorefn.Deterministic, or a differentiable sampler; f differentiable, "
        "continuous"
    )
    differentiates_f: ClassVar[bool] = True

    def terms(
        self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
    ) -> tuple[PyTree, PyTree]:
        draw = _draw(self, distribution, keys[0])

        def one(key: jax.Array) -> tuple[PyTree, PyTree]:
            x, v = draw(key, self.direction)
            costs, slopes, aux = jax.jvp(f, (stop(x),), (v,), has_aux=True)
            zero = _zero_along(x, v)
            return jax.tree.map(lambda a, b: a + b * zero.astype(a.dtype), costs, slopes), aux

        return vmap(one)(keys)


def _draw(
    estimator: Estimator, distribution: Distribution, key: jax.Array
) -> Callable[[jax.Array, Direction], tuple[PyTree, PyTree]]:
    """From a key and a kind of direction to a draw, right to first order only, and a direction."""
    name = type(estimator).__name__
    shapes = jax.eval_shape(distribution.draw, key)
    for leaf in jax.tree.leaves(shapes):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"{name} perturbs every array of a draw, so that all must be floats, got "
                f"{leaf.dtype}{list(leaf.shape)} from {type(distribution.params).__name__}. Let f "
                f"close over what is not to be learned; ScoreFunction fits discrete draws."
            )
    draw = guard(
        distribution.draw,
        key,
        severed=_severed,
        message=partial(_message, name),
        root=distribution.params,
    )

    def draw_and_direction(key: jax.Array, direction: Direction) -> tuple[PyTree, PyTree]:
        draw_key, direction_key = jax.random.split(key)
        x = jax.tree.map(lambda leaf: first_order(leaf, name), draw(draw_key))
        leaves, structure = jax.tree.flatten(x)
        keys = jax.random.split(direction_key, max(len(leaves), 1))
        # The keys may be one too many: for a draw that holds no array at all.
        v = [direction(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=False)]
        return x, jax.tree.unflatten(structure, v)

    return draw_and_direction


def _pair(
    f: Cost, draw: Callable[..., Any], direction: Direction, step: jax.Array, key: jax.Array
) -> tuple[PyTree, jax.Array, PyTree]:
    """Two costs [2, ...], the slope that half their difference is multiplied by, two aux."""
    x, v = draw(key, direction)

    def both(x: jax.Array, v: jax.Array) -> jax.Array:
        return stop(x) + step.astype(x.dtype) * jnp.stack([v, -v])

    costs, aux = jax.vmap(f)(jax.tree.map(both, x, v))
    zero = _zero_along(x, v)
    return costs, zero / (2 * step.astype(zero.dtype)), aux


def _attached(costs: PyTree, slope: jax.Array, aux: PyTree) -> tuple[PyTree, PyTree]:
    def attach(cost: jax.Array) -> jax.Array:
        return (cost[0] + cost[1]) / 2 + (cost[0] - cost[1]) * slope.astype(cost.dtype)

    return jax.tree.map(attach, costs), aux


def _zero_along(x: PyTree, v: PyTree) -> jax.Array:
    zeros = jax.tree.map(zero_along, x, v)
    return jax.tree.reduce(jnp.add, zeros, jnp.zeros(()))


def _centred_ranks(pairs: jax.Array) -> jax.Array:
    """The ranks of costs [n, 2, ...] over the first two axes, between -1/2 and 1/2."""
    flat = pairs.reshape(-1, *pairs.shape[2:])
    # Ties share their mean rank: a pair of equal costs has no slope.
    rank = jax.scipy.stats.rankdata(flat, axis=0).astype(pairs.dtype)
    return ((rank - 1) / (len(flat) - 1) - 0.5).reshape(pairs.shape)


def _fixed_scale(estimator: Estimator, scale: float | jax.Array) -> jax.Array:
    name = type(estimator).__name__
    return poisoned(
        jnp.asarray(scale),
        f"{name} does not differentiate with respect to its scale: its gradient would silently be "
        f"wrong. To learn the scale use ScoreFunction on a Normal of that scale.",
    )


def _severed(reaches: list[Reach]) -> list[bool]:
    # As for Pathwise: leaf by leaf of the draw.
    return [
        any(v and not d for v, d in zip(reach.by_value, reach.by_derivative, strict=True))
        for reach in reaches
    ]


def _message(name: str, leaf: str) -> str:
    return (
        f"{name} cannot differentiate with respect to {leaf}: the draw depends on it through an "
        f"operation without derivative (a discrete choice, rounding, stop_gradient), so that its "
        f"gradient would silently be wrong. Use ScoreFunction; if it is not meant to be learned, "
        f"wrap it in jax.lax.stop_gradient."
    )
