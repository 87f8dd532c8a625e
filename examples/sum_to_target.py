"""A small sequence model, fine-tuned on sums: ``python examples/sum_to_target.py``.

The prompt is a number from 1 to 8, the answer up to 4 digits from 1 to 3 and then the end, and the
reward is 1 if the digits add up to the prompt: verified, not learned. The objective is the expected
reward less BETA times the divergence from the reference, the model before. All 121 answers can be
listed, so that objective and divergence are known exactly, and so is the best that any policy can
do: BETA log E_ref[exp(reward / BETA)].
"""

import argparse
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import scorefn as sf
from scorefn import policy

PROMPTS, DIGITS, LENGTH, HIDDEN = 8, 3, 4, 10
GROUP, BETA = 16, 0.1
END = 0


def start(key: jax.Array) -> Any:
    """Some 300 weights of a recurrent network. Uses up the key."""
    shapes = {
        "prompt": (PROMPTS, HIDDEN),
        "token": (DIGITS + 1, HIDDEN),
        "again": (HIDDEN, HIDDEN),
        "out": (HIDDEN, DIGITS + 1),
    }
    keys = jax.random.split(key, len(shapes))
    return {
        name: jax.random.normal(k, shape) / 2
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def _advance(params: Any, hidden: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The hidden state, and the log-probabilities of the next token."""
    hidden = jnp.tanh(hidden @ params["again"] + params["token"][token])
    return hidden, jax.nn.log_softmax(hidden @ params["out"])


def answer(params: Any, prompt: jax.Array, key: jax.Array) -> jax.Array:
    """One answer, [LENGTH]; what follows the end is the end. Uses up the key."""

    def step(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        hidden, token, done = carry
        hidden, log_probs = _advance(params, hidden, token)
        token = jnp.where(done, END, jax.random.categorical(key, log_probs))
        return (hidden, token, done | (token == END)), token

    first = (params["prompt"][prompt], jnp.asarray(END), jnp.zeros((), bool))
    return jax.lax.scan(step, first, jax.random.split(key, LENGTH))[1]


def log_prob(params: Any, prompt: jax.Array, tokens: jax.Array) -> jax.Array:
    """The log-probability of each token of an answer, [LENGTH]."""

    def step(carry: Any, token: jax.Array) -> tuple[Any, jax.Array]:
        hidden, log_probs = _advance(params, *carry)
        return (hidden, token), log_probs[token]

    first = (params["prompt"][prompt], jnp.asarray(END))
    return jax.lax.scan(step, first, tokens)[1]


def counts(tokens: jax.Array) -> jax.Array:
    """The tokens that are there: up to the first end, and that too."""
    ends = jnp.cumsum(tokens == END, axis=-1) - (tokens == END)
    return ends == 0


def reward(prompt: jax.Array, tokens: jax.Array) -> jax.Array:
    """1 if the digits add up to the prompt, which counts from 0."""
    return (jnp.sum(tokens, axis=-1) == prompt + 1).astype(float)


class Answers(NamedTuple):
    """A group for each prompt: tokens, and their log-probabilities under two policies."""

    tokens: jax.Array
    where: jax.Array
    reward: jax.Array
    old_log_prob: jax.Array
    ref_log_prob: jax.Array


def draw(params: Any, reference: Any, key: jax.Array) -> Answers:
    """Answers to all prompts, [PROMPTS, GROUP, LENGTH]. Uses up the key."""
    prompts, keys = jnp.arange(PROMPTS), jax.random.split(key, (PROMPTS, GROUP))
    tokens = jax.vmap(lambda p, ks: jax.vmap(partial(answer, params, p))(ks))(prompts, keys)
    return Answers(
        tokens,
        counts(tokens),
        reward(prompts[:, None], tokens),
        log_probs(params, tokens),
        log_probs(reference, tokens),
    )


def log_probs(params: Any, tokens: jax.Array) -> jax.Array:
    """Of groups of answers to all prompts, shaped like them."""
    group = jax.vmap(partial(log_prob, params), (None, 0))
    return jax.vmap(group)(jnp.arange(PROMPTS), tokens)


def divergence(new: jax.Array, drawn: Answers) -> jax.Array:
    """KL(policy || reference) of whole answers, in nats, with its gradient."""
    weight = policy.log_ratio(new, drawn.old_log_prob, "prefix", drawn.where)
    each = policy.kl_estimate(new, drawn.ref_log_prob, log_weight=weight, where=drawn.where)
    return policy.reduce(each, drawn.where, "seq-mean-token-sum")


def rloo(new: jax.Array, drawn: Answers) -> jax.Array:
    """The other answers to the same prompt are the baseline; unbiased."""
    advantage = drawn.reward - sf.leave_one_out(drawn.reward, axis=1)
    loss = policy.score_surrogate(new, advantage, where=drawn.where)
    return policy.reduce(loss, drawn.where, "seq-mean-token-sum") + BETA * divergence(new, drawn)


def grpo(new: jax.Array, drawn: Answers) -> jax.Array:
    """Whitened groups and the clipped surrogate; biased, and good for several steps a batch."""
    ratio = policy.log_ratio(new, drawn.old_log_prob, where=drawn.where)
    advantage = policy.whiten(drawn.reward, axis=1)
    loss = policy.clipped_surrogate(ratio, advantage, where=drawn.where)
    return policy.reduce(loss, drawn.where, "seq-mean-token-mean") + BETA * divergence(new, drawn)


class Method(NamedTuple):
    """A loss, and how many steps of Adam one batch serves."""

    loss: Callable[[jax.Array, Answers], jax.Array]
    updates: int


METHODS = {"rloo": Method(rloo, 1), "grpo": Method(grpo, 3)}


def all_answers() -> np.ndarray:
    """Each once, [121, LENGTH]."""
    strings = np.array(list(itertools.product(range(DIGITS + 1), repeat=LENGTH)))
    ended = np.cumsum(strings == END, axis=1) > 0
    return np.unique(np.where(ended, END, strings), axis=0)


class Exact(NamedTuple):
    """By sums over all answers, a mean over prompts: in rewards and in nats."""

    reward: jax.Array
    divergence: jax.Array
    objective: jax.Array
    best: jax.Array


@jax.jit
def exact(params: Any, reference: Any) -> Exact:
    """What a policy reaches, and what the best policy of all would."""
    tokens = jnp.broadcast_to(all_answers(), (PROMPTS, *all_answers().shape))
    right = reward(jnp.arange(PROMPTS)[:, None], tokens)

    def whole(params: Any) -> jax.Array:
        return jnp.sum(jnp.where(counts(tokens), log_probs(params, tokens), 0), axis=-1)

    new, ref = whole(params), whole(reference)
    gained = jnp.mean(jnp.sum(jnp.exp(new) * right, axis=1))
    moved = jnp.mean(jnp.sum(jnp.exp(new) * (new - ref), axis=1))
    best = BETA * jnp.mean(jax.nn.logsumexp(ref + right / BETA, axis=1))
    return Exact(gained, moved, gained - BETA * moved, best)


@partial(jax.jit, static_argnames=("name", "batches"))
def train(name: str, reference: Any, key: jax.Array, batches: int) -> Any:
    """The parameters after so many batches, starting from the reference."""
    method, optimiser = METHODS[name], optax.adam(0.01)

    def batch(carry: Any, key: jax.Array) -> tuple[Any, None]:
        drawn = draw(carry[0], reference, key)

        def loss(params: Any) -> jax.Array:
            return method.loss(log_probs(params, drawn.tokens), drawn)

        def update(carry: Any, _: None) -> tuple[Any, None]:
            params, memory = carry
            change, memory = optimiser.update(jax.grad(loss)(params), memory)
            return (optax.apply_updates(params, change), memory), None

        return jax.lax.scan(update, carry, None, length=method.updates)[0], None

    carry = (reference, optimiser.init(reference))
    return jax.lax.scan(batch, carry, jax.random.split(key, batches))[0][0]


def main() -> None:
    """Fine-tunes with each method and prints what it reached, exactly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=2000)
    batches = parser.parse_args().batches
    for seed in range(3):
        reference_key, key = jax.random.split(jax.random.key(seed))
        reference = start(reference_key)
        before = exact(reference, reference)
        print(f"seed {seed}: reward {before.reward:.3f} before, best objective {before.best:.3f}")
        for name in METHODS:
            found = exact(train(name, reference, key, batches), reference)
            print(
                f"  {name}: reward {found.reward:.3f}, divergence {found.divergence:.3f} nats, "
                f"objective {found.objective:.3f}"
            )


if __name__ == "__main__":
    main()
