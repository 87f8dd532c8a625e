# %% [markdown]
# # 11. Which estimator should I use?
#
# There are over thirty estimators, and the library never chooses one for you. A few questions leave three or
# four of them; `sf.compare` measures these on your own loss, at its present parameters. Then: how to check
# that a gradient is right, how the answer changes while you train, and how to read the results of the
# benchmarks.
#
# [All notebooks](README.md) · previous: [10. Composing into your model](10_composing_into_your_model.ipynb)

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
import json
import os
import re
from pathlib import Path

import distrax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_diabetes

import scorefn as sf

if os.path.exists("notebook.mplstyle"):  # not on Colab
    plt.style.use("notebook.mplstyle")
SMOKE = "SCOREFN_SMOKE" in os.environ  # set by the tests: fewer samples

# %% [markdown]
# ## A few questions first
#
# What is drawn, what is known of $f$, and how often can it be evaluated? Every estimator states what it is
# good for, `sf.Pathwise.when`, and whether it is biased. The picture asks from the top down, and stops at
# the first yes.

# %%
questions = {
    "Can all values be listed,\nand f evaluated at each?": ["Enumerate"],
    "Continuous draw, and f\ndifferentiable, without jumps?": ["Pathwise"],
    "Continuous, f rough,\nfew numbers in a draw?": ["MeasureValued"],
    "A black box\nof many parameters?": ["EvolutionStrategies", "SPSA"],
    "Independent bits?": ["DisARM", "ARMS", "LocalExpectation", "DoubleCV", "ReinMax"],
    "One categorical variable?": ["UnorderedSet", "SumAndSample"],
    "Counts?": ["GO"],
    "None of these": ["ScoreFunction"],
    "Around the one you chose": ["QuasiMonteCarlo", "DeltaMethod", "Antithetic", "ControlVariate"],
}
figure, axis = plt.subplots(figsize=(10, 5.6))
top, last = 0.0, list(questions)[-2:]
axis.plot([1.3, 1.3], [-1, -20], color="0.4", linewidth=0.8, zorder=0)
for question, names in questions.items():
    height = max(len(names), 1 + question.count("\n")) + 0.5
    middle = top - height / 2
    box = {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": "0.4"}
    axis.text(1.3, middle, question, ha="center", va="center", fontsize=8, bbox=box)
    arrow = {"arrowstyle": "->", "color": "0.4", "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", (3.4, middle), (2.55, middle), arrowprops=arrow)
    if question not in last:
        axis.text(2.95, middle + 0.1, "yes", ha="center", va="bottom", fontsize=7, color="0.4")
        axis.text(1.4, top - height, "no", va="center", fontsize=7, color="0.4")
    for i, name in enumerate(names):
        kind = getattr(sf, name)
        y, color = middle + (len(names) - 1) / 2 - i, "C2" if kind.unbiased else "C1"
        axis.text(3.5, y, name, color=color, va="center", fontsize=8, weight="bold")
        axis.text(5.5, y, kind.when, color="0.2", va="center", fontsize=8)
    top -= height
axis.set(xlim=(0, 11), ylim=(top, 0.3), title="blue: unbiased; orange: biased")
axis.axis("off")
plt.show()

# %% [markdown]
# These are rules of thumb, with the numbers behind them in [the estimators](../docs/estimators.md). They
# leave a few candidates. Which of them is best depends on your $f$ and on your parameters: measure it.
#
# ## Your own loss
#
# Here is one: which of ten features does a linear model of the diabetes data need? Feature $i$ is switched on
# by a random bit $b_i$, with probability $\sigma(\theta_i)$, and costs 0.01:
#
# $$L(\theta) = \mathbb{E}_{b \sim p_\theta}\Big[\tfrac{1}{N} \sum_n \big|y_n - (b \odot w)^\top x_n\big|
#   + 0.01 \sum_i b_i\Big].$$
#
# All $2^{10}$ draws can be summed here, and by the picture that would be the choice. Let us assume that $f$
# is expensive, and keep the sum as a reference only. `compare` takes a function `loss(params, key, choice)`,
# and a dict of choices; a choice is whatever the loss makes use of, here an estimator and a number of
# samples.

# %%
features, targets = load_diabetes(return_X_y=True)
features = jnp.asarray(features / features.std(0), jnp.float32)
targets = jnp.asarray((targets - targets.mean()) / targets.std(), jnp.float32)
weights = jnp.linalg.lstsq(features, targets)[0]


def cost(bits):
    error = targets - features @ (bits * weights)
    return jnp.mean(jnp.abs(error)) + 0.01 * jnp.sum(bits)


def loss(logits, key, choice):
    estimator, num_samples = choice
    return sf.expectation(cost, sf.Bernoulli(logits), key, estimator, num_samples=num_samples)


def exact_gradient(logits):
    return jax.grad(loss)(logits, jax.random.key(0), (sf.Enumerate(), 1))


choices = {
    "LeaveOneOut (4)": (sf.ScoreFunction(sf.LeaveOneOut()), 4),
    "ARMS (4)": (sf.ARMS(), 4),
    "DoubleCV (4)": (sf.DoubleCV(), 4),
    "LocalExpectation": (sf.LocalExpectation(), 1),
    "StraightThrough": (sf.StraightThrough(), 1),
    "Pathwise": (sf.Pathwise(), 1),
}
start = jnp.zeros(10)
found = sf.compare(
    loss,
    choices,
    start,
    jax.random.key(0),
    num_repeats=512 if SMOKE else 8192,
    reference=exact_gradient(start),
    progress=False,  # no bar, to keep this page tidy
)
print(found)

# %% [markdown]
# How to read it:
#
# - **variance** is that of *one* gradient, summed over its ten components, and **±** its standard error.
# - **var × µs**, by which the rows are ranked: the variance that is left after a microsecond of averaging.
#   Half the variance at twice the time is no gain. Times are those of this machine and of this $f$; on
#   another day near neighbors may change places, and the last line says which pairs are not settled.
# - **evals** counts the evaluations of $f$. If your $f$ is a simulator that takes minutes, forget the times
#   and look at these.
# - **snr**: the norm of the mean gradient relative to the standard deviation of one gradient.
# - **(b)**: the estimator declares a bias. **bias** is what was measured, relative to the gradient, and
#   **z** is its size in standard errors.
# - An estimator that does not apply raises, and the row shows the error.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 2.8))
found.plot(axes[0])
shown = [row for row in found.rows if row.error is None]
for row in shown:
    marker, color = ("o", "C2") if row.unbiased else ("D", "C1")
    axes[1].loglog(row.evaluations, row.variance, marker, color=color)
    place = (-6, 5) if row.evaluations > 5 else (6, -9) if "ARMS" in row.estimator else (6, 4)
    axes[1].annotate(
        row.estimator,
        (row.evaluations, row.variance),
        xytext=place,
        textcoords="offset points",
        ha="right" if row.evaluations > 5 else "left",
        fontsize=8,
    )
evaluations = np.array([1.0, 20.0])
per_evaluation = found["LeaveOneOut (4)"].variance * 4
axes[1].loglog(evaluations, per_evaluation / evaluations, "--", color="0.6", linewidth=0.8)
axes[1].set(
    xlabel="evaluations of f", ylabel="variance", title="dashed: mean of repeated leave-one-out"
)
axes[1].set_xticks([1, 2, 4, 8, 16], [1, 2, 4, 8, 16])
axes[1].minorticks_off()
plt.show()

# %% [markdown]
# `best` picks among the unbiased ones, of least variance × time. With a budget it averages as many whole
# gradients as fit, and returns the estimator whose average has the least variance.

# %%
print("best:                       ", found.best())
for budget in (4, 11, 22):
    print(f"best of {budget:2d} evaluations:     ", found.best(max_evaluations=budget))
print("best of a tenth of a second:", found.best(max_seconds=0.1))

# %% [markdown]
# ## Is the gradient right?
#
# A variance means nothing if the mean is wrong. Three ways to be sure, on your own model:
#
# **The score.** $\mathbb{E}[\nabla \log p(x)] = 0$ if the density belongs to the sampler. Here a rate was
# mistaken for a scale:


# %%
def log_prob(scale, x):
    return jnp.log(scale) - scale * x  # of a rate


def sample(scale, key):
    return scale * jax.random.exponential(key)


mistaken = sf.Distribution(log_prob, sample, 2.0)
print(sf.check_score(mistaken, jax.random.key(1), num_samples=1000))

# %% [markdown]
# **The gradient**, where an exact one is known, as for a small case of your model: `check_unbiased`.

# %%
logits = jnp.linspace(-2.0, 2.0, 10)
exact = exact_gradient(logits)
for name in ("ARMS (4)", "StraightThrough"):
    report = sf.check_unbiased(
        lambda logits, key, name=name: loss(logits, key, choices[name]),
        logits,
        jax.random.key(2),
        exact=exact,
        num_repeats=512 if SMOKE else 4096,
    )
    print(f"{name}:\n{report}\n")
    assert report.passed == (name != "StraightThrough")

# %% [markdown]
# **Each other.** If no exact gradient is known, let two estimators check each other. `Pathwise` is unbiased for
# an $f$ without jumps; this one has a jump, which does not show in the derivative of $f$, so that no library
# can detect it. `Pathwise` has the least variance here. `best` raises, because the two disagree:


# %%
def jump(mean, key, estimator):
    def f(x):
        return jnp.where(x > 1.0, 1.0, 0.0) + 0.1 * x**2

    def log_prob(mean, x):
        return -((x - mean) ** 2) / 2

    def sample(mean, key):
        return mean + jax.random.normal(key)

    return sf.differentiable(f, log_prob, sample, estimator, num_samples=8)(mean, key)


two = {"Pathwise": sf.Pathwise(), "ScoreFunction": sf.ScoreFunction()}
disagree = sf.compare(jump, two, 0.5, jax.random.key(3), num_repeats=1024, progress=False)
assert disagree["Pathwise"].variance < disagree["ScoreFunction"].variance
try:
    disagree.best()
except ValueError as error:
    print(error)

# %% [markdown]
# ## While you train, the answer changes
#
# What was best at the start need not be so later. The model is trained with leave-one-out of 4, and
# `sf.moments` measures at six of its steps the mean and the variance that other estimators *would* have had:
# one
# program for each, with the logits as an argument. The run itself carries a `GradientSNR`.

# %%
steps = 300
stages = jnp.array([0, 10, 30, 60, 120, 299])
adam = optax.adam(0.1)


@jax.jit
def train(logits, keys):
    def step(state, key):
        logits, memory, monitor = state
        gradient = jax.grad(loss)(logits, key, choices["LeaveOneOut (4)"])
        change, memory = adam.update(gradient, memory)
        monitor = monitor.update(gradient)
        state = (optax.apply_updates(logits, change), memory, monitor)
        return state, (logits, monitor.snr())

    monitor = sf.GradientSNR.like(logits, decay=0.95)
    return jax.lax.scan(step, (logits, adam.init(logits), monitor), keys)[1]


path, monitored = train(start, jax.random.split(jax.random.key(4), steps))
chances = np.asarray(jax.nn.sigmoid(path[-1]), float)
print("probability of each feature, at the end:", chances.round(2))

# %%
keys = jax.random.split(jax.random.key(5), 256 if SMOKE else 4096)


def at_stages(choice):
    """The mean gradient and its variance, summed over components, [stages, ...]."""

    def at(logits):
        mean, variance, _ = sf.moments(lambda key: jax.grad(loss)(logits, key, choice), keys)
        return mean, jnp.sum(variance)

    return jax.jit(lambda path: jax.lax.map(at, path))(path[stages])


exact = jax.jit(lambda path: jax.lax.map(exact_gradient, path))(path[stages])
names = ["LeaveOneOut (4)", "ARMS (4)", "DoubleCV (4)", "StraightThrough"]
measured = {name: at_stages(choices[name]) for name in names}
norm = jnp.linalg.norm(exact, axis=1)

print("step            ", *(f"{s:8d}" for s in stages))
for name in names[:3]:
    print(f"{name:16s}", *(f"{v:8.1e}" for v in measured[name][1]))

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 3))
reference = measured["LeaveOneOut (4)"][1]
for color, name in zip(["C0", "C2", "C3"], names[:3], strict=True):
    axes[0].plot(measured[name][1] / reference, "o-", color=color, label=name)
