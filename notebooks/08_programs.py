# %% [markdown]
# # 8. Programs: several choices, credit assignment, Hessians
#
# So far a loss had one random choice. Now it has several, one after the other, each with its own estimator.
# Then: which cost is credited to which choice; second derivatives that are right; and chains of a few
# states, which need no draws.
#
# [All notebooks](README.md) · previous: [7. From REINFORCE to PPO](07_reinforce_to_ppo.ipynb) · next:
# [9. Black boxes and finance](09_black_box_and_finance.ipynb)

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

import distrax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import scorefn as sf

if os.path.exists("notebook.mplstyle"):  # not on Colab
    plt.style.use("notebook.mplstyle")
SMOKE = "SCOREFN_SMOKE" in os.environ  # set by the tests: fewer samples

# %% [markdown]
# ## Two choices
#
# You drive to an appointment. A coin decides between the motorway (1) and the back road (0), and then
# chance says how long the road takes, in units of ten minutes: the motorway is faster, and less reliable. You
# choose how likely the motorway is, by a logit, and when to leave. The cost is the square of how far off
# you arrive:
#
# $$J(\theta) = \sum_b p_\theta(b)\, \mathbb{E}_{t \sim \mathcal{N}(m_b, s_b)}\big[(\text{leave} + t)^2\big]
#             = \sum_b p_\theta(b)\, \big[(\text{leave} + m_b)^2 + s_b^2\big].$$

# %%
road_mean, road_scale = jnp.array([3.0, 2.0]), jnp.array([0.4, 1.2])


def exact(theta):
    logit, leave = theta
    p = jax.nn.sigmoid(logit)
    square = (leave + road_mean) ** 2 + road_scale**2
    return (1 - p) * square[0] + p * square[1]


theta = jnp.array([0.5, -2.0])  # the logit of the motorway, and when to leave
print("exact gradient:", jax.grad(exact)(theta))

# %% [markdown]
# A *program* is a generator. It yields each choice with its estimator, gets the draw back, and returns the
# cost. The coin is discrete and needs a score (or a sum); the arrival is a Gaussian under a smooth cost,
# which suits the pathwise derivative. The two are independent: each estimator gets the *rest of the program*
# as its f.


# %%
@sf.program
def drive(theta, for_road, for_time, samples):
    logit, leave = theta
    road = yield sf.sample(sf.Bernoulli(logit), for_road, num_samples=samples)
    road = road.astype(int)
    arrival = distrax.Normal(leave + road_mean[road], road_scale[road])
    late = yield sf.sample(arrival, for_time, num_samples=2)
    return late**2


def over(keys, estimate):
    """Mean of an estimate over keys, its variance, and the standard error of the mean."""
    found = jax.jit(jax.vmap(estimate))(keys)
    variance = found.var(0, ddof=1)
    return found.mean(0), variance, jnp.sqrt(variance / len(keys))


score, pathwise = sf.ScoreFunction(), sf.Pathwise()
choices = {
    "score, score": (score, score, 2),
    "score, pathwise": (score, pathwise, 2),
    "DisARM, pathwise": (sf.DisARM(), pathwise, 1),
    "sum, pathwise": (sf.Enumerate(), pathwise, 1),
}
keys = jax.random.split(jax.random.key(1), 500 if SMOKE else 10_000)
wanted = jax.grad(exact)(theta)
print("road, time            variance: logit  leave        z: logit  leave")
for name, how in choices.items():
    gradient = jax.grad(lambda theta, key, how=how: drive(theta, *how)(key))
    mean, variance, error = over(keys, partial(gradient, theta))
    z = (mean - wanted) / error
    print(f"{name:26}{variance[0]:11.3f}{variance[1]:7.2f}{z[0]:17.1f}{z[1]:7.1f}")
    assert jnp.abs(z).max() < 6.2

# %% [markdown]
# Four evaluations of the cost each time, and all four agree with the exact gradient (z is the distance in
# standard errors). The choice of estimators is the choice of variance. `Enumerate` in the middle of a
# program sums that choice and leaves the noise of the others.
#
# ## Which cost belongs to which choice?
#
# A chain of $N$ coins, and each coin has its own cost. The score-function estimator of all of them at once
# multiplies *every* score by the sum of *all* costs. But a choice cannot change a cost that was paid before
# it; and if the coins do not look at each other, coin $n$ cannot change any cost but its own. What a choice
# cannot change has the mean 0 under its score, and only adds noise. With a table of which choice can change
# which cost, $I_{cn} \in \{0, 1\}$,
#
# $$\nabla J = \mathbb{E}\Big[\sum_n \nabla\log p(b_n) \sum_c I_{cn}\, \text{cost}_c\Big].$$
#
# `sf.surrogate` is this formula, for draws that you have as arrays. Three tables are right here:

# %%
tables = {
    "all costs": lambda n: np.ones((n, n), bool),
    "costs to go": lambda n: np.tri(n, dtype=bool),  # cost c by coins 0 .. c
    "its own cost": lambda n: np.eye(n, dtype=bool),
}


def cost_of(bit):
    return (bit - 0.3) ** 2


@jax.grad
def by_hand(logits, bits, table, baselines=0.0):
    log_probs = sf.Bernoulli(logits).log_probs(bits)
    return sf.surrogate(cost_of(bits), log_probs, table, baselines).sum()


@jax.jit
def exact_moments(logits, draws, table, baselines=0.0):
    """The mean of the gradient and its variance, summed over the coins, from all 2^n draws."""
    weight = jnp.exp(jax.vmap(sf.Bernoulli(logits).log_prob)(draws))
    gradient = jax.vmap(by_hand, (None, 0, None, None))(logits, draws, table, baselines)
    mean = weight @ gradient
    return mean, jnp.sum(weight @ (gradient - mean) ** 2)


numbers = [1, 2, 4] if SMOKE else [1, 2, 4, 8, 12]
variances = {name: [] for name in tables}
for n in numbers:
    logits, means = jnp.linspace(-1.0, 1.0, n), []
    draws = jnp.array(list(itertools.product((0.0, 1.0), repeat=n)))
    for name, table in tables.items():
        mean, variance = exact_moments(logits, draws, table(n))
        means.append(mean)
        variances[name].append(float(variance))
    np.testing.assert_allclose(means, [means[-1]] * 3, atol=1e-4)

figure, axis = plt.subplots(figsize=(7, 3))
for i, (name, values) in enumerate(variances.items()):
    axis.plot(numbers, values, "o-", color=f"C{i + 1}", label=f"each score × {name}")
axis.set(xscale="log", yscale="log", xlabel="number of coins", xticks=numbers, xticklabels=numbers)
axis.set(ylabel="variance, summed over coins", title="exact variance of one gradient, no baseline")
axis.minorticks_off()
axis.legend()
plt.show()
for name, values in variances.items():
    print(f"{name:13} variance with {numbers[-1]} coins: {values[-1]:8.4f}")

# %% [markdown]
# The mean is the same for all three (asserted, over all draws). The variance of the first two grows like
# the *cube* of the number of choices: more scores, each times the square of a longer sum. With the right
# credit it grows linearly.
#
# In a program you do not fill a table. `yield sf.cost(...)` says *when* a cost arises, so that it is
# credited to the choices before it only; `depends_on` says more.


# %%
@partial(sf.program, has_aux=True)
def coins(logits, credit):
    plain = sf.ScoreFunction(sf.ConstantBaseline(0.0))
    bits, total = [], 0.0
    for logit in logits:
        alone = () if credit == "its own cost" else None
        bit = yield sf.sample(sf.Bernoulli(logit), plain, depends_on=alone)
        bits.append(bit)
        if credit == "all costs":
            total += cost_of(bit)
        else:
            yield sf.cost(cost_of(bit), depends_on=[bit] if credit == "its own cost" else None)
    return total, jnp.stack(bits)


two = jnp.array([-1.0, 1.0])
for name, table in tables.items():
    run = jax.jit(jax.value_and_grad(lambda x, k, how=name: coins(x, how)(k), has_aux=True))
    (value, bits), gradient = run(two, jax.random.key(3))
    np.testing.assert_allclose(gradient, by_hand(two, bits, table(2)), rtol=1e-5, atol=1e-7)
    print(f"{name:13} drew {bits}: gradient {np.round(gradient, 3)}")

# %% [markdown]
# Draw by draw the program is the formula with that table. The library checks this declaration. Here the
# second coin depends on the first one, and the program declares that it does not:


# %%
@sf.program
def overclaimed(logit):
    a = yield sf.sample(sf.Bernoulli(logit), score, num_samples=2)
    b = yield sf.sample(sf.Bernoulli(logit + a), score, num_samples=2, depends_on=())
    yield sf.cost(cost_of(b), depends_on=[b])


