"""A monitor of the gradient's signal and noise, for a training loop."""

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

    An immutable value that a training loop or scan carries like an optimizer state. With weights w
    that add up to 1, let m and s be the weighted means of the gradients and their squared norms:

    .. code-block:: text

        noise     v = (s - |m|^2) / (1 - sum w^2)
        signal    |m|^2 - v sum w^2

    Both are unbiased for independent gradients of one distribution; drift of the mean within about
    ``1 / (1 - decay)`` steps appears as noise. An update takes two passes over the gradient, fewer
    than Adam; its time is negligible for the head of a network (see docs/estimators.md). Gradients
    that are not finite are skipped and counted.

    Attributes:
        mean_sum: the decayed sum of gradients: zeros like the gradient.
        square_sum: the decayed sum of the squared norm of each array in it, a pytree of scalars.
        decay: the factor on past gradients at each update, in [0, 1).
        weight_sum: the decayed sum of the weights.
        weight_square_sum: the decayed sum of the squared weights.
        skipped: the number of skipped gradients.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def step(monitor, key):
        ...     gradient = {"w": 3.0 + jax.random.normal(key, (4,))}
        ...     return monitor.update(gradient), monitor.snr()
        >>> monitor = sf.GradientSNR.like({"w": jnp.zeros(4)})
        >>> keys = jax.random.split(jax.random.key(0), 1000)
        >>> monitor, history = jax.lax.scan(step, monitor, keys)
        >>> print(f"{monitor.snr():.1f}")
        3.0

    References:
        Rainforth et al., Tighter variational bounds are not necessarily better (2018), section 3.1,
        on the ratio; Kish, Survey sampling (1965), on ``1 / sum w^2``, the effective number.
    """

    mean_sum: PyTree
    square_sum: PyTree
    decay: float | jax.Array
    weight_sum: jax.Array
    weight_square_sum: jax.Array
    skipped: jax.Array

    @classmethod
    def like(cls, params: PyTree, *, decay: float = 0.99) -> "GradientSNR":
        """A new monitor, for gradients like the parameters (or their shapes)."""
        dtypes = jax.tree.map(lambda p: wide(jnp.result_type(p)), params)
        return cls(
            mean_sum=jax.tree.map(lambda p, d: jnp.zeros(jnp.shape(p), d), params, dtypes),
            square_sum=jax.tree.map(lambda d: jnp.zeros((), d), dtypes),
            decay=decay,
            weight_sum=jnp.zeros(()),
            weight_square_sum=jnp.zeros(()),
            skipped=jnp.zeros((), int),
        )

    def update(self, gradient: PyTree) -> "GradientSNR":
        """The monitor after one more gradient, a pytree like `mean_sum`.

        Raises:
            ValueError: the gradient has other shapes.
        """
        got, asked = (jax.tree.map(jnp.shape, tree) for tree in (gradient, self.mean_sum))
        if got != asked:
            raise ValueError(
                f"gradient must be a pytree of shapes {asked}, like mean_sum; got {got}."
            )
        gradient = jax.tree.map(lambda g, m: stop(jnp.asarray(g, m.dtype)), gradient, self.mean_sum)
        squares = jax.tree.map(lambda g: jnp.sum(jnp.square(g)), gradient)
        finite = jnp.isfinite(_total(squares))

        def step(total: jax.Array, new: jax.Array) -> jax.Array:
            kept = self.decay * total + (1 - self.decay) * new
            return jnp.where(finite, kept.astype(total.dtype), total)

        weight_squares = self.decay**2 * self.weight_square_sum + (1 - self.decay) ** 2
        return replace(
            self,
            mean_sum=jax.tree.map(step, self.mean_sum, gradient),
            square_sum=jax.tree.map(step, self.square_sum, squares),
            weight_sum=step(self.weight_sum, jnp.ones(())),
            weight_square_sum=jnp.where(finite, weight_squares, self.weight_square_sum),
            skipped=self.skipped + ~finite,
        )

    def signal(self) -> PyTree:
        """An unbiased estimate of the squared norm of each mean; noise can make it negative."""
        share = self._share()
        return jax.tree.map(
            lambda m, v: m - v * share.astype(v.dtype), self._mean_squares(), self.noise()
        )

    def noise(self) -> PyTree:
        """The variance of each array, summed over its components; nan before the second update."""
        share = 1 - self._share()

        def noise(mean_square: jax.Array, square: jax.Array) -> jax.Array:
            # 0 / 0 = nan for one gradient; numbers below 0 come from rounding only.
            found = jnp.maximum(square / self.weight_sum.astype(square.dtype) - mean_square, 0)
            return found / jnp.maximum(share, 0).astype(found.dtype)

        return jax.tree.map(noise, self._mean_squares(), self.square_sum)

    def snr(self) -> jax.Array:
        """The ratio for all parameters together; nan before the second update."""
        return _ratio(_total(self.signal()), _total(self.noise()))

    def snr_by_parameter(self) -> PyTree:
        """The ratio for each array, a pytree of scalars."""
        return jax.tree.map(_ratio, self.signal(), self.noise())

    def _share(self) -> jax.Array:
        return self.weight_square_sum / jnp.square(self.weight_sum)

    def _mean_squares(self) -> PyTree:
        return jax.tree.map(
            lambda m: jnp.sum(jnp.square(m / self.weight_sum.astype(m.dtype))), self.mean_sum
        )


def _ratio(signal: jax.Array, noise: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.maximum(signal, 0) / noise)


def _total(tree: PyTree) -> jax.Array:
    return reduce(jnp.add, jax.tree.leaves(tree))
