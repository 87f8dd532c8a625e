"""What is compiled of each estimator: gradients to be measured, and gradients to be timed."""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scorefn._core.arrays import reuse_key, wide
from scorefn._core.types import PyTree

Loss = Callable[[PyTree, jax.Array, Any], jax.Array]


class Programs:
    """The two compiled programs of one estimator.

    Its arrays are arguments of theirs, so that no compiler folds them; all else in it is static, as
    in a loss that closes over it.
    """

    def __init__(self, loss: Loss, estimator: Any, params: PyTree) -> None:
        leaves, structure = jax.tree.flatten(estimator)
        is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
        self._params = params
        self._arrays = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]

        def gradient(params: PyTree, key: jax.Array, arrays: list[jax.Array]) -> PyTree:
            given = iter(arrays)
            pairs = zip(leaves, is_array, strict=True)
            whole = jax.tree.unflatten(
                structure, [next(given) if array else leaf for leaf, array in pairs]
            )
            return jax.grad(loss)(params, key, whole)

        self._batch = jax.jit(_batch(gradient), static_argnames=("size", "chunk_size"))
        self._steps = jax.jit(_steps(gradient))

    def batch(
        self, key: jax.Array, centre: PyTree, signs: PyTree, *, size: int, chunk_size: int
    ) -> tuple[PyTree, np.ndarray, np.ndarray]:
        """The mean of so many gradients, and of each the squared norm and the projections.

        All three are of the gradient less the centre; [size] and [size, directions] the last two.
        """
        found = self._batch(
            *(self._params, self._arrays, reuse_key(key), centre, signs),
            size=size,
            chunk_size=chunk_size,
        )
        mean, squares, projections = jax.device_get(found)
        return mean, np.asarray(squares, np.float64), np.asarray(projections, np.float64)

    def steps(self, key: jax.Array, count: int) -> None:
        """So many gradients, one after the other."""
        # A rate of 0 that the compiler does not know of.
        jax.block_until_ready(self._steps(self._params, self._arrays, reuse_key(key), 0.0, count))


def _batch(gradient: Callable[..., PyTree]) -> Callable[..., Any]:
    def run(
        params: PyTree,
        arrays: list[jax.Array],
        key: jax.Array,
        centre: PyTree,
        signs: PyTree,
        *,
        size: int,
        chunk_size: int,
    ) -> Any:
        def errors(key: jax.Array) -> tuple[PyTree, jax.Array, jax.Array]:
            found = gradient(params, key, arrays)
            error = jax.tree.map(lambda g, c: g.astype(c.dtype) - c, found, centre)
            square = reduce(jnp.add, [jnp.sum(jnp.square(e)) for e in jax.tree.leaves(error)])
            # Not in the lower precision that accelerators multiply matrices in.
            along = jax.tree.map(
                lambda s, e: jnp.sum(s.astype(e.dtype) * e, axis=tuple(range(1, s.ndim))),
                signs,
                error,
            )
            return error, square, jnp.concatenate(jax.tree.leaves(along))

        def step(total: PyTree, keys: jax.Array) -> tuple[PyTree, tuple[jax.Array, jax.Array]]:
            error, squares, along = jax.vmap(errors)(keys)
            return jax.tree.map(lambda t, e: t + jnp.sum(e, 0), total, error), (squares, along)

        keys = jax.random.split(key, size)
        chunks = keys.reshape(size // chunk_size, chunk_size, *keys.shape[1:])
        zeros = jax.tree.map(jnp.zeros_like, centre)
        total, (squares, along) = jax.lax.scan(step, zeros, chunks)
        mean = jax.tree.map(lambda t: t / size, total)
        return mean, squares.reshape(size), along.reshape(size, -1)

    return run


def _steps(gradient: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Gradient descent: each gradient needs the parameters that the one before it left.

    Nothing can then be moved out of the loop, as all of an `Enumerate` would be that sees the same
    parameters again and again; and no time goes into dispatch. What needs neither parameters nor
    key, as its costs of a fixed support, stays because a compiler takes nothing out of a branch.
    """

    def run(
        params: PyTree, arrays: list[jax.Array], key: jax.Array, rate: jax.Array, count: jax.Array
    ) -> PyTree:
        def step(i: jax.Array, params: PyTree) -> PyTree:
            one = partial(gradient, params, jax.random.fold_in(key, i), arrays)
            found = jax.lax.cond(rate == 0, one, partial(jax.tree.map, jnp.zeros_like, params))
            return jax.tree.map(lambda p, g: p - jnp.asarray(rate, p.dtype) * g, params, found)

        return jax.lax.fori_loop(0, count, step, params)

    return run


def directions(params: PyTree, *, at_most: int = 8) -> PyTree:
    """Random signs for each parameter, [directions, ...] of int8: 1 for a scalar, `at_most` else.

    A component that is rarely far from 0, as one category of a thousand, has no normal mean in
    some thousand repeats; a sum of all of them has. A bias of norm b shows in each direction as a
    normal of standard deviation b, and in the largest of eight almost surely.
    """
    generator = np.random.default_rng(0)

    def signs(leaf: Any) -> np.ndarray:
        count = 1 if np.size(leaf) == 1 else at_most
        drawn = generator.choice([-1, 1], size=(count, *np.shape(leaf)))
        return (np.ones_like(drawn) if count == 1 else drawn).astype(np.int8)

    return jax.tree.map(signs, params)


def zeros(params: PyTree) -> PyTree:
    """Zeros like a gradient, float32 or wider."""
    return jax.tree.map(lambda p: np.zeros(p.shape, wide(p.dtype)), params)
