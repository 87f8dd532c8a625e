"""Sums over the vocabulary, the best of k, values, weights: exact, by enumeration."""

import itertools
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

# -------------------------------------------------- all 64 sequences of 3 tokens over 4 words

WORDS, LENGTH = 4, 3
RANDOM = np.random.default_rng(1)
LOGITS = RANDOM.normal(size=(21, WORDS))
REFERENCE = LOGITS + 0.7 * RANDOM.normal(size=(21, WORDS))
SEQUENCES = np.array(list(itertools.product(range(WORDS), repeat=LENGTH)))
PREFIXES = [p for n in range(LENGTH) for p in itertools.product(range(WORDS), repeat=n)]
ROWS = np.array([[PREFIXES.index(tuple(s[:t])) for t in range(LENGTH)] for s in SEQUENCES])


def chosen(logits: Any, i: Any) -> Any:
    """The log-probabilities of the tokens of sequence i, [LENGTH]."""
    log_probs = jax.nn.log_softmax(logits)[jnp.asarray(ROWS)[i]]
    return jnp.take_along_axis(log_probs, jnp.asarray(SEQUENCES)[i][:, None], 1)[:, 0]


def whole(logits: Any) -> Any:
    return jax.vmap(lambda i: jnp.sum(chosen(logits, i)))(jnp.arange(len(SEQUENCES)))


def kl(logits: Any) -> Any:
    return jnp.exp(whole(logits)) @ (whole(logits) - whole(REFERENCE))


def entropy(logits: Any) -> Any:
    return -jnp.exp(whole(logits)) @ whole(logits)


def later(each: np.ndarray) -> np.ndarray:
    """The exact mean of what follows the token that is drawn after each prefix, [21]."""
    found = np.zeros(len(PREFIXES))
    probs = np.asarray(jax.nn.softmax(LOGITS))
    for row, prefix in list(enumerate(PREFIXES))[::-1]:
        if len(prefix) < LENGTH - 1:
            after = [PREFIXES.index((*prefix, word)) for word in range(WORDS)]
            found[row] = probs[row] @ (each + found)[after]
    return found


def moments(loss: Any, truth: Any) -> tuple[float, float, float]:
    """Error of the mean value, relative bias and summed variance of the gradient."""

    @once
    def run(logits):
        probs = jnp.exp(whole(logits))
        each = jax.value_and_grad(lambda x, i: jnp.sum(loss(x, i)))
        values, slopes = jax.vmap(each, (None, 0))(logits, jnp.arange(len(SEQUENCES)))
        mean = jnp.tensordot(probs, slopes, 1)
        variance = probs @ jnp.sum((slopes - mean) ** 2, (1, 2))
        exact, desired = jax.value_and_grad(truth)(logits)
        bias = jnp.linalg.norm(mean - desired) / jnp.linalg.norm(desired)
        return abs(probs @ values - exact), bias, variance

    return tuple(map(float, run(LOGITS)))


def divergence(logits: Any, i: Any, **options: Any) -> Any:
    rows = jnp.asarray(ROWS)[i]
    args = (logits[rows], jnp.asarray(REFERENCE)[rows], chosen(logits, i))
    return policy.divergence(*args, **{k: x[rows] for k, x in options.items()})


def test_sums_over_the_vocabulary_have_the_gradient_of_sequences_at_less_variance() -> None:
    probs = np.asarray(jax.nn.softmax(LOGITS))
    log_ratio = np.asarray(jax.nn.log_softmax(LOGITS) - jax.nn.log_softmax(REFERENCE))
    ahead = jnp.asarray(later(np.sum(probs * log_ratio, 1)))
    sampled = lambda x, i: policy.kl_estimate(chosen(x, i), chosen(REFERENCE, i))  # noqa: E731
    found = {
        "kl_estimate": moments(sampled, kl),
        "divergence": moments(divergence, kl),
        "less what is expected": moments(partial(divergence, baseline=ahead), kl),
    }
    for error, bias, _ in found.values():
        assert error < 1e-12
        assert bias < 1e-12
    assert abs(found["kl_estimate"][2] - 1.574) < 5e-4
    assert found["divergence"][2] <= 0.286
    assert found["less what is expected"][2] <= 0.1875


