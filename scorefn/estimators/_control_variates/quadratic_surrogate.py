"""A learned quadratic as a control variate, whose mean follows from two moments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import abstract_key, stop
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.renamed import renamed_keyword
from scorefn._core.types import Cost, Terms, Vmap
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._interop.moments import Moments, read_moments
from scorefn.estimators._base import Estimator, Transformation

from .control_variate import ControlVariate


@renamed_keyword("centre", "center")
@pytree_dataclass
class QuadraticSurrogate(Transformation):
    r"""Any estimator, with a learned quadratic as control variate.

    .. code-block:: text

        v = x - center
        q(x)        slope . v + v' B v / 2
        E q         slope . (E x - center) + ((E x - center)' B (E x - center) + tr(B Cov x)) / 2
        term        the estimator's term for f - q, plus E q

    Unbiased at the orders of the wrapped estimator, for every slope and B that do not depend on the
    draws. Slope and B are leaves, which `squared_gradient` learns while the model is trained. The
    quadratic of least variance is better than the Taylor expansion at the mean (`DeltaMethod`) if f
    is rough, and needs no derivative of f at the mean. For a B of low rank, compute it in the loss
    from other parameters. Costs the evaluations of the wrapped estimator, and one product with B
    for each of them.

    Attributes:
        estimator: the wrapped estimator.
        slope: an array shaped like a draw.
        curvature: B, shared by all outputs of f: its diagonal, shaped like a draw, or a matrix
            [D, D], of which only the symmetric part matters.
        center: an array shaped like a draw; None is the mean of the distribution, held fixed.
        moments: as for `DeltaMethod`.

    Raises:
        TypeError: the estimator is not an instance of one; a draw is not one array of floats; the
            moments cannot be read.
        ValueError: slope, curvature or center does not fit a draw.

    Example:
        >>> import distrax, jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(params, key, estimator):
        ...     normal, f = distrax.Normal(*params), lambda x: jnp.sum(jnp.cosh(x))
        ...     return sf.expectation(f, normal, key, estimator, num_samples=8)
        >>> params = jnp.zeros(3), jnp.full(3, 0.2)
        >>> estimator = sf.QuadraticSurrogate(sf.Pathwise(), jnp.zeros(3), jnp.zeros(3))
        >>> def step(estimator, key):
        ...     slope = jax.grad(sf.squared_gradient, argnums=3)(loss, params, key, estimator)
        ...     return jax.tree.map(lambda x, d: x - 0.1 * d, estimator, slope), None
        >>> keys = jax.random.split(jax.random.key(0), 100)
        >>> learned, _ = jax.lax.scan(step, estimator, keys)

    References:
        Geffner and Domke, Approximation based variance reduction for reparameterization gradients
        (2020), section 3; Miller et al., Reducing reparameterization gradient variance (2017).
    """

    estimator: Estimator
    slope: jax.Array
    curvature: jax.Array
    center: jax.Array | None = field(default=None, kw_only=True)
    moments: Callable[[Any], Moments] | None = static_field(default=None, kw_only=True, repr=False)

    evaluations: ClassVar[str] = "as the wrapped estimator"
    when: ClassVar[str] = "f smooth or rough, while training; a quadratic worth learning"
    needs: ClassVar[str] = "mean and covariance of the draws"

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        mean, scale = read_moments(
            "QuadraticSurrogate", self.moments, distribution, abstract_key(keys)
        )
        slope, curvature, center = self._fitted(mean)

        def quadratic(x: jax.Array) -> jax.Array:
            v = jnp.ravel(x - center)
            return slope @ v + v @ _product(curvature, v) / 2

        def known(_: Any) -> jax.Array:
            return quadratic(mean) + _trace(curvature, scale, mean.shape) / 2

        return ControlVariate(self.estimator, quadratic, known).terms(f, distribution, keys, vmap)

    def _fitted(self, mean: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The slope [D], the curvature [D] or [D, D], and the center."""
        center = stop(mean) if self.center is None else self.center
        given = {"slope": self.slope, "curvature": self.curvature, "center": center}
        arrays = {name: jnp.asarray(array, mean.dtype) for name, array in given.items()}
        square = (mean.size, mean.size)
        for name, array in arrays.items():
            fits = array.shape == mean.shape or (name == "curvature" and array.shape == square)
            if not fits:
                matrix = f", or {square}" if name == "curvature" else ""
                raise ValueError(
                    f"{name} must be shaped like a draw, {mean.shape}{matrix}, got {array.shape}."
                )
        curvature = arrays["curvature"]
        curvature = curvature if curvature.shape == square else jnp.ravel(curvature)
        return jnp.ravel(arrays["slope"]), curvature, arrays["center"]


def _product(curvature: jax.Array, v: jax.Array) -> jax.Array:
    if curvature.ndim == 2:
        return curvature @ v
    return (curvature if v.ndim == 1 else curvature[:, None]) * v


def _trace(curvature: jax.Array, scale: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The trace of the curvature times the covariance."""
    if scale.shape == shape:
        diagonal = curvature if curvature.ndim == 1 else jnp.diag(curvature)
        return diagonal @ jnp.square(jnp.ravel(scale))
    return jnp.sum(scale * _product(curvature, scale))
