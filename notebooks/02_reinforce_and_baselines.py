# %% [markdown]
# # 2. REINFORCE and baselines
#
# REINFORCE in ten lines, and why it hardly learns: its *variance*. Subtracting one number from the cost
# reduces it, for free. This notebook shows which number is best, where to get it from, and what goes wrong
# if it depends on the sample that it is subtracted from. Everything is checked by adding up all draws.
#
# [All notebooks](README.md) · previous: [1. The log-derivative trick](01_log_derivative_trick.ipynb) ·
# next: [3. Three gradients](03_three_gradients.ipynb)

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
import math
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import scorefn as sf
from scorefn import policy

if os.path.exists("notebook.mplstyle"):  # not on Colab
    plt.style.use("notebook.mplstyle")
SMOKE = "SCOREFN_SMOKE" in os.environ  # set by the tests: fewer samples

# %% [markdown]
# ## REINFORCE in ten lines
#
# Four routes to work, and how many minutes each takes. A policy picks one of them every morning, by the
# softmax of four logits; it should learn to pick the fastest. This time the number is a cost, so the step
# goes down: minus cost × score.

# %%
minutes = jnp.array([31.0, 28.0, 34.0, 40.0])


def reinforce(logits, key, baseline):
    route = jax.random.categorical(key, logits)
    score = jax.grad(lambda logits: jax.nn.log_softmax(logits)[route])(logits)
    return (minutes[route] - baseline) * score


def train(baseline, keys):
    def step(logits, key):
        logits = logits - 0.03 * reinforce(logits, key, baseline)
        return logits, jax.nn.softmax(logits) @ minutes

    return jax.lax.scan(step, jnp.zeros(4), keys)[1]


# %% [markdown]
# There is one more argument than in notebook 1: a number, the *baseline*, is subtracted from the minutes.
# Is that allowed? The score has mean 0, so a constant times the score has mean 0 too:
#
# $$\mathbb{E}\big[(f(x) - c)\,\nabla\log p(x)\big] = \mathbb{E}\big[f(x)\,\nabla\log p(x)\big] -
# c\,\mathbb{E}[\nabla\log p(x)] = \nabla\,\mathbb{E}[f(x)].$$
#
# It does not change the mean, for any $c$. It does change the variance: below, a hundred commuters learn
# without a baseline, and a hundred with $c = 33$:

# %%
steps, runs = (40, 8) if SMOKE else (400, 100)
keys = jax.random.split(jax.random.key(0), (runs, steps))


def draw_band(axis, curves, color, label):
    low, middle, high = np.percentile(curves, [10, 50, 90], axis=0)
    axis.plot(middle, color=color, label=label)
    axis.fill_between(np.arange(len(middle)), low, high, color=color, alpha=0.2, linewidth=0)


curves = jax.jit(jax.vmap(jax.vmap(train, (None, 0)), (0, None)))(jnp.array([0.0, 33.0]), keys)
figure, axis = plt.subplots(figsize=(7, 3.2))
draw_band(axis, curves[0], "C1", "no baseline")
draw_band(axis, curves[1], "C2", "baseline 33")
axis.axhline(28.0, color="0.4", linestyle="--", linewidth=0.8)
axis.set(xlabel="morning", ylabel="expected minutes", ylim=(27.5, 44))
axis.set_title("one sample a morning: median and 10 to 90 % of the runs")
axis.legend(ncols=2, loc="upper right")
plt.show()
print("minutes at the end, median and 90 %:")
for name, end in zip(["no baseline", "baseline 33"], curves[:, :, -1], strict=True):
    print(f"  {name:12s} {np.median(end):.1f}  {np.percentile(end, 90):.1f}")

