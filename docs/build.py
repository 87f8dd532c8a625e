"""Writes the generated part of docs/estimators.md from the code: ``python docs/build.py``."""

import inspect
import re
from pathlib import Path

import scorefn as sf

PAGE = Path(__file__).parent / "estimators.md"
MARKERS = re.compile(r"(<!-- table:estimators -->\n).*?(<!-- /table -->)", re.DOTALL)


def estimators() -> list[type[sf.Estimator]]:
    """Every public estimator: the unbiased ones first, by name."""
    public = (getattr(sf, name) for name in sf.__dict__ if not name.startswith("_"))
    # A set, since a former name is the same class once more.
    classes = {c for c in public if inspect.isclass(c) and issubclass(c, sf.Estimator)}
    classes = {c for c in classes if not inspect.isabstract(c)}
    # Those that wrap another one have its facts, as properties; they come last.
    return sorted(classes, key=lambda c: (_wraps(c), not c.unbiased, c.__name__.lower()))


def _wraps(cls: type[sf.Estimator]) -> bool:
    return isinstance(cls.order, property)


def table() -> str:
    """The table of all estimators, as markdown."""
    lines = [
        "| estimator | what it is | good for | needs | evaluations | orders | unbiased |",
        "|---|---|---|---|---|---|---|",
    ]
    for cls in estimators():
        summary = inspect.getdoc(cls).splitlines()[0].rstrip(".")
        order, bias = ("as wrapped", "as wrapped") if _wraps(cls) else _facts(cls)
        coupled = ", coupled" if cls.coupled is True else ""
        evaluations = f"{cls.evaluations}{coupled}"
        cells = (f"`{cls.__name__}`", summary, cls.when, cls.needs, evaluations, order, bias)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _facts(cls: type[sf.Estimator]) -> tuple[str, str]:
    order = "all" if cls.order == float("inf") else f"{cls.order:.0f}"
    return order, "yes" if cls.unbiased else "**no**"


def page(text: str) -> str:
    """The page with its table made anew."""
    return MARKERS.sub(lambda found: found[1] + table() + found[2], text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
