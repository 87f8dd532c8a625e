"""Inputs of public bug reports of RL and LLM trainers: each is right, or refused by name."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import scorefn as sf
from scorefn import policy

pytestmark = pytest.mark.usefixtures("x64")

P = PartitionSpec
NAN, INF = np.nan, np.inf


def equal(found: Any, desired: Any, atol: float = 1e-12) -> None:
    """Equal where the desired number is finite; elsewhere it is masked, and finite."""
    found, desired = np.asarray(found, float), np.asarray(desired, float)
    assert np.all(np.isfinite(found))
    shown = np.isfinite(desired)
    np.testing.assert_allclose(found[shown], desired[shown], rtol=0, atol=atol)


# ------------------------------------------------------------------- time: two masks, no products


def test_a_turn_of_the_environment_hands_its_cut_and_its_reward_on() -> None:
    reward, goes_on = np.array([1.0, 1, 0, 10, 10]), np.array([1.0, 1, 0, 1, 0])
    acted = np.array([1, 1, 0, 1, 1])
    equal(policy.returns(reward, goes_on, acted=acted), [2, 1, NAN, 20, 10])
    reward[2] = 1
    equal(policy.returns(reward, goes_on, acted=acted), [3, 2, NAN, 20, 10])
    # A step that does not exist is not read: the episode goes on after it.
    equal(policy.returns(reward, goes_on, where=acted), [22, 21, NAN, 20, 10])


def test_a_reward_after_the_last_action_reaches_it() -> None:
    acted, ones = np.array([1, 1, 1, 0]), np.ones(4)
    reward = np.array([0.0, 0, 0, 1])
    equal(policy.returns(reward, 1.0, acted=acted), [1, 1, 1, NAN])
    spoilt = np.array([0.0, 0, 0, NAN])
    equal(policy.gae(reward, ones, spoilt, spoilt, 1.0, acted=acted), [1, 1, 1, NAN])
    equal(policy.lambda_returns(reward, ones, spoilt, 1.0, acted=acted), [1, 1, 1, NAN])
    steps = policy.vtrace(reward, ones, spoilt, spoilt, spoilt, acted=acted)
    equal(np.asarray(steps)[:2], [[1, 1, 1, NAN]] * 2)


def test_the_next_value_is_that_of_the_next_action() -> None:
    value, goes_on = np.array([0.5, 0.5, 9, 0.5]), np.array([1.0, 1, 1, 0])
    mask = np.array([1, 1, 0, 1], bool)
    for masks in ({"where": mask}, {"acted": mask}):
        after = policy.next_value(value, **masks)
        equal(after, [0.5, 0.5, NAN, 0])
        equal(policy.gae(np.zeros(4), goes_on, value, after, 1.0, **masks), [-0.5, -0.5, NAN, -0.5])


def test_what_follows_the_end_is_not_read() -> None:
    for bad in (NAN, INF, -INF, 1e30):
        equal(policy.gae([0.0, 1], [1.0, 0], [0.5, 0.5], [0.5, bad], 0.95), [0.475, 0.5])
        equal(policy.lambda_returns([0.0, 1], [1.0, 0], [0.5, bad], 0.95), [0.975, 1])
        equal(policy.n_step_returns([0.0, 1], [1.0, 0], [0.5, bad], 2), [1, 1])
        equal(policy.returns([1.0, 1.0], [1.0, 0], bad), [2, 1])
        assert policy.returns([1.0, bad], [0.0, 1.0])[0] == 1


def test_no_masked_advantage_reaches_a_derivative() -> None:
    where, advantage = jnp.array([[True, False]]), jnp.array([[1.0, NAN]])
    ones, zeros = jnp.ones((1, 2)), jnp.zeros((1, 2))

    def score(t, **masks):
        return policy.reduce(policy.score_surrogate(t * ones, advantage, **masks), where)

    # The mask of the mean alone does, too.
    for masks in ({}, {"where": where}):
        equal(jax.grad(partial(score, **masks))(-1.0), -1)

    def clipped(log_prob, level, given, **masks):
        ratio = policy.log_ratio(log_prob, zeros, level, given)
        return policy.reduce(policy.clipped_surrogate(ratio, advantage, **masks), where)

    for masks in ({}, {"where": where}):
        for level in ("token", "prefix", "sequence-sum", "sequence-mean"):
            equal(jax.grad(clipped)(zeros, level, where, **masks), [[-1, 0]])
        equal(jax.grad(clipped)(zeros, "token", None, **masks), [[-1, 0]])
    # An advantage that no mask removes is an alarm.
    assert np.isnan(jax.grad(lambda x: policy.clipped_surrogate(x, advantage).sum())(zeros)[0, 1])


def test_no_ratio_overflows() -> None:
    with jax.enable_x64(new_val=False):
        log_prob = jnp.full(4096, -1.0)
        weight = jnp.cumsum(policy.log_ratio(log_prob, log_prob - 0.03))
        assert weight[-1] > 100
        found = jax.value_and_grad(
            lambda x: policy.kl_estimate(x, log_prob, log_weight=weight, axis=0).mean()
        )(log_prob)
        for x in found:
            equal(x, np.zeros(x.shape))
        equal(jax.value_and_grad(policy.weighted_surrogate)(-1.0, 99.0, 0.0), [0, 0])
        value, slope = jax.value_and_grad(policy.clipped_surrogate)(99.0, -1.0)
        np.testing.assert_allclose([value, slope], np.exp(20.0), rtol=1e-6)
        for bad in (99.0, -99.0, INF, -INF):
            ratio, slope = jax.value_and_grad(policy.log_ratio)(bad, 0.0)
            assert (ratio, slope) == (np.clip(bad, -20, 20), np.isfinite(bad))


def test_an_impossible_action_adds_no_score() -> None:
    losses = {
        "score": lambda x: policy.score_surrogate(x, 1.0),
        "weighted": lambda x: policy.weighted_surrogate(x, 0.5, 1.0),
        "clipped": lambda x: policy.clipped_surrogate(policy.log_ratio(x, -1.0), 1.0),
        "k1": lambda x: policy.kl_estimate(x, -1.0, "k1"),
        "k3": lambda x: policy.kl_estimate(x, -1.0),
        "both": lambda x: policy.kl_estimate(x, -INF),
    }
    for name, loss in losses.items():
        value, slope = jax.value_and_grad(loss)(-INF)
        assert slope == 0, name
        assert abs(value) < 1e-8, name


# ------------------------------------------------------------------------------------------ means


def test_the_divisor_of_a_sum_is_said_and_not_the_padding() -> None:
    for t in (4, 8):
        x, where = jnp.ones((1, t)), jnp.arange(t)[None] < 3
        with pytest.raises(ValueError, match="give it as length"):
            policy.reduce(x, where, "seq-mean-token-sum-norm")
        assert policy.reduce(x, where, "seq-mean-token-sum-norm", length=6) == 0.5


def test_micro_batches_with_the_common_total_are_the_batch() -> None:
    x, where = jnp.array([[1.0, 0, 0], [4, 4, 4]]), jnp.array([[1, 0, 0], [1, 1, 1]])
    n = policy.total(where)
    assert n == 4
    parts = [policy.reduce(x[i : i + 1], where[i : i + 1], total=n) for i in range(2)]
    assert sum(parts) == policy.reduce(x, where) == 3.25
    for wrong in (-1.0, NAN):
        with pytest.raises(ValueError, match="total must be"):
            policy.reduce(x, where, total=wrong)
        # Under jit it is not replaced by 1.
        assert not jax.jit(lambda n: policy.reduce(x, where, total=n))(wrong) > 0


def test_whitening_over_devices_is_that_of_all() -> None:
    mesh = jax.make_mesh((2,), ("dp",), axis_types=(jax.sharding.AxisType.Auto,))
    x = jnp.array([[0.0, 1], [10, 11]])
    each = jax.shard_map(
        partial(policy.whiten, axis_name="dp"), mesh=mesh, in_specs=P("dp"), out_specs=P("dp")
    )(x)
    equal(each, np.array([[-0.948, -0.776], [0.776, 0.948]]), atol=5e-4)
    equal(each, policy.whiten(x))


# ----------------------------------------------------------------------------------------- groups


def test_absent_members_of_a_group_are_not_read() -> None:
    for masks in ({"weight": np.array([1.0, 1, 0])}, {"where": np.array([1, 1, 0])}):
        equal(sf.leave_one_out([5.0, 7, NAN], **masks), [7, 5, NAN])
        equal(sf.leave_one_out([5.0, 7, -1e9], **masks), [7, 5, NAN])
    weight = np.array([1.0, 1, 0, 0])
    with jax.enable_x64(new_val=False):
        equal(sf.leave_one_out([5.0, 7, -1e9, -1e9], weight=weight), [7, 5, NAN, NAN])
    # With no others the baseline is 0, which is unbiased.
    assert 3 - sf.leave_one_out([3.0, 100, 100], weight=np.array([1.0, 0, 0]))[0] == 3


# ------------------------------------------------------------------------------------ packed rows


def test_two_answers_in_one_row_are_two() -> None:
    new, ref = jnp.zeros((1, 5)), jnp.array([[-1.0, -1, 0, 2, 2]])
    segments = {"segment_ids": jnp.array([[1, 1, 0, 2, 2]]), "num_segments": 2}
    equal(policy.log_ratio(new, ref, "sequence-mean", **segments), [[1, 1, NAN, -2, -2]])
    equal(policy.log_ratio(new, ref, "sequence-sum", **segments), [[2, 2, NAN, -4, -4]])
    equal(policy.log_ratio(new, ref, "prefix", **segments), [[1, 2, NAN, -2, -4]])
    slope = jax.grad(lambda x: policy.kl_estimate(x, ref, axis=1, **segments).sum())(new)
    equal(slope, [[2, 1, 0, -4, -2]])


# -------------------------------------------------------------- shapes that fit by accident, masks


def test_one_convention_of_axes() -> None:
    equal(policy.returns([[0.0, 0, 1], [0, 0, 1]], 1.0), np.ones((2, 3)))


def test_an_axis_is_one_axis() -> None:
    for axis in (None, (0, 1), 0.0):
        with pytest.raises(TypeError, match="axis must be a static int"):
            policy.returns(np.ones((2, 3)), 1.0, axis=axis)
    assert policy.returns(np.ones(2), 1.0, axis=np.int64(0))[0] == 2


@pytest.mark.parametrize("name", ["where", "acted"])
def test_weights_are_no_mask(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be boolean"):
        policy.returns(np.ones(3), 1.0, **{name: np.array([1.0, 0.5, 0.01])})
    with pytest.raises(ValueError, match=f"{name} must hold 0 and 1"):
        policy.returns(np.ones(3), 1.0, **{name: np.array([1, 2, 0])})
    if name == "where":
        with pytest.raises(TypeError, match="where must be boolean"):
            policy.reduce(jnp.array([1.0, 1, 10]), jnp.array([1.0, 0.5, 0.01]))


def test_one_log_ratio_serves_a_sequence() -> None:
    found = policy.weighted_surrogate(-jnp.ones((2, 3)), jnp.log(jnp.array([2.0, 3.0])), 1.0)
    equal(found, [[2] * 3, [3] * 3])


@pytest.mark.parametrize("t", [2, 3])
def test_one_advantage_serves_a_sequence_with_time_anywhere(t: int) -> None:
    """Also where there are as many steps as sequences, so that every shape fits."""
    x, advantage = -jnp.ones((2, t)), jnp.array([1.0, -2.0])
    calls = {
        "score": partial(policy.score_surrogate, x.T, advantage),
        "clipped": partial(policy.clipped_surrogate, 0 * x.T, advantage),
        "weighted": partial(policy.weighted_surrogate, x.T, 0 * advantage, advantage),
    }
    for name, call in calls.items():
        sign = -1 if name == "clipped" else 1
        equal(call(axis=0), [[sign * 1.0, sign * -2.0]] * t)
        if t == 3:
            with pytest.raises(ValueError, match="without the axis of time"):
                call()
    high = jnp.log(jnp.full((t, 2), 2.0))
    assert policy.clip_fraction(high, advantage, axis=0) == 0.5


def test_integers_have_the_precision_of_floats() -> None:
    reward = np.array([0, 0, 1])
    equal(policy.returns(reward, 1 / 3), [1 / 9, 1 / 3, 1], atol=1e-15)
    equal(policy.reduce(reward, None), 1 / 3, atol=1e-15)
    equal(policy.best_of(reward, 2), [-1, -1, 2], atol=1e-15)
    assert policy.whiten(reward).dtype == policy.gae(reward, 1, reward, 0, 1).dtype == jnp.float64
    # The floats beside them say which.
    assert policy.score_surrogate(jnp.zeros(3, jnp.float32), reward).dtype == jnp.float32


def test_no_time_gives_nothing() -> None:
    nothing = jnp.zeros((2, 0))
    for mode in ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean"):
        assert policy.reduce(nothing, None, mode) == 0
    assert policy.reduce(nothing, None, "seq-mean-token-sum-norm", length=8) == 0
    for found in (
        policy.returns(nothing, 1.0),
        policy.lambda_returns(nothing, 1.0, nothing, 1.0),
        policy.gae(nothing, 1.0, nothing, nothing, 1.0),
        policy.next_value(nothing),
        policy.n_step_returns(nothing, 1.0, nothing, 3),
        policy.discount_weight(nothing),
        policy.log_ratio(nothing, nothing, "prefix"),
        policy.log_ratio(nothing, nothing, "sequence-mean"),
        policy.kl_estimate(nothing, nothing),
        policy.divergence(jnp.zeros((2, 0, 4)), jnp.zeros((2, 0, 4)), nothing),
        *policy.vtrace(nothing, 1.0, nothing, nothing, nothing),
    ):
        assert found.shape == (2, 0)


def test_the_mean_and_the_sum_of_a_sequence_have_two_names() -> None:
    new = jnp.array([0.1, 0.3])
    equal(policy.log_ratio(new, 0 * new, "sequence-mean"), [0.2, 0.2])
    equal(policy.log_ratio(new, 0 * new, "sequence-sum"), [0.4, 0.4])
    with pytest.raises(ValueError, match="'sequence-sum', 'sequence-mean'"):
        policy.log_ratio(new, new, "sequence")


def test_second_derivatives_by_forward_mode() -> None:
    """The Hessian runs vmap over jvp, where values must not be batched."""
    log_ratio, advantage = jnp.array([-0.5, 0.1, 0.5]), jnp.array([-1.0, 2.0, -3.0])
    ratio = np.exp(log_ratio)
    second = np.array([0, -advantage[1] * ratio[1], -advantage[2] * ratio[2]])
    hessian = jax.hessian(lambda x: policy.clipped_surrogate(x, advantage).sum())(log_ratio)
    equal(hessian, np.diag(second))
    logits = jnp.ones((3, 2))
    equal(
        jax.hessian(lambda x: policy.divergence(logits, 2 * logits, x).sum())(log_ratio),
        np.zeros((3, 3)),
    )
