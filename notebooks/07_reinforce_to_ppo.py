# %% [markdown]
# # 7. From REINFORCE to PPO
#
# "Reward × grad log π" is a correct policy gradient, and hardly used for training. This notebook goes from
# there to PPO, one improvement at a time: each section says what is still missing, adds it, and measures the
# gain and the cost. At the end RLOO and GRPO for language models are built from the same parts.
#
# [All notebooks](README.md) · previous: [6. Variational inference](06_variational_inference.ipynb) · next:
# [8. Programs](08_programs.ipynb)

# %%
# Installs the package where it is missing, as on Colab.
try:
    import scorefn  # noqa: F401
except ImportError:
    import subprocess
    import sys

    pip = [sys.executable, "-m", "pip", "install", "-q", "scorefn[notebooks]"]
    subprocess.run(pip, check=True)

# %%
import itertools
import os
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from scipy.stats import binom

import scorefn as sf
from scorefn import policy

if os.path.exists("notebook.mplstyle"):  # not on Colab
    plt.style.use("notebook.mplstyle")
SMOKE = "SCOREFN_SMOKE" in os.environ  # set by the tests: fewer samples

# %% [markdown]
# ## One decision
#
# A bandit with three arms. So far `sf.expectation` drew the action itself. In reinforcement learning the
# draws come from an environment, often from another machine, and all that arrives are arrays. So
# `scorefn.policy` takes arrays: log-probabilities and rewards go in, a *loss* to minimize comes out, one
# number for each action. `score_surrogate` is REINFORCE: its value means nothing, its derivative is
# $-r\,\nabla\log\pi(a)$. Weighted by the probability of each arm, it is the exact gradient:

# %%
reward_of_arm, logits = jnp.array([1.0, 3.0, 0.5]), jnp.array([0.5, -0.2, 0.1])


def loss(logits, arm):
    return policy.score_surrogate(jax.nn.log_softmax(logits)[arm], reward_of_arm[arm])


each = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(logits, jnp.arange(3))
found = -jax.nn.softmax(logits) @ each
exact = jax.jit(jax.grad(lambda logits: jax.nn.softmax(logits) @ reward_of_arm))(logits)
print("REINFORCE, mean over the arms:", found)
print("exact gradient:               ", exact)
np.testing.assert_allclose(found, exact, rtol=1e-5)

# %% [markdown]
# What is missing: a game is not one decision. A move is followed by other moves, and each may bring a reward.
#
# ## Episodes
#
# The smallest game with several steps: a walk of 8 steps on a line, left or right, that earns 1 whenever it
# is on one of two places, 1 and 2. The policy has one logit for each place. There are $2^8 = 256$ episodes.
# We go through *all* of them: every mean, bias and variance below is exact, without any sampling.

# %%
T = 8
actions = np.array(list(itertools.product((0, 1), repeat=T)))  # [256, T], 1 is to the right
after = np.cumsum(2 * actions - 1, axis=1)
before = after - (2 * actions - 1)
pays = np.isin(np.arange(-T, T + 1), (1, 2)).astype(np.float32)  # by place
reward = pays[after + T]


def log_prob(theta, before, actions):
    """Of each action, shaped like the actions."""
    logit = theta[before + T]
    return jax.nn.log_sigmoid(jnp.where(actions == 1, logit, -logit))


@jax.jit
def probability(theta):
    """Of all 256 episodes."""
    return jnp.exp(jnp.sum(log_prob(theta, before, actions), axis=1))


def expected_return(theta):
    return probability(theta) @ reward.sum(1)


theta = jnp.zeros(2 * T + 1)
exact = jax.grad(expected_return)(theta)
print(f"expected return {expected_return(theta):.3f} of at most {reward.sum(1).max():.0f}")

# %% [markdown]
# The probability of an episode is a product, its logarithm a sum over steps, and so is the score. REINFORCE
# for episodes multiplies each step's score by a weight $w_t$:
#
# $$\hat g = \sum_t w_t\, \nabla \log \pi(a_t \mid s_t).$$
#
# - **The whole return**, $w_t = \sum_s r_s$: the formula as it stands.
# - **The reward-to-go**, $w_t = \sum_{s \ge t} r_s$: an action cannot change what was earned before it. Those
#   terms have mean 0 (the mean score is 0, whatever the past), and are pure noise.
# - **The advantage**, reward-to-go minus $V(s_t)$, the expected reward in that state: this leaves out what
#   the action did not cause. $V$ does not depend on the action, so it changes no mean.
#
# Here $V$ is known: backwards in time, from the end.


# %%
@jax.jit
def values(theta):
    """What is to be expected at each time and place, [T + 1, 17]."""
    right, value = jax.nn.sigmoid(theta), [jnp.zeros(2 * T + 1)]
    for _ in range(T):
        then = pays + value[0]
        value.insert(0, right * jnp.roll(then, -1) + (1 - right) * jnp.roll(then, 1))
    return jnp.stack(value)


@partial(jax.jit, static_argnums=0)
def gradients(loss, theta, *data):
    """Of all 256 episodes, uphill, [256, 17]. The loss takes the log-probabilities and the data."""

    def one(theta, before, actions, *data):
        return jnp.sum(loss(log_prob(theta, before, actions), *data))

    axes = (None,) + (0,) * (2 + len(data))
    return -jax.vmap(jax.grad(one), axes)(theta, before, actions, *data)


@jax.jit
def mean_and_variance(probability, estimates):
    """The variance is the sum over all components."""
    mean = probability @ estimates
    return mean, probability @ jnp.sum((estimates - mean) ** 2, axis=-1)


