"""CartPole in pure JAX, solved by four policy gradients: ``python examples/cartpole.py``.

REINFORCE, then reward-to-go, then a baseline, then PPO: each adds one idea to the one before.
Environment, rollouts and training are one compiled program; a seed takes seconds.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from scorefn import policy

HORIZON, EPISODES = 500, 32


# The cart-pole of Barto, Sutton and Anderson (1983), with the constants of Gymnasium's CartPole-v1.


def reset(key: jax.Array) -> jax.Array:
    """Cart position and velocity, pole angle and angular velocity, [4]. Uses up the key."""
    return jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)


def push(state: jax.Array, action: jax.Array) -> jax.Array:
    """The state 0.02 s later, pushed to the left (0) or to the right (1) with 10 N."""
    x, speed, angle, spin = state
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    pull = (20.0 * action - 10.0 + 0.05 * spin**2 * sin) / 1.1
    turn = (9.8 * sin - cos * pull) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
    change = jnp.stack([speed, pull - 0.05 * turn * cos / 1.1, spin, turn])
    return jnp.stack([x, speed, angle, spin]) + 0.02 * change


def upright(state: jax.Array) -> jax.Array:
    """Whether the episode goes on."""
    return (jnp.abs(state[0]) < 2.4) & (jnp.abs(state[2]) < 0.2094)


class Steps(NamedTuple):
    """Episodes side by side, [EPISODES, HORIZON, ...]; the reward of each step is 1."""

    state: jax.Array
    action: jax.Array
    log_prob: jax.Array
    where: jax.Array
    goes_on: jax.Array


def logits_of(params: Any, state: jax.Array) -> jax.Array:
    """Of the two actions, from a network with one hidden layer."""
    return _network(params["policy"], state)


def value_of(params: Any, state: jax.Array) -> jax.Array:
    """The return that is expected, in steps."""
    return 100 * _network(params["value"], state)[..., 0]


def _network(layers: Any, state: jax.Array) -> jax.Array:
    scaled = state * jnp.array([0.4, 0.5, 5.0, 0.5])
    return jnp.tanh(scaled @ layers["in"] + layers["bias"]) @ layers["out"]


def start(key: jax.Array) -> Any:
    """The parameters of both networks. Uses up the key."""
    keys = jax.random.split(key, 2)
    return {
        name: {
            "in": jax.random.normal(k, (4, 32)) / 2,
            "bias": jnp.zeros(32),
            "out": jnp.zeros((32, size)),
        }
        for k, (name, size) in zip(keys, {"policy": 2, "value": 1}.items(), strict=True)
    }


def rollout(params: Any, key: jax.Array, *, greedy: bool = False) -> Steps:
    """Episodes of the policy. Uses up the key."""

    def episode(key: jax.Array) -> Steps:
        key, first = jax.random.split(key)

        def step(carry: Any, uniform: jax.Array) -> tuple[Any, Steps]:
            state, alive = carry
            log_probs = jax.nn.log_softmax(logits_of(params, state))
            action = jnp.where(greedy, 0.5, uniform) < jnp.exp(log_probs[1])
            action = action.astype(jnp.int32)
            after = push(state, action)
            goes_on = alive & upright(after)
            made = Steps(state, action, log_probs[action], alive, goes_on)
            return (jnp.where(goes_on, after, state), goes_on), made

        uniforms = jax.random.uniform(key, (HORIZON,))
        return jax.lax.scan(step, (reset(first), jnp.ones((), bool)), uniforms)[1]

    return jax.vmap(episode)(jax.random.split(key, EPISODES))


# Four losses. All steps of an episode count alike: the discount is 1 until the pole has fallen.

Loss = Callable[[Any, Steps], jax.Array]


def _log_prob(params: Any, steps: Steps) -> jax.Array:
    log_probs = jax.nn.log_softmax(logits_of(params, steps.state))
    return jnp.take_along_axis(log_probs, steps.action[..., None], axis=-1)[..., 0]


def _to_go(steps: Steps) -> jax.Array:
    return policy.returns(jnp.ones_like(steps.log_prob), 1.0, where=steps.where)


def reinforce(params: Any, steps: Steps) -> jax.Array:
    """The return of the whole episode, for each of its actions."""
    whole = jnp.sum(steps.where, axis=1)
    loss = policy.score_surrogate(_log_prob(params, steps), whole, where=steps.where)
    return policy.reduce(loss, steps.where, "seq-mean-token-sum-norm", length=HORIZON)


def reward_to_go(params: Any, steps: Steps) -> jax.Array:
    """What comes after an action: the past is noise."""
    loss = policy.score_surrogate(_log_prob(params, steps), _to_go(steps), where=steps.where)
    return policy.reduce(loss, steps.where, "seq-mean-token-sum-norm", length=HORIZON)


def baseline(params: Any, steps: Steps) -> jax.Array:
    """What comes after an action, less what was expected: a value, learned along."""
    value, to_go = value_of(params, steps.state), _to_go(steps)
    loss = policy.score_surrogate(_log_prob(params, steps), to_go - value, where=steps.where)
    fit = jnp.square((to_go - value) / 100)
    return policy.reduce(loss + fit, steps.where, "seq-mean-token-sum-norm", length=HORIZON)


def ppo(params: Any, steps: Steps) -> jax.Array:
    """The clipped surrogate, so that one batch serves several steps."""
    value, to_go = value_of(params, steps.state), _to_go(steps)
    advantage = policy.whiten(to_go - value, where=steps.where)
    ratio = policy.log_ratio(_log_prob(params, steps), steps.log_prob, where=steps.where)
    fit = jnp.square((to_go - value) / 100)
    loss = policy.clipped_surrogate(ratio, advantage, where=steps.where)
    return policy.reduce(loss + fit, steps.where)


class Method(NamedTuple):
    """A loss, and how many steps of Adam one batch serves."""

    loss: Loss
    updates: int = 1


METHODS = {
    "reinforce": Method(reinforce),
    "reward-to-go": Method(reward_to_go),
    "baseline": Method(baseline),
    "ppo": Method(ppo, updates=10),
}


@partial(jax.jit, static_argnames=("name", "batches"))
def train(name: str, key: jax.Array, batches: int) -> tuple[jax.Array, jax.Array]:
    """Mean return of each batch while training, and returns of episodes at the end, greedy."""
    method, optimiser = METHODS[name], optax.adam(0.01)

    def batch(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        steps = rollout(carry[0], key)

        def update(carry: Any, _: None) -> tuple[Any, None]:
            params, memory = carry
            change, memory = optimiser.update(jax.grad(method.loss)(params, steps), memory)
            return (optax.apply_updates(params, change), memory), None

        carry, _ = jax.lax.scan(update, carry, None, length=method.updates)
        return carry, jnp.mean(jnp.sum(steps.where, axis=1))

    start_key, train_key, test_key = jax.random.split(key, 3)
    params = start(start_key)
    carry = (params, optimiser.init(params))
    (params, _), curve = jax.lax.scan(batch, carry, jax.random.split(train_key, batches))
    return curve, jnp.sum(rollout(params, test_key, greedy=True).where, axis=1)


def main() -> None:
    """Trains by each method with three seeds and prints the returns of 20 episodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=200)
    for seed in range(3):
        for name in METHODS:
            curve, found = train(name, jax.random.key(seed), parser.parse_args().batches)
            reached = int(jnp.argmax(curve > 400)) if jnp.any(curve > 400) else None
            print(f"{name:14s} seed {seed}: {jnp.mean(found[:20]):.0f}, above 400 at {reached}")


if __name__ == "__main__":
    main()
