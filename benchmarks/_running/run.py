"""Runs one suite: resumes what was interrupted, shows progress, writes results when complete."""

import platform
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

import scorefn as sf
from benchmarks._reporting.plots import png_files
from benchmarks._store import Partial, to_json, write
from benchmarks._suite import Suite, assemble
from scorefn.diagnostics._compare.files import to_csv


def run(
    suite: Suite, *, seed: int, quick: bool, out: Path, console: Console, title: str = ""
) -> dict[str, Any]:
    """The results of a suite, also written to ``out``.

    After each step the partial file holds everything completed so far; the last good results are
    replaced only when all steps are done.
    """
    head = header(suite, seed, quick=quick)
    partial = Partial(out, suite.name, head)
    if partial.note:
        console.print(partial.note, style="yellow", highlight=False)
    steps = suite.steps(suite.quick if quick else suite.full, seed)
    todo = [name for name in steps if name not in partial.done]
    with _bar(console) as progress:
        done = len(steps) - len(todo)
        task = progress.add_task(title or suite.name, total=len(steps), completed=done, step="")
        for name in todo:
            progress.update(task, step=name)
            begin = time.perf_counter()
            payload = steps[name]()
            partial.add(name, {**payload, "seconds": round(time.perf_counter() - begin, 3)})
            progress.advance(task)
        progress.update(task, step="")
    payloads = {name: partial.done[name] for name in steps}
    rows, curves = assemble(payloads)
    seconds = {name: payload.get("seconds") for name, payload in payloads.items()}
    results = head | {"seconds": seconds, "rows": rows, "curves": curves}
    _save(suite, results, out)
    partial.path.unlink()
    return results


def header(suite: Suite, seed: int, *, quick: bool) -> dict[str, Any]:
    """The entries that results of one run have in common."""
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


def _bar(console: Console) -> Progress:
    """The progress of one suite. In 80 columns the name of the step gives way, not the numbers."""
    step = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    return Progress(
        TextColumn("{task.description:20s}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=7)),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=8)),
        TextColumn("{task.fields[step]}", style="dim", table_column=step),
        console=console,
        expand=True,
        # Steps take seconds to minutes: the speed is that of all steps so far.
        speed_estimate_period=24 * 3600.0,
    )
