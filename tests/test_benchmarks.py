"""The benchmarks: exact variances, measured ones, resuming, the command line, and the tables."""

import csv
import io
import itertools
import json
import math
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from matplotlib.figure import Figure
from rich.console import Console
from support.compiled import only_in_branches

import scorefn as sf
from benchmarks import __main__ as command
from benchmarks import _store, _suite
from benchmarks._measuring import measure as measuring
from benchmarks._measuring import timing as measuring_timing
from benchmarks._measuring.effect import compared
from benchmarks._models import logistic as models_logistic
from benchmarks._models.logistic_training import ENTRIES
from benchmarks._packages import call as packages_call
from benchmarks._packages import toys as packages_toys
from benchmarks._registry import SUITES
from benchmarks._reporting import claims
from benchmarks._reporting import tables as reported
from benchmarks._running import progress as running_progress
from benchmarks._running import sequence as running_sequence
from benchmarks._running.progress import Pace
from benchmarks._running.run import run
from benchmarks._suite import Suite, step_key
from benchmarks.suites.bernoulli import exact as bernoulli_exact
from benchmarks.suites.bernoulli import suite as bernoulli
from benchmarks.suites.bernoulli.exact import Coin
from benchmarks.suites.discrete import training as discrete_training
from benchmarks.suites.discrete.tasks import TOYS, VAE_ENTRIES
from benchmarks.suites.gaussian import exact as gaussian_exact
from benchmarks.suites.gaussian import suite as gaussian
from benchmarks.suites.peers import calls as peers_calls
from benchmarks.suites.peers import suite as peers
from benchmarks.suites.policy.suite import KL_UNIT
from benchmarks.suites.sample_size import suite as sample_size
from benchmarks.suites.sample_size import tables as sample_size_tables
from benchmarks.suites.scaling import suite as scaling
from benchmarks.suites.speed import suite as speed
from benchmarks.suites.speed import tables as speed_tables
from benchmarks.suites.speed import torch as speed_torch
from benchmarks.suites.speed import torch_training as speed_torch_training
from benchmarks.suites.speed import torch_vae as speed_torch_vae
from benchmarks.suites.speed import vae as speed_vae
from benchmarks.suites.vi import bounds as vi_bounds
from benchmarks.suites.vi import bounds_exact as vi_bounds_exact
from benchmarks.suites.vi import minibatch as vi_minibatch
from benchmarks.suites.vi import tables as vi_tables
from benchmarks.suites.vi import training as vi_training
from benchmarks.suites.vi.forms import FORMS
from benchmarks.suites.vi.problem import gradient, started, tuned
from benchmarks.suites.vi.targets import TARGETS
from benchmarks.suites.vi.techniques import PLAIN, TECHNIQUES

# A right row goes beyond 6 standard errors with probability 2e-9, or less than 3e-6 for all of the
# 1100 z that are looked at here; heavy tails make it more. The seed is fixed: such an accident can
# only come with another random generator.
LIMIT = 6.0
COINS = [Coin(0.1, 0.45), Coin(0.35, 0.499), Coin(0.5, 0.45), Coin(0.8, 0.49)]
SCORE_FUNCTIONS = [
    name
    for name, entry in bernoulli.ENTRIES.items()
    if isinstance(entry.estimator(COINS[0]), sf.ScoreFunction)
]
BIASED = ("StraightThrough", "ST-GumbelSoftmax", "GumbelSoftmax", "GumbelRao", "ReinMax")
FEW = ("LeaveOneOut (2)", "DoubleCV (2)", "StraightThrough (1)", "UnorderedSet (8)")
TRAINED = ("MovingAverage (2)", "LeaveOneOut (4)")
FEW_BY_SAMPLES = ("Pathwise", "MeasureValued")
FEW_FORMS = ("Pathwise",)
FEW_TECHNIQUES = (PLAIN, "QuasiMonteCarlo")
FEW_BOUNDS = ("DReG",)
QUIET = Console(quiet=True)
ROOT = Path(__file__).parent.parent


# Exact variances.


@jax.jit
@partial(jax.vmap, in_axes=(None, 0))
def _gradient_of_bits(problem: bernoulli.Problem, bits: jax.Array) -> jax.Array:
    """The library's gradient for given bits: a sampler that returns its key."""

    def loss(logit: jax.Array) -> jax.Array:
        coin = sf.Distribution(
            lambda logit, bit: sf.Bernoulli(logit).log_prob(bit), lambda _, key: key, logit
        )
        return jnp.mean(problem.estimator(lambda b: (b - problem.t) ** 2, coin, bits))

    return jax.grad(loss)(problem.logit)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("coin", COINS)
