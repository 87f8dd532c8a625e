# %% [markdown]
# # 10. Composing into your model
#
# One small model with a layer of random bits, written in flax linen, flax nnx and equinox, with
# distributions of distrax and numpyro, and a flow of flowjax beside it. Then training in a scan, a
# million samples in the memory of a thousand, and one gradient on eight devices.
#
# [All notebooks](README.md) · previous: [9. Black boxes and finance](09_black_box_and_finance.ipynb) ·
# next: [11. Which estimator?](11_which_estimator.ipynb)

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
import re
import time

# Eight devices out of one CPU, for the section on devices. It is read when jax is first used.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import distrax
import equinox as eqx
import flowjax.distributions as fjd
import flowjax.flows
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as npd
import optax
from flax import linen, nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.datasets import make_moons

import scorefn as sf
from scorefn import vi

if os.path.exists("notebook.mplstyle"):  # not on Colab
    plt.style.use("notebook.mplstyle")
SMOKE = "SCOREFN_SMOKE" in os.environ  # set by the tests: fewer samples

# %% [markdown]
# ## One loss, three libraries
#
# Two moons of points $x$, each with a label $y$. A network makes six numbers of a point, the logits of six
# random bits $b$; from the bits alone it must predict the label. The loss is
#
# $$L(\theta) = \frac{1}{N} \sum_i \mathbb{E}_{b \sim p_\theta(b \mid x_i)}\big[-\log p_\theta(y_i \mid
# b)\big],$$
#
# where $\theta$ is in both: in the distribution of the bits, and in the cost. Written down once, for any
# `network` that has the two parts `encode` and `decode`:

# %%
points, labels = make_moons(40 if SMOKE else 100, noise=0.15, random_state=0)
points, labels = jnp.asarray(points, jnp.float32), jnp.asarray(labels, jnp.float32)
HIDDEN, BITS = 16, 6


def loss_at(network, x, y, key, estimator, *, layer=sf.Bernoulli, **options):
    def cost(bits):
        return optax.sigmoid_binary_cross_entropy(network.decode(bits), y)

    return sf.expectation(cost, layer(network.encode(x)), key, estimator, **options)


def loss(network, key, estimator, **options):
    def each(x, y, key):
        return loss_at(network, x, y, key, estimator, **options)

    return jnp.mean(jax.vmap(each)(points, labels, jax.random.split(key, len(points))))


# %% [markdown]
# The same network three times. It does not use `scorefn`.


# %%
class LinenNet(linen.Module):
    def setup(self):
        self.hidden, self.bits, self.out = linen.Dense(HIDDEN), linen.Dense(BITS), linen.Dense(1)

    def encode(self, x):
        return self.bits(jnp.tanh(self.hidden(x)))

    def decode(self, bits):
        return self.out(bits)[0]

    def __call__(self, x):
        return self.decode(self.encode(x))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(2, HIDDEN, rngs=rngs)
        self.bits = nnx.Linear(HIDDEN, BITS, rngs=rngs)
        self.out = nnx.Linear(BITS, 1, rngs=rngs)

    def encode(self, x):
        return self.bits(jnp.tanh(self.hidden(x)))

    def decode(self, bits):
        return self.out(bits)[0]


class EquinoxNet(eqx.Module):
    hidden: eqx.nn.Linear
    bits: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self, key):
        sizes, keys = [(2, HIDDEN), (HIDDEN, BITS), (BITS, 1)], jax.random.split(key, 3)
        layers = [eqx.nn.Linear(*s, key=k) for s, k in zip(sizes, keys, strict=True)]
        self.hidden, self.bits, self.out = layers

    def encode(self, x):
        return self.bits(jnp.tanh(self.hidden(x)))

    def decode(self, bits):
        return self.out(bits)[0]


# %% [markdown]
# All three get the weights of the first, so that their gradients can be compared. Linen keeps weights
# apart, in a dict; nnx and equinox keep them in the network. (Equinox stores matrices transposed.)

# %%
linen_net = LinenNet()
params = linen_net.init(jax.random.key(0), points[0])

nnx_net = NnxNet(nnx.Rngs(0))
nnx.update(nnx_net, params["params"])


def in_linen_order(net):
    return [a for layer in (net.bits, net.hidden, net.out) for a in (layer.bias, layer.weight)]


