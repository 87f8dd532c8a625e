# %% [markdown]
# # 5. Discrete latents
#
# An autoencoder that must encode a picture in eight bits, or in one of twenty categories. Between encoder
# and decoder a code is *drawn*, and no derivative passes through the draw. We train it with several
# estimators, see which are biased and by how much, and look at what the bits and the categories come to mean.
#
# [All notebooks](README.md) · previous: [4. Control variates and
# sampling](04_control_variates_and_sampling.ipynb) · next: [6. Variational
# inference](06_variational_inference.ipynb)

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
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import scorefn as sf
from scorefn import vi

if os.path.exists("notebook.mplstyle"):  # not on Colab
    plt.style.use("notebook.mplstyle")
SMOKE = "SCOREFN_SMOKE" in os.environ  # set by the tests: fewer samples

# %% [markdown]
# ## A model with a draw in the middle
#
# The data are scikit-learn's 1797 handwritten digits, 8 × 8 pixels made black or white. The *encoder* turns
# an image $x$ into the logits of eight bits; a code $b \sim q(b \mid x)$ is drawn; the *decoder* turns it
# into the probability of each pixel. Both have one hidden layer:

# %%
digits = load_digits()
images = jnp.asarray(digits.data > 8, jnp.float32)  # [1797, 64]
seen, unseen = images[:1500], images[1500:]


def start(key, size):
    glorot = jax.nn.initializers.glorot_normal()
    shapes = {"encoder": [(64, 64), (64, size)], "decoder": [(size, 64), (64, 64)]}
    keys = iter(jax.random.split(key, 4))
    return {
        name: [(glorot(next(keys), shape), jnp.zeros(shape[1])) for shape in layers]
        for name, layers in shapes.items()
    }


def network(layers, x):
    (w1, b1), (w2, b2) = layers
    return jnp.tanh(x @ w1 + b1) @ w2 + b2


def log_likelihood(decoder, image, code):
    logits = network(decoder, code)
    return jnp.vdot(image, logits) - jnp.sum(jax.nn.softplus(logits))


# %% [markdown]
# The objective is the evidence lower bound, in nats: how well the code explains the image, minus the
# information in the code. The prior over codes is uniform, so the second term has a closed form:
#
# $$\mathrm{ELBO}(x) = \mathbb{E}_{b \sim q(b \mid x)}\big[\log p(x \mid b)\big] - \mathrm{KL}\big(q(b \mid
# x)\,\|\,\text{uniform}\big).$$
#
# `vi.elbo` is that expectation plus what you know of the entropy; the estimator is an argument of it. The
# model below serves eight bits and, later, one of twenty categories: `family` says which.


# %%
def divergence(q):
    """KL(q || uniform) in nats. A bit is a choice between the logits 0 and l."""
    bits = isinstance(q, sf.Bernoulli)
    logits = jnp.stack([0 * q.logits, q.logits], -1) if bits else q.logits
    log_p = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_p) * (log_p + jnp.log(logits.shape[-1])))


def bound(params, images, key, estimator, n=1, family=sf.Bernoulli):
    """The ELBO, a mean over the images, each with n draws of its own."""

    def one(image, key):
        q = family(network(params["encoder"], image))
        f = partial(log_likelihood, params["decoder"], image)
        return vi.elbo(f, q, key, estimator, num_samples=n, entropy=-divergence(q))

    return jnp.mean(jax.vmap(one)(images, jax.random.split(key, len(images))))


# %% [markdown]
# Eight bits have 256 values, so that the expectation can be *added up*: `sf.Enumerate()` has no variance, and
# is the reference for everything else. It costs less than it seems to: the codes are the same for all images,
# and `jax.vmap` computes them once, so that a minibatch of 64 decodes 256 codes in all; with two draws for
# each image it decodes 128.
#
# ## Training through the draw
#
# Six estimators of the same gradient; in brackets, how many codes are decoded for an image:
#
# - *no baseline*: the score function as in notebook 1. *RLOO*: REINFORCE with leave-one-out, notebook 2.
# - `DisARM` draws two codes from the same noise, mirrored, and compares them. Like the two before, it only
#   needs *values* of the decoder's log-likelihood.
# - `StraightThrough` draws, and differentiates as if the draw were the probability; `ReinMax` is a better
#   rule of the same kind. They need the decoder's derivative, one code, and are **biased**.

