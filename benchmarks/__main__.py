"""``python -m benchmarks``: runs the suites, prints their tables and writes their results."""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from . import _store
from ._registry import SUITES
from ._reporting import report
from ._running.sequence import run_all

ROOT = Path(__file__).parent.parent
# Committed results and their report; and the folder of all other results, which git ignores.
RESULTS, REPORT, OUT = (
    ROOT / path for path in ("benchmarks/results", "docs/results", "benchmarks/output")
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the arguments ask for; the exit status."""
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without the letter µ shows a question mark; it does not end the run.
        sys.stdout.reconfigure(errors="replace")
    console = Console()
    if options.list:
        for suite in SUITES.values():
            note = "" if suite.default else " (not in the default run)"
            text = f"{suite.name:20s} {suite.summary}{note}"
            console.print(text, highlight=False, soft_wrap=True)
        return 0
    asked = [*options.suites, *(options.suite or [])]
    if "report" in asked:
        if len(asked) > 1 or options.update:
            parser.error("report is given alone: run the suites first, or with --update")
        return _write_report(parser, options.out, console)
    names = _chosen(parser, asked)
    out = _folder(parser, options)
    suites = [SUITES[name] for name in names]
    try:
        with _store.alone(out):
            status = run_all(
                suites, seed=options.seed, quick=options.quick, out=out, console=console
            )
    except _store.InUseError as error:
        parser.error(f"{error}: wait until it ends, or give another folder by --out")
    return status or (_write_report(parser, None, console) if options.update else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "suites",
        nargs="*",
        metavar="SUITE",
        help="suites to run; `all` of them; or `report`, which writes docs/results and "
        "the figures and the tables of README.md and docs from benchmarks/results",
    )
    parser.add_argument("--list", action="store_true", help="list the suites and stop")
    parser.add_argument(
        "--suite",
        action="append",
        metavar="NAME",
        help="another way to give SUITE; repeat it, or separate names by commas",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: seconds, for a check")
    parser.add_argument("--seed", type=_seed, default=0, help="the seed of all random numbers (0)")
    parser.add_argument(
        "--out",
        type=_directory,
        metavar="DIR",
        help="the folder to write to (benchmarks/output, which git ignores)",
    )
    parser.add_argument(
        "--update",
        action="store_true",
        help="write to benchmarks/results, whose files are committed, and then the report",
    )
    return parser


def _seed(text: str) -> int:
    """A seed that jax takes as it is: it would silently take others modulo 2^32."""
    seed = int(text)
    if not 0 <= seed < 2**32:
        raise argparse.ArgumentTypeError(f"a seed is a number from 0 to 2^32 - 1, got {seed}")
    return seed


def _directory(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the name of the folder is empty")
    return Path(text)


def _folder(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Path:
    """The folder of the results, checked before anything is measured."""
    if options.update and (options.quick or options.out):
        parser.error("--update goes with neither --quick nor --out: it replaces committed results")
    default = RESULTS if options.update else OUT / "quick" if options.quick else OUT
    out: Path = options.out or default
    try:
        _store.check_writable(out)
    except OSError as error:
        parser.error(f"cannot write to the output directory {out}: {error.strerror}")
    return out


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


def _write_report(parser: argparse.ArgumentParser, elsewhere: Path | None, console: Console) -> int:
    out = elsewhere or REPORT
    documents = [] if elsewhere else [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    try:
        if not elsewhere:
            report.draw(SUITES, RESULTS)
        missing = report.write(SUITES, RESULTS, out, documents)
    except OSError as error:
        parser.error(f"cannot write the report to {out}: {error.strerror}")
    if missing:
        text = f"left out, because there are no results: {', '.join(missing)}"
        console.print(text, style="yellow", highlight=False, soft_wrap=True)
    console.print(f"the report is in {out}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
