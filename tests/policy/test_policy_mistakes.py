"""docs/mistakes.md: each mistake's exact bias on a toy, and that the right call has none.

The toy: sequences of two tokens out of three words, all nine of them; a reward for each sequence
and one for each token; an old policy that draws, a new one that learns, a reference.
"""

import itertools
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from support.exact import FAST

import scorefn as sf
from scorefn import policy

pytestmark = pytest.mark.usefixtures("x64")

RANDOM = np.random.default_rng(3)
SEQUENCES = np.array(list(itertools.product(range(3), repeat=2)))
ROWS = np.stack([np.zeros(9, int), 1 + SEQUENCES[:, 0]], 1)
# One row of logits for the first token, one for the second after each first one.
NEW, OLD, REFERENCE = RANDOM.normal(size=(3, 4, 3))
# An inference engine at the old weights, whose numbers are a little different.
SAMPLER = OLD + 0.1 * RANDOM.normal(size=OLD.shape)
# That of a token depends on no later one.
TOKEN_REWARD = RANDOM.normal(size=(9, 2))
TOKEN_REWARD[:, 0] = TOKEN_REWARD[3 * SEQUENCES[:, 0], 0]
REWARD = TOKEN_REWARD.sum(1)


class Found(NamedTuple):
    """A wrong and a right estimate in the mean, and the truth: gradients, or other numbers."""

    wrong: Any
    right: Any
    truth: Any


def tokens(logits: Any) -> Any:
    """The log-probabilities of the tokens of all sequences, [9, 2]."""
    return jax.nn.log_softmax(logits)[ROWS, SEQUENCES]


def known(logits: Any) -> np.ndarray:
    """The log-probabilities of the tokens of all sequences, as numbers in float64."""
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))[ROWS, SEQUENCES]


def probs_of(logits: Any) -> np.ndarray:
    return np.exp(known(logits).sum(1))


def mean_of(loss: Callable[[Any], Any], drawn: Any = NEW) -> Callable[[Any], Any]:
    """The mean over sequences of ``loss(log_probs)``, [9, 2], summed over their tokens."""
    probs = probs_of(drawn)
    return lambda logits: probs @ loss(tokens(logits)).sum(1)


def gradient(fn: Callable[[Any], Any]) -> Any:
    return jax.jit(jax.grad(fn), compiler_options=FAST)(NEW)


def kl(logits: Any) -> Any:
    new = tokens(logits).sum(1)
    return jnp.exp(new) @ (new - REF.sum(1))


def minus_reward(logits: Any) -> Any:
    return -jnp.exp(tokens(logits).sum(1)) @ REWARD


REF, BEFORE = known(REFERENCE), known(OLD)


def kl_found(loss: Any, right: Any, drawn: Any = NEW) -> Found:
    return Found(gradient(mean_of(loss, drawn)), gradient(mean_of(right, drawn)), gradient(kl))


def k1_as_a_loss() -> Found:
    return kl_found(lambda new: new - REF, lambda new: policy.kl_estimate(new, REF))


def k3_as_a_loss() -> Found:
    return kl_found(
        lambda new: jnp.expm1(REF - new) + new - REF, lambda new: policy.kl_estimate(new, REF)
    )


def divergence_by_token() -> Found:
    """The sum over the vocabulary at each state, without the score of what follows."""

    def loss(logits, *, score):
        log_prob = tokens(logits)
        log_prob = log_prob if score else jax.lax.stop_gradient(log_prob)
        each = policy.divergence(logits[ROWS], REFERENCE[ROWS], log_prob)
        return probs_of(NEW) @ each.sum(1)

    wrong, right = (gradient(partial(loss, score=score)) for score in (False, True))
    return Found(wrong, right, gradient(kl))


def divergence_off_policy() -> Found:
    def right(new):
        weight = policy.log_ratio(new, BEFORE, "prefix")
        return policy.kl_estimate(new, REF, log_weight=weight)

    return kl_found(lambda new: policy.kl_estimate(new, REF), right, OLD)


def off_policy(wrong: Any) -> Found:
    def right(new):
        return policy.weighted_surrogate(new, policy.log_ratio(new, BEFORE, "sequence-sum"), REWARD)

    return Found(
        gradient(mean_of(wrong, OLD)), gradient(mean_of(right, OLD)), gradient(minus_reward)
    )


