"""Statistics of a sample of costs, beyond its mean."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from scorefn._core.arrays import as_float, gathered, stop, wide
from scorefn._core.checks import check_count, check_number
from scorefn._core.order_statistics import chance_of_largest


def expected_max(costs: ArrayLike, k: int) -> jax.Array:
    """The mean over all subsets of k costs of the largest one.

    .. code-block:: text

        value       sum_i C(i - 1, k - 1) / C(n, k) c_(i),  c_(1) <= ... <= c_(n)
        derivative  the weights of the sorted costs

    Unbiased for E[max of k independent costs]: a U-statistic, of lower variance than the maxima of
    separate groups. The best of k rewards is ``expected_max(rewards, k)``, the best of k costs
    ``-expected_max(-costs, k)``; for 0 and 1 it is pass@k. For the derivative of the expectation
    along the parameters of a distribution use it in `SampleStatistic`. Takes one sort.

    Args:
        costs: [n, ...], real, along its first axis independent and equally distributed.
        k: the number of costs of which the largest is taken, a static int from 1 to n.

    Returns:
        An array [...].

    Raises:
        ValueError: k is below 1 or above n; there is no axis.

    Example:
        >>> import scorefn as sf
        >>> print(sf.expected_max([0.0, 0.25, 1.0], 2))
        0.75

    References:
        Chen et al., Evaluating large language models trained on code (2021), equation 1; Walder and
        Karkhanis, Pass@k policy optimization (2025), theorem 2.
    """
    costs = _sample("costs", costs)
    n = len(costs)
    if check_count("k", k) > n:
        raise ValueError(f"k must be at most the number of costs, {n}, got {k}.")
    size = jnp.asarray(n, wide(costs.dtype))
    return _weighted_in_order(costs, chance_of_largest(k, size, n))


def cvar(costs: ArrayLike, level: float | jax.Array) -> jax.Array:
    """The conditional value at risk of a sample: the mean of its largest costs.

    .. code-block:: text

        value       min_t t + mean_i max(c_i - t, 0) / (1 - level)
                    = the mean of the largest (1 - level) n costs, the last one in part
        derivative  the weights of the sorted costs

    BIASED as an estimate of the CVaR of the distribution, downward by O(1/n): the mean over samples
    of a minimum is below the minimum of the mean. No statistic of a fixed number of costs is
    unbiased for it; `debiased` uses a random number. The mean of `cvar` over samples of n is itself
    an objective, and in `SampleStatistic` its gradient is unbiased. Takes one sort.

    Args:
        costs: [n, ...], real. For rewards, whose smallest ones are the worst,
            ``-cvar(-rewards, level)``.
        level: in [0, 1). 0 is the mean, 0.95 the mean of the largest 5%, and above 1 - 1/n the
            maximum.

    Returns:
        An array [...].

    Raises:
        ValueError: the level is not in [0, 1); there is no axis.

    Example:
        >>> import scorefn as sf
        >>> print(sf.cvar([1.0, 2.0, 3.0, 6.0], 0.5))
        4.5

    References:
        Rockafellar and Uryasev, Optimization of conditional value-at-risk (2000), equation 9.
    """
    costs = _sample("costs", costs)
    check_number("level", level, least=0, below=1)
    n, dtype = len(costs), wide(costs.dtype)
    count = n * (1 - jnp.asarray(level, dtype))
    from_the_top = jnp.arange(n, 0, -1, dtype=dtype)
    return _weighted_in_order(costs, jnp.clip(count - from_the_top + 1, 0, 1) / count)


def entropic_risk(costs: ArrayLike, aversion: float | jax.Array) -> jax.Array:
    """The entropic risk of a sample, ``log(mean exp(aversion costs)) / aversion``.

    BIASED as an estimate of the risk of the distribution by O(1/n), toward the mean cost, as
    ``log(mean)`` is; `debiased` removes the bias. The mean of `entropic_risk` over samples of n is
    itself an objective, and in `SampleStatistic` its gradient is unbiased. Smooth in the costs and
    in the aversion, also at aversion 0.

    Args:
        costs: [n, ...], real.
        aversion: in 1 / units of the costs: above 0 large costs count more, below 0 small ones; 0
            is the mean.

    Returns:
        An array [...].

    Raises:
        ValueError: there is no axis.

    Example:
        >>> import jax.numpy as jnp, scorefn as sf
        >>> print(jnp.round(sf.entropic_risk([0.0, 2.0], 1.0), 3))
        1.434

    References:
        Howard and Matheson, Risk-sensitive Markov decision processes (1972), equation 2.
    """
    costs = _sample("costs", costs)
    aversion = jnp.asarray(aversion, wide(costs.dtype))
    wider = costs.astype(aversion.dtype)
    mean = jnp.mean(wider, 0, keepdims=True)
    spread = jnp.abs(aversion) * jnp.max(jnp.abs(wider - mean), 0, keepdims=True)
    # Near aversion 0 the logarithm is a small difference of large numbers, divided by a small one.
    # Up to a spread of 1 expm1 and log1p keep its digits; below the second bound its expansion in
    # cumulants is exact to rounding, and so are its derivatives along the aversion.
    near, nearest = stop(spread < 1), stop(spread < float(jnp.finfo(wider.dtype).eps) ** 0.25)
    safe = jnp.where(near, wider, 0)
    center = jnp.mean(safe, 0, keepdims=True)
    d = safe - center
    second, third, fourth = (jnp.mean(d**k, 0, keepdims=True) for k in (2, 3, 4))
    fourth -= 3 * second**2
    series = aversion * (second / 2 + aversion * (third / 6 + aversion * fourth / 24))
    divisor = jnp.where(nearest, 1, aversion)
    shifted = jnp.where(nearest, 0, divisor * d)
    excess = jnp.log1p(jnp.mean(jnp.expm1(shifted), 0, keepdims=True)) / divisor
    far = log_mean_exp(divisor * wider)[None] / divisor
    risk = jnp.where(near, center + jnp.where(nearest, series, excess), far)
    return risk[0].astype(costs.dtype)


def log_mean_exp(x: jax.Array) -> jax.Array:
    """The logarithm of the mean of exponentials, along the first axis."""
    return jax.nn.logsumexp(x, 0) - jnp.log(jnp.asarray(len(x), x.dtype))


def _weighted_in_order(costs: jax.Array, weights: jax.Array) -> jax.Array:
    """The sum of the sorted costs with the weights [n], which add up to 1."""
    ordered = jnp.sort(gathered(costs, 0), axis=0).astype(weights.dtype)
    mean = stop(jnp.mean(ordered, 0, keepdims=True))
    # The weights add up to 1 only up to rounding, which a large offset would multiply.
    center = jnp.where(jnp.isfinite(mean), mean, 0)
    weights = weights.reshape(weights.shape + (1,) * (costs.ndim - 1))
    # An infinite cost of weight 0 adds nothing.
    counted = jnp.where(weights == 0, 0, ordered - center)
    return (center[0] + jnp.sum(weights * counted, 0)).astype(costs.dtype)


def _sample(name: str, x: ArrayLike) -> jax.Array:
    """The array of floats, checked to have a first axis with elements."""
    x = as_float(x)
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"{name} must be an array [n, ...] of n samples, got shape {x.shape}.")
    return x
