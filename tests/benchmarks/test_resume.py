"""Interrupted runs: what is kept, what is resumed, and what starts again."""

import errno
import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from support.counter import Counter

import scorefn as sf
from benchmarks import _store


def test_a_killed_run_resumes_where_it_was(tmp_path: Path) -> None:
    whole, killed = Counter(), Counter()
    expected = whole.run(tmp_path)
    text = (tmp_path / "counter.json").read_text()
    out = tmp_path / "killed"
    out.mkdir()
    killed.failing = "3"
    with pytest.raises(RuntimeError):
        killed.run(out)
    assert [path.match("counter.*.partial.json") for path in out.iterdir()] == [True]
    killed.failing = ""
    assert _timeless(killed.run(out)) == _timeless(expected)
    assert killed.computed == ["0", "1", "2", "3", "4"]
    lines = [t.splitlines() for t in ((out / "counter.json").read_text(), text)]
    found, right = ([x for x in some if '"seconds"' not in x] for some in lines)
    assert found == right
    assert len(right) == len(lines[1]) - 1
    assert not list(out.glob("*.partial.json"))


def _timeless(results: dict[str, Any]) -> dict[str, Any]:
    assert all(seconds >= 0 for seconds in results["seconds"].values())
    return {name: value for name, value in results.items() if name != "seconds"}


def test_good_results_stay_until_the_next_are_complete(tmp_path: Path) -> None:
    counter = Counter()
    counter.run(tmp_path)
    good = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    counter.failing = "4"
    with pytest.raises(RuntimeError):
        counter.run(tmp_path, seed=1)
    (partial,) = tmp_path.glob("*.partial.json")
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path != partial}
    assert left == good


@pytest.mark.parametrize("settings", [{"seed": 1}, {"quick": True}])
def test_other_settings_are_not_resumed(tmp_path: Path, settings: dict[str, Any]) -> None:
    counter = Counter()
    counter.failing = "2"
    with pytest.raises(RuntimeError):
        counter.run(tmp_path)
    counter.failing, counter.computed = "", []
    found = counter.run(tmp_path, **settings)["settings"]
    assert {name: found[name] for name in settings} == settings
    assert counter.computed == ["0", "1", "2", "3", "4"][: 3 if "quick" in settings else 5]


def test_other_versions_are_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter()
    counter.failing = "2"
    with pytest.raises(RuntimeError):
        counter.run(tmp_path)
    monkeypatch.setattr(sf, "__version__", "99")
    counter.failing, counter.computed = "", []
    counter.run(tmp_path)
    assert counter.computed == ["0", "1", "2", "3", "4"]


DAMAGED = [b"", b'{"settings": {', b"[]", b"null", b"\xff\xfe", b'{"settings": {}}']


@pytest.mark.parametrize("content", [*DAMAGED, b'{"settings": {}, "done": {"0": 3}}'])
def test_a_damaged_partial_file_means_starting_again(tmp_path: Path, content: bytes) -> None:
    path = _store.Partial(tmp_path, "counter", {"seed": 0}).path
    path.write_bytes(content)
    partial = _store.Partial(tmp_path, "counter", {"seed": 0})
    assert f"{path.name} is damaged" in partial.note
    assert "starting again" in partial.note
    assert partial.done == {}


def test_resuming_says_so(tmp_path: Path) -> None:
    first = _store.Partial(tmp_path, "x", {"seed": 0})
    first.add("first", {"rows": [1.1, math.inf]})
    again = _store.Partial(tmp_path, "x", {"seed": 0})
    assert again.note == f"resuming from {first.path.name}: 1 steps are done already"
    assert again.done == {"first": {"rows": [1.1, math.inf]}}
    assert _store.Partial(tmp_path, "x", {"seed": 1}).done == {}


def test_a_run_with_another_seed_loses_nothing_of_the_one_before(tmp_path: Path) -> None:
    counter = Counter()
    counter.failing = "3"
    with pytest.raises(RuntimeError):
        counter.run(tmp_path)
    counter.failing = ""
    counter.run(tmp_path, seed=1)
    counter.computed = []
    assert counter.run(tmp_path)["settings"]["seed"] == 0
    assert counter.computed == ["3", "4"]


class _Killed(BaseException):
    """In place of kill -9: after it, nothing more reaches the disk."""


def _killed_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends the run before its n-th call that changes the disk."""
    calls = itertools.count()

    def before(change: Any) -> Any:
        def changed(*given: Any, **options: Any) -> Any:
            if next(calls) >= call:
                raise _Killed
            return change(*given, **options)

        return changed

    for place, name in ((Path, "open"), (Path, "unlink"), (os, "fsync"), (os, "replace")):
        monkeypatch.setattr(place, name, before(getattr(place, name)))


def test_a_run_that_is_killed_at_any_point_loses_nothing(tmp_path: Path) -> None:
    expected = _timeless(Counter().run(tmp_path))
    old = Counter()
    for call in itertools.count():
        out, counter = tmp_path / str(call), Counter()
        out.mkdir()
        old.run(out, seed=1)
        good = (out / "counter.json").read_bytes()
        with pytest.MonkeyPatch.context() as patch:
            _killed_at(call, patch)
            try:
                counter.run(out)
                break
            except _Killed:
                pass
        shown = (out / "counter.json").read_bytes()
        assert shown == good or _timeless(json.loads(shown)) == expected
        assert _timeless(counter.run(out)) == expected
        # At most the step in hand is computed again.
        assert len(counter.computed) <= 6
        assert counter.computed[-1] == "4"
    assert call > 25


def test_a_file_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(_store.NotWrittenError, match=r"cannot write .*: No space left on device"):
        Counter().run(tmp_path)
    assert not list(tmp_path.iterdir())


def test_json_has_no_numbers_that_json_does_not_know() -> None:
    text = _store.to_json({"a": math.nan, "rows": [{"b": math.inf, "c": 0.1}], "none": []})
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": None,
        "rows": [{"b": None, "c": 0.1}],
        "none": [],
    }