def weight_not_stopped() -> Found:
    def wrong(new):
        ratio = jnp.exp(policy.log_ratio(new, BEFORE, "sequence-sum"))
        return -ratio * REWARD[:, None] * new

    return off_policy(wrong)


def ratio_of_the_token() -> Found:
    return off_policy(
        lambda new: policy.weighted_surrogate(new, policy.log_ratio(new, BEFORE), REWARD)
    )


def ratio_by_the_mean() -> Found:
    return off_policy(
        lambda new: policy.weighted_surrogate(
            new, policy.log_ratio(new, BEFORE, "sequence-mean"), REWARD
        )
    )


def sampler_left_out() -> Found:
    """Three policies: the sampler's, the old, the new. The ratio is taken to the old one."""

    def right(new):
        weight = policy.importance_weight(policy.log_ratio(BEFORE, known(SAMPLER), "sequence-sum"))
        ratio = policy.log_ratio(new, BEFORE, "sequence-sum")
        return policy.weighted_surrogate(new, ratio, weight * REWARD[:, None])

    def wrong(new):
        return policy.weighted_surrogate(new, policy.log_ratio(new, BEFORE, "sequence-sum"), REWARD)

    return Found(
        gradient(mean_of(wrong, SAMPLER)),
        gradient(mean_of(right, SAMPLER)),
        gradient(minus_reward),
    )


def groups_of(advantage: Any, size: int) -> Any:
    """The mean gradient of a score surrogate over all groups of so many sequences."""
    groups = np.array(list(itertools.product(range(9), repeat=size)))
    probs = probs_of(NEW)[groups].prod(1)
    weights = np.asarray(advantage(REWARD[groups]))  # [groups, size]
    return gradient(
        lambda x: probs @ policy.score_surrogate(tokens(x)[groups], weights).sum(2).mean(1)
    )


def rloo(reward: Any) -> Any:
    return reward - sf.leave_one_out(reward, 1)


def own_sample_in_the_baseline() -> Found:
    wrong = groups_of(lambda r: r - r.mean(1, keepdims=True), 3)
    return Found(wrong, groups_of(rloo, 3), gradient(minus_reward))


def deviation_of_the_group() -> Found:
    wrong = groups_of(partial(policy.whiten, axis=1), 3)
    return Found(wrong, groups_of(rloo, 3), gradient(minus_reward))


def deviation_of_the_others() -> Found:
    """Rewards 1, 0, 0, 0: the advantage of the first, over that of leave-one-out."""
    reward = np.array([1.0, 0, 0, 0])
    others = np.array([np.delete(reward, i) for i in range(4)])
    wrong = (reward - others.mean(1)) / (others.std(1, ddof=1) + 1e-6)
    right = reward - sf.leave_one_out(reward)
    return Found(wrong[:1], right[:1], np.array([1.0]))


def mean_of_means() -> Found:
    """Micro-batches of one and of three tokens."""
    x, where = np.array([[1.0, 0, 0], [4, 4, 4]]), np.array([[1, 0, 0], [1, 1, 1]], bool)
    parts = [(x[i : i + 1], where[i : i + 1]) for i in range(2)]
    wrong = np.mean([policy.reduce(*part) for part in parts])
    right = sum(policy.reduce(*part, total=policy.total(where)) for part in parts)
    return Found(wrong, right, x[where].mean())


def divisor_from_the_padding() -> Found:
    """Three tokens of at most six, in a batch that is padded to four."""
    x, where = np.ones((1, 4)), np.array([[1, 1, 1, 0]], bool)
    right = policy.reduce(x, where, "seq-mean-token-sum-norm", length=6)
    return Found(x[where].sum() / x.shape[1], right, 0.5)


def mean_for_each_answer() -> Found:
    """Answers that end at word 0: a mean over tokens weighs long answers less."""
    where = np.stack([np.ones(9, bool), SEQUENCES[:, 0] != 0], 1)
    once = where[:, 1] | (SEQUENCES[:, 1] == 0)  # the second token after the end is one word

    def objective(logits):
        new = jnp.where(where, tokens(logits), 0).sum(1)
        return -jnp.exp(new) @ jnp.where(once, REWARD, 0)

    probs = np.where(once, np.exp(np.where(where, tokens(NEW), 0).sum(1)), 0)

    def mean(logits, mode):
        each = policy.score_surrogate(tokens(logits), REWARD, where=where)
        return sum(
            p * policy.reduce(x[None], w[None], mode)
            for p, x, w in zip(probs, each, where)  # noqa: B905
        )

    wrong, right = (
        gradient(partial(mean, mode=mode)) for mode in ("seq-mean-token-mean", "seq-mean-token-sum")
    )
    return Found(wrong, right, gradient(objective))


