"""The formulas of docstrings, which are plain text there, as mathematics."""

import re
from collections.abc import Iterator

from sphinx.application import Sphinx

GREEK = {"lam": r"\lambda", "eps": r"\varepsilon"} | {
    name: rf"\{name}" for name in ("alpha", "beta", "delta", "pi", "rho", "sigma", "theta")
}
NAMED = {
    "E": r"\mathbb{E}",
    "sum": r"\textstyle\sum",
    "prod": r"\textstyle\prod",
    "inf": r"\infty",
} | {name: rf"\{name}" for name in ("log", "exp", "max", "min")}
OPERATORS = "softmax sigmoid sqrt clip argmax atanh stop icdf cdf tr Cov Var KL".split()
NAMED |= {name: rf"\operatorname{{{name}}}" for name in OPERATORS}
SYMBOLS = {
    "~": r"\sim ",
    "*": r"\,",
    "!=": r"\ne ",
    "<=": r"\le ",
    ">=": r"\ge ",
    "...": r"\ldots ",
    " . ": r"\cdot ",
    " | ": r"\mid ",
    "||": r"\,\|\,",
    ":": r"{:}\ ",
    ",": r",\ ",
    ";": r";\ ",
}
TOKEN = re.compile(
    r"(?P<code>``[^`]+``|`[^`]+`|jax\.\w+)"
    r"|(?P<space>\s+(?![.|] ))"
    r"|(?P<word>[A-Za-z]+'s\b|[A-Za-z]{2,}(?:-[A-Za-z]{2,})+|(?:sum|mean)(?= of\b)|a(?= [a-z]{4}))"
    r"|(?P<name>(?:[A-Za-z]\w*?_\{[^}]*\}|[A-Za-z]\w*?_\([^)]*\)|[A-Za-z]\w*)'*"
    r"(?:(?<=[px])[+-](?=[\s),]))?)"
    r"|(?P<power>\^(?:\([^()]*\)|-?\w+))"
    r"|(?P<other> [.|] |\|\||\.\.\.|[<>!]=|.)"
)
# Short words of prose; any other of one or two letters is a variable.
SPACE = "\\ "
PROSE = "of to at by up is it if in as or on no an for".split()
PAIR = re.compile(r"([a-z])_([a-z]{2})")
INDEX = r"([A-Za-z]\d?|\d|\{.*\}|\(.*\))"


def name(text: str) -> str:
    """A variable, perhaps with an index, or a word."""
    marks = re.search(r"[+'-]*$", text)[0]
    base = text[: len(text) - len(marks)]
    marks = f"^{{{marks}}}" if marks.strip("'") else marks
    if base in NAMED | GREEK:
        return (NAMED | GREEK)[base] + marks
    indexed = re.fullmatch(rf"(\w*[A-Za-z0-9])_{INDEX}", base) or PAIR.fullmatch(base)
    if indexed:
        index = re.sub(r"^[{(]|[})]$", "", indexed[2])
        return f"{name(indexed[1])}_{{{tex(index.replace(' in ', ' ∈ '))}}}{marks}"
    if re.fullmatch(r"d(log|params|theta|logits|cdf|log_\w+)", base):
        return rf"d{'' if base[1:] in GREEK else chr(92) + ','}{name(base[1:])}{marks}"
    if len(base) <= 2 and base not in PROSE:
        return base + marks
    escaped = base.replace("_", r"\_")
    return rf"\text{{{escaped}}}{marks}"


def tokens(text: str) -> list[tuple[str, str]]:
    """The kinds and the texts of the parts of a formula."""
    made = []
    for found in TOKEN.finditer(text):
        word = found[0].isalpha() and name(found[0]).startswith(r"\text{")
        made.append(("word" if word else str(found.lastgroup), found[0]))
    return made


