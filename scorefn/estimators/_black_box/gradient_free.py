"""Derivatives of a black box along random directions: finite differences and forward mode."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import as_local, stop
from scorefn._core.checks import check_number
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.types import Cost, PyTree, Terms, Vmap
from scorefn.distributions._distribution import Distribution
from scorefn.estimators._base import Estimator

from .directions import (
    Direction,
    DirectionalDifference,
    attached,
    pair_of_costs,
    perturbable,
    zero_along_tree,
)


@pytree_dataclass
class SPSA(DirectionalDifference):
    r"""BIASED by O(step^2): simultaneous perturbation, a finite difference of a black box.

    .. code-block:: text

        d an array of independent random signs, shaped like the draw x
        term        (f(x + step d) + f(x - step d)) / 2
        derivative  (f(x + step d) - f(x - step d)) / (2 step) * d  along x

    If f is quadratic in x, the derivative is unbiased, and the value is biased by
    ``step^2 trace(f'') / 2``. To first order; for any f. Two evaluations of f for each term, for
    any size of x. For a linear f of n parameters with gradient g the total variance is
    ``(n - 1) |g|^2``.

    It is meant for parameters, ``Deterministic(params)``. Any distribution with a differentiable
    sampler works: it is then `Pathwise` with an estimated df/dx. In float32 the difference of two
    costs near c has an error of 1e-7 c; choose a step for which the difference is much larger.

    Attributes:
        step: above 0, in units of x. No derivative passes through it.

    Raises:
        TypeError: draws are not floats; a second derivative is taken, or one with respect to a
            parameter on which the draw depends without a derivative.
        ValueError: the step is not positive.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(params, key):
        ...     f, point = lambda p: jnp.round(p, 2).sum(), sf.Deterministic(params)
        ...     return sf.expectation(f, point, key, sf.SPSA(0.1), num_samples=8)
        >>> gradient = jax.jit(jax.grad(loss))(jnp.ones(3), jax.random.key(0))

    References:
        Spall, Multivariate stochastic approximation using a simultaneous perturbation gradient
        approximation (1992), equation 2.2.
    """

    step: float | jax.Array

    when: ClassVar[str] = "a black box of many parameters, smooth"

    def __post_init__(self) -> None:
        check_number("step", self.step, above=0)

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        step = stop(jnp.asarray(self.step))
        draw = perturbable(self, distribution, keys)
        return vmap(
            lambda key: attached(*pair_of_costs(f, draw, jax.random.rademacher, step, key))
        )(keys)


@pytree_dataclass
class ForwardGradient(Estimator):
    r"""The derivative along a random direction, by forward mode.

    .. code-block:: text

        v random with mean 0 and covariance 1, shaped like the draw x
        term        f(x)
        derivative  (df/dx . v) v  along x

    Unbiased, to first order, if f has a forward derivative. f may contain a ``while_loop``, which
    reverse mode refuses, and the memory does not grow with its length. One evaluation of f and of
    its derivative for each term, without a backward pass. For n parameters and the gradient g the
    total variance is ``(n - 1) |g|^2`` with signs and ``(n + 1) |g|^2`` with normal directions.

    It is meant for parameters, ``Deterministic(params)``. Any distribution with a differentiable
    sampler works: it is then `Pathwise` with an estimated df/dx.

    Attributes:
        direction: ``direction(key, shape, dtype)``, returning independent numbers of mean 0 and
            variance 1: ``jax.random.rademacher`` (random signs, the default) or
            ``jax.random.normal``.

    Raises:
        TypeError: draws are not floats; f returns integers; a second derivative is taken, or one
            with respect to a parameter on which the draw depends without a derivative.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(params, key):
        ...     f, point = lambda p: (p**2).sum(), sf.Deterministic(params)
        ...     return sf.expectation(f, point, key, sf.ForwardGradient(), num_samples=8)
        >>> gradient = jax.jit(jax.grad(loss))(jnp.ones(3), jax.random.key(0))

    References:
        Baydin et al., Gradients without backpropagation (2022), definition 1.
    """

    direction: Direction = static_field(default=jax.random.rademacher, repr=False)

    order: ClassVar[float] = 1
    evaluations: ClassVar[str] = "1 with a forward derivative"
    when: ClassVar[str] = "f without reverse mode, or too much memory for it"
    needs: ClassVar[str] = (
        "parameters, as scorefn.Deterministic, or a differentiable sampler; f differentiable, "
        "continuous"
    )
    differentiates_f: ClassVar[bool] = True

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        draw = perturbable(self, distribution, keys)

        def one(key: jax.Array) -> tuple[PyTree, PyTree]:
            x, v = draw(key, self.direction)
            costs, slopes, aux = jax.jvp(f, (as_local(stop(x), v),), (v,), has_aux=True)
            zero = zero_along_tree(x, v)
            return jax.tree.map(lambda a, b: a + b * zero.astype(a.dtype), costs, slopes), aux

        return vmap(one)(keys)
