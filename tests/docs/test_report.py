"""The report: that of the committed results, and a page that needs nothing else."""

import base64
import io
import re
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from support.results import PLACES, RESULTS, ROOT, committed

from benchmarks import __main__ as command
from benchmarks._registry import SUITES
from benchmarks._reporting import html, plots, report, tables

pytestmark = pytest.mark.slow


def _figures() -> set[str]:
    found = [*RESULTS.glob("*.png"), *RESULTS.glob("gpu/*.png")]
    return {path.relative_to(RESULTS).as_posix() for path in found}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """The report of the committed results."""
    results = {name: committed(name) for name in PLACES}
    figures = {name: (RESULTS / name).read_bytes() for name in sorted(_figures())}
    return report.pages(SUITES, results, figures, "../../benchmarks/results")


class Reader(HTMLParser):
    """What a page is made of; fails where an element is not closed in its turn."""

    VOID = ("meta", "img", "br", "hr", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.parts: list[object] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.parts.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        # <img ... /> is both a start and an end.
        assert tag in self.VOID or self.open.pop() == tag

    def handle_data(self, data):
        # Between tags, spaces mean nothing; they are the library's.
        if data.strip():
            self.parts.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [part[1] for part in self.parts if isinstance(part, tuple) and part[0] == tag]


def test_the_report_is_that_of_the_committed_results(pages):
    folder = ROOT / "docs" / "results"
    assert pages["README.md"] == (folder / "README.md").read_text(), (
        "run python -m benchmarks report"
    )
    found, right = (
        Reader(text).parts for text in (pages["index.html"], (folder / "index.html").read_text())
    )
    assert found == right, "run python -m benchmarks report"


def test_the_page_needs_nothing_else_and_fits_a_phone(pages):
    page = pages["index.html"]
    reader = Reader(page)
    assert len(page) < 3e6
    for tag in ("script", "link", "iframe", "object"):
        assert not reader.all(tag)
    assert "url(" not in page
    assert "@import" not in page
    sources = [image["src"] for image in reader.all("img")]
    assert len(sources) == len(set(sources)) >= len(SUITES)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    links = [link["href"] for link in reader.all("a")]
    ids = [heading["id"] for heading in reader.all("h2")]
    assert links == [f"#{name}" for name in ids]
    assert ids == [name.replace("/", "-") for name in PLACES]
    viewport = {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    assert viewport in reader.all("meta")
    boxes = [box for box in reader.all("div") if box == {"class": "table"}]
    assert len(boxes) == len(reader.all("table")) >= len(SUITES)
    css = page.split("<style>")[1].split("</style>")[0]
    assert css.count("{") == css.count("}")
    assert "prefers-color-scheme: dark" in css


def test_the_report_has_every_table_and_every_figure(pages):
    text = pages["README.md"]
    made = tables.in_markdown_of(SUITES, {name: committed(name) for name in PLACES})
    assert len(made) > 30
    assert all(table in text for table in made.values())
    figures = _figures()
    assert set(re.findall(r"\]\(\.\./\.\./benchmarks/results/(.*?)\)", text)) == figures
    embedded = [image["src"].split(",")[1] for image in Reader(pages["index.html"]).all("img")]
    assert {base64.b64decode(data) for data in embedded} == {
        (RESULTS / name).read_bytes() for name in figures
    }


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
    assert {path.name for path in out.iterdir()} == {"README.md", "index.html"}
    assert f"](../../results/{name}.png)" in (out / "README.md").read_text()
    with pytest.raises(SystemExit):
        command.main(["report", "all"])
    assert "report is given alone" in capsys.readouterr().err


def test_the_command_fills_the_tables_of_the_documents(tmp_path, monkeypatch):
    results, docs, name = tmp_path / "results", tmp_path / "docs", "logistic_regression"
    results.mkdir()
    docs.mkdir()
    for end in ("json", "png"):
        path = f"{name}.{end}"
        (results / path).write_bytes((RESULTS / path).read_bytes())
    for constant, path in {"RESULTS": results, "ROOT": tmp_path, "REPORT": docs / "out"}.items():
        monkeypatch.setattr(command, constant, path)
    text = f"a\n<!-- table:{name} -->\n{{}}<!-- /table -->\nb\n"
    other = "<!-- table:bits -->\nno results\n<!-- /table -->\n"
    (tmp_path / "README.md").write_text(text.format("old\n"))
    (docs / "page.md").write_text(other)
    assert command.main(["report", "--out", str(tmp_path / "elsewhere")]) == 0
    assert (tmp_path / "README.md").read_text() == text.format("old\n")
    assert command.main(["report"]) == 0
    table = SUITES[name].tables[name](committed(name))
    assert (tmp_path / "README.md").read_text() == text.format(table)
    assert (docs / "page.md").read_text() == other
    assert (docs / "out" / "index.html").exists()


def test_text_of_the_page_is_escaped():
    page = html.html("# A & B\n\n| a | b |\n| --- | ---: |\n| `x < y` | |E f| |\n", "A & B", {})
    assert "<title>A &amp; B</title>" in page
    assert "<code>x &lt; y</code>" in page
    assert Reader(page).all("h1") == [{"id": "a-&-b"}]
    with pytest.raises(KeyError, match=r"missing\.png"):
        html.html("![x](missing.png)", "x", {})


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
