"""Resampling of weighted particles, with weights that keep the derivative."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from scorefn._core.arrays import as_float, wide
from scorefn._core.checks import check_key
from scorefn._score import without_impossible
from scorefn.distributions._discrete import Categorical


class Resampled(NamedTuple):
    """The result of `resample`.

    Attributes:
        ancestors: [n], the index of the particle that each new particle copies.
        log_weights: [n], those of the new particles: equal, with the derivative of the old ones.
        log_prob: the log-probability of the ancestors, a scalar, for the score.
    """

    ancestors: jax.Array
    log_weights: jax.Array
    log_prob: jax.Array


def resample(
    log_weights: ArrayLike, key: jax.Array | None = None, *, ancestors: ArrayLike | None = None
) -> Resampled:
    r"""Ancestors of new particles, drawn by weight, for a particle filter with a gradient.

    .. code-block:: text

        a_k          ~ Categorical(w),  w = exp(log_weights),  for k = 1 ... n
        log_weights  value log(mean w) for each k, derivative that of log w_{a_k}
        log_prob     sum_k log(w_{a_k} / sum w)

    Three targets, for Z-hat = mean exp(log_weights) after the last step, an estimate of the
    likelihood Z whose mean is Z for any number of particles:

    - *the gradient of Z*: that of Z-hat is unbiased, at every order, if `log_weights` are carried
      on (they are the weights that Scibior and Wood divide by their stopped values);
    - *the gradient of log Z*: that of log(Z-hat), with the same weights, is the classical estimate.
      BIASED by O(1/n): it is 83 % too small with 2 particles on the two states of
      docs/particle_filter.md. `debiased` has no bias, with independent Z-hat;
    - *the gradient of E[log(Z-hat)]*, a lower bound of log Z: start again with weights of 0 after
      each step, add the logarithms of the mean weights, and pass the sum to `attach_score` with the
      log-probabilities of all draws: `log_prob` of each step, and those of the particles. Unbiased,
      with much more variance.

    A particle that is not differentiated through its own draw has a score: multiply its weight by
    its density divided by the stopped density, as in the example. Nothing else is needed if no
    parameter moves it, or if it is a differentiable function of noise and parameters.

    Ancestors of another scheme (systematic, residual) may be given. The first two targets need that
    the expected number of copies of each particle is n w / sum w; the third needs the independent
    draws made here. To resample only sometimes, keep the old particles and weights otherwise.

    Args:
        log_weights: [n], the logarithms of the weights, in nats, up to the constant that shall be
            part of Z; minus infinity for an impossible particle, which is never drawn. If all are
            impossible, they stay so.
        key: one random key; it is consumed. None if the ancestors are given.
        ancestors: [n], integers.

    Returns:
        A `Resampled`: ``(ancestors, log_weights, log_prob)``. Take the particles by
        ``jax.tree.map(lambda x: x[ancestors], particles)``.

    Raises:
        ValueError: log_weights have no axis of particles, or more than one; both or none of key and
            ancestors are given.
        TypeError: the ancestors are not integers.

    Example:
        >>> import distrax, jax, jax.numpy as jnp, scorefn as sf
        >>> def step(x, log_weights, y, drift, key):
        ...     resample_key, draw_key = jax.random.split(key)
        ...     ancestors, log_weights, _ = sf.resample(log_weights, resample_key)
        ...     move = distrax.Normal(drift + x[ancestors], 1.0)
        ...     x = jax.lax.stop_gradient(move.sample(seed=draw_key))
        ...     score = move.log_prob(x) - jax.lax.stop_gradient(move.log_prob(x))
        ...     return x, log_weights + score + distrax.Normal(x, 1.0).log_prob(y)
        >>> def likelihood(drift, key):
        ...     x, log_weights = step(jnp.zeros(64), jnp.zeros(64), 0.3, drift, key)
        ...     x, log_weights = step(x, log_weights, 0.8, drift, jax.random.fold_in(key, 1))
        ...     return jnp.mean(jnp.exp(log_weights))
        >>> gradient = jax.jit(jax.grad(likelihood))(0.2, jax.random.key(0))

    References:
        Scibior and Wood, Differentiable particle filtering without modifying the forward pass
        (2021); Poyiadjis, Doucet and Singh, Particle approximations of the score
        and observed information matrix (2011), for the classical estimate; Maddison et al.,
        Filtering variational objectives (2017), for E[log(Z-hat)].
    """
    given = as_float(log_weights)
    if given.ndim != 1 or not given.size:
        raise ValueError(
            f"log_weights must be [n], one for each particle, got shape {given.shape}; for several "
            f"filters use jax.vmap."
        )
    if (key is None) == (ancestors is None):
        raise ValueError("resample needs a key, or the ancestors; give one of the two.")
    n, wider = given.size, given.astype(wide(given.dtype))
    possible = ~jnp.isneginf(wider)
    # Without any possible particle all are drawn alike, and stay impossible.
    logits = jnp.where(jnp.any(possible), wider, 0)
    if ancestors is None:
        keys = jax.random.split(check_key(key), n)
        drawn = jax.vmap(Categorical(jax.lax.stop_gradient(logits)).sample)(keys)
    else:
        drawn = jnp.asarray(ancestors)
        if not jnp.issubdtype(drawn.dtype, jnp.integer) or drawn.shape != (n,):
            raise TypeError(
                f"ancestors must be {n} integers, one for each particle, got {drawn.dtype} of "
                f"shape {drawn.shape}."
            )
    moving = without_impossible(wider)[drawn]
    mean = jax.lax.stop_gradient(logsumexp(wider)) - jnp.log(n)
    carried = mean + (moving - jax.lax.stop_gradient(moving))
    log_prob = jnp.sum(jax.nn.log_softmax(logits)[drawn])
    return Resampled(drawn, carried.astype(given.dtype), log_prob)
