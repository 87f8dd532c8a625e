"""Objectives of several draws: the expectation of a statistic of n costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._baselines import LeaveOneOut
from scorefn._core.arrays import finite_product, gathered, spread_like, stop, wide
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.types import Cost, PyTree, Terms, Vmap
from scorefn._score import sum_of_others, without_impossible
from scorefn.distributions._distribution import Distribution

from ._base import Estimator, Transformation, check_estimator
from ._cost_guard import guarded_cost
from ._lost_elements import without_scores
from ._pathwise import Pathwise
from ._score_function import ScoreFunction


@pytree_dataclass
class SampleStatistic(Transformation):
    r"""A statistic of n costs, such as the best of k, instead of their mean.

    .. code-block:: text

        objective   E[statistic(f(x_1), ..., f(x_n))],  n = num_samples
        each term   S = statistic of the costs
        derivative  dS/dparams, through the costs
                    + sum_i (S - S_i) dlog p(x_i)/dparams,  for ScoreFunction
        S_i         the statistic with the baseline of cost i in place of cost i

    Unbiased for this objective at the orders of the wrapped estimator, for every statistic. Whether
    the objective is what is wanted depends on the statistic: with `expected_max` it is E[max of k]
    for every n >= k, with ``jnp.var(costs, 0, ddof=1)`` the variance of a cost. `cvar`,
    `entropic_risk` and ``jnp.quantile`` have a bias of O(1/n) as estimates of the CVaR, the risk
    and the quantile of the distribution; `debiased` estimates these without bias.

    A statistic that sorts has kinks: a second derivative through the costs (`Pathwise`, or an f
    with parameters) raises, and one through the scores does not.

    With the mean as the statistic the gradient is that of the wrapped estimator. The baseline of
    cost i is its leave-one-out mean by default. One evaluation of f for each term; all samples of a
    call are coupled. `ScoreFunction` evaluates the statistic n + 1 times on n costs, together or in
    chunks of chunk_size.

    Attributes:
        estimator: `Pathwise`, or `ScoreFunction` with any baseline; for a statistic with jumps
            `LeaveOneOut`, which here does not even share rounding errors with the cost it replaces.
        statistic: ``statistic(costs [n, ...]) -> [...]`` or a number, for each array that f
            returns. Differentiable and continuous in the costs for `Pathwise`, and wherever f has
            parameters of its own.

    Raises:
        TypeError: the estimator is another one; the statistic is not a function, or depends on the
            costs through operations without a derivative and is differentiated along them.
        ValueError: the statistic returns an array of another shape; as the wrapped estimator.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> def pass_at_4(logits, key):
        ...     answers, reward = distrax.Categorical(logits), lambda x: (x == 2).astype(float)
        ...     estimator = sf.SampleStatistic(
        ...         sf.ScoreFunction(), lambda rewards: sf.expected_max(rewards, 4))
        ...     return sf.expectation(reward, answers, key, estimator, num_samples=16)
        >>> gradient = jax.jit(jax.grad(pass_at_4))(jax.numpy.zeros(3), jax.random.key(0))

    References:
        Hoeffding, A class of statistics with asymptotically normal distribution (1948); Mnih and
        Rezende, Variational inference for Monte Carlo objectives (2016), for the baseline; Tang et
        al., Optimizing language models for inference time objectives using reinforcement learning
        (2025).
    """

    estimator: Estimator
    statistic: Callable[[jax.Array], jax.Array] = static_field(repr=False)

    coupled: ClassVar[bool] = True
    when: ClassVar[str] = "the best of k, CVaR, a quantile, a variance instead of a mean"
    needs: ClassVar[str] = (
        "ScoreFunction (a normalized log_prob) or Pathwise; a statistic of n costs"
    )

    def __post_init__(self) -> None:
        check_estimator(self.estimator)
        if not isinstance(self.estimator, ScoreFunction | Pathwise):
            raise TypeError(
                f"SampleStatistic needs the costs of single draws: its estimator must be "
                f"ScoreFunction or Pathwise, got {self.estimator!r}."
            )
        if isinstance(self.estimator, ScoreFunction) and self.estimator.factor_ndim:
            raise TypeError(
                "SampleStatistic needs one score for each draw, got a ScoreFunction with "
                f"factor_ndim={self.estimator.factor_ndim}. Use factor_ndim=0."
            )
        if not callable(self.statistic):
            raise TypeError(
                f"statistic must be a function of costs [n, ...], got {self.statistic!r}."
            )

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        if isinstance(self.estimator, ScoreFunction):
            return self._by_scores(self.estimator, f, distribution, keys, vmap)
        costs, aux = self.estimator.terms(f, distribution, keys, vmap)
        return jax.tree.map(lambda c: _repeated(self._of(gathered(c, 0)), c), costs), aux

    def _by_scores(
        self,
        estimator: ScoreFunction,
        f: Cost,
        distribution: Distribution,
        keys: jax.Array,
        vmap: Vmap,
    ) -> tuple[PyTree, PyTree]:
        baseline = estimator.baseline
        baseline.check_samples(len(keys))

        def one(key: jax.Array) -> Any:
            x, log_prob, lost = estimator.guarded_draw(distribution, key)
            weight = baseline.weight(x, distribution)
            with without_scores(lost, x):
                cost, aux = f(x)
            return cost, log_prob, weight, aux

        costs, log_probs, weights, aux = vmap(one)(keys)
        stopped = stop(costs)
        log_probs = gathered(log_probs, 0)
        if type(baseline) is LeaveOneOut:
            # Its own form depends on the cost itself through rounding, which a jump of the
            # statistic would make a bias.
            stand_ins = jax.tree.map(lambda c: sum_of_others(c) / (len(c) - 1), stopped)
        else:
            stand_ins = baseline(stopped, stop(weights))
        scored = partial(self._scored, log_probs=log_probs, vmap=vmap)
        terms = jax.tree.map(scored, costs, stand_ins)
        return baseline.train(terms, stopped), aux

    def _scored(
        self, costs: jax.Array, stand_ins: jax.Array, log_probs: jax.Array, vmap: Vmap
    ) -> jax.Array:
        """The statistic of the costs with the scores of all draws, for each term."""
        together, n = gathered(costs, 0), len(costs)
        index = jnp.arange(n).reshape(-1, *(1,) * (costs.ndim - 1))

        def replaced(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
            i, stand_in = pair
            return self._value(jnp.where(index == i, stand_in[None], stop(together)))

        stand_ins = spread_like(stop(stand_ins).astype(costs.dtype), costs)
        without = gathered(vmap(replaced)((spread_like(jnp.arange(n), costs), stand_ins)), 0)
        value, dtype = self._of(together), wide(costs.dtype)
        # sum_i expm1(z_i) (S exp(z_1 + ... + z_{i - 1}) - S_i), whose terms add up to
        # S expm1(sum z) - sum_i S_i expm1(z_i): right at every order. Each weight S - S_i is one
        # difference, so that a large offset of the costs loses no digits.
        log_probs = without_impossible(log_probs.astype(dtype))
        zeros = log_probs - stop(log_probs)
        earlier = jnp.cumsum(zeros) - zeros
        zeros, earlier = (z.reshape(-1, *(1,) * value.ndim) for z in (zeros, earlier))
        weights = value.astype(dtype)[None] * jnp.exp(earlier) - stop(without).astype(dtype)
        scores = jnp.sum(finite_product(jnp.expm1(zeros), weights), 0)
        return _repeated(value + scores.astype(value.dtype), costs)

    def _of(self, costs: jax.Array) -> jax.Array:
        """The statistic, which raises where a derivative along the costs would be lost."""
        name = type(self).__name__
        evaluate = lambda costs: (self._value(costs), None)  # noqa: E731
        return guarded_cost(evaluate, costs, name, self.statistic, "statistic")[0]

    def _value(self, costs: jax.Array) -> jax.Array:
        value = jnp.asarray(self.statistic(costs))
        if value.shape not in ((), costs.shape[1:]):
            raise ValueError(
                f"statistic must return one number, or an array {costs.shape[1:]}, for costs "
                f"{costs.shape}, got shape {value.shape}. Reduce the axis of the samples, 0."
            )
        return value.astype(costs.dtype)


def _repeated(value: jax.Array, costs: jax.Array) -> jax.Array:
    """The value once for each term."""
    return spread_like(jnp.broadcast_to(value[None], (len(costs), *value.shape)), costs)