# %%
every, blocks, seeds = (5, 2, 2) if SMOKE else (200, 10, 3)
optimizer = optax.adam(3e-3)
keys = jax.random.split(jax.random.key(0), seeds)


def training(entries, keys, size=8, family=sf.Bernoulli):
    """Trains all entries side by side, from the same weights: {name: [keys, blocks, ...]}."""

    def loss(weights, batch, key):
        bounds = [bound(weights[k], batch, key, *entries[k], family=family) for k in entries]
        return -sum(bounds)  # no weight is in two of them: each has its own gradient

    def step(carry, key):
        weights, memory = carry
        batch_key, key = jax.random.split(key)
        batch = jax.random.choice(batch_key, seen, (64,))
        change, memory = optimizer.update(jax.grad(loss)(weights, batch, key), memory, weights)
        return (optax.apply_updates(weights, change), memory), None

    def block(carry, keys):
        carry, _ = jax.lax.scan(step, carry, keys)
        return carry, carry[0]

    @jax.jit
    def run(params, key):
        weights = dict.fromkeys(entries, params)
        keys = jax.random.split(key, (blocks, every))
        return jax.lax.scan(block, (weights, optimizer.init(weights)), keys)[1]

    runs = [run(start(key, size), key) for key in keys]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)


entries = {
    "Enumerate (256)": (sf.Enumerate(), 1),
    "no baseline (2)": (sf.ScoreFunction(sf.ConstantBaseline(0.0)), 2),
    "RLOO (2)": (sf.ScoreFunction(sf.LeaveOneOut()), 2),
    "DisARM (2)": (sf.DisARM(), 1),
    "StraightThrough (1)": (sf.StraightThrough(), 1),
    "ReinMax (1)": (sf.ReinMax(), 1),
}
weights = training(entries, keys)

# %% [markdown]
# How good were the weights on the way? The exact ELBO of all images seen, by enumeration:

# %%
exact_bound = jax.jit(jax.vmap(jax.vmap(lambda p: bound(p, seen, keys[0], sf.Enumerate()))))
curves = {name: exact_bound(weights[name]) for name in entries}

steps = every * np.arange(1, blocks + 1)
figure, axis = plt.subplots(figsize=(8, 3.6))
for color, (name, curve) in enumerate(curves.items()):
    axis.plot(steps, curve.mean(0), color=f"C{color}", label=name)
    axis.fill_between(steps, curve.min(0), curve.max(0), color=f"C{color}", alpha=0.2, linewidth=0)
axis.set(xlabel="step", ylabel="ELBO, nats an image")
axis.set_title(f"the exact ELBO while training; bands: worst and best of {seeds} runs")
axis.legend(loc="lower right")
plt.show()
final = {name: curve[:, -1].mean() for name, curve in curves.items()}
for name, elbo in final.items():
    print(f"{name:20s} after {steps[-1]} steps: {elbo:.2f} nats")
if not SMOKE:
    assert final["StraightThrough (1)"] < min(final[name] for name in entries if name[0] != "S")

# %% [markdown]
# Variance slows training; bias changes where it ends. Without a baseline the runs are slow. RLOO and DisARM
# lag behind the exact gradient, and keep improving. Straight-through keeps up in the beginning, with half of
# the evaluations, and then stops far below the others, where even the run without a baseline overtakes it:
# its gradient is that of another objective.
#
# Ten digits that no run has seen, through eight bits and back: the most probable code of each, decoded.


# %%
def show(axis, picture, **how):
    axis.imshow(np.reshape(picture, (8, 8)), **({"cmap": "gray_r", "vmin": 0, "vmax": 1} | how))
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(visible=True, color="0.8")


def decode(params, code):
    return jax.nn.sigmoid(network(params["decoder"], code))


last = {name: jax.tree.map(lambda leaf: leaf[0, -1], w) for name, w in weights.items()}
rows = {"the image": unseen[:10]}
for name in ("Enumerate (256)", "DisARM (2)", "StraightThrough (1)"):
    bits = jnp.float32(network(last[name]["encoder"], unseen[:10]) > 0)
    rows[name] = decode(last[name], bits)
figure, axes = plt.subplots(4, 10, figsize=(9, 4))
for line, (name, pictures) in zip(axes, rows.items(), strict=True):
    for axis, picture in zip(line, pictures, strict=True):
        show(axis, picture)
    line[0].set_ylabel(name.replace(" (", "\n("), rotation=0, ha="right", va="center")
