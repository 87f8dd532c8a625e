"""Masked entries reach nothing, in every public function; packed rows equal their sequences."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import FAST
from support.policy_calls import ACTED, CASES, DISCOUNT, EXISTS, Case

import scorefn as sf
from scorefn import policy

pytestmark = pytest.mark.usefixtures("x64")

once = partial(jax.jit, compiler_options=FAST)

B, T, V = 2, 5, 4
RANDOM = np.random.default_rng(8)

# They take no arrays over steps, or nothing but a mask.
NO_ARRAYS = {"total", "SquashedNormal", "VTrace"}


def test_every_public_name_has_a_case() -> None:
    names = {name for name in dir(policy) if not name.startswith("_")} - NO_ARRAYS
    assert names <= {name.split(",")[0] for name in CASES}
    for name in names:
        assert "where" in inspect.signature(getattr(policy, name)).parameters, name


def value_and_slopes(case: Case, masks: dict[str, Any]) -> Callable[..., Any]:
    """The call and the derivatives of a weighted sum of what counts of it, along every array."""
    counts = next(iter(masks.values())) if len(masks) == 1 else masks["acted"] & masks["where"]

    def of_what_counts(arrays):
        found = jnp.asarray(case.call(**arrays, **masks, **case.ids))
        weights = jnp.cos(jnp.arange(found.size)).reshape(found.shape)
        shown = found if found.ndim < 2 else jnp.where(counts, found, 0)
        return jnp.sum(weights * shown), (found, shown)

    return once(jax.value_and_grad(of_what_counts, has_aux=True))


def spoilt(arrays: dict[str, np.ndarray], read: dict[str, np.ndarray], by: float) -> Any:
    return {
        name: np.where(read[name].reshape(B, T, *(1,) * (x.ndim - 2)), x, by)
        for name, x in arrays.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_what_is_masked_is_as_if_it_were_0(name: str) -> None:
    case = CASES[name]
    kinds: list[dict[str, Any]] = [{"where": EXISTS}]
    if case.time:
        kinds += [{"acted": ACTED}, {"where": EXISTS, "acted": ACTED}]
    for masks in kinds:
        exists = masks.get("where", np.ones((B, T), bool))
        acts = exists & masks.get("acted", exists)
        read = {key: acts if key in case.of_actions else exists for key in case.arrays}
        run = value_and_slopes(case, masks)
        (_, (_, shown)), slopes = run(spoilt(case.arrays, read, 0.0))
        assert np.any(shown)
        for bad in (np.nan, np.inf, -np.inf, 1e30, -1e30):
            (_, (all_of_it, same)), other = run(spoilt(case.arrays, read, bad))
            assert np.all(np.isfinite(all_of_it))
            np.testing.assert_array_equal(same, shown)
            for key, slope in slopes.items():
                np.testing.assert_array_equal(other[key], slope, err_msg=key)
                assert not np.any(slope[~read[key]]), key


@pytest.mark.parametrize("name", CASES)
def test_masks_may_be_integers_and_not_floats(name: str) -> None:
    case = CASES[name]
    found = case.call(**case.arrays, where=EXISTS, **case.ids)
    for mask in (EXISTS.astype(np.int32), jnp.asarray(EXISTS, jnp.uint8), EXISTS.tolist()):
        np.testing.assert_array_equal(case.call(**case.arrays, where=mask, **case.ids), found)
    for mask in (EXISTS.astype(np.float32), jnp.asarray(EXISTS, jnp.bfloat16)):
        with pytest.raises(TypeError, match="where must be boolean"):
            case.call(**case.arrays, where=mask, **case.ids)


@pytest.mark.parametrize("name", CASES)
def test_nothing_that_counts_is_nothing(name: str) -> None:
    case = CASES[name]
    run = value_and_slopes(case, {"where": np.zeros((B, T), bool)})
    (_, (found, _)), slopes = run({key: np.full_like(x, np.nan) for key, x in case.arrays.items()})
    assert np.all(np.isfinite(found))
    for slope in slopes.values():
        assert not np.any(slope)


NO_AXIS = {"importance_weight", "score_surrogate", "clipped_surrogate", "weighted_surrogate"}
NO_AXIS |= {"clipped_value_loss", "clip_fraction", "approximate_divergence", "leave_one_out"}
NO_AXIS |= {"effective_sample_size", "whiten"}
AXIS = {n: c for n, c in CASES.items() if n.split(",")[0] not in NO_AXIS and "alone" not in n}


@pytest.mark.parametrize("name", AXIS)
def test_time_may_lead(name: str) -> None:
    case = AXIS[name]
    turned = {key: np.swapaxes(x, 0, 1) for key, x in case.arrays.items()}
    ids = {key: x.T for key, x in case.ids.items()}
    first = np.asarray(once(partial(case.call, axis=0, where=EXISTS.T, **ids))(**turned))
    last = np.asarray(once(partial(case.call, where=EXISTS, **case.ids))(**case.arrays))
    if last.ndim:
        last = np.swapaxes(last, -1, -2)
    np.testing.assert_allclose(first, last, rtol=0, atol=1e-13)


# ------------------------------------------------------------------------------------ two masks


def trajectory(row: int) -> list[tuple[int, float, float]]:
    """The actions of one row: index, and reward and discount up to the next action."""
    found = []
    for t in range(T):
        if EXISTS[row, t] and ACTED[row, t]:
            found.append([t, CASES["gae"].arrays["reward"][row, t], DISCOUNT[row, t]])
        elif EXISTS[row, t] and found:
            found[-1][1] += found[-1][2] * CASES["gae"].arrays["reward"][row, t]
            found[-1][2] *= DISCOUNT[row, t]
    return found


def test_steps_that_were_no_action_are_part_of_the_action_before() -> None:
    """By loops over the actions alone."""
    given = CASES["gae"].arrays
    masks = {"where": EXISTS, "acted": ACTED}
    value, lam = given["value"], given["lam"]
    after = policy.next_value(value, bootstrap=np.array([0.7, -0.3]), **masks)
    reward = given["reward"]
    advantage = policy.gae(reward, DISCOUNT, value, after, lam, **masks)
    target = policy.lambda_returns(reward, DISCOUNT, after, lam, **masks)
    log_rho = CASES["vtrace"].arrays["log_rho"]
    steps_ = policy.vtrace(reward, DISCOUNT, value, after, log_rho, lam, **masks)
    to_go = policy.returns(reward, DISCOUNT, np.array([0.7, -0.3]), **masks)
    two = policy.n_step_returns(reward, DISCOUNT, after, 2, **masks)
    for row in range(B):
        later, error, g, whole = 0.0, 0.0, None, [0.7, -0.3][row]
        following, two_later = [0.7, -0.3][row], None
        for t, r, d in trajectory(row)[::-1]:
            np.testing.assert_allclose(after[row, t], following, atol=1e-12)
            later = r + d * following - value[row, t] + d * lam[row, t] * later
            np.testing.assert_allclose(advantage[row, t], later, atol=1e-12)
            g = following if g is None else g
            g = r + d * ((1 - lam[row, t]) * following + lam[row, t] * g)
            np.testing.assert_allclose(target[row, t], g, atol=1e-12)
            rho = min(1, np.exp(log_rho[row, t]))
            q = r + d * (following + lam[row, t] * error)
            np.testing.assert_allclose(steps_.q[row, t], q, atol=1e-12)
            error = rho * (r + d * following - value[row, t]) + d * lam[row, t] * rho * error
            np.testing.assert_allclose(steps_.errors[row, t], error, atol=1e-12)
            whole = r + d * whole
            np.testing.assert_allclose(to_go[row, t], whole, atol=1e-12)
            one = r + d * following
            np.testing.assert_allclose(
                two[row, t], one if two_later is None else r + d * two_later, atol=1e-12
            )
            two_later, following = one, value[row, t]


# ----------------------------------------------------------------------------------- packed rows

# Sequences of 3, 1 and 4 steps, with padding before, between and after.
IDS = np.array([[0, 1, 1, 1, 0, 2, 3, 3, 3, 3, 0, 0], [3, 3, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2]])
S, LONG = 3, IDS.shape[1]
PACKED_EXISTS = np.ones(IDS.shape, bool)
PACKED_EXISTS[0, 7] = PACKED_EXISTS[1, 4] = False
PACKED_ACTED = RANDOM.random(IDS.shape) < 0.7
KINDS: dict[str, tuple[Callable[..., Any], int, bool]] = {
    # The function, how many arrays it takes, and whether it knows of acted.
    "returns": (lambda r, d, **o: policy.returns(r, jax.nn.sigmoid(d), 0.3, **o), 2, True),
    "gae": (
        lambda r, d, v, n, k, **o: policy.gae(
            r, jax.nn.sigmoid(d), v, n, jax.nn.sigmoid(k), **o
        ),
        5,
        True,
    ),
    "lambda_returns": (
        lambda r, d, n, k, **o: policy.lambda_returns(
            r, jax.nn.sigmoid(d), n, jax.nn.sigmoid(k), **o
        ),
        4,
        True,
    ),
    "vtrace": (
        lambda r, v, n, q, **o: sum(policy.vtrace(r, 0.9, v, n, q, 0.8, **o)),
        4,
        True,
    ),
    "n_step_returns": (lambda r, n, **o: policy.n_step_returns(r, 0.9, n, 2, **o), 2, True),
    "next_value": (lambda v, **o: policy.next_value(v, 0.3, **o), 1, True),
    "discount_weight": (lambda d, **o: policy.discount_weight(jax.nn.sigmoid(d), **o), 1, False),
    **{
        f"log_ratio, {level}": (partial(policy.log_ratio, level=level), 2, False)
        for level in ("token", "prefix", "sequence-sum", "sequence-mean")
    },
    "kl_estimate": (policy.kl_estimate, 2, False),
}  # fmt: skip


def sequences() -> list[tuple[int, np.ndarray]]:
    return [(row, np.flatnonzero(IDS[row] == i)) for row in range(2) for i in range(1, S + 1)]


@pytest.mark.parametrize("name", KINDS)
def test_packed_rows_are_their_sequences(name: str) -> None:
    fn, count, acts = KINDS[name]
    arrays = RANDOM.normal(size=(count, *IDS.shape))
    weights = RANDOM.normal(size=IDS.shape)
    masks = {"where": PACKED_EXISTS, **({"acted": PACKED_ACTED} if acts else {})}
    counts = PACKED_EXISTS & (PACKED_ACTED if acts else True)

    def packed(arrays):
        found = fn(*arrays, segment_ids=IDS, num_segments=S, **masks)
        return jnp.sum(jnp.where(counts & (IDS > 0), found * weights, 0))

    def unpacked(arrays):
        total = 0.0
        for row, at in sequences():
            found = fn(*(x[row, at] for x in arrays), **{k: m[row, at] for k, m in masks.items()})
            total += jnp.sum(jnp.where(counts[row, at], found * weights[row, at], 0))
        return total

    found, desired = once(lambda x: [jax.value_and_grad(f)(x) for f in (packed, unpacked)])(arrays)
    for a, b in zip(found, desired, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_sums_over_the_vocabulary_of_packed_rows() -> None:
    logits, reference = RANDOM.normal(size=(2, *IDS.shape, V))
    chosen = RANDOM.integers(0, V, IDS.shape)

    def total(logits, **options):
        log_prob = jax.nn.log_softmax(logits)
        log_prob = jnp.take_along_axis(log_prob, chosen[..., None], -1)[..., 0]
        rows = options.pop("rows", (slice(None),))
        logits, other = logits[rows], reference[rows]
        each = policy.divergence(logits, other, log_prob[rows], **options)
        return jnp.sum(each + policy.entropy(logits, log_prob[rows], **options) ** 2)

    @once
    def both(logits):
        packed = jax.value_and_grad(partial(total, segment_ids=IDS, num_segments=S))
        apart = jax.value_and_grad(lambda x: sum(total(x, rows=part) for part in sequences()))
        return packed(logits), apart(logits)

    for a, b in zip(*both(logits), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_each_packed_sequence_may_have_a_bootstrap_of_its_own() -> None:
    reward, boots = RANDOM.normal(size=IDS.shape), RANDOM.normal(size=(2, S))
    found = policy.returns(reward, 0.9, boots, segment_ids=IDS, num_segments=S)
    after = policy.next_value(reward, boots, segment_ids=IDS, num_segments=S)
    for (row, at), boot in zip(sequences(), boots.ravel(), strict=True):
        np.testing.assert_allclose(found[row, at], policy.returns(reward[row, at], 0.9, boot))
        np.testing.assert_allclose(after[row, at], [*reward[row, at][1:], boot])


@pytest.mark.parametrize(
    "mode", ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "norm"]
)
def test_means_over_packed_rows_are_those_over_padded_ones(mode: str) -> None:
    mode = "seq-mean-token-sum-norm" if mode == "norm" else mode
    x, where = RANDOM.normal(size=IDS.shape), PACKED_EXISTS
    padded, there = np.zeros((2 * S, LONG)), np.zeros((2 * S, LONG), bool)
    for i, (row, at) in enumerate(sequences()):
        padded[i, : len(at)], there[i, : len(at)] = x[row, at], where[row, at]
    segments = {"segment_ids": IDS, "num_segments": S}
    desired = policy.reduce(padded, there, mode, length=9)
    found, slope = jax.value_and_grad(
        lambda x: policy.reduce(x, where, mode, length=9, **segments)
    )(x)
    np.testing.assert_allclose(found, desired, atol=1e-12)
    np.testing.assert_allclose(np.sum(slope * x), desired, atol=1e-12)
    total = policy.total(where, mode, length=9, **segments)
    np.testing.assert_allclose(total, policy.total(there, mode, length=9))
    # One segment more than there are is no sequence.
    more = policy.reduce(x, where, mode, length=9, segment_ids=IDS, num_segments=S + 1)
    np.testing.assert_allclose(more, desired, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_others_of_groups_of_unequal_size(weighted: bool) -> None:  # noqa: FBT001
    x = RANDOM.normal(size=IDS.shape) + 1e6
    weight = RANDOM.uniform(0.1, 3, IDS.shape) if weighted else None
    pick = RANDOM.normal(size=IDS.shape)

    def packed(x):
        found = sf.leave_one_out(x, 1, weight=weight, segment_ids=IDS, num_segments=S)
        return jnp.sum(jnp.where(IDS > 0, found * pick, 0)), found

    def apart(x):
        total = 0.0
        for row, at in sequences():
            if len(at) > 1:
                own = None if weight is None else weight[row, at]
                total += jnp.sum(sf.leave_one_out(x[row, at], weight=own) * pick[row, at])
        return total

    (value, found), slope = once(jax.value_and_grad(packed, has_aux=True))(x)
    desired, exact = once(jax.value_and_grad(apart))(x)
    np.testing.assert_allclose(value, desired, rtol=1e-12)
    np.testing.assert_allclose(slope, exact, atol=1e-12)
    assert found[0, 5] == 0  # a group of one
    assert not np.any(found[IDS == 0])


# ------------------------------------------------------------------- parts of a batch add up to it

MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")


@pytest.mark.parametrize("mode", MODES)
def test_micro_batches_add_up(mode: str) -> None:
    """Groups of unequal sizes, one of them empty, one of empty sequences."""
    x, where = RANDOM.normal(size=(9, T)), RANDOM.random((9, T)) < 0.6
    where[2:4] = False
    n = sum(policy.total(where[i:j], mode, length=7) for i, j in ((0, 2), (2, 4), (4, 9)))

    def parts(x):
        cuts = ((0, 2), (2, 4), (4, 4), (4, 9))
        return sum(policy.reduce(x[i:j], where[i:j], mode, total=n, length=7) for i, j in cuts)

    found, slope = jax.value_and_grad(parts)(x)
    desired, exact = jax.value_and_grad(lambda x: policy.reduce(x, where, mode, length=7))(x)
    np.testing.assert_allclose(found, desired, atol=1e-13)
    np.testing.assert_allclose(slope, exact, atol=1e-13)
