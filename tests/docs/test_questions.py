"""The pages by question: their code runs in order, and prints what its comments say."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [
    "checkpoints",
    "coming_from",
    "greeks",
    "minibatches",
    "state",
    "unbiased",
    "upgrading",
    "zero_gradient",
]
# What the tests do not install: each pins much of its own, or was removed.
OPTIONAL = {"netket", "optax.monte_carlo", "pyro", "torch"}
EXPECTED = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)


# Of other packages.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_prints_what_its_comments_say(page, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)
    scope = {}
    for block in blocks:
        modules = re.findall(r"^(?:import|from) ([\w.]+)", block, re.MULTILINE)
        if not all(map(importlib.util.find_spec, OPTIONAL & set(modules))):
            continue
        exec(block, scope)
        shown = capsys.readouterr().out.splitlines()
        expected = EXPECTED.findall(block)
        assert len(expected) == block.count("print(")
        # A line of a loop is printed more than once.
        assert list(dict.fromkeys(shown)) == list(dict.fromkeys(expected))
    assert len(blocks) > 1
