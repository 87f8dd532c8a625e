"""Rollouts: many steps of random choices in one scan."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._baselines import Baseline, LearnedBaseline
from scorefn._core.arrays import as_local, is_number
from scorefn._core.checks import check_count, check_key, check_pair
from scorefn._core.refusals import without_gradient
from scorefn._core.types import PyTree
from scorefn._score import attach_score, baselines_zero
from scorefn.estimators._cost_guard import guarded_cost
from scorefn.estimators._pathwise import Pathwise
from scorefn.estimators._score_function import ScoreFunction

from ._credit import add_costs
from ._requests import Choice, Cost, next_request

Step = Callable[..., Generator[Any, Any, tuple[Any, PyTree]]]


_CARRY = (
    "A cost computed from the carry that a rollout returns lacks the score of the choices in the "
    "rollout: its gradient would silently be wrong. Yield the rollout in a program, carry = yield "
    "scorefn.rollout(...), which adds the score to later costs; or let the step return the cost. "
    "If the carry is not meant to be differentiated, wrap it in jax.lax.stop_gradient."
)


@dataclass(frozen=True, eq=False)
class Rollout:
    """A rollout with its arguments: a function of one key, or a program choice."""

    step: Step
    init: PyTree
    xs: PyTree
    length: int
    chunk_size: int | None

    def __call__(self, key: jax.Array) -> tuple[PyTree, jax.Array, jax.Array]:
        """The last carry, the costs [length], and the log-probability of all choices."""
        state, costs, log_prob = self.run(key)
        return without_gradient(state, _CARRY, log_prob), costs, log_prob

    def run(self, key: jax.Array) -> tuple[PyTree, jax.Array, jax.Array]:
        """The result of a call for a program, which attaches the score to later costs."""
        costs, (state, log_prob) = guarded_cost(self._steps, key, "rollout", self)
        return state, costs, log_prob

    def _steps(self, key: jax.Array) -> tuple[jax.Array, tuple[PyTree, jax.Array]]:
        def body(carry: Any, x: Any) -> tuple[Any, PyTree]:
            state, log_prob = carry
            step_key, x = x
            state, cost, log_prob = _one_step(self.step(state, x), log_prob, step_key)
            return (state, log_prob), cost

        def steps(carry: Any, xs: Any) -> tuple[Any, PyTree]:
            return jax.lax.scan(body, carry, xs)

        xs = (jax.random.split(check_key(key), self.length), self.xs)
        # What a step returns depends on the key: so must the carry at first, on devices.
        carry = as_local((self.init, jnp.zeros((), jnp.result_type(float))), (self.init, xs))
        if self.chunk_size is None:
            (state, log_prob), costs = steps(carry, xs)
            return costs, (state, log_prob)
        # Only the first carry of each chunk is stored; the backward pass computes the rest again.
        chunks = jax.tree.map(lambda x: x.reshape(-1, self.chunk_size, *x.shape[1:]), xs)
        (state, log_prob), costs = jax.lax.scan(jax.checkpoint(steps), carry, chunks)
        costs = jax.tree.map(lambda c: c.reshape(self.length, *c.shape[2:]), costs)
        return costs, (state, log_prob)


def rollout(
    step: Step,
    init: PyTree,
    xs: PyTree = None,
    *,
    length: int | None = None,
    chunk_size: int | None = None,
) -> Rollout:
    r"""A trajectory of many choices: `lax.scan` of a step that yields its choices.

    .. code-block:: text

        value       costs_t
        derivative  d costs_t + costs_t * d (log-probability of all choices before it)

    so that a choice is credited with later costs only (rewards to go). Unbiased at every order. A
    step is traced once, and evaluated once per step. The choices of a step are like those of a
    `program`, but with one draw each. Their estimators are `Pathwise`, or `ScoreFunction` with a
    number as baseline, which may depend on the carry (a value function: an estimate of the sum of
    all later costs).

    ``rollout(...)(key)`` returns ``(carry, costs, log_prob)``. The float arrays of the carry have
    no score: differentiating a cost computed from them raises ``TypeError``, and in forward mode
    the derivative is nan. In a program, ``carry = yield scorefn.rollout(...)`` adds the costs to
    those of the program and the score to later costs. If the parameters reach the carry only
    through draws by `ScoreFunction`, ``attach_score(cost(jax.lax.stop_gradient(carry)), log_prob)``
    is right as well.

    Args:
        step: a generator function ``step(carry, x)``, which yields choices (and costs) and returns
            ``(carry, cost)``, with cost one real number, or None.
        init: the first carry, any pytree of arrays.
        xs: the inputs of the steps, any pytree of arrays [length, ...], or None.
        length: the number of steps, a static int; needed if xs is None.
        chunk_size: the number of steps between checkpoints, a divisor of length. One carry per
            chunk is stored for the backward pass, which computes one chunk again at a time, so the
            memory is that of ``length / chunk_size + chunk_size`` carries. None stores all.

    Returns:
        A function of one key.

    Raises:
        TypeError: a choice has another estimator; step is not a generator function.
        ValueError: the lengths do not agree; a choice has several samples.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def step(position, _):
        ...     reinforce = sf.ScoreFunction(sf.ConstantBaseline(0.5 * position))
        ...     right = yield sf.sample(sf.Bernoulli(-0.1 * position), reinforce)
        ...     position += 2 * right - 1
        ...     return position, position**2
        >>> _, costs, _ = sf.rollout(step, jnp.array(3.0), length=20)(jax.random.key(0))
        >>> print(costs.shape)
        (20,)

    References:
        Williams, Simple statistical gradient-following algorithms for connectionist reinforcement
        learning (1992); Foerster et al., DiCE: the infinitely differentiable Monte Carlo estimator
        (2018), section 4; Mao et al., A baseline for any order gradient estimation in stochastic
        computation graphs (2019), equation 7.
    """
    if not inspect.isgeneratorfunction(step):
        raise TypeError(
            f"step must be a generator function that yields its choices, as in x = yield "
            f"scorefn.sample(distribution, estimator), got {step!r}."
        )
    if not all(jnp.ndim(leaf) for leaf in jax.tree.leaves(xs)):
        raise ValueError(
            f"xs is scanned over, so its leaves need a leading axis of steps, got {xs!r}. What is "
            f"the same in every step is closed over, and a number of steps is length=."
        )
    lengths = {jnp.shape(leaf)[0] for leaf in jax.tree.leaves(xs)}
    if length is not None:
        lengths.add(check_count("length", length))
    if len(lengths) != 1:
        raise ValueError(
            f"length and the leading axes of the leaves of xs must give one number of steps, got "
            f"{sorted(lengths) or None}."
        )
    (steps,) = lengths
    if chunk_size is not None and steps % check_count("chunk_size", chunk_size):
        raise ValueError(f"chunk_size must divide the {steps} steps, got {chunk_size}.")
    return Rollout(step, init, xs, steps, chunk_size)


def _one_step(
    generator: Generator[Any, Any, Any], log_prob: jax.Array, key: jax.Array
) -> tuple[PyTree, jax.Array, jax.Array]:
    """The carry and the cost after one step, and the log-probability up to there."""
    total: Any = jnp.zeros(())
    value = None
    while True:
        ended, request = next_request(generator.send, value)
        value = None
        if ended:
            state, cost = check_pair("step", "(carry, cost)", request)
            if cost is not None:
                total = add_costs(total, _scored(cost, log_prob))
            return state, total, log_prob
        if isinstance(request, Cost):
            if request.depends_on is not None:
                raise TypeError("In a rollout a cost depends on all draws so far. Omit depends_on.")
            total = add_costs(total, _scored(request.value, log_prob))
        elif isinstance(request, Choice):
            key, draw_key = jax.random.split(key)
            value, score, baseline = _draw(request, draw_key)
            if score is not None:
                zero = baselines_zero(log_prob, score, baseline)
                total = add_costs(total, zero)
                log_prob += score.astype(log_prob.dtype)
        else:
            raise TypeError(f"A step must yield scorefn.sample(...) or cost(...), got {request!r}.")


def _draw(choice: Choice, key: jax.Array) -> tuple[Any, jax.Array | None, jax.Array]:
    """The draw, its log-probability (None for `Pathwise`) and its baseline."""
    estimator = choice.estimator
    if choice.num_samples != 1:
        raise ValueError(
            f"In a rollout each choice is one draw, got num_samples={choice.num_samples}. For "
            f"several trajectories use jax.vmap over keys."
        )
    if isinstance(estimator, Pathwise):
        return estimator.guarded_draw(choice.distribution, key), None, jnp.zeros(())
    if not isinstance(estimator, ScoreFunction) or not _is_number_baseline(estimator.baseline):
        raise TypeError(
            f"In a rollout each choice is one draw, and its estimator must be Pathwise(), or "
            f"ScoreFunction with a number as baseline: ScoreFunction(ConstantBaseline(0.0)), or "
            f"ConstantBaseline(value(carry)) with value trained separately on the costs to go; "
            f"got {estimator!r}."
        )
    # The rollout returns the value as well.
    x, score, _ = estimator.guarded_draw(choice.distribution, key, score_only=False)
    baseline = estimator.baseline(jnp.zeros((1,), score.dtype))
    # An impossible draw has no score, and must not remove the scores of other draws.
    return x, jnp.where(jnp.isinf(score), 0, score), jnp.sum(baseline)


def _is_number_baseline(baseline: Baseline) -> bool:
    return not baseline.coupled and not isinstance(baseline, LearnedBaseline)


def _scored(cost: Any, log_prob: jax.Array) -> jax.Array:
    if not is_number(cost) or jnp.shape(cost) != ():
        got = f"shape {jnp.shape(cost)}" if is_number(cost) else repr(cost)
        raise ValueError(f"The cost of a step must be one real number, got {got}.")
    return attach_score(cost, log_prob)
