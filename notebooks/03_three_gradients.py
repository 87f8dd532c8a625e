# %% [markdown]
# # 3. Three gradients
#
# There are three ways to differentiate an expectation over a draw: move the density, move the draw, or split
# the derivative of the density into two halves. Each is best for some problems. This notebook measures for
# which, beside exact curves: rough and smooth costs, many dimensions, a jump. It ends with one page of
# gradients that are silently wrong.
#
# [All notebooks](README.md) · previous: [2. REINFORCE and baselines](02_reinforce_and_baselines.ipynb) ·
# next: [4. Control variates and sampling](04_control_variates_and_sampling.ipynb)

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

import distrax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as numpyro_distributions
import tensorflow_probability.substrates.jax as tfp
from matplotlib.colors import ListedColormap

import scorefn as sf

if os.path.exists("notebook.mplstyle"):  # not on Colab
    plt.style.use("notebook.mplstyle")
SMOKE = "SCOREFN_SMOKE" in os.environ  # set by the tests: fewer samples

# %% [markdown]
# ## Three readings of one integral
#
# A draw $x \sim \mathcal{N}(\mu, \sigma^2)$ has a cost $f(x)$. How does the mean cost change with $\mu$?
#
# **Score function.** Move the density. Its derivative is $p$ times the score (notebook 1):
#
# $$\frac{\partial}{\partial\mu} \int f\,p\,dx = \int f\,\frac{\partial p}{\partial\mu}\,dx =
# \mathbb{E}\Big[f(x)\,\frac{x - \mu}{\sigma^2}\Big].$$
#
# **Pathwise.** Move the draw. Write $x = \mu + \sigma z$ with a $z$ that does not depend on $\mu$, and
# differentiate $f$:
#
# $$\frac{\partial}{\partial\mu}\,\mathbb{E}[f(\mu + \sigma z)] = \mathbb{E}[f'(x)].$$
#
# **Measure-valued.** The derivative of the density is positive on the right and negative on the left. Each
# half, scaled to area 1, is a density of its own, and can be sampled:
#
# $$\frac{\partial p}{\partial\mu} = \frac{1}{\sigma\sqrt{2\pi}}\,(p^+ - p^-), \qquad
# \frac{\partial}{\partial\mu}\,\mathbb{E} f = \frac{1}{\sigma\sqrt{2\pi}}\,\mathbb{E}\big[f(\mu + \sigma r)
# - f(\mu - \sigma r)\big],$$
#
# where $r$ has the density $r\,e^{-r^2/2}$ of Rayleigh. The two points share one $r$: the noise that they
# share cancels.

# %%
MU, SIGMA = 1.0, 1.0
x = np.linspace(-2.5, 4.5, 400)
density = np.exp(-((x - MU) ** 2) / 2) / np.sqrt(2 * np.pi)
slope = density * (x - MU)  # the derivative of the density along mu


def wave(x):
    return 0.25 + 0.1 * np.cos(2.2 * x)


figure, axes = plt.subplots(1, 3, figsize=(10, 2.9), sharey=True)
for axis in axes:
    axis.plot(x, wave(x), color="C3", label="f")
    axis.set(xlabel="x", ylim=(-0.3, 0.72))
axes[0].plot(x, density, color="C0", label="p")
axes[0].plot(x, slope, color="C2", label="p × score")
axes[0].set_title("score function: f × score")
axes[1].plot(x, density, color="C0", label="p")
for at in (-0.3, 0.6, 1.4, 2.3):
    axes[1].plot([at], [wave(at)], "o", color="C1")
    tip = (at + 0.5, wave(at + 0.5))
    axes[1].annotate("", tip, (at, wave(at)), arrowprops={"arrowstyle": "-|>", "color": "C1"})
axes[1].set_title("pathwise: move the draws along f")
axes[2].fill_between(x, np.clip(slope, 0, None), color="C2", alpha=0.4, label="0.40 p⁺")
axes[2].fill_between(x, np.clip(slope, None, 0), color="C4", alpha=0.5, label="0.40 p⁻")
axes[2].plot([MU - 1, MU + 1], wave(np.array([MU - 1, MU + 1])), "o:", color="C1")
axes[2].set_title("measure-valued: f at p⁺ minus f at p⁻")
for axis in axes:
    axis.legend(loc="upper left", ncols=3)
