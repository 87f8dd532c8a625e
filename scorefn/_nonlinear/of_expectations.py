"""Unbiased estimates of nonlinear functions of expectations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._batching.samples import check_samples, sample_keys
from scorefn._core.checks import check_key
from scorefn._core.renamed import renamed_keyword

Estimate = Callable[[jax.Array], jax.Array]


def product_of_expectations(estimates: Sequence[Estimate], key: jax.Array) -> jax.Array:
    """An unbiased estimate of a product of expectations, each with its own key.

    .. code-block:: text

        value       x_1 x_2 ... x_m,  x_i = estimates[i](key_i)
        derivative  jax.grad ... of the value: sum_i dx_i prod_{j != i} x_j

    Unbiased at every order at which the estimates are unbiased, because they are independent. (Two
    estimates with one key are correlated, and their product is biased.) For a power, repeat a
    function in the list. Evaluates each estimate once.

    Args:
        estimates: functions of a key that return a real number, or arrays that can be multiplied.
            Each is an unbiased estimate, for example a call of `expectation`.
        key: one random key. It is consumed.

    Returns:
        The product, elementwise.

    Raises:
        ValueError: there are no estimates.
        TypeError: an estimate is not a function.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> def square_of_mean(loc, key):
        ...     mean = lambda key: sf.expectation(
        ...         lambda x: x, distrax.Normal(loc, 1.0), key, sf.Pathwise(), num_samples=8)
        ...     return sf.product_of_expectations([mean, mean], key)
        >>> gradient = jax.jit(jax.grad(square_of_mean))(2.0, jax.random.key(0))
    """
    if not estimates:
        raise ValueError("estimates must hold at least one function of a key, got none.")
    for estimate in estimates:
        _check_function("estimates", estimate)
    keys = jax.random.split(check_key(key), len(estimates))
    return reduce(jnp.multiply, [e(keys[i]) for i, e in enumerate(estimates)])


@renamed_keyword("centre", "center")
def exp_of_expectation(
    estimate: Estimate,
    key: jax.Array,
    *,
    num_estimates: int,
    center: float | jax.Array = 0.0,
    radius: float = 1.0,
    chunk_size: int | None = None,
) -> jax.Array:
    r"""An unbiased estimate of exp(E x), computed from independent estimates of E x.

    .. code-block:: text

        y_i         estimate(key_i) - center,  i = 1 ... n
        u_k         the mean of y_i1 y_i2 ... y_ik over all subsets of k,  E u_k = (E x - center)^k
        value       exp(center) sum_{k <= K} u_k / k!
        derivative  jax.grad ... of the value

    ``exp(mean of x)`` is biased by about ``exp(E x) Var(x) / (2 n)``. This value and its
    derivatives, at the orders of the estimate, are unbiased up to rounding: K, at most n, is chosen
    so that the rest of the series is below the rounding of the dtype for ``|E x - center| <=
    radius``. The variance is that of ``exp(mean of x)`` plus terms of order n^-2. It takes
    num_estimates evaluations of the estimate, and num_estimates K additions. For other functions of
    an expectation see `debiased`.

    Args:
        estimate: a function of a key that returns a real number. It is an unbiased estimate, for
            example a call of `expectation`.
        key: one random key. It is consumed.
        num_estimates: n, at least K.
        center: a guess of E x that does not depend on the key. No derivative passes through it. A
            closer guess needs fewer estimates, and does not change the expectation.
        radius: the largest distance of E x from the center, above 0.
        chunk_size: the number of estimates computed at a time; None computes all at once.

    Returns:
        A scalar.

    Raises:
        TypeError: estimate is not a function, or does not return one real number.
        ValueError: num_estimates is too small for the radius; the radius is not above 0.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> def likelihood(loc, key):
        ...     log_likelihood = lambda key: sf.expectation(
        ...         lambda x: -(x**2) / 2, distrax.Normal(loc, 1.0), key, sf.Pathwise())
        ...     return sf.exp_of_expectation(log_likelihood, key, num_estimates=32)
        >>> gradient = jax.jit(jax.grad(likelihood))(0.5, jax.random.key(0))

    References:
        Hoeffding, A class of statistics with asymptotically normal distribution (1948), section 4;
        Papaspiliopoulos, A methodological framework for Monte Carlo probabilistic inference for
        diffusion processes (2011), section 3, for the estimators with a random number of terms,
        whose variance is larger.
    """
    _check_function("estimate", estimate)
    if not (isinstance(radius, int | float) and radius > 0):
        raise ValueError(f"radius must be a number above 0, got {radius!r}.")
    key = check_samples(key, num_estimates, chunk_size, name="num_estimates")
    keys, vmap = sample_keys(key, num_estimates, chunk_size)
    x = vmap(estimate)(keys)
    if jnp.ndim(x) != 1 or not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise TypeError(
            f"estimate must return one real float for one key, got {jnp.result_type(x)} of shape "
            f"{jnp.shape(x)[1:]}."
        )
    terms = _terms(radius, float(jnp.finfo(x.dtype).eps))
    if num_estimates < terms:
        raise ValueError(
            f"num_estimates must be at least {terms} for radius={radius} in {x.dtype}, got "
            f"{num_estimates}, which truncates the series of exp. A center closer to the "
            f"expectation allows a smaller radius."
        )
    center = jax.lax.stop_gradient(jnp.asarray(center, x.dtype))
    factorials = jnp.cumprod(jnp.arange(1, terms + 1, dtype=x.dtype))
    means = _means_of_products(x - center, terms)
    return jnp.exp(center) * (1 + jnp.sum(means / factorials))


def _terms(radius: float, eps: float) -> int:
    """The number of terms of the series of exp, exact up to rounding."""
    # exp(-radius) is the smallest possible value. The rest is smaller than its first term divided
    # by (1 - radius / K).
    terms, power = 1, radius
    while terms <= radius or power > eps * math.exp(-radius) * (1 - radius / terms):
        terms += 1
        power *= radius / terms
    return terms


def _means_of_products(y: jax.Array, terms: int) -> jax.Array:
    """The mean product of all subsets of k elements, for k = 1 ... terms."""
    # u_k of the first m elements: a subset of size k contains element m with probability k / m.
    k = jnp.arange(1, terms + 1, dtype=y.dtype)

    def add(means: jax.Array, element: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        y, m = element
        smaller = jnp.append(jnp.ones(1, y.dtype), means[:-1])
        share = jnp.minimum(k / m, 1)
        return means + share * (y * smaller - means), None

    counts = jnp.arange(1, len(y) + 1, dtype=y.dtype)
    return jax.lax.scan(add, jnp.zeros(terms, y.dtype), (y, counts))[0]


def _check_function(name: str, function: Any) -> None:
    if not callable(function):
        raise TypeError(f"{name} must be functions of one key, got {function!r}.")