@pytest.mark.parametrize("name", SCORE_FUNCTIONS)
def test_bernoulli_variance_over_all_tuples(name: str, coin: Coin) -> None:
    entry = bernoulli.ENTRIES[name]
    problem = bernoulli.Problem(entry.estimator(coin), coin.logit, coin.t, entry.num_samples)
    bits = np.array(list(itertools.product([0.0, 1.0], repeat=entry.num_samples)))
    probability = np.prod(np.where(bits == 1, coin.theta, 1 - coin.theta), axis=1)
    gradients = np.asarray(_gradient_of_bits(problem, bits))
    mean = probability @ gradients
    np.testing.assert_allclose(mean, coin.gradient, rtol=1e-10)
    variance = probability @ (gradients - mean) ** 2
    np.testing.assert_allclose(entry.variance(coin), variance, rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize("coin", COINS)
def test_pair_variances_over_the_uniform(coin: Coin) -> None:
    u = (np.arange(200_000) + 0.5) / 200_000
    first, second = u > 1 - coin.theta, u < coin.theta
    change = coin.step * (first.astype(float) - second)
    arm = change * (u - 0.5)
    disarm = change / 2 * np.where(second, -1, 1) * (first != second)
    disarm = disarm * max(coin.theta, 1 - coin.theta)
    for found, variance in ((arm, bernoulli_exact.arm), (disarm, bernoulli_exact.disarm)):
        np.testing.assert_allclose(np.mean(found), coin.gradient, rtol=1e-4)
        np.testing.assert_allclose(np.var(found), variance(coin), rtol=1e-4, atol=1e-15)


@pytest.mark.parametrize("coin", COINS)
def test_arms_of_two_is_disarm(coin: Coin) -> None:
    disarm = bernoulli_exact.disarm(coin)
    np.testing.assert_allclose(bernoulli_exact.arms(coin, 2), disarm, rtol=1e-9, atol=1e-18)
    assert bernoulli_exact.arms(coin, 4) < bernoulli_exact.leave_one_out(coin, 4)


@pytest.mark.parametrize("coin", COINS)
def test_surrogate_moments_over_the_bit(coin: Coin) -> None:
    probability, slopes = np.array([1 - coin.theta, coin.theta]), np.array(coin.slopes)
    through = coin.spread * slopes
    middle = (coin.theta + np.array([0.0, 1.0])) / 2
    reinmax = (2 * middle * (1 - middle) - coin.spread / 2) * slopes
    means = {"through": probability @ through, "reinmax": probability @ reinmax}
    np.testing.assert_allclose(means["through"], bernoulli_exact.straight_through_mean(coin))
    np.testing.assert_allclose(means["reinmax"], coin.gradient)
    variance = probability @ (through - means["through"]) ** 2
    np.testing.assert_allclose(variance, bernoulli_exact.straight_through(coin))
    variance = probability @ (reinmax - means["reinmax"]) ** 2
    np.testing.assert_allclose(variance, bernoulli_exact.reinmax(coin))


GAUSSIANS = [("square", 3.0, 0.5), ("square", -1.0, 2.0), ("exp", 10.0, 1.0), ("cos", 5.0, 1.5)]


def _gaussian(cost: str, k: float, sigma: float, parameter: str) -> gaussian_exact.Problem:
    return gaussian_exact.Problem(gaussian_exact.COSTS[cost], k, 1.0, sigma, parameter)


@pytest.mark.parametrize(("cost", "k", "sigma"), GAUSSIANS)
@pytest.mark.parametrize("parameter", ["mu", "sigma"])
def test_gaussian_gradient_two_ways(cost: str, k: float, sigma: float, parameter: str) -> None:
    problem = _gaussian(cost, k, sigma, parameter)
    by_score = gaussian_exact.mean(problem.f * problem.score)
    np.testing.assert_allclose(problem.gradient, by_score, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("cost", "k", "sigma"), GAUSSIANS)
@pytest.mark.parametrize("parameter", ["mu", "sigma"])
def test_leave_one_out_variance_over_all_pairs(
    cost: str, k: float, sigma: float, parameter: str
) -> None:
    problem = _gaussian(cost, k, sigma, parameter)
    weights = gaussian_exact.WEIGHTS[::10] / np.sum(gaussian_exact.WEIGHTS[::10])
    f, h = problem.f[::10], problem.score[::10]
    # (f1 - f2) h1 / 2 + (f2 - f1) h2 / 2
    pairs = (f[:, None] - f) * (h[:, None] - h) / 2
    mean = weights @ pairs @ weights
    variance = weights @ (pairs - mean) ** 2 @ weights
    np.testing.assert_allclose(mean, problem.gradient, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(gaussian_exact.leave_one_out(problem, 2), variance, rtol=1e-8)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_square_cost_in_closed_form(sigma: float) -> None:
    mu, scale = (_gaussian("square", 3.0, sigma, parameter) for parameter in ("mu", "sigma"))
    d2, s2 = (1.0 - 3.0) ** 2, sigma**2
    score = (d2**2 + 14 * d2 * s2 + 15 * s2**2) / s2
    np.testing.assert_allclose(gaussian_exact.pathwise(mu, 1), 4 * s2)
    np.testing.assert_allclose(gaussian_exact.pathwise(scale, 1), 4 * d2 + 8 * s2)
    np.testing.assert_allclose(gaussian_exact.score_function(mu, 1), score)
    np.testing.assert_allclose(gaussian_exact.score_function(mu, 3), score / 3)
    np.testing.assert_allclose(gaussian_exact.measure_valued(mu, 1), d2 * (16 / np.pi - 4))


@pytest.mark.parametrize(("cost", "k", "sigma"), GAUSSIANS)
def test_measure_valued_variance_along_sigma(cost: str, k: float, sigma: float) -> None:
    """Over the noise as it is drawn: z normal, r of Rayleigh's density."""
    problem = _gaussian(cost, k, sigma, "sigma")
    # Only up to 8: what lies beyond has no weight. By symmetry of the sign, z > 0 and z < 0 apart.
    half = (np.arange(1200) + 0.5) / 150
    weights = np.exp(-(half**2) / 2)
    normal, rayleigh = weights / (2 * np.sum(weights)), half * weights / np.sum(half * weights)
    mean = square = 0.0
    for sign in (-1, 1):
        z = 1.0 + sigma * sign * half
        m = 1.0 + sigma * sign * np.hypot(half[:, None], half)
        f = problem.cost.value
        change = (np.asarray(f(m, k)) - np.asarray(f(z, k))[:, None]) / sigma
        mean += normal @ change @ rayleigh
        square += normal @ change**2 @ rayleigh
    np.testing.assert_allclose(mean, problem.gradient, rtol=1e-4, atol=1e-6)
    found = gaussian_exact.measure_valued(problem, 1)
    np.testing.assert_allclose(found, square - mean**2, rtol=1e-3)


@pytest.mark.parametrize(("cost", "k"), [("exp", 10.0), ("cos", 5.0)])
def test_score_function_wins_on_rough_costs(cost: str, k: float) -> None:
    problem = _gaussian(cost, k, 1.0, "mu")
    path = gaussian_exact.pathwise(problem, 1)
    assert 12 < path / gaussian_exact.score_function(problem, 1) < 26
    assert 40 < path / gaussian_exact.measure_valued(problem, 1) < 48


@pytest.mark.parametrize("step", [0.0, 0.7])
def test_exact_elbo_by_adaptive_quadrature(step: float) -> None:
    """At the prior, where logits spread most, and elsewhere."""
    data = models_logistic.breast_cancer()
    # The widest case and an ordinary one.
    chosen = [int(np.argmax(np.linalg.norm(data.features, axis=1))), 0]
    few = replace(data, features=data.features[chosen], labels=data.labels[chosen], weight=3.0)
    params = {"mean": np.full(31, 0.1 * step), "log_scale": np.full(31, -step)}
    expected = 0.0
    for x, y in zip(few.features, few.labels, strict=True):
        centre, spread = x @ params["mean"], np.linalg.norm(x) * np.exp(-step)

        def density(z: float, shift: float = -y * centre, spread: float = spread) -> float:
            gauss = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
            return float(np.logaddexp(0, shift + spread * z)) * gauss

        expected += 3 * scipy.integrate.quad(density, -12, 12, limit=500, epsabs=1e-10)[0]
    scale, mean = np.exp(params["log_scale"]), params["mean"]
    expected += np.sum((scale**2 + mean**2 - 1) / 2 - np.log(scale))
    found = models_logistic.exact_loss(jax.tree.map(jnp.asarray, params), few)
    np.testing.assert_allclose(found, expected, rtol=2e-6)


@pytest.mark.parametrize(("power", "degree"), [(1, 0), (2, 1), (3, 1), (4, 2)])
@pytest.mark.parametrize("doubly", [False, True])
def test_moments_of_weights_by_quadrature(power: int, degree: int, *, doubly: bool) -> None:
    """Of the linear-Gaussian model, from its densities."""
    e = np.linspace(-12, 12, 4001)
    mean, scale = 0.5 + 0.05, math.sqrt(2 / 3)
    z = mean + scale * e
    w = scipy.stats.norm.pdf(z, 0.5, math.sqrt(0.5)) / scipy.stats.norm.pdf(z, mean, scale)
    derivative = 1 - 2 * z + ((z - mean) / scale**2 if doubly else 0)
    density = scipy.stats.norm.pdf(e) * (e[1] - e[0])
    slope = vi_bounds_exact._PATH if doubly else vi_bounds_exact._WHOLE
    found = vi_bounds_exact._moment(power, degree, slope)
    np.testing.assert_allclose(found, density @ (w**power * derivative**degree), rtol=1e-9)


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
        found = measuring.moments(estimates, runs, None, long_run=True, projected=True)
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


def test_runs_that_went_astray_have_no_median() -> None:
    curves = {"Pathwise, 1": {"elbo": [[-9.0, -1.0], [-9.0, None], [-9.0, -4.0]]}}
    found = sample_size.last_elbo({"curves": curves}, "Pathwise", 1)
    np.testing.assert_array_equal(found, [-1.0, np.nan, -4.0])
    assert sample_size_tables._elbo(found) == ("-2.5", "-4.0 to -1.0", "1")
    assert sample_size_tables._elbo(found[1:2]) == ("", "", "1")


def test_sampled_divergence_is_sticking_with_coefficient_zero() -> None:
    """For a Gaussian: along the path its log-density has no noise."""
    params = TARGETS["logistic"].start(jax.random.key(0))
    names = ("Pathwise, KL sampled", "sticking the landing, a learned")
    problems = [started("logistic", name, PLAIN, params, 4) for name in names]
    one, other = (gradient(problem, jax.random.key(1)) for problem in problems)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-3)


def test_leaves_are_learned() -> None:
    """Of a narrow posterior, to which the data add next to nothing: a = s^2, by the prior alone."""
    params = {"mean": jnp.zeros(31), "log_scale": jnp.full(31, -1.0)}
    problem = started("logistic", "sticking the landing, a learned", PLAIN, params, 8)
    few = replace(problem.data, weight=1e-4)
    found = tuned(replace(problem, data=few), jax.random.key(0), num_steps=300)
    np.testing.assert_allclose(found.learned["a"], np.exp(-2.0), rtol=0.05)


def test_an_effect_is_more_than_noise() -> None:
    base = {"variance": 2.0, "variance_se": 0.1}
    for variance, effect in ((1.2, "helps"), (1.9, "none"), (2.2, "none"), (3.0, "hurts")):
        found = compared({"variance": variance, "variance_se": 0.1}, base)
        assert found["effect"] == effect
        assert found["relative_variance"] == variance / 2
        assert 0.05 < found["relative_variance_se"] < 0.1


def test_data() -> None:
    data = models_logistic.breast_cancer()
    assert data.features.shape == (569, 31)
    np.testing.assert_allclose(data.features[:, :-1].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(data.features[:, :-1].std(0), 1, atol=1e-5)
    assert set(data.features[:, -1]) == {1.0}
    assert set(data.labels) == {-1.0, 1.0}
    batch = data.minibatch(jax.random.key(0), 32)
    assert batch.features.shape == (32, 31)
    assert batch.weight * 32 == 569


# A quick run of every suite, by the command line.


Keep = Callable[[dict[str, Any], Iterable[str]], None]


@pytest.fixture
def keep() -> Iterator[Keep]:
    """Leaves a dictionary few of its entries, and puts all back, in their order."""
    before: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def only(entries: dict[str, Any], few: Iterable[str]) -> None:
        before.append((entries, dict(entries)))
        for name in set(entries) - set(few):
            del entries[name]

    yield only
    for entries, all_of_them in reversed(before):
        entries.clear()
        entries.update(all_of_them)


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITES)
def test_quick_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: Keep) -> None:
    # Compiling takes nearly all of the time. Those left out differ from others in nothing but what
    # the library does.
    keep(ENTRIES, set(ENTRIES) - {"LeaveOneOut", "OptimalBaseline"})
    _few_discrete_entries(monkeypatch, keep)
    _few_vi_entries(monkeypatch, keep)
    assert command.main(["--quick", "--suite", name, "--out", str(tmp_path)]) == 0
    results = _store.read(tmp_path / f"{name}.json")
    assert list(results["settings"].items())[2:] == list(_plain(SUITES[name].quick).items())
    _check_rows(results["rows"])
    _check_csv(tmp_path / f"{name}.csv", results["rows"])
    _check_anonymous((tmp_path / f"{name}.json").read_text(), tmp_path)
    drawn = SUITES[name].figures(results)
    assert {path.stem for path in tmp_path.glob("*.png")} == set(drawn)
    for path in tmp_path.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.partial.json")) + list(tmp_path.glob(".*"))
    EXTRA[name](results)


