"""Toys of independent bits: 200 that do not interact, and eight that do."""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

import scorefn as sf

from .toy import Entry, Setting, Toy, all_bits, bit_probs, enumerated, leave_one_out_entry

BITS: Mapping[str, Entry] = {
    **leave_one_out_entry(2),
    **leave_one_out_entry(4),
    "ARM (2)": Entry(sf.ARM(), 1, 2),
    "DisARM (2)": Entry(sf.DisARM(), 1, 2),
    "ARMS (4)": Entry(sf.ARMS(), 4, 4),
    "BitFlip (2)": Entry(sf.BitFlip(), 1, 2),
    "DoubleCV (2)": Entry(sf.DoubleCV(), 2, 2, tuned=True),
    "REBAR (3)": Entry(sf.REBAR(0.5), 1, 3, tuned=True),
    "StraightThrough (1)": Entry(sf.StraightThrough(), 1, 1),
    "ST-GumbelSoftmax (1)": Entry(sf.StraightThroughGumbelSoftmax(0.5), 1, 1),
    "GumbelSoftmax (1)": Entry(sf.GumbelSoftmax(0.5), 1, 1),
    "GumbelRao (1)": Entry(sf.GumbelRao(0.5), 1, 1),
    "ReinMax (1)": Entry(sf.ReinMax(), 1, 1),
}


# The separable toy of Titsias and Shi (2022): 200 bits, cost mean (b_i - 0.499)^2.

_D, _T = 200, 0.499
_STEP = (1 - _T) ** 2 - _T**2


def _separable_cost(data: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.mean((b - data) ** 2)


def _separable(theta: float) -> Setting:
    v = theta * (1 - theta)

    def leave_one_out(n: int) -> float:
        # The general formula, coordinate by coordinate.
        known_mean, price = v * (1 - 3 * v) + (_D - 2) * v**2, (_D + 1) * v**2
        return (_STEP / _D) ** 2 * (known_mean / n + price / (n * (n - 1))) * _D

    return Setting(
        params=np.full(_D, math.log(theta / (1 - theta))),
        data=np.array(_T),
        gradient=np.full(_D, v * _STEP / _D),
        leave_one_out=leave_one_out,
        magnitude=(1 - _T) ** 2,
    )


def _theta(setting: Setting) -> float:
    return float(1 / (1 + np.exp(-setting.params[0])))


def _separable_arm(setting: Setting) -> float:
    theta = _theta(setting)
    p = min(theta, 1 - theta)
    alone = 2 / 3 * (1 / 8 - (1 / 2 - p) ** 3) - (theta * (1 - theta)) ** 2
    return (_STEP / _D) ** 2 * (alone + (_D - 1) * p / 6) * _D


def _separable_disarm(setting: Setting) -> float:
    p = min(_theta(setting), 1 - _theta(setting))
    pairs = 2 * p * (1 - 2 * p) + 4 * p**2 * (_D - 1)
    return (_STEP / (2 * _D)) ** 2 * (1 - p) ** 2 * pairs * _D


def _separable_bit_flip(setting: Setting) -> float:
    theta = _theta(setting)
    return (_D - 1) * (theta * (1 - theta) * _STEP / _D) ** 2 * _D


def _known(name: str, variance: Callable[[Setting], float]) -> dict[str, Entry]:
    entry = BITS[name]
    return {name: Entry(entry.estimator, entry.num_samples, entry.evaluations, variance)}


SEPARABLE = Toy(
    title="200 separable bits",
    varied="θ",
    cost=_separable_cost,
    distribution=sf.Bernoulli,
    settings={theta: _separable(theta) for theta in (0.5, 0.7, 0.9)},
    entries={
        **BITS,
        **_known("ARM (2)", _separable_arm),
        **_known("DisARM (2)", _separable_disarm),
        **_known("BitFlip (2)", _separable_bit_flip),
    },
    projected=True,
)


# Eight bits that interact.


def _quadratic_cost(data: jax.Array, b: jax.Array) -> jax.Array:
    return b @ data[:-1] @ b + data[-1] @ b


def _quadratic(scale: float, d: int = 8) -> Setting:
    random = np.random.default_rng(0)
    data = np.concatenate([random.normal(size=(d, d)) / d, random.normal(size=(1, d))])
    logits = scale * random.normal(size=d)
    bits, theta = all_bits(d), 1 / (1 + np.exp(-logits))
    f = np.einsum("si,ij,sj->s", bits, data[:-1], bits) + bits @ data[-1]
    return enumerated(logits, data, f, bit_probs(theta, bits), bits - theta)


def _perceptron(inputs: int, outputs: int, hidden: int = 10) -> dict[str, np.ndarray]:
    """The weights of a small network whose first output is 0."""
    random = np.random.default_rng(0)
    inner = random.normal(size=(hidden, inputs + 1)) / math.sqrt(inputs)
    return {"inner": inner.astype(np.float32), "outer": np.zeros((outputs, hidden), np.float32)}


def _network(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return params["outer"] @ jnp.tanh(params["inner"] @ jnp.append(x, 1))


def _surrogate(params: dict[str, jax.Array], z: jax.Array) -> jax.Array:
    return _network(params, z)[0]


def _surrogates(
    params: dict[str, jax.Array], value: jax.Array, slope: jax.Array
) -> tuple[jax.Array, jax.Array]:
    h, t = _network(params, jnp.stack([value, slope]))
    return value + slope + h, t


QUADRATIC = Toy(
    title="8 bits, quadratic cost",
    varied="spread of the logits",
    cost=_quadratic_cost,
    distribution=sf.Bernoulli,
    settings={scale: _quadratic(scale) for scale in (0.5, 1.0, 2.0)},
    entries={
        **BITS,
        "LocalExpectation (9)": Entry(sf.LocalExpectation(), 1, 9),
        "RELAX (1)": Entry(sf.RELAX(_surrogate, _perceptron(8, 1)), 1, 1, tuned=True),
        "RODEO (2)": Entry(sf.RODEO(_surrogates, _perceptron(2, 2)), 2, 2, tuned=True),
    },
)
