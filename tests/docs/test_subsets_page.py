"""The page on subsets: its code runs, and its table is what the estimators do."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import scorefn as sf

PAGE = (Path(__file__).parents[2] / "docs" / "subsets.md").read_text()


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The names that the code of the page defines."""
    scope: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, scope)
    return scope


@pytest.mark.slow
def test_the_table_is_what_the_code_computes(page: dict[str, Any]) -> None:
    shown = re.findall(r"^\| (\w.*?) \| (\d\.\d+) \| ([\d.]*) ?\|$", PAGE, re.MULTILINE)
    assert len(shown) == len(page["rows"]) == 6
    size = np.linalg.norm
    for (name, bias, spread), (key, row) in zip(shown, page["rows"].items(), strict=True):
        mean, variance, exact = row
        assert name == key
        np.testing.assert_allclose(float(bias), size(mean - exact) / size(exact), atol=0.006)
        if variance is not None:
            wanted = float(np.sqrt(variance)) / size(exact)
            np.testing.assert_allclose(float(spread), wanted, atol=0.006)


def test_top_k_has_no_gradient_and_the_right_calls_have_the_exact_one(page: dict[str, Any]) -> None:
    np.testing.assert_array_equal(page["lost"], 0)
    logits, key = page["logits"], jax.random.key(1)
    for name, exact, variance in (
        ("loss", "exact", 1),
        ("smooth_loss", "exact", 2),
        ("ranked_loss", "ranked_exact", None),
    ):
        report = sf.check_unbiased(page[name], logits, key, exact=page[exact], num_repeats=1000)
        assert report.passed, name
        # With 8 draws leave-one-out has less than a quarter of the variance with 2.
        if variance is not None:
            of_two = list(page["rows"].values())[variance - 1][1]
            spread = 1000 * np.sum(np.square(report.standard_error))
            assert 0.1 * of_two < spread < 0.25 * of_two, name