equinox_net = EquinoxNet(jax.random.key(0))
equinox_net = eqx.tree_at(in_linen_order, equinox_net, [a.T for a in jax.tree.leaves(params)])

# %% [markdown]
# Each library has its own `grad` and `jit`. Take those: `sf.expectation` is ordinary JAX to all of them.

# %%
key, estimator = jax.random.key(1), sf.ScoreFunction(sf.LeaveOneOut())


def objective(network):
    return loss(network, key, estimator, num_samples=4)


of_linen = jax.jit(jax.grad(lambda params: objective(linen_net.bind(params))))(params)
of_nnx = nnx.jit(nnx.grad(objective))(nnx_net)
of_equinox = eqx.filter_jit(eqx.filter_grad(objective))(equinox_net)

found = {
    "linen": jax.tree.leaves(of_linen),
    "nnx": jax.tree.leaves(nnx.to_pure_dict(of_nnx)),
    "equinox": [a.T for a in in_linen_order(of_equinox)],
}
for name, gradient in found.items():
    print(f"{name:8s} {sum(a.size for a in gradient)} weights, bias of the bits:", gradient[0][:3])
    for a, b in zip(gradient, found["linen"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)

# %% [markdown]
# One estimate, not three: the same key draws the same bits in every framework.
#
# ## Distributions of other libraries
#
# The layer of bits may be an object of distrax, TFP or numpyro as it is: whatever has `sample` and
# `log_prob`. Batch dimensions of one draw are independent factors, so six logits are six bits. The object
# draws with its own sampler, so the estimate may differ; the exact gradient, a sum over all $2^6$ draws,
# does not:

# %%
layers = {
    "scorefn": sf.Bernoulli,
    "distrax": lambda logits: distrax.Bernoulli(logits=logits),
    "numpyro": lambda logits: npd.Bernoulli(logits=logits),
}


def exact_gradient(layer):
    def of(params):
        return loss(linen_net.bind(params), key, sf.Enumerate(), layer=layer)

    return jax.jit(jax.grad(of))(params)["params"]["bits"]["bias"]


exact = {name: exact_gradient(layer) for name, layer in layers.items()}
for name, gradient in exact.items():
    print(f"{name}: bias of the bits {gradient[:3]}")
    np.testing.assert_allclose(gradient, exact["scorefn"], rtol=1e-3, atol=1e-6)

# %% [markdown]
# Which one should you take? `sf.Bernoulli` and `sf.Categorical` draw faster (categories by far: see
# [estimators](../docs/estimators.md#bits-and-categories-that-are-drawn-fast)); an object of a library saves
# a line if your model has one already.
#
# ## A flow, as a posterior and as a proposal
#
# flowjax's flows are equinox modules, and distributions as well. `eqx.partition` splits one into arrays,
# which are trained, and the rest. The target is a banana whose normalizer we know,
#
# $$x_1 \sim N(0, 1), \quad x_2 \mid x_1 \sim N(c\, x_1^2,\ 0.5^2), \quad c = 1,$$
#
# so that minus the evidence lower bound *is* the divergence $\mathrm{KL}(q \,\|\, p)$, which ends at 0.
# The steps run in a `lax.scan`: one program, however many there are.

# %%
flow = flowjax.flows.coupling_flow(
    jax.random.key(0), base_dist=fjd.Normal(jnp.zeros(2)), flow_layers=4, nn_width=16, nn_depth=1
)
arrays, static = eqx.partition(flow, eqx.is_inexact_array)
optimizer = optax.adam(4e-3)


def banana(c, x):
    return jax.scipy.stats.norm.logpdf(
        x, jnp.stack([0.0, c * x[0] ** 2]), jnp.array([1.0, 0.5])
    ).sum()


def divergence(arrays, key):
    q = eqx.combine(arrays, static)
    return -vi.elbo(lambda x: banana(1.0, x), q, key, sf.Pathwise(), num_samples=64)


@jax.jit
def fit(arrays, keys):
    def step(state, key):
        arrays, memory = state
        value, gradient = jax.value_and_grad(divergence)(arrays, key)
        change, memory = optimizer.update(gradient, memory)
        return (optax.apply_updates(arrays, change), memory), value

    (arrays, _), values = jax.lax.scan(step, (arrays, optimizer.init(arrays)), keys)
    return arrays, values


trained, values = fit(arrays, jax.random.split(jax.random.key(2), 20 if SMOKE else 1000))
print(f"divergence: {values[0]:.2f} nats at the start, {values[-20:].mean():.3f} at the end")

# %% [markdown]
# Now the flow serves as a *proposal*. We ask how $\mathbb{E}_{p_c}[x_2] = c$ changes with $c$ (the answer
# is 1), with draws that come from $q$ and weights $w = p_c(x) / q(x)$ that correct for that:
#
# $$\nabla_c\, \mathbb{E}_{p_c}[f(x)] = \mathbb{E}_{q}\big[w(x)\,(f(x) - b)\,\nabla_c \log p_c(x)\big].$$
#
# The sampler of $p_c$ is never run. It is only needed for the shape of a draw.


# %%
@jax.jit
def derivative(arrays, keys):
    estimator = sf.ImportanceWeighted(eqx.combine(arrays, static))

    def mean(c, key):
        p = sf.Distribution(banana, lambda *_: jnp.zeros(2), c)
        return sf.expectation(lambda x: x[1], p, key, estimator, num_samples=500)

    return sf.moments(lambda key: jax.grad(mean)(1.0, key), keys)


keys = jax.random.split(jax.random.key(3), 20 if SMOKE else 100)
for name, state in {"before training": arrays, "trained": trained}.items():
    mean, variance, count = derivative(state, keys)
    error = jnp.sqrt(variance / count)
    print(f"flow {name:15s} derivative {mean:.3f} ± {error:.3f}, variance {variance:.3g}; exact: 1")

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 3.2))
across, up = np.meshgrid(np.linspace(-3, 3, 80), np.linspace(-3, 7, 80))
density = jnp.exp(
    jax.jit(jax.vmap(banana, (None, 1)))(1.0, jnp.stack([across.ravel(), up.ravel()]))
)
for axis, name, state in zip(axes, ["before training", "trained"], [arrays, trained], strict=False):
    draws = eqx.combine(state, static).sample(jax.random.key(4), (400,))
    axis.contour(across, up, density.reshape(up.shape), [0.01, 0.05, 0.1, 0.2, 0.3], colors="0.6")
    axis.plot(*draws.T, "o", color="C2", markersize=2.5, alpha=0.6)
    axis.set(xlim=(-3, 3), ylim=(-3, 7), xlabel="$x_1$", ylabel="$x_2$", title=f"flow {name}")
