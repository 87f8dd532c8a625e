"""Relaxed bits and one-hot categories, and straight-through estimators based on them."""

from __future__ import annotations

import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import stop
from scorefn._core.checks import check_count, check_number
from scorefn._core.pytree import pytree_dataclass, static_field

from .relaxation import (
    Relaxable,
    Relaxation,
    carried,
    corner,
    fixed,
    noisy_logits,
    noisy_logits_given,
    relaxed,
    zeros_along,
)


@pytree_dataclass
class GumbelSoftmax(Relaxation):
    r"""BIASED: the draw is relaxed to a point between its values (Concrete).

    .. code-block:: text

        y = softmax((logits + Gumbel noise) / temperature), or sigmoid((logits + logistic noise)
            / temperature) for bits
        term        f(y)
        derivative  df/dy * dy/dlogits

    Value and derivatives are unbiased, at every order, for the relaxed objective E f(y). As the
    temperature tends to 0, E f(y) tends to E f(b), and the variance grows without bound. For bits
    and one-hot categories, and f defined and differentiable between them. One evaluation of f and
    of its derivative for each term.

    Attributes:
        temperature: above 0. It is part of the relaxed objective, and may be differentiated.

    Raises:
        TypeError: the distribution is neither of independent bits nor of one-hot categories; f
            depends on the draw only through operations without a derivative.
        ValueError: the temperature is not positive.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     bits, f = sf.Bernoulli(logits), lambda y: y.sum() ** 2
        ...     return sf.expectation(f, bits, key, sf.GumbelSoftmax(0.5))
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(0))

    References:
        Jang, Gu and Poole, Categorical reparameterization with Gumbel-softmax (2017), equation 2;
        Maddison, Mnih and Teh, The Concrete distribution (2017), section 3.
    """

    temperature: float | jax.Array

    order: ClassVar[float] = math.inf
    when: ClassVar[str] = "training on the relaxed objective itself"
    needs: ClassVar[str] = (
        "independent bits or one-hot categories; f differentiable at and between them"
    )

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0)

    def draw(self, factors: Relaxable, key: jax.Array) -> jax.Array:
        noisy = noisy_logits(factors, key)
        return relaxed(factors, noisy / jnp.asarray(self.temperature, noisy.dtype))


@pytree_dataclass
class StraightThroughGumbelSoftmax(Relaxation):
    r"""BIASED: f is evaluated at the draw and differentiated through its relaxation.

    .. code-block:: text

        y = softmax((logits + Gumbel noise) / temperature), or sigmoid((logits + logistic noise)
            / temperature) for bits;  b the corner nearest to y
        term        f(b)
        derivative  df/db * dy/dlogits

    The value is unbiased. The derivative is not: in expectation it is neither that of E f(b) nor
    that of E f(y). To first order. For bits and one-hot categories, and f differentiable at draws
    given as floats. One evaluation of f and of its derivative for each term. `GumbelRao` has this
    mean with a lower variance.

    Attributes:
        temperature: above 0. No derivative passes through it.

    Raises:
        TypeError: as `StraightThrough`.
        ValueError: the temperature is not positive.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     bits, f = sf.Bernoulli(logits), lambda b: b.sum() ** 2
        ...     return sf.expectation(f, bits, key, sf.StraightThroughGumbelSoftmax(0.5))
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(0))

    References:
        Jang, Gu and Poole, Categorical reparameterization with Gumbel-softmax (2017), section 2.2.
    """

    temperature: float | jax.Array

    when: ClassVar[str] = "f needs discrete values, and a bias is acceptable"

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0)

    def draw(self, factors: Relaxable, key: jax.Array) -> jax.Array:
        noisy = noisy_logits(factors, key)
        scaled = noisy / fixed(self.temperature, noisy)
        return carried(corner(factors, noisy), relaxed(factors, scaled))


@pytree_dataclass
class GumbelRao(Relaxation):
    r"""BIASED: straight-through Gumbel-softmax, averaged over the noise given the draw.

    .. code-block:: text

        b ~ p,  G_1 ... G_M the noise given b, held fixed
        y_m = softmax((logits + G_m) / temperature), sigmoid for bits
        term        f(b)
        derivative  df/db * mean_m dy_m/dlogits

    The value is unbiased. The derivative has the (wrong) mean of `StraightThroughGumbelSoftmax`
    with a lower variance, which decreases with M. To first order. For bits and one-hot categories,
    and f differentiable at draws given as floats. One evaluation of f and of its derivative for
    each term, for any M.

    Attributes:
        temperature: above 0. No derivative passes through it.
        num_conditional: M, the draws of noise for each draw of b.

    Raises:
        TypeError: as `StraightThrough`.
        ValueError: the temperature is not positive; num_conditional is below 1.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     bits, f = sf.Bernoulli(logits), lambda b: b.sum() ** 2
        ...     return sf.expectation(f, bits, key, sf.GumbelRao(0.5, num_conditional=16))
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(0))

    References:
        Paulus, Maddison and Krause, Rao-Blackwellizing the straight-through Gumbel-softmax
        gradient estimator (2021).
    """

    temperature: float | jax.Array
    num_conditional: int = static_field(default=10, kw_only=True)

    when: ClassVar[str] = "as StraightThroughGumbelSoftmax, for an expensive f"

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0)
        check_count("num_conditional", self.num_conditional)

    def draw(self, factors: Relaxable, key: jax.Array) -> jax.Array:
        draw_key, noise_key = jax.random.split(key)
        hard = corner(factors, noisy_logits(factors, draw_key))

        def soft(key: jax.Array) -> jax.Array:
            # The noise given b depends on the logits, and must not be differentiated.
            noisy = stop(noisy_logits_given(factors, hard, key)) + zeros_along(factors.logits)
            return relaxed(factors, noisy / fixed(self.temperature, noisy))

        softs = jax.vmap(soft)(jax.random.split(noise_key, self.num_conditional))
        return carried(hard, jnp.mean(softs, axis=0))
