"""The programs of an estimator: gradients to be measured, and gradients to be timed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scorefn._core.arrays import merged, picked, reuse_key, wide
from scorefn._core.types import PyTree

Loss = Callable[[PyTree, jax.Array, Any], jax.Array]


class Components:
    """The components of a gradient in a row, and random directions among them.

    Attributes:
        zeros: zeros like a gradient, float32 or wider.
        signs: see `directions`, which gives them unless they are given.
        size: the number of components.
        directions: the number of directions, of all leaves together.
        eps: the largest relative rounding error of a component.
    """

    def __init__(self, params: PyTree, signs: PyTree = None) -> None:
        self.zeros = jax.tree.map(lambda p: np.zeros(p.shape, wide(p.dtype)), params)
        self.signs = directions(params) if signs is None else signs
        self._leaves, self._structure = jax.tree.flatten(self.zeros)
        self._flat_signs = [np.reshape(s, (len(s), -1)) for s in jax.tree.leaves(self.signs)]
        self.size = sum(leaf.size for leaf in self._leaves)
        self.directions = sum(len(signs) for signs in self._flat_signs)
        self.eps = max(float(np.finfo(leaf.dtype).eps) for leaf in self._leaves)

    def row(self, gradient: PyTree) -> np.ndarray:
        """The components of a pytree, [size]."""
        leaves = [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(gradient)]
        return np.concatenate(leaves)

    def tree(self, row: np.ndarray) -> PyTree:
        """The pytree of a row of components."""
        parts = zip(self._leaves, self._split(row), strict=True)
        leaves = [part.reshape(zero.shape).astype(zero.dtype) for zero, part in parts]
        return jax.tree.unflatten(self._structure, leaves)

    def project(self, row: np.ndarray) -> np.ndarray:
        """A gradient along each direction, [directions]."""
        parts = zip(self._flat_signs, self._split(row), strict=True)
        return np.concatenate([signs @ part for signs, part in parts])

    def sum_of_squares(self, along: np.ndarray) -> float:
        """The squared norm of a gradient, from its squares along each direction."""
        ends = np.cumsum([len(signs) for signs in self._flat_signs])[:-1]
        return float(sum(np.mean(part) for part in np.split(along, ends)))

    def _split(self, row: np.ndarray) -> list[np.ndarray]:
        return np.split(row, np.cumsum([leaf.size for leaf in self._leaves])[:-1])


def directions(params: PyTree) -> PyTree:
    """Random signs for each parameter, [directions, ...] of int8: 1 for a scalar, else 8.

    A component that is rarely far from 0, as one category of a thousand, has no normal mean in
    some thousand repeats; a sum of all of them has. A bias of norm b shows in each direction as a
    normal of standard deviation b, and in the largest of eight almost surely.
    """
    generator = np.random.default_rng(0)

    def signs(leaf: Any) -> np.ndarray:
        count = 1 if np.size(leaf) == 1 else 8
        drawn = generator.choice([-1, 1], size=(count, *np.shape(leaf)))
        return (np.ones_like(drawn) if count == 1 else drawn).astype(np.int8)

    return jax.tree.map(signs, params)


@dataclass(frozen=True)
class Batch:
    """A batch of gradients of one estimator, relative to a center.

    Attributes:
        center: [components].
        mean: the mean of gradient - center, [components].
        squares: the squared norms of gradient - center, [repeats].
        along: the projections of gradient - center, [repeats, directions].
    """

    center: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    along: np.ndarray


class Gradients:
    """The two compiled programs of one estimator.

    Arrays of the estimator are arguments, so that no compiler folds them; the rest is static, as in
    a loss that closes over it.
    """

    def __init__(self, loss: Loss, estimator: Any, params: PyTree, components: Components) -> None:
        leaves, structure = jax.tree.flatten(estimator)
        is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
        self._params, self._components = params, components
        self._arrays = picked(leaves, is_array)

        def gradient(params: PyTree, key: jax.Array, arrays: list[jax.Array]) -> PyTree:
            whole = jax.tree.unflatten(structure, merged(leaves, is_array, arrays))
            return jax.grad(loss)(params, key, whole)

        self._batch = jax.jit(partial(_batch, gradient), static_argnames=("size", "chunk_size"))
        self._steps = jax.jit(partial(_steps, gradient))

    def batch(self, key: jax.Array, center: np.ndarray, *, size: int, chunk_size: int) -> Batch:
        """A batch of independent gradients, relative to the center."""
        components, given = self._components, (self._params, self._arrays, reuse_key(key))
        sizes = {"size": size, "chunk_size": chunk_size}
        found = self._batch(*given, components.tree(center), components.signs, **sizes)
        mean, squares, along = jax.device_get(found)
        # The center as it was subtracted: in the precision of a gradient.
        at = components.row(components.tree(center))
        return Batch(
            at, components.row(mean), np.asarray(squares, np.float64), np.asarray(along, np.float64)
        )

    def steps(self, key: jax.Array, count: int) -> None:
        """Runs so many gradients, one after the other."""
        jax.block_until_ready(self._steps(self._params, self._arrays, reuse_key(key), 0.0, count))


def _batch(
    gradient: Callable[..., PyTree],
    params: PyTree,
    arrays: list[jax.Array],
    key: jax.Array,
    center: PyTree,
    signs: PyTree,
    *,
    size: int,
    chunk_size: int,
) -> Any:
    def errors(key: jax.Array) -> tuple[PyTree, jax.Array, jax.Array]:
        found = gradient(params, key, arrays)
        error = jax.tree.map(lambda g, c: g.astype(c.dtype) - c, found, center)
        square = reduce(jnp.add, [jnp.sum(jnp.square(e)) for e in jax.tree.leaves(error)])
        # Not in the lower precision that accelerators multiply matrices in.
        along = jax.tree.map(
            lambda s, e: jnp.sum(s.astype(e.dtype) * e, axis=tuple(range(1, s.ndim))), signs, error
        )
        return error, square, jnp.concatenate(jax.tree.leaves(along))

    def step(total: PyTree, keys: jax.Array) -> tuple[PyTree, tuple[jax.Array, jax.Array]]:
        error, squares, along = jax.vmap(errors)(keys)
        return jax.tree.map(lambda t, e: t + jnp.sum(e, 0), total, error), (squares, along)

    keys = jax.random.split(key, size)
    chunks = keys.reshape(size // chunk_size, chunk_size, *keys.shape[1:])
    zeros = jax.tree.map(jnp.zeros_like, center)
    total, (squares, along) = jax.lax.scan(step, zeros, chunks)
    mean = jax.tree.map(lambda t: t / size, total)
    return mean, squares.reshape(size), along.reshape(size, -1)


def _steps(
    gradient: Callable[..., PyTree],
    params: PyTree,
    arrays: list[jax.Array],
    key: jax.Array,
    rate: jax.Array,
    count: jax.Array,
) -> PyTree:
    """Gradient descent: each gradient needs the parameters that the one before it left.

    Nothing can then be moved out of the loop, as all of an `Enumerate` would be that sees the same
    parameters again and again; and no time goes into dispatch. The rate is 0.
    """

    def step(i: jax.Array, params: PyTree) -> PyTree:
        one = partial(gradient, arrays=arrays)
        found = computed_whole(one, rate, params, params, jax.random.fold_in(key, i))
        return jax.tree.map(lambda p, g: p - jnp.asarray(rate, p.dtype) * g, params, found)

    return jax.lax.fori_loop(0, count, step, params)


def computed_whole(
    function: Callable[..., PyTree], zero: jax.typing.ArrayLike, like: PyTree, *arguments: Any
) -> PyTree:
    """``function(*arguments)``, of which no compiler moves any part out of a loop around it.

    A compiler takes nothing out of a branch, and does not know that `zero` is 0. Otherwise the
    costs of a fixed support, for example, would be computed once for all gradients that are timed.
    `like` has the shapes of the result.
    """
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    return jax.lax.cond(zero == 0, function, lambda *_: nothing, *arguments)
