# %% [markdown]
# # 1. The log-derivative trick
#
# An action is sampled, a reward comes back, and "gradient = reward × grad log π(action)". This notebook
# says where that comes from, line by line; checks it by adding up all actions, and by simulation; and
# shows what each factor does to a policy that learns.
#
# [All notebooks](README.md) · next: [2. REINFORCE and baselines](02_reinforce_and_baselines.ipynb)

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
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import scorefn as sf

if os.path.exists("notebook.mplstyle"):  # not on Colab
    plt.style.use("notebook.mplstyle")
SMOKE = "SCOREFN_SMOKE" in os.environ  # set by the tests: fewer samples

# %% [markdown]
# ## Sampling blocks the gradient
#
# Three actions. A policy gives action $a$ the probability $\pi_\theta(a)$, the softmax of three numbers
# $\theta$, the *logits*. Each action has a reward. The goal is to raise the expected reward
#
# $$J(\theta) = \mathbb{E}_{a \sim \pi_\theta}[r(a)] = \sum_a \pi_\theta(a)\, r(a).$$

# %%
reward = jnp.array([1.0, 3.0, 0.5])
theta = jnp.array([0.5, -0.2, 0.1])


def sampled_reward(theta, key):
    action = jax.random.categorical(key, theta)
    return reward[action]


gradient = jax.grad(sampled_reward)(theta, jax.random.key(0))
print("gradient through the sampled action:", gradient)

# %% [markdown]
# Zero, for every key. This is not a bug of JAX: an action is a whole number, and a small change of $\theta$
# leaves it where it is, or makes it jump. The derivative of the *sampled* reward is 0 nearly everywhere.
# What depends smoothly on $\theta$ is how *often* each action comes, and one sample does not show that.
#
# If the sum over all actions can be written down, there is no problem. This is the answer that everything
# below is measured against:


# %%
def expected_reward(theta):
    return jnp.sum(jax.nn.softmax(theta) * reward)


exact = jax.grad(expected_reward)(theta)
print("exact gradient:", exact)

# %% [markdown]
# ## The identity, line by line
#
# With a billion actions, or a real number as the action, there is no adding up; there are only samples. So the
# gradient has to become an *expectation* itself:
#
# $$
# \begin{aligned}
# \nabla J &= \nabla \sum_a \pi(a)\, r(a)
#   && \text{what an expectation is} \\
# &= \sum_a r(a)\, \nabla \pi(a)
#   && \text{a sum is differentiated term by term; } r \text{ does not know } \theta \\
# &= \sum_a r(a)\, \pi(a)\, \frac{\nabla \pi(a)}{\pi(a)}
#   && \text{times } \pi(a) \text{, divided by } \pi(a) \\
# &= \sum_a \pi(a)\, \big[ r(a)\, \nabla \log \pi(a) \big]
#   && \text{because } \nabla \log u = \nabla u / u \\
# &= \mathbb{E}_{a \sim \pi}\big[ r(a)\, \nabla \log \pi(a) \big]
#   && \text{an expectation again: sample it}
# \end{aligned}
# $$
#
# The step in the middle is the whole trick: $\nabla \pi = \pi \nabla \log \pi$. The last line needs only
# what we have: an action, its reward, and the derivative of its log-probability, called the *score*.
# There is no condition on $r$. It may jump, or be the result of a game that runs elsewhere.
#
# Is it true? Add up all three actions:

# %%
probability = jax.nn.softmax(theta)
score = jax.vmap(jax.grad(lambda theta, a: jax.nn.log_softmax(theta)[a]), (None, 0))(
    theta, jnp.arange(3)
)
terms = probability[:, None] * reward[:, None] * score
print("sum over all actions:", terms.sum(0))
print("exact gradient:      ", exact)
np.testing.assert_allclose(terms.sum(0), exact, rtol=1e-5)

# %% [markdown]
# ## What each factor means
#
# The score of a softmax has a simple form: 1 for the action that was taken, minus the probabilities,
#
# $$\frac{\partial \log \pi(a)}{\partial \theta_j} = [a = j] - \pi(j).$$
#
# A step along it makes *this* action more likely and all others less. The reward says how far to step.
# The probability is not written into the program anywhere: likely actions are sampled more often.

