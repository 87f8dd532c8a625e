"""Writes the generated parts of these pages from the code: ``python docs/build.py``."""

import ast
import inspect
import re
from html import escape
from pathlib import Path

import scorefn as sf

FOLDER = Path(__file__).parent
PAGE, CHART = FOLDER / "estimators.md", FOLDER / "which_estimator.svg"
NOTEBOOK = FOLDER.parent / "notebooks" / "11_which_estimator.py"
LINE = 18  # the height of a line of the chart
CHART_FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 420 {height}" width="420" height="{height}">
<style>
text {{ font: 13px system-ui, sans-serif; fill: #222; }}
.question {{ text-anchor: middle; }}
.note {{ font-size: 12px; fill: #555; text-anchor: middle; }}
.unbiased, .biased {{ font-weight: 600; fill: #0067b1; }}
.biased {{ fill: #b84c00; }}
rect, path {{ fill: none; stroke: #666; }}
</style>
<rect width="420" height="{height}" style="fill: #fff; stroke: none"/>
<text x="10" y="20">Start at the top and stop at the first yes.</text>
<text x="10" y="38" class="unbiased">Blue: unbiased.</text>
<text x="150" y="38" class="biased">Orange: biased.</text>
{body}
</svg>
"""
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


def questions() -> dict[str, list[str]]:
    """Questions about a loss, and the estimators for a yes: those of the notebook."""
    found = re.search(r"^questions = (\{.*?^\})", NOTEBOOK.read_text(), re.DOTALL | re.MULTILINE)
    return ast.literal_eval(found[1])


def chart() -> str:
    """The questions as a flowchart that can be read on a phone, in SVG."""
    asked, parts, top, before = questions(), [], 52, None
    for number, (question, names) in enumerate(asked.items()):
        lines, asks = question.split("\n"), number < len(asked) - 2
        box, height = LINE * len(lines) + 10, LINE * max(len(lines) + 0.6, len(names))
        middle = top + height / 2
        if before is not None:
            parts.append(f'<path d="M110 {before:g}V{middle - box / 2:g}"/>')
        if asks:
            parts.append(_text(230, middle - 9, ["yes"], "note"))
            parts.append(_text(122, top + height + 16, ["no"], "note"))
        parts += [
            f'<rect x="10" y="{middle - box / 2:g}" width="200" height="{box}" rx="6"/>',
            _text(110, middle, lines, "question"),
            f'<path d="M210 {middle:g}h44m-6 -4l6 4l-6 4"/>',
        ]
        for place, name in enumerate(names):
            y = middle + LINE * (place - (len(names) - 1) / 2)
            kind = "unbiased" if getattr(sf, name).unbiased else "biased"
            parts.append(_text(262, y, [name], kind))
        top, before = top + height + 24, middle + box / 2
    return CHART_FRAME.format(height=round(top), body="\n".join(parts))


def _text(x: float, y: float, lines: list[str], kind: str) -> str:
    """Lines of text around the height y."""
    first = y + 5 - LINE * (len(lines) - 1) / 2
    return "".join(
        f'<text x="{x}" y="{first + LINE * i:g}" class="{kind}">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    CHART.write_text(chart())
