"""The layer contract: rooms of scorefn/ look down only, and a family imports no other family."""

import ast
from pathlib import Path

import pytest

import scorefn

PACKAGE = Path(scorefn.__file__).parent
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
SHARED = {"_base", "_guard", "_factor_axes"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def parts(path: Path) -> tuple[str, ...]:
    """The dotted name of a file below scorefn, in parts."""
    names = path.relative_to(PACKAGE).with_suffix("").parts
    return names[:-1] if names[-1] == "__init__" else names


def imported(path: Path) -> set[tuple[str, ...]]:
    """The modules of scorefn that a file imports, at any depth of its code."""
    found = set()
    package = path.relative_to(PACKAGE).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {tuple(name[1:]) for name in names if name[0] == "scorefn"}
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                module = (*package[: len(package) - node.level + 1], *module)
            elif module[0] == "scorefn":
                module = module[1:]
            else:
                continue
            names = [alias.name for alias in node.names]
            is_package = (PACKAGE / Path(*module)).is_dir()
            found |= {(*module, name) for name in names} if is_package else {module}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: ".".join(parts(path)))
def test_rooms_look_down_and_families_stay_apart(path: Path) -> None:
    room, *inside = parts(path)
    for other, *target in imported(path):
        if other != room:
            assert FLOOR[other] < FLOOR[room], f"{room} must not import {other}"
        elif room == "estimators" and len(inside) > 1:
            family = inside[0]
            assert target[0] in {family, *SHARED}, f"family {family} must not import {target[0]}"


def test_shared_files_of_the_estimators_import_no_family() -> None:
    for name in SHARED:
        targets = {t[1] for t in imported(PACKAGE / "estimators" / f"{name}.py") if len(t) > 1}
        assert not any((PACKAGE / "estimators" / target).is_dir() for target in targets)


def test_every_room_has_a_floor() -> None:
    """A new room is placed here on purpose."""
    assert {parts(path)[0] for path in FILES} == set(FLOOR)