def _few_discrete_entries(monkeypatch: pytest.MonkeyPatch, keep: Keep) -> None:
    for name, toy in TOYS.items():
        settings = dict(itertools.islice(toy.settings.items(), 1))
        entries = {n: toy.entries[n] for n in FEW if n in toy.entries}
        monkeypatch.setitem(TOYS, name, replace(toy, settings=settings, entries=entries))
    keep(VAE_ENTRIES, FEW)
    keep(discrete_training.ENTRIES, TRAINED)
    keep(sample_size.ENTRIES, FEW_BY_SAMPLES)


def _few_vi_entries(monkeypatch: pytest.MonkeyPatch, keep: Keep) -> None:
    keep(FORMS, FEW_FORMS)
    keep(TECHNIQUES, FEW_TECHNIQUES)
    keep(TARGETS, ("logistic", "wine"))
    keep(vi_training.RUNS, ("Pathwise",))
    monkeypatch.setattr(vi_minibatch, "NAMES", (PLAIN, "MinibatchControlVariate"))
    monkeypatch.setattr(vi_bounds, "NAMES", FEW_BOUNDS)


def _check_rows(rows: list[dict[str, Any]]) -> None:
    assert rows
    for row in rows:
        # Those of a suite that measures no variances have columns of their own; some say why there
        # is none.
        if row.get("variance") is None:
            continue
        if row["unbiased"]:
            assert abs(row["bias_z"]) < LIMIT, row
        if row["exact_variance"] is not None:
            assert abs(row["variance_z"]) < LIMIT, row
        assert row["variance_x_time"] == row["variance"] * row["time_us"]
        assert row["variance_x_time"] > 0 or not row["unbiased"]


def _check_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open() as file:
        found = list(csv.DictReader(file))
    written = [{n: "" if x is None else str(x) for n, x in row.items()} for row in rows]
    assert found == written


def _check_anonymous(text: str, out: Path) -> None:
    for private in (str(out), str(Path(__file__).parent), str(Path.home()), socket.gethostname()):
        assert private not in text


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _check_bernoulli(results: dict[str, Any]) -> None:
    """Biases are found where they are, and are those of the formulas."""
    repeats = math.prod(results["settings"]["repeats"][name] for name in ("batches", "size"))
    biased = [row for row in results["rows"] if not row["unbiased"]]
    assert {row["estimator"] for row in biased} == {
        name for name in bernoulli.ENTRIES if name.split()[0] in BIASED
    }
    for row in biased:
        error = math.sqrt(row["exact_variance"] / repeats) + 1e-6
        assert abs(row["mean"] - row["exact_mean"]) < LIMIT * error
        right = math.isclose(row["exact_mean"], row["exact_gradient"], rel_tol=1e-6)
        assert right or abs(row["bias_z"]) > LIMIT or row["estimator"] != "StraightThrough (1)"
        # ReinMax is right for this quadratic cost, and straight-through at theta = 1/2.
        if row["estimator"] in ("StraightThrough (1)", "ReinMax (1)"):
            assert right == (row["estimator"] == "ReinMax (1)" or row["theta"] == 0.5)