def test_without_the_score_of_what_follows_the_gradient_is_another_one() -> None:
    def by_token(logits, i):
        """The action's log-probability stopped: each token by itself."""
        rows = jnp.asarray(ROWS)[i]
        fixed = jax.lax.stop_gradient(chosen(logits, i))
        return policy.divergence(logits[rows], jnp.asarray(REFERENCE)[rows], fixed)

    _, bias, variance = moments(by_token, kl)
    assert abs(bias - 0.48) < 0.01
    assert abs(variance - 0.152) < 1e-3


def test_the_entropy_of_sequences() -> None:
    def loss(logits, i, **options):
        rows = jnp.asarray(ROWS)[i]
        options = {k: x[rows] for k, x in options.items()}
        return policy.entropy(logits[rows], chosen(logits, i), **options)

    log_probs = np.asarray(jax.nn.log_softmax(LOGITS))
    ahead = jnp.asarray(later(-np.sum(np.exp(log_probs) * log_probs, 1)))
    plain, less = moments(loss, entropy), moments(partial(loss, baseline=ahead), entropy)
    sampled = moments(
        lambda x, i: -policy.kl_estimate(chosen(x, i), jnp.zeros(LENGTH), "k1"), entropy
    )
    for error, bias, _ in (plain, less, sampled):
        assert error < 1e-12
        assert bias < 1e-12
    assert less[2] < plain[2] / 10 < sampled[2] / 10


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 16, 100])
def test_pieces_of_the_vocabulary_are_the_whole(chunk: int, monkeypatch: Any) -> None:
    """Also where the last piece overlaps, for words that cannot be drawn, and as a jvp."""
    logits, reference, direction = RANDOM.normal(size=(3, 2, 5, 16)) * 3
    logits[0, 1, :3] = reference[0, 1, 2] = logits[1, 2, 15] = -np.inf
    reference[1, 3, 4] = logits[1, 3, 4] = -np.inf
    direction = np.where(np.isfinite(logits), direction, 0)
    weights = RANDOM.normal(size=(2, 5))
    finite = np.isfinite(logits)

    def exact(x):
        log_p, log_q = jax.nn.log_softmax(x), jax.nn.log_softmax(reference)
        p, safe = jnp.exp(log_p), jnp.where(finite, log_p, 0)
        found = jnp.sum(jnp.where(finite, p * (safe - jnp.where(finite, log_q, 0)), 0), -1)
        return jnp.sum(weights * (found - jnp.sum(jnp.where(finite, p * safe, 0), -1)))

    def pieces(x):
        each = policy.divergence(x, reference, jnp.zeros((2, 5)))
        return jnp.sum(weights * (each + policy.entropy(x, jnp.zeros((2, 5)))))

    monkeypatch.setattr("scorefn.policy._vocabulary.CHUNK", chunk)

    def everything(fn):
        value, slope = jax.value_and_grad(fn)(logits)
        return value, slope, jax.jvp(fn, (logits,), (direction,))[1]

    for a, b in zip(
        once(partial(everything, pieces))(), once(partial(everything, exact))(), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


def test_an_impossible_word_of_the_reference_is_an_infinite_divergence() -> None:
    reference = np.array([[0.0, -np.inf, 0.0]])
    assert policy.divergence(np.zeros((1, 3)), reference, np.zeros(1))[0] == np.inf
    # And none if the policy cannot draw it either.
    assert policy.divergence(reference, reference, np.zeros(1))[0] == 0


@pytest.mark.parametrize("what", ["divergence", "entropy"])
def test_logits_in_bfloat16_are_not_copied_to_float32(what: str) -> None:
    """The temporary memory of a loss is a few pieces, and with its gradient one array as given."""
    shape = (4, 64, 32768)
    logits = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    log_prob = jax.ShapeDtypeStruct(shape[:2], jnp.float32)

    def loss(logits, reference, log_prob):
        if what == "entropy":
            return jnp.sum(policy.entropy(logits, log_prob))
        return jnp.sum(policy.divergence(logits, reference, log_prob))

    def plain(logits, reference, log_prob):
        del log_prob
        log_p, log_q = (jax.nn.log_softmax(x.astype(jnp.float32)) for x in (logits, reference))
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q))

    def temporary(fn):
        compiled = jax.jit(fn).lower(logits, logits, log_prob).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    as_given = 2 * np.prod(shape)
    with jax.enable_x64(new_val=False):
        assert temporary(plain) > 2 * as_given
        assert temporary(loss) < as_given / 4
        assert temporary(jax.value_and_grad(loss)) < 1.4 * as_given


