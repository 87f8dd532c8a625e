# %% [markdown]
# # 6. Variational inference
#
# A Bayesian logistic regression on real data: which tumors are benign, and how sure are we? The posterior
# of the weights has no closed form, so a Gaussian is fitted to it by maximizing a bound, whose gradient goes
# through samples. The bound can be written in several ways that have equal means and very different
# variances. `sf.vi` has them; this notebook shows when each of them is best.
#
# [All notebooks](README.md) · previous: [5. Discrete latents](05_discrete_latents.ipynb) ·
# next: [7. From REINFORCE to PPO](07_reinforce_to_ppo.ipynb)

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

import distrax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_breast_cancer

import scorefn as sf
from scorefn import vi

if os.path.exists("notebook.mplstyle"):  # not on Colab
    plt.style.use("notebook.mplstyle")
SMOKE = "SCOREFN_SMOKE" in os.environ  # set by the tests: fewer samples
repeats = 200 if SMOKE else 4000

# %% [markdown]
# ## The bound
#
# 569 tumors, 30 measurements each, standardized, and a column of ones. The prior of the weights $w$ is
# $N(0, I)$, and a tumor is benign ($y = 1$, else $-1$) with probability $\sigma(x^\top w)$. For any
# distribution $q$ of the weights,
#
# $$\log p(y) = \underbrace{\mathbb{E}_q[\log p(y, w) - \log q(w)]}_{\text{ELBO}} +
# \underbrace{\mathrm{KL}\big(q \,\|\, p(w \mid y)\big)}_{\ge 0}.$$
#
# The left side is fixed. Raise the ELBO, and $q$ comes closer to the posterior. Our $q$ is a Gaussian with
# independent weights, the *mean field*. Under it each $x^\top w$ is a Gaussian number, so the exact ELBO is a
# one-dimensional integral for each tumor: the reference for all that follows.

# %%
measurements, benign = load_breast_cancer(return_X_y=True)
order = np.random.default_rng(0).permutation(len(benign))  # the file begins with the malignant ones
measurements, benign = measurements[order], benign[order]
measurements = (measurements - measurements.mean(0)) / measurements.std(0)
x = jnp.asarray(np.c_[measurements, np.ones(len(measurements))], jnp.float32)
y = jnp.asarray(2.0 * benign - 1, jnp.float32)
d = x.shape[1]
prior = distrax.MultivariateNormalDiag(jnp.zeros(d), jnp.ones(d))


def log_likelihood(w):
    return jnp.sum(jax.nn.log_sigmoid(y * (x @ w)))


def log_joint(w):
    return log_likelihood(w) + prior.log_prob(w)


def mean_field(params):
    return distrax.MultivariateNormalDiag(params["mean"], jnp.exp(params["log_scale"]))


nodes = jnp.linspace(-6.0, 6.0, 65)
weights = jax.nn.softmax(-(nodes**2) / 2)


def exact_elbo(params):
    spread = jnp.sqrt(x**2 @ jnp.exp(2 * params["log_scale"]))
    logits = (x @ params["mean"])[:, None] + spread[:, None] * nodes
    return jnp.sum(jax.nn.log_sigmoid(y[:, None] * logits) @ weights) - mean_field(
        params
    ).kl_divergence(prior)


# %% [markdown]
# ### Written in four ways
#
# Everything sampled; with the entropy of $q$ in closed form; with the divergence from the prior in closed
# form (the log-likelihood as `log_joint`, minus the divergence as `entropy`); and by the score function, which
# needs no derivative of the model. All are to be *maximized*.


# %%
def sampled(params, key, n):
    return vi.elbo(log_joint, mean_field(params), key, sf.Pathwise(), num_samples=n)


def closed_entropy(params, key, n):
    q = mean_field(params)
    return vi.elbo(log_joint, q, key, sf.Pathwise(), num_samples=n, entropy=q.entropy())


def closed_divergence(params, key, n, estimator=None):
    q, estimator = mean_field(params), estimator or sf.Pathwise()
    known = -q.kl_divergence(prior)
    return vi.elbo(log_likelihood, q, key, estimator, num_samples=n, entropy=known)


score_function = partial(closed_divergence, estimator=sf.ScoreFunction(sf.LeaveOneOut()))
forms = {
    "all sampled": sampled,
    "entropy in closed form": closed_entropy,
    "divergence in closed form": closed_divergence,
    "score function": score_function,
}


