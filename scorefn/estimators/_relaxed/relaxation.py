"""Relaxations of bits and one-hot categories, shared by the biased estimators."""

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import abstract_key, as_float, stop, wide
from scorefn._core.refusals import first_order_only
from scorefn._core.types import Cost, PyTree, Terms, Vmap
from scorefn.distributions._discrete import Bernoulli, OneHotCategorical, with_float_draws
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._interop.factors import require_factors
from scorefn.distributions._subset import Subset
from scorefn.estimators._base import Estimator

Relaxable = Bernoulli | OneHotCategorical


class Relaxation(Estimator):
    """An estimator that differentiates f at draws which carry a derivative of their own."""

    unbiased: ClassVar[bool] = False
    order: ClassVar[float] = 1
    needs: ClassVar[str] = "independent bits or one-hot categories; f differentiable at them"
    differentiates_f: ClassVar[bool] = True
    relaxes_subsets: ClassVar[bool] = False

    @abstractmethod
    def draw(self, record: Any, key: jax.Array) -> jax.Array:
        """A draw of bits or categories, with the derivative along their logits."""

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        name, record = type(self).__name__, distribution.params
        if self.relaxes_subsets and isinstance(record, Subset):
            dtype = as_float(record.logits).dtype
        else:
            record = require_factors(
                distribution,
                abstract_key(keys),
                (Bernoulli, OneHotCategorical),
                name,
                "The index of a category has no derivative: draw one-hot vectors.",
            )
            dtype = with_float_draws(record).dtype
        logits = first_order_only(record.logits, name) if self.order == 1 else record.logits

        def one(key: jax.Array) -> tuple[PyTree, PyTree]:
            wider = replace(record, logits=logits.astype(wide(logits.dtype)))
            return f(self.draw(wider, key).astype(dtype))

        return vmap(one)(keys)


def noisy_logits(factors: Relaxable, key: jax.Array) -> jax.Array:
    """The logits plus noise; the draw is their sign (bits) or their argmax (categories)."""
    logits = factors.logits
    if isinstance(factors, Bernoulli):
        return logits - factors.noise(key)
    return logits + jax.random.gumbel(key, logits.shape, logits.dtype)


def noisy_logits_given(factors: Relaxable, hard: jax.Array, key: jax.Array) -> jax.Array:
    """The logits plus noise, given the draw.

    The largest of normalized logits plus Gumbels is a standard Gumbel, independent of its index;
    the others are Gumbels truncated there. With E = exp(-Gumbel) these are -log(E_top) and
    -log(E_i / p_i + E_top). For bits only the difference of the two matters.
    """
    if isinstance(factors, Bernoulli):
        noise, sign = factors.noise(key), 2 * hard - 1
        beyond = jax.nn.softplus(sign * factors.logits - jax.nn.softplus(noise))
        return sign * (beyond + jax.nn.softplus(-noise))
    log_probs = jax.nn.log_softmax(factors.logits)
    gumbels = jax.random.gumbel(key, log_probs.shape, log_probs.dtype)
    top = jnp.sum(jnp.where(hard > 0, gumbels, 0), axis=-1, keepdims=True)
    return jnp.where(hard > 0, top, -jnp.logaddexp(-gumbels - log_probs, -top))


def corner(factors: Relaxable, noisy: jax.Array) -> jax.Array:
    """The draw of the noisy logits, without a derivative."""
    noisy = stop(noisy)
    if isinstance(factors, Bernoulli):
        return (noisy > 0).astype(noisy.dtype)
    return jax.nn.one_hot(jnp.argmax(noisy, axis=-1), noisy.shape[-1], dtype=noisy.dtype)


def relaxed(factors: Relaxable, logits: jax.Array) -> jax.Array:
    """A point between the draws: the sigmoid, or the softmax."""
    return (jax.nn.sigmoid if isinstance(factors, Bernoulli) else jax.nn.softmax)(logits)


def carried(hard: jax.Array, soft: jax.Array) -> jax.Array:
    """The hard draw, bit for bit, with the derivative of the soft one."""
    return hard + (soft - stop(soft))


def zeros_along(logits: jax.Array) -> jax.Array:
    """Zeros whose derivative is that of the logits; infinite ones have none."""
    logits = jnp.where(jnp.isinf(logits), 0, logits)
    return logits - stop(logits)


def fixed(temperature: float | jax.Array, like: jax.Array) -> jax.Array:
    """The temperature, without a derivative."""
    return stop(jnp.asarray(temperature, like.dtype))