axes[0].set(
    yscale="log",
    ylabel="variance relative to leave-one-out (4)",
    title="four evaluations of f each",
)
axes[0].set_yticks([0.5, 1, 2], [0.5, 1, 2])
axes[0].minorticks_off()
axes[0].legend()
mean, variance = measured["StraightThrough"]
bias = jnp.linalg.norm(mean - exact, axis=1) / norm
error = jnp.sqrt(variance / len(keys)) / norm
axes[1].errorbar(range(len(stages)), bias, 2 * error, fmt="D-", color="C1", capsize=2)
axes[1].axhline(1, color="0.4", linewidth=0.8)
axes[1].set(ylabel="|bias| / |gradient|", title="bias of StraightThrough", ylim=(0, None))
for axis in axes[:2]:
    axis.set_xticks(range(len(stages)), stages)
    axis.set_xlabel("step")
axes[2].plot(monitored, color="C2", linewidth=0.9, label="GradientSNR of the run")
axes[2].plot(stages, norm / jnp.sqrt(reference), "o", color="C0", label="measured at the steps")
axes[2].set(xlabel="step", ylabel="signal / noise", title="leave-one-out of 4", ylim=(0, 1))
axes[2].legend()
plt.show()

# %%
early, late = ({name: measured[name][1][i] for name in names[:3]} for i in (0, -2))
print("least variance of four evaluations, at first:", min(early, key=early.get))
print(f"                                 at step {stages[-2]}:", min(late, key=late.get))
assert min(early, key=early.get) == "DoubleCV (4)"
assert late["DoubleCV (4)"] > late["LeaveOneOut (4)"]

