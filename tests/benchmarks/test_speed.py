"""The cost of a gradient, in numbers that no other process can change: flops, memory, traces."""

import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scorefn as sf
from benchmarks.suites.speed import cases
from benchmarks.suites.speed import memory as speed_memory
from benchmarks.suites.speed import timing as speed_timing
from benchmarks.suites.speed.memory import growth_bytes
from benchmarks.suites.speed.suite import by_hand
from benchmarks.suites.speed.timing import Times, compiled, interleaved

SAMPLES = 256
CASES = by_hand(SAMPLES)
PLAIN = f"surrogate, {cases.OWN}"
# By case and hand-written spelling, on the same draws: how many times its flops and its temporary
# memory the library may take. With one number for a draw the compiler makes the noise once more;
# DisARM keeps both draws of a pair.
LIMITS = {
    ("ScoreFunction, Normal, D = 1", f"{cases.GUARDED}, {cases.OWN}"): (1.25, 1.05),
    # No log-density is computed that is known to be finite.
    ("ScoreFunction, Normal, D = 10", f"{cases.GUARDED}, {cases.OWN}"): (0.86, 1.05),
    ("ScoreFunction, Normal, D = 100", f"{cases.GUARDED}, {cases.OWN}"): (0.85, 0.9),
    ("ScoreFunction, Normal, D = 100", PLAIN): (1.01, 1.02),
    # By hand, infinite logits give nan; the library multiplies once more for each factor.
    ("ScoreFunction, Bernoulli, D = 20", PLAIN): (1.12, 1.02),
    ("ScoreFunction, Categorical, 20 x 10", f"{cases.GUARDED}, {cases.OWN}"): (0.95, 0.7),
    ("ScoreFunction, Categorical, 20 x 10", PLAIN): (1.05, 1.02),
    ("Pathwise, Normal, D = 1", "noise inside"): (1.0, 1.0),
    ("Pathwise, Normal, D = 10", "noise inside"): (1.0, 1.0),
    ("Pathwise, Normal, D = 100", "noise inside"): (1.0, 1.0),
    ("DisARM, Bernoulli, D = 20", cases.OWN): (1.05, 1.05),
    # Outer products of the probabilities of the factors: a third of the flops, 2 KB more.
    ("Enumerate, Bernoulli, D = 10", "probabilities"): (0.3, 1.6),
    ("ScoreFunction, VAE step, 100 images", "batched"): (1.01, 1.05),
    ("DisARM, VAE step, 100 images", "batched"): (1.01, 1.2),
}


@pytest.fixture(scope="module")
def programs() -> Any:
    """Compiled once each: by case and name."""
    made, kept = {}, {}

    def program(case: str, name: str) -> Any:
        if case not in made:
            made[case] = CASES[case]()
        if (case, name) not in kept:
            found = made[case]
            which = found.library if name == "library" else found.hand[name]
            kept[case, name] = compiled(which, *found.arguments)
        return kept[case, name]

    return program


@pytest.mark.parametrize(("case", "spelling"), LIMITS)
def test_no_more_than_by_hand(programs: Any, case: str, spelling: str) -> None:
    ours, theirs = programs(case, "library"), programs(case, spelling)
    for one, other in zip(*map(jax.tree.leaves, (ours.run(), theirs.run())), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * jnp.max(jnp.abs(other)))
    flops, memory = LIMITS[case, spelling]
    assert ours.flops <= flops * theirs.flops
    assert ours.temp_bytes <= memory * theirs.temp_bytes