@partial(jax.jit, static_argnames=("form", "n"))
def many(form, params, keys, n=8):
    """Values and gradients, one for each key."""
    return jax.vmap(lambda key: jax.value_and_grad(form)(params, key, n))(keys)


def noise(gradients):
    """The variance, added up over all components."""
    return sum(jnp.sum(jnp.var(g, axis=0)) for g in jax.tree.leaves(gradients))


keys = jax.random.split(jax.random.key(0), repeats)


def report(params):
    exact, truth = jax.jit(jax.value_and_grad(exact_elbo))(params)
    print(f"exact ELBO {exact:.1f} nats; with 8 samples, value and variance of the gradient:")
    for name, form in forms.items():
        values, gradients = many(form, params, keys)
        found = gradients["mean"]
        z = jnp.abs((found.mean(0) - truth["mean"]) / found.std(0)).max() * repeats**0.5
        about = f"{values.mean():7.1f} ± {values.std():5.1f}   {noise(gradients):9.1f}"
        print(f"{name:26} {about}   greatest z {z:.1f}")


start = {"mean": jnp.zeros(d), "log_scale": jnp.full(d, -1.0)}
report(start)

# %% [markdown]
# The means agree: z is the distance from the exact gradient in standard errors, of the worst of 31 components.
# The variances do not: without the derivative of the model it is a hundred times larger.
#
# ## Training
#
# An optimizer of optax in a `lax.scan`. Eight samples a step, five seeds, and the exact gradient for
# comparison. What is plotted is the exact ELBO.

# %%
steps, every, seeds = (40, 20, 2) if SMOKE else (1500, 25, 5)
optimizer = optax.adam(0.05)


