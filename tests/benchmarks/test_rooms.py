"""The layer contract of the benchmarks: who may import whom."""

import ast
from pathlib import Path

import pytest

import benchmarks

PACKAGE = Path(benchmarks.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
# Each room imports those of lower floors only. Suites are above all generic rooms; the registry
# and the command line are above the suites.
FLOORS = [
    {"_suite", "_store"},
    {"_measuring", "_reporting"},
    {"_models", "_packages", "_running"},
    {"suites"},
    {"_registry"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def parts(path: Path) -> tuple[str, ...]:
    return path.relative_to(PACKAGE).with_suffix("").parts


def imported(path: Path) -> set[tuple[str, ...]]:
    """The modules of benchmarks that a file imports, at any depth of its code."""
    package, found = parts(path)[:-1], set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
            found |= {name[1:] for name in names if name[0] == "benchmarks"}
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                module = (*package[: len(package) - node.level + 1], *module)
            elif module[0] == "benchmarks":
                module = module[1:]
            else:
                continue
            is_package = (PACKAGE / Path(*module)).is_dir()
            names = [alias.name for alias in node.names]
            found |= {(*module, name) for name in names} if is_package else {module}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: ".".join(parts(path)))
def test_rooms_look_down_and_suites_stay_apart(path: Path) -> None:
    room, *inside = parts(path)
    for other, *target in imported(path):
        if other != room:
            assert FLOOR[other] < FLOOR[room], f"{room} must not import {other}"
        elif room == "suites":
            assert target[0] == inside[0], f"suite {inside[0]} must not import {target[0]}"


def test_every_room_has_a_floor_and_every_suite_a_folder() -> None:
    rooms = {parts(path)[0] for path in FILES}
    assert rooms == set(FLOOR)
    folders = {path.parent.name for path in PACKAGE.glob("suites/*/suite.py")}
    assert folders == {path.name for path in (PACKAGE / "suites").iterdir() if path.is_dir()} - {
        "__pycache__"
    }
