"""The site: it builds without a warning, its links lead somewhere, and its formulas are right."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest

import scorefn as sf
from scorefn import policy, vi

pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def parts(monkeypatch):
    """The modules of the site by name: they are imported as Sphinx does it."""
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.syspath_prepend(str(DOCS / "_site"))
    names = ("website", "formulas", "layout", "navigation", "reference")
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "tex"),
    [
        ("f(b)", "f(b)"),
        ("(f(b) - c(z')) dlog_prob(b)", r"(f(b)-c(z'))\,d\,\text{log\_prob}(b)"),
        ("sum_{j != i} w_j x_j / n^-2", r"\textstyle\sum_{j\ne i}\,w_{j}\,x_{j}/n^{-2}"),
        ("lam_t G_{t+1}", r"\lambda_{t}\,G_{t+1}"),
        ("(1 - d_k)^(K - 1)", "(1-d_{k})^{K-1}"),
        ("z' ~ p(z | b)", r"z'\sim p(z\mid b)"),
        ("c (p+ - p-)", r"c\,(p^{+}-p^{-})"),
        ("keys_i = fold_in(key, i)", r"\text{keys}_{i}=\text{fold\_in}(\text{key},\ i)"),
        ("g_t . g_(t-1)", r"g_{t}\cdot g_{t-1}"),
        ("y_i1 y_ik", r"y_{i1}\,y_{ik}"),
        ("log-probabilities + noise", r"\text{log-probabilities}+\text{noise}"),
    ],
)
def test_a_formula_of_plain_text_becomes_latex(parts, text, tex):
    assert parts["formulas"].tex(text) == tex


def test_words_around_a_formula_stay_words_and_lines_may_break_between_formulas(parts):
    found = parts["formulas"].inline("the mean of the others,  c = m + 1,  for `DisARM`")
    assert found == "the mean of the others, :math:`c=m` :math:`+1,` for `DisARM`"
    found = parts["formulas"].inline("the estimator's sum of the costs: sum_i c_i of a minibatch")
    assert found == (
        r"the estimator's sum of the costs: :math:`\textstyle\sum_{i}\,c_{i}` of a minibatch"
    )


def test_a_block_of_a_docstring_becomes_a_table_with_a_row_for_each_label(parts):
    block = ["    term   f(x)", "    d/dx   a", "           b", "    A      c,  d"]
    lines = ["Head.", "", ".. code-block:: text", "", *block]
    parts["formulas"]._process(None, "", "", None, None, lines)
    assert lines[:2] == ["Head.", ""]
    assert [line for line in lines if "- " in line] == [
        "   * - term",
        "     - :math:`f(x)`",
        "   * - :math:`d/dx`",
        "     - :math:`a\\,b`",
        "   * - :math:`A`",
        "     - :math:`c,` :math:`d`",
    ]


def test_every_public_name_is_on_one_page_of_the_reference(parts):
    listed = [name for names in parts["reference"].names().values() for name in names]
    assert len(listed) == len(set(listed))
    public = {
        f"{module.__name__}.{name}"
        for module in (sf, vi, policy)
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__name__", "") == name
    }
    # What both modules have is listed once.
    assert public - set(listed) == set()
    assert "scorefn.ScoreFunction" in parts["reference"].names()["estimators"]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("sf.moments", "moments"),
        ("Pathwise()", "Pathwise"),
        ("scorefn.ScoreFunction(sf.LeaveOneOut())", "ScoreFunction"),
        ("policy.gae", "policy.gae"),
        ("sample", None),
        ("x + 1", None),
    ],
)
def test_code_that_names_an_object_is_a_link(parts, code, name):
    found = parts["reference"].CODE.fullmatch(code)
    assert (found and found[1]) == name


def test_the_navigation_is_the_list_of_links_of_the_page(parts):
    text = "# A\n\n## One\n\n- [a](a.md): x\n- [b](../b/c.ipynb)\n- [c](#d)\n\n## Two\n\nText.\n"
    trees = parts["navigation"].toctrees(text)
    assert trees.count("toctree") == 1
    assert ":caption: One\n\na <a>\nb <../b/c>\n```" in trees


def test_links_that_lead_nowhere_and_parts_from_a_network_are_found(parts, tmp_path):
    other = '<a href="index.html#here">x</a><a href="https://example.org">x</a>'
    (tmp_path / "other.html").write_text(other)
    page = '<p id="here"></p><a href="other.html">x</a><a href="other.html#no">x</a>'
    page += '<a href="none.html">x</a><script src="https://example.org/x.js"></script>'
    (tmp_path / "index.html").write_text(page)
    assert sorted(parts["website"].dead_links(tmp_path)) == [
        "index.html: https://example.org/x.js needs a network",
        "index.html: none.html does not exist",
        "index.html: other.html#no has no such heading",
    ]


@pytest.mark.skipif(
    not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    reason="there is no browser",
)
def test_what_is_too_wide_and_pictures_that_are_missing_are_found(parts, tmp_path):
    (tmp_path / "good.html").write_text('<!DOCTYPE html><p style="width: 300px">x</p>')
    bad = '<!DOCTYPE html><body style="margin: 0"><p style="width: 800px">x</p>'
    bad += '<img src="no.png"><p class="math">x</p>'
    (tmp_path / "bad.html").write_text(bad)
    found = parts["layout"].problems(tmp_path, seconds=60)
    assert "/bad.html at 390 px: 410 pixels too wide" in found
    assert "/bad.html at 768 px: 32 pixels too wide" in found
    for width in (390, 768, 1280):
        assert f"/bad.html at {width} px: 1 formulas are not set" in found
        assert f"/bad.html at {width} px: 1 pictures are not shown" in found
    assert len(found) == 8


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_its_links_lead_somewhere(parts, tmp_path):
    assert parts["website"].build(tmp_path / "site") == 0
    assert list(parts["website"].dead_links(tmp_path / "site")) == []
    page = (tmp_path / "site" / "docs" / "which_estimator.html").read_text()
    assert 'href="api/estimators.html#scorefn.DisARM"' in page
