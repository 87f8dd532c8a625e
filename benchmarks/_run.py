"""Runs one suite: resumes what was interrupted, shows progress, writes results when complete."""

import platform
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import scorefn as sf

from ._plots import png_files
from ._store import Partial, to_csv, to_json, write
from ._suite import Suite, assemble


def run(suite: Suite, *, seed: int, quick: bool, out: Path, console: Console) -> dict[str, Any]:
    """The results of a suite, also written to ``out``.

    After each step the partial file holds everything completed so far; the last good results are
    replaced only when all steps are done.
    """
    header = _header(suite, seed, quick=quick)
    partial = Partial(out / f"{suite.name}.partial.json", header)
    if partial.note:
        console.print(partial.note, style="yellow", highlight=False)
    steps = suite.steps(suite.quick if quick else suite.full, seed)
    with _progress(console) as progress:
        bar = progress.add_task(suite.name, total=len(steps), step="")
        for name, step in steps.items():
            progress.update(bar, step=name)
            if name not in partial.done:
                partial.add(name, step())
            progress.advance(bar)
        progress.update(bar, step="")
    rows, curves = assemble({name: partial.done[name] for name in steps})
    results = header | {"rows": rows, "curves": curves}
    _save(suite, results, out)
    partial.path.unlink()
    return results


def _header(suite: Suite, seed: int, *, quick: bool) -> dict[str, Any]:
    command = f"python -m benchmarks --suite {suite.name} --seed {seed}"
    return {
        "suite": suite.name,
        "command": command + (" --quick" if quick else ""),
        "settings": {"seed": seed, "quick": quick, **(suite.quick if quick else suite.full)},
        "versions": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "numpy": np.__version__,
            "scorefn": sf.__version__,
        },
        "device": jax.devices()[0].device_kind,
    }


def _save(suite: Suite, results: dict[str, Any], out: Path) -> None:
    # Everything is made before anything is replaced.
    contents: dict[str, str | bytes] = {**png_files(lambda: suite.figures(results))}
    contents[f"{suite.name}.csv"] = to_csv(results["rows"])
    contents[f"{suite.name}.json"] = to_json(results)
    for name, content in contents.items():
        write(out / name, content)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:20s}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[step]}", style="dim"),
        console=console,
    )
