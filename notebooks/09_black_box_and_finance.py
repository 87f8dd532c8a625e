# %% [markdown]
# # 9. Black boxes and finance
#
# Two applications that need the log-derivative trick. A bet that pays all or nothing: the derivative of its
# price along the market cannot be computed by paths, and is compared with the closed form. And a simulator
# in plain NumPy, called from inside a jitted training loop, which has no derivative.
#
# [All notebooks](README.md) · previous: [8. Programs](08_programs.ipynb) · next: [10. Composing into your
# model](10_composing_into_your_model.ipynb)

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
from jax.scipy.stats import norm

import scorefn as sf

if os.path.exists("notebook.mplstyle"):  # not on Colab
    plt.style.use("notebook.mplstyle")
SMOKE = "SCOREFN_SMOKE" in os.environ  # set by the tests: fewer samples

# %% [markdown]
# ## A bet and an option
#
# A share costs $S_0$ today. In the model of Black and Scholes its price $S_T$ at time $T$ is random, with
#
# $$\log S_T \sim \mathcal{N}\big(\log S_0 + (r - \tfrac{1}{2}\sigma^2)\, T,\; \sigma \sqrt{T}\big),$$
#
# where $r$ is the interest rate and $\sigma$ the *volatility*. A *digital* call pays 100 if $S_T$ ends
# above the strike $K$, else nothing; a plain call pays $S_T - K$, or nothing. What they are worth today is
# the expected payoff, discounted. Whoever sells one must know how the price moves with the market, the
# *Greeks*: delta, its derivative along $S_0$; vega, along $\sigma$; gamma, the second derivative along
# $S_0$.

# %%
strike, rate = 100.0, 0.03
market = jnp.array([100.0, 0.2, 0.5])  # S_0, in euros; sigma, per root of a year; T, in years


def log_price(market):
    spot, vol, time = market
    spread = vol * jnp.sqrt(time)
    return distrax.Normal(jnp.log(spot) + rate * time - spread**2 / 2, spread)


def payoffs(x):
    """Of the digital and of the plain call, given the log-price."""
    return jnp.stack([jnp.where(x > jnp.log(strike), 100.0, 0.0), jax.nn.relu(jnp.exp(x) - strike)])


def closed_form(market):
    """Black and Scholes (1973)."""
    spot, vol, time = market
    d2 = (log_price(market).loc - jnp.log(strike)) / log_price(market).scale
    d1, discount = d2 + log_price(market).scale, jnp.exp(-rate * time)
    bet = 100.0 * discount * norm.cdf(d2)
    return jnp.stack([bet, spot * norm.cdf(d1) - strike * discount * norm.cdf(d2)])


def greeks(prices):
    """Delta, vega and gamma of both: [2, 3]."""
    slopes = jax.jacrev(prices)(market)
    gamma = jax.hessian(lambda spot: prices(market.at[0].set(spot)))(market[0])
    return jnp.concatenate([slopes[:, :2], gamma[:, None]], 1)


exact = jax.jit(greeks, static_argnums=0)(closed_form)
print("          price   delta    vega   gamma")
for name, value, row in zip(["digital", "call"], closed_form(market), exact, strict=True):
    print(f"{name:8}{value:7.3f}", "".join(f"{x:8.3f}" for x in row))

# %% [markdown]
# ## What the pathwise derivative misses
#
# By simulation: draw log-prices, average the payoffs, differentiate. Two ways are known from [notebook
# 3](03_three_gradients.ipynb): the *pathwise* derivative moves each draw and differentiates its payoff, and
# the *score function* keeps the draws and moves their probabilities. The payoff of a digital is flat on both
# sides of its jump. Each path says 0, and so does their mean, while every euro that the share gains does push
# some paths over the strike. No library can see a jump in your f; a test can:


# %%
def price(market, key, estimator, payoffs=payoffs, num_samples=16):
    def discounted(x):
        return jnp.exp(-rate * market[2]) * payoffs(x)

    return sf.expectation(discounted, log_price(market), key, estimator, num_samples=num_samples)


report = sf.check_unbiased(
    lambda market, key: price(market, key, sf.Pathwise())[0],
    market,
    jax.random.key(0),
    exact=jax.grad(lambda market: closed_form(market)[0])(market),
    num_repeats=100,
)
print(report)

# %% [markdown]
# Two more estimators are possible. The *measure-valued* derivative is a difference of payoffs under
# two distributions, one to either side. It is also common to *smooth* the payoff, replacing the jump by a
# sigmoid, in order to use paths. All Greeks by all four, 16 draws a time:


# %%
def smoothed(x, width=0.03):
    far = (x - jnp.log(strike)) / width
    return jnp.stack(
        [
            100.0 * jax.nn.sigmoid(far),
            width * strike * jax.nn.softplus((jnp.exp(x) / strike - 1) / width),
        ]
    )


def over(keys, estimate):
    """Mean of an estimate over keys, its variance, and the standard error of the mean."""
    found = jax.jit(jax.vmap(estimate))(keys)
    variance = found.var(0, ddof=1)
    return found.mean(0), variance, jnp.sqrt(variance / len(keys))


def slopes(key, estimator):  # of first order: no gamma
    delta_vega = jax.jacrev(price)(market, key, estimator)[:, :2]
    return jnp.pad(delta_vega, ((0, 0), (0, 1)), constant_values=jnp.nan)


def all_greeks(key, estimator, payoffs=payoffs):
    return greeks(lambda market: price(market, key, estimator, payoffs))


ways = {
    "pathwise": partial(all_greeks, estimator=sf.Pathwise()),
    "score function": partial(all_greeks, estimator=sf.ScoreFunction()),
    "measure-valued": partial(slopes, estimator=sf.MeasureValued()),
    "smoothed": partial(all_greeks, estimator=sf.Pathwise(), payoffs=smoothed),
}
keys = jax.random.split(jax.random.key(1), 500 if SMOKE else 10_000)
found = {name: over(keys, way) for name, way in ways.items()}
print("                exact", "".join(f"{name:>19}" for name in ways))
for i, j in np.ndindex(2, 3):
    name = ["digital", "call"][i] + [" delta", " vega", " gamma"][j]
    cells = [f"{mean[i, j]:9.3f} ± {error[i, j]:.4f}" for mean, _, error in found.values()]
    print(f"{name:14}{exact[i, j]:7.3f} ", "".join(f"{cell:>19}" for cell in cells))

for name, (i, j) in {
    "score function": (0, 3),
    "measure-valued": (0, 2),
    "pathwise": (1, 2),
}.items():
    mean, _, error = found[name]
    z = (mean[i:, :j] - exact[i:, :j]) / error[i:, :j]
    assert jnp.abs(z).max() < 6.2, (name, z)
np.testing.assert_array_equal(found["pathwise"][0][0], 0.0)

# %% [markdown]
# - Pathwise: right for the delta and vega of the call, and hard to beat there; for the digital, and for the
#   gamma of the call (its delta jumps at the strike), 0, with a standard error of 0.
# - The score function is right everywhere, gamma included: it needs only values of the payoff.
# - Measure-valued: right, and less noisy, for more evaluations; right to first order only, so gamma is left
#   out.
# - Smoothed: close, but for the digital the bias exceeds the standard errors.
#
# How noisy, and where? The relative standard error of delta after a thousand evaluations of the payoff (a
# measure-valued term takes 4), over the price of the share and over the time that is left:

# %%
estimators = {
    "pathwise": (sf.Pathwise(), 1),
    "score function": (sf.ScoreFunction(), 1),
    "measure-valued": (sf.MeasureValued(), 4),
}
few = keys[: 50 if SMOKE else 2000]


@jax.jit
def relative_errors(markets, estimator):
    """Of delta, by one evaluation, for both payoffs: [n, 2]."""

    def one(market):
        deltas = jax.vmap(lambda key: jax.jacrev(price)(market, key, estimator)[:, 0])(few)
        return jnp.sqrt(16 * deltas.var(0)) / jax.jacrev(closed_form)(market)[:, 0]

    return jax.lax.map(one, markets)


points = 21
spots, times = jnp.linspace(80.0, 125.0, points), jnp.geomspace(0.03, 2.0, points)
sweeps = [
    (spots, jnp.stack([spots, 0 * spots + 0.2, 0 * spots + 0.5], 1), "price of the share, euros"),
    (times, jnp.stack([0 * times + 95.0, 0 * times + 0.2, times], 1), "years left, at 95 euros"),
]
figure, axes = plt.subplots(2, 2, figsize=(10, 4.6), sharex="col", sharey="row")
for column, (along, markets, label) in enumerate(sweeps):
    for color, (name, (estimator, evaluations)) in enumerate(estimators.items()):
        errors = relative_errors(markets, estimator) * np.sqrt(evaluations / 1000)
        for i, payoff in enumerate(["digital", "call"]):
            if (name, payoff) != ("pathwise", "digital"):  # a standard error of 0, around a wrong 0
                axes[i, column].plot(along, errors[:, i], color=f"C{color + 1}", label=name)
    axes[1, column].set_xlabel(label)