@partial(jax.jit, static_argnames="bound")
def train(bound, params, key):
    def step(carry, key):
        params, state = carry
        gradient = jax.grad(lambda p: -bound(p, key, 8))(params)
        change, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, change), state), None

    def block(carry, keys):
        return jax.lax.scan(step, carry, keys)[0], exact_elbo(carry[0])

    keys = jax.random.split(key, (steps // every, every))
    (params, _), curve = jax.lax.scan(block, (params, optimizer.init(params)), keys)
    return params, jnp.append(curve, exact_elbo(params))


seed_keys = jax.random.split(jax.random.key(1), seeds)


def exact_bound(params, key, n):
    del key, n
    return exact_elbo(params)


fitted, best_curve = train(exact_bound, start, seed_keys[0])
curves = {
    name: jax.vmap(lambda key, b=bound: train(b, start, key)[1])(seed_keys)
    for name, bound in (("score function", score_function), ("pathwise", closed_divergence))
}
best = float(best_curve.max())
at = np.arange(0, steps + 1, every)
figure, axes = plt.subplots(1, 2, figsize=(10, 3.2))
for name, color in (("score function", "C1"), ("pathwise", "C2")):
    for axis, shown in zip(axes, (curves[name], best - curves[name]), strict=True):
        axis.plot(at, jnp.median(shown, axis=0), color=color, label=name)
        axis.fill_between(at, shown.min(0), shown.max(0), color=color, alpha=0.2, linewidth=0)
axes[0].plot(at, best_curve, color="C0", linestyle="--", label="exact gradient")
axes[0].set(
    ylim=(best - 60, best + 5), ylabel="exact ELBO, nats", title="median and range of the seeds"
)
axes[1].set(yscale="log", ylabel="below the best, nats", title="distance to the best ELBO")
axes[0].legend(loc="lower right")
for axis in axes:
    axis.set_xlabel("step")
plt.show()
for name, curve in curves.items():
    print(f"{name:15} ends {best - jnp.median(curve[:, -1]):.2f} nats below the best")

# %% [markdown]
# Both learn. The score function, with the same learning rate, ends further below, because of its noise.
# (A rate that decays would bring both closer.) The four forms once more, where the exact training has ended:

# %%
report(fitted)
one, other = (many(form, fitted, keys)[1]["mean"] for form in (sampled, closed_entropy))
np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-2)

# %% [markdown]
# Look at the first two. Their *values* differ: $\log p(y, w) - \log q(w)$ is one number where $q$ is the
# posterior, so the closer $q$ comes, the less noise has the bound with all of it sampled. But their gradients
# are the same, draw by draw. For a Gaussian, $\log q$ at $w = m + s\varepsilon$ is $-\log s$ plus something
# that depends on $\varepsilon$ alone: differentiated through the draw, it *is* the closed form. The variance
# of the value falls, that of the gradient does not. The next section changes that.
#
# ## Sticking the landing
#
# Differentiate $-\log q_\theta(w)$ at $w = w_\theta(\varepsilon)$:
#
# $$-\frac{d}{d\theta} \log q_\theta(w_\theta) = -\frac{\partial \log q_\theta(w)}{\partial w}
# \frac{\partial w_\theta}{\partial \theta} \;-\; \underbrace{\frac{\partial \log q_\theta(w)}{\partial
# \theta}}_{\text{the score: mean } 0}.$$
#
# Leave the score out, and the mean is the same. What is left is the path derivative of
# $\log p(y, w) - \log q(w)$. If $q$ *is* the posterior, that difference is the same number at every $w$, so
# its slope is 0: there is no noise, for every single draw.
#
# First a case where everything is known: the target $N(0, 1)$, $q = N(m, s^2)$. Along $m$ the variance of one
# draw is $s^2$ with the closed-form entropy, and $(1/s - s)^2$ without the score.


# %%
def toy(scale, key, closed):
    def bound(mean):
        q = distrax.Normal(mean, scale)
        target = lambda w: -(w**2) / 2  # noqa: E731
        if closed:
            return vi.elbo(target, q, key, sf.Pathwise(), entropy=q.entropy())
        return vi.sticking_the_landing(target, q, key)

    return jax.grad(bound)(0.3)


scales = jnp.array([0.3, 0.6, 1.0, 1.6])
toy_variance = {}
for closed in (True, False):
    each = jax.vmap(lambda s, c=closed: jax.vmap(lambda key: toy(s, key, c))(keys).var())
    toy_variance[closed] = jax.jit(each)(scales)
print("at s = 1, without the score:", toy_variance[False][2])
np.testing.assert_allclose(toy_variance[False], (1 / scales - scales) ** 2, rtol=0.5, atol=1e-9)

# %% [markdown]
# Then on the tumors. Two principal components and a constant make three weights, whose posterior is close to
# a Gaussian, but not to one of *independent* weights. So there is a second family, with all covariances. The
# figure shows the variance of one draw's gradient while each is trained. (The same program, mapped over four
# sets of tumors, trains for the sections below too.)

# %%
left, singular, right = np.linalg.svd(measurements, full_matrices=False)
plane = left[:, :2] * len(left) ** 0.5  # of variance 1
plane = jnp.asarray(np.c_[plane, np.ones(len(plane))], jnp.float32)
small_prior = distrax.MultivariateNormalDiag(jnp.zeros(3), jnp.ones(3))


subsets = (569, 100, 60, 12)
used = jnp.stack([jnp.where(jnp.arange(len(y)) < n, 1.0, 0.0) for n in subsets])


def small_joint(w, used):
    return jnp.sum(used * jax.nn.log_sigmoid(y * (plane @ w))) + small_prior.log_prob(w)


def full(params):
    """A Gaussian with all covariances: the lower triangle, its diagonal as logarithms."""
    diagonal = jnp.diag(jnp.exp(jnp.diag(params["tri"])))
    return distrax.MultivariateNormalTri(params["mean"], jnp.tril(params["tri"], -1) + diagonal)


families = {
    "mean field": (mean_field, {"mean": jnp.zeros(3), "log_scale": jnp.zeros(3)}),
    "all covariances": (full, {"mean": jnp.zeros(3), "tri": jnp.zeros((3, 3))}),
}
small_steps = 60 if SMOKE else 1500
small_optimizer = optax.adam(optax.cosine_decay_schedule(0.05, small_steps))


@partial(jax.jit, static_argnames="family")
@partial(jax.vmap, in_axes=(None, 0, None))
def fit(family, used, key):
    """All parameters on the way to q, by sticking the landing."""
    make, params = families[family]

    def step(carry, key):
        params, state = carry

        def loss(params):
            joint = partial(small_joint, used=used)
            return -vi.sticking_the_landing(joint, make(params), key, num_samples=8)

        change, state = small_optimizer.update(jax.grad(loss)(params), state)
        params = optax.apply_updates(params, change)
        return (params, state), params

    keys = jax.random.split(key, small_steps)
    return jax.lax.scan(step, (params, small_optimizer.init(params)), keys)[1]


@partial(jax.jit, static_argnames=("family", "closed"))
def noise_on_the_way(family, closed, path, keys):
    make, _ = families[family]
    joint = partial(small_joint, used=used[0])

    def bound(params, key):
        q = make(params)
        if closed:
            return vi.elbo(joint, q, key, sf.Pathwise(), entropy=q.entropy())
        return vi.sticking_the_landing(joint, q, key)

    def one(params):
        return noise(jax.vmap(jax.grad(bound), (None, 0))(params, keys)["mean"])

    return jax.lax.map(one, path)


shots = np.unique(np.geomspace(1, small_steps, 12).astype(int)) - 1
few_keys = jax.random.split(jax.random.key(3), repeats // 8)
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4))
fine = np.geomspace(0.25, 1.8, 200)
for closed, name, line, color in (
    (True, "closed-form entropy", fine**2, "C1"),
    (False, "sticking the landing", (1 / fine - fine) ** 2, "C2"),
):
    axes[0].plot(fine, line, color=color, label=name)
    axes[0].plot(scales, np.maximum(toy_variance[closed], 2e-4), "o", color=color)
