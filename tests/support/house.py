"""Figures of a package's structure: rooms, floors, arrows between rooms, and sizes.

    python tests/support/house.py [package ...]

A room is a module or a folder directly inside a package; an arrow is a pair of rooms of which one
imports the other; floors are counted along the longest path of arrows. Lines of code are lines that
are not blank, not a comment and not part of a docstring.
"""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import mean, median

DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef
Name = tuple[str, ...]


def name_of(path: Path, root: Path) -> Name:
    """The dotted name of a file or folder below root, in parts."""
    names = path.relative_to(root).with_suffix("").parts
    return names[:-1] if names[-1] == "__init__" else names


def imported(path: Path, root: Path) -> set[Name]:
    """The modules below root that a file imports, at any depth of its code."""
    found: set[Name] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(root).parts[: -node.level] if node.level else ()
            module = (*above, *(node.module.split(".") if node.module else ()))
            for inner in ((*module, alias.name) for alias in node.names):
                file = root.joinpath(*inner)
                found.add(inner if file.is_dir() or file.with_suffix(".py").exists() else module)
    return {name for name in found if (root / name[0]).is_dir()}


def arrows(package: Path, root: Path) -> dict[str, set[str]]:
    """For each room of a package the other rooms that it imports."""
    inside, graph = name_of(package, root), {}
    n = len(inside)
    for path in sorted(package.rglob("*.py")):
        for room in name_of(path, root)[n : n + 1]:
            others = {name[n] for name in imported(path, root) if name[:n] == inside != name}
            graph.setdefault(room, set()).update(others - {room})
    return graph


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each room, from 0; a circle of imports raises ``graphlib.CycleError``."""
    floor: dict[str, int] = {}
    for room in TopologicalSorter(graph).static_order():
        floor[room] = 1 + max((floor[other] for other in graph.get(room, ())), default=-1)
    return floor


def figures(package: Path) -> dict[str, str]:
    """The figures of one package, by name."""
    root = next(p for p in package.parents if not (p / "__init__.py").exists())
    code, docstrings, functions, modules = [], 0, [], []
    for path in sorted(package.rglob("*.py")):
        text, documented = path.read_text(), set()
        nodes = list(ast.walk(ast.parse(text)))
        for node in nodes:
            if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
                documented |= {*range(node.body[0].lineno, node.body[0].end_lineno + 1)}
        bare = {n for n, line in enumerate(text.splitlines(), 1) if line.strip()[:1] in ("", "#")}
        spans = [(n.lineno, n.end_lineno + 1) for n in nodes if isinstance(n, ast.FunctionDef)]
        functions += [len({*range(*span)} - bare - documented) for span in spans]
        code.append(len(text.splitlines()) - len(bare | documented))
        docstrings += len(documented)
        if path.name != "__init__.py":
            modules.append(len(imported(path, root)))
    graph = arrows(package, root)
    return {
        "rooms, floors": f"{len(graph)}, {1 + max(floors(graph).values())}",
        "arrows between rooms": f"{sum(map(len, graph.values()))}",
        "files, lines of code": f"{len(code)}, {sum(code):,}",
        "lines of code in a file: median, mean": f"{median(code):.0f}, {mean(code):.0f}",
        "docstring lines for each line of code": f"{docstrings / sum(code):.2f}",
        "functions over 40, over 60 lines": f"{sum(n > 40 for n in functions)}, "
        f"{sum(n > 60 for n in functions)}",
        "own modules that a file imports: median, most": f"{median(modules):.0f}, {max(modules)}",
    }


if __name__ == "__main__":
    columns = [figures(Path(name).resolve()) for name in sys.argv[1:] or ["scorefn"]]
    for name in columns[0]:
        print("|", name, "|", " | ".join(column[name] for column in columns), "|")