# %% [markdown]
# Without a baseline every route is pushed *down* by some 30 when it is taken, the best one by a little less.
# The differences that matter, 3 or 6 minutes, drown in a number that all routes have in common.
#
# ## The variance is a parabola
#
# With four routes the variance of one estimate, summed over its four components, can be written down:
#
# $$V(c) = \sum_a \pi(a)\,(f(a) - c)^2\,\lVert s(a)\rVert^2 - \lVert\nabla J\rVert^2, \qquad s =
# \nabla\log\pi.$$
#
# It is a parabola in $c$, least where its derivative is 0:
#
# $$c^\ast = \frac{\mathbb{E}[f\,\lVert s\rVert^2]}{\mathbb{E}[\lVert s\rVert^2]}.$$
#
# This is *not* the mean cost, but a mean in which draws with a long score count more: those that push hard.

# %%
logits = jnp.array([0.5, -1.0, 0.0, 0.5])
probability = jax.nn.softmax(logits)
score = jnp.eye(4) - probability  # row a: the score of route a
exact = probability @ (minutes[:, None] * score)
square = jnp.sum(score**2, 1)
optimal = (probability * square) @ minutes / (probability @ square)
mean = probability @ minutes


def variance_with(c):
    return (probability * square) @ (minutes - c) ** 2 - exact @ exact


def loss(logits, baseline, key, num_samples=1):
    def cost(route):
        return minutes[route], minutes[route]  # the second comes back for every sample

    routes, estimator = sf.Categorical(logits), sf.ScoreFunction(baseline)
    return sf.expectation(cost, routes, key, estimator, num_samples=num_samples, has_aux=True)


def gradient(baseline, key, num_samples=1):
    return jax.grad(loss, has_aux=True)(logits, baseline, key, num_samples)[0]


repeats = 500 if SMOKE else 10_000


@jax.jit
def measured_variance(c):
    keys = jax.random.split(jax.random.key(1), repeats)
    return sf.moments(lambda key: gradient(sf.ConstantBaseline(c), key), keys)[1].sum()


c = jnp.linspace(0.0, 60.0, 121)
points = jnp.linspace(0.0, 60.0, 9)
figure, axis = plt.subplots(figsize=(7, 3.2))
axis.plot(c, jax.vmap(variance_with)(c), color="C0", label="exact")
axis.plot(points, jax.lax.map(measured_variance, points), "o", color="C2", label="measured")
axis.axvline(mean, color="C4", linestyle="--", label=f"mean cost {mean:.2f}")
axis.axvline(optimal, color="C1", label=f"optimal {optimal:.2f}")
axis.set(xlabel="baseline c, minutes", ylabel="variance of one gradient, minutes²", ylim=(0, None))
axis.legend()
plt.show()
for name, value in {"no baseline": 0.0, "mean cost": mean, "optimal": optimal}.items():
    print(f"{name:12s} c = {value:5.2f}   variance {variance_with(value):7.2f}")
print(f"squared length of the gradient itself: {exact @ exact:.2f}")

# %% [markdown]
# The mean cost is nearly as good as the optimum, and so would be 30 or 36. That is why people use the mean
# cost: it is easy to get. Three ways to get it follow.
#
# ## A running mean of the costs: `MovingAverage`
#
# The average of the costs of earlier steps. In JAX nothing keeps state, so a baseline is a value:
# it is carried through the loop next to the parameters, used, and *then* updated. All baselines have
# `update` (for most it does nothing), so one training loop serves all of them.


# %%
def train_with(baseline, keys, num_samples):
    def step(state, key):
        logits, baseline = state
        gradient, costs = jax.grad(loss, has_aux=True)(logits, baseline, key, num_samples)
        baseline = baseline.update(costs)  # after it was used
        return (logits - 0.03 * gradient, baseline), jax.nn.softmax(logits) @ minutes

    (_, baseline), curve = jax.lax.scan(step, (jnp.zeros(4), baseline), keys)
    return curve, baseline


mornings = 30 if SMOKE else 120
keys = jax.random.split(jax.random.key(4), (runs, mornings))
many = jax.jit(jax.vmap(train_with, (None, 0, None)), static_argnums=2)
average, remembered = many(sf.MovingAverage(0.9), keys, 4)
print(f"the first run, after {mornings} mornings of four samples:")
print(f"expected minutes {average[0, -1]:.2f}")
last = jax.tree.map(lambda leaf: leaf[0], remembered)
print(f"the baseline     {last(jnp.zeros(1))[0]:.2f}")

