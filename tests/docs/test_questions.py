"""The pages by question: their code runs in order, and prints what its comments say."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [
    "zero_gradient",
]
EXPECTED = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_prints_what_its_comments_say(page, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)
    scope = {}
    for block in blocks:
        exec(block, scope)
        expected = EXPECTED.findall(block)
        assert capsys.readouterr().out.splitlines() == expected
        assert block.count("print(") == len(expected)
    assert len(blocks) > 1
