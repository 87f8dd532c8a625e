"""A contextual bandit on scikit-learn's digits, whose exact policy gradient is known.

The context is an image, the action a digit, the reward 1 for the right one. The policy is a softmax
of linear logits; a linear value of the image serves those recipes that want one.
"""

from collections.abc import Mapping
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import scorefn as sf
from benchmarks._measuring import enumeration
from scorefn import policy
from scorefn._core.pytree import pytree_dataclass, static_field

from .recipes import RECIPES, Batch, Recipe

Params = dict[str, jax.Array]
ACTIONS = 10


@pytree_dataclass
class Data:
    """Some or all of the digits.

    Attributes:
        images: [n, 65], pixels from 0 to 1, and a 1.
        labels: [n], from 0 to 9.
    """

    images: jax.Array | np.ndarray
    labels: jax.Array | np.ndarray


@cache
def digits() -> Data:
    """All 1797 of them."""
    images, labels = load_digits(return_X_y=True)
    images = np.hstack([images / 16, np.ones((len(images), 1))])
    # NumPy arrays: what is first asked for while tracing is kept, and must not be a tracer.
    return Data(images.astype(np.float32), labels.astype(np.int32))


def start() -> Params:
    """Every action alike, every value 0."""
    pixels = digits().images.shape[1]
    return {"policy": jnp.zeros((pixels, ACTIONS)), "value": jnp.zeros(pixels)}


def log_policy(params: Params, data: Data) -> jax.Array:
    """The log-probabilities of all actions, [n, 10]."""
    return jax.nn.log_softmax(jnp.asarray(data.images) @ params["policy"])


def expected_reward(params: Params, data: Data) -> jax.Array:
    """The mean over the images of the probability of the right action, exactly."""
    log_probs = log_policy(params, data)
    right = jnp.take_along_axis(log_probs, jnp.asarray(data.labels)[:, None], axis=1)
    return jnp.mean(jnp.exp(right))


def draw(params: Params, data: Data, key: jax.Array, group: int) -> tuple[jax.Array, Batch]:
    """Actions of the policy, [n, group], and what the recipes need to know. Consumes the key."""
    log_probs, labels = log_policy(params, data), jnp.asarray(data.labels)
    # By the inverse cdf: jax.random.categorical takes seconds to compile for many keys.
    below = jnp.cumsum(jnp.exp(log_probs), axis=1)[:, None, :-1]
    uniforms = jax.random.uniform(key, (len(labels), group))
    actions = jnp.sum(uniforms[..., None] >= below, axis=-1)
    value = jnp.asarray(data.images) @ params["value"]
    batch = Batch(
        old_log_prob=jnp.take_along_axis(log_probs, actions, axis=1)[..., None],
        where=jnp.ones((*actions.shape, 1), bool),
        reward=(actions == labels[:, None]).astype(log_probs.dtype),
        greedy_reward=(jnp.argmax(log_probs, axis=1) == labels).astype(log_probs.dtype),
        value=jnp.broadcast_to(value[:, None, None], (*actions.shape, 1)),
    )
    return actions, batch


def log_prob_of(params: Params, data: Data, actions: jax.Array) -> jax.Array:
    """The log-probabilities of the actions, [n, group, 1]."""
    return jnp.take_along_axis(log_policy(params, data), actions, axis=1)[..., None]


def weighted_rloo(log_prob: jax.Array, batch: Batch) -> jax.Array:
    """RLOO, weighted by the ratio: unbiased off policy."""
    advantage = batch.reward - sf.leave_one_out(batch.reward, axis=1)
    log_ratio = policy.log_ratio(log_prob, batch.old_log_prob)
    loss = policy.weighted_surrogate(log_prob, log_ratio, advantage, where=batch.where)
    return policy.reduce(loss, batch.where)


ENTRIES: Mapping[str, Recipe] = {**RECIPES, "RLOO, ratio": weighted_rloo}
UNBIASED = {"on": ("REINFORCE", "RLOO", "ReMax", "A2C", "RLOO, ratio"), "off": ("RLOO, ratio",)}


@pytree_dataclass
class Problem:
    """Everything that one gradient depends on, besides its key.

    Attributes:
        params: of the policy that learns.
        old: of the policy that acts.
        data: the images of one batch.
        name: of the recipe.
        group: how many actions for each image.
    """

    params: Params
    old: Params
    data: Data
    name: str = static_field()
    group: int = static_field()


def gradient(problem: Problem, key: jax.Array) -> dict[str, jax.Array]:
    """One estimate of the gradient of minus the expected reward, [650]."""
    actions, batch = draw(problem.old, problem.data, key, problem.group)

    def loss(weights: jax.Array) -> jax.Array:
        params = {**problem.params, "policy": weights}
        return ENTRIES[problem.name](log_prob_of(params, problem.data, actions), batch)

    return {"policy": jnp.ravel(jax.grad(loss)(problem.params["policy"]))}


@jax.jit
def exact_gradient(params: Params, data: Data) -> jax.Array:
    """The exact gradient of minus the expected reward, [650]."""
    return -jnp.ravel(jax.grad(expected_reward)(params, data)["policy"])


def exact_variance(problem: Problem) -> float | None:
    """The total variance of one on-policy gradient, if there is a formula."""
    name, n = problem.name, problem.group
    log_probs = np.asarray(log_policy(problem.params, problem.data), np.float64)
    images, labels = (np.asarray(x) for x in (problem.data.images, problem.data.labels))
    probs = np.exp(log_probs)
    value = images @ np.asarray(problem.params["value"], np.float64)
    greedy = (np.argmax(probs, axis=1) == labels).astype(float)
    baselines = {"REINFORCE": 0 * greedy, "ReMax": greedy, "A2C": value}
    # The mean of the group has seen its own sample: leave-one-out, a little less of it.
    factors = {"RLOO": 1.0, "RLOO, ratio": 1.0, "Dr.GRPO": 1 - 1 / n}
    total = 0.0
    for i, p in enumerate(probs):
        p = p / np.sum(p)
        reward, score = np.arange(ACTIONS) == labels[i], np.eye(ACTIONS) - p
        # Of an outer product of image and logits' score the squared norm is a product.
        size = float(images[i] @ images[i])
        if name in baselines:
            cost = reward - baselines[name][i]
            mean = enumeration.gradient(p, cost, score)
            total += size * float((p * cost**2) @ np.sum(score**2, axis=1) - mean @ mean) / n
        elif name in factors:
            loo = enumeration.leave_one_out(p, reward.astype(float), score, n)
            total += size * factors[name] ** 2 * loo
        else:
            return None
    return total / len(labels) ** 2