axes[0].set(yscale="log", xlabel="scale s of q; that of the posterior is 1", ylim=(1e-4, 100))
axes[0].set(
    ylabel="variance along the mean",
    title="target N(0, 1); lines: exact (0 at s = 1), dots: measured",
)
for family, style in (("mean field", "--"), ("all covariances", "-")):
    paths = fit(family, used, jax.random.key(4))
    chosen = jax.tree.map(lambda p: p[0, shots], paths)
    for closed, color in ((True, "C1"), (False, "C2")):
        found = noise_on_the_way(family, closed, chosen, few_keys)
        name = "closed form" if closed else "landing"
        axes[1].plot(shots + 1, found, style, color=color, label=f"{name}, {family}")
        print(f"{family:16} {name:11}   variance at the end {found[-1]:6.2f}")
axes[1].set(
    xscale="log",
    yscale="log",
    xlabel="step",
    ylabel="variance along the means, one draw",
    title="569 tumors, three weights",
)
for axis in axes:
    axis.legend()
plt.show()

# %% [markdown]
# Left: for a narrow $q$ leaving the score out increases the variance by a large factor, and at $s = 1$ the
# noise is 0. Right: in the family that holds (nearly) the posterior, the noise falls with training to a small
# part of the other's; in the mean field it cannot fall that far, because $q$ never gets there. The gain comes
# at the end, where a converging run needs it.
#
# ## More samples in one bound
#
# The mean of $K$ importance weights $w_k = p(y, z_k) / q(z_k)$ inside the logarithm gives a bound that is
# tighter the larger $K$ is: $\mathbb{E} \log \frac1K \sum_k w_k$, the IWAE bound. Here is what it does to
# $\log p(y)$, and what it does to the gradient of $q$. For the latter, $q$ is put where it is in the middle
# of a training run: a little off, and broader than the posterior, here that of 100 tumors.

# %%
ends = jax.tree.map(lambda p: p[:, -1], paths)  # of all covariances


def few_joint(w):
    return jnp.sum(jax.nn.log_sigmoid(y[:100] * (plane[:100] @ w))) + small_prior.log_prob(w)


posterior = full(jax.tree.map(lambda p: p[1], ends))
root = np.linalg.cholesky(posterior.covariance())
offset, broad = posterior.mean() + 0.3 * root @ jnp.ones(3), 1.3 * root


def quadrature(joint, mean, root):
    """Points z, and the logarithm of p(y, z) times the volume that each stands for."""
    q = distrax.MultivariateNormalTri(mean, root)
    node, weight = np.polynomial.hermite_e.hermegauss(24)
    noise = np.stack(np.meshgrid(node, node, node), -1).reshape(-1, 3)
    share = np.prod(np.meshgrid(*3 * [weight / weight.sum()]), 0).ravel()
    points = mean + jnp.asarray(noise, jnp.float32) @ root.T
    return points, jax.vmap(lambda z: joint(z) - q.log_prob(z))(points) + np.log(share)


evidence = jax.nn.logsumexp(quadrature(few_joint, offset, broad)[1])
print(f"log p(y), by quadrature: {evidence:.3f} nats")


@partial(jax.jit, static_argnames="K")
def at_offset(keys, K):
    """Values of the bound, its gradients along the mean of q, and those of DReG."""

    def bound(mean, key, which):
        return which(few_joint, distrax.MultivariateNormalTri(mean, broad), key, num_samples=K)

    def one(key):
        value, iwae = jax.value_and_grad(bound)(offset, key, vi.iwae)
        return value, iwae, jax.grad(bound)(offset, key, vi.dreg)

    return jax.vmap(one)(keys)