def tex(text: str) -> str:
    """A formula in LaTeX."""
    made, before, spaced = "", "", False
    for kind, part in tokens(text):
        if kind == "space":
            spaced = True
            continue
        # A space between two factors is a product; one beside a word is a space.
        after = kind in ("name", "word") or part in "([|" or part.isdigit()
        if spaced and after and before in ("name", "word", "power", "close"):
            made += r"\ " if "word" in (kind, before) else r"\,"
        if kind == "word":
            made += rf"\text{{{part}}}"
        elif kind == "name":
            made += name(part)
        elif kind == "power":
            made += f"^{{{tex(part[1:].strip('()'))}}}"
        else:
            made += SYMBOLS.get(part, part)
        before, spaced = ("close" if part in ")]" or part.isdigit() else kind), False
    return made


def pieces(text: str) -> Iterator[tuple[bool, str]]:
    """The parts that a line may break between: whether each is a formula, and its text."""
    depth, formula, parts = 0, "", tokens(text)
    # Words beside other words are prose; a word beside a sign is a part of a formula.
    solid = [i for i, (kind, _) in enumerate(parts) if kind != "space"]
    kinds = {i: parts[i][0] for i in solid}
    beside = dict(zip(solid, zip([-1, *solid], [*solid[1:], -1], strict=False), strict=False))
    for i, (kind, token) in enumerate(parts):
        called = i + 1 < len(parts) and parts[i + 1][1] == "("
        neighbors = [kinds.get(j) for j in beside.get(i, ())]
        prose = kind == "code" or (
            kind == "word" and not called and ("word" in neighbors or "code" in neighbors)
        )
        if (
            depth == 0
            and formula.strip()
            and (prose or token == "+" or formula.strip()[-1] in ",;")
        ):
            yield True, formula
            formula = ""
        if depth == 0 and prose:
            yield False, token
        else:
            formula += token
        depth += (token in ("(", "[", "{")) - (token in (")", "]", "}"))
    if formula.strip():
        yield True, formula


def inline(text: str) -> str:
    """A formula, or words with formulas, in reStructuredText."""
    made = ""
    for formula, part in pieces(text):
        if not formula:
            made += f" ``{part}``" if part.startswith("jax.") else f" {part}"
        elif re.fullmatch(r"[\s,;.:]+", part):
            made += part.strip()
        elif part.strip().startswith(":"):
            made += f": :math:`{tex(part.strip()[1:].strip())}`"
        else:
            made += f" :math:`{tex(part.strip()).removesuffix(SPACE).strip()}`"
    return made.strip()


def table(block: list[str]) -> list[str]:
    """The rows of a formula: each a label, if there is one, and what it stands for."""
    rows: list[list[str]] = []
    for line in block:
        if line.startswith(" ") and rows and not line.strip().startswith("sum_"):
            rows[-1][1] += f" {line.strip()}"
        elif line.startswith(" "):
            rows.append(["", line.strip()])
        elif match := re.fullmatch(r"([^=]{0,23}?[^=,;\s])  +(.*)", line):
            rows.append([match[1], match[2]])
        else:
            rows.append(["", line])
    made = [".. list-table::", "   :class: formula", "   :widths: auto", ""]
    for label, formula in rows:
        word = len(label) > 2 and label.replace("-", "").isalpha()
        shown = label if word else inline(label)
        made += [f"   * - {shown}", f"     - {inline(formula)}"]
    return [*made, ""]


def _process(_app: Sphinx, _what: str, _name: str, _obj: object, _opts: object, lines: list[str]):
    """Replaces the blocks of plain text in a docstring."""
    made, rest = [], list(lines)
    while rest:
        line = rest.pop(0)
        if line.strip() != ".. code-block:: text":
            made.append(line)
            continue
        indent = line[: len(line) - len(line.lstrip())]
        block = []
        while rest and (not rest[0].strip() or rest[0].startswith(indent + "    ")):
            block.append(rest.pop(0)[len(indent) + 4 :])
        made += [indent + row for row in table([row for row in block if row.strip()])]
    lines[:] = made


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the formulas to the docstrings."""
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
