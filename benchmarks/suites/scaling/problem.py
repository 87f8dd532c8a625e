"""One gradient on so many devices: the problem, its exact moments, and what its program costs."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import scorefn as sf
from scorefn._core.pytree import pytree_dataclass, static_field

MEAN = 0.5
ESTIMATORS: Mapping[str, sf.Estimator] = {
    "LeaveOneOut": sf.ScoreFunction(),
    "Pathwise": sf.Pathwise(),
}
COLLECTIVE = re.compile(
    r"= (\S.*?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("
)


@pytree_dataclass
class Problem:
    """The inputs of one gradient of E |x|^2 with x ~ N(mean, I), mean [size]."""

    mean: jax.Array
    name: str = static_field()
    num_samples: int = static_field()
    chunk_size: int | None = static_field()
    devices: int = static_field()


def problem(name: str, size: int, num_samples: int, chunk_size: int, devices: int) -> Problem:
    """The problem whose mean has equal components."""
    return Problem(jnp.full(size, MEAN), name, num_samples, chunk_size, devices)


def gradient(problem: Problem, key: jax.Array) -> dict[str, jax.Array]:
    """One estimate of the derivative in the mean, [size]: the samples spread over the devices."""
    mesh = Mesh(np.array(jax.devices()[: problem.devices]), ("devices",), (AxisType.Auto,))

    def loss(mean: jax.Array) -> jax.Array:
        return sf.expectation(
            lambda x: jnp.sum(x**2),
            distrax.Independent(distrax.Normal(mean, 1.0), 1),
            key,
            ESTIMATORS[problem.name],
            num_samples=problem.num_samples,
            chunk_size=problem.chunk_size,
            sharding=NamedSharding(mesh, PartitionSpec("devices")),
        )

    return {"mean": jax.grad(loss)(problem.mean)}


def exact_gradient(size: int) -> np.ndarray:
    """The exact gradient with respect to the mean, [size]."""
    return np.full(size, 2 * MEAN)


def exact_variance(name: str, size: int, n: int) -> float:
    """The variance of one gradient of n samples, summed over its components."""
    if name == "Pathwise":
        # 2 x, averaged.
        return 4 * size / n
    # A sample covariance of f and the score e: by E[(f - E f)^2 e_j^2] for f = |mean + e|^2.
    variance = 4 * size * MEAN**2 + 2 * size
    fourth, covariance = variance + 8 * MEAN**2 + 8, 2 * MEAN
    shares = fourth / n - (n - 2) / (n * (n - 1)) * covariance**2 + variance / (n * (n - 1))
    return size * shares


def program(problem: Problem) -> dict[str, Any]:
    """The memory of the compiled program on each device, and the bytes that devices exchange."""
    compiled, whole = _compiled(problem), _compiled(replace(problem, chunk_size=None))
    found = COLLECTIVE.findall(compiled.as_text())
    names = [name for _, name in found]
    # Of float32, in each of them.
    sizes = [re.findall(r"f32\[([\d,]*)\]", shapes) for shapes, _ in found]
    numbers = [
        int(np.prod([int(n) for n in dims.split(",") if n])) for row in sizes for dims in row
    ]
    return {
        "all_reduces": names.count("all-reduce"),
        "other_collectives": len(names) - names.count("all-reduce"),
        "reduced_bytes": 4 * sum(numbers),
        "bytes_in_chunks": compiled.memory_analysis().temp_size_in_bytes,
        "bytes_without": whole.memory_analysis().temp_size_in_bytes,
    }


def _compiled(problem: Problem) -> Any:
    return jax.jit(gradient).lower(problem, jax.random.key(0)).compile()
