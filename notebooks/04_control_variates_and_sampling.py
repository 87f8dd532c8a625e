# %% [markdown]
# # 4. Control variates and better sampling
#
# Two ways to reduce the variance of an estimator that you have already chosen. A *control variate* subtracts
# something whose mean is known. A *sampling scheme* spreads the draws more evenly than independent ones.
# Both wrap any estimator, both can increase the variance, and this notebook shows when.
#
# [All notebooks](README.md) · previous: [3. Three gradients](03_three_gradients.ipynb) ·
# next: [5. Discrete latents](05_discrete_latents.ipynb)

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
from dataclasses import replace
from functools import partial

import distrax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.scipy.stats import norm

import scorefn as sf

if os.path.exists("notebook.mplstyle"):  # not on Colab
    plt.style.use("notebook.mplstyle")
SMOKE = "SCOREFN_SMOKE" in os.environ  # set by the tests: fewer samples
repeats = 500 if SMOKE else 20_000


def variance(gradient, seed, repeats=repeats):
    """Of one gradient, over many keys."""
    found = jax.jit(jax.vmap(gradient))(jax.random.split(jax.random.key(seed), repeats))
    return jax.tree.map(lambda g: jnp.var(g, axis=0), found)


# %% [markdown]
# ## Subtract what you know
#
# We want $\frac{d}{dm}\,\mathbb{E}[e^x]$ for $x \sim N(m, s^2)$, by the pathwise gradient: one draw
# $x = m + s\,\varepsilon$ gives the estimate $g = e^x$. Of $h(x) = x^2$ we know the mean, $m^2 + s^2$. So
# the error that the same draw makes for $h$ is known: its estimate is $2x$, the truth is $2m$, and
# $k = 2x - 2m$ is pure noise. If it is correlated with $g$, subtract it:
#
# $$g_c = g - c\,k, \qquad \mathbb{E}[g_c] = \mathbb{E}[g] \text{ for every } c, \qquad
# \mathrm{Var}(g_c) = \mathrm{Var}(g) - 2c\,\mathrm{Cov}(g, k) + c^2\,\mathrm{Var}(k).$$
#
# A parabola in $c$. Its lowest point is $c^* = \mathrm{Cov}(g, k) / \mathrm{Var}(k)$, where a part
# $1 - \rho^2$ of the variance is left; $\rho$ is the correlation of the *gradients* of $f$ and $h$.

# %%
m, s = 0.5, 0.6


def normal(mean):
    def log_prob(mean, x):
        return norm.logpdf(x, mean, s)

    def sample(mean, key):
        return mean + s * jax.random.normal(key)

    return sf.Distribution(log_prob, sample, mean)


def loss(mean, key, estimator, num_samples=1):
    return sf.expectation(jnp.exp, normal(mean), key, estimator, num_samples=num_samples)


square = sf.ControlVariate(sf.Pathwise(), h=jnp.square, mean=lambda mean: mean**2 + s**2)


@jax.jit
def at_coefficient(c):
    estimator = replace(square, coefficient=c)
    return variance(lambda key: jax.grad(loss)(m, key, estimator), seed=0)


top = np.exp(m + s**2 / 2)  # the exact gradient
var_g, cov, var_k = top**2 * np.expm1(s**2), 2 * s**2 * top, 4 * s**2
best, rho = cov / var_k, cov / np.sqrt(var_g * var_k)
coefficients = np.linspace(0, 2.8, 8)
measured = jax.vmap(at_coefficient)(jnp.asarray(coefficients))
print(f"correlation {rho:.3f}, best coefficient {best:.3f}, variance left {1 - rho**2:.1%}")

# %% [markdown]
# The coefficient is a leaf of the estimator, an array like any other: `vmap` sweeps it.