sizes = [2, 8] if SMOKE else [1, 4, 16, 64, 256]
budget = 400 if SMOKE else 100_000
value, ratio = [], {"IWAE": [], "DReG": []}
for K in sizes:
    values, iwae, dreg = at_offset(jax.random.split(jax.random.key(100 + K), budget // K), K)
    signal = jnp.linalg.norm(dreg.mean(0))  # the mean of both, and DReG's is the less noisy
    value.append(values.mean())
    ratio["IWAE"].append(signal / jnp.sqrt(iwae.var(0).sum()))
    ratio["DReG"].append(signal / jnp.sqrt(dreg.var(0).sum()))
    z = jnp.abs((iwae - dreg).mean(0) / (iwae - dreg).std(0)).max() * len(values) ** 0.5
    print(f"K = {K:3}: bound {value[-1]:.3f}; their mean gradients differ by z = {z:.1f} at most")

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4))
axes[0].plot(sizes, value, "o-", color="C2", label="IWAE bound")
axes[0].axhline(evidence, color="C0", linestyle="--", label="log p(y)")
axes[0].set(
    xscale="log", xlabel="samples K of one bound", ylabel="nats", title="the bound tightens"
)
for (name, found), color in zip(ratio.items(), ("C1", "C2"), strict=True):
    tail = slice(-3, None)
    slope = np.polyfit(np.log(sizes[tail]), np.log(found[tail]), 1)[0]
    axes[1].loglog(sizes, found, "o-", color=color, label=f"{name}: slope {slope:+.2f}")
axes[1].set(
    xlabel="samples K of one bound",
    ylabel="signal / noise",
    title="gradient of q: |mean| / standard deviation",
)
for axis in axes:
    axis.legend()
plt.show()

# %% [markdown]
# A better bound with a worse gradient: the ratio of signal to noise falls as $K^{-1/2}$ (Rainforth et al.,
# 2018). The mean of $K$ weights comes close to $p(y)$, which does not depend on $q$: so the signal fades as
# $1/K$, and the noise only as $K^{-1/2}$. The noise comes from the score again, and DReG (Tucker et al.,
# 2019) puts a second path derivative in its place: the same mean, and a ratio that *rises* as $K^{1/2}$. The
# gradient along the *model's* parameters needs no such help. (`sf.GradientSNR` watches this ratio while you
# train.)
#
# Both rules need weights of finite variance: that is why $q$ was broader here. A $q$ that is narrower than
# the posterior, as the ELBO tends to make it, has heavy-tailed weights, and neither rule holds.
#
# ## How sure are we?
#
# The posterior gives not one line between malignant and benign but a distribution of lines,
# and the mean of their predictions. With 12 tumors, with 60, and with all of them:

# %%
span = jnp.linspace(-3.5, 3.5, 60)
across = jnp.stack([*jnp.meshgrid(span, span), jnp.ones((60, 60))], -1)


@jax.vmap
def predict(params):
    draws = full(params).sample(seed=jax.random.key(8), sample_shape=(400,))
    return jax.nn.sigmoid(jnp.einsum("abi,ni->nab", across, draws))


predictions = predict(ends)
figure, axes = plt.subplots(1, 3, figsize=(10, 3.7), sharey=True)
for axis, i in zip(axes, (3, 2, 0), strict=True):
    shown, case = predictions[i], used[i]
    shade = axis.pcolormesh(
        span, span, shown.std(0), cmap="Greys", vmin=0, vmax=0.5, shading="auto"
    )
    lines = axis.contour(
        span, span, shown.mean(0), [0.1, 0.5, 0.9], colors="C0", linestyles=["--", "-", "--"]
    )
    axis.clabel(lines, fontsize=7)
    for label, name, color, marker in ((1, "benign", "C2", "o"), (-1, "malignant", "C1", "^")):
        chosen = (case > 0) & (y == label)
        axis.scatter(
            plane[chosen, 0],
            plane[chosen, 1],
            s=10,
            color=color,
            marker=marker,
            label=name,
            alpha=0.8,
        )
    axis.set(
        title=f"{int(case.sum())} tumors",
        xlabel="first component",
        xlim=(-3.5, 3.5),
        ylim=(-3.5, 3.5),
    )
axes[0].set_ylabel("second component")
axes[0].legend(loc="lower left", frameon=True)
figure.colorbar(shade, ax=axes, label="standard deviation of the probability", shrink=0.9)
plt.show()

