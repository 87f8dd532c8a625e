"""Expectations that can be differentiated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar, overload

import jax
import jax.numpy as jnp

from scorefn._batching.samples import ChunkSize, check_samples, sample_keys
from scorefn._batching.streaming import streamed_mean
from scorefn._core.refusals import AUX, without_gradient
from scorefn._core.types import PyTree
from scorefn.distributions._distribution import Distribution, as_distribution
from scorefn.distributions._given import is_given
from scorefn.estimators._base import Estimator, check_estimator

T = TypeVar("T")
Aux = TypeVar("Aux")


@overload
def expectation(
    f: Callable[[Any], T],
    distribution: Any,
    key: jax.Array,
    estimator: Estimator,
    *,
    num_samples: int = 1,
    chunk_size: ChunkSize = "auto",
    sharding: jax.sharding.NamedSharding | None = None,
    has_aux: Literal[False] = False,
) -> T: ...
@overload
def expectation(
    f: Callable[[Any], tuple[T, Aux]],
    distribution: Any,
    key: jax.Array,
    estimator: Estimator,
    *,
    num_samples: int = 1,
    chunk_size: ChunkSize = "auto",
    sharding: jax.sharding.NamedSharding | None = None,
    has_aux: Literal[True],
) -> tuple[T, Aux]: ...
@overload
def expectation(
    f: Callable[[Any], PyTree],
    distribution: Any,
    key: jax.Array,
    estimator: Estimator,
    *,
    num_samples: int = 1,
    chunk_size: ChunkSize = "auto",
    sharding: jax.sharding.NamedSharding | None = None,
    has_aux: bool,
) -> Any: ...
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
    r"""An estimate of E[f(x)] whose derivatives estimate those of E[f(x)].

    .. code-block:: text

        value       mean of estimator(f, distribution, keys),  keys_i = fold_in(key, i)
        derivative  jax.grad, jax.jvp, jax.hessian ... of the value, defined by the estimator

    The result works under jit, vmap, grad, jvp, hessian, scan, checkpoint and shard_map. Bias and
    cost depend on the estimator. Sample i always uses ``fold_in(key, i)``, so the result does not
    depend on chunks or devices, up to rounding.

    Args:
        f: a function of one draw, ``f(x)``. It returns a real scalar or a pytree of real arrays
            (integers are converted); with `has_aux`, a pair of that and any pytree. It may close
            over parameters and be differentiated with respect to them.
        distribution: the distribution of x: a `Distribution`, or an object of distrax, TFP on JAX,
            numpyro or flowjax. Batch dimensions of one draw are independent factors.
        key: one random key, typed or raw. It is consumed.
        estimator: the estimator of the derivative, for example ``ScoreFunction()``. It has no
            default, because this choice matters most.
        num_samples: the number of terms. The estimator determines the cost of one term.
        chunk_size: the number of samples evaluated at a time (on each device, with `sharding`).
            None evaluates all samples at once. "auto" bounds the memory for a scalar f without
            `has_aux` and `sharding`, and is None otherwise: samples that need at most some 32
            MiB together form one chunk; others form chunks that need about 10 MiB on a CPU or 1 GiB
            on an accelerator, of at least 256 samples. 16-bit samples form chunks of 256, summed in
            32 bits. For a scalar f, and samples that are not coupled or coupled by leave-one-out
            only, value and gradient take one pass and no sample is stored. Otherwise, with a
            `LearnedBaseline`, in forward mode and for higher derivatives, chunks are recomputed and
            a few scalars per sample are stored.
        sharding: a one-axis ``NamedSharding`` that distributes the samples over devices, under
            jit. Leave-one-out stays exact over all devices. Omit it inside shard_map, where each
            device draws its own samples.
        has_aux: whether f returns a pair ``(cost, aux)``.

    Returns:
        The mean of the terms, shaped like the result of f. With `has_aux`, a pair of that and the
        aux of every sample, [num_samples, ...]. The aux are data, not estimates: their gradient
        along the parameters of the distribution raises ``TypeError``, and forward mode gives nan.

    Raises:
        TypeError: an argument has the wrong type; the aux is differentiated.
        ValueError: a size does not fit; log_prob is not a scalar for one draw.

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
    if estimator.streams and sharding is None and not (has_aux or is_given(distribution)):
        one = partial(estimator.one_sample, f, distribution)
        mean = streamed_mean(one, key, num_samples, chunk_size)
        if mean is not None:
            return mean
    keys, vmap = sample_keys(key, num_samples, chunk_size, sharding)
    result = estimator(f, distribution, keys, has_aux=has_aux, vmap=vmap)
    terms, aux = result if has_aux else (result, None)
    mean = jax.tree.map(partial(jnp.mean, axis=0), terms)
    return (mean, without_gradient(aux, AUX, *distribution.floats())) if has_aux else mean


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
    """A function ``objective(params, key)`` that estimates E[f(x)] and its derivatives.

    This is `expectation` in the form of a JAX transformation: it wraps a log-density and a sampler,
    and ``jax.grad(objective)`` is the gradient estimator.

    Args:
        f: a function of one draw, ``f(x)``.
        log_prob: ``log_prob(params, x) -> scalar``, the log-density of one draw.
        sample: ``sample(params, key) -> x``, one draw.
        estimator: the estimator of the derivative.
        num_samples: see `expectation`.
        chunk_size: see `expectation`.
        sharding: see `expectation`.
        has_aux: see `expectation`.

    Returns:
        A pure function of ``(params, key)``.

    Raises:
        TypeError: an argument has the wrong type; raised when the objective is called.

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
