"""scorefn.policy and rollouts on many devices: shard_map, pmap, jit with explicit axes."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from support.exact import FAST
from support.policy_calls import CASES, EXISTS

import scorefn as sf
from scorefn import policy

pytestmark = pytest.mark.usefixtures("x64")

once = partial(jax.jit, compiler_options=FAST)
P = PartitionSpec
DEVICES = 4


def results(arrays: Any, where: Any, ids: Any) -> dict[str, Any]:
    """The results of each function, and the derivatives of the sum of their squares."""
    found = {}
    for name, case in CASES.items():

        def total(given, name=name, case=case):
            result = jnp.asarray(case.call(**given, where=where, **ids[name]))
            return jnp.sum(jnp.square(result)), result

        (_, result), slopes = jax.value_and_grad(total, has_aux=True)(arrays[name])
        found[name] = (jnp.atleast_1d(result), slopes)
    return found


def inputs(times: int = DEVICES) -> tuple[Any, ...]:
    """The arrays of all cases, some times below each other, each time with other numbers."""

    def repeat(x: np.ndarray) -> np.ndarray:
        if not np.issubdtype(x.dtype, np.floating):
            return np.concatenate([x] * times)
        return np.concatenate([x * (1 + 0.01 * i) for i in range(times)])

    arrays = {name: case.arrays for name, case in CASES.items()}
    ids = {name: case.ids for name, case in CASES.items()}
    return jax.tree.map(repeat, (arrays, EXISTS, ids))


def blocks(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.reshape(DEVICES, -1, *x.shape[1:]), tree)


def assert_same(found: Any, desired: Any) -> None:
    for (path, a), (_, b) in zip(
        jax.tree.leaves_with_path(found), jax.tree.leaves_with_path(desired), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11, err_msg=jax.tree_util.keystr(path))


def one_by_one() -> Any:
    """The result that each device should find separately, [DEVICES, ...]."""
    run = once(results)
    each = [run(*jax.tree.map(lambda x, i=i: x[i], blocks(inputs()))) for i in range(DEVICES)]
    return jax.tree.map(lambda *x: np.stack(x), *each)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_every_function_runs_inside_shard_map_as_it_is(kind: AxisType) -> None:
    mesh = jax.make_mesh((DEVICES,), ("dp",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        mapped = jax.shard_map(results, mesh=mesh, in_specs=P("dp"), out_specs=P("dp"))
        given = jax.device_put(inputs(), NamedSharding(mesh, P("dp")))
        found = once(mapped)(*given)
    desired = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), one_by_one())
    assert_same(found, desired)


def test_every_function_runs_inside_pmap_as_it_is() -> None:
    found = jax.pmap(results, devices=jax.devices()[:DEVICES])(*blocks(inputs()))
    assert_same(found, one_by_one())


@pytest.mark.parametrize("vmapped", [False, True], ids=["whole", "vmapped"])
def test_every_function_runs_on_a_batch_that_is_sharded_explicitly(*, vmapped: bool) -> None:
    mesh = jax.make_mesh((DEVICES,), ("dp",), axis_types=(AxisType.Explicit,))
    fn = jax.vmap(results) if vmapped else results
    whole = blocks(inputs()) if vmapped else inputs()
    with jax.set_mesh(mesh):
        found = once(fn)(*jax.device_put(whole, NamedSharding(mesh, P("dp"))))
    assert_same(found, once(fn)(*whole))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_scalars_and_no_masks_do_on_devices(kind: AxisType) -> None:
    """The mask, the discount, the lam and the bootstrap are then known to all devices."""

    def few(x, ids):
        packed = {"segment_ids": ids, "num_segments": 2}
        return (
            policy.returns(x, 0.9, 0.5),
            policy.returns(x, 0.9, 0.5, **packed),
            policy.gae(x, 0.9, x, policy.next_value(x, 0.5), 0.8),
            policy.lambda_returns(x, 0.9, 0.5, 0.8, **packed),
            policy.vtrace(x, 0.9, x, 0.5, 0.0),
            policy.n_step_returns(x, 0.9, 0.5, 2),
            policy.clipped_surrogate(policy.log_ratio(x, -1.0, "sequence-mean"), 1.0),
            policy.weighted_surrogate(x, 0.1, jnp.arange(1.0)[0]),
            policy.kl_estimate(x, -1.0, log_weight=0.1),
            policy.divergence(x[..., None] * jnp.arange(3.0), x[..., None] * jnp.ones(3), x),
            policy.best_of(x, 2),
            policy.clipped_value_loss(x, 0.5, 0.4),
            policy.importance_weight(x, high=2.0),
            policy.discount_weight(x),
        )

    x, ids = CASES["returns"].arrays["reward"], np.array([[1, 1, 0, 2, 2]] * 2)
    x, ids = np.concatenate([x] * 2), np.concatenate([ids] * 2)
    desired = once(few)(x, ids)
    mesh = jax.make_mesh((DEVICES,), ("dp",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        given = jax.device_put((x, ids), NamedSharding(mesh, P("dp")))
        assert_same(once(few)(*given), desired)
        mapped = jax.shard_map(few, mesh=mesh, in_specs=P("dp"), out_specs=P("dp"))
        assert_same(once(mapped)(*given), desired)


# ------------------------------------------------------------ means and scales of all devices

X = np.random.default_rng(3).normal(size=(16, 6))
WHERE = np.random.default_rng(4).random((16, 6)) < np.linspace(0.1, 1, 16)[:, None]
WHERE[3:5] = False
MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_losses_of_devices_add_up_to_that_of_the_batch(kind: AxisType) -> None:
    """With the total of all, and the gradient along parameters that all devices share."""
    mesh = jax.make_mesh((8,), ("dp",), axis_types=(kind,))

    def losses(scale, x, where, name=None):
        found = []
        for mode in MODES:
            n = policy.total(where, mode, length=9)
            n = n if name is None else jax.lax.psum(n, name)
            loss = policy.reduce(jnp.sin(scale * x), where, mode, total=n)
            found.append(loss if name is None else jax.lax.psum(loss, name))
        return jnp.stack(found)

    with jax.set_mesh(mesh):
        mapped = jax.shard_map(
            partial(losses, name="dp"),
            mesh=mesh,
            in_specs=(P(), P("dp"), P("dp")),
            out_specs=P(),
        )
        given = jax.device_put((X, WHERE), NamedSharding(mesh, P("dp")))
        found = once(lambda s, *given: (mapped(s, *given), jax.jacrev(mapped)(s, *given)))
        found = found(jnp.asarray(1.3), *given)
    desired = losses(1.3, X, WHERE), jax.jacrev(losses)(1.3, X, WHERE)
    for a, b in zip(found, desired, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    plain = [policy.reduce(jnp.sin(1.3 * X), WHERE, mode, length=9) for mode in MODES]
    np.testing.assert_allclose(found[0], plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("by", ["shard_map", "pmap", "vmap"])
def test_whitening_over_devices_is_that_of_the_batch(by: str) -> None:
    def loss(x, where, **options):
        found = policy.whiten(x, where=where, **options)
        return jnp.sum(found**3), found

    def device(x, where):
        def own(x):
            total, found = loss(x, where, axis_name="dp")
            return jax.lax.psum(total, "dp"), found

        (_, found), slope = jax.value_and_grad(own, has_aux=True)(x)
        return found, slope

    if by == "shard_map":
        mesh = jax.make_mesh((8,), ("dp",), axis_types=(AxisType.Auto,))
        run = jax.shard_map(device, mesh=mesh, in_specs=P("dp"), out_specs=P("dp"))
        found, slope = once(run)(X, WHERE)
    else:
        run = jax.pmap(device, "dp") if by == "pmap" else jax.vmap(device, axis_name="dp")
        found, slope = (
            np.reshape(x, X.shape) for x in run(*(y.reshape(8, 2, 6) for y in (X, WHERE)))
        )
    exact, desired = jax.grad(loss, has_aux=True)(jnp.asarray(X), WHERE)
    np.testing.assert_allclose(found, desired, rtol=0, atol=1e-12)
    # psum in pmap and vmap hands each device the sum of all cotangents.
    share = 1 if by == "shard_map" else 8
    np.testing.assert_allclose(slope / share, exact, rtol=0, atol=1e-11)


PROCESS = """
import sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
port, rank, file = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", 2, int(rank))
import jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from scorefn import policy
x, where = np.load(file).values()
mesh = jax.make_mesh((4,), ("dp",), axis_types=(jax.sharding.AxisType.Auto,))
def loss(scale, x, where):
    n = jax.lax.psum(policy.total(where), "dp")
    each = policy.whiten(jnp.sin(scale * x), where=where, axis_name="dp") * scale
    return jax.lax.psum(policy.reduce(each**2, where, total=n), "dp")