def reward_after_the_last_action() -> Found:
    reward, acted = np.array([0.0, 0, 1]), np.array([1, 1, 0], bool)
    wrong = policy.returns(reward * acted, 1.0)
    return Found(wrong[:2], policy.returns(reward, 1.0, acted=acted)[:2], np.ones(2))


def cut_at_a_masked_step() -> Found:
    """The turn of an environment that ends the episode; another one follows in the row."""
    reward, goes_on = np.array([1.0, 0, 5]), np.array([1.0, 0, 0])
    acted = np.array([1, 0, 1], bool)
    wrong = policy.returns(reward, np.where(acted, goes_on, 1))
    return Found(wrong[:1], policy.returns(reward, goes_on, acted=acted)[:1], np.ones(1))


def value_of_a_tool() -> Found:
    """The value at a tool's token taken for what follows; it was never trained."""
    value, acted = np.array([0.5, 9.0, 0.5]), np.array([1, 0, 1], bool)
    reward, zero = np.zeros(3), np.array([1.0, 1, 0])
    wrong = policy.gae(reward, zero, value, np.roll(value, -1), 0.0)
    after = policy.next_value(value, acted=acted)
    right = policy.gae(reward, zero, value, after, 0.0, acted=acted)
    return Found(wrong[::2], right[::2], np.array([0.0, -0.5]))


def time_limit_as_an_end() -> Found:
    """Reward 1 for ever at discount 0.5, cut off after two steps: the value is 2."""
    reward, value, after = np.ones(2), np.full(2, 2.0), np.full(2, 2.0)
    wrong = policy.lambda_returns(reward, np.array([0.5, 0.0]), after, 1.0)
    right = policy.lambda_returns(reward, 0.5, after, np.array([1.0, 0.0]))
    return Found(wrong, right, value)


def density_of_what_was_drawn(tempered: Any) -> Found:
    """The objective is the reward of what is drawn: from logits that were cut or heated."""
    probs = probs_of(np.asarray(tempered(NEW)))
    possible = probs > 0

    def mean(logits, log_probs):
        loss = policy.score_surrogate(
            log_probs(logits), REWARD, where=possible[:, None] & [[True] * 2]
        )
        return probs @ loss.sum(1)

    def truth(logits):
        new = jnp.where(possible[:, None], tokens(tempered(logits)), 0).sum(1)
        return -jnp.where(possible, jnp.exp(new), 0) @ REWARD

    wrong, right = (
        gradient(partial(mean, log_probs=f)) for f in (tokens, lambda x: tokens(tempered(x)))
    )
    return Found(wrong, right, gradient(truth))


def top_p() -> Found:
    kept = np.sort(NEW, axis=1)[:, :1] < NEW  # all but the least likely word
    return density_of_what_was_drawn(lambda logits: jnp.where(kept, logits, -jnp.inf))


def temperature() -> Found:
    return density_of_what_was_drawn(lambda logits: logits / 0.6)


def missing_discount() -> Found:
    def objective(logits):
        return -jnp.exp(tokens(logits).sum(1)) @ (TOKEN_REWARD @ np.array([1.0, 0.5]))

    to_go = policy.returns(TOKEN_REWARD, 0.5)
    weight = policy.discount_weight(np.full((9, 2), 0.5))
    wrong, right = (
        gradient(mean_of(lambda new, a=a: policy.score_surrogate(new, a)))
        for a in (to_go, to_go * weight)
    )
    return Found(wrong, right, gradient(objective))


def entropy_by_sampled_log_probs() -> Found:
    def truth(logits):
        return -jnp.exp(tokens(logits).sum(1)) @ tokens(logits).sum(1)

    probs = probs_of(NEW)
    right = gradient(lambda x: probs @ policy.entropy(x[ROWS], tokens(x)).sum(1))
    return Found(gradient(mean_of(lambda new: -new)), right, gradient(truth))


def masked_by_a_product() -> Found:
    where, advantage = np.array([True, False]), np.array([1.0, np.nan])
    wrong = jax.grad(lambda x: jnp.sum(-x * advantage * where))(np.array([-1.0, -2.0]))
    right = jax.grad(lambda x: policy.score_surrogate(x, advantage, where=where).sum())(
        np.array([-1.0, -2.0])
    )
    return Found(wrong, right, np.array([-1.0, 0.0]))