# %% [markdown]
# ## A baseline from the other samples: `LeaveOneOut`
#
# If one step may take $K$ samples, they can be each other's baseline: of each cost the mean of the *other*
# $K - 1$ is subtracted. No state, no tuning, and it follows the policy at once. It is the default of
# `ScoreFunction()`. For the $K$ costs $f_k$ and scores $s_k$ it is the same as
#
# $$\frac1K \sum_k \Big(f_k - \frac{1}{K-1}\sum_{j \ne k} f_j\Big) s_k = \frac{1}{K-1} \sum_k (f_k - \bar
# f)(s_k - \bar s),$$
#
# the sample covariance of cost and score. It has to be: $\nabla J = \mathbb{E}[f s] = \operatorname{Cov}(f,
# s)$, because $\mathbb{E}[s] = 0$.


# %%
def with_routes(logits, key):
    def cost(route):
        return minutes[route], (minutes[route], route)

    choice = sf.Categorical(logits)
    return sf.expectation(cost, choice, key, sf.ScoreFunction(), num_samples=6, has_aux=True)


with_gradient = jax.jit(jax.value_and_grad(with_routes, has_aux=True))
(value, (costs, routes)), found = with_gradient(logits, jax.random.key(2))
covariance = [np.cov(costs, score[routes, j], ddof=1)[0, 1] for j in range(4)]
print("costs            ", costs)
print("their baselines  ", sf.leave_one_out(costs))
print("gradient         ", np.asarray(found).round(4))
print("sample covariance", np.round(covariance, 4))
np.testing.assert_allclose(found, covariance, rtol=1e-4, atol=1e-4)
assert value == jnp.mean(costs)  # not one bit is different
print(f"value {value:.4f} = mean of the costs, bit for bit")

# %% [markdown]
# The value is untouched: you can print the loss and believe it. The baseline changes only the derivative.
#
# The hundred commuters again, each with four samples a morning (say, four colleagues of one policy), and
# the path of exact gradient descent. Leave-one-out is at its best from the first step on; the moving average
# has to see some costs first, and trails behind a policy that improves.


# %%
@jax.jit
def descend(logits):
    def step(logits, _):
        slope = jax.grad(lambda logits: jax.nn.softmax(logits) @ minutes)(logits)
        return logits - 0.03 * slope, jax.nn.softmax(logits - 0.03 * slope) @ minutes

    return jax.lax.scan(step, logits, length=mornings)[1]


figure, axis = plt.subplots(figsize=(7, 3.2))
plain, _ = many(sf.ConstantBaseline(0.0), keys, 4)
others, _ = many(sf.LeaveOneOut(), keys, 4)
found = {"no baseline": plain, "MovingAverage": average, "LeaveOneOut": others}
for color, (name, curves) in zip(["C1", "C4", "C2"], found.items(), strict=True):
    draw_band(axis, curves, color, name)
    late = np.percentile(curves[:, -1], 90)
    print(f"{name:14s} minutes at the end: median {np.median(curves[:, -1]):.2f}, 90 % {late:.2f}")
axis.plot(descend(jnp.zeros(4)), color="C0", linestyle="--", label="exact gradient")
axis.set(xlabel="morning", ylabel="expected minutes", ylim=(27.8, 37))
axis.set_title("four samples a morning: median and 10 to 90 % of the runs")
axis.legend(ncols=2, loc="upper right")
plt.show()

# %% [markdown]
# ## All draws
#
# How good is it? $K$ samples of four routes are $4^K$ cases, each with its probability. We pass all of them
# to the baselines themselves (a baseline is a function of the costs) and get mean and variance *exactly*.


# %%
def all_draws(num_samples):
    return jnp.array(list(itertools.product(range(4), repeat=num_samples)))


