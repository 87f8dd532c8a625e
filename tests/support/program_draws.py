"""Programs of several choices, run through all of their draws."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from support.exact import FAST, Noise, assert_close, derivatives, pieces, scale
from support.noise import noise_keys

import scorefn as sf

Loss = Callable[[Any, jax.Array], jax.Array]


def fast(fn: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(fn, compiler_options=FAST)


# --------------------------------------------------------------------------- every draw there is


def places(choices: list[tuple[Noise, int]], start: int, size: int) -> Iterator[tuple[Noise, int]]:
    """Which noise each draw of a program takes, and where in the noise of its key."""
    if not choices:
        return
    (noise, samples), *rest = choices
    part = size // 2 // samples
    for i in range(samples):
        yield noise, start + i * part
        yield from places(rest, start + size // 2 + i * part, part)


def needed(choices: list[tuple[Noise, int]]) -> int:
    """The size of the noise of a program's key: a half to draw with, a half for the rest."""
    if not choices:
        return 0
    (noise, samples), *rest = choices
    return 2 * samples * max(noise.width, needed(rest))


def every_key(*choices: tuple[Noise, int]) -> tuple[jax.Array, np.ndarray]:
    """One key for each outcome of all choices, each (noise, num_samples), and its weight."""
    size = needed(list(choices))
    draws = list(places(list(choices), 0, size))
    rows = np.array(list(itertools.product(*(range(len(noise.points)) for noise, _ in draws))))
    uniforms = np.full((len(rows), size), 0.5)
    weights = np.ones(len(rows))
    for (noise, at), row in zip(draws, rows.T, strict=True):
        uniforms[:, at : at + noise.width] = noise.points[row]
        weights *= noise.weights[row]
    return noise_keys(uniforms), weights


def check(
    loss: Loss,
    expected: Callable[[Any], jax.Array],
    params: Any,
    choices: list[tuple[Noise, int]],
    order: int = 2,
) -> None:
    """The mean of value, gradient ... of a loss over all keys is that of the expectation."""
    keys, weights = every_key(*choices)

    @fast
    def mean_and_exact(keys: jax.Array, weights: jax.Array) -> Any:
        values = jax.vmap(lambda key: derivatives(partial(loss, key=key), params, order))(keys)
        mean = [jnp.tensordot(weights, v, 1) for v in values]
        return mean, derivatives(expected, params, order)

    mean, exact = mean_and_exact(keys, weights)
    assert_close(mean, exact, atol=1e-12 * scale(exact))
    assert all(np.max(np.abs(e)) > 1e-3 for e in exact)


# ----------------------------------------------------------------------------------- three coins

COINS = {
    "a": np.array(0.4),
    "b": np.array([-0.7, 0.5]),
    "c": np.array([0.3, -0.4, 0.9]),
    "cost": np.array([1.3, -2.0, 0.6]),
}


def logits_of(p: Any, *bits: Any) -> jax.Array:
    """The logit of the next coin, given those before."""
    if not bits:
        return p["a"]
    if len(bits) == 1:
        return p["b"][0] + p["b"][1] * bits[0]
    return p["c"][0] + p["c"][1] * bits[0] + p["c"][2] * bits[1] * (1 - 2 * bits[0])


def cost_of(p: Any, bits: Any) -> jax.Array:
    total = p["a"]
    for i, bit in enumerate(bits):
        total = total * (1 + 0.5 * bit) + p["cost"][i] * bit
    return (total - 0.3) ** 2


def coins(number: int, estimators: Any, samples: Any) -> Loss:
    @sf.program
    def model(p: Any) -> Any:
        bits: list[Any] = []
        for i in range(number):
            coin = sf.Bernoulli(logits_of(p, *bits))
            bits.append((yield sf.sample(coin, estimators[i], num_samples=samples[i])))
        return cost_of(p, bits)

    return lambda p, key: model(p)(key)


def expected_of(number: int) -> Callable[[Any], jax.Array]:
    def expected(p: Any) -> jax.Array:
        total = jnp.zeros(())
        for bits in itertools.product((0.0, 1.0), repeat=number):
            prob = jnp.ones(())
            for i, bit in enumerate(bits):
                prob *= jax.nn.sigmoid((2 * bit - 1) * logits_of(p, *bits[:i]))
            total += prob * cost_of(p, bits)
        return total

    return expected


def coin_noise(i: int, *, mirrored: bool = False, order: int = 1) -> Noise:
    """The rule for coin i, whatever the coins before it."""
    before = itertools.product((0.0, 1.0), repeat=i)
    ones = [1 / (1 + np.exp(-float(logits_of(COINS, *bits)))) for bits in before]
    return pieces(*ones, *([1 - p for p in ones] if mirrored else []), order=order)
