"""Ways to estimate a divergence from one draw, as they are published, right ones and wrong ones."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from scorefn import policy

Loss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@dataclass(frozen=True)
class Way:
    """One estimator of KL(policy || reference).

    Attributes:
        loss: ``loss(log_prob, old_log_prob, ref_log_prob)`` of one draw, to be differentiated.
        value: whether its value estimates the divergence, too.
        on: of which divergence its derivative is the gradient in the mean, on policy: ``kl``,
            ``reverse`` for KL(reference || policy), ``zero``, or ``none`` of these.
        off: the same for draws of another policy.
    """

    loss: Loss
    value: bool
    on: str
    off: str


def _k2(log_prob: jax.Array, ref: jax.Array) -> jax.Array:
    return jnp.square(log_prob - ref) / 2


def _k3(log_prob: jax.Array, ref: jax.Array) -> jax.Array:
    return jnp.expm1(ref - log_prob) + log_prob - ref


def _ratio(log_prob: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.exp(log_prob - old)


def _estimate(kind: str, baseline: float = 0.0) -> Loss:
    def loss(log_prob: jax.Array, old: jax.Array, ref: jax.Array) -> jax.Array:
        weight = policy.log_ratio(log_prob, old)
        return policy.kl_estimate(log_prob, ref, kind, log_weight=weight, baseline=baseline)

    return loss


stop = jax.lax.stop_gradient

# Where draws are of the policy itself, old is equal to log_prob, and stopped.
WAYS: dict[str, Way] = {
    "k1": Way(lambda new, _, ref: new - ref, value=True, on="zero", off="none"),
    "k2": Way(lambda new, _, ref: _k2(new, ref), value=False, on="kl", off="none"),
    "k3": Way(lambda new, _, ref: _k3(new, ref), value=True, on="reverse", off="none"),
    "stop(ratio) * k3": Way(
        lambda new, old, ref: stop(_ratio(new, old)) * _k3(new, ref),
        value=True,
        on="reverse",
        off="reverse",
    ),
    "ratio * k2": Way(
        lambda new, old, ref: _ratio(new, old) * _k2(new, ref), value=False, on="none", off="none"
    ),
    "ratio * k1": Way(
        lambda new, old, ref: _ratio(new, old) * (new - ref), value=True, on="kl", off="kl"
    ),
    "ratio * k3": Way(
        lambda new, old, ref: _ratio(new, old) * _k3(new, ref), value=True, on="kl", off="kl"
    ),
    "stop(ratio) * k2": Way(
        lambda new, old, ref: stop(_ratio(new, old)) * _k2(new, ref),
        value=False,
        on="kl",
        off="kl",
    ),
    "kl_estimate, k1": Way(_estimate("k1"), value=True, on="kl", off="kl"),
    "kl_estimate, k3": Way(_estimate("k3"), value=True, on="kl", off="kl"),
    "kl_estimate, k3, baseline": Way(_estimate("k3", 0.25), value=True, on="kl", off="kl"),
}
