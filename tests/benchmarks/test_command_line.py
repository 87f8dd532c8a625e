"""The command line: which suites run, where files are written, what is refused."""

import errno
import io
import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from support.counter import Counter

from benchmarks import __main__ as command
from benchmarks import _store
from benchmarks._registry import SUITES
from benchmarks._suite import Results


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(SUITES)


def test_the_default_run_leaves_out_what_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = {name: Counter() for name in ("short", "long")}
    monkeypatch.setattr(command, "SUITES", {})
    for name, counter in counters.items():
        suite = replace(counter.suite, name=name, default=name == "short")
        monkeypatch.setitem(command.SUITES, name, suite)
    assert command.main(["--out", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.glob("*.json")} == {"short"}
    assert command.main(["--suite", "all", "--out", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.glob("*.json")} == {"short", "long"}


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counter]:
    """Three suites and no others."""
    counters = {name: Counter() for name in ("first", "second", "third")}
    suites = {name: replace(c.suite, name=name) for name, c in counters.items()}
    monkeypatch.setattr(command, "SUITES", suites)
    return counters


def test_all_resumes_at_the_suite_and_the_step(
    tmp_path: Path, three: dict[str, Counter], capsys: pytest.CaptureFixture[str]
) -> None:
    three["second"].failing, three["second"].error = "3", KeyboardInterrupt
    arguments = ["all", "--out", str(tmp_path)]
    assert command.main(arguments) == 130
    kept = sorted(path.name.split(".")[::2] for path in tmp_path.glob("*.partial.json"))
    assert kept == [["all", "partial"], ["second", "partial"]]
    assert (tmp_path / "first.json").exists()
    three["second"].failing = ""
    capsys.readouterr()
    assert command.main(arguments) == 0
    assert "finished before the interruption: first" in capsys.readouterr().out
    assert all(counter.computed == ["0", "1", "2", "3", "4"] for counter in three.values())
    assert not list(tmp_path.glob("*.partial.json"))
    # A run that was not interrupted leaves nothing out.
    assert command.main(arguments) == 0
    assert all(len(counter.computed) == 10 for counter in three.values())


def test_no_suite_keeps_the_programs_of_another(
    tmp_path: Path, three: dict[str, Counter], monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = []

    @jax.jit
    def traced(x: jax.Array) -> jax.Array:
        traces.append(x)
        return x + 1

    def compiling(counter: Counter) -> Any:
        def step(i: int, seed: int) -> dict[str, Any]:
            traced(jnp.zeros(()))
            return Counter._step(counter, i, seed)

        return step

    for counter in three.values():
        monkeypatch.setattr(counter, "_step", compiling(counter))
    assert command.main(["all", "--out", str(tmp_path)]) == 0
    assert len(traces) == len(three)


def test_all_repeats_what_was_replaced_since(tmp_path: Path, three: dict[str, Counter]) -> None:
    three["third"].failing, three["third"].error = "0", KeyboardInterrupt
    assert command.main(["all", "--out", str(tmp_path)]) == 130
    assert command.main(["first", "--seed", "7", "--out", str(tmp_path)]) == 0
    three["third"].failing = ""
    assert command.main(["all", "--out", str(tmp_path)]) == 0
    assert _store.read(tmp_path / "first.json")["settings"]["seed"] == 0
    assert [len(counter.computed) for counter in three.values()] == [15, 5, 5]
    assert command.main(["second", "--seed", "7", "--out", str(tmp_path)]) == 0
    assert len(three["second"].computed) == 10


def test_all_with_other_settings_starts_again(tmp_path: Path, three: dict[str, Counter]) -> None:
    three["second"].failing, three["second"].error = "0", KeyboardInterrupt
    assert command.main(["all", "--out", str(tmp_path)]) == 130
    three["second"].failing = ""
    assert command.main(["all", "--seed", "1", "--out", str(tmp_path)]) == 0
    assert [len(counter.computed) for counter in three.values()] == [10, 5, 5]
    # And what was interrupted goes on: only its first suite was replaced since.
    assert command.main(["all", "--out", str(tmp_path)]) == 0
    assert [len(counter.computed) for counter in three.values()] == [15, 10, 10]


def test_a_full_disk_ends_in_advice_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three: dict[str, Counter]
) -> None:
    write, calls = os.fsync, itertools.count()

    def filling(file: int) -> None:
        if next(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file)

    monkeypatch.setattr(os, "fsync", filling)
    assert command.main(["first", "--out", str(tmp_path)]) == 1
    assert command.main(["first", "--out", str(tmp_path)]) == 0
    assert three["first"].computed == ["0", "1", "2", "3", "3", "4"]


def test_a_second_run_in_the_same_folder_is_refused(
    tmp_path: Path, three: dict[str, Counter], capsys: pytest.CaptureFixture[str]
) -> None:
    with _store.alone(tmp_path), pytest.raises(SystemExit):
        command.main(["first", "--out", str(tmp_path)])
    error = " ".join(capsys.readouterr().err.split())
    assert f"another run is writing to {tmp_path}: wait until it ends, or give another" in error
    assert three["first"].computed == []
    assert command.main(["first", "--out", str(tmp_path)]) == 0


def test_a_terminal_without_the_letters_of_a_table_shows_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three: dict[str, Counter]
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert command.main(["all", "--out", str(tmp_path)]) == 0
    sys.stdout.flush()
    assert b"number 4" in shown.getvalue()
    assert b"var ? ?s" in shown.getvalue()
    assert all(len(counter.computed) == 5 for counter in three.values())


def test_unknown_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        command.main(["--suite", "bernoulli,bernouli", "--out", str(tmp_path / "new")])
    assert error.value.code == 2
    message = capsys.readouterr().err
    assert "'bernouli'" in message
    assert all(name in message for name in SUITES)
    assert not (tmp_path / "new").exists()


def test_unwritable_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counter = Counter()
    monkeypatch.setitem(SUITES, "counter", counter.suite)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SystemExit) as error:
        command.main(["--suite", "counter", "--out", str(file / "results")])
    assert error.value.code == 2
    assert "cannot write to the output directory" in capsys.readouterr().err
    assert counter.computed == []


