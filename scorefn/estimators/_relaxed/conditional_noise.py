"""The continuous noise of a discrete choice, before and given the choice."""

import jax
import jax.numpy as jnp

from scorefn._core.arrays import stop, wide
from scorefn.distributions._discrete import Bernoulli, Categorical, Factors, OneHotCategorical


def coupled_noise(factors: Factors, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The choice (an argument of `cast`), its z, and z' ~ p(z | choice).

    z' is coupled to z: the noise used to sample p(z | choice) is the noise that gives z. This noise
    does not depend on the choice, so the coupling changes no mean. It halves the number of random
    draws, and c(z) - c(z') has the value 0, so that only derivatives are added to f.
    """
    if isinstance(factors, Bernoulli):
        return _coupled_bits(factors, key)
    return _coupled_categories(factors, key)


def _coupled_bits(bits: Bernoulli, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    noise = bits.noise(key)
    logits = bits.logits.astype(noise.dtype)
    one = noise < logits
    z = logits - noise
    # With s = +1 or -1 for one or zero, P(s z > t) = sigmoid(s logit - t). Its ratio w to
    # P(s z > 0) is uniform; hence t = softplus(l + softplus(s logit)) with l = logit(1 - w).
    sign = jnp.where(one, 1, -1).astype(z.dtype)
    size = jnp.maximum(jnp.abs(stop(z)), jnp.finfo(z.dtype).tiny)
    # Computed for both signs, so that many keys with the same logits share it.
    reach = jnp.where(one, jax.nn.softplus(logits), jax.nn.softplus(-logits))
    uniform = size + jnp.log(-jnp.expm1(-size)) - stop(reach)
    return one, z, _at(z, sign * jax.nn.softplus(uniform + reach))


def _coupled_categories(
    factors: Categorical | OneHotCategorical, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    dtype = wide(factors.logits.dtype)
    log_probs = jax.nn.log_softmax(factors.logits.astype(dtype))
    z = log_probs + jax.random.gumbel(key, log_probs.shape, dtype)
    choice = jnp.argmax(z, axis=-1)
    # The largest z, t, is Gumbel for all parameters. Given t, the others are Gumbels truncated at
    # t: -log(exp(-t) + exp(-y)), with y a Gumbel at their own log-probability.
    chosen = jnp.arange(z.shape[-1]) == choice[..., None]
    top = stop(jnp.max(z, axis=-1, keepdims=True))
    gap = jnp.maximum(jnp.where(chosen, 1, top - stop(z)), jnp.finfo(dtype).tiny)
    possible = ~chosen & (log_probs > -jnp.inf)
    noise = stop(z - log_probs - jnp.log(-jnp.expm1(-gap)))
    y = jnp.where(possible, log_probs + jnp.where(possible, noise, 0), 0)
    return choice, z, _at(z, jnp.where(possible, -jnp.logaddexp(-top, -y), stop(z)))


def _at(z: jax.Array, x: jax.Array) -> jax.Array:
    """The value of z, to the last bit, with the derivative of x."""
    return stop(z) + jnp.where(jnp.isfinite(z), x - stop(x), 0)
