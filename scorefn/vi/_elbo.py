"""The evidence lower bound, with any estimator or without the score of q."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from scorefn._batching.samples import ChunkSize
from scorefn._core.arrays import held_fixed
from scorefn._core.checks import check_key
from scorefn._core.refusals import first_order_only
from scorefn._expectation import expectation
from scorefn.distributions._distribution import as_distribution
from scorefn.estimators._base import Estimator
from scorefn.estimators._control_variates.control_variate import FittedControlVariate
from scorefn.estimators._pathwise import Pathwise

from ._weights import LogDensity, one_number_each, scalar


def elbo(
    log_joint: LogDensity,
    q: Any,
    key: jax.Array,
    estimator: Estimator,
    *,
    num_samples: int = 1,
    entropy: jax.Array | None = None,
    chunk_size: ChunkSize = "auto",
    sharding: jax.sharding.NamedSharding | None = None,
    has_aux: bool = False,
) -> Any:
    """The evidence lower bound ``E_q[log_joint(z)] + H(q)``, with any estimator.

    Unbiased if the estimator is. One evaluation of log_joint for each evaluation of f by the
    estimator. A closed-form entropy removes the noise of ``-log q``.

    Args:
        log_joint: see `scorefn.vi`.
        q: the approximate posterior.
        key: one random key.
        estimator: for example `Pathwise` for continuous z, `ScoreFunction` or `DisARM` for discrete
            z.
        num_samples: the number of terms.
        entropy: H(q) in nats, differentiable; None estimates it. For a closed-form divergence from
            the prior, give the log-likelihood as log_joint and minus the divergence as entropy.
        chunk_size: as for `expectation`.
        sharding: as for `expectation`.
        has_aux: whether log_joint returns a pair ``(log_joint, aux)``, as for `expectation`.

    Returns:
        A scalar, in nats. With `has_aux`, a pair of that and the aux of every evaluation, as for
        `expectation`.

    Raises:
        ValueError: entropy, or log_joint at one draw, is not one number.

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
    log_joint_of = one_number_each("log_joint", log_joint, has_aux=has_aux)

    def f(z: Any) -> Any:
        value = log_joint_of(z)
        value, aux = value if has_aux else (value, None)
        value -= 0 if entropy is not None else distribution.log_density(z)
        return (value, aux) if has_aux else value

    result = expectation(
        f,
        distribution,
        key,
        estimator,
        num_samples=num_samples,
        chunk_size=chunk_size,
        sharding=sharding,
        has_aux=has_aux,
    )
    if entropy is None:
        return result
    value, aux = result if has_aux else (result, None)
    value += scalar("entropy", entropy)
    return (value, aux) if has_aux else value


def sticking_the_landing(
    log_joint: LogDensity,
    q: Any,
    key: jax.Array,
    *,
    num_samples: int = 1,
    coefficient: float | jax.Array | None = 1.0,
    entropy: jax.Array | Callable[[Any], jax.Array] | None = None,
    chunk_size: ChunkSize = "auto",
    sharding: jax.sharding.NamedSharding | None = None,
) -> jax.Array:
    r"""The evidence lower bound, with pathwise derivatives that omit the score of q.

    .. code-block:: text

        value       mean of log_joint(z) - a log q(z) + (1 - a) H(q)
        derivative  in log q through z only, with its parameters held fixed

    The omitted part, ``a dlog q(z)/dparams``, has mean 0, so this is unbiased for every coefficient
    a, to first order. With a = 1 the noise vanishes if q is the exact posterior. Otherwise it can
    be much worse than a = 0, the closed-form entropy: for N(m, s^2) and the target N(0, 1) the
    variance along m is (a / s - s)^2 per sample, with the minimum at a = s^2. One evaluation of
    log_joint and its derivative for each sample; for reparameterized q, as `Pathwise`. A fitted
    coefficient adds the cost of `FittedControlVariate`.

    Args:
        log_joint: see `scorefn.vi`.
        q: the approximate posterior.
        key: one random key.
        num_samples: the number of samples, at least 3 if the coefficient is fitted.
        coefficient: a, a number, which `squared_gradient` can learn. None fits it to the other
            samples, for each sample.
        entropy: H(q) in nats, differentiable; needed unless the coefficient is the number 1. For a
            fitted coefficient, a function of q, or of the params of a `Distribution`.
        chunk_size: as for `expectation`.
        sharding: as for `expectation`.

    Returns:
        A scalar, in nats.

    Raises:
        TypeError: as `Pathwise`; a second derivative is taken; the coefficient is fitted and
            entropy is not a function.
        ValueError: entropy is needed and missing; there are too few samples to fit; log_joint,
            entropy or coefficient is not one number.

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
    name = "sticking_the_landing"
    needs_entropy = not (isinstance(coefficient, int | float) and coefficient == 1)
    if needs_entropy and entropy is None:
        raise ValueError(
            f"{name} needs entropy, in closed form, unless coefficient is the number 1, got "
            f"{coefficient!r}."
        )
    distribution, log_joint = as_distribution(q), one_number_each("log_joint", log_joint)
    options: Any = {"num_samples": num_samples, "chunk_size": chunk_size, "sharding": sharding}
    log_q = held_fixed(distribution.log_density, jax.eval_shape(distribution.draw, check_key(key)))
    if coefficient is None:
        if not callable(entropy):
            raise TypeError(
                f"{name} with coefficient=None needs entropy as a function of q, as in "
                f"entropy=lambda q: q.entropy(), got {entropy!r}."
            )
        # To first order, the mean of log q with fixed parameters changes like minus the entropy.
        fitted = FittedControlVariate(Pathwise(), log_q, lambda q: -scalar("entropy", entropy(q)))
        value = expectation(log_joint, distribution, key, fitted, **options)
        return first_order_only(value + entropy(distribution.params), name)

    def f(z: Any) -> tuple[jax.Array, jax.Array]:
        return log_joint(z), log_q(z)

    joint, own = expectation(f, distribution, key, Pathwise(), **options)
    # Separately, because the derivative along a of a first derivative is right.
    joint, own = first_order_only(joint, name), first_order_only(own, name)
    a = scalar("coefficient", coefficient).astype(own.dtype)
    value = joint - a * own
    if not needs_entropy:
        return value
    known: Any = entropy(distribution.params) if callable(entropy) else entropy
    return value + (1 - a) * scalar("entropy", known)