def test_interrupted_by_the_keyboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counter = Counter()
    counter.failing, counter.error = "2", KeyboardInterrupt
    monkeypatch.setitem(SUITES, "counter", counter.suite)
    arguments = ["--suite", "counter", "--out", str(tmp_path)]
    assert command.main(arguments) == 130
    assert "run the same command again to resume" in capsys.readouterr().out
    counter.failing = ""
    assert command.main(arguments) == 0
    assert "2 steps are done already" in capsys.readouterr().out
    assert counter.computed == ["0", "1", "2", "3", "4"]


def test_suites_are_repeated_or_separated_by_commas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Counter(), Counter()
    monkeypatch.setitem(SUITES, "first", replace(first.suite, name="first"))
    monkeypatch.setitem(SUITES, "second", replace(second.suite, name="second"))
    arguments = ["--suite", "first,second", "--suite", "first", "--quick", "--out", str(tmp_path)]
    assert command.main(arguments) == 0
    assert first.computed == second.computed == ["0", "1", "2"]
    written = _store.read(tmp_path / "second.json")["command"]
    assert written == "python -m benchmarks --suite second --seed 0 --quick"


def test_files_are_written_where_git_ignores_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three: dict[str, Counter]
) -> None:
    asked = ["git", "check-ignore", "--quiet", "--no-index", str(command.OUT / "first.json")]
    done = subprocess.run(asked, cwd=command.ROOT, check=False)
    assert done.returncode in (0, 128)  # 128: these are files without a repository.
    assert command.RESULTS.relative_to(command.ROOT) == Path("benchmarks/results")
    for name in ("OUT", "RESULTS", "REPORT"):
        monkeypatch.setattr(command, name, tmp_path / name)
    assert command.main(["first"]) == command.main(["first", "--quick"]) == 0
    names = {"first.json", "first.csv", "counter.png"}
    assert {path.name for path in tmp_path.rglob("[!.]*.*")} == names
    assert {path.parent.name for path in tmp_path.rglob("*.*")} == {"OUT", "quick"}
    assert len(three["first"].computed) == 5 + 3


def test_an_update_writes_results_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three: dict[str, Counter]
) -> None:
    for name in ("ROOT", "OUT", "RESULTS", "REPORT"):
        monkeypatch.setattr(command, name, tmp_path if name == "ROOT" else tmp_path / name)
    (tmp_path / "README.md").write_text("<!-- table:numbers -->\n<!-- /table -->\n")

    def table(_: Results) -> str:
        """The numbers."""
        return "| new |\n"

    suite = replace(three["first"].suite, name="first", tables={"numbers": table})
    monkeypatch.setitem(command.SUITES, "first", suite)
    assert command.main(["first", "--update"]) == 0
    assert (tmp_path / "RESULTS" / "first.json").exists()
    assert "| new |" in (tmp_path / "README.md").read_text()
    assert "| new |" in (tmp_path / "REPORT" / "README.md").read_text()
    assert not (tmp_path / "OUT").exists()


@pytest.mark.parametrize("others", [["--quick"], ["--out", "elsewhere"]])
def test_an_update_is_of_a_full_run_in_its_place(
    others: list[str], three: dict[str, Counter], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(["first", "--update", *others])
    assert "--update goes with neither --quick nor --out" in capsys.readouterr().err
    assert three["first"].computed == []


def test_a_folder_without_a_name_is_refused(
    three: dict[str, Counter], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(["first", "--out", ""])
    assert "the name of the folder is empty" in capsys.readouterr().err
    assert three["first"].computed == []


@pytest.mark.parametrize("seed", [str(2**32), "-1", "1" + 20 * "0"])
def test_a_seed_that_jax_would_wrap_is_refused(
    seed: str, three: dict[str, Counter], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(["first", "--seed", seed])
    assert f"a seed is a number from 0 to 2^32 - 1, got {seed}" in capsys.readouterr().err
    assert three["first"].computed == []