# %%
figure, axes = plt.subplots(1, 4, figsize=(10, 2.6), sharey=True)
names = ["A", "B", "C"]
for a in range(3):
    push = reward[a] * score[a]
    axes[a].bar(names, push, color=["C2" if x > 0 else "C1" for x in push])
    axes[a].set_title(f"take {names[a]}: reward {reward[a]:.1f}, π = {probability[a]:.2f}")
axes[3].bar(names, exact, color="C0")
axes[3].set_title("weighted by π and summed:\nthe gradient of J")
axes[0].set_ylabel("push on the logit (reward × score)")
for axis in axes:
    axis.axhline(0, color="0.4", linewidth=0.8)
plt.show()

# %% [markdown]
# Every reward here is positive, so every action that is taken is pushed *up*: A and C as well, though they
# are worse than the mean. The average corrects this: B is pushed up harder, and when the three are weighted
# and summed, only B goes up.
#
# A reward below zero would push its action down. But the sign of a single reward means nothing: adding 10
# to all rewards changes none of the averages, because the score has mean 0,
#
# $$\mathbb{E}[\nabla \log \pi(a)] = \sum_a \pi(a) \frac{\nabla \pi(a)}{\pi(a)} = \nabla \sum_a \pi(a) =
# \nabla 1 = 0.$$

# %%
shifted = probability[:, None] * (reward + 10.0)[:, None] * score
print("mean score:             ", (probability[:, None] * score).sum(0).round(6) + 0.0)
print("gradient, rewards + 10: ", shifted.sum(0))

# %% [markdown]
# ## By simulation
#
# One sampled action gives one estimate, $r(a)\,\nabla\log\pi(a)$: one of the three colored pictures above,
# none of which is the gradient. Their *mean* is. Its error falls like $1/\sqrt{n}$, and at any one $n$ it
# nearly always lies in the shaded band.

# %%
n = 300 if SMOKE else 30_000
actions = jax.random.categorical(jax.random.key(1), theta, shape=(n,))
estimates = reward[actions, None] * score[actions]
count = np.arange(1, n + 1)
running = np.cumsum(np.asarray(estimates), 0) / count[:, None]
second_moment = (probability[:, None] * (reward[:, None] * score) ** 2).sum(0)
deviation = np.sqrt(second_moment - exact**2)

figure, axis = plt.subplots(figsize=(7, 3.2))
for j in range(3):
    color = f"C{j + 1}"
    axis.plot(count, running[:, j], color=color, label=f"logit of {names[j]}")
    band = 2 * deviation[j] / np.sqrt(count)
    axis.fill_between(count, exact[j] - band, exact[j] + band, color=color, alpha=0.15, linewidth=0)
    axis.axhline(exact[j], color=color, linestyle="--", linewidth=0.8)
axis.set(xscale="log", ylim=(-1.5, 1.5), xlabel="samples", ylabel="mean of the estimates")
axis.set_title("the mean of the estimates; dashed: exact; shaded: ± 2 standard errors")
axis.legend()
plt.show()

# %% [markdown]
# ## The same in one call
#
# `sf.expectation` is an expectation that can be differentiated. Its value is the plain mean over the
# samples; its derivative is the estimate that you choose. `ScoreFunction()` is the trick of this notebook.
# (It compares each sample with the others, which is the subject of the next one; here that is turned off.)


# %%
def loss(theta, key, num_samples):
    policy = sf.Categorical(theta)
    estimator = sf.ScoreFunction(sf.ConstantBaseline(0.0))
    return sf.expectation(lambda a: reward[a], policy, key, estimator, num_samples=num_samples)


value, gradient = jax.value_and_grad(loss)(theta, jax.random.key(2), n)
print(f"value {value:.3f}, exact {expected_reward(theta):.3f}")
print("gradient", gradient)
print("exact   ", exact)

# %% [markdown]
# Nothing else in your program changes: `jax.jit`, `jax.vmap` and `jax.grad` of it all work. Gradients that
# would be silently wrong raise an error. The derivative *through* a sampled action, which was 0 above:

# %%
try:
    jax.grad(
        lambda theta: sf.expectation(
            lambda a: reward[a], sf.Categorical(theta), jax.random.key(0), sf.Pathwise()
        )
    )(theta)
except TypeError as error:
    print(error)

# %% [markdown]
# ## A policy that learns
#
# Now the loop that all of reinforcement learning is made of: take an action, see its reward, step along
# reward × score. First slowly, one step a picture. The bars are probabilities, before the step; the arrows
# are the pushes on the logits, which move a probability the less the nearer it is to 0 or 1.


