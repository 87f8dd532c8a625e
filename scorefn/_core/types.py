"""Types shared by many packages."""

from collections.abc import Callable
from typing import Any

PyTree = Any
Vmap = Callable[[Callable[[Any], Any]], Callable[[Any], Any]]


Cost = Callable[[Any], tuple[PyTree, PyTree]]
