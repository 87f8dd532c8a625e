"""Latin hypercube sampling: each draw lies in its own stratum."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn.distributions._interop.quantiles import InverseCdf
from scorefn.estimators._base import Estimator

from .sampling_scheme import Point, PointSet


@pytree_dataclass
class Stratified(PointSet):
    r"""Any estimator, on stratified draws (a Latin hypercube sample).

    .. code-block:: text

        x_i = icdf(params, u_i),  u_id = (pi_d(i) + v_id) / n,  v uniform, pi_d random permutations
        term i      the estimator's term at x_i

    Unbiased at the orders of the wrapped estimator, because each u_i is uniform on the unit cube.
    In one dimension this is stratified sampling, in several Latin hypercube sampling. If the term
    is smooth, the variance of its part that is a sum of functions of single coordinates is reduced
    to a fraction of n^-2; the rest is unchanged. The variance is at most n / (n - 1) times that of
    independent draws, so this is a safe choice; `QuasiMonteCarlo` reduces it further if f is
    smooth. Costs the evaluations of the wrapped estimator, one inverse cdf for each number of a
    draw, and memory for one integer for each number of each sample.

    The draws of one call depend on one another: see `QuasiMonteCarlo`.

    Attributes:
        estimator: as for `QuasiMonteCarlo`.
        icdf: as for `QuasiMonteCarlo`.

    Raises:
        TypeError: no inverse cdf is known; the estimator is coupled.
        ValueError: the result of icdf does not fit a draw.

    Example:
        >>> import distrax, jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(mean, key):
        ...     normal, estimator = distrax.Normal(mean, 0.5), sf.Stratified(sf.Pathwise())
        ...     return sf.expectation(jnp.sin, normal, key, estimator, num_samples=100)
        >>> print(f"{jax.jit(jax.grad(loss))(1.0, jax.random.key(0)):.1f}")
        0.5

    References:
        McKay, Beckman and Conover, A comparison of three methods for selecting values of input
        variables (1979); Owen, Monte Carlo variance of scrambled net quadrature (1997), section 4.
    """

    estimator: Estimator
    icdf: InverseCdf | None = static_field(default=None, repr=False)

    evaluations: ClassVar[str] = "as the wrapped estimator"
    when: ClassVar[str] = "f nearly a sum over the coordinates; any number of samples"
    needs: ClassVar[str] = "an inverse cdf; an estimator that is not coupled"

    def points(self, key: jax.Array, n: int, size: int) -> Point:
        ranks = jnp.broadcast_to(jnp.arange(n, dtype=jnp.uint32)[:, None], (n, size))
        strata = jax.random.permutation(key, ranks, axis=0, independent=True)

        def point(i: jax.Array, noise: jax.Array) -> jax.Array:
            u = (strata[i].astype(noise.dtype) + noise) / n
            # With many strata, rounding moves the last point to 1.
            least = jnp.finfo(noise.dtype).epsneg
            return jnp.clip(u, least, 1 - least)

        return point
