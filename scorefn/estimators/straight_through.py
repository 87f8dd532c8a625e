"""Biased surrogates for bits and one-hot categories: f is differentiated at or near the draw."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp

from .._arguments import check_count, check_number
from .._distribution import Distribution, stop
from .._factors import Bernoulli, OneHotCategorical, read_factors
from .._guard import reach
from .._poison import first_order, poisoned
from ._estimator import Cost, Estimator, PyTree, Vmap

Factors = Bernoulli | OneHotCategorical


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class StraightThrough(Estimator):
    r"""BIASED: f is differentiated at the draw, as if the draw were its own mean.

    .. code-block:: text

        b ~ p,  pi = softmax(logits), or sigmoid(logits) for bits
        term        f(b)
        derivative  J(pi) df/db  along the logits,  J(q) u = q (u - q . u), q (1 - q) u for bits

    The value is unbiased; the derivative has the wrong mean unless f is linear, and may have the
    wrong sign. To first order. For bits and one-hot categories, and an f that is differentiable at
    draws handed in as floats. One evaluation of f and of its derivative for each term. For one bit
    of probability p, v = p (1 - p), the gradient has the mean ``v (p f'(1) + (1 - p) f'(0))`` and
    the variance ``v^3 (f'(1) - f'(0))^2``.

    Raises:
        TypeError: the distribution is neither of independent bits nor of one-hot categories; a
            second derivative is taken; f reads the draw through operations without derivative.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     bits, f = sf.Bernoulli(logits), lambda b: b.sum() ** 2
        ...     return sf.expectation(f, bits, key, sf.StraightThrough())
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(0))

    References:
        Bengio, Léonard and Courville, Estimating or propagating gradients through stochastic
        neurons for conditional computation (2013), section 4.
    """

    unbiased: ClassVar[bool] = False
    order: ClassVar[float] = 1
    evaluations: ClassVar[str] = "1"
    needs: ClassVar[str] = "independent bits or one-hot categories; f differentiable at them"
    differentiates_f: ClassVar[bool] = True

    def terms(
        self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
    ) -> tuple[PyTree, PyTree]:
        def draw(factors: Factors, key: jax.Array) -> jax.Array:
            return _carried(
                _hard(factors, _perturbed(factors, key)), _soft(factors, factors.logits)
            )

        return _through(self, draw, f, distribution, keys, vmap)


@partial(jax.tree_util.register_dataclass, data_fields=["temperature"], meta_fields=[])
@dataclass(frozen=True)
class ReinMax(Estimator):
    r"""BIASED, except for quadratic f: straight-through of second order, by Heun's rule.

    .. code-block:: text

        b ~ p,  pi = softmax(logits),  m = (softmax(logits / temperature) + b) / 2
        term        f(b)
        derivative  2 J(m) df/db - J(pi) df/db / 2  along the logits,  J(q) u = q (u - q . u)

    (sigmoid and J(q) = q (1 - q) for bits). The value is unbiased; at temperature 1 the derivative
    has the right mean if f is quadratic and one bit or category is drawn; for several factors f
    must be quadratic in each, with the others fixed. To first order. For bits and one-hot
    categories, and an f that is differentiable at draws handed in as floats. One evaluation of f
    and of its derivative for each term. For one bit of probability p, v = p (1 - p), at
    temperature 1, the gradient has the mean ``v (f'(1) + f'(0)) / 2`` and the variance
    ``v (f'(1) (1 - p) / 2 - f'(0) p / 2)^2``.

    Attributes:
        temperature: at least 1. No derivative passes through it.

    Raises:
        TypeError: as `StraightThrough`.
        ValueError: a temperature below 1.

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

    unbiased: ClassVar[bool] = False
    order: ClassVar[float] = 1
    evaluations: ClassVar[str] = "1"
    needs: ClassVar[str] = "independent bits or one-hot categories; f differentiable at them"
    differentiates_f: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, least=1)

    def terms(
        self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
    ) -> tuple[PyTree, PyTree]:
        def draw(factors: Factors, key: jax.Array) -> jax.Array:
            bits = isinstance(factors, Bernoulli)
            logits, zero = stop(factors.logits), _zero(factors.logits)

            def jacobian(q: jax.Array) -> jax.Array:
                others = q * zero if bits else jnp.sum(q * zero, axis=-1, keepdims=True)
                return q * (zero - others)

            hard = _hard(factors, _perturbed(factors, key))
            middle = (_soft(factors, logits / _number(self.temperature, logits)) + hard) / 2
            return hard + (2 * jacobian(middle) - jacobian(_soft(factors, logits)) / 2)

        return _through(self, draw, f, distribution, keys, vmap)


