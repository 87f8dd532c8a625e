"""A monitor of the gradient's signal and noise, for a training loop."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import jax
import jax.numpy as jnp

from scorefn._core.arrays import stop, wide
from scorefn._core.pytree import pytree_dataclass
from scorefn._core.types import PyTree


@pytree_dataclass
class GradientSNR:
    r"""A monitor of the signal-to-noise ratio of the gradients of a training run.

    .. code-block:: text

        snr    |E g| / sqrt(sum of the variances of g),  exponentially weighted over past steps

    An immutable value that a training loop or scan carries like an optimizer state. It compares
    each gradient with the one before it, by weighted means over the past pairs:

    .. code-block:: text

        signal    mean of g_t . g_(t-1)
        noise     mean of |g_t - g_(t-1)|^2 / 2

    Both are unbiased for independent gradients of one distribution, as at fixed parameters. While
    parameters move the ratio is a lower bound: a step along the noise of one gradient makes the
    next one point back, which lowers the signal by about the step size times the curvature times
    the noise, and the change of the mean in one step counts as noise. The ratio is nan before the
    second update, and whenever the estimate of the signal is negative: then the signal is too small
    to be seen in the noise of about ``1 / (1 - decay)`` steps, or in the changes that the steps
    make. An update takes two passes over the gradient, fewer than Adam; its time is negligible for
    the head of a network (see docs/which_estimator.md). Gradients that are not finite are skipped
    and counted.

    Attributes:
        previous: the last gradient that was not skipped.
        product_sum: the decayed sum of products of successive gradients, for each array in them a
            scalar.
        change_sum: the decayed sum of half the squared norms of their differences, likewise.
        decay: the factor on the past at each update, in [0, 1).
        weight_sum: the decayed sum of the weights; 0 before the second update.
        updates: the number of gradients that were not skipped.
        skipped: the number of skipped gradients.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def step(monitor, key):
        ...     gradient = {"w": 3.0 + jax.random.normal(key, (4,))}
        ...     return monitor.update(gradient), monitor.snr()
        >>> monitor = sf.GradientSNR.like({"w": jnp.zeros(4)})
        >>> keys = jax.random.split(jax.random.key(0), 1000)
        >>> monitor, history = jax.lax.scan(step, monitor, keys)
        >>> print(f"{monitor.snr():.0f}")
        3

    References:
        Rainforth et al., Tighter variational bounds are not necessarily better (2018), section 3.1,
        on the ratio; von Neumann, Distribution of the ratio of the mean square successive
        difference to the variance (1941), on the noise.
    """

    previous: PyTree
    product_sum: PyTree
    change_sum: PyTree
    decay: float | jax.Array
    weight_sum: jax.Array
    updates: jax.Array
    skipped: jax.Array

    @classmethod
    def like(cls, params: PyTree, *, decay: float = 0.99) -> GradientSNR:
        """A new monitor, for gradients like the parameters (or their shapes)."""
        dtypes = jax.tree.map(lambda p: wide(jnp.result_type(p)), params)
        zeros = jax.tree.map(lambda dtype: jnp.zeros((), dtype), dtypes)
        return cls(
            previous=jax.tree.map(lambda p, d: jnp.zeros(jnp.shape(p), d), params, dtypes),
            product_sum=zeros,
            change_sum=zeros,
            decay=decay,
            weight_sum=jnp.zeros(()),
            updates=jnp.zeros((), int),
            skipped=jnp.zeros((), int),
        )

    def update(self, gradient: PyTree) -> GradientSNR:
        """The monitor after one more gradient, a pytree like `previous`.

        Raises:
            ValueError: the gradient has other shapes.
        """
        got, asked = (jax.tree.map(jnp.shape, tree) for tree in (gradient, self.previous))
        if got != asked:
            raise ValueError(
                f"gradient must be a pytree of shapes {asked}, like previous; got {got}."
            )
        gradient = jax.tree.map(lambda g, m: stop(jnp.asarray(g, m.dtype)), gradient, self.previous)
        products = jax.tree.map(lambda g, m: jnp.sum(g * m), gradient, self.previous)
        changes = jax.tree.map(lambda g, m: jnp.sum((g - m) ** 2) / 2, gradient, self.previous)
        finite = jnp.isfinite(_total(changes))
        paired = finite & (self.updates > 0)

        def step(total: jax.Array, new: jax.Array) -> jax.Array:
            kept = self.decay * total + (1 - self.decay) * new
            return jnp.where(paired, kept.astype(total.dtype), total)

        return replace(
            self,
            previous=jax.tree.map(lambda g, m: jnp.where(finite, g, m), gradient, self.previous),
            product_sum=jax.tree.map(step, self.product_sum, products),
            change_sum=jax.tree.map(step, self.change_sum, changes),
            weight_sum=step(self.weight_sum, jnp.ones(())),
            updates=self.updates + finite,
            skipped=self.skipped + ~finite,
        )

    def signal(self) -> PyTree:
        """An estimate of the squared norm of each mean; noise can make it negative."""
        return self._mean(self.product_sum)

    def noise(self) -> PyTree:
        """The variance of each array, summed over its components; nan before the second update."""
        return self._mean(self.change_sum)

    def snr(self) -> jax.Array:
        """The ratio for all parameters together; nan where no signal is seen."""
        return _ratio(_total(self.signal()), _total(self.noise()))

    def snr_by_parameter(self) -> PyTree:
        """The ratio for each array, a pytree of scalars."""
        return jax.tree.map(_ratio, self.signal(), self.noise())

    def _mean(self, totals: PyTree) -> PyTree:
        # 0 / 0 = nan before there is a pair.
        return jax.tree.map(lambda total: total / self.weight_sum.astype(total.dtype), totals)


def _ratio(signal: jax.Array, noise: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.where(signal < 0, jnp.nan, signal) / noise)


def _total(tree: PyTree) -> jax.Array:
    return reduce(jnp.add, jax.tree.leaves(tree))
