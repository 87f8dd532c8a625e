"""The page for contributors: its example estimator works, its commands refer to what exists."""

import doctest
import importlib.metadata
import importlib.util
import re
import sys
import tomllib
import types
from pathlib import Path

import pytest
from support.exact import exact_derivatives
from support.registry import problem

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
RECIPE = re.compile(r"^([\w-]+)[^:=\n]*:\n((?: {4}.*\n)+)", re.MULTILINE)
RECIPES = dict(RECIPE.findall((ROOT / "justfile").read_text()))
del RECIPES["default"]  # it lists the others
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


MODULE = "scorefn.estimators._discrete.self_critical"
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def load(source, monkeypatch):
    """The module of the example estimator, as if it lay where the page says."""
    module = types.ModuleType(MODULE)
    monkeypatch.setitem(sys.modules, MODULE, module)
    exec(source, vars(module))
    return module


def run(source):
    scope = {}
    exec(source, scope)
    return scope


@pytest.mark.usefixtures("x64")
def test_the_example_estimator_passes_its_exact_tests(monkeypatch):
    module = load(CODE[0], monkeypatch)
    tests = [value for name, value in run(CODE[1]).items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()
    entry = run(f"from {MODULE} import SelfCritical\n{CODE[2]}")["entry"]
    assert entry.build(problem("bernoulli")) == module.SelfCritical()

    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(module.SelfCritical, globs=vars(module)):
        runner.run(example)
    assert runner.summarize(verbose=False) == (0, 3)


@pytest.mark.usefixtures("x64")
def test_the_exact_test_notices_a_baseline_that_has_seen_its_sample(monkeypatch):
    broken = CODE[0].replace("attach(c, baseline=m)", "attach(c, baseline=c)")
    assert broken != CODE[0]
    module = load(broken, monkeypatch)
    mean, _ = run(CODE[1])["moments"](module.SelfCritical(), 1)
    exact = exact_derivatives(problem("bernoulli"), 2)
    assert abs(mean[0] - exact[0]).max() < 1e-12 < 1e-2 < abs(mean[1] - exact[1]).max()


def test_the_table_of_commands_is_the_justfile():
    listed = set(re.findall(r"^\| `just ([\w-]+)", PAGE, re.MULTILINE))
    assert listed == RECIPES.keys()
    assert len(listed) >= 6


@pytest.mark.parametrize("recipe", RECIPES)
def test_commands_refer_to_what_exists(recipe):
    for module in re.findall(r"(?<!python3) -m ([a-z_]\w*)", RECIPES[recipe]):
        assert importlib.util.find_spec(module), module
    for path in re.findall(r"[\w/]+\.py", RECIPES[recipe]):
        assert (ROOT / path).exists(), path
    for extra in re.findall(r"\.\[(\w+)\]", RECIPES[recipe]):
        assert extra in EXTRAS
    # CI runs the README's command.
    if recipe == "test":
        tested = RECIPES[recipe].replace("{{python}}", ".venv/bin/python")
        assert tested.replace(" {{options}}", "").strip() in (ROOT / "README.md").read_text()


def test_hooks_run_tools_that_the_test_extra_installs():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    tools = re.findall(r"entry: \.venv/bin/python -m (\w+)", hooks)
    assert tools == ["ruff", "ruff", "mypy"]
    pinned = [re.fullmatch(r"(\w+)==[\d.]+", asked) for asked in EXTRAS["test"]]
    assert set(tools) == {found[1] for found in pinned if found}
    assert hooks.count("- id:") == hooks.count("language: system") == len(tools)


def test_the_oldest_jax_that_is_allowed_is_tested():
    allowed = [re.fullmatch(r"jax(?:lib)?>=(.*)", asked) for asked in PROJECT["dependencies"]]
    (oldest,) = {found[1] for found in allowed if found}
    tested = re.findall(
        r"jax==([\d.]+) jaxlib==([\d.]+)", (ROOT / ".github/workflows/ci.yml").read_text()
    )
    assert tested == [(f"{oldest}.0",) * 2]


LICENSE = re.compile(r"^\| ([\w.-]+) \| ([\w, -]+) \|$", re.MULTILINE)
LICENSES = {
    package: license
    for license, packages in LICENSE.findall(PAGE.partition("| license | packages |")[2])
    for package in packages.split(", ")
}


def test_every_package_that_is_used_has_a_license_on_the_page():
    asked = [*PROJECT["dependencies"], *(each for extra in EXTRAS.values() for each in extra)]
    names = {re.match(r"[\w-]+", each)[0] for each in asked} - {"scorefn"}
    assert set(LICENSES) == names


@pytest.mark.parametrize("package", LICENSES)
def test_a_license_is_that_of_the_installed_package(package):
    try:
        metadata = importlib.metadata.metadata(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("not installed here")
    said = [metadata.get(name, "") for name in ("License-Expression", "License")]
    said += metadata.get_all("Classifier", [])
    words = {"AGPL-3.0": "Affero", "Apache-2.0": "Apache", "MPL-2.0": "MPL", "PSF": "matplotlib"}
    word = words.get(LICENSES[package], LICENSES[package].split("-")[0])
    assert any(word in each for each in said if each), said
