"""Measurements: moments, times of gradients computed one at a time, effects beyond noise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.compiled import only_in_branches
from support.results import LIMIT

import scorefn as sf
from benchmarks._measuring import measure as measuring
from benchmarks._measuring import timing as measuring_timing
from benchmarks._measuring.effect import compared
from benchmarks._registry import SUITES


@pytest.mark.parametrize("together", [0.0, 20.0])
def test_a_long_run_in_place_of_the_exact_gradient(together: float) -> None:
    """Its error is no bias: not along its own mean, nor where components err together."""
    random = np.random.default_rng(0)
    exact = 0.3 * random.normal(size=2000)

    def gradients(n: int, together: float) -> np.ndarray:
        common = 1 + together * random.normal(size=(n, 1))
        return exact * common + 3 * random.normal(size=(n, 2000))

    def z(shift: float) -> float:
        estimates, runs = gradients(500, 0.0) + shift * exact, gradients(400, together)
        found = measuring.measurement(estimates, runs, None, long_run=True, projected=True)
        np.testing.assert_allclose(found.variance, 9 * 2000, rtol=0.05)
        return found.bias_z

    assert max(abs(z(0.0)) for _ in range(3)) < LIMIT
    assert abs(z(1 + together)) > LIMIT


def _of_a_thousand_sines(logits: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
    def loss(logits: jax.Array) -> jax.Array:
        costs = jnp.sin(jnp.arange(1000.0) * jnp.sum(logits))
        dice, estimator = sf.Categorical(logits), sf.CoupledCategorical()
        return sf.expectation(lambda value: costs[value], dice, key, estimator)

    return {"logits": jax.grad(loss)(logits)}


def test_one_gradient_at_a_time_shares_nothing() -> None:
    """XLA took what does not depend on the key out of the loop: most of a thousand values."""
    keys = jax.random.split(jax.random.key(0), 3)
    program = measuring.gradients.lower(_of_a_thousand_sines, jnp.ones(1000), keys, 0.0, at_once=1)
    assert only_in_branches(program.compile().as_text(), "sine")


def test_the_suites_are_timed_one_gradient_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the peers are not: packages on PyTorch take many at once."""
    taken = []
    monkeypatch.setattr(measuring_timing, "batch", lambda *_, at_once: taken.append(at_once))
    measuring_timing.microseconds(_of_a_thousand_sines, {"a": jnp.ones(3)}, 0, rounds=2, size=5)
    assert taken == [1, 1, 1]
    for name, suite in SUITES.items():
        for sizes in (suite.full, suite.quick):
            of_parts = [part["timing"] for part in [sizes, *sizes.values()] if _has_timing(part)]
            assert any("at_once" in timing for timing in of_parts) == (name == "peers")


def _has_timing(part: Any) -> bool:
    return isinstance(part, dict) and "timing" in part


def test_an_effect_is_more_than_noise() -> None:
    base = {"variance": 2.0, "variance_se": 0.1}
    for variance, effect in ((1.2, "helps"), (1.9, "none"), (2.2, "none"), (3.0, "hurts")):
        found = compared({"variance": variance, "variance_se": 0.1}, base)
        assert found["effect"] == effect
        assert found["relative_variance"] == variance / 2
        assert 0.05 < found["relative_variance_se"] < 0.1
