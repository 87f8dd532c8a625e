"""Score-function estimators with a control variate of the relaxed draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import abstract_key, held_fixed, is_float, stop
from scorefn._core.checks import check_number
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.types import Cost, PyTree, Terms, Vmap
from scorefn._score import attach_score
from scorefn.distributions._discrete import (
    Bernoulli,
    Categorical,
    Factors,
    OneHotCategorical,
    with_float_draws,
)
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._interop.factors import require_factors
from scorefn.estimators._base import Estimator

from .conditional_noise import coupled_noise


@pytree_dataclass
class REBAR(Estimator):
    r"""The score function, with f at the relaxed draw as control variate.

    .. code-block:: text

        z = logits + noise,  b = H(z),  z' ~ p(z | b),  c(z) = coefficient * f(squash(z))
        term        f(b)
        derivative  df/dparams + (f(b) - c(z')) dlog_prob(b) + dc(z) - dc(z')

    H is a step and squash ``sigmoid(z / temperature)`` for bits; H is argmax and squash
    ``softmax(z / temperature)`` for one-hot categories. z' equals z in value; its derivative is
    that of a draw from p(z | b) at fixed noise.

    Unbiased at every order, for every temperature and coefficient, if f is smooth enough between
    the values of b (continuous, for the first order). Each term takes three evaluations of f, and
    two derivatives. f receives floats: 0., 1. and numbers between them. Derivatives along
    parameters that f closes over come from f(b) only: the control variate holds them fixed, which
    adds no cost and no noise.

    The best temperature and coefficient depend on the problem, and a bad choice can be worse than
    no control variate; `squared_gradient` learns them.

    Attributes:
        temperature: the temperature of the relaxation, a scalar above 0.
        coefficient: the scalar coefficient of the control variate; 0 is the plain score function.

    Raises:
        TypeError: the distribution is neither of independent bits nor of one-hot categories; f
            returns integers.
        ValueError: the temperature is not positive.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key, estimator):
        ...     bits, f = sf.Bernoulli(logits), lambda b: jnp.sum(b - 0.45) ** 2
        ...     return sf.expectation(f, bits, key, estimator)
        >>> logits, key = jnp.zeros(3), jax.random.key(0)
        >>> gradient = jax.jit(jax.grad(loss))(logits, key, sf.REBAR(temperature=0.5))

    References:
        Tucker et al., REBAR: low-variance, unbiased gradient estimates for discrete latent
        variable models (2017), section 3.1.
    """

    temperature: float | jax.Array = 0.5
    coefficient: float | jax.Array = 1.0

    evaluations: ClassVar[str] = "3"
    when: ClassVar[str] = "f smooth between the values, one draw; learn the temperature"
    needs: ClassVar[str] = "independent bits or one-hot categories; f smooth between their values"
    differentiates_f: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0)

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        required: Bernoulli | OneHotCategorical = require_factors(
            distribution,
            abstract_key(keys),
            (Bernoulli, OneHotCategorical),
            "REBAR",
            "RELAX fits the index of a category, LAX continuous draws.",
        )
        factors = with_float_draws(required)

        def squash(z: jax.Array) -> jax.Array:
            z = z / jnp.asarray(self.temperature, z.dtype)
            soft = jax.nn.sigmoid(z) if isinstance(factors, Bernoulli) else jax.nn.softmax(z)
            return soft.astype(factors.dtype)

        def one(key: jax.Array) -> tuple[PyTree, PyTree]:
            choice, z, tied = coupled_noise(factors, key)
            b = factors.cast(choice)
            cost, aux = f(b)
            frozen = held_fixed(lambda x: f(x)[0], stop(b))
            log_prob = factors.log_prob(b)

            def term(cost: jax.Array, free: jax.Array, tied: jax.Array) -> jax.Array:
                coefficient = jnp.asarray(self.coefficient, cost.dtype)
                control = _control(coefficient * free, coefficient * tied, log_prob)
                return attach_score(cost, log_prob) + control

            return jax.tree.map(term, cost, frozen(squash(z)), frozen(squash(tied))), aux

        return vmap(one)(keys)


@pytree_dataclass
class RELAX(Estimator):
    r"""The score function, with a learned function of the noisy logits as control variate.

    .. code-block:: text

        z = log-probabilities + noise,  b = H(z),  z' ~ p(z | b),  c(z) = surrogate(params, z)
        term        f(b)
        derivative  df/dparams + (f(b) - c(z')) dlog_prob(b) + dc(z) - dc(z')

    For bits, z is the logits with logistic noise, and H is a step. For categories, by index or
    one-hot, z is the log-probabilities with Gumbel noise, [..., C], and H is argmax. z' equals z in
    value; its derivative is that of a draw from p(z | b) at fixed noise.

    Unbiased at every order, for every surrogate that is smooth enough for this order. f may be any
    function; it is not differentiated in b. Each term takes one evaluation of f, and two of the
    surrogate and its derivative. A surrogate that calls f, relaxed as in `REBAR`, takes two more.

    Attributes:
        surrogate: ``surrogate(params, z)``, returning a scalar float near f(H(z)), for all outputs
            of f.
        params: any pytree of arrays; `squared_gradient` learns them. The derivative of the
            expectation along them is 0.

    Raises:
        TypeError: the distribution is neither of independent bits nor of categories; the surrogate
            does not return a float.
        ValueError: the surrogate returns more than one number.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def surrogate(params, z):
        ...     return jnp.vdot(params["weights"], jax.nn.sigmoid(z)) + params["bias"]
        >>> estimator = sf.RELAX(surrogate, {"weights": jnp.zeros(3), "bias": jnp.zeros(())})
        >>> def loss(logits, key, estimator):
        ...     return sf.expectation(lambda b: b.sum() ** 2, sf.Bernoulli(logits), key, estimator)
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(0), estimator)

    References:
        Grathwohl et al., Backpropagation through the void: optimizing control variates for
        black-box gradient estimation (2018), equation 8.
    """

    surrogate: Callable[[PyTree, Any], jax.Array] = static_field(repr=False)
    params: PyTree

    when: ClassVar[str] = "black-box f, one draw, a surrogate worth training"
    needs: ClassVar[str] = "independent bits or categories; any f; a surrogate"

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        factors: Factors = require_factors(
            distribution,
            abstract_key(keys),
            (Bernoulli, Categorical, OneHotCategorical),
            "RELAX",
            "LAX fits continuous draws.",
        )

        def one(key: jax.Array) -> tuple[PyTree, PyTree]:
            choice, z, tied = coupled_noise(factors, key)
            b = factors.cast(choice)
            return controlled(self.surrogate, self.params, f, b, factors.log_prob(b), z, tied)

        return vmap(one)(keys)


def _control(free: jax.Array, tied: jax.Array, log_prob: jax.Array) -> jax.Array:
    """A 0 with derivatives of mean 0: that of E[c(z)] by the path minus that by the score."""
    control = free - attach_score(tied, log_prob)
    return control - stop(control)


def controlled(
    surrogate: Callable[[PyTree, Any], jax.Array],
    params: PyTree,
    f: Cost,
    x: Any,
    log_prob: jax.Array,
    free: Any,
    tied: Any,
) -> tuple[PyTree, PyTree]:
    """The score-function term of f, with the surrogate as control variate.

    Args:
        surrogate: ``surrogate(params, z)``.
        params: the parameters of the surrogate.
        f: a function of x that returns ``(cost, aux)``.
        x: the draw, stopped.
        log_prob: the log-probability of the draw.
        free: z, the argument of the surrogate.
        tied: z', the argument of the surrogate given the draw.
    """
    cost, aux = f(x)
    at_free, at_tied = (_one_float(surrogate(params, z)) for z in (free, tied))
    control = _control(at_free, at_tied, log_prob)

    def term(cost: jax.Array) -> jax.Array:
        return attach_score(cost, log_prob) + control.astype(cost.dtype)

    return jax.tree.map(term, cost), aux


def _one_float(value: Any) -> jax.Array:
    if not is_float(value):
        got = getattr(value, "dtype", type(value).__name__)
        raise TypeError(f"surrogate must return a scalar float, got {got}.")
    if jnp.shape(value) != ():
        raise ValueError(f"surrogate must return one number, got shape {jnp.shape(value)}; sum it.")
    return jnp.asarray(value)