# %% [markdown]
# At the start, where all bits are undecided, `DoubleCV` halves the variance: the slopes of $f$ at other
# draws predict $f$ well. Once most bits are decided the linear prediction is poor, and leave-one-out has
# less variance. (Its coefficient is 1 here; it can be learned, by `sf.squared_gradient`.) The biased
# estimator gets worse during training: the true gradient gets small, and its bias does not.
#
# The monitor needs some steps to settle and takes almost no time. It shows when to compare again: far below 1,
# steps are mostly noise, and more samples or an estimator of less variance help; far above 1, neither does.
#
# ## What the benchmarks have measured
#
# The suites of `python -m benchmarks` did the same for many losses; [all of it](../docs/results/README.md) is
# committed, as plain JSON. A row is one estimator on one problem. Here is variance × time, divided by that of
# the plain choice on the same problem: below 1 is better than plain.

# %%
results = Path("../benchmarks/results")


def table(suite, keep, column, plain):
    """{estimator: {column: variance x time relative to the plain estimator}}, unbiased ones only."""
    found = {}
    for row in json.loads((results / f"{suite}.json").read_text())["rows"]:
        if row["unbiased"] and keep(row):
            name = re.sub(r"(LocalExpectation).*", r"\1", row["estimator"])
            found.setdefault(name, {})[column(row)] = row["variance_x_time"]
    return {
        name: {c: v / found[plain][c] for c, v in cells.items()} for name, cells in found.items()
    }


