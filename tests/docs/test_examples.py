"""The worked examples, in a short mode: they learn, and what they claim to know is right."""

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import FAST

from scorefn import policy

once = partial(jax.jit, compiler_options=FAST)

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cartpole, sums = example("cartpole"), example("sum_to_target")
hosts, ising = example("many_hosts"), example("ising_chain")


@pytest.mark.slow
def test_the_pole_stays_up_for_longer() -> None:
    """The whole run, 200 batches, reaches 500 of 500 with every method and seed."""
    train = once(cartpole.train.__wrapped__, static_argnums=(0, 2))
    curve, found = train("ppo", jax.random.key(0), 12)
    assert curve[0] < 40
    assert jnp.mean(found) > 150


def test_the_pole_falls_by_the_equations_of_motion() -> None:
    """One step, by hand in float64, with the constants of Gymnasium."""
    x, v, theta, omega = 0.1, -0.3, 0.05, 0.4
    for action in (0, 1):
        force = 10.0 if action else -10.0
        inner = (force + 0.05 * omega**2 * np.sin(theta)) / 1.1
        swing = (9.8 * np.sin(theta) - np.cos(theta) * inner) / (
            0.5 * (4 / 3 - 0.1 * np.cos(theta) ** 2 / 1.1)
        )
        drive = inner - 0.05 * swing * np.cos(theta) / 1.1
        desired = [x + 0.02 * v, v + 0.02 * drive, theta + 0.02 * omega, omega + 0.02 * swing]
        found = cartpole.push(jnp.array([x, v, theta, omega]), action)
        np.testing.assert_allclose(found, desired, rtol=1e-5)


def test_rewards_stop_where_an_episode_does() -> None:
    steps = once(cartpole.rollout)(cartpole.start(jax.random.key(0)), jax.random.key(1))
    lengths = np.sum(steps.where, axis=1)
    assert 8 < lengths.min() < lengths.max() < cartpole.HORIZON
    np.testing.assert_array_equal(steps.where[:, 1:], steps.goes_on[:, :-1])
    to_go = policy.returns(jnp.ones_like(steps.log_prob), 1.0, where=steps.where)
    np.testing.assert_array_equal(to_go[:, 0], lengths)


@pytest.mark.slow
@pytest.mark.parametrize("name", sums.METHODS)
def test_fine_tuning_improves_the_exact_objective(name: str) -> None:
    reference, train = (
        sums.start(jax.random.key(0)),
        once(sums.train.__wrapped__, static_argnums=(0, 3)),
    )
    before = sums.exact(reference, reference)
    np.testing.assert_allclose(before.divergence, 0, atol=1e-6)
    after = sums.exact(train(name, reference, jax.random.key(1), 150), reference)
    assert before.objective + 0.3 < after.objective < after.best
    assert after.divergence > 0.5


def test_the_divergence_of_the_loss_is_that_of_whole_answers() -> None:
    """Value and gradient, as means over 200 batches, against sums over all 121 answers."""
    reference, params = (sums.start(jax.random.key(seed)) for seed in (0, 1))

    def estimates(key):
        drawn = sums.draw(params, reference, key)

        def loss(params):
            return sums.divergence(sums.log_probs(params, drawn.tokens), drawn)

        return jax.value_and_grad(loss)(params)

    def known(params):
        return sums.exact(params, reference).divergence

    keys = jax.random.split(jax.random.key(2), 200)
    values, slopes = once(jax.vmap(estimates))(keys)
    exact = once(jax.value_and_grad(known))(params)
    found_leaves, exact_leaves = map(jax.tree.leaves, ((values, slopes), exact))
    for found, exact in zip(found_leaves, exact_leaves, strict=True):
        error = jnp.std(found, axis=0) / jnp.sqrt(len(keys))
        np.testing.assert_array_less(jnp.abs(jnp.mean(found, axis=0) - exact), 6 * error + 1e-6)


def test_many_devices_learn_and_the_estimate_is_of_the_exact_mean() -> None:
    data, state = hosts.make_data(jax.random.key(0)), hosts.start()
    options = {"num_samples": 4096, "chunk_size": 256, "sharding": hosts.over_all_devices()}
    before = hosts.exact(state[0], data)
    np.testing.assert_allclose(before, 0.5, atol=1e-6)
    train = jax.jit(
        hosts.train.__wrapped__, static_argnames=("count", *options), compiler_options=FAST
    )
    (params, _), values = train(state, data, 0, count=12, **options)
    # Shares of mistakes are in [0, 1]: Hoeffding, with a false alarm in 1e-9 of the keys.
    assert abs(values[0] - before) < np.sqrt(np.log(2e9) / (2 * 4096))
    assert hosts.exact(params, data) < 0.4


def test_the_gradient_of_the_energy_is_that_of_exact_diagonalization() -> None:
    """The mean over all pairs of states against the derivative of psi H psi / psi psi."""
    params = jax.random.normal(jax.random.key(0), (ising.FILTERS, ising.SPINS)) / 4
    states = jnp.asarray(ising.STATES, jnp.float32)

    def mean(params: Any) -> Any:
        weights = jax.nn.softmax(jax.vmap(partial(ising.log_prob, params))(states))

        def row(first: Any) -> Any:
            pairs = jax.vmap(lambda second: jnp.stack([first, second]))(states)
            values, slopes = jax.vmap(jax.value_and_grad(ising.energy), (None, 0))(params, pairs)
            return weights @ values, jnp.tensordot(weights, slopes, 1)

        return jax.tree.map(lambda x: jnp.tensordot(weights, x, 1), jax.lax.map(row, states))

    value, slope = once(mean)(params)
    exact, exact_slope = once(jax.value_and_grad(ising.exact_energy))(params)
    np.testing.assert_allclose(value, exact, rtol=1e-5)
    np.testing.assert_allclose(slope, exact_slope, atol=2e-5 * jnp.abs(exact_slope).max())
    assert np.linalg.eigvalsh(ising.hamiltonian())[0] < exact - 1


@pytest.mark.slow
def test_the_network_finds_the_energy_of_the_ground_state() -> None:
    start_key, key = jax.random.split(jax.random.key(0))
    train = once(ising.train.__wrapped__, static_argnums=2)
    state, _ = train(ising.start(start_key, 120), key, 120)
    ground = np.linalg.eigvalsh(ising.hamiltonian())[0]
    assert 0 < ising.exact_energy(state.params) - ground < 1e-3 * -ground
