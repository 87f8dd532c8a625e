"""Interrupted runs: what is kept, what is resumed, and what starts again."""

import json
import math
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
    assert [path.name for path in out.iterdir()] == ["counter.partial.json"]
    killed.failing = ""
    assert _timeless(killed.run(out)) == _timeless(expected)
    assert killed.computed == ["0", "1", "2", "3", "4"]
    lines = [t.splitlines() for t in ((out / "counter.json").read_text(), text)]
    found, right = ([x for x in some if '"seconds"' not in x] for some in lines)
    assert found == right
    assert len(right) == len(lines[1]) - 1
    assert not (out / "counter.partial.json").exists()


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
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left.pop("counter.partial.json")
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
    path = tmp_path / "counter.partial.json"
    path.write_bytes(content)
    partial = _store.Partial(path, {"seed": 0})
    assert "counter.partial.json is damaged" in partial.note
    assert "starting again" in partial.note
    counter = Counter()
    counter.run(tmp_path)
    assert counter.computed == ["0", "1", "2", "3", "4"]


def test_resuming_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.partial.json"
    _store.Partial(path, {"seed": 0}).add("first", {"rows": [1.1, math.inf]})
    again = _store.Partial(path, {"seed": 0})
    assert again.note == "resuming from x.partial.json: 1 steps are done already"
    assert again.done == {"first": {"rows": [1.1, math.inf]}}
    assert "other settings" in _store.Partial(path, {"seed": 1}).note


def test_json_has_no_numbers_that_json_does_not_know() -> None:
    text = _store.to_json({"a": math.nan, "rows": [{"b": math.inf, "c": 0.1}], "none": []})
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": None,
        "rows": [{"b": None, "c": 0.1}],
        "none": [],
    }
