"""Baselines: immutable values that a score-function estimator subtracts from its costs."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import field, replace
from functools import partial, reduce
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import as_float, stop
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.types import PyTree
from scorefn.distributions._distribution import Distribution

from ._score import leave_one_out


class Baseline(ABC):
    """A number subtracted from each cost; it lowers the variance and must not see its own draw.

    ``baseline(costs, weights)`` returns the baselines, ``baseline.update(costs)`` the baseline to
    use next time. Both are pure: a baseline is an immutable value that is carried through a
    training loop like an optimizer's state. It is handed no draws, so it cannot depend on one.

    Attributes:
        min_samples: how many samples it needs.
        coupled: whether a baseline is made from the costs of other samples of the same call.
    """

    min_samples: ClassVar[int] = 1
    coupled: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, costs: PyTree, weights: PyTree = None) -> PyTree:
        """The baselines, shaped like the costs.

        Args:
            costs: the costs of one call, [n, ...] for each leaf, stopped.
            weights: what `weight` returned for each draw, [n, ...], or None.
        """

    def update(self, costs: PyTree) -> "Baseline":
        """The baseline to use next time, after these costs, [n, ...], have been used."""
        del costs
        return self

    def weight(self, x: Any, distribution: Distribution) -> PyTree:
        """What the baseline must know of one draw besides its cost, or None."""
        del x, distribution

    def train(self, terms: PyTree, costs: PyTree) -> PyTree:
        """The terms, whose derivative may also train the baseline's own parameters."""
        del costs
        return terms

    def check_samples(self, n: int) -> None:
        """Raises ``ValueError`` if n samples are too few."""
        if n < self.min_samples:
            raise ValueError(
                f"num_samples must be at least {self.min_samples} with the baseline "
                f"{type(self).__name__}, got {n}: the baseline of each sample is made from the "
                f"others. Raise num_samples, or give another one, as in "
                f"ScoreFunction(ConstantBaseline(0.0))."
            )


@pytree_dataclass
class LeaveOneOut(Baseline):
    """The mean cost of the other samples of the same call: the default, and nothing to tune.

    Unbiased, because no sample sees its own cost. Needs at least 2 samples; couples all samples of
    a call. For f and a score component h, with m = E f and g = E[f h], n samples give the variance
    ``(E[(f - m)^2 h^2] - g^2) / n + (Var(f) E[h^2] + g^2) / (n (n - 1))``.

    Example:
        >>> import jax.numpy as jnp
        >>> print(LeaveOneOut()(jnp.array([1.0, 2.0, 6.0])))
        [4.  3.5 1.5]

    References:
        Kool, van Hoof and Welling, Buy 4 REINFORCE samples, get a baseline for free (2019).
    """

    min_samples: ClassVar[int] = 2

    def __call__(self, costs: PyTree, weights: PyTree = None) -> PyTree:
        del weights
        return jax.tree.map(leave_one_out, costs)


@pytree_dataclass
class OptimalBaseline(Baseline):
    """The mean cost of the other samples, weighed by the squared norms of their scores.

    The constant of least variance is ``E[f |s|^2] / E[|s|^2]``, with s the score with respect to
    all of ``distribution.params``; this is its leave-one-out estimate. Unbiased. Needs at least 2
    samples, and one derivative of log_prob more for each of them.

    Raises:
        ValueError: ``distribution.params`` holds no float arrays to take the score of.

    Example:
        >>> import jax.numpy as jnp
        >>> print(OptimalBaseline()(jnp.array([1.0, 2.0, 6.0]), jnp.array([3.0, 1.0, 1.0])))
        [4.   2.25 1.25]

    References:
        Greensmith, Bartlett and Baxter, Variance reduction techniques for gradient estimates in
        reinforcement learning (2004), theorem 8.
    """

    min_samples: ClassVar[int] = 2

    def __call__(self, costs: PyTree, weights: PyTree = None) -> PyTree:
        if weights is None:
            raise ValueError("OptimalBaseline needs weights, [n]: the squared norms of the scores.")
        return jax.tree.map(lambda cost: leave_one_out(cost, weight=weights), costs)

    def weight(self, x: Any, distribution: Distribution) -> jax.Array:
        score = distribution.score(x)
        if not score:
            raise ValueError(
                f"OptimalBaseline weighs by the score with respect to distribution.params, which "
                f"holds no float arrays, got {distribution.params!r}. Give the distribution as "
                f"Distribution(log_prob, sample, params), or use LeaveOneOut."
            )
        wide = jnp.result_type(float)
        return reduce(jnp.add, [jnp.sum(jnp.square(s.astype(wide))) for s in score])


@pytree_dataclass
class ConstantBaseline(Baseline):
    """A constant chosen beforehand; 0 is plain REINFORCE.

    Unbiased for any value that does not depend on the draws of the same call. No derivative passes
    through it.

    Attributes:
        value: a scalar, or a pytree of arrays shaped like what f returns.

    Example:
        >>> import jax.numpy as jnp
        >>> print(ConstantBaseline(2.0)(jnp.array([1.0, 5.0])))
        [2. 2.]
    """

    value: PyTree = 0.0

    coupled: ClassVar[bool] = False

    def __call__(self, costs: PyTree, weights: PyTree = None) -> PyTree:
        del weights
        return repeated(self.value, costs, "ConstantBaseline.value")


@pytree_dataclass
class LearnedBaseline(Baseline):
    """A function with parameters of its own, trained in the same backward pass as the model.

    Unbiased, because it sees only ``inputs``, never the draw. It adds to the expectation a term
    whose value is 0 and whose derivative with respect to ``params`` is that of
    ``mean((cost - baseline)^2) / 2``, so that one call of ``jax.grad`` gives the gradients of model
    and baseline; any optimizer takes both. The term trains the baseline when the expectation is
    *minimized*: to maximize, negate f, not the expectation.

    Attributes:
        apply: ``apply(params, inputs)``, to a scalar or a pytree shaped like what f returns.
        params: any pytree of arrays.
        inputs: what the baseline may look at (an observation, a state), any pytree.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> def loss(params, observation, key):
        ...     baseline = sf.LearnedBaseline(lambda p, x: p * x, params["baseline"], observation)
        ...     coin = distrax.Bernoulli(logits=params["policy"] * observation)
        ...     return sf.expectation(lambda b: 2.0 * b, coin, key, sf.ScoreFunction(baseline))
        >>> params = {"policy": 0.5, "baseline": 1.0}
        >>> gradients = jax.grad(loss)(params, 3.0, jax.random.key(0))

    References:
        Mnih and Gregor, Neural variational inference and learning in belief networks (2014),
        section 2.3.
    """

    apply: Callable[[PyTree, PyTree], PyTree] = static_field(repr=False)
    params: PyTree
    inputs: PyTree = None

    coupled: ClassVar[bool] = False

    def __call__(self, costs: PyTree, weights: PyTree = None) -> PyTree:
        del weights
        return repeated(self.apply(self.params, self.inputs), costs, "LearnedBaseline.apply")

    def train(self, terms: PyTree, costs: PyTree) -> PyTree:
        def add(term: jax.Array, cost: jax.Array, baseline: jax.Array) -> jax.Array:
            loss = jnp.square(cost - baseline) / 2
            return term + (loss - stop(loss))

        return jax.tree.map(add, terms, costs, self(costs))


def repeated(value: PyTree, costs: PyTree, name: str) -> PyTree:
    """The value for each sample of each cost leaf, [n, ...]; a lone scalar serves all leaves."""
    leaves = jax.tree.leaves(value)
    if len(leaves) == 1 and jnp.shape(leaves[0]) == ():
        return jax.tree.map(lambda cost: jnp.full_like(as_float(cost), leaves[0]), costs)

    def repeat(value: jax.Array, cost: jax.Array) -> jax.Array:
        if jnp.shape(value) not in ((), cost.shape[1:]):
            raise ValueError(
                f"{name} has shape {jnp.shape(value)}, but f returns shape {cost.shape[1:]}; "
                f"they must agree, or the baseline must be a scalar."
            )
        return jnp.broadcast_to(jnp.asarray(value, as_float(cost).dtype), cost.shape)

    got: Any = jax.tree.structure(value)
    if got != jax.tree.structure(costs):
        raise ValueError(
            f"{name} is {got}, but f returns {jax.tree.structure(costs)}; "
            f"give one baseline for each, or one scalar for all."
        )
    return jax.tree.map(repeat, value, costs)


@pytree_dataclass
class MovingAverage(Baseline):
    """The exponentially weighted mean of the costs of earlier calls.

    Unbiased, because only earlier calls count: `update` comes after use and returns a new value.
    Raw sums are kept and divided on reading, so the average of a constant is that constant from
    the first update on; before it, the baseline is 0.

    Attributes:
        decay: how much of the past is kept at each update, in [0, 1).
        total: the decayed sum of mean costs: a scalar, or zeros shaped like what f returns.
        weight_sum: the decayed sum of the weights.

    Example:
        >>> import jax.numpy as jnp
        >>> baseline = MovingAverage(0.9).update(jnp.array([1.0, 5.0]))
        >>> print(baseline(jnp.array([7.0])))
        [3.]

    References:
        Williams, Simple statistical gradient-following algorithms (1992), section 8.
    """

    decay: float | jax.Array = 0.99
    total: PyTree = field(default_factory=lambda: jnp.zeros(()))
    weight_sum: jax.Array = field(default_factory=lambda: jnp.zeros(()))

    coupled: ClassVar[bool] = False

    def __call__(self, costs: PyTree, weights: PyTree = None) -> PyTree:
        del weights
        started = self.weight_sum > 0
        weight = jnp.where(started, self.weight_sum, 1)
        average = jax.tree.map(lambda total: total / weight.astype(total.dtype), self.total)
        return repeated(average, costs, "MovingAverage.total")

    def update(self, costs: PyTree) -> "MovingAverage":
        """The average after these costs, [n, ...] or without the sample axis; stopped."""

        def step(total: jax.Array, cost: jax.Array) -> jax.Array:
            cost = stop(jnp.asarray(cost))
            if cost.shape[cost.ndim - total.ndim :] != total.shape or cost.ndim > total.ndim + 1:
                raise ValueError(
                    f"costs have shape {cost.shape}; MovingAverage keeps an average of shape "
                    f"{total.shape} and takes costs of that shape, with or without a leading "
                    f"sample axis. Start it with total=jnp.zeros(shape of what f returns)."
                )
            mean = jnp.mean(cost, axis=tuple(range(cost.ndim - total.ndim)))
            return self.decay * total + (1 - self.decay) * mean.astype(total.dtype)

        total = jax.tree.map(step, self.total, costs)
        return replace(
            self, total=total, weight_sum=self.decay * self.weight_sum + (1 - self.decay)
        )


