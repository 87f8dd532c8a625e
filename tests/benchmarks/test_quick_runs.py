"""A quick run of every suite by the command line, with few of its entries."""

import csv
import itertools
import math
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from support.results import LIMIT, check_rows, plain

from benchmarks import __main__ as command
from benchmarks import _store
from benchmarks._models.logistic_training import ENTRIES
from benchmarks._registry import SUITES
from benchmarks._suite import step_key
from benchmarks.suites.bernoulli import suite as bernoulli
from benchmarks.suites.bernoulli.entries import ENTRIES as COIN_ENTRIES
from benchmarks.suites.discrete import training as discrete_training
from benchmarks.suites.discrete.tasks import TOYS, VAE_ENTRIES
from benchmarks.suites.policy.suite import KL_UNIT
from benchmarks.suites.sample_size import entries as sample_size_entries
from benchmarks.suites.vi import bounds as vi_bounds
from benchmarks.suites.vi import minibatch as vi_minibatch
from benchmarks.suites.vi import training as vi_training
from benchmarks.suites.vi.forms import FORMS
from benchmarks.suites.vi.targets import TARGETS
from benchmarks.suites.vi.techniques import PLAIN, TECHNIQUES

BIASED = ("StraightThrough", "ST-GumbelSoftmax", "GumbelSoftmax", "GumbelRao", "ReinMax")
FEW = ("LeaveOneOut (2)", "DoubleCV (2)", "StraightThrough (1)", "UnorderedSet (8)")
TRAINED = ("MovingAverage (2)", "LeaveOneOut (4)")
FEW_BY_SAMPLES = ("Pathwise", "MeasureValued")
FEW_FORMS = ("Pathwise",)
FEW_TECHNIQUES = (PLAIN, "QuasiMonteCarlo")
FEW_BOUNDS = ("DReG",)
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
    assert list(results["settings"].items())[2:] == list(plain(SUITES[name].quick).items())
    check_rows(results["rows"])
    _check_csv(tmp_path / f"{name}.csv", results["rows"])
    _check_anonymous((tmp_path / f"{name}.json").read_text(), tmp_path)
    drawn = SUITES[name].figures(results)
    assert {path.stem for path in tmp_path.glob("*.png")} == set(drawn)
    for path in tmp_path.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.partial.json"))
    assert [path.name for path in tmp_path.glob(".*")] == [".lock"]
    EXTRA[name](results)


def _few_discrete_entries(monkeypatch: pytest.MonkeyPatch, keep: Keep) -> None:
    for name, toy in TOYS.items():
        settings = dict(itertools.islice(toy.settings.items(), 1))
        entries = {n: toy.entries[n] for n in FEW if n in toy.entries}
        monkeypatch.setitem(TOYS, name, replace(toy, settings=settings, entries=entries))
    keep(VAE_ENTRIES, FEW)
    keep(discrete_training.ENTRIES, TRAINED)
    keep(sample_size_entries.ENTRIES, FEW_BY_SAMPLES)


def _few_vi_entries(monkeypatch: pytest.MonkeyPatch, keep: Keep) -> None:
    keep(FORMS, FEW_FORMS)
    keep(TECHNIQUES, FEW_TECHNIQUES)
    keep(TARGETS, ("logistic", "wine"))
    keep(vi_training.RUNS, ("Pathwise",))
    monkeypatch.setattr(vi_minibatch, "NAMES", (PLAIN, "MinibatchControlVariate"))
    monkeypatch.setattr(vi_bounds, "NAMES", FEW_BOUNDS)


def _check_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open() as file:
        found = list(csv.DictReader(file))
    written = [{n: "" if x is None else str(x) for n, x in row.items()} for row in rows]
    assert found == written


def _check_anonymous(text: str, out: Path) -> None:
    for private in (str(out), str(Path(__file__).parent), str(Path.home()), socket.gethostname()):
        assert private not in text


