"""The mean and the scale of a distribution, read from its library."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import stop, wide
from scorefn._core.checks import certified
from scorefn.distributions._discrete import Bernoulli
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._subset import Subset

from .classes import MULTIVARIATE_NORMALS, class_of, unwrapped

Moments = tuple[jax.Array, jax.Array]


def read_moments(
    name: str,
    moments: Callable[[Any], Moments] | None,
    distribution: Distribution,
    key: jax.Array,
    *,
    mean_only: bool = False,
) -> Moments:
    """The mean of a draw, and its standard deviations or a root of its covariance.

    The name, of the caller, is used in messages. The key is an example: nothing is drawn with it.
    With `mean_only` a covariance that is expensive is left out, and 0 in its place.

    Raises:
        TypeError: a draw is not one array of floats; the moments cannot be read.
        ValueError: the moments do not fit the draw.
    """
    draw = jax.eval_shape(distribution.draw, key)
    leaves = jax.tree.leaves(draw)
    if len(leaves) != 1 or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        raise TypeError(f"{name} needs draws that are one array of floats, got {draw}.")
    shape, dtype = leaves[0].shape, leaves[0].dtype
    if moments is None and mean_only and isinstance(distribution.params, Subset):
        mean = distribution.params.marginals()
        found: Moments | None = mean, jnp.zeros_like(mean)
    else:
        found = (moments or _read)(distribution.params)
    if found is None:
        raise TypeError(
            f"{name} needs the mean and the covariance of the draws, and cannot read them from "
            f"{type(distribution.params).__name__}. Give moments=lambda params: (mean, scale)."
        )
    mean, scale = (jnp.asarray(moment, dtype) for moment in found)
    if mean.shape != shape:
        raise ValueError(f"the mean must be shaped like a draw, {shape}, got {mean.shape}.")
    if scale.shape not in (shape, 2 * shape):
        raise ValueError(
            f"the scale must be shaped like a draw, {shape}, or hold a square root of its "
            f"covariance, {2 * shape}, got {scale.shape}."
        )
    finite = jnp.all(jnp.isfinite(mean)) & jnp.all(jnp.isfinite(scale))
    sound = certified(
        finite,
        f"{name} needs a finite mean and a finite covariance of the draws, and those of "
        f"{type(distribution.params).__name__} are infinite or nan. Give "
        f"moments=lambda params: (mean, scale), or use the wrapped estimator alone.",
    ).astype(dtype)
    return mean * sound, scale * sound


# Those of VonMises are circular, and TFP's variance of a GammaGamma is too small.
_NOT_OF_THE_DRAWS = {"distrax.VonMises", "numpyro.VonMises", "tfp.GammaGamma", "tfp.VonMises"}


def _read(distribution: Any) -> Moments | None:
    if isinstance(distribution, Bernoulli):
        probs = jax.nn.sigmoid(jnp.asarray(distribution.logits))
        return probs, jnp.sqrt(probs * (1 - probs))
    if isinstance(distribution, Subset):
        batched = jnp.ndim(distribution.logits) > 1
        return None if batched else (distribution.marginals(), _root(distribution.covariance()))
    inner = unwrapped(distribution)
    name = class_of(inner)
    if not name or name in _NOT_OF_THE_DRAWS:
        return None
    diagonal = name in ("distrax.MultivariateNormalDiag", "tfp.MultivariateNormalDiag")
    # Only what has no event axes of its own is known to have independent components: the
    # variances of a Dirichlet, or of a mixture of vectors, leave out how they go together.
    if diagonal or tuple(getattr(inner, "event_shape", (None,))) == ():
        square = "variance"
        root: Callable[[Any], jax.Array] = jnp.sqrt
    elif name in MULTIVARIATE_NORMALS:
        square = "covariance_matrix" if hasattr(inner, "covariance_matrix") else "covariance"
        root = _cholesky
    else:
        return None
    mean, spread = _called(distribution, "mean"), _called(distribution, square)
    return None if mean is None or spread is None else (mean, root(spread))


def _cholesky(matrix: jax.Array) -> jax.Array:
    # There is none in 16 bits.
    return jnp.linalg.cholesky(matrix.astype(wide(matrix.dtype)))


def _root(covariance: jax.Array) -> jax.Array:
    """A square root, [n, n], of the covariance of items whose number is fixed."""
    variances = jnp.diagonal(covariance)
    fixed = variances <= 4 * jnp.finfo(variances.dtype).eps
    # Each column adds up to 0, so that one item follows from the others: the most variable one.
    order = jnp.argsort(stop(variances))
    at = jnp.ix_(order[:-1], order[:-1])
    free = ~(fixed[:, None] | fixed)
    kept = jnp.where(free, covariance, jnp.eye(len(fixed), dtype=variances.dtype))[at]
    root = jnp.where(free[at], _cholesky(kept), 0)
    root = jnp.pad(jnp.concatenate([root, -jnp.sum(root, axis=0)[None]]), ((0, 0), (0, 1)))
    return root[jnp.argsort(order)]


def _called(distribution: Any, name: str) -> jax.Array | None:
    # A method in distrax and TFP, a property in numpyro; a name alone where it is not known.
    try:
        value = getattr(distribution, name, None)
        return value() if callable(value) else value
    except NotImplementedError:
        return None
