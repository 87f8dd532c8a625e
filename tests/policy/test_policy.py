"""scorefn.policy against loops in NumPy: masks, dtypes, transformations, errors."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import FAST

import scorefn as sf
from scorefn import policy

pytestmark = pytest.mark.usefixtures("x64")

once = partial(jax.jit, compiler_options=FAST)

T, N = 6, 3
RANDOM = np.random.default_rng(0)
REWARD, VALUE, NEXT_VALUE, LOG_RHO = RANDOM.normal(size=(4, T, N))
DISCOUNT, LAM = RANDOM.uniform(0.3, 1.0, size=(2, T, N))
# Steps before, between and after those that count; one sequence is empty, one whole.
WHERE = np.array([[0, 1, 0, 1, 1, 0], [0] * 6, [1] * 6], bool).T
STEPS = {"reward": REWARD, "discount": DISCOUNT, "value": VALUE, "next_value": NEXT_VALUE}
OLD, NEW = np.log(RANDOM.uniform(0.05, 0.95, size=(2, N, T)))
ADVANTAGE = RANDOM.normal(size=(N, T))


# ------------------------------------------------------------------------- loops, as in the books


def recurrence(a, b, x):
    out = []
    for a_t, b_t in zip(a[::-1], b[::-1], strict=True):
        x = b_t + a_t * x
        out.append(x)
    return np.array(out[::-1])


def lambda_returns(reward, discount, next_value, lam):
    out, g = [], next_value[-1]
    for r, c, v, w in list(zip(reward, discount, next_value, lam, strict=True))[::-1]:
        g = r + c * ((1 - w) * v + w * g)
        out.append(g)
    return np.array(out[::-1])


def gae(reward, discount, value, next_value, lam):
    delta, out = reward + discount * next_value - value, np.zeros_like(reward)
    for t in range(len(reward)):
        weight = 1.0
        for k in range(t, len(reward)):
            out[t] += weight * delta[k]
            weight = weight * discount[k] * lam[k]
    return out


def vtrace(reward, discount, value, next_value, log_rho, lam, clip_rho, clip_pg_rho):
    rho, errors = np.exp(log_rho), np.zeros((len(reward) + 1, *reward.shape[1:]))
    for t in range(len(reward))[::-1]:
        delta = np.minimum(clip_rho, rho[t]) * (reward[t] + discount[t] * next_value[t] - value[t])
        trace = discount[t] * lam[t] * np.minimum(1, rho[t])
        errors[t] = delta + trace * errors[t + 1]
    q = reward + discount * (next_value + lam * errors[1:])
    return errors[:-1], np.minimum(clip_pg_rho, rho) * (q - value), q


def step_functions(axis: int | None = 0) -> dict[str, tuple[Any, Any, list[np.ndarray]]]:
    """By name: ours, the loop, and the arrays that both take; None leaves the axis out."""
    options = {} if axis is None else {"axis": axis}
    values = [REWARD, DISCOUNT, VALUE, NEXT_VALUE, LAM]
    clip = [2.0, 1.5]
    return {
        "recurrence": (
            lambda a, b, x, **o: policy.reverse_recurrence(a, b, x, **options, **o),
            recurrence,
            [DISCOUNT, REWARD, NEXT_VALUE[0]],
        ),
        "returns": (
            lambda r, c, x, **o: policy.returns(r, c, x, **options, **o),
            lambda r, c, x: recurrence(c, r, x),
            [REWARD, DISCOUNT, NEXT_VALUE[0]],
        ),
        "lambda_returns": (
            lambda *a, **o: policy.lambda_returns(*a, **options, **o),
            lambda_returns,
            [REWARD, DISCOUNT, NEXT_VALUE, LAM],
        ),
        "gae": (lambda *a, **o: policy.gae(*a, **options, **o), gae, values),
        "vtrace": (
            lambda *a, **o: policy.vtrace(*a, *clip, **options, **o),
            lambda *a: vtrace(*a, *clip),
            [REWARD, DISCOUNT, VALUE, NEXT_VALUE, LOG_RHO, LAM],
        ),
    }


@pytest.mark.parametrize("name", step_functions())
def test_recurrences_are_those_of_a_loop_along_any_axis(name: str) -> None:
    ours, loop, arrays = step_functions()[name]
    desired = loop(*arrays)
    np.testing.assert_allclose(once(ours)(*arrays), desired, rtol=0, atol=1e-12)
    other, _, _ = step_functions(axis=None)[name]
    turned = once(other)(*(np.asarray(x).T for x in arrays))
    np.testing.assert_allclose(turned, np.swapaxes(desired, -1, -2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", step_functions())
def test_masked_steps_are_as_if_they_were_not_there(name: str) -> None:
    """Whatever they hold; an empty sequence is finite; no derivative is nan."""
    ours, loop, arrays = step_functions()[name]
    spoilt = [np.where(WHERE, x, np.nan) if x.ndim == 2 else x for x in arrays]
    found = once(partial(ours, where=WHERE))(*spoilt)
    assert np.all(np.isfinite(found))
    for i in range(N):
        column = [x[WHERE[:, i], i] if x.ndim == 2 else x[i] for x in arrays]
        if np.any(WHERE[:, i]):
            kept = np.asarray(found)[..., WHERE[:, i], i]
            np.testing.assert_allclose(kept, loop(*column), rtol=0, atol=1e-12)

    def total(arrays):
        return jnp.sum(jnp.where(WHERE, jnp.asarray(ours(*arrays, where=WHERE)), 0))

    for x in once(jax.grad(total))(spoilt):
        assert np.all(np.isfinite(x))


def test_an_episode_that_ends_and_one_that_is_cut_off() -> None:
    """Two in a row are as each alone: discount 0 where one ends, lam 0 where one is cut off."""
    reward, value, following = REWARD[:, 0], VALUE[:, 0], NEXT_VALUE[:, 0]
    ended, cut = np.arange(T) == 1, np.arange(T) == 3
    discount, lam = np.where(ended, 0, 0.9), np.where(cut, 0, 0.8)
    parts = [slice(0, 2), slice(2, 4), slice(4, 6)]
    plain = {"gae": (policy.gae, gae, (value, following)), "lambda_returns": None}
    plain["lambda_returns"] = (policy.lambda_returns, lambda_returns, (following,))
    for ours, loop, values in plain.values():
        found = once(ours)(reward, discount, *values, lam)
        for part in parts:
            # Each alone, with its own lam: what comes after the last step is its next_value.
            whole = np.full(2, 0.8)
            arrays = (reward[part], discount[part], *(v[part] for v in values), whole)
            np.testing.assert_allclose(found[part], loop(*arrays), rtol=0, atol=1e-12)
    steps = once(policy.vtrace)(reward, discount, value, following, LOG_RHO[:, 0], lam)
    for part in parts:
        arrays = (discount, value, following, LOG_RHO[:, 0], np.full(T, 0.8))
        desired = vtrace(reward[part], *(x[part] for x in arrays), 1.0, 1.0)
        np.testing.assert_allclose(np.array(steps)[:, part], desired, rtol=0, atol=1e-12)


def test_gae_and_lambda_returns_and_vtrace_agree_on_policy() -> None:
    """With the value of a state before a step that of the state after the last one."""
    values = np.vstack([VALUE, NEXT_VALUE[:1]])
    before, after = values[:-1], values[1:]

    @once
    def all_three():
        advantage = policy.gae(REWARD, DISCOUNT, before, after, LAM, axis=0)
        target = policy.lambda_returns(REWARD, DISCOUNT, after, LAM, axis=0)
        return advantage, target, policy.vtrace(REWARD, DISCOUNT, before, after, 0.0, LAM, axis=0)

    advantage, target, steps = all_three()
    np.testing.assert_allclose(advantage + before, target, atol=1e-12)
    np.testing.assert_allclose(steps.errors, advantage, atol=1e-12)


def test_only_the_errors_of_vtrace_carry_a_derivative_that_of_the_value() -> None:
    def parts(value, next_value, log_rho):
        return policy.vtrace(REWARD, DISCOUNT, value, next_value, log_rho, LAM)

    jacobians = once(jax.jacobian(parts, argnums=(0, 1, 2)))(VALUE, NEXT_VALUE, LOG_RHO)
    along_value = -np.eye(T * N).reshape(T, N, T, N)
    np.testing.assert_array_equal(jacobians.errors[0], along_value)
    for x in jax.tree.leaves((jacobians.errors[1:], jacobians.pg_advantage, jacobians.q)):
        assert not np.any(x)


# ----------------------------------------------------------------------------------- surrogates


def ppo_by_hand(log_ratio, advantage, low, high, dual):
    r = np.exp(log_ratio)
    gain = np.minimum(r * advantage, np.clip(r, 1 - low, 1 + high) * advantage)
    return -np.where(advantage < 0, np.maximum(gain, dual * advantage), gain)


@pytest.mark.parametrize(("low", "high", "dual"), [(0.2, None, None), (0.1, 0.4, 1.5), (1, 0, 3)])
def test_clipped_surrogate_is_the_minimum_of_the_paper(low: float, high: Any, dual: Any) -> None:
    ratios = np.log([0.05, 0.5, 0.85, 0.95, 1.05, 1.3, 1.45, 1.6, 4.0])
    log_ratio, advantage = map(np.ravel, np.meshgrid(ratios, [-2.0, -0.5, 0.0, 0.7]))
    fn = partial(policy.clipped_surrogate, eps_low=low, eps_high=high, dual_clip=dual)
    values, slopes = once(jax.vmap(jax.value_and_grad(fn)))(log_ratio, advantage)
    by_hand = partial(
        ppo_by_hand,
        advantage=advantage,
        low=low,
        high=low if high is None else high,
        dual=np.inf if dual is None else dual,
    )
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(values, by_hand(log_ratio), atol=1e-12)
        step = 1e-5
        desired = (by_hand(log_ratio + step) - by_hand(log_ratio - step)) / (2 * step)
    np.testing.assert_allclose(slopes, desired, atol=1e-8)


def test_clipped_surrogate_is_finite_where_the_ratio_is_not() -> None:
    """A ratio of exp(1000), clipped: the derivative is 0, not 0 times infinity."""
    fn = partial(policy.clipped_surrogate, dual_clip=3.0)
    values, slopes = once(jax.vmap(jax.value_and_grad(fn)))(
        np.array([1e3, 1e3, -1e3, -1e3, 1e3, np.inf]), np.array([1.0, -1.0, 1.0, -1.0, 0.0, 1.0])
    )
    np.testing.assert_allclose(values, [-1.2, 3.0, 0.0, 0.8, 0.0, -1.2], atol=1e-12)
    np.testing.assert_array_equal(slopes, 0)


def test_weights_and_advantages_are_stopped() -> None:
    def losses(log_prob, log_ratio, advantage):
        score = policy.score_surrogate(log_prob, advantage)
        weighted = policy.weighted_surrogate(log_prob, log_ratio, advantage, 0.3, 0.5)
        clipped = policy.clipped_surrogate(log_ratio, advantage)
        return jnp.stack([score, weighted, clipped])

    jacobians = once(jax.jacobian(losses, argnums=(0, 1, 2)))
    score, weighted, clipped = np.stack(jacobians(-1.3, 0.1, -2.0), 1)
    np.testing.assert_allclose(score, [2.0, 0, 0])
    np.testing.assert_allclose(weighted, [2 * np.exp(0.1), 0, 0])
    np.testing.assert_allclose(clipped, [0, 2 * np.exp(0.1), 0])
    for log_ratio, weight in ((-2.0, 0.7), (2.0, 1.5)):
        np.testing.assert_allclose(jacobians(-1.3, log_ratio, -2.0)[0][1], 2 * weight)


def test_one_advantage_serves_a_whole_sequence() -> None:
    @once
    def losses(advantage):
        ratio = policy.log_ratio(NEW, OLD)
        return (
            policy.score_surrogate(NEW, advantage),
            policy.clipped_surrogate(ratio, advantage),
            policy.weighted_surrogate(NEW, ratio, advantage),
        )

    of_sequence = ADVANTAGE[:, 0]
    repeated = np.repeat(of_sequence[:, None], T, axis=1)
    np.testing.assert_array_equal(losses(of_sequence), losses(repeated))


def test_a_second_derivative_of_what_is_right_to_first_order_raises() -> None:
    losses = {
        "score_surrogate": lambda x: policy.score_surrogate(x, 1.0),
        "weighted_surrogate": lambda x: policy.weighted_surrogate(x, 0.0, 1.0),
        "kl_estimate": lambda x: policy.kl_estimate(x, -1.0),
        "entropy": lambda x: policy.entropy(jnp.stack([x, 0 * x])[None], jnp.zeros(1))[0],
    }
    for name, loss in losses.items():
        for second in (
            jax.hessian,
            lambda f: jax.grad(jax.grad(f)),
            lambda f: jax.jacfwd(jax.grad(f)),
        ):
            with pytest.raises(TypeError, match=f"{name} is right to first order.*attach_score"):
                second(lambda x, loss=loss: loss(x**2))(0.3)


# -------------------------------------------------------------------- log_ratio, whiten, reduce


SEQUENCES = WHERE.T


LEVELS = ("token", "prefix", "sequence-sum", "sequence-mean")


def test_log_ratio_at_each_level() -> None:
    @once
    def ratios(new, axis_first):
        rows = [policy.log_ratio(new, OLD, level, SEQUENCES) for level in LEVELS]
        first = [policy.log_ratio(axis_first, OLD.T, k, SEQUENCES.T, axis=0) for k in LEVELS]
        return rows, first

    d = np.where(SEQUENCES, NEW - OLD, 0)
    sums = np.broadcast_to(d.sum(1, keepdims=True), d.shape)
    mean = sums / np.maximum(SEQUENCES.sum(1, keepdims=True), 1)
    rows, first = ratios(NEW, NEW.T)
    for found, desired in zip(rows, [d, np.cumsum(d, 1), sums, mean], strict=True):
        np.testing.assert_allclose(found, desired, atol=1e-12)
    for a, b in zip(rows, first, strict=True):
        np.testing.assert_array_equal(a, np.asarray(b).T)


def test_log_ratio_differentiates_the_new_policy_only() -> None:
    def jacobian(level):
        fn = partial(policy.log_ratio, level=level, where=SEQUENCES)
        return once(jax.jacobian(fn, argnums=(0, 1)))(NEW, OLD)

    own = np.einsum("ij,kl->ikjl", np.eye(N), np.eye(T)) * SEQUENCES
    earlier = np.einsum("ij,kl->ikjl", np.eye(N), np.tri(T)) * SEQUENCES
    counts = np.maximum(SEQUENCES.sum(1), 1)
    shared = np.broadcast_to(np.eye(N)[:, None, :, None] * SEQUENCES, own.shape)
    for level, desired in zip(
        LEVELS, (own, earlier, shared, shared / counts[:, None]), strict=True
    ):
        along_new, along_old = jacobian(level)
        np.testing.assert_allclose(along_new, desired, atol=1e-12, err_msg=level)
        assert not np.any(along_old)


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1)])
@pytest.mark.parametrize("where", [None, WHERE])
def test_whiten_has_mean_0_and_deviation_1(axis: Any, where: Any) -> None:
    spoilt = REWARD if where is None else np.where(where, REWARD, np.nan)
    found = np.asarray(once(partial(policy.whiten, axis=axis))(spoilt, where=where))
    mask = np.ones_like(REWARD, bool) if where is None else where
    masked = np.ma.array(REWARD, mask=~mask)
    deviation = np.ma.std(masked, axis=axis, ddof=1, keepdims=True)
    desired = (masked - np.ma.mean(masked, axis=axis, keepdims=True)) / deviation
    np.testing.assert_allclose(found, np.ma.filled(desired, 0), atol=1e-12)


def test_whiten_of_equal_numbers_is_0_and_its_derivative_finite() -> None:
    """For any number, however it is rounded: 7 times 0.1 divided by 7 is not 0.1."""
    numbers = np.repeat(RANDOM.normal(size=(50, 1)) * 1e6, 7, axis=1).astype(np.float32)
    whiten = partial(policy.whiten, axis=1)
    np.testing.assert_array_equal(once(whiten)(numbers), 0)
    slope = once(jax.grad(lambda x: jnp.sum(whiten(x) ** 2)))(numbers)
    assert np.all(np.isfinite(slope))
    assert np.max(np.abs(policy.whiten(np.array([0.0, 1e-9])))) < 1e-3


MODES = {
    "token-mean": lambda s, n: s.sum() / n.sum(),
    "seq-mean-token-sum": lambda s, n: s[n > 0].mean(),
    "seq-mean-token-mean": lambda s, n: (s[n > 0] / n[n > 0]).mean(),
    "seq-mean-token-sum-norm": lambda s, n: s[n > 0].mean() / T,
}


@pytest.mark.parametrize("mode", MODES)
def test_reduce_in_each_mode(mode: str) -> None:
    x = np.where(SEQUENCES, NEW, np.nan)

    @once
    def found(x):
        mean = partial(policy.reduce, mode=mode, length=T)
        last = mean(x, SEQUENCES)
        first = mean(x.T, SEQUENCES.T, axis=0)
        batches = mean(x[None], SEQUENCES[None])
        empty = mean(x, np.zeros_like(SEQUENCES))
        whole = mean(NEW, None)
        slope = jax.grad(partial(mean, where=SEQUENCES))(x)
        return last, first, batches, empty, whole, slope

    *same, empty, whole, slope = found(x)
    desired = MODES[mode](np.nansum(x, 1), SEQUENCES.sum(1))
    np.testing.assert_allclose(same, desired, atol=1e-12)
    np.testing.assert_allclose(whole, MODES[mode](NEW.sum(1), np.full(N, T)), atol=1e-12)
    assert empty == 0
    np.testing.assert_allclose(np.nansum(slope * x), desired, atol=1e-12)
    assert not np.any(slope[~SEQUENCES])


# ------------------------------------------------------------------------------------------ dtypes


def everything(new, old, where):
    """A scalar made of every function, from two arrays [N, T]."""
    ratio = policy.log_ratio(new, old, where=where)
    advantage = policy.whiten(policy.returns(old, 0.9, axis=-1, where=where), axis=1, where=where)
    steps = policy.vtrace(old, 0.9, new, new, ratio, 0.9, axis=-1, where=where)
    parts = [
        policy.score_surrogate(new, advantage),
        policy.clipped_surrogate(ratio, advantage, dual_clip=2.0),
        policy.weighted_surrogate(new, ratio, advantage, 0.2, 0.2),
        policy.clipped_surrogate(policy.log_ratio(new, old, "sequence-mean", where), advantage),
        policy.kl_estimate(new, old, axis=-1, where=where, log_weight=ratio, baseline=0.1),
        policy.gae(old, 0.9, new, new, 0.9, axis=-1, where=where),
        policy.lambda_returns(old, 0.9, new, 0.9, axis=-1, where=where),
        steps.errors * steps.pg_advantage * steps.q,
    ]
    modes = [*MODES] * 2
    return sum(policy.reduce(x, where, m, length=T) for x, m in zip(parts, modes, strict=True))


def test_small_floats_are_computed_in_float32() -> None:
    """Even where Python numbers are of 64 bits."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        new, old = jnp.asarray(NEW, jnp.bfloat16), jnp.asarray(OLD, jnp.bfloat16)
        fn = once(jax.value_and_grad(everything))
        value, slope = fn(new, old, SEQUENCES)
        assert (value.dtype, slope.dtype) == (jnp.float32, jnp.bfloat16)
        wide = fn(new.astype(jnp.float32), old.astype(jnp.float32), SEQUENCES)
        assert value == wide[0]
        # Each part of a derivative is rounded to bfloat16 before they are added up.
        np.testing.assert_allclose(slope.astype(float), wide[1].astype(float), atol=0.01)
        assert policy.log_ratio(new, old).dtype == jnp.float32
        assert policy.returns(jnp.arange(3), 1).dtype == jnp.float64  # integers are no small floats
        assert policy.kl_estimate(-1.0, -2).dtype == jnp.float64
    with jax.enable_x64(new_val=False), jax.numpy_dtype_promotion("strict"):
        assert policy.kl_estimate(-1.0, -2).dtype == jnp.float32