step = np.arange(T)
table = np.asarray(values(theta))
value, next_value = table[step, before + T], table[step + 1, after + T]
to_go = np.asarray(policy.returns(reward, 1.0))
weights = {
    "whole return": np.broadcast_to(to_go[:, :1], reward.shape),
    "reward-to-go": to_go,
    "advantage": to_go - value,
}
figure, axes = plt.subplots(1, 3, figsize=(10, 2.7), sharey=True)
for axis, (name, weight) in zip(axes, weights.items(), strict=True):
    estimates = gradients(policy.score_surrogate, theta, weight)
    mean, variance = mean_and_variance(probability(theta), estimates)
    np.testing.assert_allclose(mean, exact, atol=1e-5)
    axis.plot(step + 1, weight[::37].T, marker=".", alpha=0.8)
    axis.axhline(0, color="0.4", linewidth=0.8)
    axis.set(title=f"{name}: variance {variance:.1f}", xlabel="step")
axes[0].set_ylabel("weight of the step's score")
plt.show()

# %% [markdown]
# Seven of the 256 episodes. All three weights have *exactly* the same mean gradient, which the cell asserts;
# the variance of one episode's estimate is in the titles. On the left a good last step gives credit to every
# earlier step, good or bad. On the right only the difference to what was expected is left.
#
# What is missing: $V$ is not given. It is learned, and inexact.
#
# ## GAE: how far to trust the critic
#
# A *critic* predicts the value. If it were right, one step would be enough to judge an action:
# $\delta_t = r_t + V(s_{t+1}) - V(s_t)$, with no noise from what follows. If it is wrong, this is biased.
# Generalized advantage estimation interpolates between the two, with one number $\lambda$:
#
# $$A_t = \delta_t + \lambda\,\delta_{t+1} + \lambda^2\,\delta_{t+2} + \dots$$
#
# At $\lambda = 1$ the critic's values cancel except for the first: reward-to-go minus value, unbiased for
# any critic. `policy.gae` takes `value` and `next_value` apart, so that the end of an episode (discount 0)
# and a time limit (more would follow) can be told apart. Three critics, all $\lambda$, exact:

# %%
lams = np.linspace(0.0, 1.0, 21)


@jax.jit
@partial(jax.vmap, in_axes=(None, 0))
def judged_by(critic, lam):
    advantage = policy.gae(reward, 1.0, critic * value, critic * next_value, lam)
    estimates = gradients(policy.score_surrogate, theta, advantage)
    return mean_and_variance(probability(theta), estimates)


figure, axes = plt.subplots(1, 2, figsize=(9, 3))
for critic, name in ((1.0, "right"), (0.5, "half of what is right"), (0.0, "always 0")):
    mean, variance = judged_by(critic, lams)
    bias = np.linalg.norm(mean - exact, axis=1) / np.linalg.norm(exact)
    np.testing.assert_allclose(bias[-1], 0.0, atol=1e-5)
    axes[0].plot(lams, 100 * bias, label=name)
    axes[1].plot(lams, variance)
axes[0].set(xlabel="λ", ylabel="|bias|, % of the gradient", title="bias")
axes[1].set(xlabel="λ", ylabel="variance of one episode", ylim=(0, None), title="variance")
axes[1].legend(*axes[0].get_legend_handles_labels(), title="the critic is")
plt.show()

# %% [markdown]
# An exact critic causes no bias at any $\lambda$, and the variance is least at a $\lambda$ between 0 and 1.
# With a useless critic, $\lambda < 1$ gives a wrong gradient with little variance. The usual 0.95 is a
# cautious compromise:

# %%
mean, variance = judged_by(0.5, np.array([0.95, 1.0]))
bias = np.linalg.norm(mean[0] - exact) / np.linalg.norm(exact)
print("a critic that is half right, λ = 0.95:")
print(f"bias {100 * bias:.1f} %, variance {variance[0]:.2f} instead of {variance[1]:.2f}")
half = {"value": 0.5 * value, "next_value": 0.5 * next_value, "lam": 0.95}
target = policy.gae(reward, 1.0, **half) + half.pop("value")
np.testing.assert_allclose(target, policy.lambda_returns(reward, 1.0, **half), rtol=1e-5, atol=1e-6)

# %% [markdown]
# (The last lines: advantage + value is the *λ-return*, to which the critic is trained.)
#
# What is missing: each batch is used for one step, and then discarded.
#
# ## The ratio: using a batch again
#
# After one step the policy has moved, and the batch is that of the *old* policy. A mean over the old one
# becomes a mean over the new one by the weight $\pi_{new}/\pi_{old}$ of the *whole episode*. That is a
# product over all steps, and a product of many noisy factors has a large variance. So PPO takes each step's
# own ratio. It is right for small moves, and ignores that the new policy visits other states. Below are
# exact numbers for moves along the gradient:

# %%
p, log_old = np.asarray(probability(theta)), np.asarray(log_prob(theta, before, actions))
moves = np.linspace(0.0, 2.0, 11)


@jax.jit
@partial(jax.vmap, in_axes=(None, 0))
def off_policy(level, move):
    new = theta + move * exact / jnp.max(exact)
    taken = log_prob(new, before, actions)
    step, whole = (policy.log_ratio(taken, log_old, k) for k in ("token", "sequence-sum"))
    log_weight = jnp.stack([0 * step, step, whole])[level]
    found = gradients(policy.weighted_surrogate, new, log_weight, to_go - value)
    mean, variance = mean_and_variance(p, found)
    truth = jax.grad(expected_return)(new)
    size = jnp.linalg.norm(truth)
    return jnp.linalg.norm(mean - truth) / size, variance / size**2


