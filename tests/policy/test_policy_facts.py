"""Claims of docs/policy.md by enumeration: divergences, groups, sequences, recipes."""

import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from support.exact import FAST

import scorefn as sf
from benchmarks.suites.policy import kl as policy_kl
from benchmarks.suites.policy.kl import WAYS
from benchmarks.suites.policy.recipes import RECIPES, Batch
from scorefn import policy

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

once = partial(jax.jit, compiler_options=FAST)

# -------------------------------------------------------------------- divergences, five outcomes

LOGITS, OLD, REF = np.random.default_rng(1).normal(size=(3, 5))


def kl(p, q):
    log_p, log_q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
    return jnp.exp(log_p) @ (log_p - log_q)


@pytest.mark.parametrize("drawn", ["new", "old"])
def test_divergences_have_the_gradients_of_the_table(drawn: str) -> None:
    """By automatic differentiation, by the formulas of the suite, and by what is claimed."""
    problems = {name: policy_kl.problem(name, 0.7, drawn=drawn) for name in WAYS}
    given = replace(problems["k1"], name="")
    logits, log_old = given.new.astype(float), jax.nn.log_softmax(given.old.astype(float))
    ref, probs = jax.nn.log_softmax(given.ref.astype(float)), np.exp(log_old)

    @once
    def means(logits):
        def loss(logits, i, way):
            return way.loss(jax.nn.log_softmax(logits)[i], log_old[i], ref[i])

        def mean(way):
            each = jax.value_and_grad(partial(loss, way=way))
            values, slopes = jax.vmap(each, (None, 0))(logits, jnp.arange(5))
            return probs @ values, probs @ slopes, probs @ jnp.sum(slopes**2, axis=1)

        return {name: mean(way) for name, way in WAYS.items()}

    forward, reverse = jax.grad(kl)(logits, ref), jax.grad(kl, 1)(ref, logits)
    known = {"kl": forward, "reverse": reverse, "zero": np.zeros(5)}
    for name, (value, slope, squares) in means(logits).items():
        claimed = {"new": WAYS[name].on, "old": WAYS[name].off}[drawn]
        right = [k for k, exact in known.items() if np.allclose(slope, exact, atol=1e-12)]
        assert right == ([] if claimed == "none" else [claimed]), name
        exact = policy_kl.exact(problems[name])
        np.testing.assert_allclose(exact.kl, kl(logits, ref), rtol=1e-12)
        np.testing.assert_allclose(exact.gradient, forward, atol=1e-12)
        np.testing.assert_allclose(exact.mean, slope, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(exact.variance, squares - np.sum(slope**2), rtol=1e-9)
        np.testing.assert_allclose(exact.value, value, rtol=1e-9, err_msg=name)
        # Off policy a value is right where a weight makes it so; that of k2 is never.
        weighed = drawn == "new" or "ratio" in name or "estimate" in name
        assert np.isclose(value, kl(logits, ref), rtol=1e-9) == (weighed and "k2" not in name)


def test_the_value_of_a_divergence_is_that_of_its_kind() -> None:
    d, w = LOGITS - REF, np.exp(OLD)
    for kind, each in (("k1", d), ("k3", np.exp(-d) - 1 + d)):
        found = policy.kl_estimate(LOGITS, REF, kind, log_weight=OLD, baseline=0.3)
        np.testing.assert_allclose(found, w * each, rtol=1e-13)


def test_a_baseline_takes_variance_from_the_gradient_of_a_divergence() -> None:
    @once
    def variance(baseline):
        def loss(logits, i):
            new, ref = jax.nn.log_softmax(logits), jax.nn.log_softmax(REF)
            return policy.kl_estimate(new[i], ref[i], baseline=baseline)

        slopes = jax.vmap(jax.grad(loss), (None, 0))(jnp.asarray(LOGITS), jnp.arange(5))
        probs = jax.nn.softmax(LOGITS)
        return probs @ jnp.sum((slopes - probs @ slopes) ** 2, axis=1)

    assert variance(kl(LOGITS, REF)) < 0.95 * variance(0.0)


# ----------------------------------------------- groups: rewards of 0 and 1, a Bernoulli policy


def share_of_the_gradient(advantage: Any, p: float, size: int) -> float:
    """E[estimate] / gradient along the logit, over all numbers of successes in a group."""
    successes = np.arange(size + 1)
    rewards = (np.arange(size) < successes[:, None]).astype(float)
    estimates = np.mean(np.asarray(advantage(rewards)) * (rewards - p), axis=1)
    return scipy.stats.binom.pmf(successes, size, p) @ estimates / (p * (1 - p))


def grpo_advantage(rewards):
    return policy.whiten(rewards, axis=1)


@pytest.mark.parametrize(("size", "p"), [(2, 0.5), (4, 0.5), (4, 0.1), (64, 0.01)])
def test_leave_one_out_has_the_gradient_and_the_mean_of_the_group_less(size: int, p: float) -> None:
    rloo = share_of_the_gradient(lambda r: r - sf.leave_one_out(r, axis=1), p, size)
    np.testing.assert_allclose(rloo, 1, rtol=1e-10)
    own = share_of_the_gradient(lambda r: r - r.mean(1, keepdims=True), p, size)
    np.testing.assert_allclose(own, (size - 1) / size, rtol=1e-10)


@pytest.mark.parametrize(
    ("size", "p", "share"), [(4, 0.5, 1.40), (64, 0.5, 1.97), (64, 0.01, 6.68)]
)
def test_division_by_the_deviation_changes_the_objective(size: int, p: float, share: float) -> None:
    np.testing.assert_allclose(share_of_the_gradient(grpo_advantage, p, size), share, atol=0.005)


@pytest.mark.parametrize("p", [0.5, 0.1])
def test_in_large_groups_the_objective_is_twice_the_arcsine(p: float) -> None:
    slope = jax.grad(lambda p: 2 * jnp.arcsin(jnp.sqrt(p)))(p)
    np.testing.assert_allclose(share_of_the_gradient(grpo_advantage, p, 1500), slope, rtol=0.005)


def test_leaving_one_out_of_the_deviation_explodes() -> None:
    rewards = np.array([1.0, 0.0, 0.0, 0.0])
    others = np.array([np.delete(rewards, i) for i in range(4)])
    scale = np.maximum(others.std(1, ddof=1), 1e-6)
    np.testing.assert_allclose(((rewards - others.mean(1)) / scale)[0], 1e6)
    assert np.max(np.abs(policy.whiten(rewards))) < 2


# ---------------------------------------- sequences: two tokens of three kinds; kind 0 is the end

SEQUENCES = np.array([[0, 0], *itertools.product([1, 2], range(3))])
WHERE = np.array([[True, first != 0] for first, _ in SEQUENCES])
TOTAL = np.random.default_rng(3).normal(size=len(SEQUENCES))
# One row of logits for the first token, one for the second after each first one.
NEW_TABLE, OLD_TABLE, REF_TABLE = np.random.default_rng(2).normal(size=(3, 4, 3))
VALUES = np.array([0.3, -0.8, 1.1, 0.4])


def token_log_probs(table):
    """A table of all seven sequences, [7, 2]; nan where there is no token."""
    rows = jax.nn.log_softmax(table)
    first, second = SEQUENCES.T
    each = jnp.stack([rows[0, first], rows[1 + first, second]], axis=1)
    return jnp.where(WHERE, each, jnp.nan)


def sequence_log_probs(table):
    return jnp.sum(jnp.where(WHERE, token_log_probs(table), 0), axis=1)


def mean_over(table, losses):
    """The gradient at the new policy of the mean over sequences that another one draws."""
    probs = np.asarray(jnp.exp(sequence_log_probs(table)))
    return once(jax.grad(lambda new: probs @ losses(token_log_probs(new))))(NEW_TABLE)


def sequence_kl(table):
    log_p = sequence_log_probs(table)
    return jnp.exp(log_p) @ (log_p - sequence_log_probs(REF_TABLE))


def summed(x):
    return jnp.sum(jnp.where(WHERE, x, 0), axis=1)


@pytest.mark.parametrize("drawn", ["new", "old"])
def test_the_divergence_of_sequences_takes_the_ratio_of_the_prefix(drawn: str) -> None:
    table = {"new": NEW_TABLE, "old": OLD_TABLE}[drawn]
    old, ref = token_log_probs(table), token_log_probs(REF_TABLE)
    exact = jax.grad(sequence_kl)(jnp.asarray(NEW_TABLE))

    def by_hand(new, weigh):
        d = jnp.where(WHERE, new - ref, 0)
        ratio = jnp.exp(weigh(jnp.where(WHERE, new - old, 0)))
        return summed(ratio * (jnp.expm1(-d) + d))

    def estimate(new, kind="k3", **options):
        prefix = policy.log_ratio(new, old, "prefix", WHERE)
        return summed(policy.kl_estimate(new, ref, kind, prefix, where=WHERE, **options))

    right = {
        "prefix": lambda new: by_hand(new, partial(jnp.cumsum, axis=1)),
        "k3": estimate,
        "k1": partial(estimate, kind="k1"),
        "baseline": partial(estimate, baseline=jnp.array([0.4, -0.2]) * WHERE),
    }
    for name, losses in right.items():
        found = mean_over(table, losses)
        np.testing.assert_allclose(found, exact, atol=1e-12, err_msg=name)
    # What the token's own ratio, or no axis of time, leaves out.
    for losses in (lambda new: by_hand(new, lambda d: d), partial(estimate, axis=None)):
        missed = np.linalg.norm(mean_over(table, losses) - exact) / np.linalg.norm(exact)
        assert 0.1 < missed < 1
    values = {kind: estimate(token_log_probs(NEW_TABLE), kind) for kind in ("k1", "k3")}
    probs = jnp.exp(sequence_log_probs(table))
    for value in values.values():
        np.testing.assert_allclose(probs @ value, sequence_kl(NEW_TABLE), rtol=1e-12)


def expected_reward(table):
    return jnp.exp(sequence_log_probs(table)) @ TOTAL


def test_a_value_that_is_wrong_leaves_the_advantage_of_lam_1_unbiased() -> None:
    """And reward-to-go, with rewards on the way; lam below 1 is biased."""
    early = np.where(WHERE[:, 1], 0.7, 0)
    reward = np.stack([early, TOTAL - early], 1)
    reward = np.where(WHERE, reward, [[0, 0]])
    reward[0, 0] = TOTAL[0]
    goes_on = np.stack([WHERE[:, 1], np.zeros(7, bool)], 1)
    value = np.stack([np.full(7, VALUES[0]), VALUES[1 + SEQUENCES[:, 0]]], 1)
    following = np.roll(value, -1, axis=1)
    exact = -jax.grad(expected_reward)(jnp.asarray(NEW_TABLE))

    def losses(new, lam):
        advantage = policy.gae(reward, goes_on, value, following, lam, where=WHERE)
        return summed(policy.score_surrogate(new, advantage))

    def to_go(new):
        advantage = policy.returns(reward, 1.0, where=WHERE)
        return summed(policy.score_surrogate(new, advantage))

    np.testing.assert_allclose(mean_over(NEW_TABLE, to_go), exact, atol=1e-12)
    np.testing.assert_allclose(mean_over(NEW_TABLE, partial(losses, lam=1.0)), exact, atol=1e-12)
    assert np.max(np.abs(mean_over(NEW_TABLE, partial(losses, lam=0.5)) - exact)) > 0.01


def test_the_ratio_of_the_sequence_corrects_for_another_policy() -> None:
    exact = -jax.grad(expected_reward)(jnp.asarray(NEW_TABLE))
    old = token_log_probs(OLD_TABLE)

    def losses(new, level):
        ratio = policy.log_ratio(new, old, where=WHERE)
        whole = policy.log_ratio(new, old, "sequence-sum", WHERE)
        weight = {"whole": whole, "token": ratio, "none": jnp.zeros_like(ratio)}[level]
        return summed(policy.weighted_surrogate(new, weight, TOTAL))

    found = mean_over(OLD_TABLE, partial(losses, level="whole"))
    np.testing.assert_allclose(found, exact, atol=1e-12)
    for level in ("token", "none"):
        found = mean_over(OLD_TABLE, partial(losses, level=level))
        assert np.max(np.abs(found - exact)) > 0.01


# ------------------------------------------------------------------------------- squashed actions


def test_a_squashing_belongs_to_the_cost() -> None:
    """At a mean of 10 the density of tanh(x) is lost in float32; that of x has the same score."""
    noise = scipy.special.ndtri((np.arange(1000) + 0.5) / 1000).astype(np.float32)

    def log_prob(mean, x):
        return -((x - mean) ** 2) / 2

    def squashed(mean, y):
        return log_prob(mean, jnp.arctanh(y)) - jnp.log1p(-(y**2))

    mean = jnp.float32(10.0)
    found, x = np.asarray(squashed(mean, jnp.tanh(mean + noise))), 10.0 + noise.astype(float)
    # Infinite, or far off, by the way in which tanh is compiled near 1.
    known = log_prob(10.0, x) - 2 * (np.log(2.0) - x - np.logaddexp(0.0, -2 * x))
    assert np.mean(~(np.abs(found - known) < 0.1)) > 0.9
    scores = [jax.grad(log_prob)(mean, mean + x) for x in noise[::100]]
    assert np.all(np.isfinite(scores))
    # In float64, where nothing is lost.
    exact = [jax.grad(squashed)(10.0, jnp.tanh(10.0 + float(x))) for x in noise[100:900:100]]
    np.testing.assert_allclose(scores[1:9], exact, atol=1e-5)


# ----------------------------------------------------------------------------------------- recipes

GROUP = 2


def mean_gradient(recipe: Any, table: Any, drawn: Any) -> Any:
    """The exact mean of a recipe's gradient over all groups of 2 sequences, prompts: one."""
    groups = np.array(list(itertools.product(range(len(SEQUENCES)), repeat=GROUP)))
    old = np.asarray(token_log_probs(drawn))
    probs = np.asarray(jnp.exp(sequence_log_probs(drawn)))[groups].prod(1)
    value = np.stack([np.full(7, VALUES[0]), VALUES[1 + SEQUENCES[:, 0]]], 1)
    greedy = TOTAL[np.argmax(probs[:: len(SEQUENCES) + 1])]

    def one(group, new):
        rows = (jnp.asarray(x)[group][None] for x in (old, WHERE, TOTAL))
        batch = Batch(*rows, jnp.array([greedy]), jnp.asarray(value)[group][None])
        return recipe(new[group][None], batch)

    def mean(table):
        return probs @ jax.vmap(one, (0, None))(groups, token_log_probs(table))

    return once(jax.grad(mean))(table)


UNBIASED = {"REINFORCE": 1, "RLOO": 1, "ReMax": 1, "A2C": 1}
# In groups of 2, of sequences of 2 tokens at most.
UP_TO_A_FACTOR = {"Dr.GRPO": (1 - 1 / GROUP) / 2}


@pytest.mark.parametrize("name", RECIPES)
def test_which_recipes_are_unbiased_over_all_groups(name: str) -> None:
    exact = -np.asarray(jax.grad(expected_reward)(jnp.asarray(NEW_TABLE)))
    found = np.asarray(mean_gradient(RECIPES[name], NEW_TABLE, NEW_TABLE))
    factor = (UNBIASED | UP_TO_A_FACTOR).get(name)
    if factor is not None:
        np.testing.assert_allclose(found, factor * exact, atol=1e-12)
    else:
        cosine = np.sum(found * exact) / np.linalg.norm(found) / np.linalg.norm(exact)
        assert 0 < cosine < 1 - 1e-6


RANDOM = np.random.default_rng(4)
P, G, T = 3, 4, 5
LENGTHS = RANDOM.integers(1, T + 1, size=(P, G))
LOG_PROB = np.log(RANDOM.uniform(0.1, 0.9, size=(P, G, T)))
REWARDS = np.array([[1.0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]])
ADVANTAGES = RANDOM.normal(size=(P, G))
MASK = np.arange(T) < LENGTHS[..., None]


def batch(old: Any = LOG_PROB) -> Batch:
    value = jnp.asarray(RANDOM.normal(size=(P, G, T)))
    arrays = (jnp.asarray(x) for x in (old, MASK, REWARDS, np.array([1.0, 0, 0])))
    return Batch(*arrays, value)


def test_on_policy_the_surrogates_are_one() -> None:
    def gradient(loss, mode):
        return jax.grad(lambda new: policy.reduce(loss(new), MASK, mode))(jnp.asarray(LOG_PROB))

    def clipped(new, level="token"):
        ratio = policy.log_ratio(new, LOG_PROB, level, MASK)
        return policy.clipped_surrogate(ratio, ADVANTAGES, 0.2, 0.28, 3.0)

    def weighted(new):
        ratio = policy.log_ratio(new, LOG_PROB, where=MASK)
        return policy.weighted_surrogate(new, ratio, ADVANTAGES, 0.2, 0.28)

    def plain(new):
        return policy.score_surrogate(new, ADVANTAGES)

    @once
    def pairs():
        tokens, sequences = "token-mean", "seq-mean-token-mean"
        return [
            (gradient(clipped, tokens), gradient(plain, tokens)),
            (gradient(weighted, tokens), gradient(plain, tokens)),
            (
                gradient(partial(clipped, level="sequence-mean"), sequences),
                gradient(plain, sequences),
            ),
        ]

    for found, desired in pairs():
        np.testing.assert_allclose(found, desired, atol=1e-14)


def losses_by_hand(new, old):
    """Most recipes in loops over answers, from their papers."""
    ratio = np.exp(new - old)
    mean, std = REWARDS.mean(1, keepdims=True), REWARDS.std(1, ddof=1, keepdims=True)
    whitened = (REWARDS - mean) / np.maximum(std, 1e-6)
    lengths = MASK.sum(-1)

    def ppo(r, a, low=0.2, high=0.2):
        return -np.minimum(r * a, np.clip(r, 1 - low, 1 + high) * a)

    def answers(loss):
        return [
            (np.sum(loss(i, g)[: lengths[i, g]]), lengths[i, g]) for i in range(P) for g in range(G)
        ]

    def per_answer(loss):
        return np.mean([total / length for total, length in answers(loss)])

    def per_token(loss):
        return sum(total for total, _ in answers(loss)) / lengths.sum()

    def whole(loss):
        return np.mean([total for total, _ in answers(loss)])

    s = np.exp(np.sum((new - old) * MASK, -1) / lengths)
    loo = (REWARDS.sum(1, keepdims=True) - REWARDS) / (G - 1)
    kept = np.array([0, 2])
    dapo = lambda i, g: ppo(ratio[i, g], whitened[i, g], 0.2, 0.28)  # noqa: E731
    n = [(i, g) for i in kept for g in range(G)]
    everywhere = np.repeat(REWARDS[..., None], T, axis=-1)[MASK]
    spread = everywhere.std(ddof=1)
    plus = lambda i, g: (REWARDS[i, g] - everywhere.mean()) / spread  # noqa: E731
    return {
        "REINFORCE": whole(lambda i, g: -new[i, g] * REWARDS[i, g]),
        "RLOO": whole(lambda i, g: -new[i, g] * (REWARDS - loo)[i, g]),
        "ReMax": whole(lambda i, g: -new[i, g] * (REWARDS[i, g] - [1.0, 0, 0][i])),
        "GRPO": per_answer(lambda i, g: ppo(ratio[i, g], whitened[i, g])),
        "Dr.GRPO": whole(lambda i, g: ppo(ratio[i, g], (REWARDS - mean)[i, g])) / T,
        "DAPO": sum(np.sum(dapo(i, g)[: lengths[i, g]]) for i, g in n) / lengths[kept].sum(),
        "REINFORCE++": per_token(lambda i, g: ppo(ratio[i, g], plus(i, g))),
        "CISPO": per_token(
            lambda i, g: -np.minimum(ratio, 1.28)[i, g] * whitened[i, g] * new[i, g]
        ),
        "GSPO": per_answer(lambda i, g: ppo(s[i, g], whitened[i, g], 3e-4, 4e-4) * np.ones(T)),
        "GPG": per_token(lambda i, g: -new[i, g] * (REWARDS - mean)[i, g] * 3 / 2),
    }


def test_recipes_off_policy_are_those_of_their_papers() -> None:
    old = LOG_PROB + RANDOM.normal(size=LOG_PROB.shape) * 0.2
    spoilt = np.where(MASK, LOG_PROB, np.nan)
    found = once(lambda new: {n: r(new, batch(old)) for n, r in RECIPES.items()})(spoilt)
    for name, desired in losses_by_hand(LOG_PROB, old).items():
        np.testing.assert_allclose(found[name], desired, rtol=1e-7, err_msg=name)


def test_no_recipe_lets_a_masked_token_or_an_empty_answer_through() -> None:
    spoilt = np.where(MASK, LOG_PROB, np.nan)
    spoilt[0, 0] = np.nan
    empty = MASK.copy()
    empty[0, 0] = False

    @once
    def gradients(new):
        given = replace(batch(spoilt), where=jnp.asarray(empty))
        return {name: jax.grad(r)(new, given) for name, r in RECIPES.items()}

    for name, slope in gradients(jnp.asarray(spoilt)).items():
        assert np.all(np.isfinite(slope)), name
        assert not np.any(slope[~empty]), name
        assert np.any(slope), name
