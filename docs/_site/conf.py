"""The settings of the site: ``python docs/website.py`` builds it."""

import sys
from importlib.resources import files
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

import scorefn  # noqa: E402

project = "scorefn"
author = copyright = "The scorefn authors"
release = version = scorefn.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "formulas",
    "navigation",
    "reference",
]

# The sources are the repository itself, so that a link leads to the same page here and on a forge.
root_doc = "docs/README"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "docs/results/*.md",
    "docs/api/*.rst",
    "notebooks/README.md",
    "notebooks/*.ipynb",
]
exclude_patterns = ["docs/_*"]

# Notebooks keep the outputs that they were committed with; notebooks/build.py runs them.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "dollarmath"]
# Links to the headings of pages, made as a forge makes them.
myst_heading_anchors = 4

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"scorefn {release}"
# MathJax in one file that needs no other; the package holds a copy of it.
MATHJAX = "tex-svg-full.js"
html_static_path = ["static", str(files("mathjax") / "static/mathjax/es5" / MATHJAX)]
mathjax_path = MATHJAX
html_css_files = ["site.css"]
templates_path = ["templates"]
html_additional_pages = {"index": "index.html"}
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
copybutton_exclude = ".linenos, .gp, .go"
pygments_style, pygments_dark_style = "tango", "monokai"
