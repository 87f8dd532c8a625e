"""The branches into which a program splits at a choice, and the random key of each."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._batching.samples import chunked_vmap
from scorefn._core.arrays import reuse_key

# Numbers that `split` of a key does not use up, for other keys from the same one.
_AGAIN, _OUTSIDE = 2**31, 2**32 - 1


class Branches:
    """Maps a function over the branches of a choice, and knows the key of the present one."""

    def __init__(self, chunk_size: int | None, key: jax.Array) -> None:
        self._chunk_size = chunk_size
        self._all = key
        self._mapped = itertools.count()
        self._present: jax.Array | None = None

    @property
    def key(self) -> jax.Array:
        """The key of the present branch: the same one however often it is asked for."""
        # Some estimators evaluate f once for all of their samples, in no branch at all.
        present = self._present
        return jax.random.fold_in(self._all, _OUTSIDE) if present is None else reuse_key(present)

    def vmap(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """``jax.vmap(fn)``, or chunks of it, where each call of fn has a key of its own."""

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
            if self._chunk_size is not None:
                return chunked_vmap(one, chunk_size=self._chunk_size)(both)
            if n > 1:
                return jax.vmap(one)(both)
            # An axis less for each choice of one sample: a long program stays flat.
            y = one(jax.tree.map(lambda x: jnp.reshape(x, x.shape[1:]), both))
            return jax.tree.map(lambda y: jnp.expand_dims(y, 0), y)

        return mapped


def dealt(key: jax.Array, n: int) -> jax.Array:
    """As many keys out of one, which is as good as one itself."""
    return jax.random.split(key, n) if n > 1 else jnp.expand_dims(key, 0)
