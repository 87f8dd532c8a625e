"""Antithetic draws: each draw and its mirror image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import abstract_key, reuse_key
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.types import Cost, Terms, Vmap
from scorefn.distributions._discrete import Bernoulli
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._integer_icdf import words
from scorefn.distributions._interop.location_scale import center_of_symmetry
from scorefn.distributions._interop.quantiles import InverseCdf, read_quantile
from scorefn.estimators._base import Estimator

from .sampling_scheme import SamplingScheme, uniform


@pytree_dataclass
class Antithetic(SamplingScheme):
    r"""Any estimator, averaged over each draw and its mirror image.

    .. code-block:: text

        x'          mirror(params, x), distributed as x
                    or icdf(params, 1 - u),  x = icdf(params, u)
        term        (the estimator's term at x + its term at x') / 2

    Unbiased at the orders of the wrapped estimator. Each term takes two evaluations of f and one
    draw. Compared with two independent draws, it removes the variance of the part of f that is odd
    around the center and doubles that of the even part: for a quadratic f the derivative along the
    mean has no variance, and the derivative along the scale has twice as much. It helps for a
    monotone or nearly linear f; for f symmetric about the center it costs a factor of 2.

    Attributes:
        estimator: the wrapped estimator. It should draw with the sampler of the distribution, like
            `Pathwise` and `ScoreFunction`. One with its own draws, like `DisARM`, remains unbiased
            but costs twice as much.
        mirror: ``mirror(params, x) -> x'``, differentiable if the estimator differentiates draws;
            params as for `Distribution`, or the object of another library. None mirrors Normal,
            multivariate normal, Laplace, Logistic, StudentT and Uniform at their center, the noise
            of a `Bernoulli` record at 0, and u at 1/2 for other distributions with a known inverse
            cdf.
        icdf: as for `QuasiMonteCarlo`, for a distribution without symmetry: mirrors u.

    Raises:
        TypeError: the estimator is not an instance of one, or is a sampling scheme itself; neither
            a mirror nor an inverse cdf is known.
        ValueError: both mirror and icdf are given.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> def loss(mean, key):
        ...     normal, estimator = distrax.Normal(mean, 1.0), sf.Antithetic(sf.Pathwise())
        ...     return sf.expectation(lambda x: x**2, normal, key, estimator)
        >>> print(jax.grad(loss)(1.5, jax.random.key(0)))
        3.0

    References:
        Hammersley and Morton, A new Monte Carlo technique: antithetic variates (1956).
    """

    estimator: Estimator
    mirror: Callable[[Any, Any], Any] | None = static_field(default=None, repr=False)
    icdf: InverseCdf | None = static_field(default=None, repr=False, kw_only=True)

    evaluations: ClassVar[str] = "twice those of the wrapped estimator"
    when: ClassVar[str] = "a monotone f of a symmetric distribution"
    needs: ClassVar[str] = "a symmetric distribution, a mirror, or an inverse cdf"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mirror is not None and self.icdf is not None:
            raise ValueError("Antithetic takes mirror or icdf, got both. Give one of them.")

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        draws, opposite = self._pair(distribution, abstract_key(keys))
        one, aux = self.estimator.terms(f, draws, keys, vmap)
        other, _ = self.estimator.terms(f, opposite, reuse_key(keys), vmap)
        return jax.tree.map(lambda a, b: (a + b) / 2, one, other), aux

    def _pair(
        self, distribution: Distribution, key: jax.Array
    ) -> tuple[Distribution, Distribution]:
        """The distribution, and a copy whose sampler returns the mirror images."""
        if self.mirror is not None:
            return distribution, _reflected(self.mirror, distribution)
        if isinstance(distribution.params, Bernoulli):
            return distribution, replace(distribution, sample=_opposite_bits)
        if self.icdf is None and center_of_symmetry(distribution.params) is not None:
            return distribution, _reflected(_at_center, distribution)
        quantile = read_quantile("Antithetic", self.icdf, distribution, key)

        def at(level: Callable[[jax.Array], jax.Array]) -> Distribution:
            def sample(params: Any, key: jax.Array) -> Any:
                bits = jax.random.bits(key, (quantile.size,), jnp.uint32)
                return quantile.draw(params, level(uniform(bits, quantile.dtype)))

            return replace(distribution, sample=sample)

        return at(lambda u: u), at(lambda u: 1 - u)


def _reflected(mirror: Callable[[Any, Any], Any], distribution: Distribution) -> Distribution:
    def sample(params: Any, key: jax.Array) -> Any:
        return mirror(params, distribution.sample(params, key))

    return replace(distribution, sample=sample)


def _opposite_bits(bits: Bernoulli, key: jax.Array) -> jax.Array:
    return bits.draw_from(~words(key, jnp.shape(bits.logits), bits.logits))


def _at_center(distribution: Any, x: Any) -> jax.Array:
    return 2 * jnp.asarray(center_of_symmetry(distribution), x.dtype) - x