@partial(jax.tree_util.register_dataclass, data_fields=["temperature"], meta_fields=[])
@dataclass(frozen=True)
class GumbelSoftmax(Estimator):
    r"""BIASED: the draw itself is relaxed, to a point between its values; also called Concrete.

    .. code-block:: text

        y = softmax((logits + Gumbel noise) / temperature), or sigmoid((logits + logistic noise)
            / temperature) for bits
        term        f(y)
        derivative  df/dy * dy/dlogits

    Value and derivatives are unbiased, at every order, for the relaxed objective E f(y), which
    tends to E f(b) as the temperature goes to 0 while the variance grows without bound. For bits
    and one-hot categories, and an f that is defined and differentiable between them. One evaluation
    of f and of its derivative for each term.

    Attributes:
        temperature: above 0. It is part of the relaxed objective, and may be differentiated.

    Raises:
        TypeError: the distribution is neither of independent bits nor of one-hot categories; f
            reads the draw through operations without derivative.
        ValueError: a temperature that is not positive.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     bits, f = sf.Bernoulli(logits), lambda y: y.sum() ** 2
        ...     return sf.expectation(f, bits, key, sf.GumbelSoftmax(0.5))
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(0))

    References:
        Jang, Gu and Poole, Categorical reparameterization with Gumbel-softmax (2017), equation 2;
        Maddison, Mnih and Teh, The Concrete distribution (2017), equation 10.
    """

    temperature: float | jax.Array

    unbiased: ClassVar[bool] = False
    evaluations: ClassVar[str] = "1"
    needs: ClassVar[str] = (
        "independent bits or one-hot categories; f differentiable at and between them"
    )
    differentiates_f: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0)

    def terms(
        self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
    ) -> tuple[PyTree, PyTree]:
        def draw(factors: Factors, key: jax.Array) -> jax.Array:
            noisy = _perturbed(factors, key)
            return _soft(factors, noisy / jnp.asarray(self.temperature, noisy.dtype))

        return _through(self, draw, f, distribution, keys, vmap)