try:
    jax.jit(overclaimed(0.3))(jax.random.key(0))
except ValueError as error:
    print(error)

# %% [markdown]
# ## A hundred days
#
# A machine wears out: state 0 is new, state 4 nearly broken. Each day it costs what its wear costs; then
# you may repair it, or let it run, and then it wears one step more with probability 0.3. The policy has one
# logit for each state. A program would be unrolled, all hundred days of it; a `rollout` is one `lax.scan`
# over a step, compiled once. Each cost carries the scores of the choices before it: costs to go. (Where
# memory is short, `chunk_size=10` keeps every tenth state and computes the others again.)

# %%
days, states = 100, 5
running, repair_cost, wearing = jnp.array([0.0, 0.2, 0.6, 1.4, 3.0]), 2.0, 0.3
stop = jax.lax.stop_gradient


def day(policy, wear, value):
    """One day; value [5] is what is expected to be paid from its choice on, for each state."""
    yield sf.cost(running[wear])  # before the choice: not credited to it
    guided = sf.ScoreFunction(sf.ConstantBaseline(value[wear]))
    repair = yield sf.sample(sf.Bernoulli(policy[wear]), guided)
    wears = yield sf.sample(sf.Bernoulli(jnp.log(wearing / (1 - wearing))), guided)
    wear = jnp.where(repair > 0, 0, jnp.minimum(wear + wears.astype(int), states - 1))
    return wear, repair_cost * repair


def episode(policy, key, values):
    run = sf.rollout(partial(day, policy), jnp.array(0), values)  # scans over values [days, 5]
    _, costs, log_prob = run(key)
    return costs.sum(), log_prob


# %% [markdown]
# `depends_on` has no place in a chain where each state depends on the one before. What helps there is a
# *baseline for each choice*: the value function, what is expected of all later costs. It may depend on the
# state before the choice. In practice it is learned (the critic); here the model is known, and it follows
# from the last day backwards.
#
# And the truth? There are $5^{100}$ paths. But the states are a *chain*, and its sum goes forward day by
# day, in $100 \times 5^2$ steps: `sf.forward_recursion`, exact, and to be differentiated as often as you
# like.

# %%
older = np.minimum(np.arange(states) + 1, states - 1)
ages = (1 - wearing) * np.eye(states) + wearing * np.eye(states)[older]


def moves(policy):
    """The chance of each state tomorrow (column), given that of today (row)."""
    repair = jax.nn.sigmoid(policy)[:, None]
    return repair * np.eye(states)[0] + (1 - repair) * ages


@jax.jit
def value_function(policy):
    def back(ahead, _):
        value = repair_cost * jax.nn.sigmoid(policy) + moves(policy) @ ahead
        return running + value, value

    return jax.lax.scan(back, jnp.zeros(states), length=days, reverse=True)[1]


def expected_cost(policy):
    _, cost = sf.forward_recursion(
        lambda wear, _: running[wear] + repair_cost * jax.nn.sigmoid(policy[wear]),
        sf.Categorical(jnp.array([0.0] + [-jnp.inf] * (states - 1))),
        # 1e-30: the logarithm of 0 has no derivative.
        lambda wear, _: sf.Categorical(jnp.log(moves(policy)[wear] + 1e-30)),
        length=days,
    )
    return cost


policy = jnp.array([-3.0, -2.0, -1.0, 0.0, 1.0])
total, wanted = jax.jit(jax.value_and_grad(expected_cost))(policy)
no_values, values = jnp.zeros((days, states)), value_function(policy)
np.testing.assert_allclose(total, values[0, 0], rtol=1e-5)
print(f"expected cost of {days} days: {total:.2f}, gradient {wanted}")


def undivided(policy, key):  # every score times all costs
    cost, log_prob = episode(policy, key, no_values)
    return sf.attach_score(stop(cost), log_prob)


losses = {
    "all costs": undivided,
    "costs to go": lambda policy, key: episode(policy, key, no_values)[0],
    "to go, less the value": lambda policy, key: episode(policy, key, values)[0],
}
keys = jax.random.split(jax.random.key(1), 500 if SMOKE else 4000)
for name, loss in losses.items():
    mean, variance, error = over(keys, partial(jax.grad(loss), policy))
    z = (mean - wanted) / error
    print(f"{name:22} total variance {variance.sum():8.0f}, largest |z| {jnp.abs(z).max():.1f}")
    assert jnp.abs(z).max() < 6.2