figure, axes = plt.subplots(1, 3, figsize=(10, 3))
for level, name in enumerate(("no weight", "ratio of the step", "ratio of the episode")):
    bias, variance = off_policy(level, moves)
    axes[0].plot(moves, 100 * bias, color=f"C{level}", label=name)
    axes[1].plot(moves, variance, color=f"C{level}")
np.testing.assert_allclose(bias, 0.0, atol=1e-4)  # of the whole episode's ratio
axes[0].set(title="bias, % of the gradient", xlabel="largest change of a logit")
axes[0].legend()
axes[1].set(title="variance / gradient²", xlabel="largest change of a logit", ylim=(0, None))
length = np.arange(1, 101)
for i, chance in enumerate((0.55, 0.6, 0.7)):
    share = (2 * (chance**2 + (1 - chance) ** 2)) ** (-1.0 * length)
    axes[2].plot(length, 100 * share, color=f"C{i + 3}", label=f"0.5 → {chance}")
    log_new = np.log(np.where(actions == 1, chance, 1 - chance))
    weight = np.exp(np.cumsum(log_new - log_old, axis=1))
    summed = 1 / (p @ weight**2)  # over all 256 episodes, at each step
    np.testing.assert_allclose(summed, share[:T], rtol=1e-4)
axes[2].set(
    title="effective sample size (% of the episodes)", xlabel="steps of an episode", yscale="log"
)
axes[2].set_ylim(1e-2, 200)
axes[2].legend(title="P(right), old → new")
plt.show()

# %% [markdown]
# The whole episode's ratio has no bias (asserted). Its cost is on the right: of $n$ weighted episodes only
# about $n / \mathbb{E}[w^2]$ count, and that falls exponentially with their length. (The lines are the closed
# form for a coin; the cell checks the first 8 steps against all episodes.) A policy that goes right 6 times
# in 10 instead of 5 leaves 2 % of the episodes of 100 steps. The ratio of the step keeps a moderate
# variance, and its bias is proportional to the move: so *the moves must stay small*.
#
# ## Clipping
#
# PPO limits the moves by clipping. The surrogate of one step is $r A$, with the ratio $r$ and the advantage
# $A$; and it stops growing once $r$ has left $[1 - \epsilon, 1 + \epsilon]$ in the direction that increases it:
#
# $$L = \min\big(r A,\ \mathrm{clip}(r, 1 - \epsilon, 1 + \epsilon)\, A\big).$$

# %%
ratio = np.linspace(0.05, 2.0, 400)


@jax.jit
@partial(jax.vmap, in_axes=(0, None))
@jax.value_and_grad
def surrogate(log_ratio, advantage):
    return -policy.clipped_surrogate(log_ratio, advantage, 0.2)


figure, axes = plt.subplots(1, 2, figsize=(9, 3))
for axis, advantage in zip(axes, (1.0, -1.0), strict=True):
    gain, slope = surrogate(np.log(ratio), advantage)
    axis.axvspan(0.8, 1.2, color="0.93")
    axis.plot(ratio, advantage * ratio, color="C1", linestyle="--", label="r A")
    axis.plot(ratio, gain, color="C0", linewidth=2, label="clipped: L")
    axis.plot(ratio, slope, color="C2", linestyle=":", linewidth=2, label="weight of the score")
    axis.plot(1, advantage, "o", color="C1")
    axis.set(xlabel="ratio r = π new / π old", title=f"advantage {advantage:+.0f}")
axes[0].legend()
plt.show()

# %% [markdown]
# Everything starts at the dot, where the batch was drawn: there the slope is that of REINFORCE. Where the
# dotted line is 0 this step does not contribute any more. On the *wrong* side (a good action that
# became rarer, a bad one that became likelier) nothing is clipped: mistakes can always be corrected. That is
# the purpose of the minimum; the clipped ratio alone would be flat there too.
#
# ## How far: a divergence
#
# The other way to keep the moves small is a penalty on the distance, $\mathrm{KL}(\pi \| \pi_{ref}) =
# \mathbb{E}_{a\sim\pi}[\log \pi(a) - \log \pi_{ref}(a)]$. From samples, with $d = \log \pi(a) - \log
# \pi_{ref}(a)$, three estimators are in use:
#
# $$k_1 = d, \qquad k_2 = d^2 / 2, \qquad k_3 = e^{-d} - 1 + d.$$
#
# The mean of $k_1$ and $k_3$ *is* the divergence, and $k_3$ is never negative. So it is tempting to use them
# as a loss. But training uses the gradient of a loss, and the mean of a gradient is not the gradient of the
# mean if the distribution of the samples moves. Here are five outcomes, all summed:

# %%
logits = jnp.array([1.0, 0.4, -0.3, -0.8, 0.2])
ref_log_prob = jax.nn.log_softmax(jnp.array([-0.2, 0.5, 0.6, 0.0, -0.4]))


def kl(logits):
    log_p = jax.nn.log_softmax(logits)
    return jnp.exp(log_p) @ (log_p - ref_log_prob)


def other_kl(logits):
    return jnp.exp(ref_log_prob) @ (ref_log_prob - jax.nn.log_softmax(logits))


@partial(jax.jit, static_argnums=0)
def mean_of(estimator):
    """Value and gradient that its samples have in the mean: the weights do not move."""
    p = jax.nn.softmax(logits)
    return jax.value_and_grad(lambda x: p @ estimator(jax.nn.log_softmax(x), ref_log_prob))(logits)


