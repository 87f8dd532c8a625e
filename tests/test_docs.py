"""What the documents say: the README's code runs, the generated tables are those of the code."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_code_of_the_readme_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 2
    scope = {}
    for block in blocks:
        exec(block, scope)
    assert capsys.readouterr().out == "-0.14\n"
    assert set(scope["gradients"]) == {"logits", "scale"}


def test_the_table_of_estimators_is_that_of_the_code():
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs" / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    text = build.PAGE.read_text()
    assert "`ScoreFunction`" in build.table()
    assert build.page(text) == text, "run python docs/build.py"
    assert build.page(text.replace("`Pathwise`", "`Pathwize`", 1)) == text


@pytest.mark.parametrize(
    "name", ["README.md", "docs/design.md", "docs/estimators.md", "docs/programs.md"]
)
def test_links_lead_somewhere(name):
    page = ROOT / name
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link