@partial(jax.tree_util.register_dataclass, data_fields=["temperature"], meta_fields=[])
@dataclass(frozen=True)
class StraightThroughGumbelSoftmax(Estimator):
    r"""BIASED: f is differentiated at the draw, which is differentiated as if it were relaxed.

    .. code-block:: text

        y = softmax((logits + Gumbel noise) / temperature), or sigmoid((logits + logistic noise)
            / temperature) for bits;  b the corner nearest to y
        term        f(b)
        derivative  df/db * dy/dlogits

    The value is unbiased, the derivative is not: it is neither that of E f(b) nor that of E f(y).
    To first order. For bits and one-hot categories, and an f that is differentiable at draws
    handed in as floats. One evaluation of f and of its derivative for each term. `GumbelRao` has
    the same mean and less variance.

    Attributes:
        temperature: above 0. No derivative passes through it.

    Raises:
        TypeError: as `StraightThrough`.
        ValueError: a temperature that is not positive.

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

    unbiased: ClassVar[bool] = False
    order: ClassVar[float] = 1
    evaluations: ClassVar[str] = "1"
    needs: ClassVar[str] = "independent bits or one-hot categories; f differentiable at them"
    differentiates_f: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0)

    def terms(
        self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
    ) -> tuple[PyTree, PyTree]:
        def draw(factors: Factors, key: jax.Array) -> jax.Array:
            noisy = _perturbed(factors, key)
            scaled = noisy / _number(self.temperature, noisy)
            return _carried(_hard(factors, noisy), _soft(factors, scaled))

        return _through(self, draw, f, distribution, keys, vmap)


@partial(
    jax.tree_util.register_dataclass, data_fields=["temperature"], meta_fields=["num_conditional"]
)
@dataclass(frozen=True)
class GumbelRao(Estimator):
    r"""BIASED: straight-through Gumbel-softmax, averaged over the noise that gives the same draw.

    .. code-block:: text

        b ~ p,  G_1 ... G_M the noise given b, which counts as fixed
        y_m = softmax((logits + G_m) / temperature), sigmoid for bits
        term        f(b)
        derivative  df/db * mean_m dy_m/dlogits

    The value is unbiased; the derivative has the (wrong) mean of `StraightThroughGumbelSoftmax`
    and less variance, the less the more draws of noise. To first order. For bits and one-hot
    categories, and an f that is differentiable at draws handed in as floats. One evaluation of f
    and of its derivative for each term, whatever M.

    Attributes:
        temperature: above 0. No derivative passes through it.
        num_conditional: M, the draws of noise for each draw of b.

    Raises:
        TypeError: as `StraightThrough`.
        ValueError: a temperature that is not positive, num_conditional below 1.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     bits, f = sf.Bernoulli(logits), lambda b: b.sum() ** 2
        ...     return sf.expectation(f, bits, key, sf.GumbelRao(0.5, num_conditional=16))
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(0))

    References:
        Paulus, Maddison and Krause, Rao-Blackwellizing the straight-through Gumbel-softmax
        gradient estimator (2021), equations 9 and 10.
    """

    temperature: float | jax.Array
    num_conditional: int = field(default=10, kw_only=True)

    unbiased: ClassVar[bool] = False
    order: ClassVar[float] = 1
    evaluations: ClassVar[str] = "1"
    needs: ClassVar[str] = "independent bits or one-hot categories; f differentiable at them"
    differentiates_f: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0)
        check_count("num_conditional", self.num_conditional)

    def terms(
        self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
    ) -> tuple[PyTree, PyTree]:
        def draw(factors: Factors, key: jax.Array) -> jax.Array:
            draw_key, *keys = jax.random.split(key, 1 + self.num_conditional)
            hard = _hard(factors, _perturbed(factors, draw_key))

            def soft(key: jax.Array) -> jax.Array:
                # The noise given b moves with the logits, and must not be differentiated.
                noisy = stop(_perturbed_given(factors, hard, key)) + _zero(factors.logits)
                return _soft(factors, noisy / _number(self.temperature, noisy))

            return _carried(hard, jnp.mean(jax.vmap(soft)(jnp.stack(keys)), axis=0))

        return _through(self, draw, f, distribution, keys, vmap)


def _through(
    estimator: Estimator,
    draw: Callable[[Factors, jax.Array], jax.Array],
    f: Cost,
    distribution: Distribution,
    keys: jax.Array,
    vmap: Vmap,
) -> tuple[PyTree, PyTree]:
    """Costs and aux at the draws, which carry their own derivative."""
    name = type(estimator).__name__
    factors = read_factors(distribution, keys[0])
    if not isinstance(factors, Bernoulli | OneHotCategorical):
        raise TypeError(
            f"{name} needs independent bits or one-hot categories, as scorefn.Bernoulli(logits), "
            f"scorefn.OneHotCategorical(logits) or those of a library, got "
            f"{type(distribution.params).__name__}. The index of a category has no derivative: "
            f"draw one-hot vectors. ScoreFunction fits every distribution."
        )
    logits = jnp.asarray(factors.logits)
    wide = jnp.promote_types(logits.dtype, jnp.float32)
    given = (d for d in (factors.dtype, logits.dtype) if d is not None)
    dtype = next((d for d in given if jnp.issubdtype(d, jnp.floating)), wide)

    def drawn(logits: jax.Array, key: jax.Array) -> jax.Array:
        return draw(replace(factors, logits=logits.astype(wide)), key).astype(dtype)

    found = reach(lambda x: f(x)[0], jax.eval_shape(drawn, logits, keys[0]), keys[0])
    if any(found.by_value) and not any(found.by_derivative):
        logits = poisoned(
            logits,
            f"{name} differentiates f, but f reads the draw only through operations without "
            f"derivative (a cast to integers, an index, a comparison): the gradient would silently "
            f"be 0. Use ScoreFunction, or DisARM for bits; or write f as arithmetic on the draw.",
        )
    if estimator.order == 1:
        logits = first_order(logits, name)
    return vmap(lambda key: f(drawn(logits, key)))(keys)


def _perturbed(factors: Factors, key: jax.Array) -> jax.Array:
    """The logits and their noise: their sign, or their largest, is the draw."""
    logits = factors.logits
    if isinstance(factors, Bernoulli):
        return logits - factors.noise(key)
    return logits + jax.random.gumbel(key, logits.shape, logits.dtype)


def _perturbed_given(factors: Factors, hard: jax.Array, key: jax.Array) -> jax.Array:
    """The logits and their noise, given the draw.

    The largest of logits that are normalised, plus Gumbels, is a standard Gumbel whatever its
    index; each other one is a Gumbel of its own cut off there. With E = exp(-Gumbel):
    -log(E_top) and -log(E_i / p_i + E_top). For bits only the difference of the two matters.
    """
    if isinstance(factors, Bernoulli):
        noise, sign = factors.noise(key), 2 * hard - 1
        beyond = jax.nn.softplus(sign * factors.logits - jax.nn.softplus(noise))
        return sign * (beyond + jax.nn.softplus(-noise))
    log_probs = jax.nn.log_softmax(factors.logits)
    gumbels = jax.random.gumbel(key, log_probs.shape, log_probs.dtype)
    top = jnp.sum(jnp.where(hard > 0, gumbels, 0), axis=-1, keepdims=True)
    return jnp.where(hard > 0, top, -jnp.logaddexp(-gumbels - log_probs, -top))


def _hard(factors: Factors, noisy: jax.Array) -> jax.Array:
    noisy = stop(noisy)
    if isinstance(factors, Bernoulli):
        return (noisy > 0).astype(noisy.dtype)
    return jax.nn.one_hot(jnp.argmax(noisy, axis=-1), noisy.shape[-1], dtype=noisy.dtype)


def _soft(factors: Factors, logits: jax.Array) -> jax.Array:
    return (jax.nn.sigmoid if isinstance(factors, Bernoulli) else jax.nn.softmax)(logits)


def _carried(hard: jax.Array, soft: jax.Array) -> jax.Array:
    """The hard draw, bit for bit, with the derivative of the soft one."""
    return hard + (soft - stop(soft))


def _zero(logits: jax.Array) -> jax.Array:
    """Zeros whose derivative is that of the logits; infinite ones have none."""
    logits = jnp.where(jnp.isinf(logits), 0, logits)
    return logits - stop(logits)


def _number(temperature: float | jax.Array, like: jax.Array) -> jax.Array:
    return stop(jnp.asarray(temperature, like.dtype))