plt.show()

# %% [markdown]
# Written out for $f(x) = (x - 3)^2$ at $\mu = 1$, and by the library. The exact derivative is
# $2(\mu - 3) = -4$.


# %%
def f(x):
    return (x - 3.0) ** 2


def by_hand(key):
    z_key, r_key = jax.random.split(key)
    z = jax.random.normal(z_key)
    r = jnp.sqrt(-2 * jnp.log1p(-jax.random.uniform(r_key)))
    return {
        "ScoreFunction": f(MU + SIGMA * z) * z / SIGMA,
        "Pathwise": jax.grad(f)(MU + SIGMA * z),
        "MeasureValued": (f(MU + SIGMA * r) - f(MU - SIGMA * r)) / (SIGMA * jnp.sqrt(2 * jnp.pi)),
    }


estimators = {
    "ScoreFunction": sf.ScoreFunction(sf.ConstantBaseline(0.0)),
    "Pathwise": sf.Pathwise(),
    "MeasureValued": sf.MeasureValued(),
}


def by_library(key):
    def loss(mu, estimator):
        return sf.expectation(f, distrax.Normal(mu, SIGMA), key, estimator)

    return {name: jax.grad(loss)(MU, estimator) for name, estimator in estimators.items()}


repeats = 512 if SMOKE else 51_200
keys = jax.random.split(jax.random.key(0), repeats)
draws_of_both = jax.jit(jax.vmap(lambda key: (by_hand(key), by_library(key))))(keys)
means, variances = (jax.tree.map(of, draws_of_both) for of in (np.mean, np.var))
d2 = (MU - 3.0) ** 2
exact_variance = {
    "ScoreFunction": d2**2 + 14 * d2 + 15,
    "Pathwise": 4.0,
    "MeasureValued": d2 * (16 / np.pi - 4),
}
print("               mean: by hand  library   variance: by hand  library  exact")
for name in estimators:
    found = [pair[name] for pair in (*means, *variances)] + [exact_variance[name]]
    print("{:14s}{:14.3f}{:9.3f}{:19.2f}{:9.2f}{:7.2f}".format(name, *found))
    np.testing.assert_allclose(found[:2], -4.0, atol=6 * np.sqrt(found[4] / repeats))

# %% [markdown]
# All three are right, and their variances differ by a factor of 20. Their requirements differ too:

# %%
for name, estimator in estimators.items():
    print(f"{name}\n  needs: {estimator.needs}\n  evaluations of f: {estimator.evaluations}")

# %% [markdown]
# ## The figures of Mohamed et al. (2020)
#
# Three costs with a constant $k$: a parabola, a bump that grows narrow, a wave that grows fast. The variance of
# one gradient (one term, no baseline, as in the paper) along the mean and along the scale. Lines are exact, by
# quadrature over $z$; points are measured with the library.

# %%
z = np.linspace(-12.0, 12.0, 6001)
weight = np.exp(-(z**2) / 2)
weight /= weight.sum()
middles = (np.arange(64) + 0.5) / 64  # of the uniform numbers between 0 and 1


def costs(x, k):
    """The three costs [3] at the three k."""
    return jnp.stack([(x - k[0]) ** 2, jnp.exp(-k[1] * x**2), jnp.cos(k[2] * x)])


formulas = ["(x - k)²", "exp(-k x²)", "cos(k x)"]
values = [lambda x, k: (x - k) ** 2, lambda x, k: np.exp(-k * x**2), lambda x, k: np.cos(k * x)]
slopes = [
    lambda x, k: 2 * (x - k),
    lambda x, k: -2 * k * x * np.exp(-k * x**2),
    lambda x, k: -k * np.sin(k * x),
]


