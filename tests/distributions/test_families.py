"""The table of all families in docs/families.md is whole, without a wrong cell, and still true.

A few families are swept anew. ``SWEEP=1 python -m pytest tests/distributions/test_families.py``
sweeps all of them, which takes about half an hour.
"""

import os

import pytest
from support.families import FAMILIES
from support.sweep import FAULTS, cells, outcome, written

SWEPT = FAMILIES if os.environ.get("SWEEP") else FAMILIES[7::45]


def test_the_page_has_every_family_and_nothing_is_wrong() -> None:
    table = written()
    assert list(table) == [family.name for family in FAMILIES]
    assert {cell for row in table.values() for cell in row.values()} == {
        "right",
        "raises",
        "fault",
        "-",
    }
    faults = {(name, cell) for name, row in table.items() for cell in row if row[cell] == "fault"}
    assert faults == set(FAULTS)


@pytest.mark.slow
@pytest.mark.parametrize("family", SWEPT, ids=lambda family: family.name)
def test_a_family_is_what_the_page_says(family) -> None:
    assert {name: outcome(family, name) for name in cells()} == written()[family.name]
