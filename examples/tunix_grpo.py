"""tunix's GRPO learner with losses of `scorefn.policy`: ``python examples/tunix_grpo.py``.

The learner, the sampler and the optimizer loop are those of google-tunix (extra ``integrations``);
its registries take a policy loss and an advantage estimator by name, and these are ours: the other
answers as a baseline, the clipped surrogate, and a divergence from the reference with the right
gradient. The model is a Qwen3 of two layers with random weights; the task is to answer with one
word: the reward is the share of an answer that is "world". It runs on a CPU in minutes.
"""

import argparse
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.models.qwen3 import model as qwen3
from tunix.rl import common, function_registry
from tunix.rl import rl_cluster as clusters
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout
from tunix.tests.test_common import MockVocab

import scorefn as sf
from scorefn import policy

PROMPTS = ("input string", "hello world", "My name is", "Hello there !")
WORD, LENGTH = "world", 8


@function_registry.register_advantage_estimator("scorefn-rloo")
def rloo(rewards: Any, num_generations: int) -> np.ndarray:
    """Each reward less the mean of the other answers to its prompt."""
    groups = jnp.reshape(jnp.asarray(rewards), (-1, num_generations))
    return np.asarray(jnp.ravel(groups - sf.leave_one_out(groups, axis=1)))


@function_registry.register_policy_loss_fn("scorefn-grpo")
def loss_fn(
    model: nnx.Module, batch: Any, algo_config: Any, pad_id: int, eos_id: int, **_: Any
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The clipped surrogate, and KL(policy || reference) of whole answers."""
    new = common.compute_per_token_logps(
        *nnx.split(model),
        prompt_tokens=batch.prompt_ids,
        completion_tokens=batch.completion_ids,
        pad_id=pad_id,
        eos_id=eos_id,
        stop_gradient=False,
        temperature=algo_config.temperature,
    )
    where, old = batch.completion_mask, batch.old_per_token_logps
    old = jax.lax.stop_gradient(new) if old is None else old
    log_ratio = policy.log_ratio(new, old, where=where)
    loss = policy.clipped_surrogate(log_ratio, batch.advantages, algo_config.epsilon, where=where)
    prefix = policy.log_ratio(new, old, "prefix", where)
    kl = policy.kl_estimate(new, batch.ref_per_token_logps, log_weight=prefix, where=where)
    mean = policy.reduce(loss + algo_config.beta * kl, where, "seq-mean-token-sum")
    return mean, {
        "kl": policy.reduce(kl, where, "seq-mean-token-sum"),
        "pg_clipfrac": policy.clip_fraction(log_ratio, batch.advantages, where=where),
    }


def share_of_the_word(completions: list[str], **_: Any) -> list[float]:
    """The reward: the share of LENGTH words that are the right one."""
    return [text.split().count(WORD) / LENGTH for text in completions]


def cluster(steps: int, rate: float) -> clusters.RLCluster:
    """The learner, the reference and the sampler on one device."""
    vocabulary = MockVocab()
    config = qwen3.ModelConfig(
        num_layers=2,
        vocab_size=vocabulary.GetPieceSize(),
        embed_dim=32,
        hidden_dim=64,
        num_heads=2,
        head_dim=16,
        num_kv_heads=1,
        rope_theta=10_000,
        norm_eps=1e-6,
        use_tied_embedding=True,
    )
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    roles = (clusters.Role.ACTOR, clusters.Role.REFERENCE, clusters.Role.ROLLOUT)
    with jax.set_mesh(mesh):
        actor, reference = (qwen3.Qwen3(config, rngs=nnx.Rngs(0)) for _ in range(2))
    return clusters.RLCluster(
        actor=actor,
        reference=reference,
        tokenizer=vocabulary,
        cluster_config=clusters.ClusterConfig(
            role_to_mesh=dict.fromkeys(roles, mesh),
            rollout_engine="vanilla",
            offload_to_cpu=False,
            training_config=clusters.RLTrainingConfig(
                actor_optimizer=optax.adam(rate), eval_every_n_steps=10**6, max_steps=steps
            ),
            rollout_config=base_rollout.RolloutConfig(
                max_tokens_to_generate=LENGTH,
                max_prompt_length=8,
                kv_cache_size=64,
                temperature=1.0,
                top_p=1.0,
            ),
        ),
    )


def train(steps: int, rate: float = 0.01, group: int = 8) -> np.ndarray:
    """The mean reward of each batch while training, [steps]."""
    rewards: list[float] = []

    def reward(completions: list[str], **options: Any) -> list[float]:
        found = share_of_the_word(completions, **options)
        rewards.append(float(np.mean(found)))
        return found

    learner = grpo_learner.GRPOLearner(
        rl_cluster=cluster(steps, rate),
        algo_config=grpo_learner.GRPOConfig(
            num_generations=group,
            beta=0.01,
            policy_loss_fn="scorefn-grpo",
            advantage_estimator="scorefn-rloo",
        ),
        reward_fns=reward,
    )
    data = grain.MapDataset.source(list(PROMPTS) * steps).batch(len(PROMPTS))
    learner.train(data.map(lambda prompts: {"prompts": prompts}))
    return np.array(rewards)


def main() -> None:
    """Trains and prints the mean reward of every tenth of the batches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    rewards = train(parser.parse_args().steps)
    for part in np.array_split(rewards, min(10, len(rewards))):
        print(f"reward {part.mean():.3f}")


if __name__ == "__main__":
    main()
