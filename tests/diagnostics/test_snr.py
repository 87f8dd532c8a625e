"""GradientSNR: its signal and its noise have no bias, summed over all that can be seen."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import FAST

import scorefn as sf

VALUES = {"a": jnp.array([[0.0, 3.0], [1.0, -1.0]]), "b": jnp.array([2.0, 2.0])}


@pytest.mark.usefixtures("x64")
def test_signal_and_noise_are_unbiased() -> None:
    """Each of 4 steps sees the first or the second value, of chances 0.3 and 0.7."""
    values = jax.tree.map(lambda v: v.astype(float), VALUES)
    chance = jnp.array([0.3, 0.7])
    monitor = sf.GradientSNR.like(jax.tree.map(lambda v: v[0], values), decay=0.8)
    paths = jnp.array(list(itertools.product((0, 1), repeat=4)))

    def after(path: jax.Array) -> tuple[dict, dict]:
        def step(state: sf.GradientSNR, i: jax.Array) -> tuple[sf.GradientSNR, None]:
            return state.update(jax.tree.map(lambda v: v[i], values)), None

        state, _ = jax.lax.scan(step, monitor, path)
        return state.signal(), state.noise()

    signal, noise = jax.jit(jax.vmap(after), compiler_options=FAST)(paths)
    weights = jnp.prod(chance[paths], axis=1)
    for name, value in values.items():
        mean = chance @ value.reshape(2, -1)
        variance = chance @ jnp.square(value.reshape(2, -1) - mean)
        np.testing.assert_allclose(weights @ signal[name], jnp.sum(mean**2), rtol=0, atol=1e-12)
        np.testing.assert_allclose(weights @ noise[name], jnp.sum(variance), rtol=0, atol=1e-12)


def updated(*gradients: dict) -> sf.GradientSNR:
    monitor = sf.GradientSNR.like(gradients[0], decay=0.5)
    for gradient in gradients:
        monitor = monitor.update(gradient)
    return monitor


ONE, TWO = ({"a": jnp.array([x]), "b": jnp.array(y)} for x, y in ((1.0, 5.0), (4.0, 6.0)))


def test_the_ratio_is_that_of_the_sums() -> None:
    monitor = updated(ONE, TWO)
    signal, noise = monitor.signal(), monitor.noise()
    # Of two steps, whatever their weights, half of the squared distance.
    np.testing.assert_allclose(noise["a"], 4.5, rtol=1e-5)
    np.testing.assert_allclose(noise["b"], 0.5, rtol=1e-4)
    by = monitor.snr_by_parameter()
    np.testing.assert_allclose(by["b"], np.sqrt(signal["b"] / noise["b"]), rtol=1e-5)
    total = (signal["a"] + signal["b"]) / (noise["a"] + noise["b"])
    np.testing.assert_allclose(monitor.snr(), np.sqrt(total), rtol=1e-5)


def test_one_gradient_has_no_ratio() -> None:
    assert np.isnan(updated(ONE).snr())
    assert np.isnan(sf.GradientSNR.like(ONE).snr())


def test_what_is_not_finite_is_left_out_and_counted() -> None:
    for bad in (jnp.nan, jnp.inf):
        broken = {**ONE, "b": jnp.array(bad)}
        monitor = updated(ONE, broken, TWO)
        assert monitor.skipped == 1
        np.testing.assert_array_equal(monitor.snr(), updated(ONE, TWO).snr())


def test_no_derivative_passes_through_it() -> None:
    def loss(x: jax.Array) -> jax.Array:
        return updated({"a": x}, {"a": 2 * x}).snr()

    assert jax.grad(loss)(jnp.array([1.0])) == 0


def test_gradients_of_another_shape_are_an_error() -> None:
    with pytest.raises(ValueError, match="gradient must be a pytree of shapes"):
        updated(ONE).update({"a": jnp.zeros(2), "b": jnp.zeros(())})


def test_while_parameters_move_the_ratio_is_a_lower_bound_and_not_nothing() -> None:
    """Adam on a quadratic, far from its minimum and near it, against the ratio at each step.

    The norm of a mean of past gradients loses the signal to the changes that the steps make, and
    reads 0 in ordinary training.
    """
    scales = jnp.linspace(0.2, 2.0, 4000)

    def noisy(x: jax.Array, key: jax.Array) -> jax.Array:
        return scales * x + jax.random.normal(key, x.shape)

    def step(state: Any, key: jax.Array) -> Any:
        x, m, v, t, monitor = state
        gradient = noisy(x, key)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        t = t + 1
        move = m / (1 - 0.9**t) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
        monitor = monitor.update(gradient)
        true = jnp.sqrt(jnp.sum((scales * x) ** 2) / x.size)
        return (x - 1e-2 * move, m, v, t, monitor), (monitor.snr(), true)

    zeros = jnp.zeros(4000)
    start = (zeros + 1.0, zeros, zeros, 0.0, sf.GradientSNR.like(zeros, decay=0.95))
    _, (read, true) = jax.lax.scan(step, start, jax.random.split(jax.random.key(0), 600))
    # The reading is a mean over the past, of as much as the weights say.
    weights = 0.95 ** np.arange(100)
    past = np.array([weights @ np.asarray(true)[i - 100 : i][::-1] ** 2 for i in range(101, 601)])
    read, past = np.asarray(read)[100:], np.sqrt(past / weights.sum())
    strong = past > 0.2
    assert 100 < strong.sum() < len(past)
    assert np.all(read[strong] > 0.5 * past[strong])
    assert np.all(read[strong] < 1.15 * past[strong])
    assert not np.any(read == 0)


def test_a_signal_that_is_not_seen_reads_nan() -> None:
    back, forth = ({"a": jnp.array([x]), "b": jnp.array(0.0)} for x in (1.0, -1.0))
    assert np.isnan(updated(back, forth, back).snr())
    assert updated(back, forth, back).signal()["a"] < 0