# --------------------------------------------------------------------------------- the best of k

REWARDS = np.array([0.0, 0.2, 0.5, 1.0])
PROBS = np.array([0.4, 0.3, 0.2, 0.1])


def all_draws(n: int) -> tuple[np.ndarray, np.ndarray]:
    draws = np.array(list(itertools.product(range(len(PROBS)), repeat=n)))
    return draws, PROBS[draws].prod(1)


def gradient_of_the_best(k: int) -> np.ndarray:
    draws, weights = all_draws(k)
    scores = np.sum(np.eye(len(PROBS))[draws] - PROBS, 1)
    return (weights * REWARDS[draws].max(1)) @ scores


def best_of_moments(n: int, k: int, baseline: Any) -> tuple[np.ndarray, float]:
    draws, weights = all_draws(n)
    advantage = np.asarray(policy.best_of(REWARDS[draws], k, baseline=baseline))
    estimates = np.mean(advantage[..., None] * (np.eye(len(PROBS))[draws] - PROBS), 1)
    mean = weights @ estimates
    return mean, float(weights @ np.sum((estimates - mean) ** 2, 1))


@pytest.mark.parametrize(
    ("n", "k", "others", "beaten", "none"),
    [
        (4, 2, 0.0621, 0.0618, 0.1732),
        (6, 2, 0.0330, 0.0388, 0.1119),
        (6, 3, 0.0518, 0.0485, 0.3249),
    ],
)
def test_the_best_of_k_is_unbiased(
    n: int, k: int, others: float, beaten: float, none: float
) -> None:
    for baseline, variance in (("others", others), ("k-1", beaten), (None, none)):
        mean, found = best_of_moments(n, k, baseline)
        np.testing.assert_allclose(mean, gradient_of_the_best(k), atol=1e-12)
        assert abs(found - variance) < 6e-5


@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 1), (2, 2), (4, 4), (5, 3)])
@pytest.mark.parametrize("baseline", ["others", "k-1", None])
def test_the_best_of_one_and_of_all(n: int, k: int, baseline: Any) -> None:
    mean, _ = best_of_moments(n, k, baseline)
    np.testing.assert_allclose(mean, gradient_of_the_best(k), atol=1e-12)


def test_the_best_of_one_less_the_others_is_leave_one_out() -> None:
    reward = RANDOM.normal(size=(3, 5)) + 1e3
    found = policy.best_of(reward, 1)
    np.testing.assert_allclose(found, reward - sf.leave_one_out(reward, 1), atol=1e-11)


def by_all_sets(reward: np.ndarray, k: int, baseline: Any) -> np.ndarray:
    found = []
    for i, own in enumerate(reward):
        others = np.delete(reward, i)
        sets = [[*others[list(s)], own] for s in itertools.combinations(range(len(others)), k - 1)]
        advantage = np.mean([max(s) for s in sets])
        if baseline == "others":
            size = min(k, len(others))
            advantage -= np.mean([max(s) for s in itertools.combinations(others, size)])
        elif baseline == "k-1" and k > 1:
            advantage -= np.mean([max(s) for s in itertools.combinations(others, k - 1)])
        found.append(k * advantage)
    return np.array(found)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("baseline", ["others", "k-1", None])