def _check_gaussian(results: dict[str, Any]) -> None:
    assert {row["parameter"] for row in results["rows"]} == {"mu", "sigma"}


def _check_logistic_regression(results: dict[str, Any]) -> None:
    """The orderings of the paper, and every run learns."""
    last = {row["estimator"]: row for row in results["rows"] if row["step"] == 100}
    for name in ("MovingAverage", "LearnedBaseline"):
        plain, path = last["REINFORCE, no baseline"]["variance"], last["Pathwise"]["variance"]
        assert plain > 1.5 * last[name]["variance"] > 15 * path
    assert len(results["curves"]) == len(last) == len(ENTRIES)
    for curve in results["curves"].values():
        assert curve["step"] == [0, 50, 100]
        assert curve["elbo"][-1] > curve["elbo"][0] + 1000
        assert curve["accuracy"][-1] > 0.95


def _check_discrete(results: dict[str, Any]) -> None:
    """Every objective has its rows, tuning helps, and every training run learns."""
    relative = {(r["objective"], r["estimator"]): r["relative_variance"] for r in results["rows"]}
    assert {objective for objective, _ in relative} == {*TOYS, "vae"}
    assert all(relative[name, "LeaveOneOut (2)"] < 1.3 for name in (*TOYS, "vae"))
    assert relative["quadratic", "DoubleCV (2)"] < 0.1
    assert relative["without_replacement", "UnorderedSet (8)"] < 1e-6
    biased = [row for row in results["rows"] if not row["unbiased"]]
    assert {row["estimator"] for row in biased} == {"StraightThrough (1)"}
    assert all(row["relative_bias"] > 0.01 for row in biased)
    assert set(results["curves"]) == set(TRAINED)
    for curve in results["curves"].values():
        assert all(elbo[-1] > elbo[0] + 15 for elbo in curve["elbo"])


def _check_rodeo(results: dict[str, Any]) -> None:
    """What has to learn has learned, and the run too."""
    found = {(r["estimator"], r["step"]): r["relative_variance"] for r in results["rows"]}
    names = results["settings"]["estimators"]
    assert set(found) == {(name, step) for name in names for step in (0, 100)}
    assert found["LeaveOneOut (2)", 0] == 1
    for name in ("DoubleCV (2)", "RODEO (2)"):
        assert found[name, 0] < 0.8
    (curve,) = results["curves"].values()
    assert curve["elbo"][-1] > curve["elbo"][0] + 15


def _check_sample_size(results: dict[str, Any]) -> None:
    """The orderings of the paper, and every run learns."""
    found = {(row["estimator"], row["samples"]): row["variance"] for row in results["rows"]}
    assert set(found) == {("Pathwise", 1), ("Pathwise", 5), ("MeasureValued", 1)}
    assert 3 < found["Pathwise", 1] / found["Pathwise", 5] < 8
    assert 0.5 < found["Pathwise", 1] / found["MeasureValued", 1] < 2
    assert set(results["curves"]) == {f"{name}, {n}" for name, n in found}
    for curve in results["curves"].values():
        assert all(-200 < run[-1] < -60 for run in curve["elbo"])


def _check_vi(results: dict[str, Any]) -> None:
    """Every target has its rows, and what must help does."""
    effects = {
        (row["target"], row["form"], row["estimator"], row["parameter"], row["at"]): row["effect"]
        for row in results["rows"]
    }
    for target, form, technique in (
        ("logistic", "Pathwise", "QuasiMonteCarlo"),
        ("wine", "Pathwise", "QuasiMonteCarlo"),
        (vi_minibatch.TARGET, "Pathwise", "MinibatchControlVariate"),
    ):
        assert effects[target, form, technique, "mean", 100] == "helps"
    bounds = [row for row in results["rows"] if row["target"] == vi_bounds.TARGET]
    assert {row["form"] for row in bounds} == set(FEW_BOUNDS)
    assert set(results["curves"]) == {"logistic: Pathwise", "wine: Pathwise"}
    for curve in results["curves"].values():
        assert all(elbo[-1] > elbo[0] + 300 for elbo in curve["elbo"])


def _check_policy(results: dict[str, Any]) -> None:
    """Biases are where they are known to be, and every training run learns."""
    found = {(row["estimator"], row["objective"]): row for row in results["rows"]}
    for name in results["settings"]["recipes"]:
        row = found[name, "bandit, on policy"]
        assert row["unbiased"] or row["relative_bias"] > 0.1
        # Groups of 4: the mean of all of them is 3/4 of leave-one-out, in the same direction.
        if name == "Dr.GRPO":
            np.testing.assert_allclose(row["relative_bias"], 1 / 4, atol=0.05)
    for how in ("on", "off"):
        k3, right = (found[name, f"divergence, {how} policy"] for name in ("k3", KL_UNIT))
        assert k3["relative_bias"] > 0.1
        assert right["relative_bias"] < 1e-9
        assert right["relative_variance"] == 1
    for curve in results["curves"].values():
        assert all(run[-1] > run[0] + 0.2 for run in curve["reward"])


def _check_speed(results: dict[str, Any]) -> None:
    """Every part has its rows; those that were not run say why."""
    rows = results["rows"]
    parts = {"hand", "alike", "bulk", "many", "call", "monitor", "peers", "draws", "compile"}
    assert {row["part"] for row in rows} == parts | {"torch"}
    for row in rows:
        if row["part"] == "compile":
            assert min(row["time_us"], row["wall_us"]) > 0
        elif row["note"] is None:
            assert row["q25"] <= row["ratio"] <= row["q75"]
            assert min(row["time_us"], row["other_time_us"], row["wall_ratio"]) > 0
    for name in ("ScoreFunction", "Pathwise"):
        few, many = (r for r in rows if r["part"] == "many" and r["case"].startswith(name))
        assert few["note"] is None
        assert many["note"].startswith("not run: ")
        assert many["temp_bytes"] < 0.7 * many["other_temp_bytes"]
    ran = {row["against"] for row in rows if row["part"] == "peers" and row["note"] is None}
    assert ran >= {"numpyro TraceGraph_ELBO", "TFP monte_carlo.expectation"}


def test_a_package_that_is_not_there_is_skipped_with_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speed, "module", lambda _: None)
    sizes = SUITES["speed"].quick
    plan = {name: step for name, step in speed.steps(sizes, 0).items() if name.startswith("peers ")}
    rows = [row for step in plan.values() for row in step()["rows"]]
    assert {row["note"] for row in rows} == {
        f"skipped: there is no {name} here"
        for name in ("numpyro", "optax.monte_carlo", "tensorflow_probability.substrates.jax")
    }
    results = {"device": "cpu", "rows": rows}
    assert speed_tables.beside(results).count("| skipped: there is no ") == len(rows) == 7
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(reported.terminal(SUITES["speed"], results))
    assert "skipped: there is no" in console.export_text()


