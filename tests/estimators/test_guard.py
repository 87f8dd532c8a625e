"""A derivative that a draw would silently lose raises, for whoever takes it and nobody else."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import distrax
import equinox as eqx
import flowjax.distributions as fjd
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
import tensorflow_probability.substrates.jax as tfp
from jax.sharding import PartitionSpec

import scorefn as sf

tfd = tfp.distributions

# TFP's samplers of the Poisson and of Student's t ask for float64, whatever the precision.
pytestmark = pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64:UserWarning")

KEY = jax.random.key(0)
LOGITS = jnp.array([0.1, 0.2, 0.3])
LOC = jnp.array([-1.0, 0.0, 1.0])


@pytest.fixture(autouse=True, scope="module")
def quick_compilation() -> Iterator[None]:
    # Nearly all of the time goes into compiling programs that run once.
    jax.config.update("jax_disable_most_optimizations", val=True)
    yield
    jax.config.update("jax_disable_most_optimizations", val=False)


def cost(x: Any) -> jax.Array:
    """A smooth cost of every leaf of a draw, with non-zero first and second derivatives."""
    return sum(
        jnp.sum(jnp.sin(jnp.asarray(leaf, jnp.float32) + 0.3)) for leaf in jax.tree.leaves(x)
    )


def objective(
    build: Callable[..., Any], estimator: sf.Estimator | None = None, **options: Any
) -> Callable[..., jax.Array]:
    """``loss(*arrays)``, of the distribution that is built from them."""
    chosen = sf.Pathwise() if estimator is None else estimator
    options = {"num_samples": 4} | options
    return lambda *arrays: sf.expectation(cost, build(*arrays), KEY, chosen, **options)


# ---------------------------------------------------------------------- every way to differentiate

Loss = Callable[[jax.Array], jax.Array]


def scanned(loss: Loss) -> Loss:
    def run(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda total, _: (total + loss(x), None), 0.0, None, length=3)[0]

    return run


def stepped(loss: Loss, x: jax.Array) -> jax.Array:
    """Gradient descent whose gradient is taken inside the scan."""
    step = jax.grad(loss)
    return jax.lax.scan(lambda x, _: (x - 0.1 * step(x), None), x, None, length=2)[0]


def mapped(loss: Loss, x: jax.Array) -> jax.Array:
    return jax.vmap(jax.grad(loss))(jnp.stack([x, x + 0.1]))


def sharded(loss: Loss, x: jax.Array) -> jax.Array:
    mesh = jax.make_mesh((8,), ("devices",))
    spec = PartitionSpec("devices")
    with jax.set_mesh(mesh):
        per_device = jax.shard_map(
            lambda xs: jax.grad(loss)(xs[0])[None], in_specs=spec, out_specs=spec
        )
        return jax.jit(per_device)(
            jax.device_put(jnp.stack([x] * 8), jax.NamedSharding(mesh, spec))
        )


DERIVATIVES = {
    "grad": lambda loss, x: jax.grad(loss)(x),
    "jit-of-grad": lambda loss, x: jax.jit(jax.grad(loss))(x),
    "grad-of-jit": lambda loss, x: jax.grad(jax.jit(loss))(x),
    "value_and_grad": lambda loss, x: jax.value_and_grad(loss)(x)[1],
    "jvp": lambda loss, x: jax.jvp(loss, (x,), (jnp.ones_like(x),))[1],
    "jvp-of-jit": lambda loss, x: jax.jvp(jax.jit(loss), (x,), (jnp.ones_like(x),))[1],
    "jacfwd": lambda loss, x: jax.jacfwd(loss)(x),
    "jacrev": lambda loss, x: jax.jacrev(loss)(x),
    "linearize": lambda loss, x: jax.linearize(loss, x)[1](jnp.ones_like(x)),
    "vjp": lambda loss, x: jax.vjp(loss, x)[1](jnp.ones(())),
    "hessian": lambda loss, x: jax.hessian(loss)(x),
    "grad-of-grad": lambda loss, x: jax.grad(lambda x: jnp.sum(jax.grad(loss)(x)))(x),
    "vmap-of-grad": mapped,
    "grad-of-vmap": lambda loss, x: jax.grad(lambda x: jnp.sum(jax.vmap(loss)(jnp.stack([x, x]))))(
        x
    ),
    "grad-of-scan": lambda loss, x: jax.grad(scanned(loss))(x),
    "jit-of-grad-of-scan": lambda loss, x: jax.jit(jax.grad(scanned(loss)))(x),
    "jvp-of-scan": lambda loss, x: jax.jvp(scanned(loss), (x,), (jnp.ones_like(x),))[1],
    "grad-inside-scan": stepped,
    "grad-of-checkpoint": lambda loss, x: jax.grad(jax.checkpoint(loss))(x),
    "jit-of-grad-of-checkpoint": lambda loss, x: jax.jit(jax.grad(jax.checkpoint(loss)))(x),
    "grad-of-cond": lambda loss, x: jax.grad(
        lambda x: jax.lax.cond(jnp.sum(x) < 100, loss, lambda x: jnp.sum(x), x)
    )(x),
    "shard_map": sharded,
}
VALUES = {
    "eager": lambda loss, x: loss(x),
    "jit": lambda loss, x: jax.jit(loss)(x),
    "vmap": lambda loss, x: jax.vmap(loss)(jnp.stack([x, x])),
    "scan": lambda loss, x: scanned(loss)(x),
    "stopped": lambda loss, x: jax.jit(loss)(jax.lax.stop_gradient(x)),
}
every_derivative = pytest.mark.parametrize(
    "differentiate", list(DERIVATIVES.values()), ids=list(DERIVATIVES)
)
# The ways that differ most, where the whole list would only repeat it.
CORE = ["grad", "jit-of-grad", "hessian", "vmap-of-grad", "grad-of-scan", "grad-of-checkpoint"]
core_derivatives = pytest.mark.parametrize(
    "differentiate", [DERIVATIVES[name] for name in CORE], ids=CORE
)
every_value = pytest.mark.parametrize("evaluate", list(VALUES.values()), ids=list(VALUES))


def assert_live(result: Any) -> None:
    """Finite, and not all zero: the derivative was taken, not lost."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(result)]
    assert leaves
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves)
    assert any(np.any(leaf != 0) for leaf in leaves)


