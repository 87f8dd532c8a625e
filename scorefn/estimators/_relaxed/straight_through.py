"""Straight-through estimators, which differentiate f at a discrete draw."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import stop
from scorefn._core.checks import check_number
from scorefn._core.pytree import pytree_dataclass
from scorefn.distributions._discrete import Bernoulli
from scorefn.distributions._subset import Subset

from .relaxation import (
    Relaxable,
    Relaxation,
    carried,
    corner,
    fixed,
    noisy_logits,
    relaxed,
    zeros_along,
)


@pytree_dataclass
class StraightThrough(Relaxation):
    r"""BIASED: f is differentiated at the draw, as if the draw were its mean.

    .. code-block:: text

        b ~ p,  pi = E b: softmax(logits), or sigmoid(logits) for bits
        term        f(b)
        derivative  J(pi) df/db  along the logits,  J(q) u = q (u - q . u), q (1 - q) u for bits

    The value is unbiased; the derivative has the wrong mean unless f is linear, and may have the
    wrong sign. To first order. For bits, one-hot categories and `Subset`, and f differentiable at
    draws given as floats. One evaluation of f and of its derivative for each term. For one bit of
    probability p, with v = p (1 - p), the gradient has the mean ``v (p f'(1) + (1 - p) f'(0))`` and
    the variance ``v^3 (f'(1) - f'(0))^2``.

    With `Subset` it is SIMPLE (Ahmed et al.): pi are the marginals, and J is the covariance of the
    items. docs/subsets.md measures its bias exactly.

    Raises:
        TypeError: the distribution is neither of independent bits, nor of one-hot categories, nor a
            `Subset`; a second derivative is taken; f depends on the draw only through operations
            without a derivative.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     bits, f = sf.Bernoulli(logits), lambda b: b.sum() ** 2
        ...     return sf.expectation(f, bits, key, sf.StraightThrough())
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(0))

    References:
        Bengio, Léonard and Courville, Estimating or propagating gradients through stochastic
        neurons for conditional computation (2013);
        Ahmed et al., SIMPLE: a gradient estimator for k-subset sampling (2023), section 3.
    """

    when: ClassVar[str] = "to compare with the literature; ReinMax is better"
    needs: ClassVar[str] = (
        "independent bits, one-hot categories, or a Subset (SIMPLE); f differentiable at them"
    )
    relaxes_subsets: ClassVar[bool] = True

    def draw(self, record: Relaxable | Subset, key: jax.Array) -> jax.Array:
        if isinstance(record, Subset):
            return carried(record.sample(key), record.marginals())
        hard = corner(record, noisy_logits(record, key))
        return carried(hard, relaxed(record, record.logits))


@pytree_dataclass
class ReinMax(Relaxation):
    r"""BIASED unless f is quadratic: second-order straight-through, by Heun's rule.

    .. code-block:: text

        b ~ p,  pi = softmax(logits),  m = (softmax(logits / temperature) + b) / 2
        term        f(b)
        derivative  2 J(m) df/db - J(pi) df/db / 2  along the logits,  J(q) u = q (u - q . u)

    (sigmoid and J(q) = q (1 - q) for bits). The value is unbiased. At temperature 1 the derivative
    has the right mean if f is quadratic in each factor, with the others fixed. To first order. For
    bits and one-hot categories, and f differentiable at draws given as floats. One evaluation of f
    and of its derivative for each term. For one bit of probability p, with v = p (1 - p), at
    temperature 1, the gradient has the mean ``v (f'(1) + f'(0)) / 2`` and the variance
    ``v (f'(1) (1 - p) / 2 - f'(0) p / 2)^2``.

    Attributes:
        temperature: at least 1. No derivative passes through it.

    Raises:
        TypeError: as `StraightThrough`.
        ValueError: the temperature is below 1.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     bits, f = sf.Bernoulli(logits), lambda b: b.sum() ** 2
        ...     return sf.expectation(f, bits, key, sf.ReinMax())
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(0))

    References:
        Liu et al., Bridging discrete and backpropagation: straight-through and beyond (2023),
        algorithm 2.
    """

    temperature: float | jax.Array = 1.0

    when: ClassVar[str] = "early training with one evaluation, if a bias is acceptable"

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, least=1)

    def draw(self, factors: Relaxable, key: jax.Array) -> jax.Array:
        bits = isinstance(factors, Bernoulli)
        logits, zero = stop(factors.logits), zeros_along(factors.logits)

        def jacobian(q: jax.Array) -> jax.Array:
            others = q * zero if bits else jnp.sum(q * zero, axis=-1, keepdims=True)
            return q * (zero - others)

        hard = corner(factors, noisy_logits(factors, key))
        middle = (relaxed(factors, logits / fixed(self.temperature, logits)) + hard) / 2
        return hard + (2 * jacobian(middle) - jacobian(relaxed(factors, logits)) / 2)
