"""compare: the numbers of closed forms, a stop that is right under many looks, and what it prints.

Times are those of a busy machine: nothing here depends on them, but that a ratio of variances of
900 is no ratio of times.
"""

import csv
import itertools
import json
import math
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from support.compiled import only_in_branches

import scorefn as sf
from scorefn.diagnostics._compare.bias import bias, reference_in
from scorefn.diagnostics._compare.comparison import Comparison
from scorefn.diagnostics._compare.experiment import Experiment, Plan, _Silent
from scorefn.diagnostics._compare.gradients import Components, Gradients
from scorefn.diagnostics._compare.moments import Moments
from scorefn.diagnostics._compare.ranking import LARGEST_SHARE, open_pairs, spent
from scorefn.diagnostics._compare.row import Row, ranked
from scorefn.diagnostics._compare.timing import Stopwatch, median_interval

pytestmark = pytest.mark.slow
mpl.use("agg")
KEY = jax.random.key(0)
LOGIT, P = 1.5, 1 / (1 + math.exp(-1.5))
EXACT = P * (1 - P) * 0.1  # of f(1) - f(0) = 0.55^2 - 0.45^2


def coin(logit: jax.Array, key: jax.Array, estimator: sf.Estimator) -> jax.Array:
    return sf.expectation(lambda b: (b - 0.45) ** 2, sf.Bernoulli(logit), key, estimator)


@pytest.fixture(scope="module")
def found() -> sf.Comparison:
    estimators = {
        "none": sf.ScoreFunction(sf.ConstantBaseline(0.0)),
        "pathwise": sf.Pathwise(),
        "st": sf.StraightThrough(),
        "sum": sf.Enumerate(),
    }
    return sf.compare(
        coin, estimators, LOGIT, KEY, num_repeats=4000, reference=EXACT, stop_early=False
    )


def test_the_variance_and_its_error_are_those_of_the_closed_form(found: sf.Comparison) -> None:
    row = found["none"]
    gradients, chances = np.array([0.45**2 * -P, 0.55**2 * (1 - P)]), np.array([1 - P, P])
    squares = np.square(gradients - chances @ gradients)
    variance = chances @ squares
    error = math.sqrt(chances @ np.square(squares - variance) / row.repeats)
    # At most 4000: whole batches of 256.
    assert row.repeats == 3840
    # A false alarm of 6e-10.
    assert abs(row.variance - variance) < 6.2 * error
    assert row.variance_se == pytest.approx(error, rel=0.12)
    assert row.snr == pytest.approx(EXACT / math.sqrt(variance), rel=0.6)
    assert row.variance_x_time == pytest.approx(row.variance * row.time_us)
    assert row.time_us > 0
    assert not row.bias_found


def test_a_bias_is_found_and_measured(found: sf.Comparison) -> None:
    row = found["st"]
    assert row.unbiased is False
    assert row.bias_found
    shift = P * (1 - P) * 2 * (P - 0.45) - EXACT
    error = math.sqrt(row.variance / row.repeats)
    assert abs(row.bias - abs(shift)) < 6.2 * error
    assert row.bias_z == pytest.approx(abs(shift) / error, abs=6.2)
    assert row.relative_bias == pytest.approx(row.bias / EXACT, rel=1e-5)


def test_no_variance_is_none_and_comes_first(found: sf.Comparison) -> None:
    row = found.rows[0]
    assert row.estimator == found.best() == "sum"
    assert (row.variance, row.variance_se, row.variance_x_time) == (0, 0, 0)
    assert math.isinf(row.snr)
    assert not row.bias_found


def test_evaluations_of_f_are_counted(found: sf.Comparison) -> None:
    assert {row.estimator: row.evaluations for row in found.rows} == {
        "sum": 2,
        "st": 1,
        "none": 1,
        "pathwise": None,
    }


def test_what_raises_is_a_row_with_its_error(found: sf.Comparison) -> None:
    row = found.rows[-1]
    assert row.estimator == "pathwise"
    assert row.error.startswith("TypeError: Pathwise cannot differentiate with respect to")
    assert math.isnan(row.variance)
    assert "pathwise" not in str(found.open_pairs)


