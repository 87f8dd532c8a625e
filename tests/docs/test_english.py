"""The prose: docstrings that open with a head, short ones, and words to avoid in code and pages."""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "notebooks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
FILES = [*sorted((ROOT / "scorefn").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]

# A summary that opens so is a clause without a noun or a verb at its head.
HEADLESS = re.compile(
    r"(What|Of|From|How|That|Where|When|Whose|Which|Who|Those|As|By|With|Without|In|At|To|For)\b"
)
MOST_WORDS = 15
# Each with what to write instead.
AVOID = {
    r"\bweigh(ed|s)?\b": "weighted",
    r"\bdear(er)?\b": "expensive",
    r"\binside it\b|\bthe one inside\b|\bestimator inside\b": "the wrapped estimator",
    r"\btakes? away\b": "reduces",
    r"\bwill not do\b|\bwill do\b": "does not work; works",
    r"\b(some|no)body\b|\bwhoever\b": "the caller, or the passive voice",
    r"\bwithout a word\b": "silently",
    r"\bat last\b|\bin its turn\b": "eventually; again",
    r"\bhand(s|ed|ing)? in\b": "pass",
    r"\blets? through\b": "does not check",
    r"\bno matter\b|\bstands and falls\b": "does not depend on; depends on",
    r"\bis told\b|\bis asked\b": "receives",
    r"\bby itself\b": "separately",
    r"\w+(al|im|re|or|gn)is(e|es|ed|ing|er|ation)\b(?<!raise)(?<!raises)(?<!raised)": "-ize",
    r"\b(centre|behaviour|neighbour|favour|colour)\w*": "American spelling",
}


def docstrings(file: Path) -> Iterator[tuple[str, str]]:
    """The names of the module, classes and functions of a file, with their docstrings."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "name", "module"), text


def prose(file: Path) -> Iterator[str]:
    """Comments, and strings of several words: docstrings and messages."""
    with file.open("rb") as stream:
        for token in tokenize.tokenize(stream.readline):
            if token.type == tokenize.COMMENT and "noqa" not in token.string:
                yield token.string
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value


def summary(text: str) -> str:
    """The first sentence of a docstring, or its first line."""
    return re.split(r"(?<=\.)\s", text.splitlines()[0])[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_docstrings_open_with_a_head_and_are_short(file: Path) -> None:
    for name, text in docstrings(file):
        assert not HEADLESS.match(text), f"{name}: {text.splitlines()[0]}"
        if not name.startswith("_") and "scorefn" in file.relative_to(ROOT).parts:
            assert len(summary(text).split()) <= MOST_WORDS, f"{name}: {summary(text)}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_words_to_avoid_do_not_occur(file: Path) -> None:
    for text in prose(file):
        # Titles of papers keep their spelling.
        text = text.partition("\nReferences:\n")[0].partition("\n    References:\n")[0]
        for pattern, better in AVOID.items():
            found = re.search(pattern, text)
            assert not found, f"{found and found[0]!r} (write: {better}) in: {text.strip()[:200]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_words_to_avoid_do_not_occur_in_pages(page: Path) -> None:
    # Code is tested as code; generated tables have titles of their own.
    text = re.sub(r"```.*?```|`[^`]*`|^\|[^\n]*", "", page.read_text(), flags=re.S | re.M)
    for pattern, better in AVOID.items():
        found = re.search(pattern, text)
        assert not found, f"{found and found[0]!r} (write: {better})"


def test_headless_summaries_are_found() -> None:
    assert HEADLESS.match("What a chunk holds.")
    assert HEADLESS.match("Of one gradient.")
    assert not HEADLESS.match("Forward derivatives.")
    assert summary("The mean. Of all.") == "The mean."
