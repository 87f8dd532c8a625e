"""Tables in markdown, and numbers in them."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any


def markdown(
    header: Sequence[str], lines: Iterable[Sequence[str]], *, words: Collection[int] = (0,)
) -> str:
    """A table, with columns of words aligned left and those of numbers right."""
    rule = ["---" if i in words else "---:" for i in range(len(header))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *lines))


def short(value: Any, form: str = ".3g") -> str:
    """A number in few digits; None is nothing."""
    if value is None:
        return ""
    return format(value, form) if isinstance(value, float) else str(value)
