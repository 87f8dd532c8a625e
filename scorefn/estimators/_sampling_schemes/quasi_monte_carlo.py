"""Draws at the points of a Sobol sequence, scrambled anew for each key."""

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
    r"""Any estimator, on draws made from the points of a scrambled Sobol sequence.

    .. code-block:: text

        x_i = icdf(params, u_i),  u_i = scramble(Sobol point i)
        term i      that of the estimator at x_i

    Unbiased wherever the estimator is, at its orders: for each key the sequence is scrambled anew
    (a random linear map of the digits of each coordinate and a random digital shift), after which
    each point is uniform on the unit cube. For n samples of a smooth term of few effective
    dimensions the variance of the mean falls as n^-3 up to logarithms, instead of n^-1; it never
    falls off where only many coordinates together matter. Best with a power of 2 as num_samples:
    other numbers are unbiased too and less even. Costs the evaluations of the estimator inside, and
    one inverse cdf and some 32 integer operations for each number of a draw.

    The draws of one call depend on one another. So the variance between calls is the one to look
    at, and an estimator that uses samples for one another (leave-one-out) is refused.

    Attributes:
        estimator: how derivatives are estimated; one that draws by the distribution's sampler, as
            `Pathwise` does. One that draws for itself, as `DisARM`, stays right and gains nothing.
        icdf: ``icdf(params, u) -> x``, with u uniform on (0, 1) and shaped like a draw; params as
            for `Distribution`, or the object of a library. Differentiable if the estimator
            differentiates draws. None knows Normal, multivariate normal, Logistic, Laplace, Gumbel,
            Uniform, bits, categories, and what has a ``quantile`` or an ``icdf`` of its own (TFP,
            numpyro).

    Raises:
        TypeError: no inverse cdf is known; the estimator uses samples for one another.
        ValueError: a draw of more than 21201 numbers; icdf returns something else than a draw.

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

    evaluations: ClassVar[str] = "as the estimator inside"
    when: ClassVar[str] = "smooth f, Pathwise, 16 samples and more"
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
    """What each digit of the number of a point contributes to it, as 32 bits: [digits, size]."""
    from scipy.stats import qmc  # Slow to import, and seldom needed.

    if size > qmc.Sobol.MAXDIM:
        raise ValueError(
            f"QuasiMonteCarlo reaches {qmc.Sobol.MAXDIM} dimensions, got draws of {size} numbers. "
            f"Use Stratified, or Antithetic."
        )
    rows = []
    for j in range(digits):
        # In the order of a Gray code, point 2^(j+1) - 1 is that of digit j alone.
        sobol = qmc.Sobol(size, scramble=False, bits=32)
        sobol.fast_forward(2 ** (j + 1) - 1)
        rows.append(sobol.random(1)[0] * 2.0**32)
    return np.array(rows).astype(np.uint32)


def _scrambled(generators: jax.Array, words: jax.Array) -> jax.Array:
    """Each multiplied by a random lower triangular matrix of digits, one for each coordinate."""
    scrambled = jnp.zeros_like(generators)
    # From the first digit after the point on: generator j has no more than j + 1.
    for k in range(len(generators)):
        one = jnp.uint32(1 << (31 - k))
        column = one | (words[k] & (one - 1))
        scrambled = scrambled ^ jnp.where(generators & one, column, 0)
    return scrambled
