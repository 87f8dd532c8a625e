"""Runs several suites, one after the other, and leaves out those that were finished before."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from benchmarks import _store
from benchmarks._reporting import tables
from benchmarks._suite import Suite

from .run import header, run


def run_all(suites: Sequence[Suite], *, seed: int, quick: bool, out: Path, console: Console) -> int:
    """Runs the suites and prints their tables; the exit status.

    A file keeps the names of the suites that are finished, until all are: the same command, given
    again after an interruption, does not repeat these.
    """
    heads = {suite.name: header(suite, seed, quick=quick) for suite in suites}
    kept = _store.Partial(out, "all", {"suites": list(heads.values())})
    finished = [name for name in kept.done if _is_of(heads[name], out / f"{name}.json")]
    note = f"finished before the interruption: {', '.join(finished)}" if finished else kept.note
    if note and len(suites) > 1:
        console.print(note, style="yellow", highlight=False)
    todo = [suite for suite in suites if suite.name not in finished]
    try:
        for suite in todo:
            place = f" ({suites.index(suite) + 1} of {len(suites)})" if len(suites) > 1 else ""
            title = suite.name + place
            results = run(suite, seed=seed, quick=quick, out=out, console=console, title=title)
            console.print(tables.terminal(suite, results))
            if suite is not todo[-1]:
                kept.add(suite.name, {})
                # Each compiled program takes a dozen maps of memory, of which Linux grants a
                # process 65530; the next suite needs none of these.
                jax.clear_caches()
    except KeyboardInterrupt:
        console.print("interrupted; run the same command again to resume", style="yellow")
        return 130
    except _store.NotWrittenError as error:
        console.print(f"{error}; mend this and run the same command again to resume", style="red")
        return 1
    if len(suites) > 1:
        kept.path.unlink(missing_ok=True)
    console.print(f"results are in {out}", highlight=False, soft_wrap=True)
    return 0


def _is_of(head: Mapping[str, Any], path: Path) -> bool:
    """Whether results are those of a run, not of another run since."""
    try:
        found = _store.read(path)
        return bool({name: found[name] for name in head} == json.loads(json.dumps(head)))
    except (OSError, ValueError, KeyError, TypeError):
        return False