def test_it_prints_within_80_columns(found: sf.Comparison) -> None:
    long = tuple(replace(row, estimator=row.estimator + 90 * "x") for row in found.rows)
    for comparison in (found, replace(found, rows=long)):
        lines = str(comparison).splitlines()
        assert max(map(len, lines)) <= 80
        assert lines[len(found.rows) + 1] == ""
        assert "(b)" in lines[[r.estimator[:2] for r in comparison.rows].index("st") + 1]
    assert "Bias against exact." in " ".join(str(found).split())
    assert f"{found['st'].relative_bias:.0%}" in str(found)


def test_json_and_csv_hold_every_field(found: sf.Comparison, tmp_path: Any) -> None:
    found.to_json(tmp_path / "a.json")
    read = json.loads((tmp_path / "a.json").read_text())
    assert (read["alpha"], read["reference"], read["stopped"]) == (1e-3, "exact", "num_repeats")
    for got, row in zip(read["rows"], found.rows, strict=True):
        for name, value in asdict(row).items():
            broken = isinstance(value, float) and not math.isfinite(value)
            assert got[name] == (None if broken else value)
    found.to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["estimator"] for line in lines] == [row.estimator for row in found.rows]
    assert float(lines[1]["variance"]) == found.rows[1].variance
    assert lines[-1]["variance"] == ""


def test_a_file_is_whole_or_not_written(
    found: sf.Comparison, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        found.to_json(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link_and_a_pipe_a_pipe(found: sf.Comparison, tmp_path: Any) -> None:
    (tmp_path / "elsewhere").mkdir()
    link, file = tmp_path / "a.csv", tmp_path / "elsewhere" / "b.csv"
    link.symlink_to(file)
    found.to_csv(link)
    assert link.is_symlink()
    assert file.read_text().startswith("estimator,")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as thread:
        read = thread.submit(pipe.read_text)
        found.to_csv(pipe)
        assert read.result(timeout=60) == file.read_text()
    assert pipe.is_fifo()


def test_pandas_gets_the_rows(found: sf.Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    class Frame(list):
        def set_index(self, name: str) -> dict[str, Any]:
            return {row[name]: row for row in self}

    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=Frame))
    frame = found.to_pandas()
    assert frame["st"]["variance"] == found["st"].variance


@pytest.mark.parametrize(
    ("package", "use"), [("pandas", Comparison.to_pandas), ("matplotlib.pyplot", Comparison.plot)]
)
def test_a_package_that_is_missing_is_named(
    found: sf.Comparison, monkeypatch: pytest.MonkeyPatch, package: str, use: Any
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"needs {package.split('.')[0]}.*pip install"):
        use(found)


def test_the_plot_shows_each_row(found: sf.Comparison) -> None:
    axis = found.plot()
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        row.estimator for row in found.rows
    ]
    assert [text.get_text() for text in axis.texts] == ["no variance", "raises TypeError"]
    drawn = [tuple(x[0] for x in bar[0].get_data()) for bar in axis.containers]
    wanted = {(row.variance_x_time, place) for place, row in enumerate(found.rows[1:-1], 1)}
    assert set(drawn) == wanted
    assert found.plot(axis) is axis
    axis.figure.canvas.draw()


# ------------------------------------------------- estimators that are plain values: what is drawn


def noisy(params: dict[str, jax.Array], key: jax.Array, estimator: dict[str, float]) -> jax.Array:
    """A gradient of mean 1 + bias and the variance scale^2 in each of four components."""
    noise = jax.random.normal(key, (3,)) * estimator["scale"]
    shift = 1 + estimator.get("bias", 0.0)
    return jnp.sum(params["w"] * (noise + shift)) + params["b"] * (noise[0] + shift)


PARAMS = {"w": jnp.zeros(3), "b": jnp.zeros(())}


def _drawn(scales: dict[str, float], *, batches: int, chunk_size: int) -> Moments:
    """The moments of batches of 8, of estimators of these scales."""
    plan = Plan(8, math.inf, chunk_size, stop_early=False, alpha=0.1, tolerance=0.0)
    estimators = {name: {"scale": scale} for name, scale in scales.items()}
    experiment = Experiment(noisy, estimators, PARAMS, plan, _Silent())
    experiment.compile(KEY, first=None)
    moments = Moments(Components(PARAMS), list(scales))
    for _ in range(batches):
        experiment._add(moments, KEY)
    return moments