# %%
x = m + s * jax.random.normal(jax.random.key(1), (400,))
g, k = np.exp(x), np.asarray(2 * (x - m))
figure, axes = plt.subplots(1, 3, figsize=(10, 3))
axes[0].scatter(k, g, s=5, color="C2", alpha=0.6)
axes[0].plot(k, top + best * k, color="C1", label="slope c*")
axes[0].set(
    xlabel="k: error of h's gradient", ylabel="g: gradient of f", title="the two are correlated"
)
bins = np.linspace(-1, 8, 46)
axes[1].hist(g, bins, color="C2", alpha=0.5, label="g")
axes[1].hist(g - best * k, bins, color="C1", alpha=0.5, label="g - c* k")
axes[1].axvline(top, color="C0", linestyle="--", label="exact")
axes[1].set(xlabel="estimate", ylabel="draws", title="equal mean, less variance")
grid = np.linspace(0, 2.8, 100)
axes[2].plot(grid, var_g - 2 * grid * cov + grid**2 * var_k, color="C0", label="exact")
axes[2].plot(coefficients, measured, "o", color="C1", label="ControlVariate")
axes[2].axhline(var_g, color="C2", linestyle="--", linewidth=0.8, label="plain")
axes[2].set(xlabel="coefficient c", ylabel="variance of one gradient", title="lowest at c*")
for axis in axes:
    axis.legend()
plt.show()
exact_parabola = var_g - 2 * coefficients * cov + coefficients**2 * var_k
np.testing.assert_allclose(measured, exact_parabola, rtol=0.9 if SMOKE else 0.15)

# %% [markdown]
# Up to $c = 2c^*$ the control reduces the variance, beyond that it increases it. The default is 1: right if
# $h$ imitates $f$ itself, arbitrary otherwise.
#
# ## Fit the coefficient, on other draws
#
# `fit` is the regression of the left picture, on keys that are used for nothing else. And $h$ may return
# several numbers. What two of them leave is known here too: $e^x$ is a series in Hermite polynomials, whose
# $j$-th carries a part $s^{2j}/j!$ of $g$'s variance; $x^2$ removes the first, $x^3$ the second.

# %%
cubic = sf.ControlVariate(
    sf.Pathwise(),
    h=lambda x: jnp.stack([x**2, x**3]),
    mean=lambda mean: jnp.stack([mean**2 + s**2, mean**3 + 3 * mean * s**2]),
)
other_keys = jax.random.split(jax.random.key(2), repeats)
whole = np.expm1(s**2)
left = {"plain": 1.0, "x²": (whole - s**2) / whole, "x², x³": (whole - s**2 - s**4 / 2) / whole}
for name, estimator in {"plain": sf.Pathwise(), "x²": square, "x², x³": cubic}.items():
    if name != "plain":
        estimator = jax.jit(partial(estimator.fit, jnp.exp, normal(m)))(other_keys)
    found = variance(lambda key, e=estimator: jax.grad(loss)(m, key, e), seed=3) / var_g
    print(f"{name:7} variance left {found:.3f}, exact {left[name]:.3f}")

# %% [markdown]
# ### Why not on the same draws?
#
# It is tempting to fit $c$ on the $n$ draws that it is used for. But then $c$ depends on them: $c$ and $\bar k$
# move together, so $\mathbb{E}[c\,\bar k]$ is no longer 0. Here the bias is $-s^2/n$ of the gradient, to
# leading order. `FittedControlVariate` fits a coefficient for each draw to the *others*: no bias, at any $n$.


# %%
def naive(key, n):
    x = m + s * jax.random.normal(key, (n,))
    g, k = jnp.exp(x), 2 * (x - m)
    c = jnp.sum((g - g.mean()) * k) / jnp.sum((k - k.mean()) * k)
    return jnp.mean(g - c * k)


def left_out(key, n):
    return jax.grad(loss)(m, key, sf.FittedControlVariate(sf.Pathwise(), square.h, square.mean), n)


sizes = [3, 12] if SMOKE else [3, 6, 12, 48]
keys = jax.random.split(jax.random.key(4), 500 if SMOKE else 40_000)
figure, axes = plt.subplots(1, 2, figsize=(10, 3))
for way, name, color in (naive, "fitted on its own draws", "C1"), (left_out, "left out", "C2"):
    found = np.array([jax.jit(jax.vmap(partial(way, n=n)))(keys) for n in sizes], np.float64)
    mean, var = found.mean(1), found.var(1)
    bias, error = mean / top - 1, np.sqrt(var / len(keys)) / top
    axes[0].plot(sizes, bias, "o-", color=color, label=name)
    axes[0].fill_between(sizes, bias - 3 * error, bias + 3 * error, color=color, alpha=0.2)
    axes[1].plot(sizes, np.array(sizes) * var / var_g, "o-", color=color, label=name)
    print(
        f"{name:24} n = {sizes[1]}: bias {bias[1]:+.2%}, {bias[1] / error[1]:+.1f} standard errors"
    )
