"""Immutable dataclasses that are pytrees, distinguished by their class."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


def static_field(**options: Any) -> Any:
    """A field of a `pytree_dataclass` that belongs to the structure instead of the leaves."""
    return field(metadata={"static": True}, **options)


def leaf_names(record: Any) -> list[str]:
    """The names of the non-static fields of a `pytree_dataclass`."""
    return [f.name for f in fields(record) if not f.metadata.get("static")]


@dataclass_transform(frozen_default=True, field_specifiers=(field, static_field))
def pytree_dataclass(cls: type[T]) -> type[T]:
    """A frozen dataclass that is a pytree with its non-static fields as children.

    JAX's ``register_dataclass`` does not work here (up to jax 0.12 at least): it compares the
    structures of two records by their static fields only, so an ``ARM()`` equals a ``DisARM()``.
    Only their hashes differ, of which a jitted function compares 7 bits: it would sometimes
    silently run the program of the other class.
    """
    cls = dataclass(frozen=True)(cls)
    children = leaf_names(cls)
    static = [f.name for f in fields(cls) if f.name not in children]  # type: ignore[arg-type]
    keys = [jax.tree_util.GetAttrKey(name) for name in children]

    def flatten(value: T) -> tuple[list[Any], tuple[Any, ...]]:
        static_values = tuple(getattr(value, name) for name in static)
        return [getattr(value, name) for name in children], static_values

    def flatten_with_keys(value: T) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        values, static_values = flatten(value)
        return list(zip(keys, values, strict=True)), static_values

    def unflatten(static_values: tuple[Any, ...], values: Iterable[Any]) -> T:
        # Bypasses the constructor, whose checks would reject JAX's placeholders.
        value = object.__new__(cls)
        for name, x in [
            *zip(children, values, strict=True),
            *zip(static, static_values, strict=True),
        ]:
            object.__setattr__(value, name, x)
        return value

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls
