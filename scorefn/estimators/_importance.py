"""Importance weighting: draws from a proposal instead of the distribution itself."""

from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._baselines import Baseline, LeaveOneOut, check_baseline
from scorefn._core.arrays import abstract_key, stop, wide
from scorefn._core.checks import check_instance
from scorefn._core.pytree import pytree_dataclass
from scorefn._core.types import Cost, Terms, Vmap
from scorefn.distributions._distribution import Distribution, as_distribution
from scorefn.distributions._given import Given, is_given, sources

from ._base import Estimator
from ._lost_elements import Lost, without_scores
from ._score_guard import guard_score


@pytree_dataclass
class ImportanceWeighted(Estimator):
    r"""Draws from a proposal q, weighted by p / q (off-policy).

    .. code-block:: text

        x ~ q,  w = exp(log p(x) - stop(log q(x))),  b the baseline
        term        w (f(x) - b) + b
        derivative  w df/dparams + w (f(x) - b) dlog p(x)/dparams

    Value and derivatives are unbiased at every order if q > 0 on the support of p and both
    densities are normalized. f may be any function; it is not differentiated in x. One evaluation
    of f for each term. The sampler of p is used only for the shapes of its draws. No derivative
    passes through q. The variance is finite only if E[w^2] is: choose q with heavier tails than p.

    A baseline b that does not depend on x adds no bias, because E_q[w] = 1 for all parameters and
    so b (1 - E[w]) = 0; it lowers the variance of the value too. It receives the costs without
    weights, so a constant added to f changes the value by this constant, and not the derivative. A
    learned baseline is fitted under q. With q = p the estimator equals `ScoreFunction`.

    Attributes:
        proposal: the distribution of the draws, as for `expectation`. None for `Given` with
            log_prob_old: the draws and their densities are there.
        baseline: as for `ScoreFunction`; `LeaveOneOut` (the default) needs 2 samples.

    Raises:
        ValueError: the draws of proposal and distribution differ in shape; log_prob is not a
            scalar for one draw; there are fewer samples than the baseline needs.
        TypeError: the result is differentiated with respect to a parameter without a score, as for
            `ScoreFunction`.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> def loss(mean, key):
        ...     policy, behavior = distrax.Normal(mean, 1.0), distrax.Normal(0.0, 2.0)
        ...     estimator = sf.ImportanceWeighted(behavior)
        ...     return sf.expectation(lambda x: x**2, policy, key, estimator, num_samples=64)
        >>> gradient = jax.jit(jax.grad(loss))(0.5, jax.random.key(0))

    References:
        Kahn and Marshall, Methods of reducing sample size in Monte Carlo computations (1953);
        Glynn and Iglehart, Importance sampling for stochastic simulations (1989).
    """

    proposal: Any = None
    baseline: Baseline = field(default_factory=LeaveOneOut)

    when: ClassVar[str] = "draws that come from another distribution"
    needs: ClassVar[str] = (
        "a proposal that covers it, or `Given` draws; normalized, differentiable log_probs; any f"
    )

    def __post_init__(self) -> None:
        check_instance("proposal", self.proposal)
        check_baseline(self.baseline)

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        """The value of the baseline."""
        return self.baseline.coupled

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        self.baseline.check_samples(len(keys))
        draw, rows = _draws(distribution, self.proposal, keys, "ImportanceWeighted")
        plain, _ = sources(distribution, keys)

        def one(row: Any) -> Any:
            x, log_ratio, lost = draw(row)
            with without_scores(lost, x):
                cost, aux = f(x)
            return cost, log_ratio, self.baseline.weight(x, plain), aux

        costs, log_ratios, weights, aux = vmap(one)(rows)
        possible, log_ratios = _possible(log_ratios)
        ratios = jnp.where(possible, jnp.exp(log_ratios), 0)
        if weights is not None:
            # The b that minimizes E[w^2 |s|^2 (f - b)^2] is weighted by w^2 |s|^2.
            squared = stop(jnp.square(ratios))
            weights = jax.tree.map(lambda weight: weight * squared.astype(weight.dtype), weights)
        stopped = stop(costs)

        def attach(cost: jax.Array, baseline: jax.Array) -> jax.Array:
            dtype = wide(cost.dtype)
            baseline = stop(baseline).astype(dtype)
            difference = jnp.where(_along(possible, cost), cost.astype(dtype) - baseline, 0)
            return (_along(ratios, cost).astype(dtype) * difference + baseline).astype(cost.dtype)

        terms = jax.tree.map(attach, costs, self.baseline(stopped, stop(weights)))
        return self.baseline.train(terms, stopped), aux


