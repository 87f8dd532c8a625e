"""The score-function estimator: the score of the draw, weighted by its cost."""

from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar

import jax

from scorefn._baselines import Baseline, LeaveOneOut, check_baseline
from scorefn._core.arrays import stop
from scorefn._core.checks import check_count
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.types import Cost, PyTree, Sample, Terms, Vmap
from scorefn._score import attach_centered_scores, attach_score
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._given import is_given, sources

from ._base import Estimator
from ._factor_axes import log_densities, scores_of_costs
from ._lost_elements import Lost, without_scores
from ._score_guard import scored_draw


@pytree_dataclass
class ScoreFunction(Estimator):
    r"""The score-function estimator, also called REINFORCE or the likelihood-ratio method.

    .. code-block:: text

        term        attach_score(f(x), log_prob(x), baseline),  x = stop_gradient(sample(key))
        derivative  df/dparams + (f(x) - baseline) * dlog_prob(x)/dparams

    Unbiased at every order, for discrete and continuous distributions with a differentiable
    log-density and a support that does not depend on the parameters. f may be any function; it is
    not differentiated in x. One evaluation of f for each term. The variance depends strongly on the
    baseline. log_prob must be normalized; draws of a Markov chain, whose log_prob is not, are given
    as `Given`. (With a sampler, `LeaveOneOut` makes the gradient right, and not the Hessian.)

    Attributes:
        baseline: the baseline subtracted from the cost: `LeaveOneOut` (the default, for 2 samples
            or more), `MovingAverage`, `ConstantBaseline`, `LearnedBaseline`, `OptimalBaseline`.
        factor_ndim: the number of leading axes of a draw that index independent factors, each with
            its own cost; 0 by default. f then returns costs with these leading axes; each cost may
            depend on the factor at its own index only, and is multiplied by the score of this
            factor. The caller guarantees this; it is not checked. Beside such costs, in a pytree, f
            may return scalars, which may depend on all factors. log_prob may return an array with
            these axes.

    Raises:
        ValueError: log_prob is not a scalar for one draw; log_prob or the costs lack the axes of
            the factors; there are fewer samples than the baseline needs.
        TypeError: the result is differentiated with respect to a parameter that the sampler uses
            and along which log_prob has no derivative, or on which the support depends; what
            `Given` says of its draws. Where this holds for some elements of an array only, their
            derivative is nan.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> def loss(logit, key):
        ...     coin, f = distrax.Bernoulli(logits=logit), lambda b: (b - 0.45) ** 2
        ...     return sf.expectation(f, coin, key, sf.ScoreFunction(), num_samples=64)
        >>> gradient = jax.jit(jax.grad(loss))(0.0, jax.random.key(0))

    References:
        Glynn, Likelihood ratio gradient estimation for stochastic systems (1990);
        Williams, Simple statistical gradient-following algorithms for connectionist reinforcement
        learning (1992), equation 4; Mohamed et al., Monte Carlo Gradient Estimation in Machine
        Learning (2020), equation 13.
    """

    baseline: Baseline = field(default_factory=LeaveOneOut)
    factor_ndim: int = static_field(default=0, kw_only=True)

    when: ClassVar[str] = "any distribution without a more special estimator, 4 samples or more"
    needs: ClassVar[str] = (
        "a differentiable log_prob, normalized unless the draws are `Given`; any f"
    )

    def __post_init__(self) -> None:
        check_baseline(self.baseline)
        check_count("factor_ndim", self.factor_ndim, at_least=0)

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        """The value of the baseline."""
        return self.baseline.coupled

    @property
    def streams(self) -> bool:
        return super().streams or self._leaves_one_out

    def one_sample(
        self, f: Callable[[Any], PyTree], distribution: Distribution, key: jax.Array
    ) -> Sample:
        if not self._leaves_one_out:
            return super().one_sample(f, distribution, key)
        x, log_prob, lost = self.guarded_draw(distribution, key)
        with without_scores(lost, x):
            return Sample(self._cost(f)(x)[0], log_prob)

    @property
    def _leaves_one_out(self) -> bool:
        # A subclass may do anything.
        return type(self.baseline) is LeaveOneOut and self.factor_ndim == 0

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        self.baseline.check_samples(len(keys))
        plain, rows = sources(distribution, keys)
        given = is_given(distribution)
        if given:
            self._check_given(distribution)

        def one(row: Any) -> Any:
            x, log_prob, lost = self.guarded_draw(plain, row, score_only=not given)
            weight = self.baseline.weight(x, plain)
            with without_scores(lost, x):
                cost, aux = f(x)
            return cost, log_prob, weight, aux

        costs, log_probs, weights, aux = vmap(one)(rows)
        scores = scores_of_costs(log_probs, costs)
        if given:
            return jax.tree.map(attach_centered_scores, costs, scores), aux
        stopped = stop(costs)
        baselines = self.baseline(stopped, stop(weights))
        terms = jax.tree.map(attach_score, costs, scores, baselines)
        return self.baseline.train(terms, stopped), aux

    def _check_given(self, distribution: Any) -> None:
        if not self.baseline.mean_of_others:
            raise TypeError(
                f"ScoreFunction needs the baseline LeaveOneOut() for the draws of Given, got "
                f"{type(self.baseline).__name__}: log_prob may be unnormalized, and only the mean "
                f"cost of the other draws removes the derivative of its normalizer. If log_prob "
                f"is normalized, call attach_score with any baseline."
            )
        if distribution.log_prob_old is not None:
            raise TypeError(
                "ScoreFunction takes draws of the distribution itself, and log_prob_old says that "
                "those of Given come from another one. Use SelfNormalized(), or "
                "ImportanceWeighted() if both log-densities are normalized."
            )

    def guarded_draw(
        self, distribution: Distribution, key: Any, *, score_only: bool = True
    ) -> tuple[Any, jax.Array, Lost | None]:
        """One stopped draw, its log-density, and elements for `without_scores`.

        With `score_only` a density that is known to be finite is 0, with its derivative. This is
        not so for a draw that is given, and not made here: it may be impossible.
        """

        def log_density(distribution: Distribution, x: Any) -> jax.Array:
            return log_densities(distribution, x, self.factor_ndim)

        return scored_draw(
            distribution, key, log_density, name=type(self).__name__, score_only=score_only
        )
