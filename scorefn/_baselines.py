"""Baselines: immutable values that score-function estimators subtract from their costs."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import field, replace
from functools import partial, reduce
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import as_float, held_fixed, stop
from scorefn._core.checks import check_instance, check_number
from scorefn._core.derivatives import minimized
from scorefn._core.pytree import leaf_names, pytree_dataclass, static_field
from scorefn._core.types import PyTree
from scorefn.distributions._distribution import Distribution

from ._score import leave_one_out

# Classes of baselines that flax knows.
_SAVED: set[type] = set()


class Baseline(ABC):
    """A number subtracted from each cost to lower the variance of its score term.

    ``baseline(costs, weights)`` returns the baselines; ``baseline.update(costs)`` returns the
    baseline for the next call. Both are pure: a baseline is an immutable value that a training loop
    carries like an optimizer state. To add no bias, it must not depend on the draw whose cost it is
    subtracted from. Draws are not passed to it.

    Attributes:
        min_samples: the smallest number of samples.
        coupled: whether a baseline depends on the costs of other samples of the same call.
        mean_of_others: whether a baseline is the mean cost of the other samples: such a baseline
            removes the derivative of the normalizer of an unnormalized log_prob (`Given`).
    """

    min_samples: ClassVar[int] = 1
    coupled: ClassVar[bool] = True
    mean_of_others: ClassVar[bool] = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Baseline:
        """An instance of a class that ``flax.serialization`` can save, where flax is in use."""
        del args, kwargs
        serialization: Any = sys.modules.get("flax.serialization")
        if serialization is not None and cls not in _SAVED:
            _SAVED.add(cls)
            save = partial(_state, serialization.to_state_dict)
            load = partial(_with_state, serialization.from_state_dict)
            with suppress(ValueError):  # A class that has its own form keeps it.
                serialization.register_serialization_state(cls, save, load)
        return super().__new__(cls)

    @abstractmethod
    def __call__(self, costs: PyTree, weights: PyTree = None) -> PyTree:
        """The baselines, shaped like the costs.

        Args:
            costs: the costs of one call, [n, ...] for each leaf, stopped.
            weights: the results of `weight` for all draws, [n, ...], or None.
        """

    def update(self, costs: PyTree) -> Baseline:
        """The baseline for the next call, given the costs of this one, [n, ...]."""
        del costs
        return self

    def weight(self, x: Any, distribution: Distribution) -> PyTree:
        """Information on one draw, besides its cost, that the baseline needs; or None."""
        del x, distribution

    def train(self, terms: PyTree, costs: PyTree) -> PyTree:
        """The terms, whose derivative may also train the parameters of the baseline."""
        del costs
        return terms

    def check_samples(self, n: int) -> None:
        """Raises ``ValueError`` if n samples are too few."""
        if n < self.min_samples:
            raise ValueError(
                f"num_samples must be at least {self.min_samples} with the baseline "
                f"{type(self).__name__}, got {n}: the baseline of each sample is computed from the "
                f"others. Raise num_samples, or use another baseline, as in "
                f"ScoreFunction(ConstantBaseline(0.0))."
            )


def _state(to_state: Callable[[Any], Any], baseline: Any) -> dict[str, Any]:
    return {name: to_state(getattr(baseline, name)) for name in leaf_names(baseline)}


def _with_state(from_state: Callable[..., Any], baseline: Any, state: dict[str, Any]) -> Any:
    loaded = {name: from_state(getattr(baseline, name), state[name], name) for name in state}
    return replace(baseline, **loaded)


def check_baseline(baseline: Any) -> None:
    """Raises ``TypeError`` unless the value is an instance of a baseline."""
    check_instance("baseline", baseline)
    # JAX rebuilds pytrees with plain objects as placeholders.
    if not isinstance(baseline, Baseline) and type(baseline) is not object:
        raise TypeError(
            f"baseline must be a Baseline, as LeaveOneOut() or ConstantBaseline(0.5), got "
            f"{baseline!r}."
        )


@pytree_dataclass
class LeaveOneOut(Baseline):
    """The mean cost of the other samples of the same call.

    This is the default; it has no parameters. Unbiased, because the baseline of a sample does not
    depend on its own cost. Needs at least 2 samples, and couples all samples of a call. For f and a
    score component h, with m = E f and g = E[f h], n samples give the variance
    ``(E[(f - m)^2 h^2] - g^2) / n + (Var(f) E[h^2] + g^2) / (n (n - 1))``.

    Example:
        >>> import jax.numpy as jnp
        >>> print(LeaveOneOut()(jnp.array([1.0, 2.0, 6.0])))
        [4.  3.5 1.5]

    References:
        Kool, van Hoof and Welling, Buy 4 REINFORCE samples, get a baseline for free (2019).
    """

    min_samples: ClassVar[int] = 2
    mean_of_others: ClassVar[bool] = True

    def __call__(self, costs: PyTree, weights: PyTree = None) -> PyTree:
        del weights
        return jax.tree.map(leave_one_out, costs)


@pytree_dataclass
class OptimalBaseline(Baseline):
    """The mean cost of the other samples, weighted by the squared norms of their scores.

    The constant baseline of least variance is ``E[f |s|^2] / E[|s|^2]``, with s the score with
    respect to all of ``distribution.params``; this is its leave-one-out estimate. Unbiased. Needs
    at least 2 samples, and one additional derivative of log_prob for each of them.

    Raises:
        ValueError: ``distribution.params`` holds no float arrays.

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
                f"OptimalBaseline needs the score with respect to distribution.params, which "
                f"holds no float arrays, got {distribution.params!r}. Give the distribution as "
                f"Distribution(log_prob, sample, params), or use LeaveOneOut."
            )
        wide = jnp.result_type(float)
        return reduce(jnp.add, [jnp.sum(jnp.square(s.astype(wide))) for s in score])


