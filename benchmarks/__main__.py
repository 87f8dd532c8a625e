"""``python -m benchmarks``: runs the suites, prints their tables and writes their results."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks._reporting import report
from benchmarks._running.sequence import run_all

from . import _store
from ._registry import SUITES

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent
REPORT = ROOT / "docs" / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the arguments ask for; the exit status."""
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    console = Console()
    if options.list:
        for suite in SUITES.values():
            note = "" if suite.default else " (not in the default run)"
            text = f"{suite.name:20s} {suite.summary}{note}"
            console.print(text, highlight=False, soft_wrap=True)
        return 0
    asked = [*options.suites, *(options.suite or [])]
    if "report" in asked:
        return _write_report(parser, asked, options.out, console)
    # Quick results never replace those of a full run, unless asked to.
    out = options.out or (RESULTS / "quick" if options.quick else RESULTS)
    names = _chosen(parser, asked)
    try:
        _store.check_writable(out)
    except OSError as error:
        parser.error(f"cannot write to the output directory {out}: {error.strerror}")
    return run_all(
        [SUITES[name] for name in names],
        seed=options.seed,
        quick=options.quick,
        out=out,
        earlier=out if options.quick else RESULTS,
        console=console,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "suites",
        nargs="*",
        metavar="SUITE",
        help="suites to run; `all` of them; or `report`, which writes docs/results and "
        "the tables of README.md and docs",
    )
    parser.add_argument("--list", action="store_true", help="list the suites and stop")
    parser.add_argument(
        "--suite",
        action="append",
        metavar="NAME",
        help="the same as SUITE; repeat it, or separate names by commas",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: seconds, for a check")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where files are written")
    return parser


def _chosen(parser: argparse.ArgumentParser, asked: list[str]) -> list[str]:
    if not asked:
        return [name for name, suite in SUITES.items() if suite.default]
    names = [name.strip() for part in asked for name in part.split(",")]
    if "all" in names:
        return list(SUITES)
    for name in names:
        if name not in SUITES:
            parser.error(f"there is no suite {name!r}; the suites are {', '.join(SUITES)}")
    return list(dict.fromkeys(names))


def _write_report(
    parser: argparse.ArgumentParser, asked: list[str], elsewhere: Path | None, console: Console
) -> int:
    if len(asked) > 1:
        parser.error("report goes alone: run the suites first")
    out = elsewhere or REPORT
    documents = [] if elsewhere else [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    try:
        missing = report.write(RESULTS, out, documents)
    except OSError as error:
        parser.error(f"cannot write the report to {out}: {error.strerror}")
    if missing:
        text = f"left out, for there are no results: {', '.join(missing)}"
        console.print(text, style="yellow", highlight=False, soft_wrap=True)
    console.print(f"the report is in {out}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
