"""The score function with a learned control variate, for continuous draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax

from scorefn._core.arrays import stop
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.types import Cost, PyTree, Terms, Vmap
from scorefn.distributions._distribution import Distribution
from scorefn.estimators._base import Estimator
from scorefn.estimators._guard import guarded_draw
from scorefn.estimators._lost_elements import without_scores
from scorefn.estimators._score_guard import guard_score

from .rebar import controlled


@pytree_dataclass
class LAX(Estimator):
    r"""The score function with a learned control variate, for continuous draws.

    .. code-block:: text

        x = sample(key),  c(x) = surrogate(params, x)
        term        f(x)
        derivative  df/dparams + (f(x) - c(x)) dlog_prob(x) + dc/dx dx

    The surrogate is differentiated by the path, and the difference of f and the surrogate by the
    score. A surrogate equal to f gives `Pathwise`, and 0 gives the plain score function.

    Unbiased at every order, for every surrogate that is smooth enough for this order. f may be any
    function; it is not differentiated in x. Each term takes one evaluation of f, and two of the
    surrogate and its derivative.

    Attributes:
        surrogate: ``surrogate(params, x)``, returning a scalar float near f(x), for all outputs of
            f.
        params: any pytree of arrays; `squared_gradient` learns them. The derivative of the
            expectation along them is 0.

    Raises:
        TypeError: the result is differentiated with respect to a parameter on which (a part of) the
            draw depends without a derivative, or on which log_prob does not depend; the surrogate
            does not return a float.
        ValueError: the surrogate returns more than one number.

    Example:
        >>> import distrax, jax, jax.numpy as jnp, scorefn as sf
        >>> estimator = sf.LAX(lambda slope, x: slope * x, jnp.array(1.0))
        >>> def loss(mean, key):
        ...     normal = distrax.Normal(mean, 1.0)
        ...     return sf.expectation(lambda x: jnp.floor(x), normal, key, estimator)
        >>> gradient = jax.jit(jax.grad(loss))(0.5, jax.random.key(0))

    References:
        Grathwohl et al., Backpropagation through the void: optimizing control variates for
        black-box gradient estimation (2018), equation 6.
    """

    surrogate: Callable[[PyTree, Any], jax.Array] = static_field(repr=False)
    params: PyTree

    when: ClassVar[str] = "f without a derivative, a surrogate worth training"
    needs: ClassVar[str] = "a differentiable sampler and normalized log_prob; any f; a surrogate"

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        def draw_and_log_prob(distribution: Distribution, key: jax.Array) -> tuple[Any, jax.Array]:
            x = guarded_draw(distribution, key, _message)
            return x, distribution.log_density(stop(x))

        def one(key: jax.Array) -> tuple[PyTree, PyTree]:
            draw, lost = guard_score(draw_and_log_prob, distribution, key, name="LAX")
            x, log_prob = draw(key)
            stopped = stop(x)
            with without_scores(lost, stopped):
                return controlled(self.surrogate, self.params, f, stopped, log_prob, x, stopped)

        return vmap(one)(keys)


def _message(leaf: str) -> str:
    return (
        f"LAX cannot differentiate with respect to {leaf}: the draw depends on it through an "
        f"operation without a derivative (or a choice between candidates), so that its gradient "
        f"would silently be wrong. RELAX fits bits and categories, ScoreFunction every "
        f"distribution; if the parameter is not meant to be learned, wrap it in "
        f"jax.lax.stop_gradient."
    )