# %% [markdown]
# ## Second derivatives
#
# Back to the drive. A popular way to write the log-derivative trick is a loss whose gradient is right,
# `stop_gradient(cost) * log_prob`. Differentiate it twice, and it gives
# $\mathbb{E}[\text{cost}\, \nabla^2 \log p]$. But the probability of each draw moves too, and what is
# wanted is
#
# $$\nabla^2 J = \mathbb{E}\big[\text{cost}\, (\nabla^2 \log p + \nabla \log p\, \nabla \log p^\top)\big].$$
#
# `sf.attach_score(cost, log_prob)` is `cost` times $e^{\log p - \text{stop}(\log p)}$: a factor of value 1
# that can be differentiated as often as you like. Both forms, averaged over *all* draws (two roads, and
# Gaussian quadrature over the time, which is exact here):

# %%
nodes, weights = np.polynomial.hermite_e.hermegauss(8)
weights = weights / weights.sum()


def log_prob(theta, road, late):
    arrival = distrax.Normal(theta[1] + road_mean[road], road_scale[road])
    return sf.Bernoulli(theta[0]).log_prob(road) + arrival.log_prob(late)


@partial(jax.jit, static_argnums=0)
def mean_over_draws(form):
    """The mean of the gradient, and of the Hessian."""
    road = jnp.repeat(jnp.arange(2), len(nodes))
    late = theta[1] + road_mean[road] + road_scale[road] * jnp.tile(nodes, 2)
    chance = jnp.exp(jax.vmap(sf.Bernoulli(theta[0]).log_prob)(road)) * jnp.tile(weights, 2)

    def both(road, late):
        def loss(theta):
            return form(late**2, log_prob(theta, road, late))

        return jax.grad(loss)(theta), jax.hessian(loss)(theta)

    return jax.tree.map(lambda x: jnp.tensordot(chance, x, 1), jax.vmap(both)(road, late))


forms = {
    "stop(cost) * log_prob": lambda cost, log_prob: stop(cost) * log_prob,
    "attach_score": sf.attach_score,
}
slope, truth = jax.grad(exact)(theta), jax.hessian(exact)(theta)
hessians = {}
for name, form in forms.items():
    gradient, hessians[name] = mean_over_draws(form)
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-5)
    print(f"Hessian by {name}:", hessians[name], sep="\n")
print("exact:", truth, sep="\n")
np.testing.assert_allclose(hessians["attach_score"], truth, rtol=1e-3, atol=1e-4)

# %% [markdown]
# The same gradient; but the curvature along `leave` has the wrong sign, and the mixed second derivative is
# 0. The scores of scorefn are all attached in this way, so `jax.hessian` of a program is an unbiased estimate
#    of the Hessian, wherever its estimators are right at all orders. One that is right to first order only
#    says so:

# %%
second = jax.hessian(lambda theta, key: drive(theta, score, score, 2)(key))
keys = jax.random.split(jax.random.key(4), 500 if SMOKE else 10_000)
mean, of_scores, error = over(keys, partial(second, theta))
print("the program's Hessian, road and time by score:")
print(mean, "±", error, sep="\n")
assert jnp.all(jnp.abs(mean - truth) < 6.2 * error)
try:
    jax.hessian(lambda theta: drive(theta, sf.DisARM(), score, 2)(keys[0]))(theta)
except TypeError as refusal:
    print(refusal)

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3))
offsets = jnp.linspace(-1.5, 1.5, 101)
for i, (axis, name) in enumerate(zip(axes, ["logit of the motorway", "leave"], strict=True)):
    moved = theta + offsets[:, None] * jnp.eye(2)[i]
    axis.plot(moved[:, i], jax.vmap(exact)(moved), linewidth=2, label="J")
    for form, h in (("attach_score", truth), ("stop(cost) * log_prob", hessians[list(forms)[0]])):
        model = exact(theta) + slope[i] * offsets + h[i, i] * offsets**2 / 2
        axis.plot(moved[:, i], model, "--", label=f"parabola by {form}")
    axis.plot(theta[i], exact(theta), "o", color="C0")
    axis.set(xlabel=name, ylabel="J, (10 min)²")