def assert_accepted(differentiate: Callable[..., Any], loss: Loss, x: jax.Array) -> None:
    """It traces, which is when the guard speaks; nothing is compiled or computed."""
    shapes = jax.tree.leaves(jax.eval_shape(partial(differentiate, loss), x))
    assert shapes
    assert all(leaf.dtype == jnp.float32 for leaf in shapes)


# ---------------------------------------------------------------------------------------- mixtures

MIXTURES = {
    "distrax": lambda p, m: distrax.MixtureSameFamily(
        distrax.Categorical(logits=p), distrax.Normal(m, jnp.ones(3))
    ),
    "tfd": lambda p, m: tfd.MixtureSameFamily(
        tfd.Categorical(logits=p), tfd.Normal(m, jnp.ones(3))
    ),
    "numpyro": lambda p, m: npd.MixtureSameFamily(
        npd.Categorical(logits=p), npd.Normal(m, jnp.ones(3))
    ),
}
WEIGHTS = {
    "distrax": r"mixture_distribution\.logits \(float32\[3\]\)",
    "tfd": r"mixture_distribution\.logits \(float32\[3\]\)",
    "numpyro": r"mixing_distribution\.logits \(float32\[3\]\)",
}
OTHER_MIXTURES = {
    "distrax.MixtureOfTwo": (
        lambda p, m: distrax.MixtureOfTwo(
            jax.nn.sigmoid(p[0]), distrax.Normal(m[0], 1.0), distrax.Normal(m[1], 1.0)
        ),
        "prob_a",
    ),
    "tfd.Mixture": (
        lambda p, m: tfd.Mixture(
            tfd.Categorical(logits=p), [tfd.Normal(m[i], 1.0) for i in range(3)]
        ),
        r"cat\.logits",
    ),
    "numpyro.MixtureGeneral": (
        lambda p, m: npd.MixtureGeneral(
            npd.Categorical(logits=p), [npd.Normal(m[i], 1.0) for i in range(3)]
        ),
        r"mixing_distribution\.logits",
    ),
    "flowjax.VmapMixture": (
        lambda p, m: fjd.VmapMixture(eqx.filter_vmap(fjd.Normal)(m, jnp.ones(3)), jnp.exp(p)),
        "log_normalized_weights",
    ),
}
every_mixture = pytest.mark.parametrize("library", list(MIXTURES))


