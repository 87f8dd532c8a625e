"""A call of every public function of scorefn.policy on arrays [B, T], for tests of all of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

import scorefn as sf
from scorefn import policy

B, T, V = 2, 5, 4
RANDOM = np.random.default_rng(7)
# An action, a step that was none and two that do not exist, one of these between actions.
EXISTS = np.array([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], bool)
ACTED = np.array([[1, 0, 0, 1, 0], [0, 1, 1, 0, 1]], bool)
GROUPS = np.array([[1, 2, 0, 2, 0], [1, 1, 2, 2, 2]])


def array(*more: int) -> np.ndarray:
    return RANDOM.normal(size=(B, T, *more))


def log_probs(*more: int) -> np.ndarray:
    return np.log(RANDOM.uniform(0.1, 0.9, size=(B, T, *more)))


DISCOUNT, LAM = RANDOM.uniform(0.3, 1.0, size=(2, B, T))


@dataclass(frozen=True)
class Case:
    """A call.

    Attributes:
        arrays: over steps, that it takes by name.
        of_actions: which of them are read only where the policy chose.
        time: whether it knows of acted.
        ids: segment_ids, where it is given them.
    """

    call: Callable[..., Any]
    arrays: dict[str, np.ndarray]
    of_actions: tuple[str, ...] = ()
    time: bool = False
    ids: dict[str, np.ndarray] = field(default_factory=dict)


def steps(*names: str) -> dict[str, np.ndarray]:
    return {name: {"discount": DISCOUNT, "lam": LAM}.get(name, array()) for name in names}


COMMON = ("value", "next_value", "lam")
CASES: dict[str, Case] = {
    "reverse_recurrence": Case(policy.reverse_recurrence, {"a": DISCOUNT, "b": array()}, time=True),
    "returns": Case(policy.returns, steps("reward", "discount"), time=True),
    "lambda_returns": Case(
        policy.lambda_returns,
        steps("reward", "discount", "next_value", "lam"),
        ("next_value", "lam"),
        time=True,
    ),
    "gae": Case(policy.gae, steps("reward", "discount", *COMMON), COMMON, time=True),
    "vtrace": Case(
        lambda **o: jnp.stack(policy.vtrace(clip_rho=1.5, clip_pg_rho=2.0, **o)),
        steps("reward", "discount", *COMMON, "log_rho"),
        (*COMMON, "log_rho"),
        time=True,
    ),
    "n_step_returns": Case(
        partial(policy.n_step_returns, n=3),
        steps("reward", "discount", "next_value"),
        ("next_value",),
        time=True,
    ),
    "next_value": Case(policy.next_value, steps("value"), ("value",), time=True),
    "discount_weight": Case(policy.discount_weight, {"discount": DISCOUNT}),
    "log_ratio": Case(policy.log_ratio, {"log_prob": log_probs(), "old_log_prob": log_probs()}),
    "log_ratio, prefix": Case(
        partial(policy.log_ratio, level="prefix"),
        {"log_prob": log_probs(), "old_log_prob": log_probs()},
    ),
    "log_ratio, sequence-sum": Case(
        partial(policy.log_ratio, level="sequence-sum"),
        {"log_prob": log_probs(), "old_log_prob": log_probs()},
    ),
    "log_ratio, sequence-mean": Case(
        partial(policy.log_ratio, level="sequence-mean"),
        {"log_prob": log_probs(), "old_log_prob": log_probs()},
    ),
    "importance_weight": Case(
        partial(policy.importance_weight, low=0.5, high=2.0), {"log_ratio": array()}
    ),
    "importance_weight, zero": Case(
        partial(policy.importance_weight, low=0.5, high=2.0, outside="zero"),
        {"log_ratio": array()},
    ),
    "score_surrogate": Case(
        policy.score_surrogate, {"log_prob": log_probs(), "advantage": array()}
    ),
    "clipped_surrogate": Case(
        partial(policy.clipped_surrogate, dual_clip=1.5),
        {"log_ratio": array(), "advantage": array()},
    ),
    "weighted_surrogate": Case(
        partial(policy.weighted_surrogate, eps_high=0.5),
        {"log_prob": log_probs(), "log_ratio": array(), "advantage": array()},
    ),
    "clipped_value_loss": Case(policy.clipped_value_loss, steps("value", "old_value", "target")),
    "kl_estimate": Case(
        policy.kl_estimate,
        {
            "log_prob": log_probs(),
            "ref_log_prob": log_probs(),
            "log_weight": array(),
            "baseline": array(),
        },
    ),
    "kl_estimate, k1, alone": Case(
        partial(policy.kl_estimate, kind="k1", axis=None),
        {"log_prob": log_probs(), "ref_log_prob": log_probs(), "log_weight": array()},
    ),
    "divergence": Case(
        policy.divergence,
        {
            "logits": array(V),
            "reference_logits": array(V),
            "action_log_prob": log_probs(),
            "baseline": array(),
        },
    ),
    "entropy": Case(
        policy.entropy,
        {"logits": array(V), "action_log_prob": log_probs(), "baseline": array()},
    ),
    "reduce": Case(policy.reduce, {"x": array()}),
    "reduce, seq-mean-token-mean": Case(
        partial(policy.reduce, mode="seq-mean-token-mean"), {"x": array()}
    ),
    "whiten": Case(policy.whiten, {"x": array()}),
    "whiten, rows": Case(partial(policy.whiten, axis=0), {"x": array()}),
    "effective_sample_size": Case(policy.effective_sample_size, {"log_ratio": array()}),
    "clip_fraction": Case(policy.clip_fraction, {"log_ratio": array(), "advantage": array()}),
    "approximate_divergence": Case(policy.approximate_divergence, {"log_ratio": array()}),
    "best_of": Case(partial(policy.best_of, k=2), {"reward": array()}),
    "best_of, k-1": Case(partial(policy.best_of, k=2, baseline="k-1"), {"reward": array()}),
    "best_of, none": Case(partial(policy.best_of, k=2, baseline=None), {"reward": array()}),
    "leave_one_out": Case(partial(sf.leave_one_out, axis=1), {"x": array()}),
    "leave_one_out, weight": Case(
        partial(sf.leave_one_out, axis=1), {"x": array(), "weight": np.exp(array())}
    ),
    "leave_one_out, groups": Case(
        partial(sf.leave_one_out, axis=1, num_segments=2),
        {"x": array()},
        ids={"segment_ids": GROUPS},
    ),
    "gae, packed": Case(
        partial(policy.gae, num_segments=2),
        steps("reward", "discount", *COMMON),
        COMMON,
        ids={"segment_ids": GROUPS},
    ),
    "log_ratio, packed": Case(
        partial(policy.log_ratio, level="prefix", num_segments=2),
        {"log_prob": log_probs(), "old_log_prob": log_probs()},
        ids={"segment_ids": GROUPS},
    ),
    "reduce, packed": Case(
        partial(policy.reduce, mode="seq-mean-token-mean", num_segments=2),
        {"x": array()},
        ids={"segment_ids": GROUPS},
    ),
}
