"""Leave-one-out with costs and baselines corrected by a linear extrapolation of f."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from scorefn._core.arrays import abstract_key, as_local, stop, wide
from scorefn._core.pytree import pytree_dataclass
from scorefn._core.types import Cost, PyTree, Terms, Vmap
from scorefn._score import attach_score, leave_one_out
from scorefn.distributions._discrete import Bernoulli, with_float_draws
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._interop.factors import require_factors
from scorefn.estimators._base import Estimator


@pytree_dataclass
class DoubleCV(Estimator):
    r"""Leave-one-out with a linear extrapolation of f as a control variate, used twice.

    .. code-block:: text

        g_k = mean of the other df/db,  r_k = f(b_k) - coefficient * g_k . (b_k - p)
        term k      f(b_k)
        derivative  df/dparams + (r_k - mean of the other r) (b_k - p)
                    + coefficient * g_k p (1 - p)  along the logits,  p = sigmoid(logits)

    Unbiased at every order, for every coefficient; for independent bits and f differentiable
    between 0 and 1. Each term takes one evaluation of f and, unlike `ScoreFunction` with
    `LeaveOneOut`, one derivative of each output of f. All samples of a call are coupled, at least
    2. f receives floats, 0. and 1. Derivatives along parameters that f closes over come from f(b)
    only.

    Attributes:
        coefficient: the scalar coefficient of the control variate; 0 is leave-one-out, and 1 suits
            a linear f. `squared_gradient` learns it.

    Raises:
        TypeError: the distribution is not one of independent bits; f returns integers.
        ValueError: there are fewer than 2 samples.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     bits, f = sf.Bernoulli(logits), lambda b: jnp.sum(b - 0.45) ** 2
        ...     return sf.expectation(f, bits, key, sf.DoubleCV(), num_samples=2)
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(0))

    References:
        Titsias and Shi, Double control variates for gradient estimation in discrete latent variable
        models (2022), section 3.
    """

    coefficient: float | jax.Array = 1.0

    coupled: ClassVar[bool] = True
    when: ClassVar[str] = "f nearly linear between the bits; learn the coefficient"
    needs: ClassVar[str] = "independent bits, 2 samples or more; f differentiable in them"
    differentiates_f: ClassVar[bool] = True

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        draws = draw_with_slopes(self, f, distribution, keys, vmap)
        logits = draws.logits
        coefficient = jnp.asarray(self.coefficient, logits.dtype)
        mean = jax.nn.sigmoid(stop(logits))
        moved = jax.nn.sigmoid(logits) - mean

        def term(cost: jax.Array, slope: jax.Array) -> jax.Array:
            # g_k . (b - p) enters as a cost of b_k, by the score. Its expectation, which depends on
            # p, is subtracted. In the baseline of k, b_j has mean 0 given all other draws.
            others = leave_one_out(slope)
            linear = jnp.sum(others * lined_up(draws.bits - mean[None], others), axis=-1)
            twice = coefficient * (leave_one_out(linear) - linear)
            control = attach_score(twice, draws.log_prob) - twice
            control += coefficient * (others @ moved)
            return with_leave_one_out(cost, draws.log_prob) + control.astype(cost.dtype)

        return jax.tree.map(term, draws.cost, draws.slope), draws.aux


class Draws(NamedTuple):
    """Draws of D bits, with the costs of f and their derivatives in the bits.

    Attributes:
        logits: [D].
        bits: [n, D], 0. and 1., in the dtype of the logits.
        log_prob: [n].
        cost: [n, ...] for each output of f.
        aux: [n, ...].
        slope: [n, ..., D] for each cost, df/db at the draws; no derivative passes through it.
    """

    logits: jax.Array
    bits: jax.Array
    log_prob: jax.Array
    cost: PyTree
    aux: PyTree
    slope: PyTree


def draw_with_slopes(
    estimator: Estimator, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
) -> Draws:
    """One draw of bits for each key, with f and its derivative."""
    name = type(estimator).__name__
    if len(keys) < 2:
        raise ValueError(
            f"num_samples must be at least 2 with {name}, which corrects each sample by the "
            f"others; got {len(keys)}. REBAR and RELAX accept single samples."
        )
    bits: Bernoulli = require_factors(
        distribution, abstract_key(keys), (Bernoulli,), name, "REBAR and RELAX fit categories."
    )
    # f is differentiated in the draws, so they are floats even if the library draws integers.
    bits = with_float_draws(bits)
    dtype = wide(bits.logits.dtype)
    logits = bits.logits.astype(dtype)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array, PyTree, PyTree, PyTree]:
        x = bits.sample(key)
        cost, pull_back, aux = jax.vjp(f, x, has_aux=True)
        slope = jax.tree.map(lambda s: stop(s).astype(dtype), _slopes(cost, pull_back, x.size))
        return x.ravel().astype(dtype), bits.log_prob(x), cost, aux, slope

    x, log_prob, cost, aux, slope = vmap(one)(keys)
    return Draws(logits.ravel(), stop(x), log_prob, cost, aux, slope)


def lined_up(x: jax.Array, like: jax.Array) -> jax.Array:
    """The array [n, D] reshaped to [n, 1 ..., D], with the rank of `like`."""
    return x.reshape(x.shape[0], *(1,) * (like.ndim - 2), x.shape[-1])


def with_leave_one_out(cost: jax.Array, log_prob: jax.Array) -> jax.Array:
    """The terms of the leave-one-out score-function estimator, [n, ...]."""
    return attach_score(cost, log_prob, leave_one_out(stop(cost)))


def _slopes(cost: PyTree, pull_back: Callable[[PyTree], Any], size: int) -> PyTree:
    """The derivative of each number in cost, [..., D], by one pull-back for each."""
    leaves, structure = jax.tree.flatten(cost)

    def slope(i: int) -> jax.Array:
        def along(direction: jax.Array) -> jax.Array:
            zeros = as_local([jnp.zeros_like(leaf) for leaf in leaves], leaves)
            zeros[i] = direction.reshape(leaves[i].shape)
            (derivative,) = pull_back(jax.tree.unflatten(structure, zeros))
            return derivative.ravel()

        directions = as_local(jnp.eye(leaves[i].size, dtype=leaves[i].dtype), leaves)
        return jax.vmap(along)(directions).reshape(*leaves[i].shape, size)

    return jax.tree.unflatten(structure, [slope(i) for i in range(len(leaves))])