plt.show()

# %% [markdown]
# ## Two kinds of error
#
# Now the measurement. The weights are fixed at three stages: before training, after the first block of steps,
# and at the end of an exact run. Take 20 images, and the gradient $g$ of their expected log-likelihoods along
# their logits, which is where the estimators differ. Of thousands of estimates $\hat g$ we want
#
# - the variance $\mathbb{E}\|\hat g - \mathbb{E}\hat g\|^2$;
# - the squared bias $\|\mathbb{E}\hat g - g\|^2$. The mean of N estimates is off $g$ even without a bias, on
#   average by variance / N in its square, which is subtracted;
# - whether there is a bias: for each image the mean error along its gradient, divided by its standard error.
#   That is a z; we look at the largest of 20, and call it a bias above 5.

# %%
few, repeats = seen[:20], 80 if SMOKE else 4000


def total(logits, decoder, leaves, key, choose, family=sf.Bernoulli):
    """The log-likelihoods of the 20 images, summed; of each entry by its own copy of the logits."""

    def one(logits, image, key):
        f = partial(log_likelihood, decoder, image)
        return sum(
            sf.expectation(f, family(logits[name]), key, estimator, num_samples=n)
            for name, (estimator, n) in choose(leaves, image).items()
        )

    return jnp.sum(jax.vmap(one)(logits, few, jax.random.split(key, len(few))))