def test_ties_and_absent_draws(k: int, baseline: Any) -> None:
    """By all sets there are; groups of fewer than k have no advantage; far from 0, too."""
    reward = np.array([[1.0, 0, 1, 1, 0, 0.5], [2, 2, 2, 2, 2, 2], [0, 3, 1, 0, 9, 1]]) - 5
    where = np.array([[1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 0], [0, 1, 0, 1, 0, 1]], bool)
    found = policy.best_of(np.where(where, reward, np.nan), k, where=where, baseline=baseline)
    for row in range(3):
        kept = where[row]
        if kept.sum() < k:
            assert not np.any(found[row])
            continue
        desired = by_all_sets(reward[row][kept], k, baseline)
        np.testing.assert_allclose(found[row][kept], desired, atol=1e-12)
        assert not np.any(found[row][~kept])


# ------------------------------------------------------------------------------- values, actions


def test_the_clipped_value_loss_is_that_of_ppo2() -> None:
    value, old, target = RANDOM.normal(size=(3, 200))
    found, slope = jax.vmap(jax.value_and_grad(partial(policy.clipped_value_loss, eps=0.3)))(
        value, old, target
    )
    near = old + np.clip(value - old, -0.3, 0.3)
    apart, held = (value - target) ** 2, (near - target) ** 2
    np.testing.assert_allclose(found, np.maximum(apart, held) / 2, atol=1e-12)
    desired = np.where(apart >= held, value - target, np.where(near == value, near - target, 0))
    np.testing.assert_allclose(slope, desired, atol=1e-12)
    plain = policy.clipped_value_loss(value, old, target, None)
    np.testing.assert_allclose(plain, apart / 2, atol=1e-12)


def test_targets_of_n_steps() -> None:
    reward, value = RANDOM.normal(size=(2, 7))
    discount = RANDOM.uniform(0.5, 1, 7)
    for n in (1, 3, 7, 20):
        found = policy.n_step_returns(reward, discount, value, n)
        for t in range(7):
            end = min(t + n, 7)
            desired = value[end - 1]
            for i in range(t, end)[::-1]:
                desired = reward[i] + discount[i] * desired
            np.testing.assert_allclose(found[t], desired, atol=1e-12)
    np.testing.assert_allclose(
        policy.n_step_returns(reward, discount, value, 7),
        policy.lambda_returns(reward, discount, value, 1.0),
        atol=1e-12,
    )


def test_a_squashed_normal_has_the_density_of_its_samples() -> None:
    """It adds up to 1, and where it is finite it is that of the change of variables."""
    actions = policy.SquashedNormal(jnp.array(0.4), 0.7)
    x, weights = np.polynomial.legendre.leggauss(400)
    np.testing.assert_allclose(weights @ np.exp(jax.vmap(actions.log_prob)(x)), 1, atol=1e-7)
    mean = weights @ (x * np.exp(jax.vmap(actions.log_prob)(x)))
    nodes, scale = np.polynomial.hermite_e.hermegauss(60)
    np.testing.assert_allclose(mean, scale @ np.tanh(0.4 + 0.7 * nodes) / scale.sum(), atol=1e-7)
    drawn = actions.sample(jax.random.key(0))
    assert -1 < drawn < 1
    expectation = sf.expectation(
        lambda a: a, actions, jax.random.key(0), sf.Pathwise(), num_samples=3
    )
    assert np.isfinite(expectation)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64])
def test_a_squashed_normal_is_finite_at_the_boundary(dtype: Any) -> None:
    def log_prob(mean, action):
        return policy.SquashedNormal(mean, jnp.asarray(1.0, dtype)).log_prob(action)

    for action in (-1.0, 1.0):
        for mean in (-10.0, 0.0, 10.0):
            given = jnp.asarray(mean, dtype), jnp.asarray(action, dtype)
            value, slopes = jax.value_and_grad(log_prob, argnums=(0, 1))(*given)
            assert np.all(np.isfinite([value, *slopes]))


