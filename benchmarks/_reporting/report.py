"""The report: all results of the suites, as one page of markdown, and their figures."""

import errno
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks import _store
from benchmarks._suite import Results, Suite, Table
from scorefn.diagnostics._compare.files import write as write_file

from . import fronts, tables
from .plots import png_files

TITLE = "Results of the benchmarks"
ABOUT = """\
`python -m benchmarks report` makes this page and its figures from the results in
`benchmarks/results`; `python -m benchmarks all --update` measures them anew. Variances are of one
gradient, summed over the components of a parameter; z is a difference in standard errors; times are
microseconds for one gradient, of many one after the other, or of many at once in `peers`.
"""


FRONTS = """\
The variance and the time of one gradient by every unbiased estimator, for each class of problems.
An estimator is on the front if none has less variance in at most its time; "above the front" is the
ratio of its variance to the least one in at most its time.
"""


def page(
    suites: Mapping[str, Suite],
    results: Mapping[str, Results],
    figures: Sequence[str],
    folder: str,
) -> str:
    """The page, in markdown.

    Args:
        suites: all suites by name.
        results: the results by their place: ``NAME``, or ``gpu/NAME``.
        figures: the paths of the PNG files, below `folder`.
        folder: the path from the report to the figures.
    """
    contents, sections = "", []
    for place, found in results.items():
        suite = suites[place.removeprefix(tables.ON_ACCELERATOR)]
        contents += f"- [{_title(place)}](#{_title(place)}): {suite.summary}\n"
        sections.append(_section(suite, place, found, figures, folder))
    if "fronts.png" in figures:
        made = fronts.table(suites, results)
        contents += "- [fronts](#fronts): variance against time, for each class of problems\n"
        sections.append(f"## fronts\n\n{FRONTS}\n{made}\n![fronts]({folder}/fronts.png)\n")
    return "\n".join([f"# {TITLE}\n", ABOUT, contents, *sections])


def draw(suites: Mapping[str, Suite], results: Path) -> None:
    """Draws the figures of all results in a directory again, and the Pareto fronts."""
    found = _read(suites, results)
    for place, one in found.items():
        suite = suites[place.removeprefix(tables.ON_ACCELERATOR)]
        _write_figures(partial(suite.figures, one), (results / place).parent)
    if any(fronts.measured(suites, found)):
        _write_figures(lambda: {"fronts": fronts.figure(suites, found)}, results)


def _write_figures(figures: Callable[[], Mapping[str, Figure]], folder: Path) -> None:
    for name, content in png_files(figures).items():
        write_file(folder / name, content)


def _read(suites: Mapping[str, Suite], results: Path) -> dict[str, Results]:
    """The results in a directory by their place: ``NAME``, or ``gpu/NAME``."""
    places = [*suites, *(f"{tables.ON_ACCELERATOR}{name}" for name in suites)]
    return {
        place: _store.read(path) for place in places if (path := results / f"{place}.json").exists()
    }


def write(
    suites: Mapping[str, Suite], results: Path, out: Path, documents: Sequence[Path] = ()
) -> list[str]:
    """Writes the report of the results in one directory to another.

    Args:
        suites: all suites by name.
        results: the directory of the results.
        out: the directory of the report.
        documents: the files whose tables are made anew.

    Returns:
        The names of the suites without results, which the report leaves out.

    Raises:
        OSError: there are no results at all, or the report cannot be written.
    """
    found = _read(suites, results)
    if not found:
        raise OSError(errno.ENOENT, f"there are no results in {results}")
    paths = [*sorted(results.glob("*.png")), *sorted(results.glob("gpu/*.png"))]
    figures = [path.relative_to(results).as_posix() for path in paths]
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(os.path.relpath(results.resolve(), out.resolve())).as_posix()
    write_file(out / "README.md", page(suites, found, figures, folder))
    made = tables.in_markdown_of(suites, found)
    for document in documents:
        write_file(document, tables.filled(document.read_text(encoding="utf-8"), made))
    return [name for name in suites if name not in found]


def _title(place: str) -> str:
    return place.replace("/", "-")


def _section(
    suite: Suite, place: str, results: Results, figures: Sequence[str], folder: str
) -> str:
    versions = ", ".join(f"{what} {version}" for what, version in results["versions"].items())
    about = f"`{results['command']}`, on {results['device']}, with {versions}."
    # A suite that prints a table of its own is not about variances.
    if suite.terminal is None:
        about += f" Of all {len(results['rows'])} rows: {tables.worst(results['rows'])}."
    parts = [f"## {_title(place)}\n", f"{suite.summary[0].upper()}{suite.summary[1:]}.\n"]
    parts.append(f"{about}\n")
    own = tables.tables_of(suite, place)
    if suite.terminal is None and not own:
        shown = tables.shown(suite, results)
        parts += [f"Some of them, {shown.title}:\n", tables.in_markdown(shown)]
    for table in own.values():
        parts += _titled(table, results)
    for figure in figures:
        stem = figure.removesuffix(".png")
        if stem == place or stem.startswith(f"{place}_"):
            parts.append(f"![{_title(stem).replace('_', ' ')}]({folder}/{figure})\n")
    if suite.claims is not None and place == suite.name:
        parts += _titled(suite.claims, results)
    return "\n".join(parts)


def _titled(table: Table, results: Results) -> list[str]:
    return [f"{(inspect.getdoc(table) or '').splitlines()[0]}\n", table(results)]