def exact_variances(cost, k, sigma, *, baseline=False):
    """[score function, pathwise, measure-valued] by [mean, scale]."""
    x = MU + sigma * z
    f, path = values[cost](x, k), slopes[cost](x, k)
    squares = np.zeros((3, 2))
    centered = f - (weight @ f if baseline else 0.0)
    for j, (score, moved) in enumerate([(z / sigma, 1.0), ((z**2 - 1) / sigma, z)]):
        gradient = weight @ (path * moved)
        squares[0, j] = weight @ (centered * score) ** 2 - gradient**2
        squares[1, j] = weight @ (path * moved) ** 2 - gradient**2
        squares[2, j] = -(gradient**2)
    # Along the mean: r is |z|, weighted by its size. Along the scale: of the two points one is m with
    # the density z^2 p(z), Maxwell's on both sides; the other is m times a uniform number, a normal.
    squares[2, 0] += weight @ (np.abs(z) * (f - f[::-1]) ** 2) / np.sqrt(8 * np.pi) / sigma**2
    m, w = z[::20], weight[::20] * 20
    inner = values[cost](MU + sigma * m[:, None] * middles, k)
    squares[2, 1] += w @ (m**2 * np.mean((f[::20, None] - inner) ** 2, 1)) / sigma**2
    return squares


ranges = [(-2.0, 4.0), (0.1, 10.0), (0.2, 10.0)]
lines = np.linspace(*np.transpose(ranges), 60)  # [60, 3]
points = np.linspace(*np.transpose(ranges), 6) + 0.05
exact_lines, exact_points = (
    np.array([[exact_variances(c, k, SIGMA) for c, k in enumerate(row)] for row in rows])
    for rows in (lines, points)
)  # [60 or 6, cost, estimator, parameter]


def gradients(estimator, k, key):
    """The derivatives of the three mean costs along mean and scale."""

    def loss(params):
        normal = distrax.Normal(*params)
        return sf.expectation(lambda x: costs(x, k), normal, key, estimator)

    return jnp.stack(jax.jacfwd(loss)((MU, SIGMA)), -1)


@jax.jit
def measured(estimator):
    keys = jax.random.split(jax.random.key(1), 512 if SMOKE else 20_480)

    def variances(k):
        found = jax.vmap(lambda key: gradients(estimator, k, key))(keys)
        return jnp.var(found, 0, ddof=1)

    return jax.lax.map(variances, jnp.asarray(points, jnp.float32))


colors = {"ScoreFunction": "C2", "Pathwise": "C1", "MeasureValued": "C3"}
figure, axes = plt.subplots(2, 3, figsize=(10, 4.5), sharex="col")
for i, (name, estimator) in enumerate(estimators.items()):
    found = np.asarray(measured(estimator))
    ratio = found / exact_points[:, :, i]
    print(f"{name:14s} measured / exact: {ratio.min():.2f} to {ratio.max():.2f}")
    for c in range(3):
        for j in range(2):
            axes[j, c].plot(lines[:, c], exact_lines[:, c, i, j], color=colors[name], label=name)
            axes[j, c].plot(points[:, c], found[:, c, j], ".", color=colors[name])
for c in range(3):
    axes[0, c].set(title=formulas[c], yscale="log")
    axes[1, c].set(xlabel="k", yscale="log")
axes[0, 0].set_ylabel("variance along the mean")
axes[1, 0].set_ylabel("variance along the scale")
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
plt.show()

# %% [markdown]
# - **Smooth costs**: pathwise beats the score function, for the parabola by a factor of 4 to 60. It uses the
#   slope of $f$, where the score function uses only its value.
# - **Rough costs**: the derivative of $\cos(kx)$ grows like $k$, and the pathwise variance like $k^2$, while
#   the wave itself stays between -1 and 1. The other two use only values, so the frequency hardly matters to
#   them.
# - **Measure-valued** is hardly ever bad here. Where both points cost the same (the parabola at $k = \mu$,
#   the wave at multiples of $\pi$) it has no noise along the mean at all.
# - The score function has the heaviest tails: its points scatter most around their lines.
#
# From which $k$ on does the score function win along the mean?

# %%
for c in (1, 2):
    wins = exact_lines[:, c, 0, 0] < exact_lines[:, c, 1, 0]
    print(
        f"{formulas[c]}: score function below pathwise from k = {lines[np.argmax(wins), c]:.1f} on"
    )
    assert (wins[0], wins[-1]) == (False, True)

# %% [markdown]
# ## Which is cheaper?
#
# The measure-valued gradient pays in evaluations: 4 of $f$ for the value and both parameters, where the
# others need 1. Four samples averaged have a quarter of the variance, so the fair number is *variance ×
# evaluations*. The score function is not used without a baseline in practice; it gets the mean cost here,
# which leave-one-out comes close to. The maps show which of the three has the least, mean and scale together,
# over $k$ and over the scale $\sigma$:

# %%
size = 5 if SMOKE else 40
sigmas = np.geomspace(0.1, 3.0, size)
figure, axes = plt.subplots(1, 3, figsize=(10, 3.1), sharey=True)
palette = ListedColormap(["#56B4E9", "#E69F00", "#009E73"])
for c, axis in enumerate(axes):
    ks = np.linspace(*ranges[c], size)
    grid = [[exact_variances(c, k, sigma, baseline=True).sum(1) for k in ks] for sigma in sigmas]
    winner = np.argmin(np.array(grid) * [1, 1, 4], 2)
    axis.pcolormesh(ks, sigmas, winner, cmap=palette, vmin=0, vmax=2, shading="nearest")
    axis.set(title=formulas[c], xlabel="k", yscale="log")
    axis.grid(visible=False)
waves = np.linspace(1.3 / 3, 10.0, 100)
axes[2].plot(waves, 1.3 / waves, color="C0", linestyle="--", label="k σ = 1.3")
axes[2].legend()
axes[0].set_ylabel("scale σ")
patches = [plt.Rectangle((0, 0), 1, 1, color=palette(i)) for i in range(3)]
figure.legend(patches, estimators, loc="outside upper center", ncols=3)
plt.show()

# %% [markdown]
# The border runs along $k\sigma \approx 1.3$: **pathwise wins where the cost is smooth on the scale of the
# noise**, and the score function where the draws span more than a fifth of a wave. With its four evaluations
# the measure-valued gradient is best only in narrow regions between them. (A derivative of $f$ takes two to
# three times as long as $f$, which is not counted here. If $f$ has no derivative, only the other two remain.)
#
# ## Many dimensions
#
# Now $x$ has $D$ components, $f(x) = \sum_d (x_d - 3)^2$, and one wants the derivatives along all $D$ means.
# Look at one of them. Pathwise and measure-valued move component 1 alone; the other terms of the sum stand
# still. The score function multiplies the *whole* cost by the score of component 1: the noise of $D - 1$
# terms that have nothing to do with it.

# %%
dimensions = jnp.array([1, 2, 4, 8, 16])
h2, h2z2, g = 4 * d2 + 2, 12 * d2 + 10, 2 * (MU - 3.0)  # of h = (x - 3)^2 less its mean
many = np.geomspace(1, 16, 50)
mean_cost = many * (d2 + 1)
exact_many = {
    "ScoreFunction": h2z2 - g**2 + (many - 1) * h2,
    "Pathwise": np.full(50, 4.0),
    "MeasureValued": np.full(50, d2 * (16 / np.pi - 4)),
}
evaluations = {"ScoreFunction": 1, "Pathwise": 1, "MeasureValued": 1 + 3 * many}
bare = exact_many["ScoreFunction"] + mean_cost**2 + 4 * mean_cost  # no baseline


@jax.jit(static_argnums=0)
def variances_of_first(name):
    """Of the derivative along the first mean, for each number of dimensions."""

    def variance(dimension):
        counts = jnp.arange(16) < dimension  # the cost does not look at the others
        baseline = sf.ConstantBaseline(dimension * (d2 + 1))  # the mean cost
        estimator = sf.ScoreFunction(baseline) if name == "ScoreFunction" else estimators[name]

        def loss(mean, key):
            normal = distrax.Normal(mean, 1.0)
            return sf.expectation(lambda x: jnp.sum(counts * f(x)), normal, key, estimator)

        keys = jax.random.split(jax.random.key(2), 512 if SMOKE else 20_480)
        found = jax.vmap(lambda key: jax.grad(loss)(jnp.full(16, MU), key)[0])(keys)
        return jnp.var(found, ddof=1)

    return jax.lax.map(variance, dimensions)


figure, axes = plt.subplots(1, 2, figsize=(10, 3.2))
for name, row in exact_many.items():
    axes[0].loglog(many, row, color=colors[name], label=name)
    axes[1].loglog(many, row * evaluations[name], color=colors[name], label=name)
    axes[0].plot(dimensions, variances_of_first(name), "o", color=colors[name])
