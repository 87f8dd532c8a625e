"""The report: that of the committed results."""

import io
import re

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from support.results import PLACES, RESULTS, ROOT, committed

from benchmarks import __main__ as command
from benchmarks._registry import SUITES
from benchmarks._reporting import plots, report, tables

pytestmark = pytest.mark.slow


def _figures() -> set[str]:
    found = [*RESULTS.glob("*.png"), *RESULTS.glob("gpu/*.png")]
    return {path.relative_to(RESULTS).as_posix() for path in found}


@pytest.fixture(scope="module")
def page() -> str:
    """The report of the committed results."""
    results = {name: committed(name) for name in PLACES}
    return report.page(SUITES, results, sorted(_figures()), "../../benchmarks/results")


def test_the_report_is_that_of_the_committed_results(page):
    found = (ROOT / "docs" / "results" / "README.md").read_text()
    assert page == found, "run python -m benchmarks report"


def test_the_report_has_every_table_and_every_figure(page):
    made = tables.in_markdown_of(SUITES, {name: committed(name) for name in PLACES})
    assert len(made) > 30
    assert all(table in page for table in made.values())
    figures = _figures()
    assert set(re.findall(r"\]\(\.\./\.\./benchmarks/results/(.*?)\)", page)) == figures


def test_the_command_writes_the_report(tmp_path, monkeypatch, capsys):
    results, out = tmp_path / "results", tmp_path / "docs" / "report"
    results.mkdir()
    monkeypatch.setattr(command, "RESULTS", results)
    with pytest.raises(SystemExit):
        command.main(["report", "--out", str(out)])
    assert "there are no results" in capsys.readouterr().err
    name = "logistic_regression"
    for end in ("json", "png"):
        path = f"{name}.{end}"
        (results / path).write_bytes((RESULTS / path).read_bytes())
    assert command.main(["report", "--out", str(out)]) == 0
    others = ", ".join(other for other in SUITES if other != name)
    assert f"left out, because there are no results: {others}" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"README.md"}
    assert f"](../../results/{name}.png)" in (out / "README.md").read_text()
    with pytest.raises(SystemExit):
        command.main(["report", "all"])
    assert "report is given alone" in capsys.readouterr().err


def test_the_command_fills_the_tables_of_the_documents_and_draws_the_figures(tmp_path, monkeypatch):
    results, docs, name = tmp_path / "results", tmp_path / "docs", "logistic_regression"
    results.mkdir()
    docs.mkdir()
    (results / f"{name}.json").write_bytes((RESULTS / f"{name}.json").read_bytes())
    (results / f"{name}.png").write_bytes(b"old")
    for constant, path in {"RESULTS": results, "ROOT": tmp_path, "REPORT": docs / "out"}.items():
        monkeypatch.setattr(command, constant, path)
    text = f"a\n<!-- table:{name} -->\n{{}}<!-- /table -->\nb\n"
    other = "<!-- table:bits -->\nno results\n<!-- /table -->\n"
    (tmp_path / "README.md").write_text(text.format("old\n"))
    (docs / "page.md").write_text(other)
    assert command.main(["report", "--out", str(tmp_path / "elsewhere")]) == 0
    assert (tmp_path / "README.md").read_text() == text.format("old\n")
    assert (results / f"{name}.png").read_bytes() == b"old"
    assert command.main(["report"]) == 0
    for drawn in (name, "fronts"):
        assert (results / f"{drawn}.png").read_bytes().startswith(b"\x89PNG")
    table = SUITES[name].tables[name](committed(name))
    assert (tmp_path / "README.md").read_text() == text.format(table)
    assert (docs / "page.md").read_text() == other
    assert (docs / "out" / "README.md").exists()


def test_a_figure_in_few_colours_is_the_same_picture():
    results = committed("logistic_regression")
    with mpl.rc_context(plots.STYLE), io.BytesIO() as file:
        (figure,) = SUITES["logistic_regression"].figures(results).values()
        figure.savefig(file, format="png")
        whole = file.getvalue()
    few = plots.of_256_colors(whole)
    assert len(few) < len(whole) / 2
    found, right = (
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), int) for png in (few, whole)
    )
    assert np.max(np.abs(found - right)) <= 25
