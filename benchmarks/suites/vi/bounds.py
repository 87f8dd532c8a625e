"""One gradient of an importance-weighted bound of a linear-Gaussian model, along its posterior."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import scorefn as sf
from benchmarks._measuring.measure import batch, measure
from benchmarks._measuring.timing import microseconds
from benchmarks._suite import Row, step_key
from scorefn import vi
from scorefn._core.pytree import pytree_dataclass, static_field

from .bounds_exact import OFFSET, SLOPE, VARIANCE, X

Q = Callable[[jax.Array], sf.Distribution]
TARGET = "linear-Gaussian"


@pytree_dataclass
class Problem:
    """Everything that one gradient depends on, besides its key.

    Attributes:
        offset: b, where it is taken.
        name: of the estimator.
        num_samples: K, the samples of one bound.
    """

    offset: Any
    name: str = static_field()
    num_samples: int = static_field()


def _sample(mean: jax.Array, key: jax.Array) -> jax.Array:
    return mean + jnp.sqrt(VARIANCE) * jax.random.normal(key)


def _log_prob(mean: jax.Array, z: jax.Array) -> jax.Array:
    return jax.scipy.stats.norm.logpdf(z, mean, jnp.sqrt(VARIANCE))


def _fixed_log_prob(mean: jax.Array, z: jax.Array) -> jax.Array:
    return _log_prob(jax.lax.stop_gradient(mean), z)


def _log_joint(z: jax.Array) -> jax.Array:
    return jax.scipy.stats.norm.logpdf(z) + jax.scipy.stats.norm.logpdf(X, z)


def _bound(problem: Problem, offset: jax.Array, key: jax.Array) -> jax.Array:
    # Sticking the landing: the parameters of log q are held fixed in the bound itself.
    log_prob = _fixed_log_prob if problem.name == "sticking the landing" else _log_prob
    bound = vi.dreg if problem.name == "DReG" else vi.iwae
    q = sf.Distribution(log_prob, _sample, SLOPE * X + offset)
    return bound(_log_joint, q, key, num_samples=problem.num_samples)


def gradient(problem: Problem, key: jax.Array) -> dict[str, jax.Array]:
    """One estimate of the derivative of the bound along b."""
    return {"b": jax.grad(partial(_bound, problem))(problem.offset, key)}


NAMES = ("IWAE", "DReG", "sticking the landing")


@cache
def _reference(num_samples: int, seed: int, repeats: int, at_once: int) -> tuple[float, float]:
    """The mean derivative of DReG, the unbiased one of least noise, and its error."""
    keys = jax.random.split(step_key(seed, f"bound {num_samples}"), repeats)
    found = batch(gradient, Problem(OFFSET, "DReG", num_samples), keys, at_once=at_once)["b"]
    values = np.asarray(found, np.float64)
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def rows(
    name: str, num_samples: int, seed: int, key: jax.Array, sizes: Mapping[str, Any]
) -> dict[str, list[Row]]:
    """The row of one estimator at one number of samples. The key is consumed."""
    at_once = sizes["repeats"]["at_once"]
    exact, error = _reference(num_samples, seed, sizes["reference"], at_once)
    # Left out of its bound, the score has no longer mean 0 if the samples are several.
    unbiased = name != "sticking the landing" or num_samples == 1
    found = measure(
        gradient,
        Problem(OFFSET, name, num_samples),
        key,
        {"b": exact},
        **sizes["repeats"],
        biased=not unbiased,
        exact_error={"b": error},
    )["b"]
    center = exact if unbiased else float(found.mean)
    ratio = abs(center) / np.sqrt(found.variance)
    noise = np.hypot(found.variance_se / found.variance / 2, error / exact)
    row = {
        "target": TARGET,
        "at": num_samples,
        "form": name,
        "estimator": "plain",
        "parameter": "b",
        "unbiased": unbiased,
        "evaluations": num_samples,
        **found.columns(),
        "relative_variance": None,
        "relative_variance_se": None,
        "effect": None,
        "relative_bias": None if unbiased else found.relative_bias(np.asarray(exact)),
        "snr": ratio,
        "snr_se": ratio * noise,
        "timing": f"{TARGET} {name}",
    }
    return {"rows": [row]}


def times(seed: int, sizes: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Microseconds, for 64 samples."""
    problems = {f"{TARGET} {name}": Problem(OFFSET, name, 64) for name in NAMES}
    return {"times": microseconds(gradient, problems, seed, **sizes["timing"])}
