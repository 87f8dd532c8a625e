"""Doubly reparameterized derivatives of the importance-weighted bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._batching.samples import ChunkSize, check_samples, sample_keys
from scorefn._core.arrays import abstract_key, held_fixed, stop
from scorefn._core.refusals import first_order_only
from scorefn._nonlinear.statistics import log_mean_exp
from scorefn.distributions._distribution import Distribution, as_distribution, is_object
from scorefn.distributions._interop.location_scale import is_affine_in_noise
from scorefn.distributions._interop.moments import read_moments
from scorefn.estimators._pathwise import Pathwise

from ._weights import LogDensity, one_number_each


def dreg(
    log_joint: LogDensity,
    q: Any,
    key: jax.Array,
    *,
    num_samples: int,
    chunk_size: ChunkSize = "auto",
    sharding: jax.sharding.NamedSharding | None = None,
) -> jax.Array:
    r"""The bound of `iwae`, with the doubly reparameterized derivative along q.

    .. code-block:: text

        v_k         w_k / sum_j w_j
        derivative  sum_k v_k dlog w_k  along the model's parameters
                    sum_k v_k^2 dlog w_k/dz_k dz_k  along those of q

    Unbiased, to first order, for the bound of `iwae`; the signal-to-noise ratio along q increases
    as sqrt(num_samples). One evaluation of log_joint and two of its derivatives for each sample;
    for reparameterized q.

    Args:
        log_joint: see `scorefn.vi`. Closed-over arrays are the parameters of the model.
        q: the approximate posterior.
        key: one random key.
        num_samples: the number of samples K of one bound.
        chunk_size: as for `expectation`.
        sharding: as for `expectation`.

    Returns:
        A scalar, in nats: the value of `iwae`.

    Raises:
        TypeError: as `Pathwise`; a second derivative is taken.
        ValueError: log_joint is not one number for one draw.

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
    distribution, log_joint = as_distribution(q), one_number_each("log_joint", log_joint)
    key = check_samples(key, num_samples, chunk_size, sharding)
    keys, vmap = sample_keys(key, num_samples, chunk_size, sharding)
    draw = jax.eval_shape(distribution.draw, abstract_key(keys))
    log_q, without_model = (held_fixed(fn, draw) for fn in (distribution.log_density, log_joint))

    def both(z: Any) -> tuple[jax.Array, jax.Array]:
        return log_joint(stop(z)) - log_q(stop(z)), without_model(z) - log_q(z)

    along_model, along_path = Pathwise()(both, distribution, keys, vmap=vmap)
    weights = jax.nn.softmax(stop(along_model))
    surrogate = weights @ along_model + jnp.square(weights) @ along_path
    surrogate = first_order_only(surrogate, "dreg")
    return stop(log_mean_exp(along_model)) + (surrogate - stop(surrogate))


