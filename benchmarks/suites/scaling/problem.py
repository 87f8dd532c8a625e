"""One gradient on many devices, compiled from shapes: what the devices exchange and keep."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import scorefn as sf

ESTIMATORS: Mapping[str, sf.Estimator] = {
    "LeaveOneOut": sf.ScoreFunction(),
    "Pathwise": sf.Pathwise(),
}
COLLECTIVE = re.compile(
    r"= (\S.*?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("
)
FLOATS = re.compile(r"f32\[([\d,]*)\]")


def gradient(name: str, samples: int, chunk_size: int | None, mean: jax.Array, key: Any) -> Any:
    """The derivative of E |x|^2 with x ~ N(mean, I), the samples spread over all devices."""
    mesh = Mesh(np.array(jax.devices()), ("devices",), (AxisType.Auto,))

    def loss(mean: jax.Array) -> jax.Array:
        return sf.expectation(
            lambda x: jnp.sum(x**2),
            distrax.Independent(distrax.Normal(mean, 1.0), 1),
            key,
            ESTIMATORS[name],
            num_samples=samples,
            chunk_size=chunk_size,
            sharding=NamedSharding(mesh, PartitionSpec("devices")),
        )

    return jax.grad(loss)(mean)


def counted(name: str, size: int, samples: int, chunk_size: int) -> dict[str, Any]:
    """The collectives of the program for all devices, their bytes, and the memory of a device."""

    def compiled(chunk_size: int | None) -> Any:
        shapes = jax.ShapeDtypeStruct((size,), jnp.float32), jax.eval_shape(jax.random.key, 0)
        return jax.jit(partial(gradient, name, samples, chunk_size)).lower(*shapes).compile()

    in_chunks, whole = compiled(chunk_size), compiled(None)
    found = COLLECTIVE.findall(in_chunks.as_text())
    sizes = [
        sum(int(np.prod([int(n) for n in dims.split(",") if n])) for dims in FLOATS.findall(shapes))
        for shapes, _ in found
    ]
    names = [name for _, name in found]
    return {
        "all_reduces": names.count("all-reduce"),
        "other_collectives": len(names) - names.count("all-reduce"),
        "reduced_bytes": [4 * n for n in sizes],
        "bytes_in_chunks": in_chunks.memory_analysis().temp_size_in_bytes,
        "bytes_without": whole.memory_analysis().temp_size_in_bytes,
    }


def on_virtual_devices(devices: int, **settings: Any) -> dict[str, Any]:
    """`counted` in a process of its own, with so many virtual devices on the CPU."""
    flag = "--xla_force_host_platform_device_count"
    others = [f for f in os.environ.get("XLA_FLAGS", "").split() if not f.startswith(flag)]
    flags = " ".join([*others, f"{flag}={devices}"])
    run = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(settings)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise RuntimeError(f"{devices} virtual devices: {run.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    print(json.dumps(counted(**json.loads(sys.argv[1]))))
