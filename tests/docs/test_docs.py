"""What the documents say: the README's code runs, the generated tables are those of the code."""

import importlib.util
import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.suites.policy import recipes as policy_recipes
from benchmarks.suites.policy.recipes import RECIPES

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("build", ROOT / "docs" / "build.py")
build = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(build)


def test_the_code_of_the_readme_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 2
    scope = {}
    for block in blocks:
        exec(block, scope)
    assert capsys.readouterr().out == "-0.14\n"
    assert set(scope["gradients"]) == {"logits", "scale"}


def test_the_table_of_estimators_is_that_of_the_code():
    text = build.PAGE.read_text()
    assert "`ScoreFunction`" in build.table()
    assert build.page(text) == text, "run python docs/build.py"
    assert build.page(text.replace("`Pathwise`", "`Pathwize`", 1)) == text


def test_the_flowchart_is_that_of_the_code():
    chart = build.chart()
    assert build.CHART.read_text() == chart, "run python docs/build.py"
    names = re.findall(r'class="(?:un)?biased">(\w+)</text>', chart)
    assert names == [name for row in build.questions().values() for name in row]
    assert 'class="biased">ReinMax<' in chart


def test_the_code_of_the_policy_page_runs_and_its_recipes_are_those_that_are_tested():
    text = (ROOT / "docs" / "policy.md").read_text()
    scope = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], scope)
    assert all(jnp.any(gradient != 0) for gradient in scope["gradients"])
    code = text.split("<!-- code:recipes -->")[1].split("<!-- /code -->")[0]
    for recipe in (*RECIPES.values(), policy_recipes._advantage):
        assert inspect.getsource(recipe) in code
    assert code.count("\ndef ") == len(RECIPES) + 1


def test_the_code_of_the_scaling_page_runs_and_its_ways_agree():
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(), re.DOTALL
    )
    assert len(blocks) == 3
    scope = {}
    for block in blocks:
        exec(block, scope)
    key, devices = scope["key"], jax.device_count()
    assert devices == 8

    def mean_of_estimates(mean):
        keys = [jax.random.fold_in(key, i) for i in range(devices)]
        return jnp.mean(
            jax.vmap(lambda key: scope["loss"](mean, key, num_samples=1024))(jnp.stack(keys))
        )

    apart = jax.jit(jax.grad(mean_of_estimates))(scope["mean"])
    whole = jax.jit(jax.grad(scope["loss"]), static_argnames="num_samples")
    together = whole(scope["mean"], key, num_samples=8192)
    np.testing.assert_allclose(scope["gradient"], together, rtol=0, atol=2e-5)
    np.testing.assert_allclose(scope["same_cost"], apart, rtol=0, atol=2e-5)
    np.testing.assert_allclose(scope["the_same"], apart, rtol=0, atol=2e-5)


def test_the_code_of_the_advice_on_estimators_runs(capsys):
    text = (ROOT / "docs" / "which_estimator.md").read_text()
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, scope)
    found, shown = scope["found"], capsys.readouterr().out.splitlines()
    assert shown[0].split() == "estimator variance ± time, µs var × µs evals snr z".split()
    assert found.rows[-1].error.startswith("TypeError: Pathwise")
    assert found.best(max_evaluations=4) == "set of 4" == shown[-2]
    # The numbers that the page shows: 5 standard errors of either run, and the digits shown.
    for name, evaluations in {"set of 4": 4, "leave-one-out": 4}.items():
        line = re.search(rf"^    {name} +(\S+)", text, re.MULTILINE)
        row = found[name]
        assert abs(float(line[1]) - row.variance) < 5 * row.variance_se + 0.005
        assert row.evaluations == evaluations
    assert float(shown[-1]) > 0


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{page.relative_to(ROOT / 'docs')}" for page in sorted((ROOT / "docs").rglob("*.md"))),
]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    page = ROOT / name
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", text):
        assert (page.parent / link).exists(), link


def test_the_first_page_leads_to_every_page():
    first = (ROOT / "docs" / "README.md").read_text()
    listed = re.findall(r"^- \[[^\]]*\]\((\w+\.md)\)", first, re.MULTILINE)
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert sorted(listed) == sorted(pages)