estimators = {
    "k1": lambda new, ref: new - ref,
    "k2": lambda new, ref: (new - ref) ** 2 / 2,
    "k3": lambda new, ref: jnp.expm1(ref - new) - (ref - new),
    "kl_estimate": partial(policy.kl_estimate, axis=None),  # outcomes, not steps of a sequence
}
truth, other = jax.jit(jax.grad(kl))(logits), jax.jit(jax.grad(other_kl))(logits)
found = {name: mean_of(estimator) for name, estimator in estimators.items()}
print(f"KL(π‖ref) = {kl(logits):.4f}, KL(ref‖π) = {other_kl(logits):.4f}")
for name, (mean, gradient) in found.items():
    error = np.linalg.norm(gradient - truth) / np.linalg.norm(truth)
    print(f"{name:12s} value {mean:.4f}, error of the gradient {100 * error:.0f} %")
np.testing.assert_allclose(found["k1"][1], jnp.zeros(5), atol=1e-6)
np.testing.assert_allclose(found["k3"][1], other, atol=1e-6)
np.testing.assert_allclose(found["kl_estimate"][1], truth, atol=1e-6)

figure, axes = plt.subplots(1, 2, figsize=(10, 3))
d = np.linspace(-1.5, 1.5, 200)
for i, name in enumerate(("k1", "k2", "k3")):
    axes[0].plot(d, estimators[name](d, 0.0), color=f"C{i + 1}", label=name)
axes[0].set(xlabel="d = log π(a) - log ref(a)", title="value of one sample, nats")
axes[0].legend()
bars = {"KL(π‖ref)": truth, "KL(ref‖π)": other} | {f"{k} as a loss": found[k][1] for k in found}
bars["kl_estimate"] = bars.pop("kl_estimate as a loss")
colors = ["C0", "0.6", "C1", "C2", "C3", "C4"]
for i, ((name, bar), color) in enumerate(zip(bars.items(), colors, strict=True)):
    axes[1].bar(np.arange(5) + 0.13 * (i - 2.5), bar, 0.13, color=color, label=name)
axes[1].set(xlabel="logit of the outcome", title="mean gradient")
axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# $k_1$ as a loss does *nothing*: its mean gradient is the mean score, 0. $k_3$ as a loss, as GRPO was
# published, has exactly the gradient of the *other* divergence. $k_2$ has the wrong value and the right
# gradient. `policy.kl_estimate` has a value of your choice, k1 or k3, and always the gradient of
# $\mathrm{KL}(\pi\|\pi_{ref})$; off policy it takes the log-weight.
#
# ## CartPole
#
# Now a game that cannot be summed: a pole on a cart, pushed left or right every 0.02 s; each step that it
# stands earns 1, and after 200 the episode is cut. All of it in JAX, so that a training run is one compiled
# program, and `vmap` makes it eight runs.

# %%
HORIZON = 200
EPISODES, SEEDS, BATCHES = (2, 2, 2) if SMOKE else (16, 8, 60)


def push(state, action):
    """The cart-pole of Barto, Sutton and Anderson (1983), 0.02 s later."""
    _, speed, angle, spin = state
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    pull = (20.0 * action - 10.0 + 0.05 * spin**2 * sin) / 1.1
    turn = (9.8 * sin - cos * pull) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
    return state + 0.02 * jnp.stack([speed, pull - 0.05 * turn * cos / 1.1, spin, turn])


def network(layers, state):
    hidden = jnp.tanh(state * jnp.array([0.4, 0.5, 5.0, 0.5]) @ layers["in"] + layers["bias"])
    return hidden @ layers["out"]


def start(key):
    def layers(key):
        normal = jax.random.normal(key, (4, 16)) / 2
        return {"in": normal, "bias": jnp.zeros(16), "out": jnp.zeros(16)}

    return dict(zip(("logit", "value"), map(layers, jax.random.split(key)), strict=True))


def log_prob_of(params, state, action):
    logit = network(params["logit"], state)
    return jax.nn.log_sigmoid(jnp.where(action == 1, logit, -logit))


def value_of(params, state):
    return 50 * network(params["value"], state)


def rollout(params, key):
    """Episodes side by side, each array [EPISODES, HORIZON, ...]; where: before the pole fell."""

    def episode(key):
        def one(carry, uniform):
            state, where = carry
            action = (uniform < jax.nn.sigmoid(network(params["logit"], state))).astype(int)
            after = push(state, action)
            goes_on = where & (jnp.abs(after[0]) < 2.4) & (jnp.abs(after[2]) < 0.2094)
            made = {"state": state, "action": action, "after": after}
            made |= {"where": where, "goes_on": goes_on}
            return (jnp.where(goes_on, after, state), goes_on), made

        first, key = jax.random.split(key)
        state = jax.random.uniform(first, (4,), minval=-0.05, maxval=0.05)
        uniforms = jax.random.uniform(key, (HORIZON,))
        return jax.lax.scan(one, (state, jnp.ones((), bool)), uniforms)[1]

    made = jax.vmap(episode)(jax.random.split(key, EPISODES))
    value, next_value = value_of(params, made["state"]), value_of(params, made["after"])
    old = log_prob_of(params, made["state"], made["action"])
    return made | {"value": value, "next_value": next_value, "old": old}


# %% [markdown]
# The losses, each with one more idea than the one before. First those that use a batch once:


# %%
def to_go_of(b):
    return policy.returns(jnp.ones_like(b["old"]), 1.0, where=b["where"])


def score_loss(params, b, weight):
    new = log_prob_of(params, b["state"], b["action"])
    loss = policy.score_surrogate(new, weight, where=b["where"])
    return policy.reduce(loss, b["where"], "seq-mean-token-sum-norm", length=HORIZON)


def fit(params, b, target):
    error = (value_of(params, b["state"]) - target) / 50
    return policy.reduce(error**2, b["where"])