fine = np.linspace(3, sizes[-1], 200)
axes[0].plot(fine, -(s**2) / fine, color="C0", linestyle="--", label="-s²/n")
axes[0].set(title="bias; shaded: ± 3 standard errors", ylabel="bias / gradient")
axes[1].axhline(1, color="0.4", linestyle=":", label="no control variate")
axes[1].axhline(1 - rho**2, color="C0", linestyle="--", label="best c")
axes[1].set(title="variance", ylabel="variance relative to n plain draws", ylim=(0, 1.1))
for axis in axes:
    axis.set(xscale="log", xlabel="draws n", xticks=sizes, xticklabels=sizes)
    axis.minorticks_off()
    axis.legend()
plt.show()

# %% [markdown]
# The right panel shows the cost. A coefficient that is fitted to two other draws is noisy, and loses most of
# the gain; with some dozens of draws it is near the best one. With more controls, or a control that explains
# less, too few draws increase the variance. (The biased one has the least variance, and is wrong.)
#
# ## A control variate for every smooth f: Taylor
#
# Where does an $h$ come from? Expand $f$ around the mean of the distribution. The mean of a quadratic is known
# wherever the mean and the covariance of $x$ are, so `DeltaMethod` needs nothing else. Degree 1 is for the
# score function (it is MuProp); pathwise, a linear $h$ has a constant gradient, and nothing to subtract.
#
# The line and the parabola match $f$ at one point only, and the draws may be far from it.


# %%
def wave(x):
    return jnp.sin(3.0 * x)


center = 0.3
nodes, weights = np.polynomial.hermite_e.hermegauss(120)
weights = weights / weights.sum()


def taylor(x, degree):
    v = x - center
    first = wave(center) + jax.grad(wave)(center) * v
    return first + (jax.grad(jax.grad(wave))(center) * v**2 / 2 if degree == 2 else 0.0)


def exact_variance(scale, degree, kind):
    """Of one gradient along the mean, by quadrature; degree 0 is the constant f(center)."""

    def cost(x):
        return wave(x) - (taylor(x, degree) if degree else wave(center))

    at = center + scale * jnp.asarray(nodes)
    terms = jax.vmap(jax.grad(cost))(at) if kind == "pathwise" else cost(at) * nodes / scale
    return weights @ terms**2 - (weights @ terms) ** 2


def wave_loss(params, key, estimator, num_samples=1):
    q = distrax.Normal(params[0], params[1])
    return sf.expectation(wave, q, key, estimator, num_samples=num_samples)


score = sf.ScoreFunction(sf.ConstantBaseline(0.0))  # the constant is in the expansion
cases = {
    "score function, degree 1": ("score", 1, sf.DeltaMethod(score, degree=1), "C1"),
    "score function, degree 2": ("score", 2, sf.DeltaMethod(score, degree=2), "C2"),
    "pathwise, degree 2": ("pathwise", 2, sf.DeltaMethod(sf.Pathwise()), "C3"),
}
scales = jnp.geomspace(0.05, 1.5, 60)
dots = np.array([10, 30, 50])
figure, axes = plt.subplots(1, 2, figsize=(10, 3.2))
x = jnp.linspace(-2, 2.6, 300)
axes[0].plot(x, wave(x), color="C0", label="f")
axes[0].plot(x[x < 1.2], taylor(x[x < 1.2], 1), color="C1", linestyle="--", label="degree 1")
axes[0].plot(x, taylor(x, 2), color="C2", linestyle="--", label="degree 2")
for scale, alpha in ((0.1, 0.5), (0.8, 0.25)):
    density = norm.pdf(x, center, scale) / norm.pdf(0.0, 0.0, scale)
    axes[0].fill_between(x, -1.9, -1.9 + density, color="C4", alpha=alpha, linewidth=0)
axes[0].set(
    ylim=(-1.9, 2.9), xlabel="x", title="f, its expansions; shaded: densities, s = 0.1, 0.8"
)
axes[0].legend(loc="upper left", ncols=3)
for name, (kind, degree, estimator, color) in cases.items():

    @jax.jit
    @jax.vmap
    def exact_ratio(scale, kind=kind, degree=degree):
        return exact_variance(scale, degree, kind) / exact_variance(scale, 0, kind)

    @jax.vmap
    def measured_ratio(scale, kind=kind, estimator=estimator):
        def gradient(key):
            return jax.grad(wave_loss)(jnp.stack([center, scale]), key, estimator)[0]

        return variance(gradient, seed=5) / exact_variance(scale, 0, kind)

    axes[1].plot(scales, exact_ratio(scales), color=color, label=name)
    axes[1].plot(scales[dots], found := measured_ratio(scales[dots]), "o", color=color)
    np.testing.assert_allclose(found, exact_ratio(scales)[dots], rtol=0.6 if SMOKE else 0.15)