@pytree_dataclass
class ShrunkLeaveOneOut(Baseline):
    """The mean cost of the other samples, drawn towards 0 by as much as it is noise.

    .. code-block:: text

        baseline    c mean of the other costs,  c = m^2 / (m^2 + v / (n - 1))

    where m and v are the mean and the variance of the costs of earlier calls: `update` comes after
    use and returns a new value. With few samples `LeaveOneOut` is so noisy that it can lose to no
    baseline at all where E f is near 0: then c is small, and elsewhere near 1. Unbiased, because no
    sample sees its own cost and c was made before. Needs at least 2 samples. Before the first
    update c is 1.

    For a score component h and g = E[f h], the c of least variance is ``m E[f h^2] / ((m^2 +
    v / (n - 1)) E[h^2] + g^2 / (n - 1))``; the one used is that of f and h^2 uncorrelated, g = 0.

    Attributes:
        decay: how much of the past is kept at each update, in [0, 1).
        mean_sum: the decayed sum of mean costs: a scalar, or zeros shaped like what f returns.
        variance_sum: the decayed sum of variances of a cost, shaped alike.
        weight_sum: the decayed sum of the weights.

    Example:
        >>> import jax.numpy as jnp
        >>> baseline = ShrunkLeaveOneOut().update(jnp.array([1.0, 5.0]))
        >>> print(jnp.round(100 * baseline(jnp.array([1.0, 5.0]))))
        [265.  53.]

    References:
        Kool, van Hoof and Welling, Buy 4 REINFORCE samples, get a baseline for free (2019); James
        and Stein, Estimation with quadratic loss (1961).
    """

    decay: float | jax.Array = 0.99
    mean_sum: PyTree = field(default_factory=lambda: jnp.zeros(()))
    variance_sum: PyTree = field(default_factory=lambda: jnp.zeros(()))
    weight_sum: jax.Array = field(default_factory=lambda: jnp.zeros(()))

    min_samples: ClassVar[int] = 2

    def __call__(self, costs: PyTree, weights: PyTree = None) -> PyTree:
        del weights
        n = len(jax.tree.leaves(costs)[0])
        started = self.weight_sum > 0
        weight = jnp.where(started, self.weight_sum, 1)

        def share(mean_sum: jax.Array, variance_sum: jax.Array) -> jax.Array:
            square = jnp.square(mean_sum / weight.astype(mean_sum.dtype))
            noise = variance_sum / weight.astype(variance_sum.dtype) / (n - 1)
            known = started & (square + noise > 0)
            return jnp.where(known, square / jnp.where(known, square + noise, 1), 1)

        shares = jax.tree.map(share, self.mean_sum, self.variance_sum)
        shares = repeated(shares, costs, "ShrunkLeaveOneOut.mean_sum")
        return jax.tree.map(lambda share, cost: share * leave_one_out(cost), shares, costs)

    def update(self, costs: PyTree) -> "ShrunkLeaveOneOut":
        """The same after these costs, [n, ...], n >= 2; stopped."""

        def kept(total: jax.Array, cost: jax.Array, moment: Callable[..., jax.Array]) -> jax.Array:
            cost = stop(jnp.asarray(cost))
            if cost.ndim != total.ndim + 1 or cost.shape[1:] != total.shape or len(cost) < 2:
                raise ValueError(
                    f"costs have shape {cost.shape}; ShrunkLeaveOneOut keeps moments of shape "
                    f"{total.shape} and takes costs of that shape with a leading sample axis, 2 "
                    f"samples at least. Start it with zeros of the shape of what f returns."
                )
            return self.decay * total + (1 - self.decay) * moment(cost).astype(total.dtype)

        mean, variance = partial(jnp.mean, axis=0), partial(jnp.var, axis=0, ddof=1)
        return replace(
            self,
            mean_sum=jax.tree.map(partial(kept, moment=mean), self.mean_sum, costs),
            variance_sum=jax.tree.map(partial(kept, moment=variance), self.variance_sum, costs),
            weight_sum=self.decay * self.weight_sum + (1 - self.decay),
        )