def measurement(choose, family=sf.Bernoulli):
    """A function of weights to {name: (variance, |bias| / |gradient|, largest |z|)}."""

    def entries(leaves, image):
        return {"exact": (sf.Enumerate(), 1), **choose(leaves, image)}

    @jax.jit
    def gradients(params, leaves):
        logits = dict.fromkeys(entries(leaves, few[0]), network(params["encoder"], few))

        def gradient(key):
            return jax.grad(total)(logits, params["decoder"], leaves, key, entries, family)

        keys = jax.random.split(jax.random.key(1), repeats)
        return jax.lax.map(gradient, keys, batch_size=repeats // 20)

    def measure(params, leaves=None):
        found = {name: np.asarray(g) for name, g in gradients(params, leaves).items()}
        exact, result = found.pop("exact")[0], {}
        for name, g in found.items():
            variance = g.var(0, ddof=1).sum()
            square = np.sum((g.mean(0) - exact) ** 2) - variance / repeats
            along, scale = np.sum((g - exact) * exact, -1), np.sum(exact**2, -1)
            # Rounding counts as error: a sum over all values has no other.
            z = along.mean(0) / (along.std(0) / np.sqrt(repeats) + 1e-4 * scale)
            result[name] = variance, np.sqrt(max(square, 0) / np.sum(exact**2)), np.abs(z).max()
        return result

    return measure


def stages(runs, late):
    """The weights of the first run at three moments."""
    untrained = start(keys[0], runs["encoder"][1][1].shape[-1])
    after = {f"step {steps[i]}": jax.tree.map(lambda x, i=i: x[0, i], runs) for i in (0, late)}
    return {"untrained": untrained, **after}


bars = {
    "RLOO (2)": entries["RLOO (2)"],
    "DisARM (2)": entries["DisARM (2)"],
    "ARMS (4)": (sf.ARMS(), 4),
    "REBAR (3)": (sf.REBAR(0.5), 1),
    "LocalExpectation (9)": (sf.LocalExpectation(), 1),
    "StraightThrough (1)": entries["StraightThrough (1)"],
    "ReinMax (1)": entries["ReinMax (1)"],
    "GumbelSoftmax (1)": (sf.GumbelSoftmax(0.5), 1),
}
bit_stages = stages(weights["Enumerate (256)"], -1)
measure = measurement(lambda *_: bars)
found = {stage: measure(params) for stage, params in bit_stages.items()}


# %%
def draw_bars(axis, names, found, values):
    """Of each name a bar for each stage; values takes the rows of one stage, as an array."""
    place = np.arange(len(names))
    for k, (stage, rows) in enumerate(found.items()):
        heights = values(np.array([rows[name] for name in names]))
        axis.barh(place + 0.27 * (k - 1), heights, 0.25, color=["C6", "C2", "C0"][k], label=stage)
    axis.set_yticks(place, names)
    axis.set_ylim(len(names) - 0.5, -0.5)


figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
draw_bars(axes[0], list(bars), found, lambda rows: rows[:, 0] / rows[0, 0])
draw_bars(axes[1], list(bars), found, lambda rows: np.where(rows[:, 2] > 5, rows[:, 1], 0))
axes[0].set(xscale="log", xlabel="variance relative to leave-one-out (2 draws)")
axes[0].axvline(1, color="0.4", linewidth=0.8)
axes[1].set(xlabel="|bias| / |gradient| (shown if |z| > 5)")
axes[1].legend(loc="upper right")
plt.show()

print(f"{'largest of 20 |z|':22s}" + "".join(f"{stage:>12s}" for stage in found))
for name, (estimator, _) in bars.items():
    z = np.array([rows[name][2] for rows in found.values()])
    print(f"{name:22s}" + "".join(f"{x:12.1f}" for x in z))
    if not SMOKE:
        # Each is what it says it is.
        assert np.all(z < 5) if estimator.unbiased else z[-1] > 5

# %% [markdown]
# On the left: `DisARM` is a little below RLOO with as many evaluations, `ARMS` a little below the
# third that four draws give. `LocalExpectation` tries both values of each bit in turn, nine codes in all,
# and has far less variance; use it where the decoder is cheap for many codes at once.
#
# On the right, the bias. Before training, `ReinMax` is nearly unbiased and nearly without noise. The better
# the model, the larger the bias of all of them. No bias was found in the others; every estimator declares
# whether it is biased: `sf.ReinMax().unbiased` is `False`.
#
# ### Where the bias comes from
#
# One bit of probability $p = \sigma(\theta)$. The mean of $f(b)$ is $p f(1) + (1 - p) f(0)$, so the exact
# derivative is $p(1-p)$ times the slope of the *secant*. Straight-through takes the slope of $f$ at the end
# that was drawn; ReinMax, on average, the mean of the slopes at both ends, which is right if $f$ is quadratic
# (the trapezoidal rule). $f$ is never evaluated *between* 0 and 1, and yet its shape there determines these
# slopes:


# %%
def f(b):
    return b - 1.4 * b**3


slope0, slope1 = jax.grad(f)(0.0), jax.grad(f)(1.0)
logits = jnp.linspace(-4, 4, 81)
p = jax.nn.sigmoid(logits)
v = p * (1 - p)
derivatives = {  # estimator: its mean and its variance, see their docstrings
    sf.StraightThrough(): (v * (p * slope1 + (1 - p) * slope0), v**3 * (slope1 - slope0) ** 2),
    sf.ReinMax(): (v * (slope1 + slope0) / 2, v * ((1 - p) * slope1 - p * slope0) ** 2 / 4),
}
n = 100 if SMOKE else 4000

figure, axes = plt.subplots(1, 2, figsize=(10, 3.3))
line = jnp.linspace(0, 1, 50)
axes[0].plot(
    line, f(line), color="0.6", linestyle=":", label="f between the draws (never evaluated)"
)
axes[0].plot([0, 1], [f(0.0), f(1.0)], "o-", color="C0", label="secant")
axes[0].plot([0, 0.25], [0, 0.25 * slope0], color="C1", linewidth=3, label="slopes at the draws")
axes[0].plot([0.75, 1], [f(1.0) - 0.25 * slope1, f(1.0)], color="C1", linewidth=3)
axes[0].set(xlabel="b", ylabel="f(b)", ylim=(-0.85, 0.45))
axes[0].legend(loc="lower left")
axes[1].plot(p, v * (f(1.0) - f(0.0)), color="C0", label="exact")
for color, (estimator, (mean, variance)) in zip(["C1", "C2"], derivatives.items(), strict=True):

    def loss(logit, key, estimator=estimator):
        return sf.expectation(f, sf.Bernoulli(logit), key, estimator, num_samples=n)

    dots = jax.jit(jax.vmap(jax.grad(loss)))(logits[::5], jax.random.split(keys[0], 17))
    z = (dots - mean[::5]) / jnp.sqrt(variance[::5] / n)
    print(f"{estimator}: largest |z| of the dots {jnp.max(jnp.abs(z)):.1f}")
    axes[1].plot(p, mean, color=color, label=type(estimator).__name__)
    axes[1].plot(p[::5], dots, "o", color=color, markersize=4)
axes[1].set(xlabel="p, the probability of 1", ylabel="mean derivative along the logit")
axes[1].set_title(f"lines: formula; dots: means of {n} samples")
axes[1].legend()
plt.show()

# %% [markdown]
# Here 1 is the worse value, at every $p$. Where it is rare, straight-through nearly always sees the slope at 0
# and makes it *more* likely. A likelihood under a network is not quadratic between codes, and it is the more
# curved the larger the weights are, as after training.
#
# `GumbelSoftmax` uses codes between 0 and 1: it is the right gradient of *another* objective. A lower
# temperature brings that objective closer and makes the estimates noisier (exercise 3).
#
# ## Control variates that learn
#
# `REBAR` uses the relaxed draw as a *control variate*: its derivative is added by the pathwise estimator and
# subtracted by the score function, so that the mean is right for any relaxation. How much it helps depends on a
# temperature and a coefficient; the values guessed above increased the variance on the trained model.
# `RELAX` takes a function of your own instead: here a small network that sees the noisy logits and the
# image, and never
# calls the decoder.
#
# The mean does not depend on what is in a control variate. So the derivative of the *squared norm* of one
# estimate is, on average, that of the variance: `sf.squared_gradient`. Adam learns from it, on the trained
# model held fixed (in a real run, one such step after each step of the model):


# %%
def surrogate(params, z):
    net, image = params
    return network(net, jnp.concatenate([jax.nn.sigmoid(z), image]))[0]


def learned(leaves, image):
    rebar = sf.REBAR(jnp.exp(leaves["log_temperature"]), leaves["coefficient"])
    return {"REBAR (3)": (rebar, 1), "RELAX (1)": (sf.RELAX(surrogate, (leaves["net"], image)), 1)}


model = bit_stages[f"step {steps[-1]}"]
hidden = jax.nn.initializers.glorot_normal()(keys[1], (72, 32))
leaves = {
    "log_temperature": jnp.log(0.5),
    "coefficient": jnp.array(1.0),
    # It starts as a constant near the log-likelihoods: a plain baseline.
    "net": [(hidden, jnp.zeros(32)), (jnp.zeros((32, 1)), jnp.full(1, -18.0))],
}
slow, num_steps = optax.adam(0.02), 6 if SMOKE else 1000


@jax.jit
def learn(leaves, keys):
    """The leaves after each step, [steps, ...]."""
    logits = dict.fromkeys(learned(leaves, few[0]), network(model["encoder"], few))

    def loss(logits, key, leaves):
        return total(logits, model["decoder"], leaves, key, learned)

    def step(carry, key):
        leaves, memory = carry
        slope = jax.grad(sf.squared_gradient, argnums=3)(loss, logits, key, leaves)
        change, memory = slow.update(slope, memory, leaves)
        leaves = optax.apply_updates(leaves, change)
        return (leaves, memory), leaves

    return jax.lax.scan(step, (leaves, slow.init(leaves)), keys)[1]


path = learn(leaves, jax.random.split(jax.random.key(3), num_steps))
at = np.linspace(0, num_steps, 4, dtype=int)
history = [leaves, *(jax.tree.map(lambda x, i=i: x[i - 1], path) for i in at[1:])]
measure_learned = measurement(learned)
learning = [measure_learned(model, one) for one in history]

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3))
reference = found[f"step {steps[-1]}"]
for name, color in [("REBAR (3)", "C1"), ("RELAX (1)", "C3")]:
    variances = [row[name][0] for row in learning]
    axes[0].plot(at, variances, "o-", color=color, label=name)
    print(f"{name}: variance {variances[0]:.0f} nats², learned {variances[-1]:.0f} nats²")
    if not SMOKE:
        assert variances[-1] < variances[0] / 2
        assert learning[-1][name][2] < 5  # no bias