axes[0].plot(many, bare, color=colors["ScoreFunction"], linestyle="--", label="without a baseline")
axes[0].set(xlabel="dimensions D", ylabel="variance of one component")
axes[1].set(xlabel="dimensions D", ylabel="variance × evaluations")
for axis in axes:
    axis.legend()
plt.show()

# %% [markdown]
# The variance of the score function grows like $D$ (like $D^2$ without a baseline); the measure-valued
# gradient needs $D$ times the evaluations; pathwise needs neither. That is why the encoder of a VAE is
# trained pathwise. If the cost *is* such a sum, the score function can use that: exercise 3.
#
# ## A jump
#
# Where the cost has no useful slope, pathwise is not noisy but wrong. A ramp from 0 to 1 at $x = 1$, of a width
# $\tau$ that goes to 0; $x \sim \mathcal{N}(0, 1)$.

# %%
nodes = np.linspace(-8.0, 8.0, 100_001)
chance = np.exp(-(nodes**2) / 2)
chance /= chance.sum()
widths = np.geomspace(1.0, 0.003, 40)


def ramp_variances(width):
    f = (1 + np.tanh((nodes - 1) / (2 * width))) / 2
    slope = f * (1 - f) / width
    gradient = chance @ slope
    pair = chance @ (np.abs(nodes) * (f - f[::-1]) ** 2) / np.sqrt(8 * np.pi)
    score = chance @ ((f - chance @ f) * nodes) ** 2
    return np.array([score, chance @ slope**2, pair]) - gradient**2


ramps = np.array([ramp_variances(width) for width in widths])
figure, axes = plt.subplots(1, 2, figsize=(10, 3.2))
near = np.linspace(0, 2, 401)
for width, color in [(0.3, "0.7"), (0.1, "0.5"), (0.03, "0.3")]:
    label = f"τ = {width}"
    axes[0].plot(near, (1 + np.tanh((near - 1) / (2 * width))) / 2, color=color, label=label)
axes[0].plot(near, near > 1, color="C0", linestyle="--", label="τ = 0")
axes[0].set(xlabel="x", ylabel="f")
axes[0].legend()
for i, name in enumerate(estimators):
    axes[1].loglog(widths, ramps[:, i], color=colors[name], label=name)
axes[1].set(xlabel="width τ of the ramp", ylabel="variance along the mean", ylim=(1e-2, 1e2))
axes[1].set_title("at τ = 0 the pathwise gradient is 0, and so is its variance")
axes[1].invert_xaxis()
axes[1].legend(loc="upper left")
plt.show()

# %% [markdown]
# The narrower the ramp, the rarer the draws on it, and the larger their slopes: the pathwise variance grows
# like $1/\tau$. At $\tau = 0$ no draw is ever on the ramp, and both the noise and the gradient are 0.
#
# A library cannot detect this: `f` is a function, and JAX has a derivative for it. The documentation of
# `Pathwise` says that $f$ has to be continuous, and `sf.check_unbiased` tests it. It needs an exact
# gradient. Here there is one; otherwise use a small version of your problem, or a long run of another
# estimator. Being
# late costs 1 for each minute, and 3 for a taxi from the first minute on:


# %%
def late(x):
    return x + 3.0 * (x > 1.0)


exact_late = 1.0 + 3.0 * jax.scipy.stats.norm.pdf(1.0)
for name, estimator in estimators.items():

    def late_loss(mean, key, estimator=estimator):
        return sf.expectation(late, distrax.Normal(mean, 1.0), key, estimator)

    report = sf.check_unbiased(
        late_loss, 0.0, jax.random.key(3), exact=exact_late, num_repeats=512 if SMOKE else 5120
    )
    print(f"{name}\n{report}\n")
    assert report.passed == (name != "Pathwise")