figure.suptitle("quadratic models of J at the dot, by two Hessians", fontsize=10)
axes[0].legend()
plt.show()

# %% [markdown]
# Newton's method with the wrong Hessian would increase the cost along the time to leave.
#
# ## A chain that is hidden
#
# Now the wear is not seen, only a reading of vibration each day, noisy, with a mean that depends on the
# wear: a *hidden Markov model*. `log_weight` weights each state by how well it explains the reading, and
# `forward_recursion` returns the log-likelihood of all readings and the expected cost *given* them. For six
# days there are $3^6 = 729$ paths, over which everything is summed as a check:


# %%
def hidden(params, seen, extra):
    """Log-likelihood, and expected number of days near failure; extra [T, 3] is 0 (see below)."""

    def reading(z, t):
        normal = distrax.Normal(params["level"][z], jnp.exp(params["log_noise"]))
        return normal.log_prob(seen[t]) + extra[t, z]

    return sf.forward_recursion(
        lambda z, _: z == 2,
        sf.Categorical(jnp.array([3.0, 0.0, -3.0])),
        lambda z, _: sf.Categorical(params["move"][z]),
        length=len(seen),
        log_weight=reading,
    )


def brute_force(params, seen, extra):
    paths = np.array(list(itertools.product(range(3), repeat=len(seen))))
    normal = distrax.Normal(params["level"][paths], jnp.exp(params["log_noise"]))
    total = (normal.log_prob(seen) + extra[np.arange(len(seen)), paths]).sum(1)
    total += jax.nn.log_softmax(jnp.array([3.0, 0.0, -3.0]))[paths[:, 0]]
    total += jax.nn.log_softmax(params["move"])[paths[:, :-1], paths[:, 1:]].sum(1)
    return jax.nn.logsumexp(total), jax.nn.softmax(total) @ (paths == 2).sum(1)


truly = {
    "level": jnp.array([1.0, 2.0, 3.0]),
    "log_noise": jnp.log(0.7),
    "move": jnp.log(jnp.array([[0.95, 0.048, 0.002], [0.002, 0.94, 0.058], [0.15, 0.002, 0.848]])),
}
six, nothing = jnp.array([0.8, 1.9, 1.2, 2.6, 3.4, 2.9]), jnp.zeros((6, 3))


def value_and_gradients(fn):
    return jax.jit(lambda *args: (fn(*args), jax.jacrev(fn)(*args)))(truly, six, nothing)


(likelihood, failing), gradients = value_and_gradients(hidden)
print(f"recursion: log-likelihood {likelihood:.4f}, expected days near failure {failing:.4f}")
(likelihood, failing), wanted = value_and_gradients(brute_force)
print(f"729 paths: log-likelihood {likelihood:.4f}, expected days near failure {failing:.4f}")
for found, by_sum in zip(*map(jax.tree.leaves, (gradients, wanted)), strict=True):
    np.testing.assert_allclose(found, by_sum, rtol=1e-3, atol=1e-4)

# %% [markdown]
# Values and all gradients agree. One of them has a meaning of its own: what is the derivative of the
# log-likelihood along a number $e_{tz}$ that is added to the log-weight of state $z$ on day $t$?
#
# $$\frac{\partial}{\partial e_{tz}} \log \sum_{\text{paths}} w(\text{path})
#   = \frac{\sum_{\text{paths through } z \text{ at } t} w}{\sum_{\text{paths}} w} = P(z_t = z \mid \text{all
#   readings}).$$
#
# So `jax.grad` is the backward pass of "forward-backward". Three hundred days, drawn from the model; its
# parameters fitted to the readings alone; and where the machine was, day by day.

# %%
T, steps = (40, 10) if SMOKE else (300, 300)


def next_day(z, key):
    move, noise = jax.random.split(key)
    z = sf.Categorical(truly["move"][z]).sample(move)
    return z, (z, truly["level"][z] + jnp.exp(truly["log_noise"]) * jax.random.normal(noise))


_, (wear, seen) = jax.lax.scan(next_day, jnp.array(0), jax.random.split(jax.random.key(2), T))
nothing = jnp.zeros((T, 3))
optimizer = optax.adam(0.05)


def fit_step(carry, _):
    params, state = carry
    loss, gradient = jax.value_and_grad(lambda p: -hidden(p, seen, nothing)[0] / T)(params)
    update, state = optimizer.update(gradient, state)
    return (optax.apply_updates(params, update), state), -T * loss