axes[2].plot(values, color="C2", linewidth=0.8)
axes[2].axhline(0, color="0.4", linewidth=0.8)
axes[2].set(xlabel="step", ylabel="nats", title="estimate of KL(flow ∥ banana)", ylim=(-0.5, 3))
plt.show()

# %% [markdown]
# Gray: the banana. A proposal must cover the target. Where it does not, the weights are huge and rare: the
# draws that would correct the estimate have mostly not occurred, and its standard error is too small as well.
#
# ## Training in a scan
#
# Back to the moons. A step uses two features of the library:
#
# - **aux**: with `has_aux=True` the cost may return anything else beside itself, of each sample: here
#   whether the label was predicted correctly. It needs no further evaluation.
# - **a monitor**: `GradientSNR` compares each gradient with the one before it, and estimates the ratio of the
#   norm of the mean gradient to the noise. While the parameters move, this is a lower bound. It is a value
#   that the scan carries like the state of the optimizer.


# %%
def noisy_loss(params, key):
    network = linen_net.bind(params)

    def each(x, y, key):
        def cost(bits):
            logit = network.decode(bits)
            return optax.sigmoid_binary_cross_entropy(logit, y), (logit > 0) == (y > 0.5)

        layer = npd.Bernoulli(logits=network.encode(x))
        return sf.expectation(cost, layer, key, estimator, num_samples=4, has_aux=True)

    costs, right = jax.vmap(each)(points, labels, jax.random.split(key, len(points)))
    return jnp.mean(costs), jnp.mean(right)


adam = optax.adam(0.03)


def step(state, key):
    params, memory, monitor = state
    (value, right), gradient = jax.value_and_grad(noisy_loss, has_aux=True)(params, key)
    change, memory = adam.update(gradient, memory)
    monitor = monitor.update(gradient)
    state = (optax.apply_updates(params, change), memory, monitor)
    return state, {"loss, nats": value, "accuracy": right, "signal / noise": monitor.snr()}


train = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys))
monitor = sf.GradientSNR.like(params, decay=0.95)
start = (params, adam.init(params), monitor)
keys = jax.random.split(jax.random.key(5), 30 if SMOKE else 300)
(learned, _, monitor), history = train(start, keys)

# %% [markdown]
# The same steps one by one from Python give the same numbers. What such a loop adds is a call for each step,
# with all arrays as arguments and results: this matters for a short step, and little for a long one. And a
# scan is one program, which can be run by `vmap` for many seeds.


# %%
def by_loop(keys):
    state, values = start, []
    for key in keys:
        state, row = one_step(state, key)
        values.append(row["loss, nats"])
    return values


def seconds_of_a_step(run, *args, keys):
    run(*args, keys)  # compiles
    before = time.process_time()
    jax.block_until_ready(run(*args, keys))
    return (time.process_time() - before) / len(keys)


one_step = jax.jit(step)
in_loop = seconds_of_a_step(by_loop, keys=keys[:30])
in_scan = seconds_of_a_step(train, start, keys=keys)
print(f"CPU time of a step, ratio of loop to scan: {in_loop / in_scan:.1f}")
np.testing.assert_allclose(by_loop(keys[:20]), history["loss, nats"][:20], rtol=1e-3)

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 2.6))
for axis, (name, curve) in zip(axes, history.items(), strict=True):
    axis.plot(curve, color="C2", linewidth=0.9)
    axis.set(title=name, xlabel="step")
axes[0].set_ylim(bottom=0)
axes[2].set_ylim(0, 1.5)
axes[2].axhline(1, color="0.4", linewidth=0.8)
plt.show()

# %% [markdown]
# Where the ratio on the right is below 1, a single step is mostly noise, and it is the mean over many steps
# that learns. The ratio is a lower bound, because a step along the noise of one gradient makes the next one
# point back. It would be nan, a gap in the curve, where no signal is visible in the noise of about the last
# 20 steps. Then more samples, or an estimator of less variance, help ([11. Which
# estimator?](11_which_estimator.ipynb)).
#
# What has it learned? Six bits are few enough to sum exactly at each point of the plane; a cost may be a
# pytree, so the mean of the prediction and of its square come from one call. Where the draws disagree, the
# network is uncertain even if the mean of its output is not near 1/2.


# %%
@jax.jit
def predict(params, grid):
    network = linen_net.bind(params)

    def at(x):
        def cost(bits):
            chance = jax.nn.sigmoid(network.decode(bits))
            return chance, chance**2

        layer = sf.Bernoulli(network.encode(x))
        return sf.expectation(cost, layer, key, sf.Enumerate())

    mean, square = jax.vmap(jax.vmap(at))(grid)
    return mean, jnp.sqrt(jnp.maximum(square - mean**2, 0))


size = 20 if SMOKE else 80
grid = jnp.stack(jnp.meshgrid(jnp.linspace(-1.8, 2.8, size), jnp.linspace(-1.3, 1.8, size)), -1)
figure, axes = plt.subplots(1, 3, figsize=(10, 2.9), sharey=True)
mean, spread = predict(learned, grid)
panels = {
    "before training: P(upper moon)": (1 - predict(params, grid)[0], "cividis", 1.0),
    "after: P(upper moon)": (1 - mean, "cividis", 1.0),
    "after: deviation between draws": (spread, "Greys", 0.5),
}
for axis, (name, (shown, colours, top)) in zip(axes, panels.items(), strict=True):
    drawn = axis.pcolormesh(*jnp.moveaxis(grid, -1, 0), shown, cmap=colours, vmin=0, vmax=top)
    for label, colour, marker in ((0, "C4", "^"), (1, "C6", "o")):
        of_label = points[labels == label].T
        axis.plot(*of_label, marker, color=colour, markersize=3.5, markeredgecolor="k", mew=0.4)
    figure.colorbar(drawn, ax=axis)
    axis.set(title=name, xlabel="$x_1$")
    axis.grid(visible=False)
axes[0].set_ylabel("$x_2$")
plt.show()

# %% [markdown]
# ## A million samples in the memory of some thousand
#
# A mean over samples does not need to keep the samples. The library processes them in chunks, and computes
# value and gradient in the same pass, leave-one-out included. The compiled program states how much memory it
# takes; it need not run for that. Here for the gradient of one point's loss:


