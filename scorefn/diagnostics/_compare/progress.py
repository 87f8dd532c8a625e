"""A progress bar by tqdm, where that is installed and somebody looks."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Protocol


class Bar(Protocol):
    """What is told of the progress."""

    def update(self, repeats: int) -> object:
        """So many repeats more."""

    def set_description(self, text: str) -> object:
        """What is going on."""


class _Silent:
    def update(self, repeats: int) -> None: ...

    def set_description(self, text: str) -> None: ...


@contextmanager
def bar(total: int, *, shown: bool) -> Iterator[Bar]:
    """A bar over the repeats; nothing without tqdm, and where stderr is no terminal."""
    if not shown:
        yield _Silent()
        return
    try:
        with warnings.catch_warnings(action="ignore"):
            tqdm = import_module("tqdm.auto").tqdm
    except ImportError:
        yield _Silent()
        return
    with tqdm(total=total, unit="gradient", disable=None, leave=False) as shown_bar:
        yield shown_bar
