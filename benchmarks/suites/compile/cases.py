"""The gradients that are compiled: by the library, and as written by hand with the same keys."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import distrax
import jax
import jax.numpy as jnp

import scorefn as sf

Loss = Callable[[Any, jax.Array], jax.Array]
SCORED = sf.ScoreFunction(sf.ConstantBaseline(0.7))
_stop = jax.lax.stop_gradient


class Case(NamedTuple):
    """Two losses of parameters and a key, whose gradients are compiled."""

    library: Loss
    hand: Loss
    params: Any


def _keys(key: jax.Array, n: int) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n, dtype=jnp.uint32))


def _left_out(costs: jax.Array, log_probs: jax.Array) -> jax.Array:
    """The surrogate loss of the score function with leave-one-out baselines."""
    stopped = _stop(costs)
    others = (jnp.sum(stopped) - stopped) / (len(costs) - 1)
    return jnp.mean(costs + (stopped - others) * log_probs)


def exponential() -> Case:
    """The first example of the README."""

    def log_prob(rate: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.log(rate) - rate * x

    def sample(rate: jax.Array, key: jax.Array) -> jax.Array:
        return jax.random.exponential(key) / rate

    def f(x: jax.Array) -> jax.Array:
        return jnp.where(x > 1.0, 1.0, 0.0)

    def hand(rate: jax.Array, key: jax.Array) -> jax.Array:
        x = _stop(jax.vmap(partial(sample, rate))(_keys(key, 10_000)))
        return _left_out(f(x), jax.vmap(partial(log_prob, rate))(x))

    library = sf.differentiable(f, log_prob, sample, sf.ScoreFunction(), num_samples=10_000)
    return Case(library, hand, 2.0)


def categorical() -> Case:
    """The second example of the README."""

    def library(params: Any, key: jax.Array) -> jax.Array:
        policy = distrax.Categorical(logits=params["logits"])
        cost = lambda action: params["scale"] * (action - 1.0) ** 2  # noqa: E731
        return sf.expectation(cost, policy, key, sf.ScoreFunction(), num_samples=64)

    def hand(params: Any, key: jax.Array) -> jax.Array:
        policy = distrax.Categorical(logits=params["logits"])
        actions = jax.vmap(lambda key: policy.sample(seed=key))(_keys(key, 64))
        return _left_out(params["scale"] * (actions - 1.0) ** 2, policy.log_prob(actions))

    return Case(library, hand, {"logits": jnp.zeros(3), "scale": 1.0})


def pathwise() -> Case:
    """A Gaussian of size 5, reparameterized."""

    def library(mean: jax.Array, key: jax.Array) -> jax.Array:
        normal = distrax.Normal(mean, 1.0)
        return sf.expectation(lambda x: jnp.sum(x**2), normal, key, sf.Pathwise(), num_samples=64)

    def hand(mean: jax.Array, key: jax.Array) -> jax.Array:
        x = jax.vmap(lambda key: distrax.Normal(mean, 1.0).sample(seed=key))(_keys(key, 64))
        return jnp.mean(jnp.sum(x**2, -1))

    return Case(library, hand, jnp.zeros(5))


def disarm() -> Case:
    """Five bits by DisARM."""

    def f(b: jax.Array) -> jax.Array:
        return jnp.sum(b) ** 2

    def library(logits: jax.Array, key: jax.Array) -> jax.Array:
        return sf.expectation(f, sf.Bernoulli(logits), key, sf.DisARM(), num_samples=16)

    def hand(logits: jax.Array, key: jax.Array) -> jax.Array:
        u = jax.vmap(lambda key: jax.random.uniform(key, (5,)))(_keys(key, 16))
        fixed = _stop(logits)
        p = jax.nn.sigmoid(fixed)
        one, other = (jnp.asarray(x < p, jnp.float32) for x in (u, 1 - u))
        first, second = jax.vmap(f)(one), jax.vmap(f)(other)
        change = (first - second)[:, None] / 2
        weight = change * (one - other) * jax.nn.sigmoid(jnp.abs(fixed))
        return jnp.mean((first + second) / 2 + jnp.sum(weight * logits, -1))

    return Case(library, hand, jnp.zeros(5))


def autoencoder(networks: str, bits: int) -> Case:
    """An autoencoder of bits with two samples for each of 32 images."""
    key = jax.random.key(0)
    images = jnp.asarray(jax.random.bernoulli(key, 0.5, (32, 64)), jnp.float32)
    encode, decode, params = {"flax": _flax, "equinox": _equinox}[networks](bits, 64)

    def cost(params: Any, image: jax.Array, code: jax.Array) -> jax.Array:
        logits = decode(params, code)
        return jnp.sum(jax.nn.softplus(logits) - image * logits)

    def divergence(logits: jax.Array) -> jax.Array:
        p = jax.nn.sigmoid(logits)
        return jnp.sum(jnp.log(2.0) - (jax.nn.softplus(logits) - p * logits))

    def by_library(params: Any, image: jax.Array, key: jax.Array) -> jax.Array:
        logits = encode(params, image)
        f = lambda code: cost(params, image, code)  # noqa: E731
        mean = sf.expectation(f, sf.Bernoulli(logits), key, sf.ScoreFunction(), num_samples=2)
        return mean + divergence(logits)

    def by_hand(params: Any, image: jax.Array, key: jax.Array) -> jax.Array:
        logits = encode(params, image)
        p = jax.nn.sigmoid(_stop(logits))
        codes = jax.vmap(lambda key: jax.random.bernoulli(key, p))(_keys(key, 2))
        codes = codes.astype(jnp.float32)
        costs = jax.vmap(lambda code: cost(params, image, code))(codes)
        log_probs = jnp.sum(codes * logits - jax.nn.softplus(logits), -1)
        return _left_out(costs, log_probs) + divergence(logits)

    def mean(one: Callable[..., jax.Array]) -> Loss:
        def loss(params: Any, key: jax.Array) -> jax.Array:
            keys = jax.random.split(key, len(images))
            return jnp.mean(jax.vmap(partial(one, params))(images, keys))

        return loss

    return Case(mean(by_library), mean(by_hand), params)


def _flax(bits: int, pixels: int) -> Any:
    linen: Any = import_module("flax.linen")

    def network(size: int) -> Any:
        return linen.Sequential([linen.Dense(64), jnp.tanh, linen.Dense(size)])

    encoder, decoder = network(bits), network(pixels)
    one, other = jax.random.split(jax.random.key(0))
    params = encoder.init(one, jnp.zeros(pixels)), decoder.init(other, jnp.zeros(bits))
    encode = lambda params, image: encoder.apply(params[0], image)  # noqa: E731
    return encode, lambda params, code: decoder.apply(params[1], code), params


def _equinox(bits: int, pixels: int) -> Any:
    eqx: Any = import_module("equinox")
    one, other = jax.random.split(jax.random.key(0))
    networks = (
        eqx.nn.MLP(pixels, bits, 64, 1, activation=jnp.tanh, key=one),
        eqx.nn.MLP(bits, pixels, 64, 1, activation=jnp.tanh, key=other),
    )
    params, static = eqx.partition(networks, eqx.is_array)
    encode = lambda params, image: eqx.combine(params, static)[0](image)  # noqa: E731
    return encode, lambda params, code: eqx.combine(params, static)[1](code), params


def bits(choices: int) -> Case:
    """Bits in a row: the sum of those before moves the logit of each."""

    def library(params: jax.Array, key: jax.Array) -> jax.Array:
        @sf.program
        def model() -> Any:
            total = jnp.zeros(())
            for logit in params:
                total += yield sf.sample(sf.Bernoulli(logit + total), SCORED)
                yield sf.cost(total)

        return model()(key)

    def hand(params: jax.Array, key: jax.Array) -> jax.Array:
        total, score, loss = jnp.zeros(()), jnp.zeros(()), jnp.zeros(())
        for logit, one in zip(params + 0, jax.random.split(key, choices), strict=True):
            at = logit + total
            bit = jax.random.bernoulli(one, jax.nn.sigmoid(_stop(at))).astype(jnp.float32)
            log_prob = bit * at - jax.nn.softplus(at)
            score, total = score + log_prob, total + bit
            loss += total + _stop(total) * score - 0.7 * log_prob
        return loss

    return Case(library, hand, jnp.linspace(-0.5, 0.5, choices))


def _normal(mean: jax.Array) -> sf.Distribution:
    return sf.Distribution(
        lambda mean, x: -0.5 * jnp.square(x - mean),
        lambda mean, key: mean + jax.random.normal(key, jnp.shape(mean)),
        mean,
    )


def walk(choices: int) -> Case:
    """A Gaussian walk, reparameterized."""

    def library(params: jax.Array, key: jax.Array) -> jax.Array:
        @sf.program
        def model() -> Any:
            x = jnp.zeros(())
            for step in params:
                x = yield sf.sample(_normal(x + step), sf.Pathwise())
                yield sf.cost(x**2)

        return model()(key)

    def hand(params: jax.Array, key: jax.Array) -> jax.Array:
        x, loss = jnp.zeros(()), jnp.zeros(())
        for step, one in zip(params + 0, jax.random.split(key, choices), strict=True):
            x += step + jax.random.normal(one)
            loss += x**2
        return loss

    return Case(library, hand, jnp.linspace(-0.5, 0.5, choices))


def rollout(steps: int) -> Case:
    """A Gaussian walk by the score function, as one scan."""

    def library(params: jax.Array, key: jax.Array) -> jax.Array:
        def step(x: jax.Array, mean: jax.Array) -> Any:
            x = yield sf.sample(_normal(x + mean), SCORED)
            return x, x**2

        return jnp.sum(sf.rollout(step, jnp.zeros(()), params)(key)[1])

    def hand(params: jax.Array, key: jax.Array) -> jax.Array:
        def step(carry: Any, given: Any) -> Any:
            (x, score), (change, key) = carry, given
            mean = x + change
            x = _stop(mean + jax.random.normal(key))
            log_prob = -0.5 * jnp.square(x - mean)
            score += log_prob
            return (x, score), x**2 + x**2 * score - 0.7 * log_prob

        start = jnp.zeros(()), jnp.zeros(())
        return jnp.sum(jax.lax.scan(step, start, (params, jax.random.split(key, steps)))[1])

    return Case(library, hand, jnp.linspace(-0.5, 0.5, steps))


def cases(sizes: Mapping[str, Any]) -> dict[str, Callable[[], Case]]:
    """The cases by name."""
    found: dict[str, Callable[[], Case]] = {
        "README: exponential, ScoreFunction": exponential,
        "README: categories of distrax, ScoreFunction": categorical,
        "Gaussian of size 5, Pathwise": pathwise,
        "5 bits, DisARM": disarm,
    }
    for networks in ("flax", "equinox"):
        name = f"autoencoder of {sizes['bits']} bits, {networks}"
        found[name] = partial(autoencoder, networks, sizes["bits"])
    for n in sizes["choices"]:
        found[f"program of {n} bits, ScoreFunction"] = partial(bits, n)
        found[f"program of {n} Gaussians, Pathwise"] = partial(walk, n)
    found[f"rollout of {sizes['steps']} steps, ScoreFunction"] = partial(rollout, sizes["steps"])
    return found
