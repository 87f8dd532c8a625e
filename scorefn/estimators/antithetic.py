"""Draws in opposite pairs."""

from collections.abc import Callable
from dataclasses import field, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from .._arguments import again
from .._distribution import Distribution
from .._factors import Bernoulli, unwrapped
from .._record import record
from ._estimator import Cost, Estimator, PyTree, Vmap, check_estimator
from ._transformation import Transformation

# Symmetric about their location, in any library.
_SYMMETRIC = ("Normal", "Laplace", "Logistic", "StudentT", "Uniform")


@record(static=["mirror"])
class Antithetic(Transformation):
    r"""Any estimator, on each draw and on its mirror image.

    .. code-block:: text

        x' = mirror(params, x), of the same distribution as x
        term        (that of the estimator at x + that at x') / 2

    Unbiased wherever the estimator is, at its orders. Two evaluations of f for each term and one
    draw. Compared with two independent draws it removes all of the variance of f that is odd
    around the centre and doubles what is even: the derivative along the mean of a quadratic has
    none left, that along the scale has twice as much. For f that goes one way (monotone, nearly
    linear) it helps; for f symmetric about the centre it costs a factor of 2.

    Attributes:
        estimator: how derivatives are estimated; one that draws by the distribution's sampler, as
            `Pathwise` and `ScoreFunction` do. One that draws for itself, as `DisARM`, stays right
            and only costs twice as much.
        mirror: ``mirror(params, x) -> x'``, differentiable if the estimator differentiates draws;
            params as for `Distribution`, or the object of a library. None mirrors Normal,
            multivariate normal, Laplace, Logistic, StudentT and Uniform at their centre, and the
            noise of a `Bernoulli` record at 0.

    Raises:
        TypeError: the estimator is not an instance of one; no mirror is known.

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
    mirror: Callable[[Any, Any], Any] | None = field(default=None, repr=False)

    evaluations: ClassVar[str] = "twice those of the estimator inside"
    when: ClassVar[str] = "f that goes one way through a symmetric distribution"
    needs: ClassVar[str] = "a symmetric distribution, or a mirror"

    def __post_init__(self) -> None:
        check_estimator(self.estimator)

    def terms(
        self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
    ) -> tuple[PyTree, PyTree]:
        opposite = _opposite(self.mirror, distribution)
        one, aux = self.estimator.terms(f, distribution, keys, vmap)
        other, _ = self.estimator.terms(f, opposite, again(keys), vmap)
        return jax.tree.map(lambda a, b: (a + b) / 2, one, other), aux


def _opposite(mirror: Callable[[Any, Any], Any] | None, distribution: Distribution) -> Distribution:
    """The same distribution, whose sampler returns the mirror image."""
    if mirror is None and isinstance(distribution.params, Bernoulli):
        return replace(distribution, sample=_opposite_bits)
    reflect = mirror or _reflected

    def sample(params: Any, key: jax.Array) -> Any:
        return reflect(params, distribution.sample(params, key))

    return replace(distribution, sample=sample)


def _opposite_bits(bits: Bernoulli, key: jax.Array) -> jax.Array:
    return bits.draw_at(-bits.noise(key))


def _reflected(distribution: Any, x: Any) -> jax.Array:
    inner = unwrapped(distribution)
    name = type(inner).__name__
    if name not in _SYMMETRIC and not name.startswith("MultivariateNormal"):
        raise TypeError(
            f"Antithetic knows no mirror image of draws of {name}; give it as "
            f"mirror=lambda params, x: ..., of the same distribution as x."
        )
    centre = getattr(inner, "loc", None)
    if centre is None:
        centre = inner.mean() if callable(inner.mean) else inner.mean
    return 2 * jnp.asarray(centre, x.dtype) - x