for name, style in [("RLOO (2)", "--"), ("DisARM (2)", ":")]:
    axes[0].axhline(reference[name][0], color="C0", linestyle=style, label=name)
axes[0].set(xlabel="learning step", ylabel="variance, nats²", yscale="log")
axes[0].legend()
axes[1].plot(jnp.exp(path["log_temperature"]), color="C2", label="temperature")
axes[1].plot(path["coefficient"], color="C4", label="coefficient")
axes[1].set(xlabel="learning step", title="the two leaves of REBAR")
axes[1].legend()
plt.show()

# %% [markdown]
# After learning, the variance of both is about that of RLOO, and above that of `DisARM`, which has nothing
# to learn: measure before you add machinery. RELAX needs *one* evaluation of the decoder, which matters
# where that is expensive; and its network was trained on these 20 images and this one model only.
#
# ## One of twenty
#
# The same model with another family: the code is one of 20 categories, one-hot. An expectation over 20 values
# is a short sum, and `LocalExpectation` on a single variable *is* that sum. If the decoder were large, we
# would ask what four evaluations of it buy. `UnorderedSet` draws four *different* categories; `SumAndSample(3)`
# sums the three most probable and draws one of the rest; `CoupledCategorical` is DisARM's pair for categories.

# %%
one_hot = training({"Enumerate (20)": (sf.Enumerate(), 1)}, keys[:1], 20, sf.OneHotCategorical)
word_stages = stages(one_hot["Enumerate (20)"], 1)
words = {
    "RLOO (2)": entries["RLOO (2)"],
    "CoupledCategorical (2)": (sf.CoupledCategorical(), 1),
    "RLOO (4)": (sf.ScoreFunction(sf.LeaveOneOut()), 4),
    "UnorderedSet (4)": (sf.UnorderedSet(), 4),
    "SumAndSample (4)": (sf.SumAndSample(3), 1),
    "LocalExpectation (20)": (sf.LocalExpectation(), 1),
}
measure_words = measurement(lambda *_: words, sf.OneHotCategorical)
found_words = {}
for stage, params in word_stages.items():
    log_q = jax.nn.log_softmax(network(params["encoder"], few))
    entropy = -jnp.mean(jnp.sum(jnp.exp(log_q) * log_q, -1))
    found_words[f"{stage}, entropy {entropy:.1f}"] = measure_words(params)