def _check_bernoulli(results: dict[str, Any]) -> None:
    """Biases are found where they are, and are those of the formulas."""
    repeats = math.prod(results["settings"]["repeats"][name] for name in ("batches", "size"))
    biased = [row for row in results["rows"] if not row["unbiased"]]
    assert {row["estimator"] for row in biased} == {
        name for name in COIN_ENTRIES if name.split()[0] in BIASED
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


def _check_mnist(results: dict[str, Any]) -> None:
    """Every learned part has been learned, every run learns, and every table and figure is made."""
    found = {(r["estimator"], r["step"]): r["relative_variance"] for r in results["rows"]}
    names = results["settings"]["estimators"]
    assert set(found) == {(name, step) for name in names for step in (0, 40)}
    assert found["LeaveOneOut (2)", 0] == 1
    # 0.31 and 0.007. Without its control variate each is leave-one-out, at 1.
    assert found["DoubleCV (2)", 0] < 0.5
    assert found["RODEO (2)", 0] < 0.1
    biased = [row for row in results["rows"] if not row["unbiased"]]
    assert {row["estimator"] for row in biased} == {"StraightThrough (1)"}
    for curve in results["curves"].values():
        assert all(run[-1] > run[0] + 3 for run in curve["train"])
        assert all(
            iwae > run[-1] for iwae, run in zip(curve["test_iwae"], curve["test"], strict=True)
        )
    assert len(SUITES["mnist"].tables["mnist_linear"](results).splitlines()) == 2 + len(names)


def _check_exact(results: dict[str, Any]) -> None:
    """Every problem has its rows, and the claims hold in small sizes too."""
    assert len({row["table"] for row in results["rows"]}) == len(SUITES["exact"].tables)
    claims = SUITES["exact"].claims(results).splitlines()[2:]
    assert all(line.split(" | ")[-1] in ("holds |", "partly |") for line in claims), claims


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


def _check_posteriors(results: dict[str, Any]) -> None:
    """No ELBO is above the evidence, and that of independent components is far below."""
    suite, names = SUITES["posteriors"], results["settings"]["estimators"]
    found = {(r["target"], r["family"], r["estimator"]): r for r in results["rows"]}
    assert len(found) == 2 * len(names)
    for row in results["rows"]:
        assert row["elbo"] < row["log_evidence"]
    exact = found["Brownian motion", "full covariance", "sticking the landing"]
    independent = found["Brownian motion", "mean-field", "sticking the landing"]
    assert exact["elbo"] > exact["log_evidence"] - 0.3
    # 5.2 nats: the divergence of the best independent components.
    assert independent["elbo"] < independent["log_evidence"] - 5
    assert exact["deviation_ratio"] > 0.9 > 0.7 > independent["deviation_ratio"]
    variances = results["curves"]["Brownian motion, full covariance: variances"]
    for name, unit in (("sticking the landing", "Pathwise"), ("DReG (8)", "IWAE (8)")):
        assert variances[name]["late"][0] < 0.01 * variances[unit]["late"][0]
    assert len(suite.tables["posteriors"](results).splitlines()) == 2 + len(names)
    assert len(suite.tables["posteriors_signals"](results).splitlines()) == 2 + 2 * 2


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
    parts = {
        "hand",
        "alike",
        "bulk",
        "many",
        "chunks",
        "call",
        "monitor",
        "peers",
        "draws",
        "compile",
    }
    assert {row["part"] for row in rows} == parts | {"torch"}
    for row in rows:
        if row["part"] == "compile":
            assert min(row["time_us"], row["wall_us"]) > 0
        elif row["note"] is None or row["part"] == "chunks":
            assert row["q25"] <= row["ratio"] <= row["q75"]
            assert min(row["time_us"], row["other_time_us"], row["wall_ratio"]) > 0
    for name in ("ScoreFunction", "Pathwise"):
        few, many = (r for r in rows if r["part"] == "many" and r["case"].startswith(name))
        assert few["note"] is None
        assert many["note"].startswith("not run: ")
        assert many["temp_bytes"] < 0.7 * many["other_temp_bytes"]
    ran = {row["against"] for row in rows if row["part"] == "peers" and row["note"] is None}
    assert ran >= {"numpyro TraceGraph_ELBO", "TFP monte_carlo.expectation"}


def _check_compile(results: dict[str, Any]) -> None:
    """Every case is measured, and the library writes at least what code by hand writes."""
    rows = results["rows"]
    assert {row["note"] for row in rows} == {None}
    assert len(rows) == 9
    for row in rows:
        assert row["q25"] <= row["ratio"] <= row["q75"]
        assert min(row["trace_ms"], row["hand_compile_ms"]) > 0
        assert row["operations"] >= row["hand_operations"]


def _check_scaling(results: dict[str, Any]) -> None:
    """The gradient is reduced, and one number before it for leave-one-out; nothing else."""
    found = {(row["estimator"], row["devices"]): row for row in results["rows"]}
    size = 4 * results["settings"]["size"]
    for name, reduced in {"LeaveOneOut": [4, size], "Pathwise": [size]}.items():
        assert found[name, 1]["reduced_bytes"] == []
        assert found[name, 8]["reduced_bytes"] == reduced
        assert found[name, 8]["all_reduces"] == len(reduced)
        assert found[name, 8]["bytes_without"] <= 1.1 * found[name, 1]["bytes_without"]
    assert all(row["other_collectives"] == 0 for row in results["rows"])


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


EXTRA: dict[str, Callable[[dict[str, Any]], None]] = {
    "bernoulli": _check_bernoulli,
    "gaussian": _check_gaussian,
    "discrete": _check_discrete,
    "exact": _check_exact,
    "policy": _check_policy,
    "speed": _check_speed,
    "compile": _check_compile,
    "scaling": _check_scaling,
    "peers": _check_peers,
    "logistic_regression": _check_logistic_regression,
    "vi": _check_vi,
    "posteriors": _check_posteriors,
    "mnist": _check_mnist,
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
