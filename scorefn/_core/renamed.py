"""Former names of keyword arguments, which work for one release."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T")


def renamed_keyword(old: str, new: str) -> Callable[[T], T]:
    """A decorator for functions and classes that passes the keyword `old` as `new`."""

    def decorate(target: T) -> T:
        fn: Any = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]

        @wraps(fn)
        def renamed(*args: Any, **kwargs: Any) -> Any:
            if old in kwargs:
                kwargs[new] = kwargs.pop(old)
            return fn(*args, **kwargs)

        if not isinstance(target, type):
            return renamed  # type: ignore[return-value]
        target.__init__ = renamed  # type: ignore[misc]
        return target

    return decorate