@jax.jit(static_argnums=0)
def exact_moments(advantage, draws):
    """Mean and variance of the gradient that weights the scores with this function of the draws."""
    weight = jnp.prod(probability[draws], 1)
    estimates = jax.vmap(lambda a: jnp.mean(advantage(a)[:, None] * score[a], 0))(draws)
    mean = weight @ estimates
    return mean, weight @ jnp.sum((estimates - mean) ** 2, 1)


@jax.jit
def moments_with(baseline, costs, draws):
    # OptimalBaseline asks for the squared scores too.
    return exact_moments(lambda a: costs[a] - baseline(costs[a], square[a]), draws)


spread = probability @ (minutes - mean) ** 2
baselines = {
    "none": sf.ConstantBaseline(0.0),
    "LeaveOneOut": sf.LeaveOneOut(),
    # As it is after many updates at this policy.
    "ShrunkLeaveOneOut": sf.ShrunkLeaveOneOut(
        mean_sum=mean, variance_sum=spread, weight_sum=jnp.ones(())
    ),
    "OptimalBaseline": sf.OptimalBaseline(),
    "constant: mean cost": sf.ConstantBaseline(mean),
    "constant: optimal": sf.ConstantBaseline(optimal),
}
counts = [2, 3] if SMOKE else [2, 3, 4, 6]
rows = {}
print("variance × K       " + "".join(f"   K = {n}" for n in counts))
for name, baseline in baselines.items():
    found = [moments_with(baseline, minutes, all_draws(n)) for n in counts]
    for estimate, _ in found:  # unbiased, every one
        np.testing.assert_allclose(estimate, exact, rtol=1e-3, atol=1e-4)
    rows[name] = [n * float(variance) for n, (_, variance) in zip(counts, found, strict=True)]
    print(f"{name:19s}" + "".join(f"{v:8.2f}" for v in rows[name]))

# %% [markdown]
# - `LeaveOneOut` has the additional noise of a mean of $K - 1$ costs.
# - `OptimalBaseline` weights the others by their squared scores, so that it tends to $c^\ast$ and not to the
#   mean cost. It takes one more derivative for each sample, and gains little here.
# - `ShrunkLeaveOneOut` shrinks the mean of the others towards 0, the more the noisier that mean is. Here the
#   costs are far from 0, and it nearly equals `LeaveOneOut`. It is meant for costs around 0: see exercise 2.
#
# The price of leave-one-out has a formula, for any policy and any cost. With $\bar V$ the variance of one
# sample with the mean cost as baseline,
#
# $$K \operatorname{Var} = \bar V + \frac{\operatorname{Var}(f)\,\mathbb{E}\lVert s\rVert^2 + \lVert\nabla
# J\rVert^2}{K - 1}.$$

# %%
price = spread * (probability @ square) + exact @ exact
predicted = [variance_with(mean) + price / (n - 1) for n in counts]
np.testing.assert_allclose(rows["LeaveOneOut"], predicted, rtol=1e-3)

figure, axis = plt.subplots(figsize=(7, 3.2))
fine = jnp.linspace(2, 16, 100)
axis.plot(fine, variance_with(mean) + price / (fine - 1), color="C2", label="formula")
axis.plot(counts, rows["LeaveOneOut"], "o", color="C2", label="LeaveOneOut, all draws")
axis.plot(
    counts, rows["OptimalBaseline"], "s", color="C1", fillstyle="none", label="OptimalBaseline"
)
axis.axhline(variance_with(mean), color="C4", linestyle="--", label="constant: mean cost")
axis.axhline(variance_with(optimal), color="C0", linestyle=":", label="constant: optimal")
axis.set(xlabel="samples K", ylabel="variance × K, minutes²", ylim=(0, None))
axis.set_title(
    f"variance with a baseline from K - 1 others (without a baseline: {rows['none'][0]:.0f})"
)
axis.legend()
plt.show()