# ---------------------------------------------------------------------------- weights and the watch


def test_weights_outside_of_their_bounds() -> None:
    ratio = np.array([0.1, 0.5, 1.0, 2.0, 9.0])
    weight = partial(policy.importance_weight, np.log(ratio))
    np.testing.assert_allclose(weight(), ratio)
    np.testing.assert_allclose(weight(0.5, 2.0), [0.5, 0.5, 1, 2, 2], rtol=1e-12)
    np.testing.assert_allclose(weight(0.4, 3.0, "zero"), [0, 0.5, 1, 2, 0], rtol=1e-12)
    np.testing.assert_allclose(weight(high=3.0, outside="zero"), [0.1, 0.5, 1, 2, 0], rtol=1e-12)
    assert policy.importance_weight(1e3) == np.exp(20.0)
    assert not np.any(jax.jacobian(policy.importance_weight)(np.log(ratio)))


def test_the_effective_sample_size() -> None:
    log_ratio = RANDOM.normal(size=(3, 6)) + 700
    weight = np.exp(log_ratio - 700)
    for axis in (None, 0, 1):
        desired = weight.sum(axis) ** 2 / (weight**2).sum(axis)
        found = policy.effective_sample_size(log_ratio, axis=axis)
        np.testing.assert_allclose(found, desired, rtol=1e-12)
    assert policy.effective_sample_size(np.zeros(5)) == 5
    found = policy.effective_sample_size([0.0, -np.inf, 0.0])
    assert found == 2


def test_the_clip_fraction_is_the_share_without_a_derivative() -> None:
    log_ratio, advantage = RANDOM.normal(size=(2, 400)) * 0.4
    slopes = jax.vmap(jax.grad(partial(policy.clipped_surrogate, eps_low=0.2, eps_high=0.3)))(
        log_ratio, advantage
    )
    where = RANDOM.random(400) < 0.7
    found = policy.clip_fraction(log_ratio, advantage, 0.2, 0.3, where=where)
    np.testing.assert_allclose(found, np.mean(slopes[where] == 0), atol=1e-12)
    assert 0.1 < found < 0.9


def test_the_approximate_divergence_is_that_of_old_and_new() -> None:
    """Over all outcomes of the old policy."""
    old, new = (np.asarray(jax.nn.log_softmax(x)) for x in LOGITS[:2])
    each = jax.vmap(policy.approximate_divergence)(new - old)
    np.testing.assert_allclose(np.exp(old) @ each, np.exp(old) @ (old - new), atol=1e-12)


def test_the_weight_of_a_discount_makes_the_gradient_that_of_the_discounted_sum() -> None:
    """A walk of three bits whose odds depend on the step before; 17% off without it."""
    theta = np.array([0.3, -0.5])
    bits = np.array(list(itertools.product((0, 1), repeat=3)))
    before = np.concatenate([np.zeros((8, 1), int), bits[:, :-1]], 1)
    reward = bits * np.array([1.0, -0.5, 2.0]) + before * 0.3

    def log_probs(theta):
        return jax.nn.log_sigmoid((2 * bits - 1) * jnp.asarray(theta)[before])

    def objective(theta):
        return jnp.exp(log_probs(theta).sum(1)) @ (reward @ 0.5 ** np.arange(3))

    truth = -jax.grad(objective)(theta)
    probs = np.exp(log_probs(theta).sum(1))
    to_go = policy.returns(reward, 0.5)
    weight = policy.discount_weight(np.full((8, 3), 0.5))
    errors = []
    for advantage in (to_go * weight, to_go):
        loss = lambda t, a=advantage: probs @ policy.score_surrogate(log_probs(t), a).sum(1)  # noqa: E731
        found = jax.grad(loss)(theta)
        errors.append(np.linalg.norm(found - truth) / np.linalg.norm(truth))
    assert errors[0] < 1e-12
    assert errors[1] > 0.05