def labelled(row, name):
    return f"{row[name].replace('able', '.').replace('atic', '.')}\n{row['at']}"


def heat(axis, cells, title):
    columns = list(dict.fromkeys(c for row in cells.values() for c in row))
    values = np.array([[row.get(c, np.nan) for c in columns] for row in cells.values()])
    axis.imshow(np.log10(values), cmap="PuOr_r", vmin=-2.5, vmax=2.5, aspect="auto")
    best = np.nanmin(values, 0)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{value:.2g}" if 0.001 < value < 999 else f"{value:.0e}"
            color = "white" if abs(np.log10(value)) > 1.7 else "black"
            bold = "bold" if value == best[j] else "normal"
            axis.text(j, i, text, ha="center", va="center", fontsize=6.5, color=color, weight=bold)
            if value == best[j]:
                frame = plt.Rectangle((j - 0.48, i - 0.46), 0.96, 0.92, fill=False, linewidth=1.3)
                axis.add_patch(frame)
    axis.set_xticks(range(len(columns)), columns, fontsize=6)
    axis.set_yticks(range(len(cells)), [c.replace(" and ", "\nand ") for c in cells], fontsize=7)
    axis.set_title(title)
    axis.grid(visible=False)
    axis.tick_params(length=0)


if results.exists():
    bits = table(
        "discrete",
        lambda row: row["objective"] in ("separable", "quadratic", "vae"),
        lambda row: labelled(row, "objective"),
        "LeaveOneOut (2)",
    )
    categories = table(
        "discrete",
        lambda row: row["objective"] == "thousand",
        lambda row: f"entropy\n{row['at']}",
        "LeaveOneOut (2)",
    )
    continuous = table(
        "vi",
        lambda row: (
            (row["form"], row["parameter"]) == ("Pathwise", "mean")
            and row["target"] != "minibatches"
        ),
        lambda row: labelled(row, "target"),
        "plain",
    )
    figure = plt.figure(figsize=(10, 5.4))
    panels = figure.add_gridspec(2, 2, height_ratios=[6, 10], width_ratios=[10, 11])
    heat(figure.add_subplot(panels[:, 0]), bits, "independent bits, relative to LeaveOneOut (2)")
    heat(
        figure.add_subplot(panels[0, 1]),
        categories,
        "one of 1000 values, relative to LeaveOneOut (2)",
    )
    heat(
        figure.add_subplot(panels[1, 1]),
        continuous,
        "techniques around Pathwise (means), relative to plain",
    )
    plt.show()
