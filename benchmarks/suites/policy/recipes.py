"""Published policy-gradient losses as primitive x primitive x reduction, two to four lines each."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

import scorefn as sf
from scorefn import policy
from scorefn._core.pytree import pytree_dataclass


@pytree_dataclass
class Batch:
    """P prompts with G answers each, of T tokens at most.

    Attributes:
        old_log_prob: of the tokens, under the policy that drew them, [P, G, T].
        where: the tokens that are there, [P, G, T].
        reward: of each answer, [P, G].
        greedy_reward: of the answer made of the most probable tokens, [P].
        value: of what precedes each token, [P, G, T].
    """

    old_log_prob: jax.Array
    where: jax.Array
    reward: jax.Array
    greedy_reward: jax.Array
    value: jax.Array

    @property
    def max_tokens(self) -> int:
        """T, the most tokens that any answer may have, not the most of this batch."""
        return self.where.shape[-1]

    @property
    def goes_on(self) -> jax.Array:
        """The tokens that have a token after them, [P, G, T]."""
        return jnp.concatenate([self.where[..., 1:], jnp.zeros_like(self.where[..., :1])], -1)

    @property
    def token_reward(self) -> jax.Array:
        """The reward at the last token of each answer, [P, G, T]."""
        return jnp.where(self.where & ~self.goes_on, self.reward[..., None], 0)

    @property
    def informative(self) -> jax.Array:
        """The prompts whose answers do not all have the same reward, [P, 1]."""
        return jnp.ptp(self.reward, axis=1, keepdims=True) > 0


def reinforce(log_prob: jax.Array, batch: Batch) -> jax.Array:
    """Williams (1992): the reward of the whole answer, no baseline."""
    loss = policy.score_surrogate(log_prob, batch.reward, where=batch.where)
    return policy.reduce(loss, batch.where, "seq-mean-token-sum")


def rloo(log_prob: jax.Array, batch: Batch) -> jax.Array:
    """Ahmadian et al. (2024): the other answers to the same prompt are the baseline."""
    advantage = batch.reward - sf.leave_one_out(batch.reward, axis=1)
    loss = policy.score_surrogate(log_prob, advantage, where=batch.where)
    return policy.reduce(loss, batch.where, "seq-mean-token-sum")


def remax(log_prob: jax.Array, batch: Batch) -> jax.Array:
    """Li et al. (2024): the greedy answer is the baseline."""
    advantage = batch.reward - batch.greedy_reward[:, None]
    loss = policy.score_surrogate(log_prob, advantage, where=batch.where)
    return policy.reduce(loss, batch.where, "seq-mean-token-sum")


def grpo(log_prob: jax.Array, batch: Batch) -> jax.Array:
    """Shao et al. (2024), less its divergence: whitened groups, a mean for each answer."""
    log_ratio = policy.log_ratio(log_prob, batch.old_log_prob, where=batch.where)
    advantage = policy.whiten(batch.reward, axis=1)
    loss = policy.clipped_surrogate(log_ratio, advantage, where=batch.where)
    return policy.reduce(loss, batch.where, "seq-mean-token-mean")


def dr_grpo(log_prob: jax.Array, batch: Batch) -> jax.Array:
    """Liu et al. (2025): GRPO without its two divisions."""
    advantage = batch.reward - jnp.mean(batch.reward, axis=1, keepdims=True)
    log_ratio = policy.log_ratio(log_prob, batch.old_log_prob, where=batch.where)
    loss = policy.clipped_surrogate(log_ratio, advantage, where=batch.where)
    return policy.reduce(loss, batch.where, "seq-mean-token-sum-norm", length=batch.max_tokens)


def dapo(log_prob: jax.Array, batch: Batch) -> jax.Array:
    """Yu et al. (2025): GRPO that clips higher, counts tokens, and drops groups of one reward."""
    where = batch.where & batch.informative[..., None]
    log_ratio = policy.log_ratio(log_prob, batch.old_log_prob, where=where)
    advantage = policy.whiten(batch.reward, axis=1)
    loss = policy.clipped_surrogate(log_ratio, advantage, 0.2, 0.28, where=where)
    return policy.reduce(loss, where)


def reinforce_plus_plus(log_prob: jax.Array, batch: Batch) -> jax.Array:
    """Hu (2025): returns whitened over the whole batch, and the clip of PPO."""
    reward_to_go = policy.returns(batch.token_reward, 1.0, where=batch.where)
    log_ratio = policy.log_ratio(log_prob, batch.old_log_prob, where=batch.where)
    advantage = policy.whiten(reward_to_go, where=batch.where)
    loss = policy.clipped_surrogate(log_ratio, advantage, where=batch.where)
    return policy.reduce(loss, batch.where)


def ppo_clip(log_prob: jax.Array, batch: Batch) -> jax.Array:
    """Schulman et al. (2017): whitened advantages from a value, clipped."""
    advantage = policy.whiten(_advantage(batch, 0.95), where=batch.where)
    log_ratio = policy.log_ratio(log_prob, batch.old_log_prob, where=batch.where)
    loss = policy.clipped_surrogate(log_ratio, advantage, where=batch.where)
    return policy.reduce(loss, batch.where)


def cispo(log_prob: jax.Array, batch: Batch) -> jax.Array:
    """MiniMax (2025): the weight is clipped, not the gradient."""
    log_ratio = policy.log_ratio(log_prob, batch.old_log_prob, where=batch.where)
    advantage = policy.whiten(batch.reward, axis=1)
    loss = policy.weighted_surrogate(
        log_prob, log_ratio, advantage, eps_high=0.28, where=batch.where
    )
    return policy.reduce(loss, batch.where)


def gspo(log_prob: jax.Array, batch: Batch) -> jax.Array:
    """Zheng et al. (2025): one ratio for the whole answer."""
    log_ratio = policy.log_ratio(log_prob, batch.old_log_prob, "sequence-mean", batch.where)
    advantage = policy.whiten(batch.reward, axis=1)
    loss = policy.clipped_surrogate(log_ratio, advantage, 3e-4, 4e-4, where=batch.where)
    return policy.reduce(loss, batch.where, "seq-mean-token-mean")


def gpg(log_prob: jax.Array, batch: Batch) -> jax.Array:
    """Chu et al. (2025): groups of one reward do not thin the gradient out."""
    share = jnp.maximum(jnp.mean(batch.informative), 1 / len(batch.reward))
    advantage = (batch.reward - jnp.mean(batch.reward, axis=1, keepdims=True)) / share
    loss = policy.score_surrogate(log_prob, advantage, where=batch.where)
    return policy.reduce(loss, batch.where)


def a2c(log_prob: jax.Array, batch: Batch) -> jax.Array:
    """Mnih et al. (2016), one worker: the advantage over a value, which is trained along."""
    advantage = _advantage(batch, 1.0)
    target = jax.lax.stop_gradient(advantage + batch.value)
    loss = policy.score_surrogate(log_prob, advantage, where=batch.where)
    loss += policy.clipped_value_loss(batch.value, batch.value, target, None, where=batch.where)
    return policy.reduce(loss, batch.where, "seq-mean-token-sum")


def _advantage(batch: Batch, lam: float) -> jax.Array:
    after = policy.next_value(batch.value, where=batch.where)
    return policy.gae(batch.token_reward, 1.0, batch.value, after, lam, where=batch.where)


Recipe = Callable[[jax.Array, Batch], jax.Array]
RECIPES: dict[str, Recipe] = {
    "REINFORCE": reinforce,
    "RLOO": rloo,
    "ReMax": remax,
    "GRPO": grpo,
    "Dr.GRPO": dr_grpo,
    "DAPO": dapo,
    "REINFORCE++": reinforce_plus_plus,
    "PPO-clip": ppo_clip,
    "CISPO": cispo,
    "GSPO": gspo,
    "GPG": gpg,
    "A2C": a2c,
}