# %%
def gradient_of_one(params, key, estimator=estimator, **options):
    def of(params):
        return loss_at(linen_net.bind(params), points[0], labels[0], key, estimator, **options)

    return jax.grad(of)(params)


def compiled(*args, **options):
    gradient = jax.jit(lambda params, key: gradient_of_one(params, key, *args, **options))
    return gradient.lower(params, key).compile()


def mebibytes(program):
    return program.memory_analysis().temp_size_in_bytes / 2**20


sizes = [1000, 100_000] if SMOKE else [1000, 30_000, 1_000_000]
ways = {"all at once": None, "in chunks of 1000": 1000}
programs = {
    name: {n: compiled(num_samples=n, chunk_size=chunk_size) for n in sizes}
    for name, chunk_size in ways.items()
}
memory = {name: [mebibytes(program[n]) for n in sizes] for name, program in programs.items()}
for name, used in memory.items():
    print(f"{name:18s}", *(f"{n:9,}: {mib:6.2f} MiB" for n, mib in zip(sizes, used, strict=True)))
assert max(memory["in chunks of 1000"]) < 0.5 < 4 < memory["all at once"][-1]

# %% [markdown]
# You need not set `chunk_size`: by default all samples are taken at once while together they compute up to
# 64 MiB, and in chunks that fit a CPU's caches beyond. The result does not depend on it beyond rounding,
# because sample $i$ always draws with the $i$-th key derived from yours. And it is right:


# %%
def distance(a, b):
    a, b = jax.device_get((a, b))  # they may lie on different devices
    return optax.tree.norm(jax.tree.map(np.subtract, a, b)) / optax.tree.norm(b)


at_once, in_chunks = (program[sizes[1]](params, key) for program in programs.values())
print(f"{sizes[1]:9,} samples, in chunks / at once: {distance(in_chunks, at_once):.1e} away")
assert distance(in_chunks, at_once) < 1e-3

by_sum = compiled(sf.Enumerate())(params, key)
most = programs["in chunks of 1000"][sizes[-1]](params, key)
print(f"{sizes[-1]:9,} samples / the sum over all bits: {distance(most, by_sum):.1e} away")
assert distance(most, by_sum) < 0.02

# %% [markdown]
# ## Several devices
#
# Samples are independent, so they spread over devices. `sharding` says how; each device draws and scores its
# own, with the keys they would have had anyway. The devices here are pieces of one CPU, so there is nothing
# to gain in time. What can be seen is what is computed, kept and sent.


# %%
def over(count):
    devices = jax.devices()[:count]
    mesh = jax.make_mesh((count,), ("samples",), axis_types=(AxisType.Auto,), devices=devices)
    return NamedSharding(mesh, PartitionSpec("samples"))


def all_reduces(program):
    return len(re.findall(r" all-reduce(?:-start)?\(", program.as_text()))


counts = [c for c in ([1, 8] if SMOKE else [1, 2, 8]) if c <= jax.device_count()]
n = sizes[1]
spread_out = {c: compiled(num_samples=n, sharding=over(c)) for c in counts if c > 1}
spread_out = {1: programs["all at once"][n]} | spread_out
results = {c: program(params, key) for c, program in spread_out.items()}
for c, program in spread_out.items():
    print(f"{c} devices: {mebibytes(program):.2f} MiB each, {all_reduces(program)} all-reduces")
    assert distance(results[c], results[1]) < 1e-3
    assert all_reduces(program) == (0 if c == 1 else 2)

# %% [markdown]
# The same gradient on any number of devices. They exchange one number, the sum of the costs
# (leave-one-out wants the mean of the *other* samples, wherever they are), and then the gradient: two
# all-reduces, of no more than the size of the weights. No draw leaves its device.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.2))
for color, (way, used) in zip(["C1", "C2"], memory.items(), strict=True):
    axes[0].loglog(sizes, used, "o-", color=color, label=way)
axes[0].set(xlabel="samples", ylabel="MiB", title="temporary memory of one gradient")
axes[0].legend()
used = [mebibytes(spread_out[c]) for c in counts]
axes[1].loglog(counts, used[0] / np.array(counts), "--", color="0.5", label="1 / devices")
axes[1].loglog(counts, used, "o", color="C3", label="measured")
axes[1].set(xlabel="devices", ylabel="MiB", title=f"memory of each device, {n:,} samples in total")
axes[1].set_xticks(counts, counts)
axes[1].set_yticks(used, [f"{mib:.2f}" for mib in used])
axes[1].minorticks_off()
axes[1].legend()
plt.show()

