"""``python -m benchmarks``: runs the suites, prints their tables and writes their results."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from . import _store, _tables
from ._registry import SUITES
from ._run import run

RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the arguments ask for; the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    console = Console()
    if options.list:
        for suite in SUITES.values():
            note = "" if suite.default else " (not in the default run)"
            text = f"{suite.name:20s} {suite.summary}{note}"
            console.print(text, highlight=False, soft_wrap=True)
        return 0
    # Quick results never replace those of a full run, unless asked to.
    out = options.out or (RESULTS / "quick" if options.quick else RESULTS)
    if options.markdown:
        return _markdown(parser, out)
    names = _chosen(parser, options.suite)
    try:
        _store.check_writable(out)
    except OSError as error:
        parser.error(f"cannot write to the output directory {out}: {error.strerror}")
    return _run_all(names, options, out, console)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the suites and stop")
    parser.add_argument(
        "--suite",
        action="append",
        metavar="NAME",
        help="run this suite only; repeat it, or separate names by commas; `all` means all",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: seconds, for a check")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results are written")
    parser.add_argument(
        "--markdown", action="store_true", help="print the tables of the written results and stop"
    )
    return parser


def _chosen(parser: argparse.ArgumentParser, asked: list[str] | None) -> list[str]:
    if asked is None:
        return [name for name, suite in SUITES.items() if suite.default]
    names = [name.strip() for part in asked for name in part.split(",")]
    if "all" in names:
        return list(SUITES)
    for name in names:
        if name not in SUITES:
            parser.error(f"there is no suite {name!r}; the suites are {', '.join(SUITES)}")
    return list(dict.fromkeys(names))


def _markdown(parser: argparse.ArgumentParser, out: Path) -> int:
    for name, (suite, table) in _tables.MARKDOWN.items():
        path = out / f"{suite}.json"
        if not path.exists():
            parser.error(f"there are no results {path.name} in {out}; run the suite {suite} first")
        sys.stdout.write(f"<!-- table:{name} -->\n{table(_store.read(path))}<!-- /table -->\n")
    return 0


def _run_all(names: Sequence[str], options: argparse.Namespace, out: Path, console: Console) -> int:
    try:
        for name in names:
            results = run(
                SUITES[name], seed=options.seed, quick=options.quick, out=out, console=console
            )
            console.print(_tables.terminal(SUITES[name], results))
    except KeyboardInterrupt:
        console.print("interrupted; run the same command again to resume", style="yellow")
        return 130
    console.print(f"results are in {out}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