else:
    print("The results are in a clone of the repository: run this cell there.")

# %% [markdown]
# Left: 200 separable bits, by their probability; 8 bits that interact, in a quadratic; an autoencoder at three
# steps of its training. Top right: one variable of 1000 values, by its entropy in nats. Below it: the means of
# three Bayesian models, at three steps.
#
# A frame is around the best of each column; purple is better than plain, orange worse. Some rows change their
# color from problem to problem. And they change in training: the columns of `vae`, and of each target on the
# right, are stages of one run, and most of what was far better at the start is less so later. So no row of
# this table is the answer for *your* loss. It shows which estimators are worth comparing on it.
#
# ## Exercises
#
# 1. An evaluation of your $f$ takes an hour on a cluster, and as many of them as you like run side by side.
#    Which choice above would you take, and does the ranking by variance × time agree?
# 2. Write a loss of your own whose distribution is *continuous*, and compare `Pathwise()` with
#    `QuasiMonteCarlo(Pathwise())` at 16 draws.
# 3. Leave-one-out of 4 and of 16 samples: how much is *one evaluation* worth in each, at the start?
#
# ## Solutions
#
# **1.** What counts is the variance of one step, not the number of evaluations: of the choices above
# `LocalExpectation` has the least, independent of its place in the ranking. And if 1024 machines are free,
# the sum itself.

# %%
in_an_hour = [row for row in found.rows if row.unbiased and row.error is None]
for row in sorted(in_an_hour, key=lambda row: row.variance):
    print(f"{row.estimator:16s} variance {row.variance:.2g} from {row.evaluations} evaluations")
assert found["LocalExpectation"].variance < found["ARMS (4)"].variance

# %% [markdown]
# **2.** Any smooth $f$ works. Scrambled Sobol points cover the space more evenly than independent draws, and a
# smooth $f$ benefits.


# %%
def smooth(mean, key, estimator):
    normal = distrax.Normal(mean, 1.0)

    def f(x):
        return jnp.sum(jnp.tanh(x)) ** 2

    return sf.expectation(f, normal, key, estimator, num_samples=16)


both = {"independent": sf.Pathwise(), "Sobol": sf.QuasiMonteCarlo(sf.Pathwise())}
mean = jnp.array([0.5, -0.2, 1.0])
points = sf.compare(smooth, both, mean, jax.random.key(6), num_repeats=1024, progress=False)
print(points)
assert points["Sobol"].variance < points["independent"].variance

# %% [markdown]
# **3.** A gradient of $n$ samples has about $1/(n - 1)$ of the variance of one with a baseline from a single
# other, because a baseline is itself a mean. So an evaluation is worth more in larger groups, $n / (n - 1)$:
# most of what there is to gain is had at 4.

# %%
measured["LeaveOneOut (16)"] = at_stages((sf.ScoreFunction(sf.LeaveOneOut()), 16))
for n in (4, 16):
    variance = measured[f"LeaveOneOut ({n})"][1][0]
    print(
        f"{n:2d} samples: variance x evaluations {variance * n:.3f}, n / (n - 1) = {n / (n - 1):.2f}"
    )
