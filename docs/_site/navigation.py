"""The navigation of the site: the lists of links on its first page."""

import re
from collections.abc import Iterable

from reference import TITLES
from sphinx.application import Sphinx

SECTION = re.compile(r"^## (.+)\n((?:.*\n)*?)(?=^## |\Z)", re.MULTILINE)
PAGE = re.compile(r"^- \[([^\]]*)\]\(([^):#]+)\.(?:md|ipynb)\)", re.MULTILINE)


def toctrees(text: str) -> str:
    """One tree for each section of a page that lists pages."""
    trees = ""
    for title, body in SECTION.findall(text):
        pages = [f"{text} <{path}>" for text, path in PAGE.findall(body)]
        if pages:
            trees += toctree(title, pages)
    return trees


def toctree(title: str, pages: Iterable[str]) -> str:
    """A part of the navigation."""
    caption = [f":caption: {title}"] if title else []
    return "\n".join(["", "```{toctree}", ":hidden:", *caption, "", *pages, "```", ""])


def _extend(_: Sphinx, page: str, source: list[str]) -> None:
    if page == "docs/README":
        source[0] += toctrees(source[0])
        source[0] += toctree("Reference", [f"api/{name}" for name in TITLES])
    elif page == "notebooks/README":
        numbered = re.findall(r"^\d+\. \[[^\]]*\]\((\w+)\.ipynb\)", source[0], re.MULTILINE)
        source[0] += toctree("", numbered)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the trees to the pages."""
    app.connect("source-read", _extend)
    return {"parallel_read_safe": True}