# --------------------------------------------------------------------------------- transformations


def test_every_transformation_gives_the_same_gradient() -> None:
    def by_scan(new):
        step = lambda total, old: (total + everything(new, old, SEQUENCES), None)  # noqa: E731
        return jax.lax.scan(step, 0.0, OLD[None])[0]

    def loss(new):
        return everything(new, OLD, SEQUENCES)

    @once
    def gradients(new):
        twice = jnp.stack([new, 2 * new])
        one_hot = jnp.eye(N * T).reshape(-1, N, T)
        return {
            "grad": jax.grad(loss)(new),
            "vmap": jax.vmap(jax.grad(loss))(twice)[0],
            "grad of vmap": jax.grad(lambda x: jnp.sum(jax.vmap(loss)(x)))(twice)[0],
            "checkpoint": jax.grad(jax.checkpoint(loss))(new),
            "scan": jax.grad(by_scan)(new),
            "jvp": jax.vmap(lambda v: jax.jvp(loss, (new,), (v,))[1])(one_hot).reshape(N, T),
        }

    found = gradients(jnp.asarray(NEW))
    assert np.ptp(found["grad"]) > 0.1
    for by, gradient in found.items():
        np.testing.assert_allclose(gradient, found["grad"], rtol=0, atol=1e-12, err_msg=by)