def of_weights(build: Callable[..., Any], **options: Any) -> Loss:
    return lambda logits: objective(build, **options)(logits, LOC)


def of_means(build: Callable[..., Any], **options: Any) -> Loss:
    return lambda loc: objective(build, **options)(LOGITS, loc)


@every_derivative
def test_mixture_weights_raise_everywhere(differentiate: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="Pathwise cannot differentiate.*" + WEIGHTS["distrax"]):
        differentiate(of_weights(MIXTURES["distrax"]), LOGITS)


@every_derivative
def test_mixture_means_raise_nowhere(differentiate: Callable[..., Any]) -> None:
    assert_live(differentiate(of_means(MIXTURES["distrax"]), LOC))


@core_derivatives
@every_mixture
def test_mixture_weights_raise_and_means_do_not(
    library: str, differentiate: Callable[..., Any]
) -> None:
    with pytest.raises(TypeError, match="Pathwise cannot differentiate.*" + WEIGHTS[library]):
        differentiate(of_weights(MIXTURES[library]), LOGITS)
    assert_accepted(differentiate, of_means(MIXTURES[library]), LOC)


@every_value
@every_mixture
def test_nothing_raises_without_a_derivative(library: str, evaluate: Callable[..., Any]) -> None:
    assert_accepted(evaluate, of_weights(MIXTURES[library]), LOGITS)


@pytest.mark.parametrize("name", list(OTHER_MIXTURES))
def test_other_mixtures(name: str) -> None:
    build, leaf = OTHER_MIXTURES[name]
    with pytest.raises(TypeError, match="Pathwise cannot differentiate.*" + leaf):
        jax.jit(jax.grad(of_weights(build)))(LOGITS)
    assert_accepted(DERIVATIVES["jit-of-grad"], of_means(build), LOC)


@every_mixture
def test_weights_and_means_together_raise(library: str) -> None:
    with pytest.raises(TypeError, match=WEIGHTS[library]):
        jax.grad(objective(MIXTURES[library]), argnums=(0, 1))(LOGITS, LOC)


@every_mixture
def test_held_weights_do_not_raise(library: str) -> None:
    def loss(logits: jax.Array, loc: jax.Array) -> jax.Array:
        return objective(MIXTURES[library])(jax.lax.stop_gradient(logits), loc)

    weights, means = jax.jit(jax.grad(loss, argnums=(0, 1)))(LOGITS, LOC)
    np.testing.assert_array_equal(weights, np.zeros(3))
    assert_live(means)


@pytest.mark.parametrize("differentiate", ["jit-of-grad", "grad-of-scan", "hessian", "shard_map"])
@pytest.mark.parametrize("chunk_size", [1, 3])
def test_chunks_are_guarded(chunk_size: int, differentiate: str) -> None:
    build, take = MIXTURES["distrax"], DERIVATIVES[differentiate]
    with pytest.raises(TypeError, match=WEIGHTS["distrax"]):
        take(of_weights(build, chunk_size=chunk_size), LOGITS)
    chunked = take(of_means(build, chunk_size=chunk_size), LOC)
    np.testing.assert_allclose(chunked, take(of_means(build), LOC), 1e-5, 1e-6)


@pytest.mark.parametrize(
    ("axis_type", "chunk_size"),
    [
        (jax.sharding.AxisType.Auto, None),
        (jax.sharding.AxisType.Auto, 8),
        (jax.sharding.AxisType.Explicit, None),
    ],
)
def test_sharded_samples_are_guarded(axis_type: Any, chunk_size: int | None) -> None:
    mesh = jax.make_mesh((8,), ("devices",), axis_types=(axis_type,))
    sharding = jax.NamedSharding(mesh, PartitionSpec("devices"))
    options = {"num_samples": 16, "sharding": sharding, "chunk_size": chunk_size}
    build = MIXTURES["distrax"]
    with jax.set_mesh(mesh):
        with pytest.raises(TypeError, match=WEIGHTS["distrax"]):
            jax.jit(jax.grad(of_weights(build, **options)))(LOGITS)
        spread = jax.jit(jax.grad(of_means(build, **options)))(LOC)
    wanted = jax.jit(jax.grad(of_means(build, num_samples=16)))(LOC)
    np.testing.assert_allclose(spread, wanted, 1e-5, 1e-6)


