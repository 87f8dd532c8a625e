"""The Taylor expansion of f around the mean of the distribution as its control variate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import abstract_key, as_local, held_fixed, stop
from scorefn._core.checks import check_choice
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.types import Cost, PyTree, Terms, Vmap
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._interop.moments import Moments, read_moments
from scorefn.estimators._base import Estimator, Transformation
from scorefn.estimators._cost_guard import as_control_variate


@pytree_dataclass
class DeltaMethod(Transformation):
    r"""Any estimator, with the Taylor expansion of f around the mean as its control variate.

    .. code-block:: text

        m the mean of x, fixed;  v = x - m
        h(x)        f(m) + f'(m) v + v' f''(m) v / 2   (last term for degree 2 only)
        E h         f(m) + f'(m) (E x - m) + ((E x - m)' f''(m) (E x - m) + tr(f''(m) Cov x)) / 2
        term        the estimator's term for f - c h, plus c E h

    Unbiased at the orders of the wrapped estimator: h holds the expansion point and the parameters
    that f closes over fixed, and E h is differentiated only through the mean and the covariance of
    x. With degree 2 a quadratic f has no variance. It lowers the variance if f is smooth at the
    scale of the distribution, and raises it if f is rough. With `ScoreFunction` and degree 1 it is
    MuProp; do not combine that with a nonzero `ConstantBaseline`, because the expansion already
    contains the constant of f.

    Each term costs one evaluation of f, a first derivative at m and, for degree 2, a second
    derivative along its own v, in forward mode, without a Hessian. f is evaluated at m 6 times (3
    for degree 1) for all terms together. The trace takes one second derivative for each component
    of x, once; with ``trace="hutchinson"`` it takes one for each term, in a random direction, which
    is unbiased and noisier.

    Attributes:
        estimator: the wrapped estimator.
        degree: 1 or 2.
        coefficient: c, a number; a leaf, which `squared_gradient` learns.
        trace: "exact" or "hutchinson".
        moments: ``moments(params) -> (mean, scale)``, differentiable. mean is shaped like a draw;
            scale holds the standard deviations of independent components, shaped like a draw, or a
            square root [D, D] of the covariance of a draw [D]. None reads the moments of
            independent scalar factors and multivariate normals of distrax, TFP or numpyro, of a
            `Bernoulli` and of a `Subset`, whose covariance, for degree 2, takes O(n^2 k + n^3).

    Raises:
        TypeError: the estimator is not an instance of one; a draw is not one array of floats; the
            moments cannot be read.
        ValueError: the moments do not fit the draws; degree or trace is not one of the choices.

    Example:
        >>> import distrax, jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(params, key):
        ...     normal, f = distrax.Normal(*params), lambda x: jnp.sum(jnp.cosh(x))
        ...     estimator = sf.DeltaMethod(sf.Pathwise())
        ...     return sf.expectation(f, normal, key, estimator, num_samples=8)
        >>> gradient = jax.jit(jax.grad(loss))((jnp.zeros(3), jnp.full(3, 0.2)), jax.random.key(0))

    References:
        Miller et al., Reducing reparameterization gradient variance (2017), section 3; Gu et al.,
        MuProp: unbiased backpropagation for stochastic neural networks (2016); Mohamed et al.,
        Monte Carlo Gradient Estimation in Machine Learning (2020), section 7.4.2.
    """

    estimator: Estimator
    degree: int = static_field(default=2)
    coefficient: float | jax.Array = 1.0
    trace: str = static_field(default="exact", kw_only=True)
    moments: Callable[[Any], Moments] | None = static_field(default=None, kw_only=True, repr=False)

    evaluations: ClassVar[str] = "1, and 3 or 6 once for all terms; derivatives of f at the mean"
    when: ClassVar[str] = "f smooth at the scale of the distribution"
    needs: ClassVar[str] = "mean and covariance of the draws; f differentiable"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("degree", self.degree, (1, 2))
        check_choice("trace", self.trace, ("exact", "hutchinson"))

    @property
    def differentiates_f(self) -> bool:  # type: ignore[override]
        """True: the control variate differentiates f at the mean."""
        return True

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        # Outside the map over samples, because all of them share the evaluations of f at the mean.
        moments = read_moments(
            "DeltaMethod",
            self.moments,
            distribution,
            abstract_key(keys),
            mean_only=self.degree == 1,
        )
        mean, scale = as_local(moments, jax.random.key_data(keys))
        point = stop(mean)
        with as_control_variate():
            frozen = held_fixed(lambda x: f(x)[0], point)

        def slope(x: jax.Array, v: jax.Array) -> PyTree:
            return jax.jvp(frozen, (x,), (v,))[1]

        def curvature(v: jax.Array) -> PyTree:
            return jax.jvp(lambda x: slope(x, v), (point,), (v,))[1]

        def expansion(v: jax.Array) -> PyTree:
            first = jax.tree.map(jnp.add, constant, slope(point, v))
            if self.degree == 1:
                return first
            return jax.tree.map(lambda a, b: a + b / 2, first, curvature(v))

        # A custom_vjp has no forward mode. Under vmap JAX says so; in chunks there may be none.
        jax.eval_shape(jax.vmap(slope, (None, 0)), point, point[None])
        constant = frozen(point)

        def controlled(x: jax.Array) -> tuple[PyTree, PyTree]:
            cost, aux = f(x)
            control = expansion(x - point)
            return jax.tree.map(lambda a, h: a - self._times(h), cost, control), aux

        hutchinson = self.degree == 2 and self.trace == "hutchinson"
        if hutchinson:
            pairs = jax.vmap(jax.random.split)(keys)
            keys, probes = pairs[:, 0], pairs[:, 1]
        terms, aux = self.estimator.terms(controlled, distribution, keys, vmap)
        known = expansion(mean - point)

        def spread(v: jax.Array) -> PyTree:
            return jax.tree.map(lambda q: q / 2, curvature(v))

        if self.degree == 2 and not hutchinson:
            each = jax.vmap(spread)(_columns(scale, point))
            known = jax.tree.map(lambda k, q: k + jnp.sum(q, axis=0), known, each)
        terms = jax.tree.map(lambda term, k: term + self._times(k)[None], terms, known)
        if hutchinson:

            def random(key: jax.Array) -> PyTree:
                signs = jax.random.rademacher(key, point.shape, point.dtype)
                return spread(scale @ signs if scale.shape != point.shape else scale * signs)

            noisy = vmap(random)(probes)
            terms = jax.tree.map(lambda term, q: term + self._times(q), terms, noisy)
        return terms, aux

    def _times(self, control: jax.Array) -> jax.Array:
        return jnp.asarray(self.coefficient, control.dtype) * control


def _columns(scale: jax.Array, point: jax.Array) -> jax.Array:
    """The columns of a square root of the covariance, each shaped like a draw."""
    if scale.shape != point.shape:
        return scale.T
    flat = jnp.ravel(scale)
    return (flat[:, None] * jnp.eye(flat.size, dtype=flat.dtype)).reshape(-1, *point.shape)
