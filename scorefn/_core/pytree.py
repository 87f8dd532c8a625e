"""Immutable values that are pytrees, each told apart by its class."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


def static_field(**options: Any) -> Any:
    """A field of a `pytree_dataclass` that is no child: part of the structure, as a shape is."""
    return field(metadata={"static": True}, **options)


@dataclass_transform(frozen_default=True, field_specifiers=(field, static_field))
def pytree_dataclass(cls: type[T]) -> type[T]:
    """A frozen dataclass that is a pytree: its fields are its children, but for the static ones.

    JAX's own ``register_dataclass`` will not do (up to jax 0.12 at least): it compares the
    structures of two records by their static fields alone, so that an ``ARM()`` is equal to a
    ``DisARM()``. Only their hashes differ, of which a jitted function compares 7 bits: now and
    then it would run the program of the other class, without a word.
    """
    cls = dataclass(frozen=True)(cls)
    static = [f.name for f in fields(cls) if f.metadata.get("static")]  # type: ignore[arg-type]
    children = [f.name for f in fields(cls) if f.name not in static]  # type: ignore[arg-type]
    keys = [jax.tree_util.GetAttrKey(name) for name in children]

    def flatten(value: T) -> tuple[list[Any], tuple[Any, ...]]:
        static_values = tuple(getattr(value, name) for name in static)
        return [getattr(value, name) for name in children], static_values

    def flatten_with_keys(value: T) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        values, static_values = flatten(value)
        return list(zip(keys, values, strict=True)), static_values

    def unflatten(static_values: tuple[Any, ...], values: Iterable[Any]) -> T:
        # Not through the constructor, whose checks are not for what JAX puts into a tree.
        value = object.__new__(cls)
        for name, x in [
            *zip(children, values, strict=True),
            *zip(static, static_values, strict=True),
        ]:
            object.__setattr__(value, name, x)
        return value

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls
