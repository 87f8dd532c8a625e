"""A markdown page as one self-contained HTML file, readable on a phone."""

import base64
import html as escaping
from collections.abc import Iterable, Mapping

from markdown_it import MarkdownIt
from markdown_it.token import Token

# The figures are drawn on white, and keep it in the dark. Tables and figures are wider than a
# phone: each scrolls in a box of its own, a table with its first column in sight. A shade at the
# right says that there is more; at the end of a table it is covered by what scrolls along.
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #ccc; --back: #fff; --text: #1a1a1a; --link: #0b57a4; }}
:root {{ --shade: #0002; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --line: #444; --back: #161616; --text: #e6e6e6; --link: #8ab8ff; --shade: #fff2; }}
}}
body {{
  max-width: 60rem; margin: 0 auto; padding: 1rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word;
}}
a {{ color: var(--link); }}
h2 {{ margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; }}
img {{ max-width: 100%; height: auto; background: #fff; }}
p:has(> img) {{ overflow-x: auto; }}
.table {{
  overflow-x: auto; margin: 1rem 0;
  background:
    linear-gradient(to left, var(--back) 50%, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--shade), transparent) right / 1rem 100% no-repeat scroll;
}}
table {{ border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--line); vertical-align: top; }}
td {{ min-width: 3rem; }}
th {{ text-align: left; vertical-align: bottom; }}
th:first-child, td:first-child {{
  position: sticky; left: 0; background: var(--back); min-width: min(8rem, var(--first));
}}
@media (max-width: 40rem) {{
  p:has(> img) img {{ width: 40rem; max-width: none; }}
}}
</style>
</head>
<body>
{body}</body>
</html>
"""


def html(text: str, title: str, images: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        text: in markdown, with tables.
        title: of the window.
        images: the PNG behind each image's address; they become part of the page.

    Raises:
        KeyError: an image is not among them.
    """
    parser = MarkdownIt("commonmark").enable("table")
    tokens = list(_fitted(parser.parse(text), images))
    body = parser.renderer.render(tokens, parser.options, {})
    return PAGE.format(title=escaping.escape(title), body=body)


def _fitted(tokens: Iterable[Token], images: Mapping[str, bytes]) -> Iterable[Token]:
    """Tables in boxes, images within, and headings that can be linked to."""
    heading = table = None
    for token in tokens:
        if token.type == "heading_open":
            heading = token
        elif token.type == "inline" and heading is not None:
            heading.attrSet("id", token.content.lower().replace(" ", "-"))
            heading = None
        for child in token.children or ():
            if child.type == "image":
                png = base64.b64encode(images[str(child.attrs["src"])]).decode()
                child.attrSet("src", f"data:image/png;base64,{png}")
        if token.type == "table_open":
            table, widest, first = token, 0, False
            yield _box('<div class="table">\n')
        elif token.type == "tr_open":
            first = True
        elif token.type == "inline" and table is not None and first:
            # The first column gets no more room than its longest cell can use.
            widest, first = max(widest, len(token.content)), False
            table.attrSet("style", f"--first: {widest}ch")
        yield token
        if token.type == "table_close":
            table = None
            yield _box("</div>\n")


def _box(text: str) -> Token:
    return Token("html_block", "", 0, content=text)