guess = {"level": jnp.array([0.5, 1.5, 3.5]), "log_noise": jnp.array(0.0), "move": 2 * jnp.eye(3)}
fit = jax.jit(lambda p: jax.lax.scan(fit_step, (p, optimizer.init(p)), length=steps))
(fitted, _), trace = fit(guess)
print("levels", fitted["level"], "noise", jnp.exp(fitted["log_noise"]))


inference = jax.jit(jax.value_and_grad(partial(hidden, fitted, seen), has_aux=True))
(likelihood, failing), posterior = inference(nothing)
print(f"log-likelihood from {trace[0]:.1f} to {likelihood:.1f}; days near failure {failing:.1f}")
np.testing.assert_allclose(posterior.sum(1), 1.0, rtol=1e-4)
np.testing.assert_allclose(posterior[:, 2].sum(), failing, rtol=1e-3)

# %%
figure, axes = plt.subplots(2, 1, figsize=(10, 4.4), sharex=True, height_ratios=[3, 2])
names, colors = ["new", "worn", "near failure"], ["C3", "C4", "C1"]
for z in range(3):
    on = wear == z
    axes[0].plot(jnp.arange(T)[on], seen[on], ".", color=colors[z], label=names[z])
    axes[0].axhline(fitted["level"][z], color=colors[z], linestyle="--", linewidth=0.8)
axes[0].set(
    ylabel="vibration",
    title="readings, colored by the hidden wear; dashed: fitted levels",
)
axes[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
axes[1].stackplot(np.arange(T), posterior.T, colors=colors, alpha=0.8)
changes = np.flatnonzero(np.diff(wear)) + 0.5
for left, right in itertools.pairwise([0, *changes, T - 1]):
    z = int(wear[int(left + 1)])
    axes[1].plot([left, right], [1.08, 1.08], color=colors[z], linewidth=5, solid_capstyle="butt")
axes[1].set(xlabel="day", ylabel="probability", ylim=(0, 1.13), xlim=(0, T - 1))
axes[1].set_title("the wear given all readings, by one jax.grad; bar above: the true wear")
axes[1].grid(visible=False)
plt.show()

# %% [markdown]
# ## Exercises
#
# 1. *Is a baseline as good as credit?* Give `sf.surrogate` baselines: for each coin the expected sum of the
#    costs that its score is multiplied by. What is left of the three variances, exactly?
# 2. The Hessian of the drive by `Enumerate` and `Pathwise` instead of two scores: how much less variance
#    has each entry?
# 3. How well are the three levels known? The Hessian of the log-likelihood has the answer: with all else
#    held, their standard errors are the roots of the diagonal of $(-\nabla^2 \log L)^{-1}$.
#
# ## Solutions
#
# **1.** With a table $I$ and expected costs $c$ the baselines are $I^\top c$.

# %%
expected = jax.nn.sigmoid(logits) * cost_of(1.0) + jax.nn.sigmoid(-logits) * cost_of(0.0)
for name, table in tables.items():
    table = table(len(logits))
    _, variance = exact_moments(logits, draws, table, expected @ table)
    print(f"{name:13} without baselines {variances[name][-1]:8.4f}, with them {variance:.4f}")

# %% [markdown]
# Baselines help, but do not replace credit assignment: a baseline removes the mean of the costs that a
# choice cannot change, credit assignment removes their noise too.
#
# **2.** The sum and the path have little variance.

# %%
second = jax.hessian(lambda theta, key: drive(theta, sf.Enumerate(), pathwise, 1)(key))
mean, variance, _ = over(keys, partial(second, theta))
print("mean:", mean, "variance:", variance, "variance by scores:", of_scores, sep="\n")
np.testing.assert_allclose(mean[1, 1], truth[1, 1], rtol=1e-5)

# %% [markdown]
# **3.** A second derivative through three hundred steps of the recursion, exact:


# %%
def of_levels(level):
    return hidden({**fitted, "level": level}, seen, nothing)[0]


errors = jnp.sqrt(jnp.diag(jnp.linalg.inv(-jax.jit(jax.hessian(of_levels))(fitted["level"]))))
for name, level, error in zip(names, fitted["level"], errors, strict=True):
    print(f"{name:13} {level:.2f} ± {error:.2f}")