# %%
def step(theta, key, rate, offset=0.0):
    action = jax.random.categorical(key, theta)
    push = (reward[action] + offset) * jax.grad(lambda theta: jax.nn.log_softmax(theta)[action])(
        theta
    )
    return theta + rate * push, (action, push)


figure, axes = plt.subplots(2, 4, figsize=(10, 4.4), sharey=True)
now, keys = jnp.zeros(3), jax.random.split(jax.random.key(6), 8)
for axis, key in zip(axes.flat, keys, strict=True):
    before = jax.nn.softmax(now)
    now, (action, push) = step(now, key, 0.4)
    colors = ["C2" if i == action else "0.75" for i in range(3)]
    axis.bar(names, before, color=colors)
    for j in range(3):
        tip = (j, before[j] + 0.12 * push[j])
        axis.annotate("", tip, (j, before[j]), arrowprops={"arrowstyle": "->", "color": "C1"})
    axis.set_title(f"took {names[action]}, reward {reward[action]:.1f}")
    axis.set_ylim(0, 1)
for axis in axes[:, 0]:
    axis.set_ylabel("probability")
plt.show()

# %% [markdown]
# All rewards are positive, so any action that is taken goes up, good or bad. It takes many of them until the
# best one has been pushed up more. Below are thirty policies, each with its own random draws, and the path
# of exact gradient ascent; first with these rewards, then with 10 added to all of them. That changes no
# average, as we saw:

# %%
steps, runs = (30, 5) if SMOKE else (400, 30)


@jax.jit
def train(key, offset):
    def one(theta, key):
        theta, _ = step(theta, key, 0.05, offset)
        return theta, jax.nn.softmax(theta)

    return jax.lax.scan(one, jnp.zeros(3), jax.random.split(key, steps))[1]


@jax.jit
def ascend(theta):
    def one(theta, _):
        theta = theta + 0.05 * jax.grad(expected_reward)(theta)
        return theta, jax.nn.softmax(theta)

    return jax.lax.scan(one, theta, length=steps)[1]


exact_path = ascend(jnp.zeros(3))
figure, axes = plt.subplots(2, 3, figsize=(10, 4.6), sharex=True, sharey=True)
for row, offset in zip(axes, [0.0, 10.0], strict=True):
    keys = jax.random.split(jax.random.key(4), runs)
    paths = jax.vmap(train, (0, None))(keys, offset)
    for a, axis in enumerate(row):
        axis.plot(paths[:, :, a].T, color="C2", linewidth=0.5, alpha=0.5)
        axis.plot(exact_path[:, a], color="C0", linewidth=2, label="exact gradient")
        axis.set(title=f"action {names[a]}, reward {reward[a] + offset:.1f}", ylim=(0, 1))
    row[0].set_ylabel("probability")
    best = np.mean(paths[:, -1, 1] > 0.9)
    print(
        f"rewards + {offset:.0f}: B, the best action, is above 90 % at the end of {best:.0%} of the runs"
    )
for axis in axes[1]:
    axis.set_xlabel("step")
axes[0, 0].legend()
plt.show()

# %% [markdown]
# Above, the runs scatter around the exact path. Below, the gradient is the same *in the mean*, and many runs
# end at the wrong action for good: it was taken first, pushed up by 11, and then nearly always taken again.
# The price of seeing one sample at a time is *variance*, and a number that is added to all rewards changes
# it by a large factor. Which number is best is the subject of the next notebook.
#
# ## Actions that are numbers
#
# Nothing in the derivation needs a sum. With a density $p_\theta(x)$ the sum is an integral, and the rest
# stays. For a Gaussian of mean $\mu$ and deviation 1 the score is $\nabla_\mu \log p(x) = x - \mu$: draws
# above the mean with a high reward pull the mean up. You bring the log-density and a sampler; the reward
# below has a jump, and no derivative that would help.


# %%
def jump(x):
    return jnp.where(x > 1.0, 1.0, 0.0)


def log_prob(mean, x):
    return -((x - mean) ** 2) / 2 - jnp.log(2 * jnp.pi) / 2


def sample(mean, key):
    return mean + jax.random.normal(key)


