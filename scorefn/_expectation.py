"""The verb: an expectation that can be differentiated."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._batching.samples import ChunkSize, check_samples, sample_keys
from scorefn._batching.streaming import streamed_mean
from scorefn._core.types import PyTree
from scorefn.distributions._distribution import Distribution, as_distribution
from scorefn.estimators._base import Estimator, check_estimator


def expectation(
    f: Callable[[Any], PyTree],
    distribution: Any,
    key: jax.Array,
    estimator: Estimator,
    *,
    num_samples: int = 1,
    chunk_size: ChunkSize = "auto",
    sharding: jax.sharding.NamedSharding | None = None,
    has_aux: bool = False,
) -> Any:
    r"""An estimate of E[f(x)], whose derivatives are estimates of the derivatives of E[f(x)].

    .. code-block:: text

        value       mean of estimator(f, distribution, keys),  keys_i = fold_in(key, i)
        derivative  by jax.grad, jax.jvp, jax.hessian ... of the value, as the estimator says

    It is ordinary JAX inside: jit, vmap, grad, jvp, hessian, scan, checkpoint and shard_map apply.
    Bias and cost are the estimator's. Because sample i always uses ``fold_in(key, i)``, the result
    does not depend on how the samples are cut into chunks or spread over devices, beyond rounding.

    Args:
        f: a function of one draw ``f(x)``, to a real scalar or a pytree of real arrays (integers
            are converted). It may close over parameters and be differentiated with respect to
            them. With `has_aux`, to a pair of that and any pytree.
        distribution: of x: a `Distribution`, or an object of distrax, TFP on JAX, numpyro or
            flowjax. Batch dimensions of one draw are independent factors.
        key: one random key, typed or raw. It is consumed.
        estimator: how the derivative is estimated, as ``ScoreFunction()``. There is no default:
            this choice matters most.
        num_samples: the number of terms; what one term costs is the estimator's to say.
        chunk_size: samples evaluated at a time (with `sharding`, on each device). "auto" takes all
            at once if together they compute up to 64 MiB, else as many as compute about 12 MiB on a
            CPU, 4 GiB elsewhere, but 256 at least; and all at once with `has_aux`, `sharding`, or
            an f that returns no scalar. Numbers of 16 bits go in chunks of 256, which are added up
            in 32 bits. None is all at once. A gradient in chunks takes one pass and keeps
            nothing of a sample, for a scalar f and an estimator that does not couple its samples,
            or by leave-one-out; of the others, and for derivatives of higher order, chunks are
            computed again, and a few scalars of each sample are kept.
        sharding: a ``NamedSharding`` that spreads the samples over devices, one axis long. Inside
            jit; leave-one-out stays exact over all devices. Inside shard_map leave it out: there
            each device estimates by samples of its own.
        has_aux: whether f returns a pair ``(cost, aux)``.

    Returns:
        The mean of the terms, shaped like what f returns. With `has_aux`, a pair of that and the
        aux of every sample, [num_samples, ...].

    Raises:
        TypeError: an argument of the wrong kind, named with what was got and what would do.
        ValueError: a size that does not fit; log_prob not a scalar for one draw.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> def loss(mean, key):
        ...     normal = distrax.Normal(mean, 1.0)
        ...     return sf.expectation(lambda x: x**2, normal, key, sf.Pathwise(), num_samples=9)
        >>> gradient = jax.jit(jax.grad(loss))(2.0, jax.random.key(0))

    References:
        Mohamed et al., Monte Carlo Gradient Estimation in Machine Learning (2020).
    """
    if not callable(f):
        raise TypeError(f"f must be a function of one draw, got {f!r}.")
    check_estimator(estimator)
    distribution = as_distribution(distribution)
    key = check_samples(key, num_samples, chunk_size, sharding)
    if estimator.streams and sharding is None and not has_aux:
        one = partial(estimator.one_sample, f, distribution)
        mean = streamed_mean(one, key, num_samples, chunk_size)
        if mean is not None:
            return mean
    keys, vmap = sample_keys(key, num_samples, chunk_size, sharding)
    result = estimator(f, distribution, keys, has_aux=has_aux, vmap=vmap)
    terms, aux = result if has_aux else (result, None)
    mean = jax.tree.map(partial(jnp.mean, axis=0), terms)
    return (mean, aux) if has_aux else mean


def differentiable(
    f: Callable[[Any], PyTree],
    log_prob: Callable[[PyTree, Any], jax.Array],
    sample: Callable[[PyTree, jax.Array], Any],
    estimator: Estimator,
    *,
    num_samples: int = 1,
    chunk_size: ChunkSize = "auto",
    sharding: jax.sharding.NamedSharding | None = None,
    has_aux: bool = False,
) -> Callable[[PyTree, jax.Array], Any]:
    """``objective(params, key)``, an estimate of E[f(x)] to be differentiated in its parameters.

    The same as `expectation`, in the way JAX spells transforms: it wraps your log-density and your
    sampler, and ``jax.grad(objective)`` is the gradient estimator.

    Args:
        f: a function of one draw ``f(x)``.
        log_prob: ``log_prob(params, x) -> scalar``, the log-density of one draw.
        sample: ``sample(params, key) -> x``, one draw.
        estimator: how the derivative is estimated.
        num_samples: see `expectation`, as for all that follow.
        chunk_size: samples at a time.
        sharding: of the sample axis.
        has_aux: whether f returns a pair ``(cost, aux)``.

    Returns:
        A pure function of ``(params, key)``.

    Raises:
        TypeError: as `expectation`, when the objective is called.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def log_prob(rate, x): return jnp.log(rate) - rate * x
        >>> def sample(rate, key): return jax.random.exponential(key) / rate
        >>> def f(x): return jnp.where(x > 1.0, 1.0, 0.0)
        >>> objective = sf.differentiable(f, log_prob, sample, sf.ScoreFunction(), num_samples=64)
        >>> gradient = jax.jit(jax.grad(objective))(2.0, jax.random.key(0))
    """

    def objective(params: PyTree, key: jax.Array) -> Any:
        return expectation(
            f,
            Distribution(log_prob, sample, params),
            key,
            estimator,
            num_samples=num_samples,
            chunk_size=chunk_size,
            sharding=sharding,
            has_aux=has_aux,
        )

    return objective