# ------------------------------------------------------------------------------------ mixed joints

JOINTS = {
    "distrax.Joint": (
        lambda p, m: distrax.Joint(
            {"a": distrax.Bernoulli(logits=p), "b": distrax.Normal(m + p, 1.0)}
        ),
        "logits",
    ),
    "tfd.JointDistributionNamed": (
        lambda p, m: tfd.JointDistributionNamed(
            {"a": tfd.Bernoulli(logits=p), "b": lambda a: tfd.Normal(a * m + p, 1.0)}
        ),
        "logits",
    ),
    "tfd.JointDistributionSequential": (
        lambda p, m: tfd.JointDistributionSequential(
            [tfd.Bernoulli(logits=p), lambda a: tfd.Normal(a * m + p, 1.0)]
        ),
        "logits",
    ),
    "a float coin": (
        lambda p, m: tfd.JointDistributionNamed(
            {
                "a": tfd.Bernoulli(logits=p, dtype=jnp.float32),
                "b": lambda a: tfd.Normal(a * m + p, 1.0),
            }
        ),
        "logits",
    ),
}


@pytest.mark.parametrize(
    "differentiate", ["grad", "jit-of-grad", "jvp", "grad-of-scan", "vmap-of-grad"]
)
@pytest.mark.parametrize("name", list(JOINTS))
def test_a_mixed_joint_raises_though_one_leaf_keeps_the_derivative(
    name: str, differentiate: str
) -> None:
    build, leaf = JOINTS[name]
    logit, loc, take = jnp.array(0.4), jnp.array(0.6), DERIVATIVES[differentiate]
    with pytest.raises(TypeError, match=f"Pathwise cannot differentiate.*{leaf}"):
        take(lambda p: objective(build)(p, loc), logit)
    assert_accepted(take, lambda m: objective(build)(logit, m), loc)


# ---------------------------------------------------------------------------------- integer draws

INTEGERS = {
    "distrax.Bernoulli": (lambda p: distrax.Bernoulli(logits=p), "logits"),
    "distrax.Bernoulli-float": (lambda p: distrax.Bernoulli(logits=p, dtype=float), "logits"),
    "distrax.Bernoulli-bool": (lambda p: distrax.Bernoulli(logits=p, dtype=bool), "logits"),
    "distrax.Categorical": (lambda p: distrax.Categorical(logits=p), "logits"),
    "distrax.OneHotCategorical": (lambda p: distrax.OneHotCategorical(logits=p), "logits"),
    "tfd.Bernoulli": (lambda p: tfd.Bernoulli(logits=p), "logits"),
    "tfd.Categorical": (lambda p: tfd.Categorical(logits=p), "logits"),
    "tfd.Poisson": (lambda p: tfd.Poisson(log_rate=p), "log_rate"),
    "numpyro.Bernoulli": (lambda p: npd.Bernoulli(logits=p), "logits"),
    "numpyro.Bernoulli-probs": (lambda p: npd.Bernoulli(probs=jax.nn.sigmoid(p)), "probs"),
    "numpyro.Categorical": (lambda p: npd.Categorical(logits=p), "logits"),
    "numpyro.Binomial": (lambda p: npd.Binomial(5, logits=p), "logits"),
    "numpyro.Poisson": (lambda p: npd.Poisson(jnp.exp(p)), "rate"),
    "scorefn.Distribution": (
        lambda p: sf.Distribution(
            lambda p, x: jax.nn.log_softmax(p)[x], lambda p, key: jax.random.categorical(key, p), p
        ),
        "an array|params|float32",
    ),
}


@pytest.mark.parametrize("name", list(INTEGERS))
def test_discrete_draws_raise(name: str) -> None:
    build, leaf = INTEGERS[name]
    for take in (jax.grad, lambda loss: jax.jit(jax.grad(loss))):
        with pytest.raises(TypeError, match=f"Pathwise cannot differentiate.*({leaf})"):
            take(objective(build))(LOGITS)
    assert_accepted(VALUES["jit"], objective(build), LOGITS)