@pytest.mark.parametrize("chunk_size", [4, 8])
def test_moments_are_those_of_numpy(chunk_size: int) -> None:
    scales = {"a": 0.5, "b": 2.0}
    moments = _drawn(scales, batches=3, chunk_size=chunk_size)
    signs = moments.components.signs
    keys = jnp.concatenate([jax.random.split(jax.random.fold_in(KEY, n), 8) for n in (0, 8, 16)])
    distances = {}
    for i, (name, scale) in enumerate(scales.items()):
        gradients = jax.vmap(lambda k, s=scale: jax.grad(noisy)(PARAMS, k, {"scale": s}))(keys)
        flat = np.column_stack([gradients["b"], gradients["w"]]).astype(np.float64)
        np.testing.assert_allclose(moments.mean[i], flat.mean(0), rtol=1e-6)
        np.testing.assert_allclose(moments.variance[i], flat.var(0, ddof=1).sum(), rtol=1e-5)
        along = np.column_stack([gradients["b"], gradients["w"] @ signs["w"].T])
        np.testing.assert_allclose(moments.along.mean[:, i], along.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(
            moments.along.covariance[:, i, i], along.var(0, ddof=1), rtol=1e-4
        )
        before = np.repeat([flat[:8].mean(0), flat[:8].mean(0), flat[:16].mean(0)], 8, axis=0)
        distances[name] = np.sum((flat - before) ** 2, 1) * np.repeat([8 / 7, 8 / 9, 16 / 17], 8)
        assert moments.largest[i] == pytest.approx(max(distances[name]), rel=1e-5)
    np.testing.assert_allclose(
        moments.distance.covariance, np.cov(list(distances.values())), rtol=1e-4
    )


@pytest.fixture(scope="module")
def values() -> sf.Comparison:
    estimators = {
        "wide": {"scale": 3.0},
        "narrow": {"scale": np.float32(0.1)},
        "broken": {"scale": math.nan},
        "shifted": {"scale": 3.0, "bias": 1.0},
    }
    return sf.compare(
        noisy,
        estimators,
        PARAMS,
        KEY,
        num_repeats=1024,
        stop_early=False,
        reference="wide",
        reference_repeats=2048,
    )


def test_a_long_run_is_a_reference_with_noise(values: sf.Comparison) -> None:
    # 5.2 standard errors of both runs, one of the 9 directions: a false alarm of 2e-6 each, with
    # a fixed key.
    for name in ("wide", "narrow"):
        assert values[name].bias_z < 5.2
        assert not values[name].bias_found
    shifted = values["shifted"]
    # The shift of the scalar is 1 in units of sqrt(9 / 1024 + 9 / 2048).
    assert shifted.bias_z > 1 / math.sqrt(9 / 1024 + 9 / 2048) - 5.2
    assert shifted.bias == pytest.approx(2, rel=0.3)
    assert values.reference == "wide"
    assert shifted.evaluations is None


def test_the_noise_of_both_is_taken_from_a_bias() -> None:
    moments = _drawn({"a": 0.5}, batches=1, chunk_size=8)
    reference = reference_in(moments, jax.tree.map(lambda p: p - 3, PARAMS), {})
    distance = np.sum((moments.mean[0] + 3) ** 2)
    for noise in (0.0, 2.0):
        found = bias(moments, 0, replace(reference, variance=noise), alpha=0.1)
        assert found.bias**2 == pytest.approx(distance - moments.variance[0] / 8 - noise, rel=1e-6)
        assert found.relative_bias == pytest.approx(found.bias / 6)


def test_a_reference_over_the_same_draws_leaves_no_noise() -> None:
    estimators = {"one": {"scale": 3.0}, "two": {"scale": 3.0, "bias": 1e-3}}
    found = sf.compare(noisy, estimators, PARAMS, KEY, num_repeats=64, reference="one")
    assert math.isnan(found["one"].bias_z)
    # A 3000th of the noise of one gradient.
    assert found["two"].bias_found
    assert found["two"].bias == pytest.approx(2e-3, rel=1e-2)


def test_few_repeats_find_no_bias() -> None:
    """Two gradients that happen to be close have a standard error of next to nothing."""
    estimators = {"one": {"scale": 0.0}, "two": {"scale": 0.1, "bias": 1.0}}
    for repeats, found in ((8, False), (31, False), (32, True)):
        comparison = sf.compare(
            noisy, estimators, PARAMS, KEY, num_repeats=repeats, reference="one"
        )
        assert comparison["two"].bias_z > 20
        assert comparison["two"].bias_found is found


def test_a_gradient_that_is_not_finite_comes_last_and_settles_nothing(
    values: sf.Comparison,
) -> None:
    row = values.rows[-1]
    assert row.estimator == "broken"
    assert row.error is None
    assert math.isnan(row.variance)
    assert row.bias_found
    assert not any("broken" in pair for pair in values.open_pairs)
    assert values.best() == "narrow"


def test_it_stops_when_the_ranking_is_settled() -> None:
    found = sf.compare(
        noisy,
        {"wide": {"scale": 3.0}, "narrow": {"scale": 0.1}},
        PARAMS,
        KEY,
        num_repeats=1_000_000,
    )
    assert (found.stopped, found.settled) == ("settled", True)
    assert found["wide"].repeats == found["narrow"].repeats < 20_000
    assert [row.estimator for row in found.rows] == ["narrow", "wide"]
    assert "Ranking settled." in " ".join(str(found).split())


@pytest.fixture
def ctrl_c() -> Iterator[Any]:
    """Python's own handler, also where the tests run in the background, which ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def _interrupts_at(batch: int, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    add, calls = Moments.add, itertools.count(1)

    def adding(moments: Moments, batches: Any) -> None:
        add(moments, batches)
        if next(calls) == batch:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Moments, "add", adding)


@pytest.mark.parametrize("reference", [None, "wide"])
def test_an_interruption_keeps_what_is_measured(
    monkeypatch: pytest.MonkeyPatch, ctrl_c: Any, reference: str | None
) -> None:
    long_run = 2 if reference else 0  # Batches of the reference come first.
    _interrupts_at(3 + long_run, 1, monkeypatch)
    found = sf.compare(
        noisy,
        {"wide": {"scale": 3.0}, "wider": {"scale": 3.1}},
        PARAMS,
        KEY,
        num_repeats=10**6,
        stop_early=False,
        reference=reference,
        reference_repeats=512 if reference else None,
    )
    assert found.stopped == "interrupted"
    assert found["wide"].repeats == found["wider"].repeats == 3 * 256
    assert "Interrupted. 768 gradients each" in str(found)
    assert signal.getsignal(signal.SIGINT) is ctrl_c


def test_a_second_interruption_raises(monkeypatch: pytest.MonkeyPatch, ctrl_c: Any) -> None:
    _interrupts_at(1, 2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        sf.compare(noisy, {"wide": {"scale": 3.0}}, PARAMS, KEY, num_repeats=10**6)
    assert signal.getsignal(signal.SIGINT) is ctrl_c


def test_the_time_limit_is_for_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which to trace the loss takes 1 second, and a gradient 5 milliseconds."""
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def wait(noise: Any) -> Any:
        clock[0] += 5e-3 * np.size(noise) / 4
        return np.asarray(noise)

    def loss(params: jax.Array, key: jax.Array, estimator: dict[str, float]) -> jax.Array:
        clock[0] += 1.0
        noise = jax.random.normal(key, (4,)) * estimator["scale"]
        noise = jax.pure_callback(wait, noise, noise, vmap_method="broadcast_all")
        return jnp.sum(params * noise)

    def run(max_seconds: float) -> sf.Comparison:
        clock[0] = 0.0
        estimators = {name: {"scale": 1.0} for name in "abcd"}
        limits = {"num_repeats": 10**6, "max_seconds": max_seconds, "stop_early": False}
        return sf.compare(loss, estimators, jnp.zeros(4), KEY, **limits)

    for seconds in (300.0, 40.0, 12.0):
        found = run(seconds)
        assert seconds / 2 < clock[0] <= seconds
        assert found.stopped == "max_seconds"
        assert all(row.repeats > 10 for row in found.rows)
    found = run(5.0)
    assert clock[0] <= 5.0
    assert found["a"].repeats == found["b"].repeats > 10
    for name in "cd":
        assert found[name].error == (
            "TimeoutError: not compiled: of max_seconds=5 there are 3 s left, and 4 s are needed"
        )
    with pytest.raises(TimeoutError, match=r"of max_seconds=1\.5 there are 0\.49 s left"):
        run(1.5)
    assert clock[0] <= 1.2 * 1.5


def test_means_that_differ_without_a_reference_are_no_choice() -> None:
    row = partial(Row, unbiased=True, time_us=1.0)
    rows = (
        row("a", variance=1.0, variance_x_time=1.0),
        row("b", variance=2.0, variance_x_time=2.0, bias_found=True),
    )
    comparison = _comparison(rows, reference="a", reference_named=False)
    with pytest.raises(ValueError, match="b and a have different means"):
        comparison.best()
    assert replace(comparison, reference_named=True).best() == "a"


# ------------------------------------------------------------------------------------ the stop


def test_no_more_than_alpha_is_spent() -> None:
    assert sum(spent(0.01, look) for look in range(1, 100_000)) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("alpha", [0.5, 0.1, 0.02, 0.005])
def test_the_interval_of_a_median_misses_it_as_often_as_stated(alpha: float) -> None:
    # Of the 2^8 ways in which 8 values may lie around their median, 0.
    missed = closest = 0
    for signs in itertools.product((-1, 1), repeat=8):
        values = np.array(signs) * np.arange(1, 9)
        low, high = median_interval(values, alpha)
        missed += not low <= 0 <= high
        inner = np.sort(values)[np.searchsorted(np.sort(values), low) + 1] if low > -9 else -8
        closest += inner > 0
    assert missed / 2**8 <= alpha


def test_few_values_have_no_interval() -> None:
    assert median_interval(np.zeros(5), 0.01) == (-math.inf, math.inf)
    assert median_interval(np.arange(8.0), 0.01) == (0.0, 7.0)
    assert median_interval(np.arange(8.0), 0.1) == (1.0, 6.0)


def _measured(scales: list[float], *, count: int = 2000, common: bool = True) -> Moments:
    """Moments of as many estimators of one component."""
    noise = np.random.default_rng(0).normal(size=(len(scales), count))
    values = np.array(scales)[:, None] * (noise[:1] if common else noise)
    return _moments(np.square(values))


def _moments(squares: np.ndarray) -> Moments:
    names = list(map(str, range(len(squares))))
    moments = Moments(Components(jnp.zeros(1)), names)
    moments.count = squares.shape[1]
    moments.distance.add(squares)
    moments._squares = squares.sum(1)
    moments.largest = squares.max(1)
    return moments


def test_pairs_are_settled_by_variance_and_time_together() -> None:
    open_at = partial(open_pairs, alpha=1e-3, tolerance=0.1)
    still = np.zeros((40, 2))
    # Of independent draws a ratio of 1.2^2 needs 4.3 standard errors of 0.045: apart at 2000.
    assert not open_at(_measured([1.0, 1.3], common=False), still, [0, 1])
    assert open_at(_measured([1.0, 1.05], common=False), still, [0, 1]) == [(0, 1)]
    # With common draws the ratio is exact: apart, or the same within a tenth.
    assert not open_at(_measured([1.0, 1.06]), still, [0, 1])
    assert not open_at(_measured([1.0, 1.04]), still, [0, 1])
    # Times that outweigh the variances make it equal; uncertain ones leave it open.
    slow = still + [np.log(1.3**2), 0.0]
    assert not open_at(_measured([1.0, 1.3]), slow, [0, 1])
    shaky = slow + np.random.default_rng(1).normal(size=(40, 2))
    assert open_at(_measured([1.0, 1.3]), shaky, [0, 1]) == [(0, 1)]
    assert open_at(_measured([1.0, 9.0]), still[:5], [0, 1]) == [(0, 1)]
    # Who is not finite has no pairs.
    assert not open_at(_measured([1.0, 1.05], common=False), still, [0])


def test_looking_again_and_again_settles_nothing_wrongly() -> None:
    """Pairs of equal variance, 800 of them, looked at 8 times each: an order is an error."""
    generator, still, alpha = np.random.default_rng(2), np.zeros((60, 2)), 0.2
    wrong = 0
    for _ in range(800):
        squares = np.square(generator.normal(size=(2, 4096)))
        looks = zip(itertools.count(1), (256, 384, 576, 864, 1296, 1944, 2916, 4096))
        for look, count in looks:
            moments = _moments(squares[:, :count])
            # No two are equal within nothing: what is not open is in an order.
            if not open_pairs(moments, still, [0, 1], alpha=spent(alpha, look), tolerance=0.0):
                wrong += 1
                break
    # The variances may err in 80, half of alpha: more than 140 of them have a chance of 1e-11.
    assert 20 < wrong < 140


def test_nothing_is_settled_by_one_repeat() -> None:
    moments = _measured([1.0, 9.0])
    still = np.zeros((40, 2))
    assert not open_pairs(moments, still, [0, 1], alpha=1e-3, tolerance=0.1)
    moments.largest[1] = 1.01 * LARGEST_SHARE * moments._squares[1] * 2000 / 1999
    assert open_pairs(moments, still, [0, 1], alpha=1e-3, tolerance=0.1) == [(0, 1)]


def test_of_two_without_variance_the_faster_is_better() -> None:
    moments, still = _measured([0.0, 0.0, 1.0]), np.zeros((40, 3))
    pairs = partial(open_pairs, moments, finite=[0, 1, 2], alpha=1e-3, tolerance=0.1)
    assert not pairs(still)
    assert not pairs(still + [1.0, 0.0, 0.0])
    assert pairs(still + [0.2, 0.0, 0.0] * np.resize([-1.0, 1.0], (40, 1))) == [(0, 1)]


def test_a_call_is_made_long_enough_though_it_was_held_up_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, held_up, counts = [0.0], [10.0, 10.0], []

    def steps(count: int) -> None:
        """A gradient of 1 µs, a call of 100 µs; the first calls have to wait."""
        counts.append(count)
        clock[0] += 1e-4 + 1e-6 * count + (held_up.pop() if held_up else 0.0)

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    stopwatch = Stopwatch({"a": steps})
    for _ in range(9):
        stopwatch.run()
    assert counts[:3] == [1, 1, 1]
    assert min(counts[-9:]) >= 1000
    assert np.median(stopwatch.wall) == pytest.approx(1e-6, rel=0.1)


def test_costs_that_need_no_parameters_are_timed_at_each_step() -> None:
    """XLA moved them in front of the loop: half a million sines seemed to take 90 microseconds."""
    data = jax.random.normal(KEY, (1024,))

    def loss(logits: jax.Array, key: jax.Array, estimator: sf.Estimator) -> jax.Array:
        cost = lambda bits: jnp.sum(jnp.sin(data * jnp.sum(bits)))  # noqa: E731
        return sf.expectation(cost, sf.Bernoulli(logits), key, estimator)

    program = Gradients(loss, sf.Enumerate(), jnp.zeros(9), Components(jnp.zeros(9)))
    text = program._steps.lower(program._params, program._arrays, KEY, 0.0, 3).compile().as_text()
    assert only_in_branches(text, "sine")


# ---------------------------------------------------------------------------------- the choice


def _comparison(rows: tuple[Row, ...], **changes: Any) -> sf.Comparison:
    fields = {"reference": "exact", "reference_named": True, **changes}
    return sf.Comparison(
        rows=ranked(rows),
        open_pairs=(),
        stopped="settled",
        looks=1,
        alpha=1e-3,
        tolerance=0.1,
        device="cpu",
        **fields,
    )


def _row(name: str, variance: float, time_us: float, evaluations: int | None, **facts: Any) -> Row:
    return Row(
        name,
        **{"unbiased": True, **facts},
        variance=variance,
        time_us=time_us,
        evaluations=evaluations,
        variance_x_time=variance * time_us,
    )


ROWS = (
    _row("says so", 0.01, 1.0, 1, unbiased=False),
    _row("found", 0.02, 1.0, 1, bias_found=True),
    _row("good", 2.0, 5.0, 10),
    _row("cheap", 3.0, 4.0, 7),
    _row("says nothing", 30.0, 1.0, None, unbiased=None),
    Row("raises", unbiased=True, error="TypeError: no"),
)


@pytest.mark.parametrize(
    ("budget", "best"),
    [
        ({}, "good"),
        # 2 / 2 against 3 / 2; 2 / 1 against 3 / 2.
        ({"max_evaluations": 20}, "good"),
        ({"max_evaluations": 14}, "cheap"),
        ({"max_evaluations": 7}, "cheap"),
        # 2 / 2 against 3 / 2 and 30 / 10; the fast one alone fits the last.
        ({"max_seconds": 1e-5}, "good"),
        ({"max_seconds": 4e-6}, "cheap"),
        ({"max_seconds": 2e-6}, "says nothing"),
        ({"max_evaluations": 14, "max_seconds": 1.0}, "cheap"),
    ],
)
def test_the_best_is_unbiased_and_fits_the_budget(budget: dict[str, float], best: str) -> None:
    assert _comparison(ROWS).best(**budget) == best


def test_no_choice_is_an_error() -> None:
    with pytest.raises(ValueError, match="fit a budget of 3 evaluations of f for a step"):
        _comparison(ROWS).best(max_evaluations=3)
    with pytest.raises(ValueError, match="3 evaluations of f and 0.1 seconds for a step"):
        _comparison(ROWS).best(max_evaluations=3, max_seconds=0.1)
    with pytest.raises(ValueError, match="no estimator is finite and unbiased"):
        _comparison((*ROWS[:2], ROWS[-1])).best()
    with pytest.raises(KeyError, match="there is no estimator 'x'; there are .*good"):
        _comparison(ROWS)["x"]


# ---------------------------------------------------------------------------- around all of it


class _Bar:
    """A tqdm that remembers."""

    def __init__(self, **options: Any) -> None:
        self.options, self.done = options, 0

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, n: int) -> None:
        self.done += n

    def set_description(self, text: str) -> None: ...


