"""Builds the site and checks it: ``python docs/website.py [--out DIR]``; needs no network.

Warnings are errors, and so are links that lead nowhere. Where Chromium is installed its layout is
checked as well: nothing is wider than the window, and every formula and figure is shown.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
SETTINGS, OUT = ROOT / "docs" / "_site", ROOT / "build" / "site"


class Page(HTMLParser):
    """The links of a page, the files that it is made of, and the names in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.parts: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                (self.links if tag == "a" else self.parts).append(value)
            elif name in ("id", "name") and value:
                self.names.add(value)


def dead_links(out: Path) -> Iterator[str]:
    """The links of a site to files or headings that it does not have; parts from a network."""
    out = out.resolve()
    pages = {path: Page(path.read_text()) for path in out.rglob("*.html")}
    for path, page in pages.items():
        place = path.relative_to(out)
        for link in [*page.links, *page.parts]:
            url = urlsplit(link)
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            wanted = unquote(url.fragment)
            if url.scheme or url.netloc:
                if link in page.parts and url.scheme != "data":
                    yield f"{place}: {link} needs a network"
            elif not target.exists():
                yield f"{place}: {link} does not exist"
            elif wanted and target in pages and wanted not in pages[target].names:
                yield f"{place}: {link} has no such heading"


def build(out: Path) -> int:
    """Builds the site; the exit status of Sphinx."""
    options = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(SETTINGS)]
    command = [sys.executable, "-m", "sphinx", *options, str(ROOT), str(out)]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """Builds and checks; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="the folder to write to")
    out = parser.parse_args().out
    status = build(out)
    if status:
        return status
    sys.path.insert(0, str(SETTINGS))
    from layout import browser, problems

    found = list(dead_links(out))
    if browser() is None:
        sys.stderr.write("There is no Chromium here: the layout was not checked.\n")
    else:
        found += problems(out)
    sys.stderr.write("".join(f"{problem}\n" for problem in found))
    sys.stdout.write(f"The site is in {out}: open {out / 'index.html'}\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
