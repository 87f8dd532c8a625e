"""One gradient at fixed parameters: its variance, its time and its signal-to-noise ratio."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from scorefn._core.pytree import pytree_dataclass, static_field

from .families import FAMILIES, Params
from .forms import FORMS
from .targets import target


@pytree_dataclass
class Problem:
    """Everything that one gradient depends on, besides its key.

    Attributes:
        params: of the approximate posterior.
        name: of the target.
        family: of the approximate posterior.
        form: of `FORMS`.
        num_samples: evaluations of the log joint density.
    """

    params: Params
    name: str = static_field()
    family: str = static_field()
    form: str = static_field()
    num_samples: int = static_field()


def gradient(problem: Problem, key: jax.Array) -> dict[str, jax.Array]:
    """One estimate of the gradient of the objective, as a vector."""

    def objective(params: Params) -> jax.Array:
        log_joint, q = target(problem.name).log_joint, FAMILIES[problem.family].posterior(params)
        return FORMS[problem.form].bound(log_joint, q, key, num_samples=problem.num_samples)

    return {"q": ravel_pytree(jax.grad(objective)(problem.params))[0]}


def variance(gradients: np.ndarray) -> tuple[float, float]:
    """The variance of gradients [n, d], summed over components, and its standard error."""
    n = len(gradients)
    squares = np.sum((gradients - gradients.mean(axis=0)) ** 2, axis=1)
    return float(squares.sum() / (n - 1)), float(squares.std(ddof=1) / np.sqrt(n))


def signal_to_noise(groups: np.ndarray) -> list[float]:
    """The norm of the mean relative to the root of the variance, of gradients [groups, n, d].

    First of all of them, then without each group, for the jackknife.
    """
    every = [groups, *(np.delete(groups, i, axis=0) for i in range(len(groups)))]
    return [_signal_to_noise(some.reshape(-1, some.shape[-1])) for some in every]


def _signal_to_noise(gradients: np.ndarray) -> float:
    noise, _ = variance(gradients)
    signal = np.sum(gradients.mean(axis=0) ** 2) - noise / len(gradients)
    return float(np.sqrt(max(signal, 0.0) / noise))


def moved(params: Params, distance: float) -> Params:
    """The parameters with every mean moved by so many scales, up and down in turns."""
    signs = jnp.where(jnp.arange(len(params["mean"])) % 2, 1.0, -1.0)
    return params | {"mean": params["mean"] + signs * distance * jnp.exp(params["log_scale"])}