@pytest.mark.parametrize("installed", [True, False])
def test_a_bar_shows_where_tqdm_is_installed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *, installed: bool
) -> None:
    bars: list[_Bar] = []
    stub = SimpleNamespace(tqdm=lambda **options: bars.append(_Bar(**options)) or bars[-1])
    monkeypatch.setitem(sys.modules, "tqdm.auto", stub if installed else None)
    found = sf.compare(noisy, {"a": {"scale": 1.0}}, PARAMS, KEY, num_repeats=20)
    assert found["a"].repeats == 20
    assert found.stopped == "num_repeats"
    assert [(bar.done, bar.options["total"]) for bar in bars] == [(20, 20)] * installed
    assert capfd.readouterr() == ("", "")


def test_a_loss_that_never_works_raises() -> None:
    with pytest.raises(KeyError, match="scale"):
        sf.compare(noisy, {"a": {}, "b": {}}, PARAMS, KEY, num_repeats=4)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"estimators": {}}, TypeError, "estimators must be a dict from names"),
        ({"estimators": [sf.Pathwise()]}, TypeError, "estimators must be a dict from names"),
        ({"num_repeats": 1}, ValueError, "num_repeats must be at least 2"),
        ({"reference": "c"}, ValueError, "reference must be one of a, or an exact gradient"),
        ({"reference": {"w": 0.0}}, ValueError, "reference must be a pytree of shapes"),
        ({"reference_repeats": 100}, TypeError, "the name of an estimator"),
        ({"params": {}}, TypeError, "at least one, .* got no arrays"),
        ({"params": {"w": 1}}, TypeError, "pytree of float arrays, .* got int32"),
        ({"max_seconds": math.nan}, ValueError, "max_seconds must be above 0, got nan"),
        ({"max_seconds": 0}, ValueError, "max_seconds must be above 0, got 0"),
        ({"alpha": 1.0}, ValueError, "alpha must lie between 0 and 1"),
        ({"tolerance": -1.0}, ValueError, "tolerance must be at least 0"),
        ({"key": 0}, TypeError, "key must be a random key"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(
    changes: dict[str, Any], kind: type, message: str
) -> None:
    given = {"estimators": {"a": {"scale": 1.0}}, "params": PARAMS, "key": KEY, "num_repeats": 4}
    with pytest.raises(kind, match=message):
        sf.compare(noisy, **{**given, **changes})