@pytest.mark.parametrize("as_integer", [jnp.int32, jnp.bool_])
@pytest.mark.parametrize("jit", [jax.jit, lambda fn: fn], ids=["jit", "eager"])
def test_costs_of_integers_raise(as_integer: Any, jit: Callable[..., Any]) -> None:
    def loss(loc: jax.Array, estimator: sf.Estimator) -> jax.Array:
        normal = distrax.Normal(loc, 1.0)
        return sf.expectation(lambda x: x.astype(as_integer), normal, KEY, estimator, num_samples=4)

    with pytest.raises(TypeError, match="Pathwise differentiates f, but f returned (int32|bool)"):
        jit(partial(loss, estimator=sf.Pathwise()))(0.5)
    # The estimator that does not differentiate f takes the same cost.
    score = partial(loss, estimator=sf.ScoreFunction())
    assert jax.eval_shape(jit(jax.grad(score)), 0.5).dtype == jnp.float32


# ----------------------------------------------------------------------------- samplers of your own


def no_density(params: Any, x: Any) -> jax.Array:
    del params, x
    return jnp.zeros(())


def own(sample: Callable[..., Any]) -> Callable[..., Any]:
    return lambda m, n: sf.Distribution(no_density, sample, {"m": m, "n": n})


def rounded(params: Any, key: jax.Array) -> jax.Array:
    return jnp.round(params["m"] + jax.random.normal(key)) + params["n"]


