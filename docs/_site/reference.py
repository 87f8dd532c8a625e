"""The pages of the reference: every public name once, by the room that it lives in."""

import inspect
import re
from pathlib import Path
from types import ModuleType

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

import scorefn

# Where an object is defined, and the page that it is on; the first that fits.
PAGES = {
    "scorefn.policy": "policy",
    "scorefn.vi": "vi",
    "scorefn.diagnostics": "diagnostics",
    "scorefn.distributions": "distributions",
    "scorefn.programs": "programs",
    "scorefn._baselines": "baselines",
    "scorefn.estimators._control_variates": "control_variates",
    "scorefn.estimators._sampling_schemes": "sampling_schemes",
    "scorefn.estimators": "estimators",
    "scorefn": "expectation",
}
TITLES = {
    "expectation": "Expectations",
    "estimators": "Estimators",
    "control_variates": "Control variates",
    "sampling_schemes": "Sampling schemes",
    "baselines": "Baselines",
    "distributions": "Distributions",
    "programs": "Programs",
    "diagnostics": "Diagnostics",
    "vi": "Variational inference",
    "policy": "Policy gradients",
}
# A name, perhaps called: `sf.moments`, `policy.gae`, `Pathwise()`. Other lower-case words are often
# variables.
CODE = re.compile(r"(?:sf\.|scorefn\.)?((?:(?<=\.)|policy\.|vi\.|(?=[A-Z]))\w+)(?:\(.*\))?")
# As sphinx writes out jax.typing.ArrayLike.
ARRAY_LIKE = re.compile(r"~\S+Array \| ~numpy\S+( \| ~?[\w.]+)+ \| complex")
DOCUMENTED = {"vi": scorefn.vi, "policy": scorefn.policy}


def names() -> dict[str, list[str]]:
    """The public names of each page, in the order of its package."""
    found: dict[str, list[str]] = {page: [] for page in TITLES}
    seen = set()
    for module in (scorefn, scorefn.vi, scorefn.policy):
        for name, value in vars(module).items():
            # A former name is the same object once more.
            public = not name.startswith("_") and not isinstance(value, ModuleType)
            if public and name == value.__name__ and id(value) not in seen:
                seen.add(id(value))
                page = next(p for room, p in PAGES.items() if value.__module__.startswith(room))
                found[page].append(f"{module.__name__}.{name}")
    return found


def page(title: str, listed: list[str], about: str) -> str:
    """One page, in reStructuredText."""
    parts = [f"{title}\n{'=' * len(title)}\n", about]
    for name in listed:
        value: object = scorefn
        for part in name.split(".")[1:]:
            value = getattr(value, part)
        if inspect.isclass(value):
            parts.append(f".. autoclass:: {name}\n   :members:\n   :exclude-members: terms\n")
        else:
            parts.append(f".. autofunction:: {name}\n")
    return "\n".join(parts)


def write(app: Sphinx) -> None:
    """Writes the pages below the sources, where git ignores them."""
    folder = Path(app.srcdir) / "docs" / "api"
    folder.mkdir(exist_ok=True)
    for name, listed in names().items():
        module = DOCUMENTED.get(name)
        about = f"{inspect.getdoc(module)}\n" if module else ""
        path, text = folder / f"{name}.rst", page(TITLES[name], listed, about)
        # A page that is as before is not read again.
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _short(
    _app: Sphinx, _what: str, _name: str, _obj: object, _options: object, *signature: str | None
) -> tuple[str | None, ...]:
    """The signature, with the name of a type that sphinx writes out."""
    return tuple(part and ARRAY_LIKE.sub("ArrayLike", part) for part in signature)


class Links(SphinxPostTransform):
    """Links from code in the text, such as `sf.Pathwise()`, to the reference."""

    default_priority = 500

    def run(self, **_: object) -> None:
        """Wraps the code that names an object."""
        objects = self.env.domains.python_domain.objects
        for literal in list(self.document.findall(nodes.literal)):
            named = CODE.fullmatch(literal.astext())
            entry = objects.get(f"scorefn.{named[1]}") if named else None
            if entry is None or isinstance(literal.parent, nodes.reference):
                continue
            builder, here = self.app.builder, self.env.docname
            link = f"{builder.get_relative_uri(here, entry.docname)}#{entry.node_id}"
            reference = nodes.reference("", "", internal=True, refuri=link)
            literal.replace_self(reference)
            reference += literal


def setup(app: Sphinx) -> dict[str, bool]:
    """Writes the pages before the sources are read."""
    app.connect("builder-inited", write)
    app.add_post_transform(Links)
    app.connect("autodoc-process-signature", _short)
    return {"parallel_read_safe": True}