# ------------------------------------------------------------------------------------------ errors

ONES = np.ones((2, 3))
BAD: dict[str, tuple[Any, str]] = {
    "a column": (
        lambda: policy.score_surrogate(ONES, ONES[:, :1]),
        r"advantage has shape \(2, 1\)",
    ),
    "a column of ratios": (lambda: policy.clipped_surrogate(ONES[:, :1], ONES), r"shape \(2, 3\)"),
    "log-probabilities": (lambda: policy.log_ratio(ONES, ONES[:, :1]), r"old_log_prob.*\(2, 1\)"),
    "weights": (lambda: policy.weighted_surrogate(ONES, ONES[0], 1.0), r"log_ratio has shape"),
    "weights of a column": (lambda: policy.weighted_surrogate(ONES, ONES[:, :1], 1.0), "log_ratio"),
    "a reference": (lambda: policy.kl_estimate(ONES, ONES[:, :1]), "ref_log_prob has shape"),
    "a length": (
        lambda: policy.gae(ONES, 1.0, np.ones((3, 3)), ONES, 1.0),
        r"value has shape \(3, 3\), but reward has shape \(2, 3\)",
    ),
    "a discount": (lambda: policy.returns(ONES, np.ones(2)), r"discount has shape \(2,\)"),
    "a bootstrap": (lambda: policy.returns(ONES, 1.0, np.ones(3)), r"init.*\(3,\).*\(2,\)"),
    "segments": (
        lambda: policy.gae(ONES, 1.0, ONES, ONES, 1.0, segment_ids=[1]),
        "segment_ids has",
    ),
    "a segment": (
        lambda: policy.reduce(ONES, None, segment_ids=[[1, 2, 3]] * 2, num_segments=2),
        "segment_ids must lie in 0",
    ),
    "no number of segments": (
        lambda: policy.reduce(ONES, None, "seq-mean-token-sum", segment_ids=ONES.astype(int)),
        "segment_ids need num_segments",
    ),
    "no number of groups": (
        lambda: sf.leave_one_out(ONES, segment_ids=ONES.astype(int)),
        "segment_ids need num_segments",
    ),
    "segments without time": (
        lambda: policy.kl_estimate(ONES, ONES, axis=None, segment_ids=ONES.astype(int)),
        "segment_ids need an axis",
    ),
    "a total": (lambda: policy.reduce(ONES, None, total=np.ones(2)), "total must be a scalar"),
    "a length of 0": (
        lambda: policy.reduce(ONES, None, "seq-mean-token-sum-norm", length=0),
        "length must be above 0",
    ),
    "logits": (
        lambda: policy.divergence(ONES[..., None], ONES[..., None, None], ONES),
        "logits have shapes",
    ),
    "a vocabulary": (lambda: policy.entropy(ONES, ONES), "logits have shapes"),
    "the best of too many": (lambda: policy.best_of(ONES, 4), "k must be at most the number"),
    "the best of none": (lambda: policy.best_of(ONES, 0), "k must be at least 1"),
    "a baseline": (lambda: policy.best_of(ONES, 2, baseline="mean"), "baseline must be one of"),
    "an outside": (
        lambda: policy.importance_weight(ONES, outside="drop"),
        "outside must be one of",
    ),
    "bounds": (lambda: policy.importance_weight(ONES, 2.0, 1.0), "low must be at most high"),
    "a reach": (lambda: policy.clipped_value_loss(ONES, ONES, ONES, 0.0), "eps must be above 0"),
    "no step": (lambda: policy.n_step_returns(ONES, 1.0, ONES, 0), "n must be at least 1"),
    "a mask": (lambda: policy.returns(ONES, 1.0, where=ONES[0]), r"where has shape \(3,\)"),
    "a mask of reduce": (lambda: policy.reduce(ONES, ONES[:, :1]), r"where has shape \(2, 1\)"),
    "no time": (lambda: policy.returns(1.0, 1.0), "axis -1 does not exist in reward"),
    "no sequence": (lambda: policy.reduce(1.0, None), "axis -1 does not exist in x"),
    "an axis": (lambda: policy.lambda_returns(ONES, 1.0, ONES, 1.0, axis=2), "axis 2 does not"),
    "a group of one": (lambda: policy.whiten(ONES[:1], axis=0), "groups of at least 2"),
    "a floor": (lambda: policy.whiten(ONES, floor=0.0), "floor must be above 0"),
    "a clip": (lambda: policy.clipped_surrogate(0.0, 1.0, -0.1), "eps_low must be at least 0"),
    "a clip above": (
        lambda: policy.weighted_surrogate(0.0, 0.0, 1.0, eps_high=-0.1),
        "eps_high must be at least 0",
    ),
    "a ratio below 0": (lambda: policy.clipped_surrogate(0.0, 1.0, 1.5), "eps_low must be at most"),
    "a dual clip": (lambda: policy.clipped_surrogate(0.0, 1.0, dual_clip=0.5), "dual_clip must be"),
    "a level": (lambda: policy.log_ratio(ONES, ONES, "word"), "level must be one of 'token'"),
    "a kind": (lambda: policy.kl_estimate(ONES, ONES, "k2"), "kind must be one of 'k1', 'k3'"),
    "a mode": (lambda: policy.reduce(ONES, None, "mean"), "mode must be one of 'token-mean'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_raises_while_tracing(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call)