# %% [markdown]
# `Pathwise` returns 1 instead of 1.73, without any noise. Low variance does not mean that a gradient is right.
#
# ## Silent wrong gradients: one page
#
# A jump in `f` cannot be detected. Other gradients are lost in the *sampler*, where the loss can be
# detected. Here are three, written as one would write them in popular libraries; none of them raises. These
# libraries have the right densities, and do not claim that `jax.grad` of a sample is the gradient of the
# expectation.
#
# 1. **Mixture weights.** $x \sim \mathcal{N}(-1, 1)$ or $\mathcal{N}(2, 1)$, cost $x^2$, along the logit of
#    the second. The component is a discrete choice: the draw does not move smoothly with the weights, it
#    jumps.
# 2. **A mixed joint.** A coin $a$ with the logit $\theta$, then $x \sim \mathcal{N}(\theta + 1.5\,a, 1)$,
#    cost $x^2$. The derivative through the mean is there, the derivative through the coin is not. The result
#    is not 0, but wrong.
# 3. **`sample_and_log_prob`.** REINFORCE with the cost $(x - 3)^2$, draw and log-density from one call. The
#    draw in it moves with the parameters, $x = \mu + \sigma z$, so that $\log p(x) = -z^2/2 - \log\sigma$ and
#    a constant: $\mu$ is gone.

# %%
n = 500 if SMOKE else 50_000
tfd = tfp.distributions
libraries = {"distrax": distrax, "TFP on JAX": tfd, "numpyro": numpyro_distributions}


def draws(distribution, key, shape=(n,)):
    if isinstance(distribution, numpyro_distributions.Distribution):
        return distribution.sample(key, shape)
    return distribution.sample(seed=key, sample_shape=shape)


def mixture(d, logit):
    which = d.Categorical(logits=jnp.stack([0.0, logit]))
    return d.MixtureSameFamily(which, d.Normal(jnp.array([-1.0, 2.0]), jnp.ones(2)))


def joint(theta):
    """As one distribution of a pair, in TFP."""
    coin = tfd.Bernoulli(logits=theta, dtype=jnp.float32)
    return tfd.JointDistributionSequential([coin, lambda a: tfd.Normal(theta + 1.5 * a, 1.0)])


def two_draws(d, theta, key):
    """As two draws, in any library."""
    first, second = jax.random.split(key)
    a = draws(d.Bernoulli(logits=theta), first)
    return draws(d.Normal(theta + 1.5 * a, 1.0), second, ())


@sf.program
def joint_program(theta):
    """As two choices, each with the estimator that fits it."""
    a = yield sf.sample(sf.Bernoulli(theta), sf.ScoreFunction(), num_samples=n)
    x = yield sf.sample(distrax.Normal(theta + 1.5 * a, 1.0), sf.Pathwise())
    return x**2


def square(x):
    return x**2


def grads(losses, at=0.3):
    """The gradients of several losses, compiled together."""
    found = jax.jit(lambda at, key: [jax.grad(loss)(at, key) for loss in losses.values()])
    return dict(zip(losses, map(np.asarray, found(at, jax.random.key(4))), strict=True))


def expected(make, cost, estimator):
    return lambda v, key: sf.expectation(cost, make(v), key, estimator, num_samples=n)


def error_of(loss):
    try:
        jax.grad(loss)(0.3, jax.random.key(0))
    except TypeError as error:
        return str(error)


def our_mixture(logit):
    return sf.NormalMixture(jnp.stack([0.0, logit]), jnp.array([-1.0, 2.0]), jnp.ones(2))


weights = grads(
    {
        name: lambda v, key, d=d: jnp.mean(draws(mixture(d, v), key) ** 2)
        for name, d in libraries.items()
    }
    | {
        "sf.ScoreFunction": expected(lambda v: mixture(distrax, v), square, sf.ScoreFunction()),
        "sf.NormalMixture": expected(our_mixture, square, sf.Pathwise()),
    }
)
weights["sf.Pathwise"] = error_of(expected(lambda v: mixture(distrax, v), square, sf.Pathwise()))


def square_of_second(pair):
    return pair[1] ** 2


joints = grads(
    {
        "distrax": lambda v, key: jnp.mean(two_draws(distrax, v, key) ** 2),
        "TFP, joint": lambda v, key: jnp.mean(draws(joint(v), key)[1] ** 2),
        "numpyro": lambda v, key: jnp.mean(two_draws(numpyro_distributions, v, key) ** 2),
        "sf.ScoreFunction": expected(joint, square_of_second, sf.ScoreFunction()),
        "sf.program": lambda v, key: joint_program(v)(key),
    }
)
joints["sf.Pathwise"] = error_of(expected(joint, square_of_second, sf.Pathwise()))


