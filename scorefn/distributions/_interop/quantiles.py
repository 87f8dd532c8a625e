"""The inverse cdf of a distribution, given by the user or read from its library."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logit

from scorefn._core.arrays import stop, wide
from scorefn._core.refusals import nondifferentiable
from scorefn.distributions._discrete import Bernoulli
from scorefn.distributions._distribution import Distribution, is_object
from scorefn.distributions._implicit import implicit_reparameterization
from scorefn.distributions._integer_icdf import words_at

from .classes import MULTIVARIATE_NORMALS, class_of, unwrapped
from .factors import read_factors
from .location_scale import location_scale
from .moments import read_moments

InverseCdf = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Quantile:
    """A map from uniform numbers to a draw.

    Attributes:
        size: the number of uniform numbers of one draw.
        dtype: the dtype of the uniform numbers.
        draw: ``draw(params, u)``, with u [size], in (0, 1).
    """

    size: int
    dtype: Any
    draw: Callable[[Any, jax.Array], Any]


def read_quantile(
    name: str, icdf: InverseCdf | None, distribution: Distribution, key: jax.Array
) -> Quantile:
    """The quantile function of a draw. The key is an example: nothing is drawn with it.

    Raises:
        TypeError: no inverse cdf is given, and none is known for the distribution.
        ValueError: the result of icdf does not fit a draw.
    """
    draw = jax.eval_shape(distribution.draw, key)
    leaves = jax.tree.leaves(draw)
    dtype = wide(*(leaf.dtype for leaf in leaves))
    if icdf is not None:
        size = sum(math.prod(leaf.shape) for leaf in leaves)
        return Quantile(size, dtype, _given(name, icdf, draw))
    read = _read(distribution, draw, key)
    if read is None:
        kind = type(distribution.params).__name__
        raise TypeError(
            f"{name} knows no inverse cdf of {kind if is_object(distribution) else 'your own'} "
            f"draws; give it as icdf=lambda params, u: ..., with u uniform on (0, 1) and shaped "
            f"like a draw."
        )
    shape, function = read

    def from_numbers(params: Any, u: jax.Array) -> Any:
        return function(params, u.reshape(shape)).astype(leaves[0].dtype)

    return Quantile(math.prod(shape), dtype, from_numbers)


def _given(name: str, icdf: InverseCdf, draw: Any) -> Callable[[Any, jax.Array], Any]:
    leaves, structure = jax.tree.flatten(draw)
    borders = np.cumsum([math.prod(leaf.shape) for leaf in leaves])[:-1]

    def from_numbers(params: Any, u: jax.Array) -> Any:
        parts = jnp.split(u, borders)
        shaped = [part.reshape(x.shape) for part, x in zip(parts, leaves, strict=True)]
        x = icdf(params, jax.tree.unflatten(structure, shaped))
        got: Any = jax.tree.structure(x)
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(x)]
        if got != structure or shapes != [leaf.shape for leaf in leaves]:
            raise ValueError(
                f"{name} needs icdf(params, u) to return a draw, {draw}, got {got} of shapes "
                f"{shapes}."
            )
        return jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), x, draw)

    return from_numbers


def _read(
    distribution: Distribution, draw: Any, key: jax.Array
) -> tuple[tuple[int, ...], Callable[[Any, jax.Array], jax.Array]] | None:
    """The shape of the uniform numbers and the map to a draw, or None."""
    if not is_object(distribution):
        return None
    factors = read_factors(distribution, key)
    if factors is not None:
        logits = jnp.shape(factors.logits)

        def discrete(params: Any, u: jax.Array) -> jax.Array:
            read: Any = read_factors(replace(distribution, params=params), key)
            return read.draw_from(words_at(u, read.logits))

        return (logits if isinstance(factors, Bernoulli) else logits[:-1]), discrete
    inner = unwrapped(distribution.params)
    name = class_of(inner)
    if name in MULTIVARIATE_NORMALS:

        def gaussian(params: Any, u: jax.Array) -> jax.Array:
            mean, scale = read_moments(name, None, replace(distribution, params=params), key)
            noise = _normal(u)
            return mean + (scale * noise if scale.shape == u.shape else scale @ noise)

        return draw.shape, gaussian
    standard = None if location_scale(inner) is None else _STANDARD.get(name.partition(".")[2])
    # Components that depend on one another have no quantiles one by one.
    if standard is None and not (
        name
        and name not in _REFUSED
        and tuple(getattr(inner, "event_shape", (None,))) == ()
        and _method(inner, draw) is not None
    ):
        return None

    def factorized(params: Any, u: jax.Array) -> jax.Array:
        inner = unwrapped(params)
        if standard is not None:
            read: Any = location_scale(inner)
            location, scale = read
            return location + scale * standard(u)
        if name in _BY_CDF:
            return _with_derivative_of_cdf(inner, stop(_method(inner, draw)(u)))
        return _method(inner, draw)(u)

    return draw.shape, factorized


def _normal(u: jax.Array) -> jax.Array:
    # JAX's ndtri uses a scan, which is slow, and fails on explicitly sharded axes.
    return jnp.sqrt(jnp.asarray(2, u.dtype)) * jax.lax.erf_inv(2 * u - 1)


def _laplace(u: jax.Array) -> jax.Array:
    return jnp.where(u < 0.5, jnp.log(2 * u), -jnp.log(2 * (1 - u)))


# By the part of the name that follows the library: what distrax has no quantiles of.
_STANDARD: dict[str, Callable[[jax.Array], jax.Array]] = {
    "Normal": _normal,
    "LogStddevNormal": _normal,
    "Logistic": logit,
    "Laplace": _laplace,
    "Gumbel": lambda u: -jnp.log(-jnp.log(u)),
    "Uniform": lambda u: u,
}

# Their own derivatives are nan (a power of 0), or 0 (a search with a bracket made of parameters).
_BY_CDF = {"tfp.GeneralizedNormal", "tfp.NoncentralChi2"}

# The quantiles of a library that are not those of its draws: they lie 1 too low.
_REFUSED = {"numpyro.DiscreteUniform"}


def _with_derivative_of_cdf(inner: Any, x: jax.Array) -> jax.Array:
    if class_of(inner) == "tfp.NoncentralChi2":
        # TFP's distribution function has no derivative along the degrees of freedom.
        df = nondifferentiable(
            jnp.asarray(inner.df),
            "The draws of a NoncentralChi2 by its inverse cdf have no derivative along df, and "
            "their gradient would silently be 0. Use Pathwise alone; if df is not meant to be "
            "learned, wrap it in jax.lax.stop_gradient.",
        )
        inner = inner.copy(df=df)
    return implicit_reparameterization(
        lambda inner, x: inner.cdf(x), lambda inner, x: inner.log_prob(x), inner, x
    )


def _method(inner: Any, draw: Any) -> Any:
    """The quantile method of TFP or numpyro, if it is implemented."""
    for name in ("quantile", "icdf"):
        method = getattr(inner, name, None)
        if method is None:
            continue
        try:
            jax.eval_shape(method, draw)
        except NotImplementedError:
            return None
        return method
    return None
