"""Toys of one categorical variable: eight categories made of three bits, and a thousand."""

import math

import jax
import jax.numpy as jnp
import numpy as np

import scorefn as sf

from .toy import Entry, Setting, Toy, all_bits, bit_probs, enumerated, leave_one_out_entry

# The three bits of Liu et al. (2019) and Kool et al. (2020), one parameter for all, as one
# categorical variable with eight values.

_TARGETS = np.array([0.6, 0.51, 0.48])


def _three_bits(eta: jax.Array) -> sf.Categorical:
    bits = jnp.asarray(all_bits(3), eta.dtype)
    return sf.Categorical(jax.vmap(sf.Bernoulli(jnp.broadcast_to(eta, 3)).log_prob)(bits))


def _looked_up(data: jax.Array, x: jax.Array) -> jax.Array:
    return data[x]


def _kool(eta: float) -> Setting:
    bits, theta = all_bits(3), 1 / (1 + math.exp(-eta))
    f = np.sum((bits - _TARGETS) ** 2, axis=1)
    probs = bit_probs(np.full(3, theta), bits)
    return enumerated(np.array(eta), f, f, probs, np.sum(bits - theta, axis=1))


WITHOUT_REPLACEMENT = Toy(
    title="3 bits as 8 categories",
    varied="logit of each bit",
    cost=_looked_up,
    distribution=_three_bits,
    settings={eta: _kool(eta) for eta in (0.0, -4.0)},
    entries={
        **{name: entry for k in range(2, 9) for name, entry in leave_one_out_entry(k).items()},
        **{f"UnorderedSet ({k})": Entry(sf.UnorderedSet(), k, k) for k in range(1, 9)},
        **{f"SumAndSample ({k})": Entry(sf.SumAndSample(k - 1), 1, k) for k in range(2, 9)},
    },
)


# One categorical variable with a thousand values, from flat to peaked.

_C = 1000


def _thousand(spread: float) -> Setting:
    random = np.random.default_rng(1)
    logits, f = spread * random.normal(size=_C), random.normal(size=_C)
    probs = np.exp(logits - np.logaddexp.reduce(logits))
    return enumerated(logits, f, f, probs, np.eye(_C) - probs)


def _entropy(logits: np.ndarray) -> float:
    """The entropy of a categorical distribution, in nats."""
    log_probs = logits - np.logaddexp.reduce(logits)
    return float(-np.sum(np.exp(log_probs) * log_probs))


THOUSAND = Toy(
    title="1000 categories",
    varied="entropy, nats",
    cost=_looked_up,
    distribution=sf.Categorical,
    settings={
        round(_entropy(setting.params), 1): setting
        for setting in map(_thousand, (0.0, 2.0, 3.0, 4.0))
    },
    entries={
        **leave_one_out_entry(2),
        **leave_one_out_entry(4),
        "CoupledCategorical (2)": Entry(sf.CoupledCategorical(), 1, 2),
        "UnorderedSet (4)": Entry(sf.UnorderedSet(), 4, 4),
        "SumAndSample (4)": Entry(sf.SumAndSample(3), 1, 4),
        "StochasticSumAndSample (4)": Entry(sf.StochasticSumAndSample(3), 1, 4),
    },
    projected=True,
)
