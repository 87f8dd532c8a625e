"""The branches of a program at a choice, and their random keys."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._batching.samples import chunked_vmap
from scorefn._core.arrays import reuse_key

# Numbers for fold_in that do not collide with the keys of `split`.
_AGAIN, _OUTSIDE = 2**31, 2**32 - 1


class Branches:
    """A map over the branches of a choice that tracks the current key."""

    def __init__(self, chunk_size: int | None, key: jax.Array) -> None:
        self._chunk_size = chunk_size
        self._all = key
        self._mapped = itertools.count()
        self._present: jax.Array | None = None

    @property
    def key(self) -> jax.Array:
        """The key of the current branch; repeated reads return equal keys."""
        # Some estimators evaluate f once for all samples, outside of any branch.
        present = self._present
        return jax.random.fold_in(self._all, _OUTSIDE) if present is None else reuse_key(present)

    def vmap(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """``jax.vmap(fn)``, possibly in chunks, with a separate key for each call of fn."""

        def one(both: tuple[Any, jax.Array]) -> Any:
            x, key = both
            before, self._present = self._present, key
            try:
                return fn(x)
            finally:
                self._present = before

        def mapped(xs: Any) -> Any:
            n = jax.tree.leaves(xs)[0].shape[0]
            i = next(self._mapped)
            key = jax.random.fold_in(self._all, _AGAIN + i) if i else self._all
            both = xs, dealt(key, n)
            if n > 1 or self._chunk_size is not None:
                return chunked_vmap(one, chunk_size=self._chunk_size)(both)
            # No axis for a choice of one sample, so that arrays of a long program keep few axes.
            y = one(jax.tree.map(lambda x: jnp.reshape(x, x.shape[1:]), both))
            return jax.tree.map(lambda y: jnp.expand_dims(y, 0), y)

        return mapped


def dealt(key: jax.Array, n: int) -> jax.Array:
    """The keys [n] split from one key; for n = 1 the key itself."""
    return jax.random.split(key, n) if n > 1 else jnp.expand_dims(key, 0)
