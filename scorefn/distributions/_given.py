"""A distribution whose draws were made elsewhere: by a Markov chain, another policy or machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from scorefn._core.arrays import as_float, stop, wide
from scorefn._core.pytree import pytree_dataclass
from scorefn._core.types import PyTree

from ._distribution import Distribution


class Row(NamedTuple):
    """One given draw: estimators receive it in place of a random key."""

    draw: PyTree
    log_prob_old: jax.Array | None


def _drawn(params: Any, row: Any) -> Any:
    del params
    if not isinstance(row, Row):
        raise TypeError(
            "distribution is a Given, whose draws were made elsewhere, so that nothing can draw "
            "from it. It works with ScoreFunction() itself, and with log_prob_old= with "
            "SelfNormalized() and ImportanceWeighted(). For anything else give "
            "Distribution(log_prob, sample, params)."
        )
    return row.draw


@pytree_dataclass
class Given(Distribution):
    r"""A distribution whose draws were made elsewhere, by a Markov chain or another machine.

    .. code-block:: text

        value       mean of f(x_i)
        derivative  mean of df_i/dparams + (f_i - mean_{j != i} f_j) dlog_prob(x_i)/dparams

    Used in `expectation` with `ScoreFunction`; num_samples is the number of draws. The key serves
    later choices of a `program`, and nothing else. In chunks all terms are kept: "auto" is None.

    log_prob may be unnormalized: the derivative of its normalizer is the mean score, which the
    other draws estimate. So only the baseline `LeaveOneOut` is right, and all others raise: without
    a baseline, or with a weighted or shrunk one, the gradient does not converge to the right one,
    and with the mean of all draws its error is a factor of (n - 1) / n.

    For independent draws the value, the gradient (from 2 draws on) and the Hessian (from 3 draws
    on) are unbiased; a derivative of higher order raises. Draws of one Markov chain depend on one
    another, which gives a bias of order tau / n, with tau the autocorrelation time in steps. There
    is none with several independent chains that started in equilibrium: give one draw for each
    chain, [chains, steps, ...], a log_prob and an f that return one number for each step, and
    ``ScoreFunction(factor_ndim=1)``. The baseline is then made of the other chains.

    With `log_prob_old` the draws come from another distribution, as from an older policy, and are
    weighted by exp(log_prob - log_prob_old): `SelfNormalized()` takes unnormalized log_probs and
    has a bias of O(1/n), `ImportanceWeighted()` is unbiased if both are normalized. Report
    ``sf.policy.effective_sample_size(given.log_weights())`` with the result.

    No derivative passes through the draws. If log_prob is normalized, `attach_score` allows any
    baseline.

    Attributes:
        draws: an array [n, ...] or a pytree of such arrays.
        log_prob: ``log_prob(params, x) -> scalar``, the log-density of ONE draw, in nats, up to a
            constant that may depend on params.
        params: any pytree of arrays.
        log_prob_old: [n], the log-density of each draw under the distribution that drew it, up to a
            constant. None if the draws come from `log_prob`.

    Raises:
        ValueError: num_samples is not the number of draws; the shapes do not fit.
        TypeError: the baseline is not `LeaveOneOut`; the estimator needs to draw (`Pathwise` and
            most others) or a normalized log-density (`vi.elbo`); log_prob_old is given or missing
            against what the estimator needs; a derivative of third order, or of second order with
            2 draws.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> chain = jnp.array([0.3, -1.2, 0.8, 0.1])  # drawn from exp(-x^2 / 2), at width = 1
        >>> def log_prob(width, x): return -((x / width) ** 2) / 2  # without -log(width)
        >>> def energy(width):
        ...     p = sf.Given(chain, log_prob, width)
        ...     return sf.expectation(jnp.square, p, key, sf.ScoreFunction(), num_samples=4)
        >>> key = jax.random.key(0)
        >>> print(energy(1.0), jax.grad(energy)(1.0).round(4))
        0.545 0.4344

    References:
        Ceperley, Chester and Kalos, Monte Carlo simulation of a many-fermion study (1977);
        Sorella, Wave function optimization in the variational Monte Carlo method (2005), for the
        covariance form of the gradient.
    """

    draws: PyTree
    log_prob_old: jax.Array | None

    def __init__(
        self,
        draws: PyTree,
        log_prob: Callable[[Any, Any], jax.Array],
        params: Any,
        log_prob_old: Any = None,
        *,
        sample: Callable[[Any, Any], Any] = _drawn,
    ) -> None:
        given = {"draws": draws, "log_prob": log_prob, "params": params}
        for name, value in (given | {"log_prob_old": log_prob_old, "sample": sample}).items():
            object.__setattr__(self, name, value)

    @property
    def num_draws(self) -> int:
        """The number of draws."""
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(self.draws)]
        if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
            raise ValueError(
                f"draws must be an array with a leading axis of draws, [n, ...], or a pytree of "
                f"such arrays of one n, got shapes {shapes}."
            )
        n: int = shapes[0][0]
        if self.log_prob_old is not None and jnp.shape(self.log_prob_old) != (n,):
            raise ValueError(
                f"log_prob_old must hold one number for each of the {n} draws, got shape "
                f"{jnp.shape(self.log_prob_old)}."
            )
        return n

    def log_density(self, x: Any) -> jax.Array:
        """Raises ``TypeError``: what reads the log-density needs a normalized one."""
        del x
        raise TypeError(
            "distribution is a Given, whose log_prob may be unnormalized, and the log-density is "
            "needed here with its normalizer. Give Distribution(log_prob, sample, params) with a "
            "normalized log_prob."
        )

    def rows(self) -> Row:
        """All draws, each with its old log-density."""
        old = None if self.log_prob_old is None else as_float(self.log_prob_old)
        return Row(jax.tree.map(jnp.asarray, self.draws), old)

    def log_weights(self) -> jax.Array:
        """The logarithms of the weights of the draws, [n], up to a constant; no derivative."""
        plain, rows = sources(self, range(self.num_draws))
        if rows.log_prob_old is None:
            return jnp.zeros(self.num_draws)
        log_probs = jax.vmap(plain.log_density)(rows.draw)
        dtype = wide(log_probs.dtype, rows.log_prob_old.dtype)
        return stop(log_probs.astype(dtype) - rows.log_prob_old.astype(dtype))


def is_given(distribution: Distribution) -> bool:
    """Whether the draws were made elsewhere, and no sampling scheme replaces them."""
    return isinstance(distribution, Given) and distribution.sample is _drawn


def sources(distribution: Distribution, keys: Any) -> tuple[Distribution, Any]:
    """The distribution and the sources of its draws, [n]: the keys, or the given draws."""
    if not (isinstance(distribution, Given) and is_given(distribution)):
        return distribution, keys
    if distribution.num_draws != len(keys):
        raise ValueError(
            f"num_samples must be {distribution.num_draws}, the number of draws in Given, got "
            f"{len(keys)}."
        )
    # Without the draws, so that they are mapped over and not closed over.
    plain = Distribution(distribution.log_prob, distribution.sample, distribution.params)
    return plain, distribution.rows()