def reinforce(params, b):
    return score_loss(params, b, jnp.sum(b["where"], axis=1).astype(float))


def reward_to_go(params, b):
    return score_loss(params, b, to_go_of(b))


def with_value(params, b):
    return score_loss(params, b, to_go_of(b) - b["value"]) + fit(params, b, to_go_of(b))


# %% [markdown]
# Then those that use it ten times. All have the same advantages: GAE, on a common scale by `whiten`. Where
# the pole fell the discount is 0; where the time was up it is not, and the critic estimates what would follow.


# %%
def again(surrogate):
    """A loss from a surrogate of log-probability, log-ratio and advantage."""

    def loss(params, b):
        reward, critic = jnp.ones_like(b["old"]), (b["value"], b["next_value"])
        discount = 0.99 * b["goes_on"]
        advantage = policy.gae(reward, discount, *critic, 0.95, where=b["where"])
        new = log_prob_of(params, b["state"], b["action"])
        log_ratio = policy.log_ratio(new, b["old"], where=b["where"])
        each = surrogate(new, log_ratio, policy.whiten(advantage, where=b["where"]))
        return policy.reduce(each, b["where"]) + fit(params, b, advantage + b["value"])

    return loss


def with_penalty(new, log_ratio, advantage):
    moved = policy.kl_estimate(new, new - log_ratio, log_weight=log_ratio, axis=None)
    return policy.weighted_surrogate(new, log_ratio, advantage) + moved


METHODS = {
    "REINFORCE": (1, reinforce),
    "reward-to-go": (1, reward_to_go),
    "with a value": (1, with_value),
    "no ratio": (10, again(lambda new, _, a: policy.score_surrogate(new, a))),
    "ratio": (10, again(policy.weighted_surrogate)),
    "ratio + KL": (10, again(with_penalty)),
    "clipped: PPO": (10, again(lambda _, log_ratio, a: policy.clipped_surrogate(log_ratio, a))),
}
LOSSES = [loss for _, loss in METHODS.values()]


@jax.jit  # one program for all methods: the loss is picked while it runs
@partial(jax.vmap, in_axes=(None, None, 0))
def train(method, updates, key):
    optimizer = optax.adam(0.02)

    def batch(carry, key):
        b = rollout(carry[0], key)

        def update(_, carry):
            gradient = jax.grad(lambda x: jax.lax.switch(method, LOSSES, x, b))(carry[0])
            change, memory = optimizer.update(gradient, carry[1])
            return optax.apply_updates(carry[0], change), memory

        after = jax.lax.fori_loop(0, updates, update, carry)
        new = log_prob_of(after[0], b["state"], b["action"])
        moved = policy.kl_estimate(b["old"], new, where=b["where"])
        stood = jnp.mean(jnp.sum(b["where"], axis=1))
        return after, (stood, policy.reduce(moved, b["where"]), carry[0])

    first, rest = jax.random.split(key)
    params = start(first)
    carry = (params, optimizer.init(params))
    return jax.lax.scan(batch, carry, jax.random.split(rest, BATCHES))[1]


keys = jax.random.split(jax.random.key(0), SEEDS)
runs = {
    name: jax.tree.map(np.asarray, train(i, updates, keys))
    for i, (name, (updates, _)) in enumerate(METHODS.items())
}

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 3.2))
for i, (name, (curve, moved, _)) in enumerate(runs.items()):
    few, color = METHODS[name][0] == 1, f"C{i}"
    axis = axes[0] if few else axes[1]
    low, high = np.quantile(curve, (0.1, 0.9), axis=0)
    axis.fill_between(np.arange(BATCHES), low, high, color=color, alpha=0.15, linewidth=0)
    axis.plot(curve.mean(0), color=color, label=name)
    if not few:
        axes[2].plot(moved.mean(0), color=color)
    last = curve[:, -10:]
    print(
        f"{name:13s} last 10 batches: mean {last.mean():5.1f}, worst {last.min():5.1f}; ",
        end="",
    )
    print(f"moved {moved.mean():.4f} nats a batch")
axes[0].set(title="1 gradient step per batch", ylabel="steps until the pole fell (at most 200)")
axes[1].set(title="10 gradient steps per batch")
axes[2].set(title="KL(old‖new) after a batch (nats)", yscale="log")
for axis in axes:
    axis.set_xlabel("batch of 16 episodes")
for axis in axes[:2]:
    axis.set_ylim(0, 210)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
plt.show()

# %% [markdown]
# Lines are means over the seeds, bands go from the 10th to the 90th percentile. On the left each idea makes
# training more stable. In the middle ten steps per batch learn several times faster, *and* destroy what was
# learned, unless the move is limited: without a limit the steps of one batch move the policy some hundred
# times as far (right panel, and printed). Clip and penalty limit it equally well here, and do not slow it down.
#
# What does it look like? One episode each, of the first seed of PPO: before learning, after five batches, at
# the end. The tilt is drawn four times as large as it is. An episode is over when the pole is tilted by more
# than 12 degrees, or the cart is off the track.