axes[1].axhline(1, color="0.4", linestyle=":")
axes[1].set(
    xscale="log", yscale="log", xlabel="standard deviation s of x", ylabel="ratio of variances"
)
axes[1].set(ylim=(1e-4, 1e4), title="variance with / without; lines: quadrature, dots: measured")
axes[1].legend()
plt.show()

# %% [markdown]
# For a narrow distribution the expansion removes nearly all variance; for a broad one it multiplies the
# variance. A learned coefficient prevents that. `squared_gradient` makes the variance itself a loss: its
# derivative along the leaves of an estimator is unbiased from a single gradient, so the coefficient can be
# *learned along with* the model, and follow a distribution that becomes narrower in training.

# %%
broad = jnp.array([center, 0.8])
optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 400))


@jax.jit
def learn(estimator, key):
    def step(carry, key):
        estimator, state = carry
        slope = jax.grad(sf.squared_gradient, argnums=3)(
            lambda p, k, e: wave_loss(p, k, e, 16), broad, key, estimator
        )
        change, state = optimizer.update(slope, state)
        estimator = optax.apply_updates(estimator, change)
        return (estimator, state), estimator.coefficient

    return jax.lax.scan(step, (estimator, optimizer.init(estimator)), jax.random.split(key, 400))


start = sf.DeltaMethod(sf.Pathwise(), coefficient=jnp.array(1.0))
(learned, _), path = learn(start, jax.random.key(6))
for name, estimator in {"plain": sf.Pathwise(), "c = 1": start, "c learned": learned}.items():
    found = variance(lambda key, e=estimator: jax.grad(wave_loss)(broad, key, e), seed=7).sum()
    print(
        f"{name:9} total variance {found:6.2f}   coefficient {getattr(estimator, 'coefficient', 0):.3f}"
    )

# %% [markdown]
# The learned coefficient is near 0: here the expansion does not help, and it is switched off.
#
# ## Draws that are spread evenly
#
# Independent draws leave gaps and form clusters. In each scheme below a single draw has the distribution
# that it had before, so every estimator stays unbiased; only the draws of one call depend on each other.

# %%
plane = distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))


@partial(jax.jit, static_argnames="n")
def drawn(estimator, n):
    def f(x):
        return jnp.sum(x), x  # the second is returned for every sample

    return sf.expectation(f, plane, jax.random.key(3), estimator, num_samples=n, has_aux=True)[1]


half = drawn(sf.Pathwise(), 32)
pictures = {
    "independent": drawn(sf.Pathwise(), 64),
    "Antithetic: mirrored pairs": jnp.concatenate([half, -half]),
    "Stratified: one in each row, column": drawn(sf.Stratified(sf.Pathwise()), 64),
    "QuasiMonteCarlo: Sobol": drawn(sf.QuasiMonteCarlo(sf.Pathwise()), 64),
}
figure, axes = plt.subplots(1, 4, figsize=(10, 2.8), sharey=True)
for axis, (name, points) in zip(axes, pictures.items(), strict=True):
    axis.scatter(*norm.cdf(points).T, s=9, color="C2")
    axis.set(title=name, xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="P(first coordinate)")
    axis.set_xticks(np.linspace(0, 1, 9), ["0"] + 7 * [""] + ["1"])
    axis.set_yticks(np.linspace(0, 1, 9), ["0"] + 7 * [""] + ["1"])
    axis.title.set_fontsize(8.5)