figure, axis = plt.subplots(figsize=(8, 3.2))
draw_bars(axis, list(words), found_words, lambda rows: rows[:, 0] / rows[0, 0])
axis.set(xscale="log", xlim=(1e-6, 4), xlabel="variance relative to leave-one-out (2 draws)")
axis.text(1.2e-6, len(words) - 1, "exact", va="center")
axis.axvline(1, color="0.4", linewidth=0.8)
axis.legend(loc="lower left", bbox_to_anchor=(1.0, 0.3))
plt.show()
for name in words:
    row = (f"{rows[name][0] / rows['RLOO (2)'][0]:12.2g}" for rows in found_words.values())
    print(f"{name:22s}" + "".join(row))
    if not SMOKE:
        assert all(rows[name][2] < 5 for rows in found_words.values())

# %% [markdown]
# While $q$ is nearly uniform (entropy up to $\log 20 = 3.0$) nothing does much better than as many independent
# draws. Once $q$ is concentrated for most images, sets of different categories hold nearly all the
# probability, and their variance is almost 0: independent draws would be the same category four times. The
# coupled pair gains almost nothing.
#
# ## What the bits and the categories mean
#
# A bit means what it changes in the picture: below, the mean picture over all codes with the bit at 1, minus
# that with the bit at 0. The second row shows new digits: eight fair coins for each, decoded.

# %%
codes = jnp.asarray(np.indices((2,) * 8).reshape(8, -1).T, jnp.float32)  # [256, 8]
decoded = decode(model, codes)
figure, axes = plt.subplots(2, 8, figsize=(9, 2.7))
for i, axis in enumerate(axes[0]):
    effect = decoded[codes[:, i] == 1].mean(0) - decoded[codes[:, i] == 0].mean(0)
    show(axis, effect, cmap="RdBu_r", vmin=-0.6, vmax=0.6)
    axis.set_title(f"bit {i + 1}")
for axis, code in zip(axes[1], jax.random.bernoulli(keys[0], 0.5, (8, 8)), strict=True):
    show(axis, decode(model, jnp.float32(code)))
axes[0, 0].set_ylabel("1 minus 0")
axes[1, 0].set_ylabel("sampled")
plt.show()

# %% [markdown]
# No bit is a digit: each moves strokes about, and 256 combinations share them. Some codes are used by hardly
# any image (exercise 2), so that the samples are of mixed quality. A *category* shares nothing. It has to be
# a whole picture, and the encoder only learns which of twenty pictures fits best. The labels of the digits
# were never used.