def test_packages_on_pytorch_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_torch, "module", lambda _: None)
    plan = speed.steps(SUITES["speed"].quick, 0)
    rows = [row for name in plan if name.startswith("torch ") for row in plan[name]()["rows"]]
    assert len(rows) == 5 * 3
    table = speed_tables.on_torch({"device": "cpu", "rows": rows})
    assert table.count("| skipped: there is no pyro here |") == 10
    assert table.count("| skipped: there is no storch here |") == 5


def test_a_training_run_is_gradient_descent() -> None:
    """With all values of the coin: by its exact gradient."""
    run = speed_torch_training.trained("bernoulli", sf.Enumerate(), steps=50)
    logit = np.float64(0.3)
    for _ in range(50):
        p = 1 / (1 + np.exp(-logit))
        logit -= speed_torch_training.RATE * p * (1 - p) * (0.55**2 - 0.45**2)
    np.testing.assert_allclose(run(jax.random.key(0)), [logit], rtol=1e-5)


def test_digits_are_enlarged() -> None:
    small, large = speed_vae.images(3), speed_vae.images(3, pixels=256)
    assert large.shape == (3, 256)
    corners = large.reshape(3, 8, 2, 8, 2)[:, :, 0, :, 0]
    np.testing.assert_array_equal(corners.reshape(3, 64), small)
    assert jnp.sum(large) == 4 * jnp.sum(small)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", ["pyro", "storch"])
def test_steps_on_pytorch_are_those_of_the_library(package: str) -> None:
    """Means of 400 gradients each: 1e-6 of false alarms among the 1124 that are compared."""
    pytest.importorskip(package)
    size, weights = (6, 64, 8, 4), speed_vae.start(4, hidden=8)
    if package == "pyro":
        pair, scale = speed_torch_vae.pyro_step(*size, "Trace_ELBO"), 6
        ours = speed_vae.sampled(speed_vae.images(6), 4)
    else:
        pair, scale = speed_torch_vae.storchastic_step(*size), 1
        estimator = sf.ScoreFunction(sf.LeaveOneOut())
        ours = speed_vae.library(speed_vae.images(6), estimator, 2)
    keys = jax.random.split(jax.random.key(0), 400)
    found = jax.jit(jax.vmap(ours, (None, 0)))(weights, keys)
    theirs = [[np.array(part).T for part in pair.theirs()] for _ in range(400)]
    layers = [*found["encoder"], *found["decoder"]]
    names = itertools.product(layers, ("weight", "bias"))
    for (layer, name), other in zip(names, zip(*theirs, strict=True), strict=True):
        one, two = np.asarray(layer[name]), np.stack(other) / scale
        error = np.sqrt((one.var(0) + two.var(0)) / 400) + 1e-6
        assert np.max(np.abs(one.mean(0) - two.mean(0)) / error) < LIMIT


def _check_scaling(results: dict[str, Any]) -> None:
    """More devices: the same variance of the same samples, less memory, a gradient to reduce."""
    found = {(r["scaling"], r["estimator"], r["devices"]): r for r in results["rows"]}
    assert len(found) == 8
    settings, devices = results["settings"], jax.device_count()
    for name, reduces in {"LeaveOneOut": 2, "Pathwise": 1}.items():
        one, all_of_them = (found["strong", name, n] for n in (1, devices))
        assert one["all_reduces"] == 0
        assert all_of_them["all_reduces"] == reduces
        assert all_of_them["reduced_bytes"] >= 4 * settings["size"]
        assert all_of_them["bytes_without"] < one["bytes_without"] / 2
        assert all_of_them["bytes_in_chunks"] <= one["bytes_in_chunks"] <= one["bytes_without"]
        assert all_of_them["exact_variance"] == one["exact_variance"]
        weak = [found["weak", name, n] for n in (1, devices)]
        assert [row["evaluations"] for row in weak] == [
            settings["samples"]["weak"] * n for n in (1, devices)
        ]
    assert all(row["other_collectives"] == 0 for row in results["rows"])
    for curve in results["curves"].values():
        assert min(*curve["cpu_us"], *curve["wall_us"]) > 0


def test_numbers_of_devices() -> None:
    assert scaling.device_counts(1, doublings=True) == [1]
    assert scaling.device_counts(6, doublings=True) == [1, 2, 4, 6]
    assert scaling.device_counts(8, doublings=True) == [1, 2, 4, 8]
    assert scaling.device_counts(8, doublings=False) == [1, 8]


def _check_peers(results: dict[str, Any]) -> None:
    """The weights of a mixture get 0 where draws are differentiated as they stand."""
    found = {f"{row['package']} {row['call']}": row for row in results["rows"]}
    for name in ("distrax jax.grad of sample", "tfp jax.grad of sample", "numpyro Trace_ELBO"):
        assert found[name]["mean"] == [0.0]
        assert found[name]["relative_bias"] == 1
        assert abs(found[name]["bias_z"]) > LIMIT
    assert found["scorefn Pathwise"]["note"] == (
        "TypeError: Pathwise cannot differentiate with respect to "
        "mixture_distribution.logits (float32[2])"
    )
    skipped = [row for row in results["rows"] if (row["note"] or "").startswith("skipped: ")]
    assert {row["package"] for row in skipped} <= {"pyro-ppl", "storchastic"}
    ran = sum(row["note"] is None for row in results["rows"])
    assert ran == len(found) - 1 - len(skipped)


def _torch_call(monkeypatch: pytest.MonkeyPatch, batch: Callable[[int, int], Any]) -> Any:
    """The row of a call that gives such batches, on the coin, whose gradient is 0.0244."""
    call = packages_call.Call(
        "bernoulli", "numpy", "numpy", "normal", lambda: batch, torch=True, repeats=1.5
    )
    monkeypatch.setitem(peers_calls.CALLS, "normal", call)
    sizes = {**peers.SUITE.quick, "toys": ["bernoulli"]}
    return _suite.assemble({"normal": peers.steps(sizes, 0)["normal"]()})[0][0]


