"""Multi-sample bounds: importance-weighted, Renyi, and VIMCO."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._batching.devices import placed
from scorefn._batching.samples import ChunkSize, check_samples, sample_keys
from scorefn._core.arrays import spread_like, stop
from scorefn._nonlinear.statistics import entropic_risk, log_mean_exp
from scorefn._score import attach_score, sum_of_others
from scorefn.distributions._distribution import as_distribution
from scorefn.estimators._lost_elements import without_scores
from scorefn.estimators._pathwise import Pathwise
from scorefn.estimators._score_guard import scored_draw

from ._weights import LogDensity, log_weight, one_number_each, scalar


def iwae(
    log_joint: LogDensity,
    q: Any,
    key: jax.Array,
    *,
    num_samples: int,
    chunk_size: ChunkSize = "auto",
    sharding: jax.sharding.NamedSharding | None = None,
) -> jax.Array:
    """The importance-weighted bound ``E log mean_k w_k`` on the log evidence.

    The weights are ``w_k = exp(log_joint(z_k)) / q(z_k)``. Value and pathwise derivatives of every
    order are unbiased for this bound, which becomes tighter with num_samples. The signal-to-noise
    ratio of the derivative along q decreases as 1 / sqrt(num_samples); that of `dreg` increases.
    One evaluation of log_joint for each sample; for reparameterized q.

    Args:
        log_joint: see `scorefn.vi`.
        q: the approximate posterior.
        key: one random key.
        num_samples: the number of samples K of ONE bound; K = 1 is the evidence lower bound.
        chunk_size: as for `expectation`.
        sharding: as for `expectation`.

    Returns:
        A scalar, in nats.

    Raises:
        TypeError: as `Pathwise`.
        ValueError: log_joint is not one number for one draw.

    Example:
        >>> import distrax, jax
        >>> from scorefn import vi
        >>> def bound(mean, key):
        ...     q = distrax.Normal(mean, 0.5)
        ...     return vi.iwae(lambda z: -(z**2) / 2, q, key, num_samples=8)
        >>> gradient = jax.jit(jax.grad(bound))(0.0, jax.random.key(0))

    References:
        Burda, Grosse and Salakhutdinov, Importance weighted autoencoders (2016), equation 8.
    """
    return log_mean_exp(_log_weights(log_joint, q, key, num_samples, chunk_size, sharding))


def renyi(
    log_joint: LogDensity,
    q: Any,
    key: jax.Array,
    alpha: float | jax.Array,
    *,
    num_samples: int,
    chunk_size: ChunkSize = "auto",
    sharding: jax.sharding.NamedSharding | None = None,
) -> jax.Array:
    """The variational Renyi bound, ``E log(mean_k w_k^(1 - alpha)) / (1 - alpha)``.

    alpha = 0 gives `iwae`, the limit alpha = 1 the evidence lower bound, and alpha below 0 an upper
    bound on the log evidence for large num_samples. Bias, cost and errors are those of `iwae`.

    Args:
        log_joint: see `scorefn.vi`.
        q: the approximate posterior.
        key: one random key.
        alpha: any number except the number 1. A traced 1 gives the limit, the evidence lower bound.
        num_samples: the number of samples of one bound.
        chunk_size: as for `expectation`.
        sharding: as for `expectation`.

    Returns:
        A scalar, in nats.

    Raises:
        TypeError: as `Pathwise`.
        ValueError: alpha is the number 1; alpha, or log_joint at one draw, is not one number.

    Example:
        >>> import distrax, jax
        >>> from scorefn import vi
        >>> def bound(mean, key):
        ...     q = distrax.Normal(mean, 0.5)
        ...     return vi.renyi(lambda z: -(z**2) / 2, q, key, 0.5, num_samples=8)
        >>> gradient = jax.jit(jax.grad(bound))(0.0, jax.random.key(0))

    References:
        Li and Turner, Renyi divergence variational inference (2016), equation 6.
    """
    if isinstance(alpha, int | float) and alpha == 1:
        raise ValueError("alpha must not be 1: this limit is the evidence lower bound. Use elbo.")
    alpha = scalar("alpha", alpha)
    log_w = _log_weights(log_joint, q, key, num_samples, chunk_size, sharding)
    return entropic_risk(log_w, 1 - alpha)


def _log_weights(
    log_joint: LogDensity,
    q: Any,
    key: jax.Array,
    num_samples: int,
    chunk_size: ChunkSize,
    sharding: jax.sharding.NamedSharding | None,
) -> jax.Array:
    """The logarithms of the importance weights of reparameterised draws, [num_samples]."""
    distribution = as_distribution(q)
    key = check_samples(key, num_samples, chunk_size, sharding)
    keys, vmap = sample_keys(key, num_samples, chunk_size, sharding)
    weigh = partial(log_weight, one_number_each("log_joint", log_joint), distribution)
    return Pathwise()(weigh, distribution, keys, vmap=vmap)


def vimco(
    log_joint: LogDensity,
    q: Any,
    key: jax.Array,
    *,
    num_samples: int,
    chunk_size: ChunkSize = "auto",
    sharding: jax.sharding.NamedSharding | None = None,
) -> jax.Array:
    r"""The bound of `iwae`, with score-function derivatives for any q.

    .. code-block:: text

        L           log mean_k w_k
        b_k         L with log w_k replaced by the mean of the other log w_j
        derivative  dL + sum_k (L - b_k) dlog q(z_k)

    Unbiased at every order for the bound, also for discrete z, because b_k does not depend on z_k.
    One evaluation of log_joint and a few scalars for each sample.

    Args:
        log_joint: see `scorefn.vi`.
        q: the approximate posterior.
        key: one random key.
        num_samples: the number of samples K of one bound, at least 2.
        chunk_size: as for `expectation`.
        sharding: as for `expectation`.

    Returns:
        A scalar, in nats: the value of `iwae`.

    Raises:
        ValueError: there are fewer than 2 samples; log_joint is not one number for one draw.
        TypeError: as `ScoreFunction`.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> from scorefn import vi
        >>> def bound(logits, key):
        ...     log_joint = lambda b: -jnp.sum((b - 0.3) ** 2)
        ...     return vi.vimco(log_joint, sf.Bernoulli(logits), key, num_samples=8)
        >>> gradient = jax.jit(jax.grad(bound))(jnp.zeros(3), jax.random.key(0))

    References:
        Mnih and Rezende, Variational inference for Monte Carlo objectives (2016), equations 9
        and 10.
    """
    key = check_samples(key, num_samples, chunk_size, sharding, at_least=2)
    keys, vmap = sample_keys(key, num_samples, chunk_size, sharding)
    distribution, log_joint = as_distribution(q), one_number_each("log_joint", log_joint)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        z, log_q, lost = scored_draw(distribution, key, name="vimco")
        with without_scores(lost, z):
            return log_q, log_joint(z) - log_q

    log_q, log_w = vmap(one)(keys)
    bound = log_mean_exp(log_w)

    # The sum of the other weights, by running sums from both sides as in `sum_of_others`.
    seen = stop(log_w)
    if sharding is not None:
        seen = placed(seen, jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec()))
    # Indices, because XLA gets the gradient of sharded samples wrong if these are concatenated.
    i, last = jnp.arange(len(seen)), len(seen) - 1
    before = jnp.where(i > 0, jax.lax.cumlogsumexp(seen)[i - 1], -jnp.inf)
    after = jax.lax.cumlogsumexp(seen, reverse=True)[jnp.minimum(i + 1, last)]
    after = jnp.where(i < last, after, -jnp.inf)
    stand_in = sum_of_others(seen) / (len(seen) - 1)
    total = jnp.logaddexp(jnp.logaddexp(before, after), stand_in)
    baselines = spread_like(total - jnp.log(jnp.asarray(len(seen), seen.dtype)), log_q)
    baseline_terms = attach_score(jnp.zeros_like(baselines), log_q, baselines)
    return attach_score(bound, jnp.sum(log_q)) + jnp.sum(baseline_terms)