# %%
chosen = [0, min(5, BATCHES - 1), BATCHES - 1]
learned = jax.tree.map(lambda x: x[0, chosen], runs["clipped: PPO"][2])
film = jax.jit(jax.vmap(rollout, (0, None)))(learned, jax.random.key(1))
film = jax.tree.map(np.asarray, film)
frames = [0, 10, 20, 30, 50, 80, 120, 199]
figure, axes = plt.subplots(3, len(frames), figsize=(10, 3.2), sharex=True, sharey=True)
for row, name in enumerate(("before", "5 batches", "at the end")):
    axes[row, 0].set_ylabel(name)
    stood = film["where"][row, 0].sum()
    for axis, t in zip(axes[row], frames, strict=True):
        if t >= stood:
            axis.text(0, 0.6, f"over\nafter {stood}", ha="center", color="0.4")
        for back, alpha in ((6, 0.15), (3, 0.35), (0, 1.0)) if t < stood else ():
            x, _, angle, _ = film["state"][row, 0, max(t - back, 0)]
            tip = (x + 2 * np.sin(4 * angle), 0.2 + np.cos(4 * angle))
            axis.plot([x, tip[0]], [0.2, tip[1]], color="C1", linewidth=2.5, alpha=alpha)
            axis.fill_between([x - 0.4, x + 0.4], 0, 0.2, color="C0", alpha=alpha, linewidth=0)
        axis.set(xlim=(-2.4, 2.4), ylim=(0, 1.4), xticks=[-2, 0, 2], yticks=[])
        axis.grid(visible=False)
for axis, t in zip(axes[0], frames, strict=True):
    axis.set_title(f"step {t}")
axes[2, 0].set_xlabel("cart, m")
plt.show()

# %% [markdown]
# ## Language models: a group instead of a critic
#
# A language model's answer is an episode: its tokens are the actions, and one reward comes at the end. A
# critic of the size of the model is expensive. But the same prompt can be answered several times, and the
# *other* answers estimate what was to be expected: leave-one-out, as in notebook 2. With REINFORCE that is
# **RLOO**. With PPO's clip, the mean of the whole group, and a division by the group's standard deviation it
# is **GRPO**.
#
# A model small enough that everything can be listed: the prompt is a number from 1 to 8, the answer up to
# four digits, 1 or 2, and then the end (0), and it is right if the digits add up to the prompt. The policy is
# a table of logits, by the prompt and the sum so far. There are 31 answers.

# %%
PROMPTS, LENGTH = 8, 4
strings = np.array(list(itertools.product(range(3), repeat=LENGTH)))
ended = np.cumsum(strings == 0, axis=1) > 0
answers = np.unique(np.where(ended, 0, strings), axis=0)  # [31, 4]
there = np.cumsum(answers == 0, axis=1) - (answers == 0) == 0  # up to the first end, and that
sums = np.cumsum(answers, axis=1) - answers
right = (answers.sum(1) == np.arange(1, PROMPTS + 1)[:, None]).astype(np.float32)  # [8, 31]


def token_log_prob(table):
    """Of each token of each answer to each prompt, [8, 31, 4]."""
    return jax.nn.log_softmax(table)[:, sums, answers]


@jax.jit
def answer_log_prob(table):
    return jnp.sum(jnp.where(there, token_log_prob(table), 0), axis=-1)


reference = jax.random.normal(jax.random.key(0), (PROMPTS, 2 * LENGTH + 1, 3)) / 2
chance = (np.exp(answer_log_prob(reference)) * right).sum(1)
print("P(right), by prompt:", chance.round(3))

# %% [markdown]
# ### What the group's deviation does
#
# Rewards are 0 or 1, and the model is right with probability $p$. In a group of $G$ answers the number of
# right ones is binomial, so that the mean of the estimate can be summed. Divided by the true gradient:


# %%
def whitened(reward):
    return policy.whiten(reward, axis=1)


def loo(reward):
    return reward - sf.leave_one_out(reward, axis=1)


p_right = np.linspace(0.01, 0.99, 99)[:, None]


def factor(advantage, group):
    """E[estimate] / gradient of p, for the logit of p: summed over the number that are right."""
    number = np.arange(group + 1)
    reward = (np.arange(group) < number[:, None]).astype(float)  # [G + 1, G]
    score = reward - p_right[..., None]
    estimate = np.mean(np.asarray(advantage(reward)) * score, axis=-1)
    mean = np.sum(binom.pmf(number, group, p_right) * estimate, axis=1, keepdims=True)
    return mean / (p_right * (1 - p_right))


figure, axes = plt.subplots(1, 2, figsize=(10, 3.2))
np.testing.assert_allclose(factor(loo, 4), 1.0, rtol=1e-4)
axes[0].axhline(1, color="C0", label="leave-one-out, any G")
for i, group in enumerate((4, 16, 64)):
    found = factor(whitened, group)
    axes[0].plot(p_right, found, color=f"C{i + 1}", label=f"whitened, G = {group}")
    print(f"G = {group}: {found[49, 0]:.2f} at p = 0.5, {found[0, 0]:.2f} at p = 0.01")
limit = 1 / np.sqrt(p_right * (1 - p_right))
axes[0].plot(p_right, limit, color="0.5", linestyle=":", label="1 / √(p (1 - p))")
axes[0].set(xlabel="p, P(right)", title="E[estimate] / gradient", yscale="log")
axes[0].legend(loc="upper center")

modes = ("seq-mean-token-sum", "seq-mean-token-sum-norm", "token-mean", "seq-mean-token-mean")
two = np.array([[True, False, False, False], [True, True, True, True]])
for i, mode in enumerate(modes):
    mean = partial(policy.reduce, mode=mode, length=LENGTH)
    weight = jax.jit(jax.grad(mean))(np.ones((2, LENGTH)), two)
    axes[1].bar(np.arange(2) + 0.2 * (i - 1.5), weight[:, 0], 0.2, label=mode, color=f"C{i}")
axes[1].set_xticks([0, 1], ["answer of 1 token", "answer of 4 tokens"])
axes[1].set(title="weight of one token, in a batch of the two", ylim=(0, 0.85))
axes[1].legend(loc="upper center", ncols=2)
plt.show()

