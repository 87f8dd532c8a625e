"""Families of a location and a scale, and the centers of symmetric ones."""

from typing import Any

import jax.numpy as jnp

from .classes import MULTIVARIATE_NORMALS, class_of, unwrapped

_FAMILIES = ("Gumbel", "Laplace", "Logistic", "LogStddevNormal", "Normal", "StudentT", "Uniform")
_SYMMETRIC = ("Laplace", "Logistic", "LogStddevNormal", "Normal", "StudentT", "Uniform")


def location_scale(inner: Any) -> tuple[Any, Any] | None:
    """The (location, scale) of a location-scale family, or None.

    Those of a Uniform are its lower end and its width.
    """
    library, _, name = class_of(inner).partition(".")
    if name not in _FAMILIES:
        return None
    if name != "Uniform":
        return inner.loc, inner.scale
    ends = (inner.minval, inner.maxval) if library == "flowjax" else (inner.low, inner.high)
    return ends[0], ends[1] - ends[0]


def center_of_symmetry(distribution: Any) -> Any:
    """The point about which the draws are symmetric, or None."""
    inner = unwrapped(distribution)
    name = class_of(inner)
    if name in MULTIVARIATE_NORMALS:
        center = getattr(inner, "loc", None)
        if center is not None:
            return center
        return inner.mean() if callable(inner.mean) else inner.mean
    if name.partition(".")[2] not in _SYMMETRIC:
        return None
    read: Any = location_scale(inner)
    location, scale = read
    return location + scale / 2 if name.endswith(".Uniform") else jnp.asarray(location)


def is_affine_in_noise(distribution: Any) -> bool:
    """Whether a draw is mean plus scale times standardized noise."""
    inner = unwrapped(distribution)
    name = class_of(inner)
    known = name.partition(".")[2] in _FAMILIES and not name.endswith(".StudentT")
    return name in MULTIVARIATE_NORMALS or known
