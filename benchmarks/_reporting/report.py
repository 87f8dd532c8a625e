"""The report: what the committed results say, as one page of markdown and one of HTML."""

import errno
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import _store
from benchmarks._registry import SUITES
from benchmarks._suite import Results, Suite

from . import tables
from .html import html

TITLE = "Results of the benchmarks"
ABOUT = """\
Made from the results in `benchmarks/results` by `python -m benchmarks report`;
`python -m benchmarks all` measures them anew. Variances are of one gradient, summed over the
components of a parameter; z is a difference in standard errors; times are microseconds for one
gradient, of many one after the other, or of many at once in `peers`.
"""


def pages(
    results: Mapping[str, Results], figures: Mapping[str, bytes], folder: str
) -> dict[str, str]:
    """The two files by name.

    Args:
        results: of the suites that the report speaks of, and of `ON_GPU`, by name.
        figures: the PNG files, by their path below `folder`.
        folder: where these are, seen from the report.
    """
    sections = [_section(name, results[name], figures, folder) for name in results]
    contents = "".join(
        f"- [{_title(name)}](#{_title(name)}): {_suite(name).summary}\n" for name in results
    )
    text = "\n".join([f"# {TITLE}\n", ABOUT, contents, *sections])
    sources = {f"{folder}/{name}": png for name, png in figures.items()}
    return {"README.md": text, "index.html": html(text, TITLE, sources)}


def write(results: Path, out: Path, documents: Sequence[Path] = ()) -> list[str]:
    """Writes the report of the results in one directory to another.

    Args:
        results: the directory of the results.
        out: that of the report.
        documents: files whose tables are made anew.

    Returns:
        The suites of which there are no results yet, which the report leaves out.

    Raises:
        OSError: there are no results at all, or the report cannot be written.
    """
    found = {
        name: _store.read(path)
        for name in (*SUITES, tables.ON_GPU)
        if (path := results / f"{name}.json").exists()
    }
    if not found:
        raise OSError(errno.ENOENT, f"there are no results in {results}")
    paths = [*sorted(results.glob("*.png")), *sorted(results.glob("gpu/*.png"))]
    figures = {path.relative_to(results).as_posix(): path.read_bytes() for path in paths}
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(os.path.relpath(results.resolve(), out.resolve())).as_posix()
    for name, content in pages(found, figures, folder).items():
        _store.write(out / name, content)
    made = tables.in_markdown_of(found)
    for document in documents:
        _store.write(document, tables.filled(document.read_text(), made))
    return [name for name in SUITES if name not in found]


def _suite(name: str) -> Suite:
    return SUITES[name.rpartition("/")[2]]


def _title(name: str) -> str:
    return name.replace("/", "-")


def _section(name: str, results: Results, figures: Mapping[str, bytes], folder: str) -> str:
    suite = _suite(name)
    versions = ", ".join(f"{what} {version}" for what, version in results["versions"].items())
    about = f"`{results['command']}`, on {results['device']}, with {versions}."
    # A suite that prints a table of its own is not about variances.
    plain = suite.table is None
    if plain:
        about += f" Of all {len(results['rows'])} rows: {tables.worst(results['rows'])}."
    parts = [f"## {_title(name)}\n", f"{_sentence(suite.summary)}\n", f"{about}\n"]
    made = {n: table for n, (of, table) in tables.MARKDOWN.items() if of == name}
    claims = made.pop(f"claims_{name}", None)
    if plain and not made:
        shown = tables.shown(suite, results)
        parts += [f"Some of them, {shown.title}:\n", tables.in_markdown(shown)]
    for table in made.values():
        parts += _titled(table, results)
    for figure in figures:
        stem = figure.removesuffix(".png")
        if stem == name or stem.startswith(f"{name}_"):
            parts.append(f"![{_title(stem).replace('_', ' ')}]({folder}/{figure})\n")
    return "\n".join(parts + (_titled(claims, results) if claims else []))


def _titled(table: Callable[[Results], str], results: Results) -> list[str]:
    return [f"{(inspect.getdoc(table) or '').splitlines()[0]}\n", table(results)]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
