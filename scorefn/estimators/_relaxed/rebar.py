"""Estimators whose control variate is a relaxation of the draw, with its pathwise derivative."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import abstract_key, held_fixed, is_float, stop
from scorefn._core.checks import check_number
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.types import Cost, PyTree, Vmap
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
    r"""The score function, with f of the relaxed draw as its control variate.

    .. code-block:: text

        z = logits + noise,  b = H(z),  z' ~ p(z | b),  c(z) = coefficient * f(squash(z))
        term        f(b)
        derivative  df/dparams + (f(b) - c(z')) dlog_prob(b) + dc(z) - dc(z')

    H is a step and squash ``sigmoid(z / temperature)`` for bits; H is argmax and squash
    ``softmax(z / temperature)`` for one-hot categories. z' equals z in value; its derivative is
    that of a draw from p(z | b) at fixed noise.

    Unbiased at every order, whatever temperature and coefficient, if f is as smooth between the
    values of b as derivatives are taken (for the first: continuous). Three evaluations of f for
    each term, and two derivatives. f sees floats everywhere: 0. and 1., and what lies between.
    Parameters that f closes over get their derivative from f(b) alone: the control variate holds
    them fixed, which costs nothing and adds no noise.

    The best temperature and coefficient depend on the problem, and a bad choice can be worse than
    no control variate; `squared_gradient` learns them.

    Attributes:
        temperature: of the relaxation, a scalar above 0.
        coefficient: of the control variate, a scalar; 0 is the plain score function.

    Raises:
        TypeError: the distribution is neither one of independent bits nor of one-hot categories;
            f returns integers.
        ValueError: a temperature of 0 or less.

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
    when: ClassVar[str] = "f smooth between the values, one draw; learn its leaves"
    needs: ClassVar[str] = "independent bits or one-hot categories; f smooth between their values"
    differentiates_f: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0)

    def terms(
        self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
    ) -> tuple[PyTree, PyTree]:
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
    r"""The score function, with a learned function of the continuous draw as control variate.

    .. code-block:: text

        z = log-probabilities + noise,  b = H(z),  z' ~ p(z | b),  c(z) = surrogate(params, z)
        term        f(b)
        derivative  df/dparams + (f(b) - c(z')) dlog_prob(b) + dc(z) - dc(z')

    For bits z are their logits with logistic noise and H is a step; for categories, by index or
    one-hot, z are their log-probabilities with Gumbel noise, [..., C], and H is argmax. z' equals z
    in value; its derivative is that of a draw from p(z | b) at fixed noise.

    Unbiased at every order, whatever surrogate, if that is as smooth as derivatives are taken; any
    f, which is not differentiated in b. One evaluation of f for each term, and two of the surrogate
    and its derivative. A surrogate may call f itself, relaxed as in `REBAR`: two evaluations more.

    Attributes:
        surrogate: ``surrogate(params, z)``, to a scalar float near f(H(z)); where f returns
            several numbers, this one serves them all.
        params: any pytree of arrays; `squared_gradient` learns them. The derivative of the
            expectation along them is 0.

    Raises:
        TypeError: the distribution is neither one of independent bits nor of categories; the
            surrogate returns anything but a float.
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

    def terms(
        self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
    ) -> tuple[PyTree, PyTree]:
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
    """A 0 all of whose derivatives have mean 0: E[c(z)] once by the path, once by the score."""
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
    """The score function of f at the stopped x, with the surrogate as its control variate.

    Args:
        surrogate: ``surrogate(params, z)``.
        params: of the surrogate.
        f: to ``(cost, aux)``.
        x: the draw, stopped.
        log_prob: of the draw.
        free: what the surrogate is differentiated through, unconditionally.
        tied: the same given the draw.
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