def stopped(params: Any, key: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(params["m"]) * jax.random.normal(key) + params["n"]


def compared(params: Any, key: jax.Array) -> jax.Array:
    return jnp.where(jax.random.uniform(key) < params["m"], 1.0, -1.0) * params["n"]


def indexed(params: Any, key: jax.Array) -> jax.Array:
    table = jnp.stack([params["n"], 2 * params["n"]])
    return table[jax.random.categorical(key, jnp.stack([params["m"], 0.0]))]


def branched(params: Any, key: jax.Array) -> jax.Array:
    shift = jax.random.normal(key)
    return jax.lax.cond(params["m"] > 0, lambda: shift + params["n"], lambda: 2 * params["n"])


def looped(params: Any, key: jax.Array) -> jax.Array:
    # As many steps as m says: a count, which has no derivative.
    steps = jax.lax.while_loop(lambda i: i < 3 * params["m"], lambda i: i + 1.0, 0.0)
    return steps * params["n"] + jax.random.normal(key)


def cast(params: Any, key: jax.Array) -> jax.Array:
    return params["m"].astype(jnp.int32) + params["n"] * jax.random.normal(key)


SEVERED = [rounded, stopped, compared, indexed, branched, looped, cast]


def straight(params: Any, key: jax.Array) -> Any:
    one, two = jax.random.split(key)
    return {"a": params["m"] + jax.random.normal(one), "b": params["n"] * jax.random.normal(two)}


def walked(params: Any, key: jax.Array) -> Any:
    def step(x: jax.Array, key: jax.Array) -> Any:
        x = x + params["m"] + jax.random.normal(key)
        return x, (x, params["n"] * x)

    return jax.lax.scan(step, 0.0, jax.random.split(key, 3))[1]


def chosen(params: Any, key: jax.Array) -> Any:
    m, n = params["m"], params["n"]
    return jax.lax.cond(jax.random.bernoulli(key), lambda: (m + 1, 2 * n), lambda: (3 * m, n + 1))


# Each leaf of these draws depends on one parameter only: a guard that takes a jitted or scanned
# sampler for one operation, all of whose outputs use all of its inputs, would refuse them.
SOUND = {
    "plain": straight,
    "jit": jax.jit(straight),
    "checkpoint": jax.checkpoint(straight),
    "jit-of-vmap": jax.jit(
        lambda params, key: jax.vmap(straight, (None, 0))(params, jax.random.split(key, 2))
    ),
    "scan": walked,
    "jit-of-scan": jax.jit(walked),
    "cond": chosen,
}
TWO = (jnp.array(0.7), jnp.array(0.3))


@pytest.mark.parametrize("sample", SEVERED)
@pytest.mark.parametrize("wrap", [lambda fn: fn, jax.jit, jax.checkpoint], ids=["", "jit", "ckpt"])
def test_a_sampler_that_cuts_a_parameter_off_raises(
    sample: Callable[..., Any], wrap: Callable[..., Any]
) -> None:
    loss = objective(own(wrap(sample)))
    with pytest.raises(TypeError, match=r"Pathwise cannot differentiate.*\['m'\] \(float32\[\]\)"):
        jax.jit(jax.grad(loss))(*TWO)
    assert_accepted(DERIVATIVES["grad"], lambda n: loss(TWO[0], n), TWO[1])


@every_derivative
@pytest.mark.parametrize("sample", [rounded, stopped])
def test_a_parameter_that_is_cut_off_raises_everywhere(
    sample: Callable[..., Any], differentiate: Callable[..., Any]
) -> None:
    with pytest.raises(TypeError, match=r"\['m'\]"):
        differentiate(lambda m: objective(own(sample))(m, TWO[1]), TWO[0])


@pytest.mark.parametrize("argnum", [0, 1])
@pytest.mark.parametrize("name", list(SOUND))
def test_each_leaf_may_depend_on_its_own_parameter(name: str, argnum: int) -> None:
    loss = objective(own(SOUND[name]))
    assert_live(jax.jit(jax.grad(loss, argnums=argnum))(*TWO))
    assert_live(jax.grad(loss, argnums=argnum)(*TWO))


@pytest.mark.parametrize("name", ["scan", "jit"])
def test_a_cut_inside_a_jitted_or_scanned_sampler_is_seen(name: str) -> None:
    def cut(params: Any, key: jax.Array) -> Any:
        m = params["m"]
        return SOUND[name]({"m": jax.lax.stop_gradient(m), "n": params["n"]}, key)

    with pytest.raises(TypeError, match=r"\['m'\]"):
        jax.grad(objective(own(cut)))(*TWO)
    assert_live(jax.grad(objective(own(cut)), argnums=1)(*TWO))


def test_params_that_are_one_array_are_called_params() -> None:
    coin = sf.Distribution(
        lambda p, x: x * p - jnp.logaddexp(0.0, p),
        lambda p, key: jax.random.bernoulli(key, jax.nn.sigmoid(p)).astype(jnp.float32),
        jnp.array(0.3),
    )
    with pytest.raises(TypeError, match=r"with respect to params \(float32\[\]\)"):
        jax.grad(objective(lambda p: sf.Distribution(coin.log_prob, coin.sample, p)))(0.3)
    assert list(sf.check_score(coin, KEY, num_samples=10).z) == ["params (float32[])"]


@core_derivatives
@every_mixture
def test_one_array_as_weights_and_means_raises(
    library: str, differentiate: Callable[..., Any]
) -> None:
    # The derivative along the means is there; that along the weights is still lost.
    with pytest.raises(TypeError, match="Pathwise cannot differentiate.*" + WEIGHTS[library]):
        differentiate(lambda p: objective(MIXTURES[library])(p, p), LOGITS)


def test_an_array_of_which_a_part_is_cut_off() -> None:
    def sample(packed: jax.Array, key: jax.Array) -> jax.Array:
        return packed[3 + jax.random.categorical(key, packed[:3])] + jax.random.normal(key)

    def loss(packed: jax.Array) -> jax.Array:
        packed_mixture = sf.Distribution(no_density, sample, packed)
        return sf.expectation(cost, packed_mixture, KEY, sf.Pathwise(), num_samples=4)

    with pytest.raises(TypeError, match="Pathwise cannot differentiate"):
        jax.grad(loss)(jnp.concatenate([LOGITS, LOC]))


# --------------------------------------------------------------------------------- no false alarms

POSITIVE = (jnp.array([1.5, 0.6]), jnp.array([0.8, 2.0]))
STRAIGHT = {
    "distrax.Normal": distrax.Normal,
    "distrax.Gamma": distrax.Gamma,
    "distrax.Beta": distrax.Beta,
    "distrax.Dirichlet": lambda a, b: distrax.Dirichlet(a * b),
    "distrax.Laplace": distrax.Laplace,
    "distrax.Uniform": lambda a, b: distrax.Uniform(-a, b),
    "distrax.MultivariateNormalTri": lambda a, b: distrax.MultivariateNormalTri(a, jnp.diag(b)),
    "distrax.spline": lambda a, b: distrax.Transformed(
        distrax.Normal(jnp.zeros(2), 1.0),
        distrax.RationalQuadraticSpline(jnp.outer(a, jnp.arange(10.0)) * b[0] / 10, -4.0, 4.0),
    ),
    "distrax.ClippedNormal": lambda a, b: distrax.ClippedNormal(a, b, -1.0, 1.0),
    "tfd.Normal": tfd.Normal,
    "tfd.Gamma": tfd.Gamma,
    "tfd.Beta": tfd.Beta,
    "tfd.Dirichlet": lambda a, b: tfd.Dirichlet(a * b),
    "tfd.StudentT": lambda a, b: tfd.StudentT(4 + a, 0.0, b),
    "tfd.MixtureSameFamily-reparameterized": lambda a, b: tfd.MixtureSameFamily(
        tfd.Categorical(logits=a), tfd.Normal(b, jnp.ones(2)), reparameterize=True
    ),
    "numpyro.Normal": npd.Normal,
    "numpyro.Gamma": npd.Gamma,
    "numpyro.Beta": npd.Beta,
    "numpyro.Dirichlet": lambda a, b: npd.Dirichlet(a * b),
    "numpyro.StudentT": lambda a, b: npd.StudentT(4 + a, 0.0, b),
    "numpyro.TruncatedNormal": lambda a, b: npd.TruncatedNormal(a, b, low=0.0),
    "flowjax.Normal": fjd.Normal,
    "flowjax.Gamma": fjd.Gamma,
    "flowjax.Beta": fjd.Beta,
    "flowjax.StudentT": lambda a, b: fjd.StudentT(4 + a, 0.0, b),
}


@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize("name", list(STRAIGHT))
def test_differentiable_draws_do_not_raise(name: str, chunk_size: int | None) -> None:
    def loss(both: jax.Array) -> jax.Array:
        return objective(STRAIGHT[name], chunk_size=chunk_size)(*both)

    for take in ("grad", "jit-of-grad"):
        assert_accepted(DERIVATIVES[take], loss, jnp.stack(POSITIVE))


@every_derivative
def test_a_normal_raises_nowhere(differentiate: Callable[..., Any]) -> None:
    loss = objective(STRAIGHT["distrax.Normal"])
    assert_live(differentiate(lambda loc: loss(loc, POSITIVE[1]), POSITIVE[0]))


@pytest.mark.parametrize("differentiate", [name for name in CORE if name != "hessian"])
@pytest.mark.parametrize("name", ["distrax.Gamma", "tfd.Beta", "numpyro.Dirichlet", "tfd.StudentT"])
def test_implicit_derivatives_raise_nowhere(name: str, differentiate: str) -> None:
    loss = objective(STRAIGHT[name])
    assert_accepted(DERIVATIVES[differentiate], lambda a: loss(a, POSITIVE[1]), POSITIVE[0])


# --------------------------------------------------------------------------- closed-over parameters


@pytest.mark.parametrize(
    "differentiate", ["grad", "jit-of-grad", "jvp", "vmap-of-grad", "shard_map"]
)
def test_parameters_closed_over_by_plain_functions(differentiate: str) -> None:
    def build(probability: jax.Array, shift: jax.Array) -> sf.Distribution:
        def sample(params: Any, key: jax.Array) -> jax.Array:
            del params
            return jnp.where(jax.random.uniform(key) < probability, 1.0, 0.0) + shift

        return sf.Distribution(no_density, sample, None)

    take, p = DERIVATIVES[differentiate], jnp.array(0.4)
    with pytest.raises(
        TypeError, match=r"with respect to an array that it closes over \(float32\["
    ):
        take(lambda p: objective(build)(p, 1.0), p)
    assert_live(take(lambda shift: objective(build)(0.4, shift), p))


def test_parameters_of_an_object_that_is_no_pytree() -> None:
    class Coin:
        def __init__(self, probability: jax.Array) -> None:
            self._probability = probability

        def log_prob(self, x: jax.Array) -> jax.Array:
            return jnp.log(jnp.where(x == 1, self._probability, 1 - self._probability))

        def sample(self, key: jax.Array) -> jax.Array:
            return jax.random.bernoulli(key, self._probability).astype(jnp.float32)

    with pytest.raises(TypeError, match=r"with respect to probability \(float32\[\]\)"):
        jax.jit(jax.grad(objective(Coin)))(0.4)
    assert_live(jax.jit(jax.grad(objective(Coin, sf.ScoreFunction())))(0.4))


def test_parameters_closed_over_by_the_model_of_a_joint() -> None:
    def build(logit: jax.Array) -> Any:
        return tfd.JointDistributionNamed(
            {"a": lambda: tfd.Bernoulli(logits=logit), "b": lambda a: tfd.Normal(a * 1.0, 1.0)}
        )

    with pytest.raises(TypeError, match=r"Pathwise cannot differentiate.*logit"):
        jax.jit(jax.grad(objective(build)))(0.4)


def test_costs_are_not_guarded() -> None:
    # A parameter that only f uses may be differentiated, though the weights are beside it.
    def loss(scale: jax.Array) -> jax.Array:
        mixture = MIXTURES["distrax"](LOGITS, LOC)
        return sf.expectation(lambda x: jnp.sin(scale * x), mixture, KEY, sf.Pathwise())

    assert_live(jax.jit(jax.grad(loss))(0.7))


# ------------------------------------------------------------------ log_prob that knows nothing


def blind(m: jax.Array) -> sf.Distribution:
    def log_prob(params: Any, x: jax.Array) -> jax.Array:
        del params
        return -(x**2) / 2

    return sf.Distribution(log_prob, lambda p, key: p["m"] + jax.random.normal(key), {"m": m})


def half_blind(m: jax.Array) -> sf.Distribution:
    """Its log_prob stops the parameter: the same silence, better hidden."""
    return sf.Distribution(
        lambda p, x: -((x - jax.lax.stop_gradient(p["m"])) ** 2) / 2,
        lambda p, key: p["m"] + jax.random.normal(key),
        {"m": m},
    )


@every_derivative
@pytest.mark.parametrize("build", [blind, half_blind])
def test_a_score_of_nothing_raises(
    build: Callable[..., Any], differentiate: Callable[..., Any]
) -> None:
    with pytest.raises(TypeError, match=r"ScoreFunction cannot differentiate.*\['m'\]"):
        differentiate(objective(build, sf.ScoreFunction()), TWO[0])


@every_value
@pytest.mark.parametrize("build", [blind, half_blind])
def test_a_score_of_nothing_has_its_value(
    build: Callable[..., Any], evaluate: Callable[..., Any]
) -> None:
    assert_accepted(evaluate, objective(build, sf.ScoreFunction()), TWO[0])


def test_a_blind_object_of_a_library_raises() -> None:
    class Blind(distrax.Normal):
        def log_prob(self, value: jax.Array) -> jax.Array:
            return -(value**2) / 2

    with pytest.raises(TypeError, match=r"ScoreFunction cannot differentiate.*loc \(float32\[\]\)"):
        jax.jit(jax.grad(objective(lambda m: Blind(m, 1.0), sf.ScoreFunction())))(0.4)


@core_derivatives
@every_mixture
def test_score_function_takes_what_pathwise_refuses(
    library: str, differentiate: Callable[..., Any]
) -> None:
    loss = of_weights(MIXTURES[library], estimator=sf.ScoreFunction())
    assert_accepted(differentiate, loss, LOGITS)


# ------------------------------------------------------------------------- one error, everywhere

REFUSED = {
    "weights": (of_weights(MIXTURES["distrax"]), LOGITS),
    "rounding": (lambda m: objective(own(rounded))(m, TWO[1]), TWO[0]),
    "blind": (objective(blind, sf.ScoreFunction()), TWO[0]),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_the_same_error_under_every_transformation(name: str) -> None:
    loss, x = REFUSED[name]
    texts = {}
    for transformation, differentiate in DERIVATIVES.items():
        with pytest.raises(TypeError) as error:  # noqa: PT011
            differentiate(loss, x)
        assert type(error.value) is TypeError
        texts[transformation] = str(error.value)
    assert set(texts.values()) == {texts["grad"]}
    assert "silently" in texts["grad"]
