"""What `import scorefn` costs and shows: jax and nothing heavier, and the public names."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import scorefn as sf

PACKAGE = Path(sf.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
HEAVY = [
    "distrax",
    "equinox",
    "flax",
    "flowjax",
    "matplotlib",
    "numpyro",
    "optax",
    "pandas",
    "scipy.stats",
    "sklearn",
    "tensorflow_probability",
]
# A name that comes or goes is a decision: it is written here, in the documents and the changelog.
PUBLIC = """
ARM ARMS Antithetic Baseline Bernoulli BitFlip Categorical Comparison ConstantBaseline
ControlVariate CoupledCategorical DatumSurrogates DeltaMethod Deterministic DisARM Distribution
DoubleCV Enumerate Estimator EvolutionStrategies FittedControlVariate ForwardGradient GO Given
GradientSNR GumbelRao GumbelSoftmax ImportanceWeighted LAX LearnedBaseline LeaveOneOut
LocalExpectation MeasureValued MinibatchControlVariate MovingAverage NormalMixture OneHotCategorical
OptimalBaseline Pathwise QuadraticSurrogate QuasiMonteCarlo REBAR RELAX RODEO
RankedEvolutionStrategies ReinMax SPSA ScoreFunction SelfNormalized ShrunkLeaveOneOut
StochasticSumAndSample StraightThrough StraightThroughGumbelSoftmax Stratified SumAndSample
UnorderedSet attach_score check_score check_unbiased compare cost differentiable exp_of_expectation
expectation forward_recursion implicit_reparameterization leave_one_out moments
product_of_expectations program rollout sample squared_gradient attach_scores SampleStatistic cvar
entropic_risk expected_max resample
debiased random_level Subset PlackettLuce MarkovChain
""".split()
# Former names, which stay for one release.
ALIASES = {"SelfNormalised": "SelfNormalized", "surrogate": "attach_scores"}
ROOMS = {"diagnostics", "distributions", "estimators", "policy", "vi"}


def exported() -> dict[str, Any]:
    public = {name: value for name, value in vars(sf).items() if not name.startswith("_")}
    return {name: value for name, value in public.items() if not inspect.ismodule(value)}


def fresh(code: str) -> list[str]:
    """What a new interpreter prints, by words."""
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(
        command, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_import_brings_jax_and_nothing_heavier() -> None:
    loaded = fresh("import scorefn, sys; print(*sys.modules)")
    assert "jax" in loaded
    assert "scorefn.estimators" in loaded
    assert not set(HEAVY) & set(loaded)


def test_import_brings_no_package_that_jax_does_not() -> None:
    code = """
import jax, sys
before = set(sys.modules)
import scorefn
print(*set(sys.modules) - before)
"""
    packages = {name.split(".")[0] for name in fresh(code)}
    assert packages - sys.stdlib_module_names - {"jax", "jaxlib", "numpy"} == {"scorefn"}


def test_import_touches_no_device() -> None:
    # A backend that starts on import fixes the platform and the number of devices for the user.
    code = """
import scorefn, jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 3)
print(len(jax.devices()))
"""
    assert fresh(code) == ["3"]


@pytest.mark.parametrize(
    "source", SOURCES, ids=[str(path.relative_to(PACKAGE)) for path in SOURCES]
)
def test_sources_import_public_jax_only(source: Path) -> None:
    text = source.read_text()
    assert "jax._src" not in text
    assert "jaxlib" not in text
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [] if node.level else [node.module or ""]
        else:
            continue
        packages = {name.split(".")[0] for name in names}
        assert packages <= sys.stdlib_module_names | {"jax", "numpy", "scipy", "scorefn"}


def test_there_are_sources() -> None:
    assert {"_score.py", "_expectation.py", "_guard.py"} <= {path.name for path in SOURCES}


def test_public_names() -> None:
    assert sorted(exported()) == sorted([*PUBLIC, *ALIASES])
    assert all(getattr(sf, alias) is getattr(sf, name) for alias, name in ALIASES.items())
    assert all(inspect.ismodule(getattr(sf, room)) for room in ROOMS)
    assert sf.__version__.count(".") == 2


def test_the_version_is_that_of_the_changelog_and_of_the_citation() -> None:
    changelog, citation = (
        (Path(__file__).parents[2] / name).read_text() for name in ("CHANGELOG.md", "CITATION.cff")
    )
    version, date = re.findall(r"^## (\S+) - (\S+)$", changelog, re.MULTILINE)[0]
    assert version == sf.__version__
    assert f"\nversion: {version}\ndate-released: {date}\n" in citation


def test_the_package_is_a_list_of_names() -> None:
    caption, *statements = ast.parse((PACKAGE / "__init__.py").read_text()).body
    assert isinstance(caption, ast.Expr)
    *imports, version = statements
    assert isinstance(version, ast.Assign)
    for statement in imports:
        assert isinstance(statement, ast.ImportFrom)
        assert statement.level == 1
        assert all(alias.name == alias.asname for alias in statement.names)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_objects_are_documented(name: str) -> None:
    public = getattr(sf, name)
    text = inspect.getdoc(public)
    assert text
    assert text.splitlines()[0].endswith((".", "?", ":"))
    assert public.__name__ == name
    if not inspect.isabstract(public):
        example = text.partition("\nExample:\n")[2]
        assert ">>> " in example


def test_former_keywords_work_for_one_release() -> None:
    def value(**center: Any) -> Any:
        return sf.exp_of_expectation(lambda _: 0.5, jax.random.key(0), num_estimates=24, **center)

    assert value(centre=20.0) == value(center=20.0) != value()
    one = jnp.ones(1)
    new = sf.QuadraticSurrogate(sf.Pathwise(), one, one, center=2 * one)
    old: Any = sf.QuadraticSurrogate
    assert old(sf.Pathwise(), one, one, centre=2 * one).center == new.center
    stored: Any = sf.DatumSurrogates.zeros(1, (1,))
    again = stored.refresh(jnp.cos, centre=one, batch=jnp.zeros(1, int))
    assert again.slope == stored.refresh(jnp.cos, one, jnp.zeros(1, int)).slope


def test_help_shows_short_types() -> None:
    rooms = [sf, *(getattr(sf, room) for room in ROOMS)]
    functions = {
        f"{room.__name__}.{name}": value
        for room in rooms
        for name, value in vars(room).items()
        if not name.startswith("_") and callable(value)
    }
    long = [
        name
        for name, value in functions.items()
        if any(part in str(inspect.signature(value)) for part in ("jaxlib", "_src", "Union["))
    ]
    assert len(functions) > 100
    assert long == []
