"""Implicit reparameterization: derivatives of draws from their distribution function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp, ndtr
from jax.scipy.stats import norm

from scorefn._core.arrays import merged, picked, stop, wide
from scorefn._core.derivatives import Arrays, Moving, with_jvp
from scorefn._core.pytree import pytree_dataclass
from scorefn._core.types import PyTree


def implicit_reparameterization(
    cdf: Callable[[PyTree, jax.Array], jax.Array],
    log_prob: Callable[[PyTree, jax.Array], jax.Array],
    params: PyTree,
    x: jax.Array,
) -> jax.Array:
    r"""The draw, unchanged, with the derivative that keeps ``cdf(params, x)`` constant.

    .. code-block:: text

        value       x
        derivative  -(d cdf(params, x) / dparams) / p(x) * dparams,  p = exp(log_prob)

    and so on at every order, in forward and in reverse mode: x is the quantile of its level. The
    sampler may be any, for example rejection or a discrete choice of components. In the `sample` of
    a `Distribution` it lets `Pathwise` differentiate with respect to all of params.

    Args:
        cdf: ``cdf(params, x)``, the distribution function, elementwise and shaped like x. A
            constant that does not depend on params may be added.
        log_prob: ``log_prob(params, x)``, the log-density of each element, in nats, normalized.
        params: any pytree; differentiated parameters may also be closed over.
        x: continuous draws, of any shape, each element separate. Derivatives of the sampler itself
            are stopped.

    Returns:
        x, bit for bit.

    Raises:
        TypeError: x is not a float array.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def cdf(rate, x): return -jnp.expm1(-rate * x)
        >>> def log_prob(rate, x): return jnp.log(rate) - rate * x
        >>> draw = lambda rate: implicit_reparameterization(cdf, log_prob, rate, jnp.array(3.0))
        >>> print(f"{draw(2.0)} {jax.grad(draw)(2.0):.3f}")
        3.0 -1.500

    References:
        Figurnov, Mohamed and Mnih, Implicit reparameterization gradients (2018), equation 5.
    """
    x = stop(jnp.asarray(x))
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"implicit_reparameterization needs continuous draws, got x of {x.dtype}; a discrete "
            f"draw has no derivative. Use ScoreFunction, or GO for ordered values."
        )

    def both(params: PyTree, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        level, density = cdf(params, x), log_prob(params, x)
        for name, value in (("cdf", level), ("log_prob", density)):
            if jnp.shape(value) != x.shape:
                raise ValueError(
                    f"{name} must be of the shape of x, {x.shape}, one value for each element; "
                    f"got {jnp.shape(value)}."
                )
        return level, density

    jaxpr = jax.make_jaxpr(both)(params, x)
    closed_over = len(jaxpr.consts)

    def draw(*arrays: jax.Array) -> list[jax.Array]:
        return [arrays[-1]]

    def derivative(moving: Moving, arrays: Arrays, tangents: Arrays) -> Any:
        # The rule uses the draw instead of x, so that it can be differentiated again.
        moved = with_jvp(draw, derivative)(*arrays)[0]
        # The draw does not depend on x itself.
        tangents = tangents[:-1] if moving[-1] else tangents
        some = picked(arrays[:-1], moving[:-1])

        def level_and_log_density(*some: jax.Array) -> list[jax.Array]:
            given = merged(arrays[:-1], moving[:-1], some)
            constants, leaves = given[:closed_over], given[closed_over:]
            return jax.core.eval_jaxpr(jaxpr.jaxpr, constants, *leaves, moved)

        (_, density), (change, _) = jax.jvp(level_and_log_density, tuple(some), tuple(tangents))
        # In tails where the density underflows, the change underflows too.
        density = jnp.maximum(density, jnp.log(jnp.finfo(density.dtype).tiny))
        return [moved], [(-change * jnp.exp(-density)).astype(moved.dtype)]

    return with_jvp(draw, derivative)(*jaxpr.consts, *jax.tree.leaves(params), x)[0]


@pytree_dataclass
class NormalMixture:
    r"""Independent mixtures of Normals, with draws differentiable in all parameters.

    Draws carry the implicit derivative (the distributional transform), so that `Pathwise` also
    learns the weights of the components. Right at every order.

    Attributes:
        logits: [..., K], the logits of the components, normalized or not, in nats; a draw has shape
            [...].
        loc: [..., K], the means.
        scale: [..., K], the standard deviations, positive.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     mixture = sf.NormalMixture(logits, jnp.array([-1.0, 1.0]), jnp.ones(2))
        ...     return sf.expectation(jnp.square, mixture, key, sf.Pathwise())
        >>> gradient = jax.grad(loss)(jnp.zeros(2), jax.random.key(0))

    References:
        Graves, Stochastic backpropagation through mixture density distributions (2016);
        Figurnov, Mohamed and Mnih, Implicit reparameterization gradients (2018), section 3.
    """

    logits: jax.Array
    loc: jax.Array
    scale: jax.Array

    def log_prob(self, x: jax.Array) -> jax.Array:
        """The log-density of one draw: a scalar, summed over the factors."""
        return jnp.sum(_mixture_log_prob(self._params(), jnp.asarray(x))).astype(self._dtype())

    def sample(self, key: jax.Array) -> jax.Array:
        """One draw, [...], with its implicit derivative. The key is consumed."""
        params = self._params()
        logits, loc, scale = stop(params)
        key_component, key_noise = jax.random.split(key)
        component = jax.random.categorical(key_component, logits)[..., None]
        mean, deviation = (
            jnp.take_along_axis(array, component, axis=-1)[..., 0] for array in (loc, scale)
        )
        x = mean + deviation * jax.random.normal(key_noise, mean.shape, mean.dtype)
        draw = implicit_reparameterization(_mixture_level, _mixture_log_prob, params, x)
        return draw.astype(self._dtype())

    def _params(self) -> tuple[jax.Array, ...]:
        # The distribution function of a Normal needs 32 bits.
        dtype = wide(self._dtype())
        arrays = [jnp.asarray(array, dtype) for array in (self.logits, self.loc, self.scale)]
        return tuple(jnp.broadcast_arrays(*arrays))

    def _dtype(self) -> jnp.dtype:
        dtype = jnp.result_type(self.logits, self.loc, self.scale)
        return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)


def _mixture_log_prob(params: tuple[jax.Array, ...], x: jax.Array) -> jax.Array:
    logits, loc, scale = params
    log_weights = jax.nn.log_softmax(logits)
    return logsumexp(log_weights + norm.logpdf(x[..., None].astype(loc.dtype), loc, scale), axis=-1)


def _mixture_level(params: tuple[jax.Array, ...], x: jax.Array) -> jax.Array:
    """The distribution function, minus 1 above the mean, which is accurate in both tails."""
    logits, loc, scale = params
    weights = jax.nn.softmax(logits)
    x = x[..., None]
    z = (x - loc) / scale
    mean = jnp.sum(weights * loc, axis=-1, keepdims=True)
    above = jax.lax.stop_gradient(x > mean)
    return jnp.sum(weights * jnp.where(above, -ndtr(-z), ndtr(z)), axis=-1)