axes[0].set_ylabel("P(second coordinate)")
plt.show()
at = np.asarray(norm.cdf(pictures["QuasiMonteCarlo: Sobol"]))
for columns in (1, 2, 4, 8, 16, 32, 64):
    boxes, *_ = np.histogram2d(*at.T, (columns, 64 // columns), [[0, 1], [0, 1]])
    assert np.all(boxes == 1)
print("Sobol: one point in each of 1 x 64, 2 x 32, 4 x 16 ... boxes")

# %% [markdown]
# The axes show probabilities, so each of the 64 cells should have one point. Sobol's have exactly that, and so
# has every cut into 64 boxes with powers of 2 along the sides. Another key moves the points, and this stays
# true.
#
# ## Mirror images: odd parts vanish
#
# A gradient term is a function $t(\varepsilon)$ of the noise. The mean of $t(\varepsilon)$ and
# $t(-\varepsilon)$ is its *even* part. So against two independent draws, all variance of the odd part is
# gone, and that of the even part is doubled. Along the mean the term is $f'(x)$, along the scale
# $f'(x)\,\varepsilon$: what is odd in one is even in the other.

# %%
functions = {"x²": jnp.square, "x³": lambda x: x**3, "exp(x/2)": lambda x: jnp.exp(x / 2)}


def exact_ratio(f, along):
    """Var(pair) / Var(two independent draws) around the center 0, by quadrature."""
    terms = jax.vmap(jax.grad(f))(jnp.asarray(nodes)) * (nodes if along == "scale" else 1.0)
    even = (terms + terms[::-1]) / 2
    spread = [weights @ t**2 - (weights @ t) ** 2 for t in (even, terms)]
    return 2 * spread[0] / spread[1]


def measured_ratio(f):
    def gradient(key, estimator, n):
        def loss(p):
            return sf.expectation(f, distrax.Normal(p[0], p[1]), key, estimator, num_samples=n)

        return jax.grad(loss)(jnp.array([0.0, 1.0]))

    pair = variance(lambda key: gradient(key, sf.Antithetic(sf.Pathwise()), 1), seed=8)
    return pair / variance(lambda key: gradient(key, sf.Pathwise(), 2), seed=9)


print("                along the mean     along the scale")
for name, f in functions.items():
    exact = [exact_ratio(f, along) for along in ("mean", "scale")]
    found = measured_ratio(f)
    print(
        f"f = {name:9} exact {exact[0]:5.3f}, {found[0]:5.3f}   exact {exact[1]:5.3f}, {found[1]:5.3f}"
    )

# %% [markdown]
# A quadratic's gradient along the mean has no noise left at all, and along the scale every second
# evaluation is wasted. `Antithetic` is for an $f$ that is monotone over the distribution.
#
# ## How fast the error falls
#
# More independent draws help slowly: the error falls as $n^{-1/2}$. With points that fill the square it falls
# faster, if the term is smooth in the noise. Two gradients in the plane: a smooth $f$ by `Pathwise`, and one
# with a jump by `ScoreFunction`, whose edge runs between the points for any arrangement.


# %%
score = sf.ScoreFunction(
    sf.ConstantBaseline(1 - norm.cdf(0.4 / 0.7 / 2**0.5))
)  # the mean of the jump
costs = {
    "smooth f, Pathwise": (lambda x: jnp.cos(x[0] + x[1] / 2), sf.Pathwise()),
    "f with a jump, ScoreFunction": (lambda x: jnp.where(jnp.sum(x) > 1.0, 1.0, 0.0), score),
}


def gradients(mean, key, scheme, n):
    def loss(mean, f, inner):
        q = distrax.MultivariateNormalDiag(mean, jnp.full(2, 0.7))
        return sf.expectation(f, q, key, scheme(inner), num_samples=n)

    return jnp.stack([jax.grad(loss)(mean, *cost) for cost in costs.values()])


sizes = [16, 64] if SMOKE else [16, 128, 1024]
keys = jax.random.split(jax.random.key(10), 20 if SMOKE else 200)
schemes = {"independent": lambda e: e, "Stratified": sf.Stratified, "Sobol": sf.QuasiMonteCarlo}
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4))
for name, scheme in schemes.items():
    errors = []
    for n in sizes:
        one = jax.jit(jax.vmap(partial(gradients, jnp.full(2, 0.3), scheme=scheme, n=n)))
        errors.append(np.sqrt(one(keys).var(0).sum(-1)))
    for axis, line in zip(axes, np.transpose(errors), strict=True):
        slope = np.polyfit(np.log(sizes), np.log(line), 1)[0]
        axis.loglog(sizes, line, "o-", label=f"{name}: slope {slope:.2f}")
for axis, title in zip(axes, costs, strict=True):
    axis.set(title=title, xlabel="samples n", ylabel="standard error of the gradient")
    axis.legend(loc="lower left")
plt.show()

