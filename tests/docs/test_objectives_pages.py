"""docs/best_of_k.md and docs/risk.md: their code prints the tables that they show."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
WRONG = {"best_of_k.md": ["maximum", "best_draw", "minus_its_mean"], "risk.md": ["worst_draws"]}


def rows(table: str) -> dict[str, list[float]]:
    """The numbers of each row of a printed table, by its words and whole numbers."""
    found = {}
    for line in table.splitlines()[1:]:
        name = " ".join(word for word in line.split() if not re.search(r"[.%]", word))
        error, variance = line.split()[-2:]
        found[name] = [float(error.rstrip("%")), float(variance)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("page", WRONG)
def test_the_tables_are_those_of_the_code(page, capsys):
    text = (DOCS / page).read_text()
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, scope)
    (shown,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    printed, shown = rows(capsys.readouterr().out), rows(shown)
    assert list(printed) == list(shown)
    assert len(shown) >= 6
    for name, (error, variance) in printed.items():
        # The same keys: what differs is rounding.
        assert abs(error - shown[name][0]) < 0.5 + 0.01 * error, name
        assert abs(variance - shown[name][1]) < 1e-4 + 0.02 * variance, name
        wrong = name.split()[0] in WRONG[page]
        assert error > 25 if wrong else error < 5, name
