"""Estimators and problems that are compared with hand-written code."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks._models import logistic

from . import cases, vae
from .cases import Case
from .many import quadratic


def _square(bits: jax.Array) -> jax.Array:
    return jnp.sum(bits - 0.45) ** 2


def _codes(bits: int) -> jax.Array:
    return jnp.array(list(itertools.product([0.0, 1.0], repeat=bits)))


def _likelihood(weights: jax.Array) -> jax.Array:
    return logistic.cost(weights, logistic.breast_cancer())


def by_hand(n: int) -> dict[str, Callable[[], Case]]:
    """Estimators and problems of so many samples, by name."""
    normals = {f"Normal, D = {d}": partial(cases.normal, quadratic, d) for d in (1, 10, 100)}
    categories = {
        f"Categorical, 20 x {c}": partial(cases.categories, quadratic, 20, c) for c in (10, 100)
    }
    bits = partial(cases.bits, _square, 20)
    scored = {**normals, "Bernoulli, D = 20": bits, **categories}
    values = lambda: cases.categories(quadratic, 1, 100)  # noqa: E731
    few = partial(cases.normal, _likelihood, 31)
    images = min(n, 100)
    return {
        **{f"ScoreFunction, {at}": _later(cases.score_function, p, n) for at, p in scored.items()},
        **{f"Pathwise, {at}": _later(cases.pathwise, p, n) for at, p in normals.items()},
        "DisARM, Bernoulli, D = 20": _later(cases.disarm, bits, n),
        "REBAR, Bernoulli, D = 20": _later(cases.rebar, bits, n),
        "Enumerate, Bernoulli, D = 10": lambda: cases.enumerated(
            cases.bits(_square, 10), _codes(10)
        ),
        "Enumerate, Categorical, 1 x 100": lambda: cases.enumerated(
            values(), jnp.arange(100)[:, None]
        ),
        "ScoreFunction, logistic regression": _later(cases.score_function, few, min(n, 50)),
        "Pathwise, logistic regression": _later(cases.pathwise, few, min(n, 50)),
        f"ScoreFunction, VAE step, {images} images": partial(vae.leave_one_out, images, 20, 2),
        f"DisARM, VAE step, {images} images": partial(vae.disarm, images, 20),
    }


def _later(way: Callable[[Any, int], Case], problem: Callable[[], Any], n: int) -> Any:
    return lambda: way(problem(), n)
