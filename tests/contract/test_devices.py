"""Samples on many devices: what is communicated and kept, chunks on each device, two processes."""

import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from support.exact import assert_close, scale
from support.registry import each, problem
from support.transformations import both, loss_of

import scorefn as sf

SIZE, SAMPLES = 32, 4096
COLLECTIVE = re.compile(
    r"= (\S.*?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("
)
FLOATS = re.compile(r"f32\[([\d,]*)\]")
PARAMS = {"mean": jnp.full(SIZE, 0.1), "log_scale": jnp.full(SIZE, -0.2)}


def sharding_of(devices: int, axis_type: AxisType = AxisType.Auto) -> NamedSharding:
    mesh = Mesh(np.array(jax.devices()[:devices]), ("devices",), axis_types=(axis_type,))
    return NamedSharding(mesh, PartitionSpec("devices"))


def in_context(sharding: NamedSharding) -> contextlib.AbstractContextManager[Any]:
    explicit = AxisType.Explicit in sharding.mesh.axis_types
    return jax.set_mesh(sharding.mesh) if explicit else contextlib.nullcontext()


def loss(params: Any, key: jax.Array, estimator: sf.Estimator, **options: Any) -> jax.Array:
    def cost(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.tanh(x)) ** 2 + params["mean"][0] * x[0]

    normal = distrax.MultivariateNormalDiag(params["mean"], jnp.exp(params["log_scale"]))
    return sf.expectation(cost, normal, key, estimator, num_samples=SAMPLES, **options)


def compiled(estimator: sf.Estimator, sharding: NamedSharding, **options: Any) -> Any:
    def gradient(params: Any, key: jax.Array) -> Any:
        return jax.grad(loss)(params, key, estimator, sharding=sharding, **options)

    with in_context(sharding):
        return jax.jit(gradient).lower(PARAMS, jax.random.key(0)).compile()


def collectives(program: Any) -> list[tuple[str, int]]:
    """Each one's name and the numbers that it communicates."""
    found = COLLECTIVE.findall(program.as_text())
    return [
        (name, sum(int(np.prod([int(n) for n in dims.split(",") if n])) for dims in shapes))
        for shapes, name in ((FLOATS.findall(shape), name) for shape, name in found)
    ]


# Leave-one-out needs the sum of the costs before the gradient; else there is the gradient alone.
NEEDED = {sf.ScoreFunction(): 2, sf.Pathwise(): 1, sf.ScoreFunction(sf.ConstantBaseline(0.0)): 1}


@pytest.mark.parametrize("chunk_size", [None, 128])
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("estimator", NEEDED, ids=["leave_one_out", "pathwise", "constant"])
def test_devices_communicate_a_gradient_and_no_samples(
    estimator: sf.Estimator, axis_type: AxisType, chunk_size: int | None
) -> None:
    program = compiled(estimator, sharding_of(8, axis_type), chunk_size=chunk_size)
    found = collectives(program)
    assert [name for name, _ in found] == ["all-reduce"] * NEEDED[estimator]
    # distrax keeps two copies of each parameter; and there are single sums.
    assert 2 * SIZE <= sum(size for _, size in found) <= 5 * SIZE
    if axis_type == AxisType.Auto:
        # Once, and not once for each chunk.
        assert not re.search(r"all-reduce.*while/body", program.as_text())


@pytest.mark.parametrize("estimator", [sf.ScoreFunction(), sf.Pathwise()], ids=str)
def test_memory_of_a_device_falls_as_their_number(estimator: sf.Estimator) -> None:
    used = {
        n: compiled(estimator, sharding_of(n)).memory_analysis().temp_size_in_bytes
        for n in (1, 2, 8)
    }
    assert used[1] > SAMPLES * SIZE * 4
    for n in (2, 8):
        assert used[n] < 1.1 * used[1] / n + 8 * SIZE * 4, used


def test_with_chunks_memory_of_a_device_is_that_of_a_chunk() -> None:
    """And of a few numbers for each of its samples."""
    used = {
        n: compiled(sf.Pathwise(), sharding_of(8), chunk_size=n).memory_analysis()
        for n in (64, 512)
    }
    few, all_of_them = (used[n].temp_size_in_bytes for n in (64, 512))
    assert few < all_of_them / 3


CHUNKED = ("leave_one_out", "enumerate", "MeasureValued", "Sobol", "SumAndSample")
EXPLICIT = ("leave_one_out", "pathwise", "MeasureValued")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "axis_type"),
    [(name, AxisType.Auto) for name in CHUNKED] + [(name, AxisType.Explicit) for name in EXPLICIT],
    ids=str,
)
def test_chunks_on_devices_give_the_gradient_of_one(name: str, axis_type: AxisType) -> None:
    entry, kind = next(p.values for p in each(num_samples=12) if p.values[0].name == name)
    if axis_type == AxisType.Explicit and kind == "categorical":
        kind = "gaussian"
    p = problem(kind)
    sharding = sharding_of(4, axis_type)
    one, flat = loss_of(p, entry.build(p), num_samples=12)
    # 3 samples on each device: a chunk of 2, and one left over.
    four, _ = loss_of(p, entry.build(p), num_samples=12, chunk_size=2, sharding=sharding)
    with in_context(sharding):
        desired, got = both(one, four)(flat, jax.random.key(6))
    assert_close(got, desired, atol=1e-12 * scale(desired))


@pytest.mark.parametrize("spec", ["rows", ("rows", "columns")], ids=str)
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_samples_spread_over_one_or_two_axes_of_a_mesh(spec: Any, axis_type: AxisType) -> None:
    devices = np.array(jax.devices()).reshape(4, 2)
    mesh = Mesh(devices, ("rows", "columns"), axis_types=(axis_type,) * 2)
    sharding = NamedSharding(mesh, PartitionSpec(spec))
    p = problem("gaussian").in_dtype(jnp.float32)
    one, flat = loss_of(p, sf.ScoreFunction(), num_samples=16)
    spread, _ = loss_of(p, sf.ScoreFunction(), num_samples=16, chunk_size=2, sharding=sharding)
    with in_context(sharding):
        desired, got = both(one, spread)(flat, jax.random.key(6))
    assert_close(got, desired, atol=1e-6 * scale(desired))


# ---------------------------------------------------------------------------------- many processes

EXAMPLE = Path(__file__).parents[2] / "examples" / "many_hosts.py"
OPTIONS = ("--steps", "3", "--every", "2", "--samples", "1024", "--chunk", "128")


def started(devices: int, *options: str) -> subprocess.Popen[str]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    return subprocess.Popen(
        [sys.executable, str(EXAMPLE), *OPTIONS, *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_two_processes_learn_what_one_device_does(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = ("--coordinator", f"127.0.0.1:{port}", "--num-processes", "2")
    several, one = tmp_path / "several.npz", tmp_path / "one.npz"
    processes = [
        started(2, *together, "--process-id", "0", "--out", str(several)),
        started(2, *together, "--process-id", "1"),
        started(1, "--out", str(one)),
    ]
    try:
        printed = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0, 0], "\n".join(printed)
    assert "4 devices, 2 processes" in printed[0]
    assert "1 devices, 1 processes" in printed[2]
    assert "step" not in printed[1]
    with np.load(several) as found, np.load(one) as desired:
        assert set(found) == set(desired) == {"values", "mean", "log_scale"}
        for name in found:
            np.testing.assert_allclose(found[name], desired[name], rtol=0, atol=1e-6)
        assert np.min(np.abs(found["mean"])) > 0.01