def two_answers_in_one_row() -> Found:
    d = np.array([[0.4, 0.2, -0.6]])
    ids = np.array([[1, 1, 2]])
    wrong = policy.log_ratio(d, 0 * d, "sequence-mean")
    right = policy.log_ratio(d, 0 * d, "sequence-mean", segment_ids=ids, num_segments=2)
    return Found(wrong, right, np.array([[0.3, 0.3, -0.6]]))


def whitened_on_each_device() -> Found:
    x = np.array([[0.0, 1.0], [10.0, 11.0]])
    mesh = jax.make_mesh((2,), ("dp",), axis_types=(AxisType.Auto,))
    wrong, right = (
        jax.shard_map(
            partial(policy.whiten, axis_name=name),
            mesh=mesh,
            in_specs=PartitionSpec("dp"),
            out_specs=PartitionSpec("dp"),
        )(x)
        for name in (None, "dp")
    )
    return Found(wrong, right, (x - x.mean()) / x.std(ddof=1))


def best_of_k_less_its_own_mean() -> Found:
    """Groups of three, the best of two: the credit of each draw less the mean of the credits."""

    def credit(reward):
        return policy.best_of(reward, 2, 1, baseline=None)

    def objective(logits):
        pairs = np.array(list(itertools.product(range(9), repeat=2)))
        probs = jnp.exp(tokens(logits).sum(1))[pairs].prod(1)
        return -probs @ REWARD[pairs].max(1)

    wrong = groups_of(lambda r: credit(r) - credit(r).mean(1, keepdims=True), 3)
    return Found(wrong, groups_of(lambda r: policy.best_of(r, 2, 1), 3), gradient(objective))


MISTAKES: dict[str, Callable[[], Found]] = {
    "k1 as a loss": k1_as_a_loss,
    "k3 as a loss": k3_as_a_loss,
    "a divergence token by token": divergence_by_token,
    "a divergence of old samples": divergence_off_policy,
    "a weight that is not stopped": weight_not_stopped,
    "the ratio of the token for the sequence": ratio_of_the_token,
    "the mean ratio for the sequence": ratio_by_the_mean,
    "a sampler that is not the old policy": sampler_left_out,
    "the own sample in the baseline": own_sample_in_the_baseline,
    "the deviation of the group": deviation_of_the_group,
    "the deviation of the others": deviation_of_the_others,
    "a mean of means": mean_of_means,
    "a divisor from the padding": divisor_from_the_padding,
    "a mean for each answer": mean_for_each_answer,
    "a reward after the last action": reward_after_the_last_action,
    "an end at a masked step": cut_at_a_masked_step,
    "the value at a tool's token": value_of_a_tool,
    "a time limit as an end": time_limit_as_an_end,
    "top-p with the density of all words": top_p,
    "a temperature that is left out": temperature,
    "the missing gamma^t": missing_discount,
    "entropy from sampled log-probabilities": entropy_by_sampled_log_probs,
    "a mask as a product": masked_by_a_product,
    "two answers in one row": two_answers_in_one_row,
    "whitening on each device": whitened_on_each_device,
    "the best of k less its own mean": best_of_k_less_its_own_mean,
}

PAGE = Path(__file__).parents[2] / "docs" / "mistakes.md"


def rows_of_the_page() -> dict[str, list[str]]:
    """The cells of each row by the mistake's name."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
    return {re.sub(r"\[(.*?)\]\(.*?\)", r"\1", row[0]): row for row in cells}


def bias_of(found: Found) -> str:
    wrong, truth = np.asarray(found.wrong), np.asarray(found.truth)
    if not np.all(np.isfinite(wrong)):
        return "nan"
    share = 100 * np.linalg.norm(wrong - truth) / np.linalg.norm(truth)
    return f"{share:.0f}%"


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_has_the_bias_of_the_page_and_the_right_call_none(name: str) -> None:
    found = MISTAKES[name]()
    if name != "the deviation of the others":
        np.testing.assert_allclose(found.right, found.truth, rtol=0, atol=1e-11)
    link, wrong, bias, right = rows_of_the_page()[name]
    assert bias == bias_of(found)
    assert re.search(r"\(https://\S+\)", link)
    assert wrong.startswith("`")
    assert "policy." in right or "sf." in right


def test_the_page_has_a_row_for_each_mistake() -> None:
    assert list(rows_of_the_page()) == list(MISTAKES)
