"""Base classes of the sampling schemes."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import abstract_key, gathered, spread_like
from scorefn._core.types import Cost, Terms, Vmap
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._interop.quantiles import InverseCdf, read_quantile
from scorefn.estimators._base import Estimator, Transformation, nested

from .indexed_keys import number_of, numbered_keys

Point = Callable[[jax.Array, jax.Array], jax.Array]


class SamplingScheme(Transformation):
    """An estimator around another one, with its own way to make draws."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for inside in nested(self.estimator):
            if isinstance(inside, SamplingScheme):
                raise TypeError(
                    f"{type(self).__name__} makes its own draws, and so does the wrapped "
                    f"{type(inside).__name__}. Use one of them."
                )


class PointSet(SamplingScheme):
    """An estimator on draws made by the inverse cdf from points of the unit cube.

    Each single point is uniform, so each term has the mean that it has with independent draws. A
    coupled estimator would be biased, and is refused.

    Attributes:
        estimator: the wrapped estimator.
        icdf: ``icdf(params, u) -> x``, or None to read it from the distribution.
    """

    icdf: InverseCdf | None

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        coupled = [inside for inside in nested(self.estimator) if inside.coupled]
        if coupled:
            raise TypeError(
                f"{name} makes draws that depend on one another, and {_described(coupled[-1])} "
                f"needs independent draws: it would be biased. Use Pathwise, or ScoreFunction "
                f"with a MovingAverage or a ConstantBaseline."
            )

    @property
    def streams(self) -> bool:
        """False, because the points are made for all samples together."""
        return False

    @abstractmethod
    def points(self, key: jax.Array, n: int, size: int) -> Point:
        """A function ``point(i, noise)``: the point of sample i, [size] in (0, 1).

        The key is shared by all samples. The noise, [size] in (0, 1), is that of sample i.
        """

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        name, n = type(self).__name__, len(keys)
        quantile = read_quantile(name, self.icdf, distribution, abstract_key(keys))
        pairs = jax.vmap(jax.random.split)(keys)
        point = self.points(gathered(pairs[:, 0], 0)[0], n, quantile.size)

        def sample(params: Any, key: jax.Array) -> Any:
            number, placed = number_of(key)
            noise = uniform(jax.random.bits(key, (quantile.size,), jnp.uint32), quantile.dtype)
            # A second draw of one sample has no point, and is independent.
            u = jnp.where(placed, point(number, noise), noise)
            return quantile.draw(params, u)

        numbers = spread_like(jnp.arange(n, dtype=jnp.uint32), keys)
        placed = replace(distribution, sample=sample)
        return self.estimator.terms(f, placed, numbered_keys(pairs[:, 1], numbers), vmap)


def uniform(bits: jax.Array, dtype: Any) -> jax.Array:
    """Numbers in (0, 1), from 32 bits each; 0 and 1 excluded, symmetric about 1/2."""
    kept = min(32, jnp.finfo(dtype).nmant)
    return ((bits >> (32 - kept)).astype(dtype) + 0.5) * jnp.asarray(2.0**-kept, dtype)


def _described(estimator: Estimator) -> str:
    baseline = getattr(estimator, "baseline", None)
    name = type(estimator).__name__
    return name if baseline is None else f"{name}({type(baseline).__name__}())"