def gdreg(
    log_likelihood: LogDensity,
    prior: Any,
    q: Any,
    key: jax.Array,
    *,
    num_samples: int,
    chunk_size: ChunkSize = "auto",
    path: Callable[[Any, Any], Any] | None = None,
    sharding: jax.sharding.NamedSharding | None = None,
) -> jax.Array:
    r"""The bound of `iwae`, doubly reparameterized along q and a learned prior.

    .. code-block:: text

        w_k         exp(log_likelihood(z_k)) prior(z_k) / q(z_k),  v_k = w_k / sum_j w_j
        derivative  sum_k v_k dlog_likelihood(z_k)  along the model's parameters
                    sum_k v_k^2 dlog w_k/dz_k dz_k  along those of q
                    sum_k (v_k dlog_likelihood(z_k)/dz_k - v_k^2 dlog w_k/dz_k) dz_k
                    along those of the prior, as if z_k were a draw of it

    Unbiased, to first order, for the bound of `iwae`. `dreg` uses the score of the prior, whose
    noise remains when the prior approaches its optimum. One evaluation of log_likelihood and two of
    its derivatives for each sample; for reparameterized q. In a hierarchy of latents, q and the
    prior are each one joint distribution.

    Args:
        log_likelihood: ``log_likelihood(z) -> scalar``, in nats: log p(x | z). Closed-over arrays
            are the parameters of the model.
        prior: a distribution of z, as for `expectation`.
        q: the approximate posterior.
        key: one random key.
        num_samples: the number of samples K of one bound.
        chunk_size: as for `expectation`.
        path: ``path(params, z) -> z``, with the value z and the derivative along params of a
            reparameterized draw of the prior at z; params as for `Distribution`, or the object of
            another library. None supports location-scale families with a known mean and covariance:
            normals, Laplace, Logistic. `implicit_reparameterization` derives a path from a cdf.
        sharding: as for `expectation`.

    Returns:
        A scalar, in nats: the value of `iwae`.

    Raises:
        TypeError: as `Pathwise`; a second derivative is taken; no path is known for the prior.
        ValueError: log_likelihood is not one number for one draw.

    Example:
        >>> import distrax, jax
        >>> from scorefn import vi
        >>> def bound(prior_mean, key):
        ...     prior, q = distrax.Normal(prior_mean, 1.0), distrax.Normal(0.4, 0.5)
        ...     return vi.gdreg(lambda z: -((1.0 - z) ** 2), prior, q, key, num_samples=8)
        >>> gradient = jax.jit(jax.grad(bound))(0.0, jax.random.key(0))

    References:
        Bauer and Mnih, Generalized doubly reparameterized gradient estimators (2021), equations 9
        and 12.
    """
    distribution, prior_distribution = as_distribution(q), as_distribution(prior)
    log_likelihood = one_number_each("log_likelihood", log_likelihood)
    key = check_samples(key, num_samples, chunk_size, sharding)
    keys, vmap = sample_keys(key, num_samples, chunk_size, sharding)
    draw = jax.eval_shape(distribution.draw, abstract_key(keys))
    log_q, log_prior, without_model = (
        held_fixed(fn, draw)
        for fn in (distribution.log_density, prior_distribution.log_density, log_likelihood)
    )
    along_prior = path or _location_scale(prior_distribution, abstract_key(keys))

    def log_ratio(z: Any) -> jax.Array:
        return log_prior(z) - log_q(z)

    def each(z: Any) -> tuple[jax.Array, ...]:
        through_prior = along_prior(prior_distribution.params, stop(z))
        return (
            log_likelihood(stop(z)) + log_ratio(stop(z)),
            without_model(z) + log_ratio(z),
            without_model(through_prior),
            without_model(through_prior) + log_ratio(through_prior),
        )

    log_w, along_q, likelihood_along_prior, weight_along_prior = Pathwise()(
        each, distribution, keys, vmap=vmap
    )
    weights = jax.nn.softmax(stop(log_w))
    surrogate = weights @ (log_w + likelihood_along_prior)
    surrogate += jnp.square(weights) @ (along_q - weight_along_prior)
    surrogate = first_order_only(surrogate, "gdreg")
    return stop(log_mean_exp(log_w)) + (surrogate - stop(surrogate))


def _location_scale(prior: Distribution, key: jax.Array) -> Callable[[Any, Any], Any]:
    """A function ``path(params, z)``: the draw of the prior with the standardized noise of z."""

    def moments(params: Any) -> tuple[jax.Array, jax.Array]:
        return read_moments("gdreg", None, replace(prior, params=params), key)

    if not (is_object(prior) and is_affine_in_noise(prior.params)):
        raise TypeError(
            f"gdreg knows no path of {type(prior.params).__name__}. Give "
            f"path=lambda params, z: ..., with the value z."
        )

    def path(params: Any, z: jax.Array) -> jax.Array:
        mean, scale = moments(params)
        if scale.shape == mean.shape:
            return mean + scale * stop((z - mean) / scale)
        noise = jax.scipy.linalg.solve_triangular(scale, z - mean, lower=True)
        return mean + scale @ stop(noise)

    return path
