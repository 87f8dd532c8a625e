"""Leave-one-out with control variates from a discrete Stein operator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import is_float, stop
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.types import Cost, PyTree, Terms, Vmap
from scorefn._score import attach_score, leave_one_out
from scorefn.distributions._distribution import Distribution
from scorefn.estimators._base import Estimator

from .double_cv import Draws, draw_with_slopes, lined_up, with_leave_one_out


@pytree_dataclass
class RODEO(Estimator):
    r"""Leave-one-out with two learned control variates from a discrete Stein operator.

    .. code-block:: text

        (A h)(b) = sum_i P(b_i is flipped) (h(b with b_i flipped) - h(b)),  E[A h] = 0
        h_k(b), t_k(b) = surrogate(params, value, slope) of the other samples:
            value = mean f(b_j),  slope = mean df/db(b_j) . (b - b_j)
        r_j = f(b_j) + alpha (A h_j)(b_j),  s_k(b) = t_k(b) (b - p),  p = sigmoid(logits)
        term k      f(b_k)
        derivative  df/dparams + (f(b_k) - mean of the other r_j) (b_k - p)
                    + beta (A s_k)(b_k)  along the logits

    A is the Gibbs operator, here a sum over the bits instead of a mean: alpha and beta absorb the
    factor. With ``h = value + slope`` and alpha = 1 the baseline of a linear f is exact.

    Unbiased at every order, for every surrogate, alpha and beta (the control variates lower the
    variance of the first order); for independent bits and f differentiable between 0 and 1. Each
    term takes one evaluation of f and one derivative of each output of f. The surrogate, which
    should be cheap, is evaluated once for each bit and once more. All samples of a call are
    coupled, at least 2. f receives floats, 0. and 1. Derivatives along parameters that f closes
    over come from f(b) only.

    Attributes:
        surrogate: ``surrogate(params, value, slope) -> (h, t)``, with scalar floats.
        params: any pytree of arrays; `squared_gradient` learns them, alpha and beta. The derivative
            of the expectation along them is 0.
        alpha: the scalar coefficient of the control variate in the baseline.
        beta: the scalar coefficient of the control variate in the score.

    Raises:
        TypeError: the distribution is not one of independent bits; f returns integers; the
            surrogate does not return two floats.
        ValueError: there are fewer than 2 samples; the surrogate does not return scalars.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def surrogate(params, value, slope):
        ...     hidden = jax.nn.leaky_relu(params["in"] @ jnp.stack([value, slope]), 0.3)
        ...     return tuple(params["out"] @ hidden)
        >>> inner, outer = jax.random.normal(jax.random.key(0), (2, 10, 2))
        >>> estimator = sf.RODEO(surrogate, {"in": inner, "out": 0.1 * outer.T})
        >>> def loss(logits, key, estimator):
        ...     bits, f = sf.Bernoulli(logits), lambda b: jnp.sum(b - 0.45) ** 2
        ...     return sf.expectation(f, bits, key, estimator, num_samples=2)
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(1), estimator)

    References:
        Shi et al., Gradient estimation with discrete Stein operators (2022), section 4.
    """

    surrogate: Callable[[PyTree, jax.Array, jax.Array], tuple[jax.Array, jax.Array]] = static_field(
        repr=False
    )
    params: PyTree
    alpha: float | jax.Array = 1.0
    beta: float | jax.Array = 1.0

    coupled: ClassVar[bool] = True
    when: ClassVar[str] = "f nearly linear between the bits, a surrogate worth training"
    needs: ClassVar[str] = (
        "independent bits, 2 samples or more; f differentiable in them; a surrogate"
    )
    differentiates_f: ClassVar[bool] = True

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        draws = draw_with_slopes(self, f, distribution, keys, vmap)
        zeros = draws.logits - stop(draws.logits)
        alpha, beta = (jnp.asarray(x, zeros.dtype) for x in (self.alpha, self.beta))

        def term(cost: jax.Array, slope: jax.Array) -> jax.Array:
            stein, stein_score = self._stein(cost, slope, draws, vmap)
            baseline = alpha * leave_one_out(stein)
            control = baseline - attach_score(baseline, draws.log_prob)
            control += beta * (stein_score @ zeros)
            return with_leave_one_out(cost, draws.log_prob) + control.astype(cost.dtype)

        return jax.tree.map(term, draws.cost, draws.slope), draws.aux

    def _stein(
        self, cost: jax.Array, slope: jax.Array, draws: Draws, vmap: Vmap
    ) -> tuple[jax.Array, jax.Array]:
        """The values of A h and A s, each at its own draw."""
        mean = jax.nn.sigmoid(stop(draws.logits))
        value = leave_one_out(stop(cost).astype(slope.dtype))
        # The extrapolation from the others to b is slopes . b - offset.
        slopes = leave_one_out(slope)
        offset = leave_one_out(jnp.sum(slope * lined_up(draws.bits, slope), axis=-1))

        def one(sample: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            return jnp.vectorize(at, signature="(),(d),(),(d)->(),(d)")(*sample)

        def at(
            value: jax.Array, slopes: jax.Array, offset: jax.Array, bits: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            flip = 1 - 2 * bits
            rate = jnp.where(bits > 0, 1 - mean, mean)
            here = slopes @ bits - offset
            h, t = self._surrogate(value, here)
            h_flipped, t_flipped = jax.vmap(partial(self._surrogate, value))(here + slopes * flip)
            stein_score = (bits - mean) * (rate @ (t_flipped - t)) + rate * t_flipped * flip
            return rate @ (h_flipped - h), stein_score

        bits = jnp.broadcast_to(lined_up(draws.bits, slopes), slopes.shape)
        return vmap(one)((value, slopes, offset, bits))

    def _surrogate(self, value: jax.Array, slope: jax.Array) -> tuple[jax.Array, jax.Array]:
        pair: Any = self.surrogate(self.params, value, slope)
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(map(is_float, pair)):
            raise TypeError(f"surrogate must return two floats, (h, t), got {pair!r}.")
        if any(jnp.shape(x) != () for x in pair):
            raise ValueError(
                f"surrogate must return two scalars, got shapes {[jnp.shape(x) for x in pair]}."
            )
        h, t = (jnp.asarray(x).astype(value.dtype) for x in pair)
        return h, t