# %% [markdown]
# ## A baseline that depends on its own sample
#
# What could be simpler than subtracting the mean of *all* $K$ costs? Many programs do it. But this mean
# contains the sample's own cost, so it depends on the draw, and the proof at the top breaks: $c$ could be
# taken out of the expectation because the draw had no part in it. With $K = 1$ it is plain to see: the
# cost minus itself is 0. In general
#
# $$f_k - \bar f = \frac{K-1}{K}\Big(f_k - \frac{1}{K-1}\sum_{j\ne k} f_j\Big),$$
#
# so that the gradient is too short by exactly the factor $(K-1)/K$. The sum over all draws agrees:

# %%
print("gradient:           ", np.asarray(exact).round(4))
for n in (1, 2, 4):
    found, _ = exact_moments(lambda a: minutes[a] - jnp.mean(minutes[a]), all_draws(n))
    print(f"K = {n}: E[estimate] = {np.asarray(found).round(4)}, {(n - 1) / n:.2f} of the gradient")
    np.testing.assert_allclose(found, (n - 1) / n * exact, rtol=1e-3, atol=1e-4)

# %% [markdown]
# The step is only shorter; a learning rate can absorb that. The same mistake with a `MovingAverage` that is
# updated *before* it is used is worse, as its size changes with time. In the first step the average *is*
# the batch, and the gradient of one sample is 0, whatever was drawn:


# %%
def updated_too_early(a):
    return minutes[a] - sf.MovingAverage(0.9).update(minutes[a])(minutes[a])


for n in (1, 2):
    early, _ = exact_moments(updated_too_early, all_draws(n))
    after, _ = moments_with(sf.MovingAverage(0.9), minutes, all_draws(n))
    ratios = (early[3] / exact[3], after[3] / exact[3])
    print("K = {}: E[first step] / gradient {:.3f}; updated after use {:.3f}".format(n, *ratios))

# %% [markdown]
# ## Divided by its own spread: another objective
#
# GRPO, which trains language models, also divides by the standard deviation of the group's rewards. That is
# not a constant factor: each group is weighted by a function of its own draws. Take rewards of 1 (solved)
# and 0, of which a share $\theta$ is 1. The true gradient along the logit is $\theta(1-\theta)$. All draws of a
# group, sorted by the number of ones, with `policy.whiten`, which is this advantage:

# %%
share = np.linspace(0.005, 0.995, 199)
whiten = jax.jit(policy.whiten, static_argnames="axis")


def whitened_push(n):
    """E[gradient along the logit], [199], of a group of n with whitened rewards."""
    reward = np.tri(n + 1, n, -1)  # groups with 0, 1, ... n ones
    ones = reward.sum(1)
    push = np.asarray(whiten(reward, axis=1))
    estimate = np.mean((reward - share[:, None, None]) * push, 2)
    ways = np.array([math.comb(n, i) for i in range(n + 1)])
    chance = ways * share[:, None] ** ones * (1 - share[:, None]) ** (n - ones)
    return np.sum(chance * estimate, 1)


figure, axis = plt.subplots(figsize=(7, 3.2))
true = share * (1 - share)
axis.plot(share, true, color="C0", linewidth=2, label="gradient of θ")
axis.plot(
    share, true * 7 / 8, color="C0", linestyle=":", label="mean of all, own cost included, K = 8"
)
for color, n in zip(["C6", "C2", "C1"], [2, 8, 32], strict=True):
    axis.plot(share, whitened_push(n), color=color, label=f"divided by the group's std, K = {n}")
axis.plot(share, np.sqrt(true), color="0.5", linestyle="--", label="gradient of 2 arcsin √θ")
axis.set(xlabel="share of ones θ", ylabel="expected push on the logit", ylim=(0, 0.78))
axis.legend(ncols=2, loc="upper center")
plt.show()
for n in (2, 8, 32):
    rare, even = (whitened_push(n) / true)[[1, 99]]
    print(f"K = {n:2d}: {rare:.2f} × the gradient at θ = 0.01, {even:.2f} × at θ = 0.5")

# %% [markdown]
# With growing $K$ it becomes $\sqrt{\theta(1-\theta)}$, the gradient of $2\arcsin\sqrt\theta$: hard and easy
# problems get more weight. On one problem the optimum stays where it was, at $\theta = 1$. With several
# problems that share a parameter it does not. One coin, shown to three problems: heads wins 10 in the first,
# tails wins 1 in each of the others.