@pytest.mark.parametrize("name", ["closed form", f"surrogate, {cases.OWN}"])
def test_other_spellings_are_the_same_estimate(name: str) -> None:
    """Every hand-written spelling that draws as the library does gives the same estimate."""
    for case in ("Pathwise, Normal, D = 10", "ScoreFunction, Categorical, 20 x 10"):
        made = CASES[case]()
        expected = jax.jit(made.library)(*made.arguments)
        for spelling in made.hand:
            if spelling.startswith(name.split(",")[0]) and "random" not in spelling:
                found = jax.jit(made.hand[spelling])(*made.arguments)
                for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
                    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_draws_in_bulk_estimate_the_same() -> None:
    """Their means over many keys: a difference of 7 standard errors has probability 3e-12."""
    for case in ("ScoreFunction, Bernoulli, D = 20", "DisARM, Bernoulli, D = 20"):
        made = CASES[case]()
        assert made.bulk is not None
        params, keys = made.params, jax.random.split(jax.random.key(1), 200)
        found = [
            jax.jit(jax.vmap(program, (None, 0)))(params, keys)
            for program in (made.library, made.bulk)
        ]
        means, errors = zip(
            *((jnp.mean(g, 0), jnp.std(g, 0) / len(keys) ** 0.5) for g in found), strict=True
        )
        assert jnp.all(jnp.abs(means[0] - means[1]) < 7 * jnp.hypot(*errors)), case


def test_a_thousand_calls_with_equal_estimators_trace_once() -> None:
    traces = []

    @jax.jit
    def gradient(mean: jax.Array, key: jax.Array, estimator: sf.Estimator) -> jax.Array:
        traces.append(1)
        params = {"mean": mean, "log_scale": jnp.zeros(1)}
        return cases.library(cases.normal(jnp.sum, 1), estimator, 2)(params, key)["mean"]

    for i in range(1000):
        estimator = sf.ScoreFunction(sf.LeaveOneOut())
        gradient(jnp.full(1, float(i)), jax.random.key(i), estimator)
    assert len(traces) == 1
    gradient(jnp.zeros(1), jax.random.key(0), sf.ScoreFunction(sf.ConstantBaseline(0.0)))
    assert len(traces) == 2


# The harness.


def test_what_a_program_holds() -> None:
    n = 16
    found = compiled(lambda a, b: jnp.sin(a @ b), jnp.ones((n, n)), jnp.ones((n, n)))
    assert 2 * n**3 <= found.flops < 2 * n**3 + 8 * n**2
    assert found.operations["dot"] == found.operations["sine"] == 1
    assert "parameter" not in found.operations


def test_a_ratio_is_the_median_of_the_ratios_of_rounds() -> None:
    cpu, wall = np.array([1.0, 8.0, 3.0, 4.0, 2.0]), np.array([1.0, 1.0, 1.0, 2.0, 2.0])
    found = Times(cpu, wall).over(Times(np.array([1.0, 4.0, 3.0, 1.0, 2.0]), wall / 2))
    assert found == {"ratio": 1.0, "q25": 1.0, "q75": 2.0, "wall_ratio": 2.0}
    assert Times(cpu, wall).time_us == 3e6


@pytest.mark.parametrize("on_cpu", [True, False])
def test_time_on_an_accelerator_is_wall_time(monkeypatch: Any, on_cpu: bool) -> None:  # noqa: FBT001
    monkeypatch.setattr(speed_timing, "on_cpu", lambda: on_cpu)
    settings = {"rounds": 1, "least_seconds": 0.0, "most_seconds": 1.0}
    times = interleaved({"waits": lambda: time.sleep(0.05)}, 0, **settings)["waits"]
    assert times.wall[0] >= 0.05
    assert (times.clock[0] < 0.04) == on_cpu


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_the_growth_of_a_process_is_that_of_its_arrays() -> None:
    grown = growth_bytes("Pathwise", 100, 50_000, "hand")
    # Of float32, once or a few times.
    assert grown is not None
    assert 4 * 100 * 50_000 < grown < 10 * 4 * 100 * 50_000


def test_the_memory_of_an_accelerator_is_not_that_of_the_process(monkeypatch: Any) -> None:
    monkeypatch.setattr(speed_memory, "on_cpu", lambda: False)
    assert growth_bytes("Pathwise", 100, 50_000, "hand") is None


def test_programs_take_turns() -> None:
    calls: list[str] = []
    programs = {name: lambda name=name: calls.append(name) for name in "ab"}
    found = interleaved(programs, 0, rounds=9, least_seconds=0.0, most_seconds=0.0)
    # No more than 7 rounds, since there is no time; each begins with either of them.
    assert all(len(times.clock) == len(times.wall) == 7 for times in found.values())
    turns = ["".join(pair) for pair in zip(calls[-14::2], calls[-13::2], strict=True)]
    assert set(turns) == {"ab", "ba"}