for i, payoff in enumerate(["digital", "call"]):
    axes[i, 0].set(ylabel=f"delta of the {payoff}", yscale="log")
    axes[i, 1].set(xscale="log")
figure.suptitle("relative standard error after 1000 evaluations of the payoff", fontsize=10)
axes[1, 1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
plt.show()

# %% [markdown]
# Far from the strike, and for short times, few draws are on the other side of it, and all estimators get
# worse. Close to it a measure-valued pair has one draw on either side nearly always: then there is almost no
# noise. For the call the pathwise derivative stays the best; for the digital it does not exist.
#
# ## Fewer draws
#
# Techniques that wrap any estimator ([notebook 4](04_control_variates_and_sampling.ipynb)) can wrap these.
# *Antithetic*: each draw with its mirror image. A *control variate*: the mean of $S_T$ is known,
# $S_0 e^{rT}$, so the part of the payoff that looks like $S_T$ needs no sampling; how large a part, is
# fitted to other keys. *Quasi-Monte Carlo*: draws at the points of a Sobol sequence, which leave no gaps.


# %%
forward = market[0] * jnp.exp(rate * market[2])


def schemes(estimator, payoff):
    control = sf.ControlVariate(
        estimator,
        h=lambda x: jnp.exp(x) - forward,  # less a constant, so that the baseline still fits
        mean=lambda normal: jnp.exp(normal.loc + normal.scale**2 / 2) - forward,
    )
    others = jax.random.split(jax.random.key(2), 1000)
    return {
        "plain": estimator,
        "antithetic": sf.Antithetic(estimator),
        "control variate": control.fit(payoff, log_price(market), others),
        "Sobol points": sf.QuasiMonteCarlo(estimator),
    }


def variance_of_delta(payoff, estimator, num_samples):
    def delta(key):
        return jax.grad(price)(market, key, estimator, payoff, num_samples)[0]

    return over(few, delta)[1]


# A baseline that depends on no draw: the points of a sequence depend on one another.
cases = {
    "digital": (lambda x: payoffs(x)[0], sf.ScoreFunction(sf.ConstantBaseline(50.0))),
    "call": (lambda x: payoffs(x)[1], sf.Pathwise()),
}
numbers = [16] if SMOKE else [16, 64, 256]
few = keys[: 100 if SMOKE else 1000]
figure, axes = plt.subplots(1, 2, figsize=(10, 3.2))
for axis, (name, (payoff, base)) in zip(axes, cases.items(), strict=True):
    for color, (scheme, estimator) in enumerate(schemes(base, payoff).items()):
        if scheme == "Sobol points":
            variances = [variance_of_delta(payoff, estimator, n) for n in numbers]
        else:  # independent draws: 1/n, exactly
            draws = numbers[0] // 2 if scheme == "antithetic" else numbers[0]
            first = variance_of_delta(payoff, estimator, draws)
            variances = [first * numbers[0] / n for n in numbers]
        axis.plot(numbers, variances, "o-", color=f"C{color}", label=scheme)
    axis.set(xscale="log", yscale="log", xlabel="evaluations of the payoff")
    axis.set(xticks=numbers, xticklabels=numbers)
    axis.xaxis.minorticks_off()
    axis.set_title(f"delta of the {name} by {type(base).__name__}")
axes[0].set_ylabel("variance of the estimate")
axes[1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
plt.show()

# %% [markdown]
# Antithetic draws remove the part that is odd around the center. The path derivative of a call is nearly
# odd; a payoff of ±50 times a score that changes sign as well is *even*, and the second evaluation is
# wasted. The points of a sequence help in both cases, with or without a jump, because there is only one
# dimension to fill.
#
# With more dimensions, and no closed form, a good control variate helps most. An *Asian* call pays on the
# average of twelve month-end prices. The logarithm of the geometric mean is Gaussian, so its price has a
# closed form; the two payoffs are almost equal.

# %%
months = 12
ends = jnp.arange(1, months + 1) / months  # as a part of the time


def path(market, key):
    spot, vol, time = market
    steps = jax.random.normal(key, (months,)) * vol * jnp.sqrt(time / months)
    return jnp.log(spot) + (rate - vol**2 / 2) * time * ends + jnp.cumsum(steps)


def path_density(market, x):
    spot, vol, time = market
    steps = jnp.diff(x, prepend=jnp.log(spot))
    drift, spread = (rate - vol**2 / 2) * time / months, vol * jnp.sqrt(time / months)
    return norm.logpdf(steps, drift, spread).sum()


def geometric(market):
    """The mean of the geometric payoff: Kemna and Vorst (1990)."""
    spot, vol, time = market
    mean = jnp.log(spot) + (rate - vol**2 / 2) * time * ends.mean()
    spread = vol * jnp.sqrt(time * jnp.sum(jnp.cumsum(jnp.ones(months)) ** 2)) / months**1.5
    d2 = (mean - jnp.log(strike)) / spread
    grown = jnp.exp(mean + spread**2 / 2)
    return grown * norm.cdf(d2 + spread) - strike * norm.cdf(d2)


def asian(market, key, estimator):
    def payoff(x):
        return jnp.exp(-rate * market[2]) * jax.nn.relu(jnp.exp(x).mean() - strike)

    walk = sf.Distribution(path_density, path, market)
    return sf.expectation(payoff, walk, key, estimator, num_samples=16)


year = jnp.array([100.0, 0.2, 1.0])
discount = jnp.exp(-rate * year[2])
control = sf.ControlVariate(
    sf.Pathwise(),
    h=lambda x: discount * jax.nn.relu(jnp.exp(x.mean()) - strike),
    mean=lambda market: discount * geometric(market),
)


def price_delta_vega(key, estimator):
    value, slopes = jax.value_and_grad(asian)(year, key, estimator)
    return jnp.array([value, *slopes[:2]])


spread = {}
for name, estimator in {"plain": sf.Pathwise(), "geometric control": control}.items():
    mean, spread[name], error = over(few, partial(price_delta_vega, estimator=estimator))
    cells = zip(["price", "delta", "vega"], mean, error, strict=True)
    print(f"{name:18}", "   ".join(f"{what} {m:.4f} ± {e:.4f}" for what, m, e in cells))
print("variance reduced by the factors", np.round(spread["plain"] / spread["geometric control"]))

# %% [markdown]
# ## A simulator without a derivative
#
# Now f is a program written elsewhere. A ball is thrown from a height of 1.5 m, is slowed by the air, bounces
# off the floor and off a wall of 1 m, three meters away; its second bounce should hit a cup at 8 m. The
# code is plain NumPy. It goes through a batch of throws at once, but does not use JAX.

# %%
wall, cup, start = 3.0, 8.0, jnp.array([3.0, 4.7])


def throw(x):
    """x [..., 2]: angle in units of 10 degrees, speed in m/s. Returns x, y, bounced, [..., time, 3]."""
    x = np.asarray(x, float)
    angle, speed = np.radians(10.0 * x[..., 0]), x[..., 1]
    px, py = np.zeros_like(speed), np.full_like(speed, 1.5)
    vx, vy = speed * np.cos(angle), speed * np.sin(angle)
    track, dt = [], 0.02
    for _ in range(200):
        drag = 0.02 * dt * np.hypot(vx, vy)
        vx, vy = vx - drag * vx, vy - drag * vy - dt * 9.81
        new_x, new_y = px + dt * vx, py + dt * vy
        hit = ((px < wall) != (new_x < wall)) & (new_y < 1.0)
        vx, px = np.where(hit, -0.6 * vx, vx), np.where(hit, px, new_x)
        vy, py = np.where(new_y < 0, -0.7 * vy, vy), np.abs(new_y)
        track.append(np.stack([px, py, new_y < 0], -1))
    return np.stack(track, -2)


def miss(x):
    """How far from the cup the second bounce is, in meters, [...]."""
    track = throw(x)
    second = np.argmax(np.cumsum(track[..., 2], -1) == 2, -1)
    place = np.take_along_axis(track[..., 0], second[..., None], -1)[..., 0]
    return np.abs(place - cup).astype(np.float32)


def simulated(x):
    """The same for JAX: one call of the host for a whole batch."""
    out = jax.ShapeDtypeStruct(x.shape[:-1], jnp.float32)
    return jax.pure_callback(miss, out, x, vmap_method="broadcast_all")


try:
    jax.grad(simulated)(start)
except ValueError as error:
    print(error)

# %% [markdown]
# *Evolution strategies* need only its costs. Throw with a little noise $\varepsilon \sim \mathcal{N}(0, 1)$
# on the parameters, once with $+\varepsilon$ and once with $-\varepsilon$:
#
# $$\nabla\, \mathbb{E}\, f(x + s\,\varepsilon) \approx \frac{f(x + s\,\varepsilon) - f(x -
# s\,\varepsilon)}{2 s}\, \varepsilon.$$
#
# That is the score function of a Gaussian with antithetic draws; and the objective has a meaning: it is the
# expected miss of an arm that is off by $s$. `sf.Deterministic(x)` says that the parameters themselves are
# the point to look around. Beside it the score function, and *SPSA*, which takes one small step along
# random signs and so estimates the derivative of $f$ itself. The reference for the first two is a sum over a
# fine grid of noise.

# %%
s, pairs = 0.5, 16


def cost(x, key, estimator):
    return sf.expectation(simulated, sf.Deterministic(x), key, estimator, num_samples=pairs)


def by_score(x, key):
    arm = distrax.Independent(distrax.Normal(x, s), 1)
    return sf.expectation(simulated, arm, key, sf.ScoreFunction(), num_samples=2 * pairs)


side = np.linspace(-4.5, 4.5, 61 if SMOKE else 301)
noise = np.stack(np.meshgrid(side, side, indexing="ij"), -1)
weight = np.exp(-(noise**2).sum(-1) / 2)
weight /= weight.sum()
slope = np.einsum("ij,ij,ijk->k", weight, miss(start + s * noise), noise) / s
print("smoothed, by the grid:   ", slope)
means = {}
trials = jax.random.split(jax.random.key(4), 50 if SMOKE else 1000)
for name, loss in {
    "evolution strategies": partial(cost, estimator=sf.EvolutionStrategies(s)),
    "score function": by_score,
    "SPSA, step 0.02": partial(cost, estimator=sf.SPSA(0.02)),
}.items():
    mean, variance, error = over(trials, partial(jax.grad(loss), start))
    means[name] = mean
    print(f"{name:21}    {mean} ± {error}, variance {variance.sum():.2f}")
    if not SMOKE and "SPSA" not in name:
        assert np.all(np.abs(mean - slope) < 6.2 * error)
assert slope[1] < 0 < means["SPSA, step 0.02"][1]

# %% [markdown]
# The first two agree with the grid. SPSA estimates another derivative, and it points the other way: at
# this throw the ball hits the wall, and the bounce that comes *locally* nearest to the cup is that of a
# slower ball. The better throws are behind a cliff in the cost, and only an estimator that evaluates points
# as far away as $s$ can find them.
#
# A training loop, all in one `lax.scan`, with the callback inside; three runs each. *Ranked* evolution
# strategies replace the costs of a step by their ranks, so that neither outliers nor units matter (biased,
# and it says so).

# %%
steps, runs = (3, 3) if SMOKE else (120, 3)
optimizer = optax.adam(0.05)


@jax.jit
def train(key, estimator):
    def step(carry, key):
        x, state = carry
        update, state = optimizer.update(jax.grad(cost)(x, key, estimator), state)
        return (optax.apply_updates(x, update), state), x

    keys = jax.random.split(key, steps)
    return jax.lax.scan(step, (start, optimizer.init(start)), keys)[1]


searches = {
    "EvolutionStrategies": sf.EvolutionStrategies(s),
    "Ranked": sf.RankedEvolutionStrategies(s),
    "SPSA": sf.SPSA(0.02),
}
seeds = jax.random.split(jax.random.key(5), runs)
paths = {name: jax.vmap(train, (0, None))(seeds, how) for name, how in searches.items()}
for name, path in paths.items():
    end = path[:, -1]
    sloppy = miss(end + s * np.random.default_rng(0).normal(size=(2000, 1, 2))).mean(0)
    print(f"{name:20} misses by {miss(end)} m, with an arm that is off by {s}: {sloppy} m")

# %%
angles, speeds = np.meshgrid(np.linspace(0.5, 8.5, 160), np.linspace(2.4, 8.0, 160))
landscape = miss(np.stack([angles, speeds], -1))
figure, axes = plt.subplots(1, 2, figsize=(10, 4))
metres = plt.get_cmap("YlGnBu", 14)
image = axes[0].pcolormesh(10 * angles, speeds, landscape, cmap=metres, vmin=0, vmax=14)
figure.colorbar(image, label="miss, m", boundaries=range(11))
for color, (name, path) in zip(["C1", "C0", "C5"], paths.items(), strict=True):
    axes[0].plot(
        10 * path[..., 0].T, path[..., 1].T, color=color, label=[name] + [None] * (runs - 1)
    )
axes[0].plot(10 * start[0], start[1], "o", color="C4")
axes[0].set(xlabel="angle, degrees", ylabel="speed, m/s", title="paths over the cost of one throw")
axes[0].legend(loc="upper right", frameon=True, framealpha=1)
best = np.asarray(paths["EvolutionStrategies"][0])
for i in np.linspace(0, steps - 1, 6).astype(int):
    track = throw(best[i])
    until = np.argmax(np.cumsum(track[:, 2]) == 2) + 1
    shade = plt.cm.plasma(0.85 - 0.8 * i / steps)
    axes[1].plot(track[:until, 0], track[:until, 1], color=shade, label=f"step {i}")
axes[1].plot([wall, wall], [0, 1.0], color="C0", linewidth=4)
axes[1].plot(cup, 0, "v", color="C0", markersize=10, clip_on=False)
axes[1].set(xlabel="m", ylabel="m", title="throws while evolution strategies learn; wall and cup")
axes[1].legend(loc="upper right")
plt.show()

# %% [markdown]
# Evolution strategies find the valley beyond the cliff, move there, and stay away from its edge, where an arm
# of that accuracy would often hit the wall. SPSA follows the local slope to the nearest hollow, a ball that
# comes back from the wall. Ranks can mislead: they count *how often* the throws of a step do better,
# not by how much, and at the start most of them are on the slope in front of the wall.
#
# ## Exercises
#
# 1. The gamma of the call by the score function takes two scores. Its delta is an expectation as well, that
#    of $e^{-rT}\, [S_T > K]\, S_T / S_0$ (the pathwise derivative, written down). Take the score function
#    of *that*. How much variance is saved?
# 2. Smoothing: for widths from 0.3 to 0.003, find the bias and the standard error of the delta of the
#    digital after 1000 draws. Which width is the best, and is it better than the score function?
# 3. A scale of 0.5 finds the valley, but is too large to settle in it. `scale` is a leaf of the estimator:
#    let it shrink while training, from 0.5 to 0.02, and see how close the throw comes.
#
# ## Solutions
#
# **1.** The price of the share stands in the payoff as well; `sf.expectation` differentiates that along.


# %%
def gamma(key):
    def slope(spot):
        def payoff(x):
            return jnp.where(x > jnp.log(strike), jnp.exp(x) / spot, 0.0)

        return price(market.at[0].set(spot), key, sf.ScoreFunction(), payoff)

    return jax.grad(slope)(market[0])


mean, variance, error = over(keys, gamma)
truth, twice = exact[1, 2], found["score function"][1][1, 2]
print(f"exact {truth:.5f}, path then score {mean:.5f} ± {error:.5f}")
print(f"variance {variance:.2e}, two scores {twice:.2e}")
assert abs(mean - truth) < 6.2 * error

# %% [markdown]
# **2.** The narrower, the fewer draws fall where the sigmoid is steep.


# %%
@jax.jit
def smoothed_deltas(width):
    def delta(key):
        return jax.grad(price)(market, key, sf.Pathwise(), lambda x: smoothed(x, width)[0])[0]

    return jax.vmap(delta)(keys)


def show(name, deltas):
    bias, error = deltas.mean() - exact[0, 0], deltas.std() * np.sqrt(16 / 1000)
    both = np.hypot(bias, error)
    print(f"{name:16} bias {bias:7.3f}, error of 1000 draws {error:.3f}, both {both:.3f}")


for width in (0.3, 0.1, 0.03, 0.01, 0.003):
    show(f"width {width}", smoothed_deltas(width))
mean, variance, _ = found["score function"]
error = np.sqrt(variance[0, 0] * 16 / 1000)
print(f"score function: no bias, error of 1000 draws {error:.3f}")

# %% [markdown]
# The best width depends on the market and the number of draws; the score function has nothing to tune.
#
# **3.** A value that is scanned over, as any other.


# %%
@jax.jit
def anneal(key):
    def step(carry, inputs):
        (x, state), (key, scale) = carry, inputs
        gradient = jax.grad(cost)(x, key, sf.EvolutionStrategies(scale))
        update, state = optimizer.update(gradient, state)
        return (optax.apply_updates(x, update), state), None

    scales = jnp.geomspace(s, 0.02, 2 * steps)
    inputs = (jax.random.split(key, 2 * steps), scales)
    return jax.lax.scan(step, (start, optimizer.init(start)), inputs)[0][0]


print("misses by", miss(jax.vmap(anneal)(seeds)), "m")
