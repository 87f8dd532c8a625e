"""Five toys with exact gradients, for the distributions of any package.

The draw of the joint is a pair: a coin, and a Normal whose mean the coin moves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

COSTS = (1.0, 3.0, -2.0)
MEANS = (-1.0, 2.0)
MOVED = 1.5


@dataclass(frozen=True)
class Toy:
    """An expected cost and its gradient.

    Attributes:
        about: the expectation, in words.
        params: where the gradient is taken, [D].
        exact: the gradient, [D].
        cost: of one draw.
        size: of the largest cost that matters, which is what float32 rounds.
    """

    about: str
    params: tuple[float, ...]
    exact: tuple[float, ...]
    cost: Callable[[Any], jax.Array]
    size: float


def _sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def _square(x: jax.Array) -> jax.Array:
    return x**2


def _table(k: jax.Array) -> jax.Array:
    return jnp.array(COSTS)[jnp.asarray(k, int)]


def _categorical() -> tuple[float, ...]:
    weights = np.exp([0.2, -0.4, 1.0])
    weights /= weights.sum()
    return tuple((weights * (np.array(COSTS) - weights @ COSTS)).tolist())


_P = _sigmoid(0.3)
TOYS: Mapping[str, Toy] = {
    "gaussian": Toy(
        "(x - 3)², x ~ N(μ, σ²), along μ = 1 and log σ = 0",
        (1.0, 0.0),
        (-4.0, 2.0),
        lambda x: (x - 3) ** 2,
        30.0,
    ),
    "bernoulli": Toy(
        "(b - 0.45)², along the logit 0.3",
        (0.3,),
        (_P * (1 - _P) * (0.55**2 - 0.45**2),),
        lambda b: (jnp.asarray(b, float) - 0.45) ** 2,
        0.3,
    ),
    "categorical": Toy(
        "a table of three costs, along the logits",
        (0.2, -0.4, 1.0),
        _categorical(),
        _table,
        3.0,
    ),
    "mixture": Toy(
        "x², x ~ N(-1, 1) or N(2, 1), along the logit 0.3 of the second",
        (0.3,),
        (_P * (1 - _P) * (MEANS[1] ** 2 - MEANS[0] ** 2),),
        _square,
        30.0,
    ),
    "joint": Toy(
        "x², a coin a and x ~ N(m + 1.5 a, 1), along the logit 0.3 and m = 0.5",
        (0.3, 0.5),
        (
            _P * (1 - _P) * ((0.5 + MOVED) ** 2 - 0.5**2),
            2 * (0.5 + MOVED * _P),
        ),
        lambda ax: ax[1] ** 2,
        30.0,
    ),
}