# %% [markdown]
# Chunks and devices go together: with `chunk_size`, each device goes through its own samples, so many at a
# time. Many hosts need no other code ([examples/many_hosts.py](../examples/many_hosts.py)); what limits
# there is in [scaling](../docs/scaling.md).
#
# ## Sixteen bits
#
# Models in bfloat16 keep 8 binary digits. Added one to another they stop counting at 256: 256 + 1 is 256. So
# numbers of 16 bits are added up in chunks of 256 by default, and the sums of these in 32 bits.


# %%
def in_type(dtype, **options):
    weights = jnp.array([0.25, 0.5, -0.5, 1.0, 0.125, 0.75], dtype)
    no_baseline = sf.ScoreFunction(sf.ConstantBaseline(0.0))

    def mean(logits):
        bits = sf.Bernoulli(logits)
        return sf.expectation(lambda b: jnp.tanh(b @ weights), bits, key, no_baseline, **options)

    return jax.jit(jax.grad(mean))(weights).astype(jnp.float32)


n = 65_536
wide = in_type(jnp.float32, num_samples=n)
for name, options in {"in chunks, the default": {}, "all at once": {"chunk_size": None}}.items():
    narrow = in_type(jnp.bfloat16, num_samples=n, **options)
    print(f"bfloat16 {name:22s} {distance(narrow, wide):.1%} away from float32")

# %% [markdown]
# ## Exercises
#
# 1. In place of six bits, three variables of four values each, from `npd.Categorical`. How must `encode` and
#    `decode` change? Check the exact gradient against `sf.Categorical`.
# 2. Inside `jax.shard_map` each device estimates by samples of its own, and `jax.lax.pmean` takes the mean.
#    Leave `sharding` out, give each device a key of its own, and check the gradient against the mean of as
#    many gradients on one device.
# 3. The monitor of the training above watched all weights. Ask it for `snr_by_parameter()`: which layer has
#    the least noise, and why?
#
# ## Solutions
#
# **1.** Twelve logits in the shape `[3, 4]`, and whole numbers that are made one-hot before a matrix can take
# them. A batch of categories is a batch of independent factors.

# %%
logits, table = jax.random.normal(jax.random.key(6), (2, 3, 4))


def of_categories(categorical):
    def cost(k):
        return jnp.tanh(jnp.sum(jax.nn.one_hot(k, 4) * table))

    def mean(logits):
        return sf.expectation(cost, categorical(logits), key, sf.Enumerate())

    return jax.jit(jax.grad(mean))(logits)


of_numpyro = of_categories(lambda logits: npd.Categorical(logits=logits))
np.testing.assert_allclose(of_numpyro, of_categories(sf.Categorical), rtol=1e-3, atol=1e-6)
print(of_numpyro)

# %% [markdown]
# **2.** The derivative is taken outside of `shard_map`; taken inside, JAX would *sum* the derivatives of what
# all devices share. The draws differ from those with `sharding=`, since the keys differ.

# %%
mesh, here = over(counts[-1]).mesh, PartitionSpec()


def mean_over_devices(params, key):
    mine = jax.random.fold_in(key, jax.lax.axis_index("samples"))
    network = linen_net.bind(params)
    value = loss_at(network, points[0], labels[0], mine, sf.ScoreFunction(), num_samples=100)
    return jax.lax.pmean(value, "samples")


mapped = jax.shard_map(mean_over_devices, mesh=mesh, in_specs=(here, here), out_specs=here)
together = jax.jit(jax.grad(mapped))(params, key)
alone = jax.jit(lambda key: gradient_of_one(params, key, num_samples=100))
each = [alone(jax.random.fold_in(key, i)) for i in range(counts[-1])]
by_hand = jax.tree.map(lambda *g: sum(g) / len(g), *each)
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), together, by_hand)
print(f"{counts[-1]} devices of 100 samples each: the mean of their gradients")

# %% [markdown]
# **3.** The last one, `out`. It comes after the bits: its gradient is an ordinary derivative of the cost,
# averaged over draws. The layers before the bits are reached by scores only.

# %%
by_layer = monitor.snr_by_parameter()["params"]
for name in ("hidden", "bits", "out"):
    print(f"{name:6s}", {k: round(float(v), 2) for k, v in by_layer[name].items()})