def from_one_call(method):
    def loss(params, key):
        x, log_prob = method(params, key)
        return jnp.mean(jax.lax.stop_gradient(f(x)) * log_prob)

    return loss


def normal(params, d=distrax):
    return d.Normal(params[0], jnp.exp(params[1]))


pairs = grads(
    {
        "distrax": from_one_call(
            lambda v, key: normal(v).sample_and_log_prob(seed=key, sample_shape=(n,))
        ),
        "TFP on JAX": from_one_call(
            lambda v, key: normal(v, tfd).experimental_sample_and_log_prob(n, seed=key)
        ),
        "sf.ScoreFunction": expected(normal, f, sf.ScoreFunction()),
    },
    jnp.array([1.0, 0.0]),
)

# %%
p = jax.nn.sigmoid(0.3)
exact_weights = p * (1 - p) * (2.0**2 - 1.0**2)  # E x^2 is 2 or 5
exact_joint = p * (1 - p) * (1.8**2 - 0.3**2) + 2 * (0.3 + 1.5 * p)  # the coin, the mean
exact_pair = np.array([2 * (1.0 - 3.0), 2.0])  # of (mu - 3)^2 + sigma^2, along mu and log sigma

figure, axes = plt.subplots(1, 3, figsize=(10, 3.6))


def bars(axis, found, exact, title):
    for i, (name, value) in enumerate(found.items()):
        if isinstance(value, str):
            axis.text(0.03 * exact, i, "raises TypeError", va="center")
        else:
            axis.barh(i, value, color="C2" if name.startswith("sf") else "C1", height=0.6)
            axis.text(value + 0.03 * exact, i, f"{value:.2f}", va="center")
    axis.axvline(exact, color="C0", linestyle="--", linewidth=1)
    axis.set(title=f"{title}\nexact {exact:.3f}", xlim=(0, 1.35 * exact))
    axis.set_yticks(range(len(found)), found)
    axis.set_ylim(len(found) - 0.5, -0.5)


bars(axes[0], weights, exact_weights, "mixture weights")
bars(axes[1], joints, exact_joint, "a mixed joint")
rows = [(symbol, j, name) for j, symbol in enumerate(["μ", "log σ"]) for name in pairs]
for i, (_, j, name) in enumerate(rows):
    value = pairs[name][j]
    axes[2].barh(i, value, color="C2" if name.startswith("sf") else "C1", height=0.6)
    axes[2].text(max(value, 0) + 0.15, i, f"{value:.1f}", va="center")
axes[2].vlines(exact_pair, [-0.5, 2.5], [2.5, 5.5], color="C0", linestyle="--", linewidth=1)
axes[2].set_yticks(range(6), [f"{symbol}: {name}" for symbol, _, name in rows])
axes[2].set(title="sample_and_log_prob\nexact -4, 2", xlim=(-5.6, 3.4))
for axis in axes:
    axis.set_xlabel("gradient")
axes[2].invert_yaxis()
plt.show()

# %% [markdown]
# Dashed lines are exact; orange bars are returned without an error. The middle one is the hardest to notice:
# nothing is zero, the loss falls, and a quarter of the gradient is missing. `sf.Pathwise` refuses both while
# JAX traces, before anything is computed:

# %%
for found in (weights, joints):
    print(found["sf.Pathwise"], end="\n\n")
assert weights["distrax"] == weights["TFP on JAX"] == weights["numpyro"] == 0
for name in ("distrax", "TFP on JAX"):
    np.testing.assert_allclose(pairs[name][0], 0, atol=1e-3)
lost = p * (1 - p) * (1.8**2 - 0.3**2) / exact_joint
print(f"lost of the joint's gradient: {lost:.0%}")