@pytree_dataclass
class ConstantBaseline(Baseline):
    """A constant; 0 is plain REINFORCE.

    Unbiased for any value that does not depend on the draws of the same call. No derivative passes
    through it.

    Attributes:
        value: a scalar, or a pytree of arrays shaped like the result of f.

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
    """A function with its own parameters, trained in the backward pass of the model.

    Unbiased, because it depends only on ``inputs``, not on the draw. It adds a term of value 0 to
    the expectation; the gradient of this term with respect to ``params`` is that of
    ``mean((cost - baseline)^2) / 2``. One call of ``jax.grad`` then gives the gradients of model
    and baseline, for any optimizer that minimizes. The baseline is trained whether the expectation
    is minimized or maximized: a factor before the expectation multiplies the gradient of the term
    by the absolute value of the factor. This gradient reaches ``params`` and nothing else. It
    exists in reverse mode only, and is not gathered in one pass over chunks (see `expectation`).

    Attributes:
        apply: ``apply(params, inputs)`` returns a scalar, or a pytree shaped like the result of f.
        params: any pytree of arrays.
        inputs: the inputs of the baseline (an observation, a state), any pytree.
        train_inputs: whether the term also trains the arrays from which ``inputs`` are computed,
            and those that ``apply`` closes over: a torso shared with the model.

    Raises:
        TypeError: the expectation is differentiated in forward mode along ``params``.

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
    train_inputs: bool = static_field(default=False, kw_only=True)

    coupled: ClassVar[bool] = False

    def __call__(self, costs: PyTree, weights: PyTree = None) -> PyTree:
        del weights
        return repeated(self.apply(self.params, self.inputs), costs, "LearnedBaseline.apply")

    def train(self, terms: PyTree, costs: PyTree) -> PyTree:
        def add(term: jax.Array, cost: jax.Array, baseline: jax.Array) -> jax.Array:
            return term + minimized(jnp.square(cost - baseline) / 2)

        if self.train_inputs:
            return jax.tree.map(add, terms, costs, self(costs))
        inputs = stop(self.inputs)
        apply = held_fixed(lambda params: self.apply(params, inputs), self.params)
        fixed = replace(self, apply=lambda params, _: apply(params))
        return jax.tree.map(add, terms, costs, fixed(costs))


def repeated(value: PyTree, costs: PyTree, name: str) -> PyTree:
    """The value repeated for each sample of each cost leaf; one scalar serves all leaves."""
    leaves = jax.tree.leaves(value)
    if len(leaves) == 1 and jnp.shape(leaves[0]) == ():
        return jax.tree.map(lambda cost: jnp.full_like(as_float(cost), leaves[0]), costs)

    def repeat(value: jax.Array, cost: jax.Array) -> jax.Array:
        if jnp.shape(value) not in ((), cost.shape[1:]):
            raise ValueError(
                f"{name} has shape {jnp.shape(value)}, but f returns shape {cost.shape[1:]}. "
                f"Give a baseline of that shape, or a scalar."
            )
        return jnp.broadcast_to(jnp.asarray(value, as_float(cost).dtype), cost.shape)

    got: Any = jax.tree.structure(value)
    if got != jax.tree.structure(costs):
        raise ValueError(
            f"{name} is {got}, but f returns {jax.tree.structure(costs)}. "
            f"Give one baseline for each leaf, or one scalar for all."
        )
    return jax.tree.map(repeat, value, costs)


