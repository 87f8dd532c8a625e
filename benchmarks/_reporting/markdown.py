"""Tables in markdown, and numbers in them."""

from collections.abc import Sequence
from typing import Any


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """The lines of a table, header and rule included."""
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def short(value: Any, form: str = ".3g") -> str:
    """A number in few digits; None is nothing."""
    if value is None:
        return ""
    return format(value, form) if isinstance(value, float) else str(value)