# %% [markdown]
# What to do instead:
#
# - For weights and joints the score function, which asks only for a density; or `sf.NormalMixture`, whose draws
#   move with the weights (TFP has `reparameterize=True` for the same); or a program that gives each choice the
#   estimator that fits it (notebook 8), as numpyro's `TraceGraph_ELBO` does in its way.
# - In place of `sample_and_log_prob`: draw, *stop the gradient at the draw*, then ask for its log-density.
#   `sf.expectation` does that itself, always.
#
# [docs/peers.md](../docs/peers.md) has these and more, measured side by side.
#
# ## When each wins
#
# - **Pathwise**: continuous draws, a smooth cost (on the scale of the noise), many parameters. It then has
#   by far the least variance. Make sure that the cost has no jump, or check.
# - **Score function**: everything else. Discrete draws, rough costs, black boxes; with a baseline, several
#   samples, and few dimensions that the cost mixes.
# - **Measure-valued**: a black box or a rough cost, and few parameters; discrete factors with few values.
#
# ## Exercises
#
# 1. A coin: $\mathbb{E} f = \theta f(1) + (1 - \theta) f(0)$. What is its measure-valued derivative, and how
#    large is its variance? Check with `sf.MeasureValued`.
# 2. $f(x) = |x|$ has a kink and no jump. Is `Pathwise` right for the first derivative of $\mathbb{E}|x|$
#    along $\mu$, and for the second?
# 3. In the $D$-dimensional sum each term depends on one component. Declare this with `factor_ndim=1`. How
#    does the variance change?
#
# ## Solutions
#
# **1.** $f(1) - f(0)$, with no randomness left. (Along the logit it is multiplied by $\theta(1-\theta)$.)

# %%
logit = 0.4


def coin_loss(logit, key):
    return sf.expectation(lambda b: (b - 0.45) ** 2, sf.Bernoulli(logit), key, sf.MeasureValued())


theta = jax.nn.sigmoid(logit)
exact_coin = theta * (1 - theta) * (0.55**2 - 0.45**2)
found = jax.jit(jax.vmap(jax.grad(coin_loss), (None, 0)))(logit, jax.random.split(keys[0], 4))
print("four keys:", found, f"exact {exact_coin:.6f}")
np.testing.assert_allclose(found, exact_coin, rtol=1e-4)

# %% [markdown]
# **2.** For the first it is: the derivative of $|x|$ is missing at one point only, where no draw lies. But
# that derivative, the sign, *jumps*: the second derivative would silently be 0, so `Pathwise` refuses to take
# it. The score function is right at every order.

# %%
at = 0.5
cdf, pdf = jax.scipy.stats.norm.cdf(at), jax.scipy.stats.norm.pdf(at)


def kink_loss(mean, key, estimator):
    return sf.expectation(jnp.abs, distrax.Normal(mean, 1.0), key, estimator, num_samples=4)


slope_of_kink = jax.grad(kink_loss)
checks = {
    "Pathwise, first order": (kink_loss, sf.Pathwise(), 2 * cdf - 1),
    "ScoreFunction, second order": (slope_of_kink, sf.ScoreFunction(), 2 * pdf),
}
passed = []
for name, (loss, estimator, exact) in checks.items():
    report = sf.check_unbiased(
        lambda mean, key, loss=loss, estimator=estimator: loss(mean, key, estimator),
        *(at, jax.random.key(5)),
        exact=exact,
        num_repeats=1024,
    )
    print(f"{name:27s} {report.estimate:.3f}, exact {exact:.3f}: passed {report.passed}")
    passed.append(report.passed)
assert passed == [True, True]

try:
    jax.grad(slope_of_kink)(at, jax.random.key(5), sf.Pathwise())
except TypeError as error:
    print(f"Pathwise, second order: {str(error).split(':')[0]}")
else:
    raise AssertionError

# %% [markdown]
# **3.** The function now returns the $D$ terms, and each is multiplied by the score of its own factor. The
# variance is back to that of one dimension.


# %%
def factored(mean, key):
    estimator = sf.ScoreFunction(sf.ConstantBaseline(d2 + 1), factor_ndim=1)
    normal = distrax.Normal(mean, 1.0)
    return sf.expectation(f, normal, key, estimator).sum()


@jax.jit
def factored_variance(keys):
    return sf.moments(lambda key: jax.grad(factored)(jnp.full(16, MU), key), keys)[1]


found = factored_variance(keys).mean()  # of 16 components that are alike
print(f"variance of one of 16 components {found:.1f}, of one dimension {h2z2 - g**2:.1f}")
print(f"and of one of 16 without factor_ndim {h2z2 - g**2 + 15 * h2:.1f}")
np.testing.assert_allclose(found, h2z2 - g**2, rtol=0.2)
