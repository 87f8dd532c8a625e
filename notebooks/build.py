"""Runs the scripts and writes the notebooks beside them: ``python notebooks/build.py [01 ...]``."""

import argparse
import base64
import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode
from rich.progress import Progress

from benchmarks._reporting.plots import of_256_colors

FOLDER = Path(__file__).parent
LIMIT = 120.0  # seconds for one notebook on two cores


def scripts() -> list[Path]:
    """The sources of all notebooks, in the order in which they are read."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))


def notebook(script: Path) -> NotebookNode:
    """The cells of a script, without outputs."""
    found = jupytext.read(script)
    for number, cell in enumerate(found.cells):
        # Jupytext's are random: they would change at each build.
        cell["id"] = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    found.metadata = NotebookNode(kernelspec=kernel, language_info={"name": "python"})
    return found


def execute(cells: NotebookNode, progress: Progress, title: str) -> None:
    """Runs all cells in a fresh kernel. Figures lose no visible colour and two thirds of bytes."""
    task = progress.add_task(title, total=len(cells.cells))
    client = NotebookClient(
        cells,
        # It would warn of its own sockets.
        extra_arguments=["--log-level=ERROR"],
        timeout=int(LIMIT),
        resources={"metadata": {"path": str(FOLDER)}},
        record_timing=False,
        coalesce_streams=True,
        on_cell_complete=lambda **_: progress.advance(task),
    )
    # Of tqdm, which numpyro and flowjax import, for a bar that nobody draws here.
    client.execute(env={**os.environ, "PYTHONWARNINGS": "ignore:IProgress not found"})
    for cell in cells.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                png = of_256_colors(base64.b64decode(output["data"]["image/png"]))
                output["data"]["image/png"] = base64.b64encode(png).decode()
    cells.metadata["language_info"] = {"name": "python"}


def write(script: Path, cells: NotebookNode) -> None:
    """The notebook beside its script, whole or not at all."""
    part = script.with_suffix(".part")
    part.write_text(nbformat.writes(cells) + "\n")
    os.replace(part, script.with_suffix(".ipynb"))


def main() -> int:
    """Builds the notebooks whose numbers are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number", nargs="*", help="as 01; all, if there is none")
    wanted = parser.parse_args().number
    chosen = [s for s in scripts() if not wanted or s.name[:2] in wanted]
    unknown = sorted(set(wanted) - {s.name[:2] for s in chosen})
    if unknown:
        known = ", ".join(s.name[:2] for s in scripts())
        parser.error(f"no notebook has the number {', '.join(unknown)}; there are {known}")
    late = []
    with Progress(transient=True) as progress:
        for script in chosen:
            start, cells = time.perf_counter(), notebook(script)
            try:
                execute(cells, progress, script.stem)
            except (CellExecutionError, CellTimeoutError) as error:
                progress.stop()
                sys.stderr.write(f"{script.name}: {error}\nIts notebook is left as it was.\n")
                return 1
            write(script, cells)
            seconds = time.perf_counter() - start
            progress.console.print(f"{script.stem}: {seconds:.0f} s")
            if seconds > LIMIT:
                late.append(script.name)
    if late:
        sys.stderr.write(f"Longer than {LIMIT:.0f} s: {', '.join(late)}\n")
    return bool(late)


if __name__ == "__main__":
    sys.exit(main())