# %% [markdown]
# Leave-one-out is exact. Divided by the deviation the gradient is too long, most where nearly all answers
# fail or nearly all are right. It is no longer the gradient of $p$ but, in large groups, of
# $2 \arcsin\sqrt{p}$: prompts that the model hardly solves get more weight. That may be what you want; it is
# another objective. A group of equal rewards gives 0 in both: there is nothing to compare.
#
# ### The weight of a long answer
#
# The losses of the tokens have to become one number; the right panel shows the ways to do it. The score of an
# answer is the *sum* of its tokens, and only `seq-mean-token-sum` keeps that (`-norm` up to a constant). The
# others divide by lengths that the policy chooses itself. All pairs of answers to prompt 4, summed:

# %%
pairs = np.array(list(itertools.product(range(len(answers)), repeat=2)))
at = 3  # the prompt 4
p_pair = np.exp(answer_log_prob(reference)[at])[pairs].prod(1)


def mean_of_answers(table, x):
    return jnp.exp(answer_log_prob(table)[at]) @ x


def pair_loss(table, pair, mode):
    reward = jnp.asarray(right)[at, pair]
    loss = policy.score_surrogate(
        token_log_prob(table)[at][pair], reward - sf.leave_one_out(reward)
    )
    return policy.reduce(loss, jnp.asarray(there)[pair], mode, length=LENGTH)


def along(x, y):
    return np.sum(x * y) / np.linalg.norm(x) / np.linalg.norm(y)


truth = jax.grad(mean_of_answers)(reference, right[at])
longer = jax.grad(mean_of_answers)(reference, there.sum(1).astype(np.float32))
truth, longer = np.asarray(truth), np.asarray(longer)
for mode in modes:
    each = jax.vmap(jax.grad(partial(pair_loss, mode=mode)), (None, 0))
    mean = -np.tensordot(p_pair, jax.jit(each)(reference, pairs), 1)
    angle = np.degrees(np.arccos(min(along(mean, truth), 1.0)))
    extra = along(mean, longer) / along(truth, longer)
    print(
        f"{mode:24s} angle to the gradient {angle:4.1f}°, change of the length relative to the gradient {extra:.2f}"
    )
    if mode == modes[0]:
        np.testing.assert_allclose(mean, truth, atol=1e-6)

# %% [markdown]
# A mean for each answer turns the gradient by some 20 degrees, and here it lengthens answers more than the
# reward asks for: each token of a long wrong answer is penalized less than that of a short one.
#
# ### RLOO and GRPO, exactly
#
# Fine-tuning keeps the model near the reference: the objective is $\mathbb{E}[\text{reward}] - \beta\,
# \mathrm{KL}(\pi\|\pi_{ref})$. Here it is a sum, and so is the best that any policy can reach, $\beta \log
# \mathbb{E}_{ref}[e^{r/\beta}]$. In a sequence each token also decides which tokens come next: `kl_estimate`
# counts that. A recipe is an advantage, a clip, a mean and a divergence. With one step a batch
# the ratio is 1 and the clip does nothing: that is RLOO.

# %%
GROUP, BETA = 8, 0.1
ref = answer_log_prob(reference)


def whole_kl(new, b):
    log_weight = policy.log_ratio(new, b["old"], "prefix", b["where"])
    each = policy.kl_estimate(new, b["ref"], log_weight=log_weight, where=b["where"])
    return policy.reduce(each, b["where"], "seq-mean-token-sum")


def k3_as_a_loss(new, b):
    return policy.reduce(estimators["k3"](new, b["ref"]), b["where"], "seq-mean-token-mean")


def recipe(advantage, mode, divergence):
    def loss(new, b):
        log_ratio = policy.log_ratio(new, b["old"], where=b["where"])
        each = policy.clipped_surrogate(log_ratio, advantage(b["reward"]), where=b["where"])
        return policy.reduce(each, b["where"], mode) + BETA * divergence(new, b)

    return loss


RECIPES = {
    "RLOO, 1 step": (1, recipe(loo, "seq-mean-token-sum", whole_kl)),
    "RLOO, 4 steps": (4, recipe(loo, "seq-mean-token-sum", whole_kl)),
    "GRPO, kl_estimate": (4, recipe(whitened, "seq-mean-token-mean", whole_kl)),
    "GRPO, k3 as a loss": (4, recipe(whitened, "seq-mean-token-mean", k3_as_a_loss)),
}


def reached(log_prob):
    """Expected reward and divergence of a policy, exactly, from its log-probabilities [8, 31]."""
    p = jnp.exp(log_prob)
    return jnp.mean(jnp.sum(p * right, 1)), jnp.mean(jnp.sum(p * (log_prob - ref), 1))


@jax.jit
@partial(jax.vmap, in_axes=(None, None, 0))
def fine_tune(recipe, updates, key):
    optimizer, prompts = optax.adam(0.05), jnp.arange(PROMPTS)[:, None]

    def batch(carry, key):
        # A language model draws token by token; here the list is short.
        logits = answer_log_prob(carry[0])[:, None]
        drawn = jax.random.categorical(key, logits, shape=(PROMPTS, GROUP))
        b = {"where": jnp.asarray(there)[drawn], "reward": jnp.asarray(right)[prompts, drawn]}
        b |= {"old": token_log_prob(carry[0])[prompts, drawn]}
        b |= {"ref": token_log_prob(reference)[prompts, drawn]}

        def loss(table):
            losses = [loss for _, loss in RECIPES.values()]
            return jax.lax.switch(recipe, losses, token_log_prob(table)[prompts, drawn], b)

        def update(_, carry):
            change, memory = optimizer.update(jax.grad(loss)(carry[0]), carry[1])
            return optax.apply_updates(carry[0], change), memory

        carry = jax.lax.fori_loop(0, updates, update, carry)
        return carry, reached(answer_log_prob(carry[0]))

    steps = jax.random.split(key, 3 if SMOKE else 300)
    return jax.lax.scan(batch, (reference, optimizer.init(reference)), steps)[1]


