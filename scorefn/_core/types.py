"""Types shared by many packages."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

PyTree = Any
Vmap = Callable[[Callable[[Any], Any]], Callable[[Any], Any]]
Cost = Callable[[Any], tuple[PyTree, PyTree]]
Terms = tuple[PyTree, PyTree]  # one term and one aux for each key, [n, ...]


class Sample(NamedTuple):
    """The term of one sample; with a log-density, its cost instead.

    ``attach_score`` then makes the term, with the mean cost of the other samples as the baseline.
    """

    value: PyTree
    log_prob: jax.Array | None = None
