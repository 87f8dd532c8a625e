"""The Pareto fronts, and the advice of the documentation that follows from them."""

import re

import pytest
from support.results import ROOT, committed

import scorefn as sf
from benchmarks._registry import SUITES
from benchmarks._reporting import fronts

RANKINGS = {
    ranking.title: (name, ranking) for name, suite in SUITES.items() for ranking in suite.rankings
}
PAGE = (ROOT / "docs" / "which_estimator.md").read_text()


def row(name: str, time_us: float, variance: float) -> dict[str, object]:
    return {"estimator": name, "time_us": time_us, "variance": variance}


def test_the_front_keeps_what_nothing_beats_in_time_and_variance() -> None:
    kept = [row("fast", 1.0, 9.0), row("middle", 2.0, 3.0), row("slow", 5.0, 1.0)]
    beaten = [row("equal", 2.0, 4.0), row("slower", 3.0, 3.0), row("worse", 6.0, 2.0)]
    assert fronts.front([*beaten, *reversed(kept)]) == kept
    found = {name["estimator"]: fronts.excess([*kept, *beaten], name) for name in [*kept, *beaten]}
    assert found == {"fast": 1, "middle": 1, "slow": 1, "equal": 4 / 3, "slower": 1, "worse": 2}


@pytest.mark.parametrize("title", RANKINGS)
def test_advised_estimators_are_on_the_front(title: str) -> None:
    """On it, or above it by no more than the factor that stands beside the name."""
    name, ranking = RANKINGS[title]
    rows = ranking.rows(committed(name))
    assert len(rows) >= 4
    found = {row["estimator"]: fronts.excess(rows, row) for row in rows}
    for advised, most in ranking.advised.items():
        assert found[advised] <= most, f"{advised} is {found[advised]:.2f} times above the front"
        assert most <= 1.05


@pytest.mark.parametrize("title", RANKINGS)
def test_the_page_advises_them_and_no_other_estimator_of_the_library_is_far_better(
    title: str,
) -> None:
    """The least variance x time is that of an advised one, or within a factor of 2 of one."""
    name, ranking = RANKINGS[title]
    rows = ranking.rows(committed(name))
    products = {row["estimator"]: row["variance_x_time"] for row in rows}
    best = min(products[advised] for advised in ranking.advised)
    assert best <= 2 * min(products.values())
    for advised in ranking.advised:
        word = re.match(r"\w+", advised)[0]
        assert hasattr(sf, word)
        assert f"`{word}" in PAGE or f"({word}" in PAGE
