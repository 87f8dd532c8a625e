"""Statistics without bias, by a random number of samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scorefn._core.checks import check_key, check_number

Statistic = Callable[[jax.Array], jax.Array]


class Level(NamedTuple):
    """A random level of `debiased`, drawn by `random_level`.

    Attributes:
        level: 0, 1, 2 ...
        probability: the probability of this level.
        ratio: the ratio of the probabilities of one level and of the level before.
    """

    level: int
    probability: float
    ratio: float = 2**-1.5

    @property
    def size(self) -> int:
        """The number of blocks of samples at this level, 2^(level + 1)."""
        return int(2 ** (self.level + 1))


def random_level(key: jax.Array, *, ratio: float = 2**-1.5) -> Level:
    """A random level for `debiased`: l with probability (1 - ratio) ratio^l.

    It decides array shapes, so draw it outside of jit and pass it as a static argument:
    ``jax.jit(loss, static_argnames="level")`` compiles once for each level that occurs, about 10 in
    10^5 calls. Use a key that nothing else uses.

    Args:
        key: one random key. It is consumed.
        ratio: in (1/4, 1/2). The expected number of blocks, 2 (1 - ratio) / (1 - 2 ratio), is 4.4
            at 2^-1.5 (the default, for smooth statistics) and 7.3 at 2^-1.25 (for gradients of
            `cvar`, see `debiased`).

    Returns:
        A named tuple of Python numbers: ``level``, its ``probability``, the ``ratio``, and
        ``level.size``, the number of blocks of samples.

    Raises:
        ValueError: the ratio is not in (1/4, 1/2).
        TypeError: the key is traced.

    Example:
        >>> import jax, scorefn as sf
        >>> level = sf.random_level(jax.random.key(0))
        >>> level.size == 2 ** (level.level + 1)
        True
    """
    check_number("ratio", ratio, above=0.25, below=0.5)
    if isinstance(check_key(key), jax.core.Tracer):
        raise TypeError(
            "random_level decides the number of samples, so it needs a key that is known: call it "
            "outside of jit, vmap and scan, and pass the level as a static argument."
        )
    high, low = (int(word) for word in np.asarray(jax.random.bits(key, (2,), jnp.uint32)))
    # Single precision would never draw the levels above 15.
    return _level_of((high * 2**32 + low + 0.5) / 2**64, ratio)


def _level_of(uniform: float, ratio: float) -> Level:
    level = math.floor(math.log(uniform) / math.log(ratio))
    return Level(level, (1 - ratio) * ratio**level, ratio)


def debiased(statistic: Statistic, level: Level, *, roulette: bool = False) -> Statistic:
    """A statistic without bias: its mean is the limit for many samples.

    .. code-block:: text

        value       mean of S(block) over all blocks
                    + [S(all) - (S(first half) + S(second half)) / 2] / probability of the level

    where S(all) is the statistic of all costs and there are ``level.size`` = 2^(l + 1) blocks: the
    estimator of a single term. With `roulette` all terms up to the level enter, the estimator of
    Russian roulette. With M_j the mean of S over groups of 2^j blocks:

    .. code-block:: text

        value       M_0 + sum_{j <= l} (M_{j+1} - M_j) / ratio^j,  P(level >= j) = ratio^j

    The mean over costs and levels is E S_n + sum_l (E S_{2^(l + 1) n} - E S_{2^l n}), for blocks of
    n: the limit of E S_n. So the result is UNBIASED for it, in value and in derivatives, where one
    statistic has a bias of O(1/n): with S the logarithm of the mean, its inverse, a ratio of means
    (self-normalized importance sampling), `entropic_risk`, `cvar` or a quantile.

    One level alone is biased; its mean over levels is not, in `check_unbiased`, too.

    Use it in `SampleStatistic`, or on the values of estimates. A function of an expectation inside
    another expectation is a statistic of an inner choice of a `program`.

    The variance is finite if S of one block has a finite variance, and if the variance V_l of the
    difference in brackets decreases faster than ratio^l; likewise for a derivative. It is O(4^-l)
    for a smooth function of means and for the value of `cvar`, which suits the default ratio
    2^-1.5. The derivative of `cvar` and the value of a quantile have O(2^(-1.5 l)) and need a
    larger ratio, such as 2^-1.25. For the derivative of a quantile V_l does not decrease: its
    variance is infinite. So it is, and perhaps the mean too, where S of a block is unbounded: 1 /
    mean if costs come near 0 (exponential costs need blocks of 3 or more), a logarithm if they can
    be 0. The variance of the random part decreases as n^-2 with the size n of the blocks. Evaluates
    S on each cost three times, with `roulette` l + 2 times.

    Args:
        statistic: ``statistic(costs [n, ...]) -> [...]`` or a scalar, for any n, which does not
            depend on the order of the costs.
        level: from `random_level`.
        roulette: whether all terms up to the level enter, instead of the last one.

    Returns:
        A function of costs [n level.size, ...], of any n of your choice.

    Raises:
        TypeError: the statistic is not a function; level is not of `random_level`, or traced.
        ValueError: the number of costs is not a multiple of level.size. (When it is called.)

    Example:
        >>> import distrax, jax, jax.numpy as jnp, scorefn as sf
        >>> def log_evidence(mean, key, level):
        ...     normal, f = distrax.Normal(mean, 1.0), lambda z: -((z - 1.0) ** 2) / 2
        ...     log_mean_exp = lambda log_w: sf.entropic_risk(log_w, 1.0)
        ...     estimator = sf.SampleStatistic(sf.Pathwise(), sf.debiased(log_mean_exp, level))
        ...     return sf.expectation(f, normal, key, estimator, num_samples=4 * level.size)
        >>> gradient = jax.jit(jax.grad(log_evidence), static_argnames="level")
        >>> level = sf.random_level(jax.random.key(1))
        >>> step = gradient(0.5, jax.random.key(0), level=level)

    References:
        Rhee and Glynn, Unbiased estimation with square root convergence (2015), section 2; Blanchet
        and Glynn, Unbiased Monte Carlo for optimization and functions of expectations (2015),
        section 3; Luo et al., SUMO (2020), and Shi and Cornish, On multilevel Monte Carlo unbiased
        gradient estimation (2021), for log-evidences, the former by Russian roulette.
    """
    if not callable(statistic):
        raise TypeError(f"statistic must be a function of costs [n, ...], got {statistic!r}.")
    if not isinstance(level, Level) or isinstance(level.level, jax.Array):
        raise TypeError(
            f"level must be a result of random_level, known while tracing, got {level!r}. Under "
            f'jit make it a static argument: jax.jit(loss, static_argnames="level").'
        )

    def limit(costs: jax.Array) -> jax.Array:
        n, rest = divmod(len(costs), level.size)
        if rest or not n:
            raise ValueError(
                f"the number of costs must be a multiple of {level.size}, level.size, got "
                f"{len(costs)}: for blocks of n give num_samples = n * level.size."
            )

        def mean_over(groups: int) -> jax.Array:
            each = costs.reshape(groups, -1, *costs.shape[1:])
            return jnp.mean(jax.vmap(statistic)(each), 0)

        if not roulette:
            difference = statistic(costs) - mean_over(2)
            return mean_over(level.size) + difference / level.probability
        means = [mean_over(level.size // 2**j) for j in range(level.level + 2)]
        steps = [(b - a) / level.ratio**j for j, (a, b) in enumerate(pairwise(means))]
        return sum(steps, start=means[0])

    return limit
