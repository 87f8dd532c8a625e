"""Means and variances of gradients, merged batch by batch in constant memory and double precision.

Every estimator sees the same keys. So a row does not depend on which other rows there are; a lucky
batch is lucky for all, which makes ratios of variances sharper than the variances; and what the
draws have in common is measured (`Comoments`), never assumed away.
"""

from collections.abc import Sequence

import numpy as np

from .gradients import Batch, Components


class Moments:
    """Moments of the gradients of several estimators, after so many batches.

    Attributes:
        components: of a gradient.
        names: of the estimators.
        count: repeats so far.
        mean: the mean gradient, [estimators, components].
        distance: co-moments of the squared distances of a gradient from the mean of those before,
            times k / (k + 1) after k of them: then each has the variance as its mean.
        largest: the largest of these, [estimators].
        along: co-moments of the projections, [directions, estimators].
    """

    def __init__(self, components: Components, names: Sequence[str]) -> None:
        self.components, self.names, self.count = components, tuple(names), 0
        self.mean = np.zeros((len(names), components.size))
        self._squares = np.zeros(len(names))
        self.distance = Comoments(len(names))
        self.largest = np.zeros(len(names))
        self.along = Comoments(components.directions, len(names))

    def add(self, batches: Sequence[Batch], *, known: bool = False) -> None:
        """Adds a batch of each estimator, around the mean so far or the known mean."""
        size = len(batches[0].squares)
        scale = self.count / (self.count + 1) if self.count else size / max(size - 1, 1)
        scale = 1.0 if known else scale
        # Chan, Golub and LeVeque (1983), equation 2.1.
        share = size / (self.count + size)
        for i, batch in enumerate(batches):
            step = batch.center + batch.mean - self.mean[i]
            between = np.sum(np.square(step)) * self.count * share
            within = np.sum(batch.squares) - size * np.sum(np.square(batch.mean))
            self._squares[i] += max(within, 0.0) + between if within == within else np.nan
            self.mean[i] += step * share
        self.count += size
        distances = np.array([batch.squares * scale for batch in batches])
        self.largest = np.maximum(self.largest, np.max(distances, axis=1))
        self.distance.add(distances)
        project = self.components.project
        self.along.add(np.array([(b.along + project(b.center)).T for b in batches]).swapaxes(0, 1))

    @property
    def variance(self) -> np.ndarray:
        """The variance of one gradient, summed, [estimators]; 0 if it is only rounding."""
        found = self._squares / (self.count - 1)
        rounding = (8 * self.components.eps) ** 2 * np.sum(np.square(self.mean), axis=1)
        return np.where(found <= rounding, 0.0, found)


class Comoments:
    """Means and covariances of numbers that come in batches.

    Attributes:
        count: how many of each there were.
        mean: [..., numbers].
    """

    def __init__(self, *shape: int) -> None:
        self.count = 0
        self.mean = np.zeros(shape)
        self._products = np.zeros((*shape, shape[-1]))

    def add(self, values: np.ndarray) -> None:
        """A batch, [..., numbers, size]."""
        size = values.shape[-1]
        mean = values.mean(axis=-1)
        errors, step = values - mean[..., None], mean - self.mean
        share = size / (self.count + size)
        between = step[..., None] * step[..., None, :] * self.count * share
        self._products += errors @ np.swapaxes(errors, -1, -2) + between
        self.mean = self.mean + step * share
        self.count += size

    @property
    def covariance(self) -> np.ndarray:
        """[..., numbers, numbers]."""
        return self._products / (self.count - 1)