@pytree_dataclass
class SelfNormalized(Estimator):
    r"""BIASED by O(1/n): importance weights divided by their sum, for unnormalized densities.

    .. code-block:: text

        x_i ~ q,  w_i = exp(log p(x_i) - stop(log q(x_i)))
        term i      n w_i f(x_i) / sum_j w_j
        derivative  (sum_i v_i df_i/dparams + sum_i v_i (f_i - sum_j v_j f_j) dlog p(x_i)/dparams)
                    of the mean of the terms,  v_i = w_i / sum_j w_j

    Value and derivatives of every order are consistent with a bias of O(1/n), if q > 0 on the
    support of p. Both densities may be unnormalized: constants cancel exactly. The variance is
    often far below that of `ImportanceWeighted`, and the value lies between the smallest and the
    largest cost. One evaluation of f for each term; all samples of a call are coupled, at least 2.
    f may be any function; it is not differentiated in x. The sampler of p is used only for the
    shapes of its draws; for a density without a sampler, give that of the proposal. No derivative
    passes through q. If every draw is impossible under p, the result is nan.

    Attributes:
        proposal: the distribution of the draws, as for `expectation`. None for `Given` with
            log_prob_old: the draws and their densities are there.

    Raises:
        ValueError: there are fewer than 2 samples; the draws of proposal and distribution differ in
            shape; log_prob is not a scalar for one draw.
        TypeError: the result is differentiated with respect to a parameter without a score, as for
            `ScoreFunction`.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> q = distrax.Normal(0.0, 2.0)
        >>> def loss(mean, key):
        ...     def log_prob(mean, x): return -((x - mean) ** 2) / 2
        ...     p = sf.Distribution(log_prob, lambda _, key: q.sample(seed=key), mean)
        ...     return sf.expectation(abs, p, key, sf.SelfNormalized(q), num_samples=64)
        >>> gradient = jax.jit(jax.grad(loss))(0.5, jax.random.key(0))

    References:
        Hesterberg, Weighted average importance sampling and defensive mixture distributions
        (1995).
    """

    proposal: Any = None

    unbiased: ClassVar[bool] = False
    coupled: ClassVar[bool] = True
    when: ClassVar[str] = "draws from another distribution, densities known up to a constant"
    needs: ClassVar[str] = (
        "a proposal that covers it, or `Given` draws; log_probs up to a constant, 2 samples; any f"
    )

    def __post_init__(self) -> None:
        check_instance("proposal", self.proposal)

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        n = len(keys)
        if n < 2:
            raise ValueError(
                f"num_samples must be at least 2 with SelfNormalized, got {n}: a single weight "
                f"is always 1, with gradient 0."
            )
        draw, rows = _draws(distribution, self.proposal, keys, "SelfNormalized")

        def one(row: Any) -> Any:
            x, log_ratio, lost = draw(row)
            with without_scores(lost, x):
                return log_ratio, *f(x)

        log_ratios, costs, aux = vmap(one)(rows)
        possible, log_ratios = _possible(log_ratios)
        peak = jnp.max(stop(jnp.where(possible, log_ratios, -jnp.inf)))
        ratios = jnp.where(possible, jnp.exp(jnp.where(possible, log_ratios - peak, 0)), 0)
        ratios /= jnp.mean(ratios)

        def weigh(cost: jax.Array) -> jax.Array:
            dtype = wide(cost.dtype)
            finite = jnp.where(_along(possible, cost), cost, 0).astype(dtype)
            return (_along(ratios, cost).astype(dtype) * finite).astype(cost.dtype)

        return jax.tree.map(weigh, costs), aux


SelfNormalised = SelfNormalized  # the former name, kept for one release


def _proposal(proposal: Any, distribution: Distribution, keys: jax.Array) -> Distribution:
    """The proposal as a `Distribution`, with draws checked to have the right shapes."""
    record = as_distribution(proposal)
    draws = [jax.eval_shape(d.draw, abstract_key(keys)) for d in (distribution, record)]
    wanted, got = (jax.tree.map(lambda leaf: leaf.shape, draw) for draw in draws)
    if wanted != got:
        raise ValueError(
            f"proposal must have draws shaped like those of the distribution, {wanted}, got {got}: "
            f"broadcasting would count log-densities more than once."
        )
    return record


def _draws(
    distribution: Distribution, proposal: Any, keys: jax.Array, name: str
) -> tuple[Callable[[Any], tuple[Any, jax.Array, Lost | None]], Any]:
    """A function of a key, or of a given draw, to the draw and its log-ratio; and these, [n]."""
    plain, rows = sources(distribution, keys)
    given = is_given(distribution)
    if given != (proposal is None) or (given and rows.log_prob_old is None):
        raise TypeError(
            f"{name} needs draws of another distribution: a proposal, {name}(proposal); or, for "
            f"draws made elsewhere, Given(draws, log_prob, params, log_prob_old) and {name}() "
            f"without a proposal. Got proposal={proposal!r} and {_described(distribution)}."
        )
    q = plain if given else _proposal(proposal, distribution, keys)

    def draw_and_log_ratio(p: Distribution, row: Any) -> tuple[Any, jax.Array]:
        x = q.stopped_draw(row)
        return x, p.log_density(x) - stop(row.log_prob_old if given else q.log_density(x))

    def draw(row: Any) -> tuple[Any, jax.Array, Lost | None]:
        # A density without a sampler may be given with that of the proposal.
        others = () if given else q.params
        guarded, lost = guard_score(draw_and_log_ratio, plain, row, name=name, others=others)
        x, ratio = guarded(row)
        return stop(x), ratio, lost

    return draw, rows


def _described(distribution: Distribution) -> str:
    if not isinstance(distribution, Given):
        return "a distribution with a sampler"
    return f"Given with{'out' if distribution.log_prob_old is None else ''} log_prob_old"


def _possible(log_ratios: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mask of possible draws, and the log-ratios with -inf replaced by 0."""
    log_ratios = log_ratios.astype(wide(log_ratios.dtype))
    possible = ~jnp.isneginf(log_ratios)
    # Before the exponential: a `where` after it would still have derivative nan.
    return possible, jnp.where(possible, log_ratios, 0)


def _along(x: jax.Array, cost: jax.Array) -> jax.Array:
    """The numbers x, [n], reshaped to broadcast against costs [n, ...]."""
    return x.reshape(x.shape + (1,) * (cost.ndim - 1))
