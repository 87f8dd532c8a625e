"""Other packages: skipped where they are not installed, called rightly where they are."""

import io
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console
from support.results import LIMIT

import scorefn as sf
from benchmarks import _suite
from benchmarks._packages import call as packages_call
from benchmarks._packages import toys as packages_toys
from benchmarks._registry import SUITES
from benchmarks._reporting import tables as reported
from benchmarks.suites.peers import calls as peers_calls
from benchmarks.suites.peers import suite as peers
from benchmarks.suites.peers import tables as peers_tables
from benchmarks.suites.speed import suite as speed
from benchmarks.suites.speed import tables as speed_tables
from benchmarks.suites.speed import torch as speed_torch
from benchmarks.suites.speed import torch_vae as speed_torch_vae
from benchmarks.suites.speed import vae as speed_vae


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
    assert "| NameError: no name |" in peers_tables.calls({"rows": [row]})


def test_a_peer_that_is_not_there_is_skipped_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "mixture: numpyro TraceGraph_ELBO"
    call = replace(peers_calls.CALLS[name], module="no_such_module")
    monkeypatch.setitem(peers_calls.CALLS, name, call)
    rows = peers.steps(peers.SUITE.quick, 0)[name]()["rows"]
    assert [row["note"] for row in rows] == ["skipped: there is no no_such_module here"]
    assert capsys.readouterr().err == f"{name}: {rows[0]['note']}\n"
    assert f"| {rows[0]['note']} |" in peers_tables.calls({"rows": rows})
