"""The number of evaluations of f for one gradient, counted at run time."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import reuse_key, stop
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.types import Cost, PyTree, Terms, Vmap
from scorefn.distributions._distribution import Distribution
from scorefn.estimators._base import Estimator, Transformation

Tick = Callable[[jax.Array], jax.Array]


@pytree_dataclass
class _Counted(Transformation):
    """An estimator that has each evaluation of f counted."""

    estimator: Estimator
    tick: Tick = static_field()

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        def counted(x: Any) -> tuple[PyTree, PyTree]:
            self.tick(stop(jax.tree.leaves(x)[0]))
            return f(x)

        return self.estimator.terms(counted, distribution, keys, vmap)


def _ticks(add: Callable[[int], None]) -> Tick:
    """A function of a draw that adds 1 when the program runs: n once, under a vmap over n."""

    @cache
    def tick(n: int) -> Any:
        @jax.custom_batching.custom_vmap
        def one(x: jax.Array) -> jax.Array:
            jax.debug.callback(lambda _: add(n), x)
            return x

        @one.def_vmap
        def many(size: int, batched: Any, x: jax.Array) -> tuple[jax.Array, bool]:
            del batched
            return jnp.broadcast_to(tick(n * size)(x[0]), x.shape), True

        return one

    return tick(1)


def evaluations(
    loss: Callable[[PyTree, jax.Array, Any], jax.Array],
    params: PyTree,
    key: jax.Array,
    estimator: Any,
) -> int | None:
    """Evaluations of f for one loss; None without exactly one estimator.

    In a program of several choices the f of one is the rest of it, with the other choices inside.
    """
    leaves, structure = jax.tree.flatten(estimator, is_leaf=is_estimator)
    if sum(map(is_estimator, leaves)) != 1:
        return None
    counts: list[int] = []
    tick = _ticks(counts.append)
    counted = [_Counted(leaf, tick) if is_estimator(leaf) else leaf for leaf in leaves]
    try:
        # Compiled to run once.
        run = jax.jit(
            lambda params, key: loss(params, key, jax.tree.unflatten(structure, counted)),
            compiler_options={"xla_backend_optimization_level": 0},
        )
        jax.block_until_ready(run(params, reuse_key(key)))
        jax.effects_barrier()
    except Exception:  # noqa: BLE001
        # A loss may look into its estimator, or allow no callback: no count is no error.
        return None
    return sum(counts)


def is_estimator(value: Any) -> bool:
    """Whether it is an instance of an estimator."""
    return isinstance(value, Estimator)


def declared(value: Any) -> bool | None:
    """Whether all estimators declare that they are unbiased; None without any."""
    found = [leaf for leaf in jax.tree.leaves(value, is_leaf=is_estimator) if is_estimator(leaf)]
    return all(leaf.unbiased for leaf in found) if found else None