mapped = jax.shard_map(loss, mesh=mesh, in_specs=(P(), P("dp"), P("dp")), out_specs=P())
spread = [jax.make_array_from_callback(y.shape, NamedSharding(mesh, P("dp")), lambda i, y=y: y[i])
          for y in (x, where)]
value, slope = jax.jit(jax.value_and_grad(mapped))(1.3, *spread)
print("FOUND", repr(float(value)), repr(float(slope)), flush=True)
"""


@pytest.mark.slow
def test_losses_of_two_processes_add_up_to_that_of_the_batch(tmp_path: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    np.savez(tmp_path / "batch.npz", x=X, where=WHERE)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(port), str(rank), tmp_path / "batch.npz"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    texts = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], texts

    def loss(scale):
        each = policy.whiten(jnp.sin(scale * X), where=WHERE) * scale
        return policy.reduce(each**2, WHERE)

    for text in texts:
        found = [float(x) for x in text.split("FOUND ")[1].split()[:2]]
        np.testing.assert_allclose(found, jax.value_and_grad(loss)(1.3), rtol=1e-12)


# ------------------------------------------------------------ rollouts

RIGHT = sf.ScoreFunction(sf.ConstantBaseline(0.5))


def walk(drift: Any, key: jax.Array, chunk_size: int | None = None) -> tuple[Any, ...]:
    """A rollout by the defaults: all devices know the carry at first, a float and an int."""

    def step(carry, x):
        position, number = carry
        right = yield sf.sample(sf.Bernoulli(drift - 0.1 * position), RIGHT)
        position += 2 * right - 1 + x
        return (position, number + 1), jnp.sin(position)

    init = (jnp.array(0.3), 0)
    xs = jnp.linspace(0.0, 1.0, 6)
    (last, _), costs, log_prob = sf.rollout(step, init, xs, chunk_size=chunk_size)(key)
    return jnp.sum(costs), last, log_prob


def gradient(drift: Any, key: jax.Array, chunk_size: int | None = None) -> Any:
    run = lambda drift: (lambda total, *rest: (total, rest))(*walk(drift, key, chunk_size))  # noqa: E731
    (total, rest), slope = jax.value_and_grad(run, has_aux=True)(drift)
    return total, *rest, slope


@pytest.mark.parametrize("by", ["shard_map", "varying init", "pmap", "explicit"])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_rollouts_run_on_devices_as_they_are(by: str, chunk_size: int | None) -> None:
    keys = jax.random.split(jax.random.key(0), 8)
    drift = jnp.asarray(0.2)
    one = partial(gradient, chunk_size=chunk_size)
    desired = once(jax.vmap(one, (None, 0)))(drift, keys)
    mesh = jax.make_mesh((8,), ("dp",), axis_types=(AxisType.Auto,))
    if by == "pmap":
        found = jax.pmap(one, in_axes=(None, 0))(drift, keys)
    elif by == "explicit":
        mesh = jax.make_mesh((8,), ("dp",), axis_types=(AxisType.Explicit,))

        # A scan that is differentiated first and mapped then is more than JAX can do here.
        def all_of_them(drift, keys):
            totals, *rest = jax.vmap(partial(walk, chunk_size=chunk_size), (None, 0))(drift, keys)
            return jnp.sum(totals), (totals, *rest)

        with jax.set_mesh(mesh):
            spread = jax.device_put(keys, NamedSharding(mesh, P("dp")))
            (_, rest), slope = once(jax.value_and_grad(all_of_them, has_aux=True))(drift, spread)
        found, desired = (*rest, slope), (*desired[:3], jnp.sum(desired[3]))
    else:

        def device(drift, keys):
            if by == "varying init":
                drift += 0.0 * jax.lax.axis_index("dp")
            return jax.tree.map(jnp.atleast_1d, one(drift, keys[0]))

        # The gradient along what all devices share is summed over them.
        shared = by == "shard_map"
        spec = (P("dp"),) * 3 + (P() if shared else P("dp"),)
        mapped = jax.shard_map(device, mesh=mesh, in_specs=(P(), P("dp")), out_specs=spec)
        found = once(mapped)(drift, keys)
        if shared:
            desired = (*desired[:3], jnp.sum(desired[3], keepdims=True))
    for a, b in zip(found, desired, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_fractions_and_divergences_of_an_explicit_batch_in_the_second_axis() -> None:
    mesh = jax.make_mesh((DEVICES,), ("dp",), axis_types=(AxisType.Explicit,))
    log_ratio = np.linspace(-1, 1, 3 * DEVICES).reshape(3, DEVICES)
    with jax.set_mesh(mesh):
        spread = jax.device_put(log_ratio, NamedSharding(mesh, P(None, "dp")))
        found = policy.clip_fraction(spread, 1.0), policy.approximate_divergence(spread)
    ratio = np.exp(log_ratio)
    desired = np.mean(ratio > 1.2), np.mean(ratio - 1 - log_ratio)
    np.testing.assert_allclose(found, desired, rtol=1e-12)