# %%
heads = jnp.array([[10.0, 0.0, 0.0], [0.0, 1.0, 1.0]])  # [of heads and tails, problem]
groups = jnp.array(list(itertools.product([0, 1], repeat=4)))  # groups of 4, the coin is fair


def expected_push(advantage):
    """Along the logit of tails, whose score is the bit minus 1/2; all groups are equally likely."""
    return jnp.mean(advantage(heads[groups]) * (groups - 0.5)[:, :, None], (0, 1)).sum() / 3


right = expected_push(lambda reward: reward - sf.leave_one_out(reward, axis=1))
other = expected_push(lambda reward: whiten(reward, axis=1))
exact_push = jnp.mean(heads[1] - heads[0]) / 4
print(f"push towards tails: exact {exact_push:.3f}")
print(f"leave-one-out {right:.3f}, whitened {other:.3f}")
np.testing.assert_allclose(right, exact_push, rtol=1e-5)
assert other > 0 > exact_push

# %% [markdown]
# The expected reward rises towards heads; the standardized advantage goes the other way, for any number of
# samples. That may be what you want (each problem counts equally, whatever its units), but it is another
# objective, and should be a deliberate choice.
#
# ## One sample for each situation: `LearnedBaseline`
#
# Now the weather changes from day to day, and each day allows one trip. Leave-one-out needs a second sample
# of the same day, a moving average mixes rain with sun. A *learned* baseline depends on the situation and
# not on the draw, so it is unbiased; its parameters are trained by the same `jax.grad`, since a term is added
# whose value is 0 and whose derivative is that of its squared error.

# %%
weathers = ["sun", "rain", "snow"]
table = jnp.array([[31.0, 28.0, 34.0, 40.0], [45.0, 50.0, 44.0, 47.0], [80.0, 95.0, 85.0, 62.0]])


def day_loss(params, weather, key, baseline=None):
    if baseline is None:
        baseline = sf.LearnedBaseline(lambda values, w: values[w], params["baseline"], weather)
    routes = sf.Categorical(params["logits"][weather])

    def cost(route):
        return table[weather, route], table[weather, route]

    return sf.expectation(cost, routes, key, sf.ScoreFunction(baseline), has_aux=True)


def train_days(baseline, keys):
    """With a learned baseline if none is given."""

    def step(state, key):
        params, baseline = state
        weather_key, key = jax.random.split(key)
        weather = jax.random.randint(weather_key, (), 0, 3)
        slope, costs = jax.grad(day_loss, has_aux=True)(params, weather, key, baseline)
        rates = {"logits": 0.02, "baseline": 0.2}
        params = jax.tree.map(lambda p, rate, g: p - rate * g, params, rates, slope)
        baseline = None if baseline is None else baseline.update(costs)
        expected = jnp.mean(jnp.sum(jax.nn.softmax(params["logits"]) * table, 1))
        return (params, baseline), expected

    params = {"logits": jnp.zeros((3, 4)), "baseline": jnp.full(3, 50.0)}
    (params, _), curve = jax.lax.scan(step, (params, baseline), keys)
    return curve, params


days, seeds = (60, 4) if SMOKE else (600, 100)
keys = jax.random.split(jax.random.key(3), (seeds, days))
figure, axis = plt.subplots(figsize=(7, 3.2))
choices = {
    "MovingAverage": sf.MovingAverage(0.9),
    "LearnedBaseline": None,
}
for color, (name, baseline) in zip(["C4", "C2"], choices.items(), strict=True):
    curves, params = jax.jit(jax.vmap(train_days, (None, 0)))(baseline, keys)
    draw_band(axis, curves, color, name)
    end = curves[:, -1]
    print(f"{name:16s} minutes at the end: median {np.median(end):.1f}, mean {np.mean(end):.1f}")