# %% [markdown]
# `Stratified` removes the part that is a sum of functions of single coordinates: the line is lower, and as
# steep as before. `QuasiMonteCarlo` makes the line steeper, and most so where all is smooth.
#
# ## What a point set must not be combined with
#
# Draws that depend on each other have a disadvantage. Leave-one-out takes the mean of the *other* costs as a
# baseline, which is right because they are independent of this draw. With two strata of a fair coin the
# other draw is always the opposite one.

# %%
probability, truth = 0.5, 0.25  # d/dlogit of E[bit]


def leave_one_out_gradient(a, b):
    return ((a - b) * (a - probability) + (b - a) * (b - probability)) / 2


independent = np.mean([leave_one_out_gradient(a, b) for a in (0, 1) for b in (0, 1)])
two_strata = np.mean([leave_one_out_gradient(a, 1 - a) for a in (0, 1)])
print(f"exact {truth}, independent draws {independent}, one draw in each half {two_strata}")
assert independent == truth
assert two_strata == 2 * truth

try:
    sf.QuasiMonteCarlo(sf.ScoreFunction(sf.LeaveOneOut()))
except TypeError as error:
    print(error)

# %% [markdown]
# Twice the gradient, from an estimator that is unbiased with independent draws. So the library refuses it.
#
# ## Both together, and a quadratic that is learned
#
# Schemes and controls are estimators around estimators, so they nest. Instead of expanding $f$ at one point,
# one can *learn* the quadratic that leaves the least variance: `QuadraticSurrogate`, whose slope and
# curvature are leaves too. All of them on one loss, a logistic regression of 40 cases with 5 weights, first
# with a narrow and then with a broad $q$; 64 evaluations of f for each gradient.

# %%
rows = jax.random.normal(jax.random.key(11), (40, 5))
labels = jnp.sign(rows @ jnp.array([1.0, -1.0, 0.5, 0.0, 2.0]) + 0.3)


def regression_loss(params, key, estimator, num_samples):
    q = distrax.MultivariateNormalDiag(*params)
    f = lambda w: jnp.sum(jax.nn.softplus(-labels * (rows @ w)))  # noqa: E731
    return sf.expectation(f, q, key, estimator, num_samples=num_samples)


def params_at(scale):
    return 0.3 * jnp.ones(5), jnp.full(5, scale)


steps = 30 if SMOKE else 600
tuner = optax.adam(optax.cosine_decay_schedule(0.3, steps))


def learned_quadratic(scale):
    def difference(params, key, estimator):  # of two losses: their common mean cancels
        one, other = jax.random.split(key)
        terms = [regression_loss(params, k, estimator, 8) for k in (one, other)]
        return terms[0] - terms[1]

    def step(carry, key):
        estimator, state = carry
        slope = jax.grad(sf.squared_gradient, argnums=3)(
            difference, params_at(scale), key, estimator
        )
        change, state = tuner.update(slope, state)
        return (optax.apply_updates(estimator, change), state), None

    start = sf.QuadraticSurrogate(sf.Pathwise(), jnp.zeros(5), jnp.zeros((5, 5)))
    keys = jax.random.split(jax.random.key(12), steps)
    return jax.lax.scan(step, (start, tuner.init(start)), keys)[0][0]


widths = jnp.array([0.1, 1.5])
quadratics = jax.jit(jax.vmap(learned_quadratic))(widths)
sobol = sf.QuasiMonteCarlo(sf.Pathwise())

# %%
contest = {
    "score function, leave-one-out": (sf.ScoreFunction(), 64),
    "pathwise": (sf.Pathwise(), 64),
    "Antithetic": (sf.Antithetic(sf.Pathwise()), 32),
    "Stratified": (sf.Stratified(sf.Pathwise()), 64),
    "QuasiMonteCarlo": (sobol, 64),
    "DeltaMethod": (sf.DeltaMethod(sf.Pathwise()), 58),  # and 6 evaluations at the mean
    "QuadraticSurrogate, learned": (quadratics, 64),
    "DeltaMethod and QuasiMonteCarlo": (sf.DeltaMethod(sobol), 58),
}
table = {}
for name, (estimator, n) in contest.items():
    axes_of = 0 if estimator is quadratics else None

    def total(scale, estimator, n=n):
        gradient = jax.grad(regression_loss)
        found = variance(lambda k: gradient(params_at(scale), k, estimator, n), 13, repeats // 20)
        return sum(jnp.sum(leaf) for leaf in found)

    table[name] = jax.jit(jax.vmap(total, (0, axes_of)))(widths, estimator)

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), sharey=True)
for i, axis in enumerate(axes):
    ratios = [float(found[i] / table["pathwise"][i]) for found in table.values()]
    colors = ["C2" if ratio < 0.95 else "C1" if ratio > 1.05 else "C0" for ratio in ratios]
    axis.barh(list(table), ratios, left=1e-7, color=colors)
    axis.axvline(1, color="0.4", linestyle=":")
    axis.set(xscale="log", xlim=(1e-6, 1e4), xlabel="variance relative to Pathwise")
    axis.set_title(f"standard deviation of each weight: {widths[i]:.1f}")
    for j, ratio in enumerate(ratios):
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axis.text(ratio * 1.4, j, f"{ratio:.2g}", va="center", fontsize=8, bbox=box)
axes[0].invert_yaxis()
plt.show()

