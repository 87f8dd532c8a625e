"""A cost of jumps, minimised on all devices of all hosts: ``python examples/many_hosts.py``.

The share of mistakes of a linear classifier is a staircase, without a derivative. Its mean over
random weights has one, and the score function estimates it, from as many draws as there are devices
to take them. Each device draws and scores its own; what it sends is one number and one gradient.

On one host all of its devices are used, and there is nothing to set. On many hosts run the same
command on each of them:

- by hand, host i of n: ``--coordinator FIRST_HOST:1234 --num-processes n --process-id i``, with a
  port of the first host that all of them can reach.
- Slurm: ``srun --ntasks-per-node=GPUS python examples/many_hosts.py --cluster``. JAX reads who is
  who from Slurm's variables, and gives each task one GPU of its node.
- Open MPI: ``mpirun -n GPUS python examples/many_hosts.py --cluster``, likewise.
- TPU pods: the same command with ``--cluster`` on every worker.

If hosts have several networks, NCCL_SOCKET_IFNAME names the one that GPUs are to use. On CPUs
JAX_NUM_CPU_DEVICES=8 makes eight virtual devices, to try this on a laptop: they share its cores.
"""

import argparse
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import scorefn as sf

CASES, FEATURES = 500, 20
OPTIMISER = optax.adam(0.05)


class Data(NamedTuple):
    """Cases [CASES, FEATURES] and their labels [CASES], -1 or 1."""

    cases: jax.Array
    labels: jax.Array


def make_data(key: jax.Array) -> Data:
    """Labels by a hyperplane, one in ten of them wrong. Uses up the key."""
    keys = jax.random.split(key, 3)
    cases = jax.random.normal(keys[0], (CASES, FEATURES))
    signs = jnp.sign(cases @ jax.random.normal(keys[1], (FEATURES,)))
    return Data(cases, jnp.where(jax.random.bernoulli(keys[2], 0.1, (CASES,)), -signs, signs))


def mistakes(weights: jax.Array, data: Data) -> jax.Array:
    """The share of the cases on the wrong side, for weights [FEATURES]."""
    return jnp.mean(data.labels * (data.cases @ weights) <= 0)


def exact(params: Any, data: Data) -> jax.Array:
    """The mean of `mistakes` over the weights: each case's margin is a Gaussian."""
    margin = data.labels * (data.cases @ params["mean"])
    spread = jnp.sqrt(jnp.square(data.cases) @ jnp.exp(2 * params["log_scale"]))
    return jnp.mean(jax.scipy.stats.norm.cdf(-margin / spread))


def log_prob(params: Any, weights: jax.Array) -> jax.Array:
    """The log-density of the weights, up to a constant."""
    z = (weights - params["mean"]) * jnp.exp(-params["log_scale"])
    return -jnp.sum(jnp.square(z) / 2 + params["log_scale"])


def sample(params: Any, key: jax.Array) -> jax.Array:
    """Weights [FEATURES]. Uses up the key."""
    return params["mean"] + jnp.exp(params["log_scale"]) * jax.random.normal(key, (FEATURES,))


def start() -> Any:
    """The parameters, and the memory of the optimiser."""
    params = {"mean": jnp.zeros(FEATURES), "log_scale": jnp.zeros(FEATURES)}
    return params, OPTIMISER.init(params)


def over_all_devices() -> NamedSharding:
    """The samples, spread over every device of every host."""
    mesh = jax.make_mesh((jax.device_count(),), ("devices",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("devices"))


@partial(jax.jit, static_argnames=("count", "num_samples", "chunk_size", "sharding"))
def train(
    state: Any,
    data: Data,
    steps_before: Any,
    *,
    count: int,
    num_samples: int,
    chunk_size: int | None,
    sharding: NamedSharding,
) -> tuple[Any, jax.Array]:
    """So many steps more: the state after them, and the estimate of each, [count]."""
    objective = sf.differentiable(
        lambda weights: mistakes(weights, data),
        log_prob,
        sample,
        sf.ScoreFunction(),
        num_samples=num_samples,
        chunk_size=chunk_size,
        sharding=sharding,
    )

    def step(state: Any, number: jax.Array) -> tuple[Any, jax.Array]:
        params, memory = state
        # Every host has the same key. Sample i has its own, whichever device draws it.
        key = jax.random.fold_in(jax.random.key(1), number)
        value, gradient = jax.value_and_grad(objective)(params, key)
        change, memory = OPTIMISER.update(gradient, memory)
        return (optax.apply_updates(params, change), memory), value

    return jax.lax.scan(step, state, steps_before + jnp.arange(count))


def connect(options: argparse.Namespace) -> None:
    """Starts JAX's distributed runtime, if there are other processes; before any use of devices."""
    if options.coordinator is not None:
        jax.distributed.initialize(options.coordinator, options.num_processes, options.process_id)
    elif options.cluster:
        jax.distributed.initialize()


def main() -> None:
    """Trains on everything there is; process 0 prints, and writes what was learned."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 runs")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--process-id", type=int)
    parser.add_argument("--cluster", action="store_true", help="JAX finds out all three of them")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=20, help="steps between two lines")
    parser.add_argument("--samples", type=int, default=16384, help="of one step, on all devices")
    parser.add_argument("--chunk", type=int, default=512, help="samples at a time on each device")
    parser.add_argument("--out", metavar="FILE", help="an .npz of what was learned")
    options = parser.parse_args()
    connect(options)
    first = jax.process_index() == 0
    sharding = over_all_devices()
    data, state = make_data(jax.random.key(0)), start()
    if first:
        print(f"{jax.device_count()} devices, {jax.process_count()} processes", flush=True)
    for done in range(0, options.steps, options.every):
        state, values = train(
            state,
            data,
            done,
            count=min(options.every, options.steps - done),
            num_samples=options.samples,
            chunk_size=options.chunk,
            sharding=sharding,
        )
        # All processes compute, one talks.
        if first:
            print(f"step {done + len(values)}: share of mistakes {values[-1]:.4f}", flush=True)
    params = jax.tree.map(np.asarray, state[0])
    if first:
        print(f"exactly, at the end: {exact(params, data):.4f}")
        if options.out is not None:
            np.savez(options.out, values=np.asarray(values), **params)


if __name__ == "__main__":
    main()
