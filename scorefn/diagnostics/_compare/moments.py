"""Means and variances of gradients, merged batch by batch in constant memory and double precision.

Every estimator sees the same keys. So a row does not depend on which other rows there are; a lucky
batch is lucky for all, which makes ratios of variances sharper than the variances; and what the
draws have in common is measured (`Comoments`), never assumed away.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from scorefn._core.types import PyTree

from .programs import Programs, zeros


class Moments:
    """What is known of the gradients of several estimators after so many batches.

    Attributes:
        count: repeats so far.
        mean: of the gradient, [estimators, components].
        distance: co-moments of the squared distances of a gradient from the mean of those before,
            times k / (k + 1) after k of them: then each has the variance as its mean.
        largest: the largest of these, [estimators].
        along: co-moments of the projections, for each direction, [estimators] each.
    """

    def __init__(self, params: PyTree, signs: PyTree, names: Sequence[str]) -> None:
        self.count = 0
        self.names = tuple(names)
        self._zeros = zeros(params)
        self._signs = signs
        self._flat_signs = [np.reshape(s, (len(s), -1)) for s in jax.tree.leaves(signs)]
        components = sum(leaf.size for leaf in jax.tree.leaves(self._zeros))
        directions = sum(len(s) for s in self._flat_signs)
        self.mean = np.zeros((len(names), components))
        self._squares = np.zeros(len(names))
        self.distance = Comoments(len(names))
        self.largest = np.zeros(len(names))
        self.along = [Comoments(len(names)) for _ in range(directions)]

    def add(
        self, programs: Mapping[str, Programs], key: jax.Array, size: int, chunk_size: int
    ) -> None:
        """One more batch, its draws those of the key and of how many came before."""
        key = jax.random.fold_in(key, self.count)
        # Of the first batch the mean is wanted before the distances: it is run twice.
        first = self.count == 0
        distances, projections = [], []
        for i, name in enumerate(self.names):
            run = programs[name].batch
            sizes = {"size": size, "chunk_size": chunk_size}
            centre = self.tree(self.mean[i])
            if first:
                centre = run(key, centre, self._signs, **sizes)[0]
            mean, squares, along = run(key, centre, self._signs, **sizes)
            at, step = _flat(centre), _flat(mean)
            scale = size / max(size - 1, 1) if first else self.count / (self.count + 1)
            distances.append(squares * scale)
            projections.append(along + self.project(at))
            # Chan, Golub and LeVeque (1983), equation 2.1.
            share = size / (self.count + size)
            between = np.sum(np.square(at + step - self.mean[i])) * self.count * share
            within = np.sum(squares) - size * np.sum(np.square(step))
            self._squares[i] += max(within, 0.0) + between if within == within else np.nan
            self.mean[i] += (at + step - self.mean[i]) * share
        self.count += size
        self.largest = np.maximum(self.largest, np.max(distances, axis=1))
        self.distance.add(np.array(distances))
        for k, comoments in enumerate(self.along):
            comoments.add(np.array(projections)[:, :, k])

    @property
    def eps(self) -> float:
        """What a gradient is rounded by, as a part of it."""
        return max(float(np.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(self._zeros))

    @property
    def variance(self) -> np.ndarray:
        """Of one gradient, summed over its components, [estimators]; 0 where it is but rounding."""
        found = self._squares / (self.count - 1)
        rounding = (8 * self.eps) ** 2 * np.sum(np.square(self.mean), axis=1)
        return np.where(found <= rounding, 0.0, found)

    def project(self, gradient: np.ndarray) -> np.ndarray:
        """A gradient along each direction, [directions]."""
        return np.concatenate(
            [s @ g for s, g in zip(self._flat_signs, self._split(gradient), strict=True)]
        )

    def sum_of_squares(self, along: np.ndarray) -> float:
        """The squared norm of a gradient, from its squares along each direction."""
        ends = np.cumsum([len(s) for s in self._flat_signs])[:-1]
        return float(sum(np.mean(part) for part in np.split(along, ends)))

    def tree(self, gradient: np.ndarray) -> PyTree:
        """A gradient as a pytree."""
        leaves, structure = jax.tree.flatten(self._zeros)
        parts = zip(leaves, self._split(gradient), strict=True)
        return jax.tree.unflatten(structure, [g.reshape(z.shape).astype(z.dtype) for z, g in parts])

    def _split(self, gradient: np.ndarray) -> list[np.ndarray]:
        sizes = [leaf.size for leaf in jax.tree.leaves(self._zeros)]
        return np.split(gradient, np.cumsum(sizes)[:-1])


class Comoments:
    """Means and covariances of numbers that come in batches.

    Attributes:
        count: how many of each there were.
        mean: [numbers].
    """

    def __init__(self, numbers: int) -> None:
        self.count = 0
        self.mean = np.zeros(numbers)
        self._products = np.zeros((numbers, numbers))

    def add(self, values: np.ndarray) -> None:
        """A batch, [numbers, size]."""
        size = values.shape[1]
        mean = values.mean(axis=1)
        errors, step = values - mean[:, None], mean - self.mean
        share = size / (self.count + size)
        self._products += errors @ errors.T + np.outer(step, step) * self.count * share
        self.mean = self.mean + step * share
        self.count += size

    @property
    def covariance(self) -> np.ndarray:
        """[numbers, numbers]."""
        return self._products / (self.count - 1)


def _flat(tree: PyTree) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(tree)])
