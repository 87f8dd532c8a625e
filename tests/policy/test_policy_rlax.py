"""scorefn.policy against rlax, which has some of the same functions, for one sequence each."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import FAST

from scorefn import policy

rlax = pytest.importorskip("rlax")

pytestmark = [
    pytest.mark.usefixtures("x64"),
    pytest.mark.filterwarnings("ignore:Rlax softmax:PendingDeprecationWarning"),
]

T = 7
RANDOM = np.random.default_rng(5)
REWARD, ADVANTAGE, LOG_RHO = RANDOM.normal(size=(3, T))
VALUES = RANDOM.normal(size=T + 1)
DISCOUNT, LAM, WEIGHTS = RANDOM.uniform(0.2, 1.0, size=(3, T))
LOGITS, ACTIONS = RANDOM.normal(size=(T, 4)), RANDOM.integers(0, 4, size=T)


def both(ours: Any, theirs: Any, *arguments: Any) -> None:
    """The same values and, along the first argument, the same derivatives of their sum."""

    @partial(jax.jit, compiler_options=FAST)
    def run(*arguments):
        def total(fn, x):
            return jnp.sum(jnp.asarray(fn(x, *arguments[1:])))

        return [(f(*arguments), jax.grad(partial(total, f))(arguments[0])) for f in (ours, theirs)]

    found, desired = run(*map(jnp.asarray, arguments))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(desired), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.9, 1.0, LAM])
def test_recurrences(lam: Any) -> None:
    lam = jnp.asarray(lam)
    both(
        lambda v: policy.gae(REWARD, DISCOUNT, v[:-1], v[1:], lam),
        lambda v: rlax.truncated_generalized_advantage_estimation(REWARD, DISCOUNT, lam, v),
        VALUES,
    )
    both(
        lambda v: policy.lambda_returns(REWARD, DISCOUNT, v, lam),
        lambda v: rlax.lambda_returns(jnp.asarray(REWARD), jnp.asarray(DISCOUNT), v, lam),
        VALUES[1:],
    )
    both(
        lambda r: policy.returns(r, DISCOUNT, VALUES[-1]),
        lambda r: rlax.discounted_returns(r, jnp.asarray(DISCOUNT), jnp.asarray(VALUES[-1])),
        REWARD,
    )


@pytest.mark.parametrize("n", [1, 3, 7])
def test_targets_of_n_steps(n: int) -> None:
    given = jnp.asarray(REWARD), jnp.asarray(DISCOUNT)
    both(
        lambda v: policy.n_step_returns(REWARD, DISCOUNT, v, n),
        lambda v: rlax.n_step_bootstrapped_returns(*given, v, n),
        VALUES[1:],
    )


@pytest.mark.parametrize("lam", [0.9, 1.0, LAM])
@pytest.mark.parametrize("clips", [(1.0, 1.0), (2.0, 1.5), (0.5, 0.7)])
def test_vtrace(lam: Any, clips: tuple[float, float]) -> None:
    lam = jnp.asarray(lam)

    def theirs(v):
        steps = (jnp.asarray(x) for x in (REWARD, DISCOUNT, np.exp(LOG_RHO)))
        out = rlax.vtrace_td_error_and_advantage(v[:-1], VALUES[1:], *steps, lam, *clips)
        # rlax lets a derivative into the advantage by way of the values.
        stop = jax.lax.stop_gradient
        return out.errors, stop(out.pg_advantage), stop(out.q_estimate)

    def ours(v):
        options = (LOG_RHO, lam, *clips)
        return tuple(policy.vtrace(REWARD, DISCOUNT, v[:-1], VALUES[1:], *options))

    for i in range(3):
        both(lambda v, i=i: ours(v)[i], lambda v, i=i: theirs(v)[i], VALUES)


def test_policy_gradient_loss() -> None:
    def ours(logits):
        log_prob = jax.nn.log_softmax(logits)[jnp.arange(T), ACTIONS]
        return jnp.mean(policy.score_surrogate(log_prob, ADVANTAGE) * WEIGHTS)

    rest = tuple(map(jnp.asarray, (ACTIONS, ADVANTAGE, WEIGHTS)))
    both(ours, lambda logits: rlax.policy_gradient_loss(logits, *rest), LOGITS)


@pytest.mark.parametrize("eps", [0.1, 0.5])
def test_clipped_surrogate(eps: float) -> None:
    def ours(log_ratio):
        return policy.reduce(policy.clipped_surrogate(log_ratio, ADVANTAGE, eps), None)

    def theirs(log_ratio):
        return rlax.clipped_surrogate_pg_loss(jnp.exp(log_ratio), jnp.asarray(ADVANTAGE), eps)

    # The derivatives differ where a ratio is 1 - eps or 1 + eps: these are not.
    both(ours, theirs, LOG_RHO / 2)
