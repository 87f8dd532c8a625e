"""Draws at the points of a Sobol sequence, scrambled with each key."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn.distributions._interop.quantiles import InverseCdf
from scorefn.estimators._base import Estimator

from .sampling_scheme import Point, PointSet, uniform


@pytree_dataclass
class QuasiMonteCarlo(PointSet):
    r"""Any estimator, on draws at the points of a scrambled Sobol sequence.

    .. code-block:: text

        x_i = icdf(params, u_i),  u_i = scramble(Sobol point i)
        term i      the estimator's term at x_i

    Unbiased at the orders of the wrapped estimator: each key scrambles the sequence (with a random
    linear map of the digits of each coordinate and a random digital shift), after which each point
    is uniform on the unit cube. For n samples of a smooth term of few effective dimensions, the
    variance of the mean decreases as n^-3 up to logarithms, instead of n^-1; there is no such gain
    if the term depends on many coordinates jointly. Best if num_samples is a power of 2; other
    numbers are unbiased and less even. Costs the evaluations of the wrapped estimator, and one
    inverse cdf and about 32 integer operations for each number of a draw.

    The draws of one call depend on one another: measure the variance between calls. A coupled
    estimator (leave-one-out) is refused, because it would be biased.

    Attributes:
        estimator: the wrapped estimator. It should draw with the sampler of the distribution, like
            `Pathwise`. One with its own draws, like `DisARM`, remains unbiased and gains nothing.
        icdf: ``icdf(params, u) -> x``, with u uniform on (0, 1) and shaped like a draw; params as
            for `Distribution`, or the object of another library. Differentiable if the estimator
            differentiates draws. None supports Normal, multivariate normal, Logistic, Laplace,
            Gumbel, Uniform, bits, categories, and objects with a method ``quantile`` or ``icdf``
            (TFP, numpyro).

    Raises:
        TypeError: no inverse cdf is known; the estimator is coupled.
        ValueError: a draw has more than 21201 numbers; the result of icdf does not fit a draw.

    Example:
        >>> import distrax, jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(mean, key):
        ...     normal, estimator = distrax.Normal(mean, 0.5), sf.QuasiMonteCarlo(sf.Pathwise())
        ...     return sf.expectation(jnp.cosh, normal, key, estimator, num_samples=64)
        >>> print(f"{jax.jit(jax.grad(loss))(0.0, jax.random.key(0)):.1f}".strip("-"))
        0.0

    References:
        Owen, Scrambled net variance for integrals of smooth functions (1997), theorem 1; Matousek,
        On the L2-discrepancy for anchored boxes (1998), section 3; Joe and Kuo, Constructing Sobol
        sequences with better two-dimensional projections (2008); Buchholz, Wenzel and Mandt,
        Quasi-Monte Carlo variational inference (2018).
    """

    estimator: Estimator
    icdf: InverseCdf | None = static_field(default=None, repr=False)

    evaluations: ClassVar[str] = "as the wrapped estimator"
    when: ClassVar[str] = "smooth f, Pathwise, 16 samples or more"
    needs: ClassVar[str] = "an inverse cdf; an estimator that is not coupled"

    def points(self, key: jax.Array, n: int, size: int) -> Point:
        digits = max(1, (n - 1).bit_length())
        words = jax.random.bits(key, (digits + 1, size), jnp.uint32)
        generators = _scrambled(jnp.asarray(_generators(size, digits)), words[:digits])
        shift = words[digits]

        def point(i: jax.Array, noise: jax.Array) -> jax.Array:
            bits = shift
            for j in range(digits):
                bits = bits ^ jnp.where((i >> j) & 1, generators[j], 0)
            return uniform(bits, noise.dtype)

        return point


def _generators(size: int, digits: int) -> np.ndarray:
    """The contribution of each digit of the index of a point, as 32 bits: [digits, size]."""
    from scipy.stats import qmc  # Slow to import, and rarely needed.

    if size > qmc.Sobol.MAXDIM:
        raise ValueError(
            f"QuasiMonteCarlo supports up to {qmc.Sobol.MAXDIM} dimensions, got draws of {size} "
            f"numbers. Use Stratified, or Antithetic."
        )
    rows = []
    for j in range(digits):
        # In Gray code order, point 2^(j+1) - 1 is the point of digit j alone.
        sobol = qmc.Sobol(size, scramble=False, bits=32)
        sobol.fast_forward(2 ** (j + 1) - 1)
        rows.append(sobol.random(1)[0] * 2.0**32)
    return np.array(rows).astype(np.uint32)


def _scrambled(generators: jax.Array, words: jax.Array) -> jax.Array:
    """The generators times a random lower triangular matrix of digits for each coordinate."""
    scrambled = jnp.zeros_like(generators)
    # k counts digits after the point: generator j has at most j + 1.
    for k in range(len(generators)):
        one = jnp.uint32(1 << (31 - k))
        column = one | (words[k] & (one - 1))
        scrambled = scrambled ^ jnp.where(generators & one, column, 0)
    return scrambled
