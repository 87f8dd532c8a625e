"""Variational objectives: bounds on a log evidence, made of log-densities and draws.

Every function takes ``log_joint(z) -> scalar``, the log of an unnormalised density of the latent z,
in nats, which may close over a model's parameters; q, a distribution as `expectation` takes it; and
one key, which is consumed. It returns a scalar to be MAXIMISED, whose derivatives with respect to
the parameters of q and of the model are estimates: negate it for a loss. `elbo` takes draws of any
kind; the others say what they need.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ._arguments import check_count, check_key
from ._distribution import Distribution, as_distribution, stop
from ._expectation import expectation
from ._poison import first_order
from ._score import attach_score
from .estimators import Estimator, Pathwise

LogDensity = Callable[[Any], jax.Array]


def elbo(
    log_joint: LogDensity,
    q: Any,
    key: jax.Array,
    estimator: Estimator,
    *,
    num_samples: int = 1,
    entropy: jax.Array | None = None,
) -> jax.Array:
    """The evidence lower bound ``E_q[log_joint(z)] + H(q)``, with any estimator.

    Unbiased if the estimator is. One evaluation of log_joint for each evaluation of f that the
    estimator makes. A closed-form entropy spares the noise of ``-log q``.

    Args:
        log_joint: see above.
        q: the approximate posterior.
        key: one random key.
        estimator: as `Pathwise` for continuous z, `ScoreFunction` or `DisARM` for discrete.
        num_samples: the terms.
        entropy: H(q) in nats, differentiable; None estimates it. For a closed-form divergence from
            the prior hand in the log-likelihood as log_joint, and minus the divergence here.

    Returns:
        A scalar, in nats.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> from scorefn import vi
        >>> def bound(mean, key):
        ...     q = distrax.Normal(mean, 0.5)
        ...     log_joint = lambda z: -(z**2) / 2 - (1.0 - z) ** 2
        ...     return vi.elbo(log_joint, q, key, sf.Pathwise(), entropy=q.entropy())
        >>> gradient = jax.jit(jax.grad(bound))(0.0, jax.random.key(0))

    References:
        Kingma and Welling, Auto-encoding variational Bayes (2014), equation 3.
    """
    distribution = as_distribution(q)

    def f(z: Any) -> jax.Array:
        return log_joint(z) - (distribution.log_density(z) if entropy is None else 0)

    value = expectation(f, distribution, key, estimator, num_samples=num_samples)
    return value if entropy is None else value + entropy


def sticking_the_landing(
    log_joint: LogDensity,
    q: Any,
    key: jax.Array,
    *,
    num_samples: int = 1,
    coefficient: float | jax.Array = 1.0,
    entropy: jax.Array | None = None,
) -> jax.Array:
    r"""The evidence lower bound by the pathwise derivative, without the score of q, or some of it.

    .. code-block:: text

        value   mean of log_joint(z) - a log q(z) + (1 - a) H(q)
        derivative  through z alone in log q: its parameters there are held fixed

    The part left out, ``a dlog q(z)/dparams``, has mean 0: this is unbiased for every coefficient
    a, to first order. With a = 1 all noise vanishes where q is the posterior itself. Elsewhere it
    can be much worse than a = 0, the closed-form entropy: for N(m, s^2) and the target N(0, 1) the
    variance along m is (a / s - s)^2 for each sample, least at a = s^2. One evaluation of log_joint
    and its derivative for each sample; for reparameterised q, as `Pathwise`.

    Args:
        log_joint: see above.
        q: the approximate posterior.
        key: one random key.
        num_samples: the samples.
        coefficient: a. No derivative passes through it.
        entropy: H(q) in nats, differentiable; needed unless the coefficient is the number 1.

    Returns:
        A scalar, in nats.

    Raises:
        TypeError: as `Pathwise`; a second derivative is taken.
        ValueError: no entropy where one is needed.

    Example:
        >>> import distrax, jax
        >>> from scorefn import vi
        >>> def bound(mean, key):
        ...     q = distrax.Normal(mean, 0.5)
        ...     return vi.sticking_the_landing(lambda z: -(z**2) / 2, q, key, num_samples=4)
        >>> gradient = jax.jit(jax.grad(bound))(0.0, jax.random.key(0))

    References:
        Roeder, Wu and Duvenaud, Sticking the landing (2017), equation 8; Geffner and Domke,
        Approximation based variance reduction for reparameterization gradients (2020).
    """
    needs_entropy = not (isinstance(coefficient, int | float) and coefficient == 1)
    if needs_entropy and entropy is None:
        raise ValueError(
            f"sticking_the_landing needs entropy, the closed form for q, unless coefficient is the "
            f"number 1, got {coefficient!r}."
        )
    distribution = as_distribution(q)
    fixed = _fixed(distribution)
    a = stop(jnp.asarray(coefficient))

    def f(z: Any) -> jax.Array:
        log_q = fixed.log_density(z)
        return log_joint(z) - a.astype(log_q.dtype) * log_q

    value = expectation(f, distribution, key, Pathwise(), num_samples=num_samples)
    value = first_order(value, "sticking_the_landing")
    return value if not needs_entropy else value + (1 - a).astype(value.dtype) * entropy


def iwae(log_joint: LogDensity, q: Any, key: jax.Array, *, num_samples: int) -> jax.Array:
    """The importance-weighted bound ``E log mean_k w_k``, ``w_k = exp(log_joint(z_k)) / q(z_k)``.

    Value and pathwise derivatives of every order are unbiased for this bound, which tightens with
    num_samples. The signal-to-noise ratio of the derivative along q falls as 1 / sqrt(num_samples):
    `dreg` mends that. One evaluation of log_joint for each sample; for reparameterised q.

    Args:
        log_joint: see above.
        q: the approximate posterior.
        key: one random key.
        num_samples: the samples K of ONE bound; one of them is the evidence lower bound.

    Returns:
        A scalar, in nats.

    Raises:
        TypeError: as `Pathwise`.

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
    return renyi(log_joint, q, key, 0.0, num_samples=num_samples)


