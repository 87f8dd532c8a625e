"""The layer contract: rooms of scorefn/ look down only, and a family imports no other family."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from support.house import imported, name_of

import scorefn

PACKAGE = Path(scorefn.__file__).parent
ROOT = PACKAGE.parent  # The repository, or where the wheel is installed.
REPOSITORY = Path(__file__).parents[2]
FLOORS = [
    {"_core"},
    {"distributions", "_score", "policy"},
    {"_batching", "_baselines"},
    {"estimators"},
    {"_expectation", "_nonlinear", "programs", "diagnostics"},
    {"vi"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# What every family of estimators may import, besides its own files.
SHARED = {"_base", "_guard", "_score_guard", "_cost_guard", "_lost_elements", "_factor_axes"}
FAMILIES = {path.parent.name for path in PACKAGE.glob("estimators/*/__init__.py")}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
every_file = pytest.mark.parametrize("path", FILES, ids=lambda p: ".".join(name_of(p, PACKAGE)))

# Classes of other libraries, whole names or their beginnings, and attributes of their objects.
FOREIGN = re.compile(
    r"(Independent|Expanded|Transformed|Joint|Masked|Mixture|Multivariate|Cauchy|Gumbel|Laplace"
    r"|Logistic|StudentT|Uniform|TruncatedNormal|VonMises|Beta|Dirichlet)[A-Z]?\w*|\w+(Probs|Logits)"
    r"|((distrax|flowjax|numpyro|tfp|tensorflow_probability)\.\w+)"
    r"|base_dist|\w+_distribution|(has_)?enumerate_support|(batch|event)_shape|_logits|has_rsample"
)


@every_file
def test_rooms_look_down_and_families_stay_apart(path: Path) -> None:
    room, *inside = name_of(path, PACKAGE)
    for package, *target in imported(path, ROOT):
        if package != "scorefn":
            assert not (REPOSITORY / package).is_dir(), package
            continue
        assert target, "a room imports other rooms, not the names of the package"
        other = target[0]
        if other != room:
            assert FLOOR[other] < FLOOR[room], f"{room} must not import {other}"
        elif room == "estimators" and inside:
            imports = ".".join(target[1:2])
            in_family = inside[0] in FAMILIES
            refused = {"", *FAMILIES}
            allowed = imports in {inside[0], *SHARED} if in_family else imports not in refused
            assert allowed, f"{inside[0]} must not import {imports or 'its package'}"


@every_file
def test_imports_are_relative_inside_a_folder_and_absolute_across(path: Path) -> None:
    folder = ".".join(["scorefn", *path.relative_to(PACKAGE).parent.parts])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level <= 1, "climb by an absolute import: it shows the room"
            ours = node.level or (node.module or "").split(".")[0] == "scorefn"
            is_module = [(path.parent / f"{alias.name}.py").exists() for alias in node.names]
            private = [alias.name for alias in node.names if alias.name.startswith("_")]
            assert not (ours and private and not all(is_module)), f"{private} are private"
            if folder != "scorefn":
                assert not f"{node.module}.".startswith(f"{folder}."), "write a relative import"


def test_files_import_one_another_in_no_circle() -> None:
    graph = {name_of(path, ROOT): imported(path, ROOT) for path in FILES}
    # A package imports its files, which may name it to import one of its other files.
    files = {name: targets for name, targets in graph.items() if not is_package(name)}
    assert len([*TopologicalSorter(files).static_order()]) >= len(files) > 90


def is_package(name: tuple[str, ...]) -> bool:
    return (ROOT.joinpath(*name)).is_dir()


def test_every_room_has_a_floor() -> None:
    """A new room is placed here on purpose."""
    assert {name_of(path, PACKAGE)[0] for path in FILES} == set(FLOOR)
    assert len(FAMILIES) >= 6
    assert all((PACKAGE / "estimators" / f"{name}.py").exists() for name in SHARED)


def test_the_pages_show_these_rooms() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    tree = re.findall(r"^      (\w+)(?:/|\.py) +(\d) ", page, re.MULTILINE)
    assert {room: int(floor) for room, floor in tree} == FLOOR
    families = re.findall(r"^        (\w+)/ ", page, re.MULTILINE)
    assert set(families) == FAMILIES
    for name in re.findall(r"[\w/]+\.py\b", page):
        folders = (REPOSITORY, PACKAGE, PACKAGE / "estimators")
        assert any((folder / name).exists() for folder in folders), name
    table = (REPOSITORY / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (\d) \| (.*) \|$", table, re.MULTILINE)
    shown = {room: int(floor) for floor, rooms in rows for room in re.findall(r"`(\w+)`", rooms)}
    assert shown == FLOOR
    for name in SHARED:
        assert f"        {name}.py " in page
        assert f"`{name}`" in table


def foreign(text: str) -> set[str]:
    """Names of other libraries' classes and attributes in code; docstrings and prose are free."""
    nodes = [*ast.walk(ast.parse(text))]
    names = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return {name for name in names if FOREIGN.fullmatch(name)}


def test_only_the_interop_room_names_classes_of_other_libraries() -> None:
    found = {str(path.relative_to(PACKAGE)): foreign(path.read_text()) for path in FILES}
    interop = {name for name in found if name.startswith("distributions/_interop/")}
    assert not {name: found[name] for name in found.keys() - interop if found[name]}
    assert "distrax.Normal" in set.union(*(found[name] for name in interop))
    assert foreign('x = "distrax.Normal"') == {"distrax.Normal"}
    assert foreign('"ScoreFunction fits Independent ones"; "Normal"; x.base_dist') == {"base_dist"}