def test_batches_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds differ, and every statistic is that of what the call returned."""
    seeds: list[int] = []
    mean = packages_toys.TOYS["bernoulli"].exact[0]

    def batch(size: int, seed: int) -> np.ndarray:
        seeds.append(seed)
        return mean + 0.5 + np.resize([-1.0, 1.0], (size, 1))

    row = _torch_call(monkeypatch, batch)
    # One that is not timed and three that are, all of the same seed.
    assert len(seeds) == 3 + 4
    assert len(set(seeds)) == 3 + 1
    assert row["repeats"] == 6000
    np.testing.assert_allclose(row["mean"], [mean + 0.5])
    np.testing.assert_allclose(row["variance"], 1.25)
    np.testing.assert_allclose(row["relative_bias"], 0.5 / mean, rtol=1e-3)
    np.testing.assert_allclose(row["bias_z"], 0.5 * math.sqrt(5999), rtol=1e-4)
    assert row["time_us"] > 0


def test_another_package_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def batch(size: int, seed: int) -> np.ndarray:
        raise NameError(f"no name: {size} {seed}")

    row = _torch_call(monkeypatch, batch)
    assert row["note"] == "NameError: no name"
    assert "| NameError: no name |" in peers.table({"rows": [row]})


def test_a_peer_that_is_not_there_is_skipped_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "mixture: numpyro TraceGraph_ELBO"
    call = replace(peers_calls.CALLS[name], module="no_such_module")
    monkeypatch.setitem(peers_calls.CALLS, name, call)
    rows = peers.steps(peers.SUITE.quick, 0)[name]()["rows"]
    assert [row["note"] for row in rows] == ["skipped: there is no no_such_module here"]
    assert capsys.readouterr().err == f"{name}: {rows[0]['note']}\n"
    assert f"| {rows[0]['note']} |" in peers.table({"rows": rows})


EXTRA: dict[str, Callable[[dict[str, Any]], None]] = {
    "bernoulli": _check_bernoulli,
    "gaussian": _check_gaussian,
    "discrete": _check_discrete,
    "policy": _check_policy,
    "speed": _check_speed,
    "scaling": _check_scaling,
    "peers": _check_peers,
    "logistic_regression": _check_logistic_regression,
    "vi": _check_vi,
    "rodeo": _check_rodeo,
    "sample_size": _check_sample_size,
}


def test_a_step_does_not_depend_on_those_before() -> None:
    sizes = {**bernoulli.SUITE.quick, "thetas": [0.2]}
    plan = bernoulli.SUITE.steps(sizes, 5)
    names = [name for name in plan if name.endswith("REINFORCE (2)")]
    once = [plan[name]() for name in names]
    assert [bernoulli.SUITE.steps(sizes, 5)[name]() for name in reversed(names)] == once[::-1]
    keys = [step_key(0, "one"), step_key(0, "other"), step_key(1, "one")]
    assert len({str(jax.random.key_data(key)) for key in keys}) == len(keys)


# Interruption.


class Counter:
    """A suite of five cheap steps, which counts what is computed and can be made to fail."""

    def __init__(self) -> None:
        self.computed: list[str] = []
        self.failing: str = ""
        self.error: type[BaseException] = RuntimeError
        self.suite = Suite(
            name="counter",
            summary="five cheap steps",
            full={"n": 5},
            quick={"n": 3},
            steps=lambda sizes, seed: {
                str(i): lambda i=i: self._step(i, seed) for i in range(sizes["n"])
            },
            figures=lambda _: {"counter": Figure()},
            shown=lambda _: True,
        )

    def _step(self, i: int, seed: int) -> dict[str, Any]:
        if str(i) == self.failing:
            raise self.error
        self.computed.append(str(i))
        number = 0.1 + i + seed
        row = {"estimator": f"number {i}", "unbiased": True, "variance": number}
        z = {"exact_variance": None, "variance_z": None, "bias_z": number / 3}
        return {"rows": [row | z | {"timing": "t"}], "times": {"t": 2.5}}

    def run(self, out: Path, *, seed: int = 0, quick: bool = False) -> dict[str, Any]:
        return run(self.suite, seed=seed, quick=quick, out=out, console=QUIET)


def test_a_killed_run_resumes_where_it_was(tmp_path: Path) -> None:
    whole, killed = Counter(), Counter()
    expected = whole.run(tmp_path)
    text = (tmp_path / "counter.json").read_text()
    out = tmp_path / "killed"
    out.mkdir()
    killed.failing = "3"
    with pytest.raises(RuntimeError):
        killed.run(out)
    assert [path.name for path in out.iterdir()] == ["counter.partial.json"]
    killed.failing = ""
    assert _timeless(killed.run(out)) == _timeless(expected)
    assert killed.computed == ["0", "1", "2", "3", "4"]
    lines = [t.splitlines() for t in ((out / "counter.json").read_text(), text)]
    found, right = ([x for x in some if '"seconds"' not in x] for some in lines)
    assert found == right
    assert len(right) == len(lines[1]) - 1
    assert not (out / "counter.partial.json").exists()


def _timeless(results: dict[str, Any]) -> dict[str, Any]:
    assert all(seconds >= 0 for seconds in results["seconds"].values())
    return {name: value for name, value in results.items() if name != "seconds"}


def test_good_results_stay_until_the_next_are_complete(tmp_path: Path) -> None:
    counter = Counter()
    counter.run(tmp_path)
    good = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    counter.failing = "4"
    with pytest.raises(RuntimeError):
        counter.run(tmp_path, seed=1)
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left.pop("counter.partial.json")
    assert left == good


@pytest.mark.parametrize("settings", [{"seed": 1}, {"quick": True}])
def test_other_settings_are_not_resumed(tmp_path: Path, settings: dict[str, Any]) -> None:
    counter = Counter()
    counter.failing = "2"
    with pytest.raises(RuntimeError):
        counter.run(tmp_path)
    counter.failing, counter.computed = "", []
    found = counter.run(tmp_path, **settings)["settings"]
    assert {name: found[name] for name in settings} == settings
    assert counter.computed == ["0", "1", "2", "3", "4"][: 3 if "quick" in settings else 5]


def test_other_versions_are_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter()
    counter.failing = "2"
    with pytest.raises(RuntimeError):
        counter.run(tmp_path)
    monkeypatch.setattr(sf, "__version__", "99")
    counter.failing, counter.computed = "", []
    counter.run(tmp_path)
    assert counter.computed == ["0", "1", "2", "3", "4"]


DAMAGED = [b"", b'{"settings": {', b"[]", b"null", b"\xff\xfe", b'{"settings": {}}']


@pytest.mark.parametrize("content", [*DAMAGED, b'{"settings": {}, "done": {"0": 3}}'])
def test_a_damaged_partial_file_means_starting_again(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "counter.partial.json"
    path.write_bytes(content)
    partial = _store.Partial(path, {"seed": 0})
    assert "counter.partial.json is damaged" in partial.note
    assert "starting again" in partial.note
    counter = Counter()
    counter.run(tmp_path)
    assert counter.computed == ["0", "1", "2", "3", "4"]


def test_resuming_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.partial.json"
    _store.Partial(path, {"seed": 0}).add("first", {"rows": [1.1, math.inf]})
    again = _store.Partial(path, {"seed": 0})
    assert again.note == "resuming from x.partial.json: 1 steps are done already"
    assert again.done == {"first": {"rows": [1.1, math.inf]}}
    assert "other settings" in _store.Partial(path, {"seed": 1}).note


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    _store.write(path, "old")

    def fail(*_: Any) -> None:
        raise OSError

    monkeypatch.setattr(_store.os, "replace", fail)
    with pytest.raises(OSError):  # noqa: PT011
        _store.write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_no_numbers_that_json_does_not_know() -> None:
    text = _store.to_json({"a": math.nan, "rows": [{"b": math.inf, "c": 0.1}], "none": []})
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": None,
        "rows": [{"b": None, "c": 0.1}],
        "none": [],
    }


# The command line.


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(SUITES)


def test_the_default_run_leaves_out_what_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = {name: Counter() for name in ("short", "long")}
    monkeypatch.setattr(command, "SUITES", {})
    for name, counter in counters.items():
        suite = replace(counter.suite, name=name, default=name == "short")
        monkeypatch.setitem(command.SUITES, name, suite)
    assert command.main(["--out", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.glob("*.json")} == {"short"}
    assert command.main(["--suite", "all", "--out", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.glob("*.json")} == {"short", "long"}


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counter]:
    """Three suites and no others."""
    counters = {name: Counter() for name in ("first", "second", "third")}
    suites = {name: replace(c.suite, name=name) for name, c in counters.items()}
    monkeypatch.setattr(command, "SUITES", suites)
    return counters


def test_all_resumes_at_the_suite_and_the_step(
    tmp_path: Path, three: dict[str, Counter], capsys: pytest.CaptureFixture[str]
) -> None:
    three["second"].failing, three["second"].error = "3", KeyboardInterrupt
    arguments = ["all", "--out", str(tmp_path)]
    assert command.main(arguments) == 130
    assert {path.name for path in tmp_path.glob("*.json")} == {
        *("first.json", "second.partial.json", "all.partial.json")
    }
    three["second"].failing = ""
    capsys.readouterr()
    assert command.main(arguments) == 0
    assert "finished before the interruption: first" in capsys.readouterr().out
    assert all(counter.computed == ["0", "1", "2", "3", "4"] for counter in three.values())
    assert not list(tmp_path.glob("*.partial.json"))
    # A run that was not interrupted leaves nothing out.
    assert command.main(arguments) == 0
    assert all(len(counter.computed) == 10 for counter in three.values())


def test_no_suite_keeps_the_programs_of_another(
    tmp_path: Path, three: dict[str, Counter], monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = []

    @jax.jit
    def traced(x: jax.Array) -> jax.Array:
        traces.append(x)
        return x + 1

    def compiling(counter: Counter) -> Any:
        def step(i: int, seed: int) -> dict[str, Any]:
            traced(jnp.zeros(()))
            return Counter._step(counter, i, seed)

        return step

    for counter in three.values():
        monkeypatch.setattr(counter, "_step", compiling(counter))
    assert command.main(["all", "--out", str(tmp_path)]) == 0
    assert len(traces) == len(three)


def test_all_repeats_what_was_replaced_since(tmp_path: Path, three: dict[str, Counter]) -> None:
    three["third"].failing, three["third"].error = "0", KeyboardInterrupt
    assert command.main(["all", "--out", str(tmp_path)]) == 130
    assert command.main(["first", "--seed", "7", "--out", str(tmp_path)]) == 0
    three["third"].failing = ""
    assert command.main(["all", "--out", str(tmp_path)]) == 0
    assert _store.read(tmp_path / "first.json")["settings"]["seed"] == 0
    assert [len(counter.computed) for counter in three.values()] == [15, 5, 5]
    assert command.main(["second", "--seed", "7", "--out", str(tmp_path)]) == 0
    assert len(three["second"].computed) == 10


def test_all_with_other_settings_starts_again(tmp_path: Path, three: dict[str, Counter]) -> None:
    three["second"].failing, three["second"].error = "0", KeyboardInterrupt
    assert command.main(["all", "--out", str(tmp_path)]) == 130
    three["second"].failing = ""
    assert command.main(["all", "--seed", "1", "--out", str(tmp_path)]) == 0
    assert [len(counter.computed) for counter in three.values()] == [10, 5, 5]


def test_time_left() -> None:
    pace = Pace(recorded={"a": 10.0, "b": 20.0, "c": 30.0}, later=100.0)
    assert pace.left(["a", "b", "c"]) == 160
    # Half as fast as before, of which 10 seconds are not enough to be sure.
    pace.add("a", 20.0)
    assert pace.left(["b", "c"]) == 150 * 1.5
    # A step without a record takes the median of those that were done.
    assert pace.left(["b", "c", "new"]) == 150 * 1.5 + 20
    assert Pace().left(["a"]) is None
    assert Pace().ends(["a"]) is None
    assert running_progress.total([{"a": 1.0, "b": 2.0}, {"c": 3.0}]) == 6
    assert running_progress.total([{"a": 1.0}, {}]) is None
    assert running_progress.total([]) == 0


def test_a_second_run_knows_its_time(tmp_path: Path, three: dict[str, Counter]) -> None:
    assert command.main(["first", "--out", str(tmp_path), "second"]) == 0
    recorded = running_sequence._recorded("second", (tmp_path / "nothing", tmp_path))
    assert list(recorded) == three["second"].computed
    assert running_sequence._recorded("third", (tmp_path,)) == {}
    now = time.monotonic()
    assert running_progress.remaining((now + 125.2, False)) == "2:05 left"
    assert running_progress.remaining((now + 125.2, True)) == "> 2:05 left"
    assert running_progress.remaining((now - 5, False)) == "0:00 left"


def test_unknown_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        command.main(["--suite", "bernoulli,bernouli", "--out", str(tmp_path / "new")])
    assert error.value.code == 2
    message = capsys.readouterr().err
    assert "'bernouli'" in message
    assert all(name in message for name in SUITES)
    assert not (tmp_path / "new").exists()


def test_unwritable_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counter = Counter()
    monkeypatch.setitem(SUITES, "counter", counter.suite)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SystemExit) as error:
        command.main(["--suite", "counter", "--out", str(file / "results")])
    assert error.value.code == 2
    assert "cannot write to the output directory" in capsys.readouterr().err
    assert counter.computed == []


def test_interrupted_by_the_keyboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counter = Counter()
    counter.failing, counter.error = "2", KeyboardInterrupt
    monkeypatch.setitem(SUITES, "counter", counter.suite)
    arguments = ["--suite", "counter", "--out", str(tmp_path)]
    assert command.main(arguments) == 130
    assert "run the same command again to resume" in capsys.readouterr().out
    counter.failing = ""
    assert command.main(arguments) == 0
    assert "2 steps are done already" in capsys.readouterr().out
    assert counter.computed == ["0", "1", "2", "3", "4"]


def test_suites_are_repeated_or_separated_by_commas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Counter(), Counter()
    monkeypatch.setitem(SUITES, "first", replace(first.suite, name="first"))
    monkeypatch.setitem(SUITES, "second", replace(second.suite, name="second"))
    arguments = ["--suite", "first,second", "--suite", "first", "--quick", "--out", str(tmp_path)]
    assert command.main(arguments) == 0
    assert first.computed == second.computed == ["0", "1", "2"]
    written = _store.read(tmp_path / "second.json")["command"]
    assert written == "python -m benchmarks --suite second --seed 0 --quick"


# The committed results, and the table made from them.


def _committed(name: str) -> dict[str, Any]:
    """The results as committed: running the benchmark, as README says, replaces those on disk."""
    path = f"benchmarks/results/{name}.json"
    staged = subprocess.run(
        ["git", "show", f":{path}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return json.loads(staged.stdout if staged.returncode == 0 else (ROOT / path).read_text())


@pytest.mark.parametrize("name", [*SUITES, reported.ON_GPU])
def test_committed_results_are_of_the_present_suites(name: str) -> None:
    results = _committed(name)
    suite = SUITES[name.removeprefix("gpu/")]
    assert results["settings"] == _plain({"seed": 0, "quick": False, **suite.full})
    assert (results["device"] == "cpu") == (name != reported.ON_GPU)
    _check_rows(results["rows"])
    if name in ("bernoulli", "gaussian"):
        entries = {"bernoulli": bernoulli.ENTRIES, "gaussian": gaussian.ENTRIES}[name]
        assert {row["estimator"] for row in results["rows"]} == set(entries)


def test_the_table_of_logistic_regression_equals_the_json() -> None:
    results = _committed("logistic_regression")
    lines = reported.logistic_regression(results).splitlines()
    assert len(lines) == 2 + len(results["curves"])
    for line in lines[2:]:
        name, evaluations, *numbers = (cell.strip() for cell in line.strip("|").split("|"))
        rows = [row for row in results["rows"] if row["estimator"] == name]
        expected = [row["variance"] for row in rows]
        expected += [rows[-1]["time_us"], rows[-1]["variance_x_time"]]
        assert int(evaluations) == rows[0]["evaluations"]
        np.testing.assert_allclose([float(x) for x in numbers[:-1]], expected, rtol=5e-3)
        elbo = results["curves"][name]["elbo"][-1]
        np.testing.assert_allclose(float(numbers[-1]), elbo, atol=0.05)


def test_the_tables_of_discrete_equal_the_json() -> None:
    results = _committed("discrete")
    found = {(r["estimator"], r["objective"], r["at"]): r for r in results["rows"]}
    header, _, *lines = _cells(reported.bits(results))
    assert len(lines) == len(VAE_ENTRIES)
    for name, *cells in lines:
        for title, cell in list(zip(header[1:], cells, strict=True))[:-2]:
            objective, at = title.split(", ")
            row = found.get((name, objective, float(at)))
            assert cell == ("" if row is None else f"{row['relative_variance']:.2g}")
    header, _, *lines = _cells(reported.categories(results))
    for name, *cells in lines:
        for title, cell in list(zip(header[1:], cells, strict=True))[:-1]:
            row = found[name, "thousand", float(title.split()[1])]
            assert cell == f"{row['relative_variance']:.2g}"


def test_the_results_of_vi_agree_with_theory() -> None:
    results = _committed("vi")
    found = {
        (row["target"], row["form"], row["estimator"], row["parameter"], row["at"]): row
        for row in results["rows"]
    }
    stages = results["settings"]["stages"]
    start, *_, last = stages

    def ratio(technique: str, at: int, parameter: str = "mean") -> float:
        row = found["logistic", "Pathwise", technique, parameter, at]
        return row["relative_variance"]

    assert all(ratio("QuasiMonteCarlo", at) < 1 / 3 for at in stages)
    assert ratio("DeltaMethod, c = 1", start) > 3
    assert 1 / 10 < ratio("DeltaMethod, c = 1", last) < 1 / 3
    # From the prior on, the cost is a line plus an even function of the draw.
    assert ratio("Antithetic", start) < 1e-6
    for row in results["rows"]:
        if row["estimator"].startswith("FittedControlVariate"):
            assert row["effect"] != "hurts", row
        if row["estimator"] == "Stratified" and row["effect"] == "hurts":
            raise AssertionError(row)
    for at in stages:
        sampled, sticking, learned = (
            sum(found["logistic", form, PLAIN, p, at]["variance"] for p in ("mean", "log_scale"))
            for form in list(FORMS)[1:4]
        )
        assert learned < 1.1 * min(sampled, sticking)


def test_the_bounds_of_vi_agree_with_closed_forms() -> None:
    rows = [row for row in _committed("vi")["rows"] if row["target"] == vi_bounds.TARGET]
    for name, limit, power in (
        ("IWAE", vi_bounds_exact.iwae_limit(), -0.5),
        ("DReG", vi_bounds_exact.dreg_limit(), 0.5),
    ):
        mine = [row for row in rows if row["form"] == name]
        single = vi_bounds_exact.elbo_ratio(doubly=name == "DReG")
        for row in mine:
            expected = single if row["at"] == 1 else limit * row["at"] ** power
            # What the limit leaves out falls as 1 / K.
            allowed = LIMIT * row["snr_se"] / expected + (row["at"] > 1) * 0.3 / row["at"]
            assert abs(row["snr"] / expected - 1) < allowed, row
        assert abs(vi_tables.slope(mine) - power) < 0.02
    biased = [row for row in rows if not row["unbiased"]]
    assert {row["form"] for row in biased} == {"sticking the landing"}
    assert all(row["relative_bias"] > 1 for row in biased)


def test_the_tables_of_vi_equal_the_json() -> None:
    results = _committed("vi")
    harmful = [row for row in results["rows"] if row["effect"] == "hurts"]
    _, _, *lines = _cells(reported.MARKDOWN["vi_harm"][1](results))
    assert sum(where.count(" at ") for *_, where in lines) == len(harmful) > 0
    found = {
        (row["estimator"], vi_tables.PARAMETERS[row["parameter"]], row["at"]): row
        for row in results["rows"]
        if (row["target"], row["form"]) == ("logistic", "Pathwise")
    }
    header, _, *lines = _cells(reported.MARKDOWN["vi_techniques"][1](results))
    assert len(lines) == len(TECHNIQUES)
    for name, *cells in lines:
        for title, cell in list(zip(header[1:], cells, strict=True))[:-2]:
            parameter, at = title.split(", ")
            row = found[name, parameter, int(at)]
            bold = "**" if row["effect"] == "hurts" else ""
            assert cell == f"{bold}{row['relative_variance']:.2g}{bold}"


def _cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_tables_in_documents_are_those_of_the_committed_results() -> None:
    tables = reported.in_markdown_of(
        {name: _committed(name) for name in (*SUITES, reported.ON_GPU)}
    )
    places = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text()
        assert reported.filled(text, tables) == text, (
            f"{path.name}: run python -m benchmarks report"
        )
        places += [place[2] for place in reported.PLACE.finditer(text)]
    # That of the estimators is made by docs/build.py.
    assert sorted(places) == sorted([*reported.MARKDOWN, "estimators"])


def test_a_verdict_follows_from_the_places() -> None:
    assert claims.verdict([True, True]) == "holds"
    assert claims.verdict([True, False]) == "partly"
    assert claims.verdict([False, False]) == claims.verdict([]) == "does not hold"

    def found(variances: Iterable[float], **how: bool) -> str:
        base = {"variance": 10.0, "variance_se": 0.3}
        pairs = [({"variance": v, "variance_se": 0.4}, base) for v in variances]
        return claims.less("claim", "source", pairs, **how).verdict

    # The standard error of the difference is 1/2.
    assert found([7.9, 7.0]) == "holds"
    assert found([7.9, 8.1]) == "partly"
    assert found([8.1, 20.0]) == "does not hold"
    assert found([11.9, 8.1], or_equal=True) == "holds"
    assert found([12.1], or_equal=True) == "does not hold"


def test_tables_are_filled_in_between_their_marker_lines() -> None:
    x, y = "<!-- table:x -->\n{}<!-- /table -->\n", "<!-- table:y -->\n{}<!-- /table -->\n"
    text = f"a\n{x}b\n{y}c\n"
    assert reported.filled(text.format("old", "kept\n"), {"x": "| new |\n"}) == text.format(
        "| new |\n", "kept\n"
    )
    for broken in ("<!-- table:x -->\n", f"<!-- table:x -->\n{y.format('')}"):
        with pytest.raises(ValueError, match="no line <!-- /table --> of its own"):
            reported.filled(broken, {})