# %%
word_model = jax.tree.map(lambda leaf: leaf[0, -1], one_hot["Enumerate (20)"])
chosen = np.asarray(jnp.argmax(network(word_model["encoder"], seen), -1))
counts = np.array([np.bincount(digits.target[:1500][chosen == k], minlength=10) for k in range(20)])
figure, axes = plt.subplots(2, 10, figsize=(10, 2.9))
for axis, k in zip(axes.flat, np.argsort(counts.argmax(1), kind="stable"), strict=True):
    show(axis, decode(word_model, jnp.eye(20)[k]))
    images_of_k, most = counts[k].sum(), counts[k].argmax()
    share = counts[k, most] / max(images_of_k, 1)
    axis.set_title(f"{most} in {share:.0%}" if images_of_k else "not used", fontsize=9)
    axis.set_xlabel(f"{images_of_k} images", fontsize=8)
figure.suptitle("what each of the twenty categories decodes to; which digit its images mostly are")
plt.show()
print(f"digits guessed right from the category alone: {counts.max(1).sum() / 1500:.0%}")

# %% [markdown]
# ## What to use when
#
# | your latent | use |
# |---|---|
# | few values in all (up to some thousand) and a cheap decoder | `Enumerate()`: no variance |
# | bits, two evaluations | `DisARM()`; three and more: `ARMS()` |
# | bits, and the decoder is cheap for many codes at once | `LocalExpectation()` |
# | one categorical variable | `UnorderedSet()`; `SumAndSample(k)` if k categories have nearly all probability |
# | several categorical variables | `ScoreFunction(LeaveOneOut())` with 4 samples or more |
# | one evaluation of an expensive decoder | `RELAX`, learned; or a `MovingAverage` as the baseline |
# | a bias is acceptable: the first steps, a quick look | `ReinMax()`; then change to one of those above |
#
# `sf.compare` measures all of these on your own loss, and `docs/estimators.md` says more.
#
# ## Exercises
#
# 1. The mean of straight-through needs no sampling: add up $p_i(1 - p_i)\, \partial f / \partial b_i$ over
#    all 256 codes. How large is the bias on the trained model, exactly?
# 2. How many of the 256 codes are used? Average $q(b \mid x)$ over the images seen, and take the exponential of
#    its entropy.
# 3. Bias and variance of `GumbelSoftmax` at the temperatures 1, 0.5 and 0.1, on the trained model.
#
# ## Solutions
#
# **1.** The same sum with $f(b)\,(b_i - p_i)$ in the place of the slopes is the exact gradient.


# %%
def posterior(logits):
    return jax.vmap(lambda code: jnp.exp(sf.Bernoulli(logits).log_prob(code)))(codes)


def both(logits, image):
    f = partial(log_likelihood, model["decoder"], image)
    q, p = posterior(logits), jax.nn.sigmoid(logits)
    straight = p * (1 - p) * (q @ jax.vmap(jax.grad(f))(codes))
    return straight, (q * jax.vmap(f)(codes)) @ (codes - p)


straight, gradient = jax.jit(jax.vmap(both))(network(model["encoder"], few), few)
bias = jnp.linalg.norm(straight - gradient) / jnp.linalg.norm(gradient)
measured = reference["StraightThrough (1)"][1]
print(f"|bias| / |gradient|: exact {bias:.4f}, measured {measured:.4f}")
if not SMOKE:
    np.testing.assert_allclose(measured, bias, rtol=0.03)

# %% [markdown]
# **2.** Not all of them: coin flips also hit codes that hardly any image has taught the decoder.

# %%
used = jnp.mean(jax.vmap(posterior)(network(model["encoder"], seen)), 0)
print(f"as many as {jnp.exp(-jnp.sum(used * jnp.log(used + 1e-30))):.0f} of 256, used evenly")

# %% [markdown]
# **3.** The temperature trades one error for the other. It is a leaf of the estimator, so that one compiled
# program serves all three.

# %%
measure_soft = measurement(lambda temperature, _: {"soft": (sf.GumbelSoftmax(temperature), 1)})
for temperature in (1.0, 0.5, 0.1):
    variance, bias, _ = measure_soft(model, temperature)["soft"]
    print(f"at {temperature}: variance {variance:4.0f} nats², |bias| / |gradient| {bias:.2f}")
