"""An objective whose minimum is an estimator of low variance."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.types import PyTree


def squared_gradient(
    loss: Callable[[PyTree, jax.Array, Any], jax.Array],
    params: PyTree,
    key: jax.Array,
    estimator: Any,
) -> jax.Array:
    r"""The squared norm of one gradient estimate: its variance plus a constant, unbiased.

    .. code-block:: text

        value                   |g|^2,  g = d loss(params, key, estimator) / dparams
        derivative (estimator)  E[d |g|^2] = d Var(g),  because E[g] does not depend on it

    So ``jax.grad(squared_gradient, argnums=3)`` estimates the gradient of the variance from a
    single sample. It is a pytree like the estimator (an immutable value whose hyperparameters are
    leaves), which optax optimizers accept. Unbiased if the estimator is unbiased for every value of
    its leaves. It costs about as much as two gradients of the loss.

    If the mean of g is large relative to its noise, it adds noise to this gradient: the derivative
    of the mean along the estimator has mean 0, but not variance 0. Then use the difference of two
    losses with separate keys, ``loss(params, k1, e) - loss(params, k2, e)``: the means cancel, and
    the value is twice the variance.

    Args:
        loss: ``loss(params, key, estimator) -> scalar``, for example a call of `expectation`.
        params: the parameters along which the variance is measured, any pytree of float arrays:
            best the logits (the head) instead of the weights of the network that computes them.
        key: one random key. It is consumed; it may be the key of the gradient step.
        estimator: an estimator, or any pytree from which the loss makes one.

    Returns:
        A scalar.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key, estimator):
        ...     f = lambda b: jnp.sum(b - 0.45) ** 2
        ...     return sf.expectation(f, sf.Bernoulli(logits), key, estimator)
        >>> estimator, logits = sf.REBAR(temperature=0.5), jnp.zeros(3)
        >>> def step(estimator, key):
        ...     slope = jax.grad(sf.squared_gradient, argnums=3)(loss, logits, key, estimator)
        ...     return jax.tree.map(lambda x, d: x - 1e-3 * d, estimator, slope), None
        >>> keys = jax.random.split(jax.random.key(0), 100)
        >>> estimator, _ = jax.lax.scan(step, jax.tree.map(jnp.asarray, estimator), keys)

    References:
        Ruiz, Titsias and Blei, Overdispersed black-box variational inference (2016), section 3.2;
        Tucker et al., REBAR: low-variance, unbiased gradient estimates for discrete latent
        variable models (2017), section 3.2;
        Grathwohl et al., Backpropagation through the void (2018), equation 5.
    """
    gradient = jax.grad(loss)(params, key, estimator)
    return reduce(jnp.add, [jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient)])