# %% [markdown]
# Where q is narrow, f is nearly a quadratic: the Taylor expansion reduces the variance thousands of times,
# for 6 evaluations, and evenly spread draws reduce the rest further. Where q is broad, the expansion
# increases the variance, alone and together with evenly spread draws; the learned quadratic does not. The
# rule: *expand where q is narrow, learn or spread where it is broad, and measure on your own loss*
# (`sf.compare`, notebook 11).
#
# ## Exercises
#
# 1. What is the variance at $c = 2c^*$, without computing it? Check it with `at_coefficient`.
# 2. `DeltaMethod` leaves a quadratic $f$ no variance. Which $f$ does `Antithetic` leave none, along the mean
#    *and* along the scale of a normal, by `Pathwise`?
# 3. Sobol points for a distribution of your own: $x$ exponential with rate $\lambda$,
#    $\frac{d}{d\lambda}\mathbb{E}[e^{-x}]$. Pass `icdf`, and compare with the exact $1/(1 + \lambda)^2$ and
#    with independent draws.
#
# ## Solutions
#
# **1.** A parabola is symmetric about its lowest point: the same as at 0, where there is no control.

# %%
there, plain = at_coefficient(jnp.array(2 * best)), at_coefficient(jnp.array(0.0))
print(f"variance at 2c*: {there:.2f}, without: {plain:.2f}, exact: {var_g:.2f}")

# %% [markdown]
# **2.** Both $f'(m + s\varepsilon)$ and $f'(m + s\varepsilon)\,\varepsilon$ must have a constant even part.
# The first makes $f'$ a constant $a$ plus an odd function $o$; then the even part of the second is
# $o(\varepsilon)\,\varepsilon$, which is constant only if $o = 0$. So only a straight line, which along the
# mean had no noise anyway.

# %%
pair = sf.Antithetic(sf.Pathwise())
for name, f in {"2x": lambda x: 2 * x, "x²": jnp.square}.items():
    gradient = jax.grad(
        lambda p, key, f=f: sf.expectation(f, distrax.Normal(p[0], p[1]), key, pair)
    )
    spread = variance(lambda key, g=gradient: g(jnp.array([0.5, 1.0]), key), seed=14)
    print(f"f = {name}: variance along mean and scale {spread.round(3)}")

# %% [markdown]
# **3.** The inverse cdf is $-\log(1 - u)/\lambda$, differentiable in $\lambda$, as `Pathwise` needs.


# %%
def exponential(rate):
    return sf.Distribution(
        lambda rate, x: jnp.log(rate) - rate * x,
        lambda rate, key: jax.random.exponential(key) / rate,
        rate,
    )


def decay_loss(rate, key, estimator):
    return sf.expectation(lambda x: jnp.exp(-x), exponential(rate), key, estimator, num_samples=256)


rate = 0.7
exact = 1 / (1 + rate) ** 2
spread_out = sf.QuasiMonteCarlo(sf.Pathwise(), icdf=lambda rate, u: -jnp.log1p(-u) / rate)
keys = jax.random.split(jax.random.key(15), 200)
for name, estimator in {"independent": sf.Pathwise(), "Sobol": spread_out}.items():
    found = jax.jit(jax.vmap(lambda k, e=estimator: jax.grad(decay_loss)(rate, k, e)))(keys)
    error = np.sqrt(np.mean((found - exact) ** 2))
    print(f"{name:11} mean {found.mean():.4f}, exact {exact:.4f}, error of one {error:.5f}")