@pytree_dataclass
class MovingAverage(Baseline):
    """The exponentially weighted mean of the costs of earlier calls.

    Unbiased, because it depends only on earlier calls: call `update` after use; it returns a new
    value. The average of a constant is that constant from the first update on, because the sum of
    the costs is divided by the sum of their weights. Before the first update the baseline is 0.

    Attributes:
        decay: the factor on past costs at each update, in [0, 1).
        total: the decayed sum of mean costs: a scalar, or zeros shaped like the result of f.
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

    def __post_init__(self) -> None:
        check_number("decay", self.decay, least=0, below=1)

    def __call__(self, costs: PyTree, weights: PyTree = None) -> PyTree:
        del weights
        started = self.weight_sum > 0
        weight = jnp.where(started, self.weight_sum, 1)
        average = jax.tree.map(lambda total: total / weight.astype(total.dtype), self.total)
        return repeated(average, costs, "MovingAverage.total")

    def update(self, costs: PyTree) -> MovingAverage:
        """The average after these costs, [n, ...] or without a sample axis; stopped."""

        def step(total: jax.Array, cost: jax.Array) -> jax.Array:
            cost = stop(jnp.asarray(cost))
            if cost.shape[cost.ndim - total.ndim :] != total.shape or cost.ndim > total.ndim + 1:
                raise ValueError(
                    f"costs have shape {cost.shape}; MovingAverage keeps an average of shape "
                    f"{total.shape} and takes costs of that shape, with or without a leading "
                    f"sample axis. Start it with total=jnp.zeros(shape of the result of f)."
                )
            mean = jnp.mean(cost, axis=tuple(range(cost.ndim - total.ndim)))
            return self.decay * total + (1 - self.decay) * mean.astype(total.dtype)

        total = jax.tree.map(step, self.total, costs)
        return replace(
            self, total=total, weight_sum=self.decay * self.weight_sum + (1 - self.decay)
        )


@pytree_dataclass
class ShrunkLeaveOneOut(Baseline):
    """The mean cost of the other samples, shrunk towards 0 according to its noise.

    .. code-block:: text

        baseline    c mean of the other costs,  c = m^2 / (m^2 + v / (n - 1))

    where m and v are the mean and the variance of the costs of earlier calls: call `update` after
    use; it returns a new value. With few samples and E f near 0, `LeaveOneOut` can have a larger
    variance than no baseline. Then c is small; elsewhere it is near 1. Unbiased, because neither c
    nor the mean depends on the cost of the sample itself. Needs at least 2 samples. Before the
    first update c is 1.

    For a score component h and g = E[f h], the c of least variance is ``m E[f h^2] / ((m^2 +
    v / (n - 1)) E[h^2] + g^2 / (n - 1))``. The formula above assumes that f and h^2 are
    uncorrelated and that g = 0.

    Attributes:
        decay: the factor on past costs at each update, in [0, 1).
        mean_sum: the decayed sum of mean costs: a scalar, or zeros shaped like the result of f.
        variance_sum: the decayed sum of variances of a cost, shaped like `mean_sum`.
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

    def __post_init__(self) -> None:
        check_number("decay", self.decay, least=0, below=1)

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

    def update(self, costs: PyTree) -> ShrunkLeaveOneOut:
        """The baseline after these costs, [n, ...], n >= 2; stopped."""

        def kept(total: jax.Array, cost: jax.Array, moment: Callable[..., jax.Array]) -> jax.Array:
            cost = stop(jnp.asarray(cost))
            if cost.ndim != total.ndim + 1 or cost.shape[1:] != total.shape or len(cost) < 2:
                raise ValueError(
                    f"costs have shape {cost.shape}; ShrunkLeaveOneOut keeps moments of shape "
                    f"{total.shape} and takes costs of that shape with a leading sample axis and "
                    f"at least 2 samples. Start it with zeros shaped like the result of f."
                )
            return self.decay * total + (1 - self.decay) * moment(cost).astype(total.dtype)

        mean, variance = partial(jnp.mean, axis=0), partial(jnp.var, axis=0, ddof=1)
        return replace(
            self,
            mean_sum=jax.tree.map(partial(kept, moment=mean), self.mean_sum, costs),
            variance_sum=jax.tree.map(partial(kept, moment=variance), self.variance_sum, costs),
            weight_sum=self.decay * self.weight_sum + (1 - self.decay),
        )
