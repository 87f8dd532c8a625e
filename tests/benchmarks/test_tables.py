"""The committed results, and the tables made from them."""

from collections.abc import Iterable

import numpy as np
import pytest
from support.results import LIMIT, PLACES, ROOT, cells, check_rows, committed, plain

from benchmarks._registry import SUITES
from benchmarks._reporting import claims, tables
from benchmarks.suites.bernoulli.entries import ENTRIES as COIN_ENTRIES
from benchmarks.suites.discrete.tasks import VAE_ENTRIES
from benchmarks.suites.gaussian.problem import ENTRIES as GAUSSIAN_ENTRIES
from benchmarks.suites.vi import bounds as vi_bounds
from benchmarks.suites.vi import bounds_exact as vi_bounds_exact
from benchmarks.suites.vi import tables as vi_tables
from benchmarks.suites.vi.forms import FORMS
from benchmarks.suites.vi.techniques import PLAIN, TECHNIQUES


@pytest.mark.parametrize("name", PLACES)
def test_committed_results_are_of_the_present_suites(name: str) -> None:
    results = committed(name)
    suite = SUITES[name.removeprefix("gpu/")]
    settings = plain({"seed": 0, "quick": False, **suite.full})
    # An accelerator is not always at hand: what it measured may lack what a suite has since.
    assert (
        results["settings"].items() <= settings.items()
        if name not in SUITES
        else (results["settings"] == settings)
    )
    assert (results["device"] == "cpu") == (name in SUITES)
    check_rows(results["rows"])
    if name in ("bernoulli", "gaussian"):
        entries = {"bernoulli": COIN_ENTRIES, "gaussian": GAUSSIAN_ENTRIES}[name]
        assert {row["estimator"] for row in results["rows"]} == set(entries)


def test_the_table_of_logistic_regression_equals_the_json() -> None:
    results = committed("logistic_regression")
    lines = SUITES["logistic_regression"].tables["logistic_regression"](results).splitlines()
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
    results = committed("discrete")
    found = {(r["estimator"], r["objective"], r["at"]): r for r in results["rows"]}
    header, _, *lines = cells(SUITES["discrete"].tables["bits"](results))
    assert len(lines) == len(VAE_ENTRIES)
    for name, *line in lines:
        for title, cell in list(zip(header[1:], line, strict=True))[:-2]:
            objective, at = title.split(", ")
            row = found.get((name, objective, float(at)))
            assert cell == ("" if row is None else f"{row['relative_variance']:.2g}")
    header, _, *lines = cells(SUITES["discrete"].tables["categories"](results))
    for name, *line in lines:
        for title, cell in list(zip(header[1:], line, strict=True))[:-1]:
            row = found[name, "thousand", float(title.split()[1])]
            assert cell == f"{row['relative_variance']:.2g}"


def test_the_results_of_vi_agree_with_theory() -> None:
    results = committed("vi")
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
    rows = [row for row in committed("vi")["rows"] if row["target"] == vi_bounds.TARGET]
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
    results = committed("vi")
    harmful = [row for row in results["rows"] if row["effect"] == "hurts"]
    _, _, *lines = cells(vi_tables.harm(results))
    assert sum(where.count(" at ") for *_, where in lines) == len(harmful) > 0
    found = {
        (row["estimator"], vi_tables.PARAMETERS[row["parameter"]], row["at"]): row
        for row in results["rows"]
        if (row["target"], row["form"]) == ("logistic", "Pathwise")
    }
    header, _, *lines = cells(vi_tables.techniques(results))
    assert len(lines) == len(TECHNIQUES)
    for name, *line in lines:
        for title, cell in list(zip(header[1:], line, strict=True))[:-2]:
            parameter, at = title.split(", ")
            row = found[name, parameter, int(at)]
            bold = "**" if row["effect"] == "hurts" else ""
            assert cell == f"{bold}{row['relative_variance']:.2g}{bold}"


def test_tables_in_documents_are_those_of_the_committed_results() -> None:
    made = tables.in_markdown_of(SUITES, {name: committed(name) for name in PLACES})
    places = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text()
        assert tables.filled(text, made) == text, f"{path.name}: run python -m benchmarks report"
        places += [place[2] for place in tables.PLACE.finditer(text)]
    # That of the estimators is made by docs/build.py.
    assert sorted(places) == sorted([*made, "estimators"])


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
    assert tables.filled(text.format("old", "kept\n"), {"x": "| new |\n"}) == text.format(
        "| new |\n", "kept\n"
    )
    for broken in ("<!-- table:x -->\n", f"<!-- table:x -->\n{y.format('')}"):
        with pytest.raises(ValueError, match="no line <!-- /table --> of its own"):
            tables.filled(broken, {})