estimator = sf.ScoreFunction(sf.ConstantBaseline(0.0))
objective = sf.differentiable(jump, log_prob, sample, estimator, num_samples=n)
found = jax.jit(jax.grad(objective))(0.0, jax.random.key(5))
truth = jax.scipy.stats.norm.pdf(1.0)  # P(x > 1) = Phi(mean - 1)
tail = jax.scipy.stats.norm.sf(1.0)
error = jnp.sqrt((truth + tail - truth**2) / n)  # E[x^2; x > 1] = pdf(1) + P(x > 1)
print(f"estimate {found:.4f} ± {error:.4f}, exact {truth:.4f}")
assert abs(found - truth) < 5 * error

# %%
x = jnp.linspace(-3.5, 3.5, 400)
figure, axis = plt.subplots(figsize=(7, 3))
density = jnp.exp(log_prob(0.0, x))
axis.plot(x, density, color="C0", label="density p(x)")
axis.plot(x, jump(x), color="C3", label="reward")
axis.plot(x, x, color="C1", linestyle="--", label="score x - μ")
axis.fill_between(x, 0, density * jump(x) * x, color="C2", alpha=0.4, label="p × reward × score")
axis.set(
    xlabel="x", ylim=(-1.2, 1.6), title="the shaded area is the derivative of E[reward] along μ"
)
axis.legend(loc="upper left")
plt.show()

# %% [markdown]
# ## Exercises
#
# 1. The policy is a coin: $\pi(1) = \sigma(\theta)$. Write down the score of 0 and of 1, and check with
#    `jax.grad` at $\theta = 0.3$.
# 2. The log-derivative trick can be used twice. Which expectation is the *second* derivative of $J$? Compare
#    the sum over all actions with `jax.hessian(expected_reward)`.
# 3. A reward that depends on the policy: add the entropy bonus $-\log \pi_\theta(a)$ to the reward. Does the
#    derivative of the bonus itself matter? Compare both by adding up all actions.
#
# ## Solutions
#
# **1.** $\log\sigma(\theta)$ has the derivative $1 - \sigma(\theta)$, and $\log(1 - \sigma(\theta))$ has
# $-\sigma(\theta)$: what was drawn, minus its mean.

# %%
theta_coin = 0.3
mean = jax.nn.sigmoid(theta_coin)
for bit in (0.0, 1.0):
    found = jax.grad(lambda theta, bit=bit: sf.Bernoulli(theta).log_prob(bit))(theta_coin)
    print(f"bit {bit:.0f}: jax.grad {found:.4f}, by hand {bit - mean:.4f}")
    np.testing.assert_allclose(found, bit - mean, rtol=1e-5)

# %% [markdown]
# **2.** Differentiate $\sum_a \pi r \nabla\log\pi$ once more, by the same trick: $\nabla^2 J =
# \mathbb{E}\big[r\,(\nabla\log\pi\,\nabla\log\pi^\top + \nabla^2\log\pi)\big]$.

# %%
curvature = jax.vmap(jax.hessian(lambda theta, a: jax.nn.log_softmax(theta)[a]), (None, 0))(
    theta, jnp.arange(3)
)
outer = score[:, :, None] * score[:, None, :]
second = jnp.sum((probability * reward)[:, None, None] * (outer + curvature), 0)
np.testing.assert_allclose(second, jax.hessian(expected_reward)(theta), rtol=1e-4, atol=1e-6)
print(second)

# %% [markdown]
# `jax.hessian` of `sf.expectation` is the same trick, applied as often as you differentiate. With `Enumerate`,
# which adds all actions up, it is exact:

# %%
by_library = jax.hessian(
    lambda theta: sf.expectation(
        lambda a: reward[a], sf.Categorical(theta), jax.random.key(0), sf.Enumerate()
    )
)
np.testing.assert_allclose(by_library(theta), second, rtol=1e-4, atol=1e-6)

# %% [markdown]
# **3.** $\nabla \mathbb{E}[-\log\pi] = \mathbb{E}[-\log\pi\,\nabla\log\pi] + \mathbb{E}[-\nabla\log\pi]$, and
# the second term is the mean score: 0. In the mean it does not matter; for a reward that knows $\theta$ in
# another way it does, and `sf.expectation` keeps it.

# %%
bonus = -jnp.log(probability)
without = jnp.sum((probability * bonus)[:, None] * score, 0)


def entropy(theta):
    return -jnp.sum(jax.nn.softmax(theta) * jax.nn.log_softmax(theta))


print("reward part alone:", without)
print("exact gradient:   ", jax.grad(entropy)(theta))
np.testing.assert_allclose(without, jax.grad(entropy)(theta), rtol=1e-4, atol=1e-6)