axis.axhline(jnp.mean(table.min(1)), color="0.4", linestyle="--", linewidth=0.8)
axis.set(xlabel="day", ylabel="expected minutes", ylim=(44, 55))
axis.set_title("one sample a day: median and 10 to 90 % of the runs")
axis.legend()
plt.show()
for name, learned in zip(weathers, params["baseline"].T, strict=True):
    print(f"learned baseline for {name}: {learned.mean():.1f} minutes")

# %% [markdown]
# The baseline has learned one number for each weather: the minutes of the route that the policy takes then.
# With a network in place of the three numbers this is the value function of actor-critic methods.
#
# ## Exercises
#
# 1. One coin with $\pi(1) = \theta$ and costs $f_0, f_1$: show that $c = (1 - \theta) f_1 + \theta f_0$ makes
#    the variance exactly 0. Is that the mean cost? Check for $\theta = 0.3$, $f_0 = 1$, $f_1 = 5$.
# 2. Subtract the mean from the minutes, so that $\mathbb{E} f = 0$. With two samples, is `LeaveOneOut` better
#    than no baseline at all? What does `ShrunkLeaveOneOut` do?
# 3. Write a baseline of your own: the *median* of the other costs, for costs with outliers. Is it unbiased?
#    Check with all draws, and use it in `sf.expectation`.
#
# ## Solutions
#
# **1.** The estimate is $(f_1 - c)(1 - \theta)$ for a 1 and $-(f_0 - c)\,\theta$ for a 0 along the logit.
# They are equal, and then both are the gradient, if $c$ is the mean with the probabilities *exchanged*: the
# rarer side pushes harder. With two outcomes one number removes all noise.

# %%
theta, low, high = 0.3, 1.0, 5.0
c = (1 - theta) * high + theta * low
one, zero = (high - c) * (1 - theta), -(low - c) * theta
print(f"c = {c:.2f}, mean cost {theta * high + (1 - theta) * low:.2f}")
print(
    f"estimate for 1: {one:.4f}, for 0: {zero:.4f}, exact {theta * (1 - theta) * (high - low):.4f}"
)
np.testing.assert_allclose([one, zero], theta * (1 - theta) * (high - low))

# %% [markdown]
# **2.** It is worse: if the mean is 0 already, the other cost only adds noise. The shrunk baseline estimates
# that the mean is near 0, and subtracts almost nothing.

# %%
centered = minutes - mean
nothing_to_gain = {
    "none": sf.ConstantBaseline(0.0),
    "LeaveOneOut": sf.LeaveOneOut(),
    "ShrunkLeaveOneOut": sf.ShrunkLeaveOneOut(
        mean_sum=jnp.zeros(()), variance_sum=spread, weight_sum=jnp.ones(())
    ),
}
found = {}
for name, baseline in nothing_to_gain.items():
    _, found[name] = moments_with(baseline, centered, all_draws(2))
    print(f"{name:18s} variance of a gradient of two samples {found[name]:6.2f}")
assert found["LeaveOneOut"] > 2 * found["none"]

# %% [markdown]
# **3.** A baseline is a class with one method, from all costs to all baselines. Any function of the *other*
# costs is unbiased.


# %%
class MedianOfOthers(sf.Baseline):
    min_samples = 2

    def __call__(self, costs, weights=None):
        del weights  # those of OptimalBaseline

        def others(i):
            return jnp.delete(costs, i, assume_unique_indices=True)

        return jnp.stack([jnp.median(others(i)) for i in range(len(costs))])


ours = MedianOfOthers()
estimate, variance = exact_moments(lambda a: minutes[a] - ours(minutes[a]), all_draws(4))
np.testing.assert_allclose(estimate, exact, rtol=1e-3, atol=1e-4)
print("mean over all draws      ", np.asarray(estimate).round(4))
print("exact                    ", np.asarray(exact).round(4))
eight = jax.jit(lambda key: gradient(ours, key, 8))(jax.random.key(5))
print("one gradient of 8 samples", np.asarray(eight).round(4))
print(f"variance × K             {4 * variance:.2f}")