def renyi(
    log_joint: LogDensity, q: Any, key: jax.Array, alpha: float | jax.Array, *, num_samples: int
) -> jax.Array:
    """The variational Renyi bound, ``E log(mean_k w_k^(1 - alpha)) / (1 - alpha)``.

    alpha = 0 is `iwae`, alpha towards 1 the evidence lower bound, and alpha below 0 bounds the log
    evidence from above as num_samples grows. Bias, cost and errors as for `iwae`.

    Args:
        log_joint: see above.
        q: the approximate posterior.
        key: one random key.
        alpha: any number but 1.
        num_samples: the samples of one bound.

    Returns:
        A scalar, in nats.

    Raises:
        TypeError: as `Pathwise`.
        ValueError: alpha is the number 1.

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
        raise ValueError("alpha must not be 1: that limit is the evidence lower bound, use elbo.")
    distribution = as_distribution(q)
    z = _draws(distribution, key, num_samples)
    log_w = jax.vmap(partial(_log_weight, log_joint, distribution))(z)
    power = jnp.asarray(1 - alpha, log_w.dtype)
    return _log_mean_exp(power * log_w) / power


def dreg(log_joint: LogDensity, q: Any, key: jax.Array, *, num_samples: int) -> jax.Array:
    r"""The bound of `iwae`, with the doubly reparameterised derivative along q.

    .. code-block:: text

        v_k         w_k / sum_j w_j
        derivative  sum_k v_k dlog w_k  along the model's parameters
                    sum_k v_k^2 dlog w_k/dz_k dz_k  along those of q

    Unbiased, to first order, for the same bound; its signal-to-noise ratio along q grows as
    sqrt(num_samples). One evaluation of log_joint and two of its derivatives for each sample; for
    reparameterised q.

    Args:
        log_joint: see above. What it closes over counts as the model.
        q: the approximate posterior.
        key: one random key.
        num_samples: the samples K of one bound.

    Returns:
        A scalar, in nats: the value of `iwae`.

    Raises:
        TypeError: as `Pathwise`; a second derivative is taken.

    Example:
        >>> import distrax, jax
        >>> from scorefn import vi
        >>> def bound(mean, key):
        ...     q = distrax.Normal(mean, 0.5)
        ...     return vi.dreg(lambda z: -(z**2) / 2, q, key, num_samples=8)
        >>> gradient = jax.jit(jax.grad(bound))(0.0, jax.random.key(0))

    References:
        Tucker et al., Doubly reparameterized gradient estimators for Monte Carlo objectives (2019),
        equation 8.
    """
    distribution = as_distribution(q)
    fixed = _fixed(distribution)
    z = _draws(distribution, key, num_samples)
    example = jax.tree.map(lambda leaf: leaf[0], z)
    hoisted, model = jax.closure_convert(log_joint, example)
    fixed_model = stop(model)

    def along_model(z: Any) -> jax.Array:
        return _log_weight(log_joint, fixed, z)

    def along_path(z: Any) -> jax.Array:
        return _log_weight(lambda z: hoisted(z, *fixed_model), fixed, z)

    log_w = jax.vmap(along_model)(stop(z))
    weights = jax.nn.softmax(stop(log_w))
    surrogate = weights @ log_w + jnp.square(weights) @ jax.vmap(along_path)(z)
    surrogate = first_order(surrogate, "dreg")
    return stop(_log_mean_exp(log_w)) + (surrogate - stop(surrogate))


def vimco(log_joint: LogDensity, q: Any, key: jax.Array, *, num_samples: int) -> jax.Array:
    r"""The bound of `iwae` for q of any kind: score function, a baseline for each sample.

    .. code-block:: text

        L           log mean_k w_k
        b_k         L with log w_k replaced by the mean of the other log w_j
        derivative  dL + sum_k (L - b_k) dlog q(z_k)

    Unbiased at every order for the bound, for discrete z too: b_k has not seen z_k. One evaluation
    of log_joint for each sample; num_samples^2 scalars.

    Args:
        log_joint: see above.
        q: the approximate posterior.
        key: one random key.
        num_samples: the samples K of one bound, 2 at least.

    Returns:
        A scalar, in nats: the value of `iwae`.

    Raises:
        ValueError: fewer than 2 samples.

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
    n = check_count("num_samples", num_samples, at_least=2)
    distribution = as_distribution(q)
    z = jax.vmap(distribution.stopped_draw)(_keys(key, n))
    log_q = jax.vmap(distribution.log_density)(z)
    log_w = jax.vmap(log_joint)(z) - log_q
    bound = _log_mean_exp(log_w)

    seen = stop(log_w)
    own = jnp.eye(n, dtype=bool)
    others = jnp.where(own, 0, seen[None])
    stand_in = jnp.sum(others, axis=1, keepdims=True) / (n - 1)
    baselines = jax.vmap(_log_mean_exp)(jnp.where(own, stand_in, seen[None]))
    baseline_terms = attach_score(jnp.zeros_like(baselines), log_q, baselines)
    return attach_score(bound, jnp.sum(log_q)) + jnp.sum(baseline_terms)


def _keys(key: jax.Array, num_samples: int) -> jax.Array:
    indices = jnp.arange(num_samples, dtype=jnp.uint32)
    return jax.vmap(jax.random.fold_in, (None, 0))(check_key(key), indices)


def _draws(distribution: Distribution, key: jax.Array, num_samples: int) -> Any:
    """Draws that derivatives pass through, or that raise, as `Pathwise` has them."""
    keys = _keys(key, check_count("num_samples", num_samples))
    return Pathwise()(lambda z: (0.0, z), distribution, keys, has_aux=True)[1]


def _fixed(distribution: Distribution) -> Distribution:
    return replace(distribution, params=stop(distribution.params))


def _log_weight(log_joint: LogDensity, distribution: Distribution, z: Any) -> jax.Array:
    return log_joint(z) - distribution.log_density(z)


def _log_mean_exp(x: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(x) - jnp.log(jnp.asarray(len(x), x.dtype))
