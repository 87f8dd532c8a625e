"""The ground state of a quantum spin chain, by MCMC: ``python examples/ising_chain.py``.

The transverse-field Ising chain H = -sum_i z_i z_{i+1} - FIELD sum_i x_i, a ring of SPINS spins at
its critical field. A small network gives log psi(s) for each state s of +1 and -1, which has the
probability psi(s)^2 / sum psi^2 with an unknown normalizer. The energy is the mean of the local
energy (H psi)(s) / psi(s) under that distribution. The draws are the last states of Metropolis
chains, which run on while the network is trained. All 2^SPINS states can be listed here, so that
the energies of the network and of the ground state are known exactly: after 400 steps they differ
by less than 1e-4 of the energy (20 seconds).
"""

import argparse
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import scorefn as sf

SPINS, FIELD, FILTERS = 8, 1.0, 4
CHAINS, SWEEPS = 512, 2
STATES = 1.0 - 2.0 * (np.arange(2**SPINS)[:, None] >> np.arange(SPINS) & 1)


class State(NamedTuple):
    """The parameters, the state of the optimizer, and the spins of all chains, [CHAINS, SPINS]."""

    params: jax.Array
    optimizer: Any
    spins: jax.Array


def log_psi(params: jax.Array, s: jax.Array) -> jax.Array:
    """The logarithm of the wave function, the same for each rotation of the ring: a scalar."""
    turned = jnp.stack([jnp.roll(s, i) for i in range(SPINS)])
    hidden = turned @ params.T
    return jnp.sum(jnp.logaddexp(hidden, -hidden))


def log_prob(params: jax.Array, s: jax.Array) -> jax.Array:
    """The log-probability of a state, up to a constant."""
    return 2 * log_psi(params, s)


def local_energy(params: jax.Array, s: jax.Array) -> jax.Array:
    """(H psi)(s) / psi(s)."""
    flipped = s * (1 - 2 * jnp.eye(SPINS))
    ratios = jnp.exp(jax.vmap(partial(log_psi, params))(flipped) - log_psi(params, s))
    return -jnp.sum(s * jnp.roll(s, 1)) - FIELD * jnp.sum(ratios)


def energy(params: jax.Array, spins: jax.Array) -> jax.Array:
    """The energy, estimated from draws [n, SPINS], with its gradient."""
    # The mean of the derivative of the local energy is 0, because H is symmetric.
    f = partial(local_energy, jax.lax.stop_gradient(params))
    given, unused = sf.Given(spins, log_prob, params), jax.random.key(0)
    return sf.expectation(f, given, unused, sf.ScoreFunction(), num_samples=len(spins))


def hamiltonian() -> np.ndarray:
    """H as a matrix of all states."""
    index = np.arange(2**SPINS)
    matrix = np.diag(-np.sum(STATES * np.roll(STATES, 1, axis=1), axis=1))
    for i in range(SPINS):
        matrix[index, index ^ (1 << i)] -= FIELD
    return matrix


def exact_energy(params: jax.Array) -> jax.Array:
    """The energy of the network, by the sum over all states."""
    log_psis = jax.vmap(partial(log_psi, params))(jnp.asarray(STATES))
    psi = jnp.exp(log_psis - jnp.max(log_psis))
    return psi @ jnp.asarray(hamiltonian()) @ psi / (psi @ psi)


def metropolis(params: jax.Array, spins: jax.Array, key: jax.Array) -> jax.Array:
    """The spins after SWEEPS sweeps of single flips. The key is consumed."""

    def flip(s: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        site_key, accept_key = jax.random.split(key)
        at = jax.random.randint(site_key, (), 0, SPINS)
        new = jnp.where(jnp.arange(SPINS) == at, -s, s)
        odds = log_prob(params, new) - log_prob(params, s)
        return jnp.where(jnp.log(jax.random.uniform(accept_key)) < odds, new, s), None

    def chain(s: jax.Array, key: jax.Array) -> jax.Array:
        return jax.lax.scan(flip, s, jax.random.split(key, SWEEPS * SPINS))[0]

    return jax.vmap(chain)(spins, jax.random.split(key, CHAINS))


def optimizer(steps: int) -> optax.GradientTransformation:
    """Adam, whose steps get smaller."""
    return optax.adam(optax.cosine_decay_schedule(0.03, steps))


def start(key: jax.Array, steps: int) -> State:
    """Small weights and random spins. The key is consumed."""
    weight_key, spin_key = jax.random.split(key)
    params = 0.1 * jax.random.normal(weight_key, (FILTERS, SPINS))
    spins = jax.random.rademacher(spin_key, (CHAINS, SPINS), params.dtype)
    return State(params, optimizer(steps).init(params), spins)


@partial(jax.jit, static_argnums=2)
def train(state: State, key: jax.Array, steps: int) -> tuple[State, jax.Array]:
    """The state after some steps, and the energies estimated on the way. The key is consumed."""

    def step(state: State, key: jax.Array) -> tuple[State, jax.Array]:
        spins = metropolis(state.params, state.spins, key)
        value, gradient = jax.value_and_grad(energy)(state.params, spins)
        updates, moments = optimizer(steps).update(gradient, state.optimizer)
        return State(optax.apply_updates(state.params, updates), moments, spins), value

    return jax.lax.scan(step, state, jax.random.split(key, steps))


def main() -> None:
    """Trains the network and prints its energy beside that of the ground state."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start_key, train_key = jax.random.split(jax.random.key(options.seed))
    ground = np.linalg.eigvalsh(hamiltonian())[0]
    state, energies = train(start(start_key, options.steps), train_key, options.steps)
    for i in range(0, options.steps, max(options.steps // 8, 1)):
        print(f"step {i:4d}: energy {energies[i]:9.4f}")
    found = exact_energy(state.params)
    print(
        f"network {found:.5f}, ground state {ground:.5f}, relative error {found / ground - 1:.1e}"
    )


if __name__ == "__main__":
    main()
