"""Two small Bayesian neural networks: a regression on diabetes, a classification of wines."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_diabetes, load_wine

from benchmarks._models.logistic import Data

Params = dict[str, Any]

# Inputs, hidden units, outputs: 193 and 173 weights.
DIABETES_SIZES = (10, 16, 1)
WINE_SIZES = (13, 10, 3)
# Of the target, which has unit variance: about what a linear regression leaves unexplained.
NOISE = 0.7
FIRST_SCALE = 0.1


@cache
def diabetes() -> Data:
    """The diabetes data that scikit-learn ships: 442 cases, 10 features, standardised."""
    return _data(*load_diabetes(return_X_y=True), scaled=True)


@cache
def wine() -> Data:
    """The wine data that scikit-learn ships: 178 wines of 3 kinds, 13 features, standardised."""
    return _data(*load_wine(return_X_y=True), scaled=False)


def _data(features: np.ndarray, targets: np.ndarray, *, scaled: bool) -> Data:
    features = (features - features.mean(0)) / features.std(0)
    if scaled:
        targets = (targets - targets.mean()) / targets.std()
    return Data(features.astype(np.float32), targets.astype(np.float32))


def diabetes_cost(weights: jax.Array, data: Data) -> jax.Array:
    """The negative log-likelihood of all data, in nats, up to a constant."""
    found = _network(weights, data.features, DIABETES_SIZES)[:, 0]
    return data.weight * jnp.sum(((data.labels - found) / NOISE) ** 2) / 2


def wine_cost(weights: jax.Array, data: Data) -> jax.Array:
    """The negative log-likelihood of all data, in nats."""
    logits = jax.nn.log_softmax(_network(weights, data.features, WINE_SIZES))
    kinds = jnp.asarray(data.labels).astype(int)
    return -data.weight * jnp.sum(jnp.take_along_axis(logits, kinds[:, None], axis=1))


def start(sizes: Sequence[int], key: jax.Array) -> Params:
    """A posterior around one draw from the prior. Consumes the key."""
    inputs, hidden, outputs = sizes
    d = (inputs + 1) * hidden + (hidden + 1) * outputs
    mean = jax.random.normal(key, (d,))
    return {"mean": mean, "log_scale": jnp.full(d, jnp.log(FIRST_SCALE))}


def _network(
    weights: jax.Array, features: jax.Array | np.ndarray, sizes: Sequence[int]
) -> jax.Array:
    # Weights are N(0, 1) under the prior, so each layer divides by the root of its inputs.
    inputs, hidden, outputs = sizes
    first, second = weights[: (inputs + 1) * hidden], weights[(inputs + 1) * hidden :]
    inner, outer = first.reshape(inputs + 1, hidden), second.reshape(hidden + 1, outputs)
    hiddens = jnp.tanh(jnp.asarray(features) @ inner[:-1] / np.sqrt(inputs) + inner[-1])
    return hiddens @ outer[:-1] / np.sqrt(hidden) + outer[-1]
