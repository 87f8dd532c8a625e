"""Published estimates of a divergence from one draw, right and wrong ones."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from scorefn import policy
from scorefn._core.pytree import pytree_dataclass, static_field

Loss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
Formula = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Way:
    """One estimator of KL(policy || reference).

    Attributes:
        loss: ``loss(log_prob, old_log_prob, ref_log_prob)`` of one draw, to be differentiated.
        value: of the loss, from the log-ratio d of policy and reference and the ratio r of policy
            and old policy.
        slope: of the loss along log_prob, from the same.
        on: of which divergence its derivative is the gradient in the mean, on policy: ``kl``,
            ``reverse`` for KL(reference || policy), ``zero``, or ``none`` of these.
        off: the same for draws of the old policy.
    """

    loss: Loss
    value: Formula
    slope: Formula
    on: str
    off: str


def _k2(log_prob: jax.Array, ref: jax.Array) -> jax.Array:
    return jnp.square(log_prob - ref) / 2


def _k3(log_prob: jax.Array, ref: jax.Array) -> jax.Array:
    return jnp.expm1(ref - log_prob) + log_prob - ref


def _ratio(log_prob: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.exp(log_prob - old)


def _estimate(kind: str) -> Loss:
    def loss(log_prob: jax.Array, old: jax.Array, ref: jax.Array) -> jax.Array:
        weight = policy.log_ratio(log_prob, old)
        return policy.kl_estimate(log_prob, ref, kind, log_weight=weight, axis=None)

    return loss


def _k3_of(d: np.ndarray) -> np.ndarray:
    return np.expm1(-d) + d


_stop = jax.lax.stop_gradient

# Where draws are of the policy itself, old is equal to log_prob, and stopped.
WAYS: dict[str, Way] = {
    "k1": Way(
        lambda new, _, ref: new - ref,
        value=lambda d, _: d,
        slope=lambda d, _: np.ones_like(d),
        on="zero",
        off="none",
    ),
    "k2": Way(
        lambda new, _, ref: _k2(new, ref),
        value=lambda d, _: d**2 / 2,
        slope=lambda d, _: d,
        on="kl",
        off="none",
    ),
    "k3": Way(
        lambda new, _, ref: _k3(new, ref),
        value=lambda d, _: _k3_of(d),
        slope=lambda d, _: -np.expm1(-d),
        on="reverse",
        off="none",
    ),
    "stop(ratio) * k3": Way(
        lambda new, old, ref: _stop(_ratio(new, old)) * _k3(new, ref),
        value=lambda d, r: r * _k3_of(d),
        slope=lambda d, r: -r * np.expm1(-d),
        on="reverse",
        off="reverse",
    ),
    "ratio * k2": Way(
        lambda new, old, ref: _ratio(new, old) * _k2(new, ref),
        value=lambda d, r: r * d**2 / 2,
        slope=lambda d, r: r * (d**2 / 2 + d),
        on="none",
        off="none",
    ),
    "ratio * k1": Way(
        lambda new, old, ref: _ratio(new, old) * (new - ref),
        value=lambda d, r: r * d,
        slope=lambda d, r: r * (d + 1),
        on="kl",
        off="kl",
    ),
    "ratio * k3": Way(
        lambda new, old, ref: _ratio(new, old) * _k3(new, ref),
        value=lambda d, r: r * _k3_of(d),
        slope=lambda d, r: r * d,
        on="kl",
        off="kl",
    ),
    "stop(ratio) * k2": Way(
        lambda new, old, ref: _stop(_ratio(new, old)) * _k2(new, ref),
        value=lambda d, r: r * d**2 / 2,
        slope=lambda d, r: r * d,
        on="kl",
        off="kl",
    ),
    "kl_estimate, k1": Way(
        _estimate("k1"), value=lambda d, r: r * d, slope=lambda d, r: r * d, on="kl", off="kl"
    ),
    "kl_estimate, k3": Way(
        _estimate("k3"),
        value=lambda d, r: r * _k3_of(d),
        slope=lambda d, r: r * d,
        on="kl",
        off="kl",
    ),
}


@pytree_dataclass
class Problem:
    """One draw of one of five outcomes; the logits of each policy, [5].

    Attributes:
        new: of the policy.
        old: of the policy that draws.
        ref: of the reference.
        name: of the way.
    """

    new: np.ndarray
    old: np.ndarray
    ref: np.ndarray
    name: str = static_field()


@cache
def problem(name: str, distance: float, *, drawn: str) -> Problem:
    """The reference lies so many times a random vector away; ``drawn`` by: new, or old."""
    start, away, aside = np.random.default_rng(6).normal(size=(3, 5)).astype(np.float32)
    old = start + np.float32(0.4) * aside if drawn == "old" else start
    return Problem(start, old, start + np.float32(distance) * away, name)


def gradient(problem: Problem, key: jax.Array) -> dict[str, jax.Array]:
    """The gradient along the logits from one draw, [5]."""
    below = jnp.cumsum(jax.nn.softmax(jnp.asarray(problem.old)))[:-1]
    drawn = jnp.sum(jax.random.uniform(key) >= below)

    def loss(logits: jax.Array) -> jax.Array:
        new, old, ref = (jax.nn.log_softmax(x) for x in (logits, problem.old, problem.ref))
        return WAYS[problem.name].loss(new[drawn], old[drawn], ref[drawn])

    return {"logits": jax.grad(loss)(jnp.asarray(problem.new))}


@dataclass(frozen=True)
class Exact:
    """The exact moments of one estimator, by sums over all outcomes.

    Attributes:
        kl: the divergence, in nats.
        gradient: its gradient, [5].
        mean: of the estimates of the gradient, [5].
        variance: of one, summed over its components.
        value: the mean of the values, in nats.
        value_variance: of one value, in nats^2.
    """

    kl: float
    gradient: np.ndarray
    mean: np.ndarray
    variance: float
    value: float
    value_variance: float

    @property
    def relative_bias(self) -> float:
        """The norm of the gradient's bias by that of the gradient."""
        distance = np.linalg.norm(self.mean - self.gradient)
        return float(distance / np.linalg.norm(self.gradient))


def exact(problem: Problem) -> Exact:
    """The exact moments, by sums over the five outcomes."""
    new, old, ref = (
        x.astype(float) - np.logaddexp.reduce(x.astype(float))
        for x in (problem.new, problem.old, problem.ref)
    )
    way, d, r, drawn, p = WAYS[problem.name], new - ref, np.exp(new - old), np.exp(old), np.exp(new)
    scores = np.eye(len(p)) - p
    slopes, values = way.slope(d, r)[:, None] * scores, way.value(d, r)
    mean, value = drawn @ slopes, drawn @ values
    return Exact(
        kl=float(p @ d),
        gradient=(p * d) @ scores,
        mean=mean,
        variance=float(drawn @ np.sum((slopes - mean) ** 2, axis=1)),
        value=float(value),
        value_variance=float(drawn @ (values - value) ** 2),
    )