# %% [markdown]
# Lines: where the predicted probability of *benign* is 0.1, 0.5, 0.9. Gray: how much the draws of $q$ disagree.
# With 12 tumors the model is uncertain away from them: the plane is gray there. With 569 it is uncertain
# only near the border. And how good is a Gaussian for 12 tumors? The exact prediction, by quadrature:

# %%
q = full(jax.tree.map(lambda p: p[3], ends))
joint = partial(small_joint, used=used[3])
points, masses = quadrature(joint, q.mean(), 1.3 * np.linalg.cholesky(q.covariance()))
some = across[::3, ::3]
exact = jnp.einsum(
    "n,nab->ab", jax.nn.softmax(masses), jax.nn.sigmoid(jnp.einsum("abi,ni->nab", some, points))
)
error = jnp.abs(predictions[3].mean(0)[::3, ::3] - exact)
print(
    f"probability of benign, q's against exact: {error.mean():.3f} apart on average, {error.max():.3f} at most"
)

# %% [markdown]
# ## Exercises
#
# 1. `sticking_the_landing` leaves out a part `coefficient` of the score. In the toy, at $s = 0.3$, which
#    coefficient is best, and what is left? Let it be fitted: `coefficient=None`, with `entropy` as a function.
# 2. `vi.renyi` has a parameter: `alpha=0` is IWAE, towards 1 it is the ELBO, below 0 it turns into an *upper*
#    bound for large $K$. Check it against the evidence of the 100 tumors, with $K = 64$.
# 3. Too many data for one step? Write the ELBO on a random minibatch of 64 tumors, and check its mean
#    gradient against the exact one. How much noise does the minibatch add at the start?
#
# ## Solutions
#
# **1.** The variance with coefficient $a$ is $(a/s - s)^2$, so $a = s^2$ leaves no variance: the score is
# then a perfect control variate. The fit finds it, for each draw from the others.


# %%
def fitted_toy(mean, key):
    q = sf.Distribution(
        lambda mean, w: jax.scipy.stats.norm.logpdf(w, mean, 0.3),
        lambda mean, key: mean + 0.3 * jax.random.normal(key),
        mean,
    )
    entropy = lambda mean: 0.5 * jnp.log(2 * jnp.pi * jnp.e * 0.3**2) + 0.0 * mean  # noqa: E731
    target = lambda w: -(w**2) / 2  # noqa: E731
    return vi.sticking_the_landing(target, q, key, num_samples=8, coefficient=None, entropy=entropy)


found = jax.jit(jax.vmap(jax.grad(fitted_toy), (None, 0)))(
    0.3, jax.random.split(jax.random.key(9), 200)
)
print(f"exact -0.3; fitted coefficient: mean {found.mean():.4f}, variance {found.var():.1e}")
np.testing.assert_allclose(found, -0.3, rtol=1e-3)

# %% [markdown]
# **2.**

# %%
few_keys = jax.random.split(jax.random.key(10), 50 if SMOKE else 2000)


@jax.jit
@jax.vmap
def renyi(alpha):
    q = distrax.MultivariateNormalTri(offset, broad)
    return jax.vmap(lambda k: vi.renyi(few_joint, q, k, alpha, num_samples=64))(few_keys).mean()


alphas = jnp.array([0.999, 0.5, 0.0, -0.5, -1.0])
for alpha, bound in zip(alphas, renyi(alphas), strict=True):
    print(f"alpha {alpha:6.3f}: {bound:.3f}, {bound - evidence:+.3f} from log p(y)")

# %% [markdown]
# **3.** The log-likelihood of 64 tumors, times 569 / 64, has the right mean; the divergence is not scaled.


# %%
def minibatch(params, key, n):
    which, key = jax.random.split(key)
    chosen = jax.random.choice(which, len(y), (64,))

    def scaled(w):
        return len(y) / 64 * jnp.sum(jax.nn.log_sigmoid(y[chosen] * (x[chosen] @ w)))

    q = mean_field(params)
    return vi.elbo(scaled, q, key, sf.Pathwise(), num_samples=n, entropy=-q.kl_divergence(prior))


_, gradients = many(minibatch, start, keys)
_, whole = many(closed_divergence, start, keys)
truth = jax.grad(exact_elbo)(start)["mean"]
z = (gradients["mean"].mean(0) - truth) / gradients["mean"].std(0) * len(keys) ** 0.5
print(f"greatest z {jnp.abs(z).max():.1f}")
print(f"variance {noise(gradients):.0f}, with all data {noise(whole):.0f}")
