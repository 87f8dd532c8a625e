"""Runs one suite: resumes what was interrupted, shows progress, writes results when complete."""

import platform
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

import scorefn as sf
from benchmarks._reporting.plots import png_files
from benchmarks._store import Partial, to_csv, to_json, write
from benchmarks._suite import Suite, assemble

from .progress import Pace, bar


def run(
    suite: Suite, *, seed: int, quick: bool, out: Path, console: Console, pace: Pace | None = None
) -> dict[str, Any]:
    """The results of a suite, also written to ``out``.

    After each step the partial file holds everything completed so far; the last good results are
    replaced only when all steps are done. ``pace`` is what is known of the time that steps take.
    """
    head = header(suite, seed, quick=quick)
    partial = Partial(out / f"{suite.name}.partial.json", head)
    if partial.note:
        console.print(partial.note, style="yellow", highlight=False)
    steps = suite.steps(suite.quick if quick else suite.full, seed)
    pace = pace or Pace()
    todo = [name for name in steps if name not in partial.done]
    with bar(console) as progress:
        task = progress.add_task(
            pace.title or suite.name, total=len(steps), completed=len(steps) - len(todo), step=""
        )
        for i, name in enumerate(todo):
            progress.update(task, step=name, ends=pace.ends(todo[i:]))
            begin = time.perf_counter()
            payload = steps[name]()
            took = round(time.perf_counter() - begin, 3)
            partial.add(name, {**payload, "seconds": took})
            pace.add(name, took)
            progress.advance(task)
        progress.update(task, step="", ends=None)
    rows, curves = assemble({name: partial.done[name] for name in steps})
    seconds = {name: partial.done[name].get("seconds") for name in steps}
    results = head | {"seconds": seconds, "rows": rows, "curves": curves}
    _save(suite, results, out)
    partial.path.unlink()
    return results


def header(suite: Suite, seed: int, *, quick: bool) -> dict[str, Any]:
    """What results must have in common to be of one run."""
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