@jax.jit
@jax.vmap
def best(beta):
    """Of all policies: the reference, times exp(reward / beta)."""
    return reached(jax.nn.log_softmax(ref + right / beta))


keys = jax.random.split(jax.random.key(1), SEEDS)
limit = np.mean(BETA * jax.nn.logsumexp(ref + right / BETA, axis=1))
top_reward, top_kl = best(np.array([BETA]))
np.testing.assert_allclose(top_reward - BETA * top_kl, limit, rtol=1e-4)

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
front_reward, front_kl = best(np.geomspace(0.06, 5.0, 60))
axes[1].plot(front_kl, front_reward, color="0.5", linestyle=":", label="best of all policies")
axes[1].plot(top_kl, top_reward, "o", color="0.3")
axes[0].axhline(limit, color="0.5", linestyle=":", label=f"best: {limit:.3f}")
for i, (name, (updates, _)) in enumerate(RECIPES.items()):
    reward_now, kl_now = map(np.asarray, fine_tune(i, updates, keys))
    objective = reward_now - BETA * kl_now
    batches, low, high = 1 + np.arange(objective.shape[1]), objective.min(0), objective.max(0)
    axes[0].fill_between(batches, low, high, color=f"C{i}", alpha=0.2, linewidth=0)
    axes[0].plot(batches, objective.mean(0), color=f"C{i}", label=name)
    axes[1].plot(kl_now.mean(0), reward_now.mean(0), color=f"C{i}")
    print(f"{name:19s} objective at the end {objective[:, -1].mean():.3f}")
axes[0].set(xlabel="batch of 8 × 8 answers", title="objective, exact", xscale="log")
axes[1].set(xlabel="KL(π‖ref), nats", ylabel="expected reward", title="reward against divergence")
axes[0].legend()
axes[1].legend(loc="lower right")
plt.show()

# %% [markdown]
# On the right, no policy is above the dotted line, and the dot is the best for this $\beta$. RLOO with one
# step a batch is slow. With PPO's clip and four steps a batch it is several times faster, and ends at the
# same objective. GRPO with the right divergence comes close here; with $k_3$ as a loss it stays behind, at
# less reward for the same divergence. That is bias: no number of batches removes it.
#
# Other papers' losses are other choices of the same parts: [docs/policy.md](../docs/policy.md) has twelve,
# two to five lines each.
#
# ## Exercises
#
# 1. "The past is noise": in the walk, what are mean and variance of the terms that reward-to-go leaves out?
# 2. The ratio is 10 and the advantage -1: what weight has the score in `clipped_surrogate`? What does
#    `dual_clip=3.0` change? And why would one want it?
# 3. The five outcomes are drawn from a uniform policy instead of $\pi$. Show that `kl_estimate` needs
#    `log_weight`, and that its gradient is exact with it.
# 4. `policy.vtrace` is GAE with truncated ratios, for actors and learners far apart. Check that it is the
#    advantage of this notebook where the ratio is 1. How large can it become where the ratio is 100?
#
# ## Solutions
#
# **1.** Their weight is what was earned before the step. The mean is 0, and the variance is as large as all
# that reward-to-go has.

# %%
past = weights["whole return"] - to_go
mean, variance = mean_and_variance(p, gradients(policy.score_surrogate, theta, past))
print(f"largest mean {np.abs(mean).max():.1e}, variance {variance:.1f}")
np.testing.assert_allclose(mean, 0.0, atol=1e-5)

# %% [markdown]
# **2.** 10: on the wrong side nothing is clipped, and one action that became much more likely by accident
# dominates the batch. The dual clip limits that; in return such an action is not corrected beyond the limit.

# %%
for dual_clip in (None, 3.0):
    clipped = partial(policy.clipped_surrogate, advantage=-1.0, dual_clip=dual_clip)
    slope = jax.grad(clipped)(np.log(10.0))
    print(f"dual_clip {dual_clip}: weight {abs(slope):.1f}")

# %% [markdown]
# **3.** The weight is the probability of the outcome under $\pi$, divided by that under the policy that drew
# it.

# %%
log_old_5 = jnp.full(5, jnp.log(1 / 5))


def uniform_mean(logits, *, weighted):
    new = jax.nn.log_softmax(logits)
    weight = policy.log_ratio(new, log_old_5) if weighted else 0.0
    return jnp.mean(policy.kl_estimate(new, ref_log_prob, log_weight=weight, axis=None))


truth = jax.jit(jax.grad(kl))(logits)
for weighted in (False, True):
    gradient = jax.jit(jax.grad(partial(uniform_mean, weighted=weighted)))(logits)
    error = np.linalg.norm(gradient - truth) / np.linalg.norm(truth)
    print(f"log_weight: {weighted!s:5s} error of the gradient {100 * error:.0f} %")
np.testing.assert_allclose(gradient, truth, atol=1e-6)

# %% [markdown]
# **4.** As large as at a ratio of 1: all weights are at most 1, unless `clip_pg_rho` allows more.

# %%
for log_rho in (0.0, np.log(100.0)):
    judged = policy.vtrace(reward, 1.0, value, next_value, log_rho)
    print(f"ratio {np.exp(log_rho):.0f}: largest {np.abs(judged.pg_advantage).max():.2f}")
    if log_rho == 0.0:
        np.testing.assert_allclose(judged.pg_advantage, to_go - value, atol=1e-5)
