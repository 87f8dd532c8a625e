"""Objects of distrax, TFP, numpyro and flowjax serve as distributions, as they are."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import distrax
import equinox as eqx
import flax.linen
import flax.nnx
import flowjax.bijections as fjb
import flowjax.distributions as fjd
import flowjax.flows
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
import tensorflow_probability.substrates.jax as tfp

import scorefn as sf
from scorefn import vi

tfd = tfp.distributions

# Two-sided P(|z| > 7.2) = 6e-13; the file makes fewer than 1500 comparisons, so a right estimator
# fails anywhere in it with probability below 1e-9. With n repeats a bias of 12 / sqrt(n) standard
# deviations of one gradient is found with probability 1 - 1e-6: 0.09 of them at n = 16_384.
CRITICAL = 7.2
REPEATS = 16_384


@pytest.fixture(autouse=True, scope="module")
def quick_compilation() -> Iterator[None]:
    # Nearly all of the time goes into compiling programs that run once.
    jax.config.update("jax_disable_most_optimizations", val=True)
    yield
    jax.config.update("jax_disable_most_optimizations", val=False)


LOGIT = jnp.array(0.3)
LOGITS = jnp.array([0.2, -0.4, 1.0])
TABLE = jnp.array([1.0, 3.0, -2.0])


@dataclass(frozen=True)
class Case:
    """A distribution as a function of parameters, a light-tailed cost and its exact mean."""

    build: Callable[[Any], Any]
    params: Any
    f: Callable[[Any], jax.Array]
    exact: Callable[[Any], jax.Array]
    support: Any = None
    pathwise: bool = False


def loss(case: Case, estimator: sf.Estimator, num_samples: int) -> Callable[..., jax.Array]:
    return lambda params, key: sf.expectation(
        case.f, case.build(params), key, estimator, num_samples=num_samples
    )


# TFP asks for int64 in there, whatever the precision.
TFP_WARNS = pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64:UserWarning")


def tabulated(cases: dict[str, Case]) -> Any:
    params = [
        pytest.param(case, id=name, marks=TFP_WARNS if "tfd.OneHot" in name else ())
        for name, case in cases.items()
    ]
    return pytest.mark.parametrize("case", params)


def assert_mean(draws: Any, exact: Any) -> None:
    """Each element of the mean of draws, [n, ...] for each leaf, is the exact one, by a z-test."""
    assert jax.tree.structure(draws) == jax.tree.structure(exact)
    for draw, wanted in zip(jax.tree.leaves(draws), jax.tree.leaves(exact), strict=True):
        draw, wanted = np.asarray(draw, np.float64), np.asarray(wanted, np.float64)
        assert draw.shape[1:] == wanted.shape
        rounding = 1e-5 * (1 + np.abs(wanted))
        error = np.sqrt(draw.var(0, ddof=1) / len(draw) + (rounding / CRITICAL) ** 2)
        z = (draw.mean(0) - wanted) / error
        assert np.all(np.abs(z) <= CRITICAL), f"z = {z}: {draw.mean(0)}, should be {wanted}"


def assert_unbiased(case: Case, estimator: sf.Estimator, repeats: int = REPEATS) -> None:
    value_and_grad = jax.value_and_grad(loss(case, estimator, num_samples=2))
    keys = jax.random.split(jax.random.key(17), repeats)
    draws = jax.jit(jax.vmap(value_and_grad, (None, 0)))(case.params, keys)
    assert_mean(draws, jax.jit(jax.value_and_grad(case.exact))(case.params))


# ------------------------------------------------------------------------------- finite supports


def bernoulli(build: Callable[..., Any], dtype: Any = jnp.int32) -> Case:
    return Case(
        build,
        LOGIT,
        lambda b: (jnp.asarray(b, jnp.float32) - 0.45) ** 2,
        lambda logit: jax.nn.sigmoid(-logit) * 0.45**2 + jax.nn.sigmoid(logit) * 0.55**2,
        support=jnp.array([0, 1]).astype(dtype),
    )


def coins(build: Callable[..., Any]) -> Case:
    """Two coins of one draw; the cost needs both, so that their log-densities must be summed."""
    pairs = jnp.array(list(itertools.product(range(2), repeat=2)))
    cost = jnp.array([1.0, -1.0, 3.0, 0.5])

    def exact(logits: jax.Array) -> jax.Array:
        one = jax.nn.sigmoid(logits)
        return jnp.prod(jnp.where(pairs == 1, one, 1 - one), 1) @ cost

    return Case(
        build,
        jnp.array([0.3, -0.8]),
        lambda b: cost[2 * b[0].astype(int) + b[1].astype(int)],
        exact,
        support=pairs,
    )


def categorical(build: Callable[..., Any], dtype: Any = jnp.int32) -> Case:
    return Case(
        build,
        LOGITS,
        lambda k: TABLE[jnp.asarray(k, jnp.int32)],
        lambda logits: jax.nn.softmax(logits) @ TABLE,
        support=jnp.arange(3).astype(dtype),
    )


def one_hot(build: Callable[..., Any], dtype: Any = jnp.int32) -> Case:
    return Case(
        build,
        LOGITS,
        lambda x: x.astype(jnp.float32) @ TABLE,
        lambda logits: jax.nn.softmax(logits) @ TABLE,
        support=jnp.eye(3, dtype=dtype),
    )


def two_categoricals(build: Callable[..., Any]) -> Case:
    cost = jnp.arange(9.0).reshape(3, 3) ** 1.5
    return Case(
        build,
        jnp.array([[0.2, -0.4, 1.0], [0.0, 0.5, -1.0]]),
        lambda k: cost[k[0], k[1]],
        lambda logits: jax.nn.softmax(logits[0]) @ cost @ jax.nn.softmax(logits[1]),
        support=jnp.array(list(itertools.product(range(3), repeat=2))),
    )


def probs(logits: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(logits) if logits.ndim == 0 else jax.nn.softmax(logits)


FINITE = {
    "distrax.Bernoulli": bernoulli(lambda p: distrax.Bernoulli(logits=p)),
    "distrax.Bernoulli-bool": bernoulli(lambda p: distrax.Bernoulli(logits=p, dtype=bool), bool),
    "distrax.Bernoulli-float": bernoulli(lambda p: distrax.Bernoulli(logits=p, dtype=float), float),
    "distrax.Bernoulli-probs": bernoulli(lambda p: distrax.Bernoulli(probs=probs(p))),
    "distrax.Bernoulli-batch": coins(lambda p: distrax.Bernoulli(logits=p)),
    "distrax.Independent": coins(lambda p: distrax.Independent(distrax.Bernoulli(logits=p), 1)),
    "distrax.Categorical": categorical(lambda p: distrax.Categorical(logits=p)),
    "distrax.Categorical-probs": categorical(lambda p: distrax.Categorical(probs=probs(p))),
    "distrax.Categorical-batch": two_categoricals(lambda p: distrax.Categorical(logits=p)),
    "distrax.OneHotCategorical": one_hot(lambda p: distrax.OneHotCategorical(logits=p)),
    "distrax.OneHotCategorical-float": one_hot(
        lambda p: distrax.OneHotCategorical(logits=p, dtype=float), float
    ),
    "tfd.Bernoulli": bernoulli(lambda p: tfd.Bernoulli(logits=p)),
    "tfd.Bernoulli-bool": bernoulli(lambda p: tfd.Bernoulli(logits=p, dtype=jnp.bool_), bool),
    "tfd.Bernoulli-float": bernoulli(lambda p: tfd.Bernoulli(logits=p, dtype=jnp.float32), float),
    "tfd.Bernoulli-probs": bernoulli(lambda p: tfd.Bernoulli(probs=probs(p))),
    "tfd.Bernoulli-batch": coins(lambda p: tfd.Bernoulli(logits=p)),
    "tfd.Independent": coins(lambda p: tfd.Independent(tfd.Bernoulli(logits=p), 1)),
    "tfd.Categorical": categorical(lambda p: tfd.Categorical(logits=p)),
    "tfd.Categorical-float": categorical(
        lambda p: tfd.Categorical(logits=p, dtype=jnp.float32), float
    ),
    "tfd.Categorical-probs": categorical(lambda p: tfd.Categorical(probs=probs(p))),
    "tfd.Categorical-batch": two_categoricals(lambda p: tfd.Categorical(logits=p)),
    "tfd.OneHotCategorical": one_hot(lambda p: tfd.OneHotCategorical(logits=p)),
    "tfd.OneHotCategorical-float": one_hot(
        lambda p: tfd.OneHotCategorical(logits=p, dtype=jnp.float32), float
    ),
    "numpyro.Bernoulli": bernoulli(lambda p: npd.Bernoulli(logits=p)),
    "numpyro.Bernoulli-probs": bernoulli(lambda p: npd.Bernoulli(probs=probs(p))),
    "numpyro.Bernoulli-batch": coins(lambda p: npd.Bernoulli(logits=p)),
    "numpyro.Independent": coins(lambda p: npd.Bernoulli(logits=p).to_event(1)),
    "numpyro.Categorical": categorical(lambda p: npd.Categorical(logits=p)),
    "numpyro.Categorical-probs": categorical(lambda p: npd.Categorical(probs=probs(p))),
    "numpyro.Categorical-batch": two_categoricals(lambda p: npd.Categorical(logits=p)),
    "numpyro.Binomial": Case(
        lambda p: npd.Binomial(3, logits=p),
        LOGIT,
        lambda k: jnp.array([1.0, -1.0, 3.0, 0.5])[k],
        lambda p: (
            jnp.array([1.0, -3.0, 9.0, 0.5])
            @ (jax.nn.sigmoid(p) ** jnp.arange(4) * jax.nn.sigmoid(-p) ** (3 - jnp.arange(4)))
        ),
        support=jnp.arange(4),
    ),
}


class Tabled:
    """An object of no library: the log-density of another one, the draw looked up in a table."""

    def __init__(self, inner: Any, support: jax.Array) -> None:
        self.inner, self.support = inner, support

    def log_prob(self, x: Any) -> jax.Array:
        return self.inner.log_prob(x)

    def sample(self, key: jax.Array) -> jax.Array:
        return self.support[key]


@tabulated(FINITE)
def test_enumerate_gives_the_hand_written_sum(case: Case) -> None:
    key = jax.random.key(0)
    read_off = jax.jit(jax.value_and_grad(loss(case, sf.Enumerate(), 1)))(case.params, key)
    given = jax.jit(jax.value_and_grad(loss(case, sf.Enumerate(case.support), 1)))(case.params, key)
    wanted = jax.value_and_grad(case.exact)(case.params)
    for got in (read_off, given):
        jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, 1e-5, 1e-6), got, wanted)
    assert np.all(np.abs(np.asarray(wanted[1])) > 1e-3)


@tabulated(FINITE)
def test_score_function_is_exact_over_all_draws(case: Case) -> None:
    # The keys are indices: handing in every pair of the support, weighed by its probability,
    # gives the mean of the estimator without any randomness.
    size = len(case.support)
    pairs = jnp.array(list(itertools.product(range(size), repeat=2)))

    @jax.jit
    def mean_gradient(params: jax.Array) -> Any:
        inner = case.build(params)
        log_probs = jnp.sum(jax.vmap(inner.log_prob)(case.support).reshape(size, -1), 1)
        weights = jnp.prod(jnp.exp(log_probs)[pairs], 1)

        def one(params: jax.Array, keys: jax.Array) -> jax.Array:
            stub = Tabled(case.build(params), case.support)
            return jnp.mean(sf.ScoreFunction()(case.f, stub, keys))

        terms = jax.vmap(jax.value_and_grad(one), (None, 0))(params, pairs)
        return jax.tree.map(lambda t: jnp.tensordot(weights, t, 1), terms)

    got, wanted = mean_gradient(case.params), jax.value_and_grad(case.exact)(case.params)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, 1e-5, 2e-6), got, wanted)


# --------------------------------------------------------------------------- continuous and mixed

MEANS = {"loc": jnp.array([0.5, -1.0]), "log_scale": jnp.array([0.0, -0.5])}
SHAPES = {"a": jnp.array(0.4), "b": jnp.array(0.9)}
SIMPLEX = jnp.array([0.1, 0.7, 0.4])
WAVE = jnp.array([0.8, 1.3])
LOWER = {"loc": jnp.array([0.5, -0.3]), "lower": jnp.array([[0.9, 0.0], [0.4, 0.7]])}
BUMPS = {"logits": LOGITS, "loc": jnp.array([-1.0, 0.5, 2.0]), "log_scale": jnp.zeros(3)}
PAIR = {"logit": jnp.array(0.3), "loc": jnp.array(0.6)}


def cos_mean(loc: jax.Array, scale: jax.Array) -> jax.Array:
    """E cos(x), x ~ N(loc, scale^2)."""
    return jnp.cos(loc) * jnp.exp(-(scale**2) / 2)


def normals(build: Callable[..., Any], f: Callable[[Any], Any] = jnp.cos) -> Case:
    """Two normals as one draw [2]; cos(x_0 + x_1) ties them together."""

    def exact(p: Any) -> jax.Array:
        return cos_mean(jnp.sum(p["loc"]), jnp.sqrt(jnp.sum(jnp.exp(2 * p["log_scale"]))))

    def unpacked(p: Any) -> Any:
        return build(p["loc"], jnp.exp(p["log_scale"]))

    return Case(unpacked, MEANS, f, exact, pathwise=True)


def cos_sum(x: jax.Array) -> jax.Array:
    return jnp.cos(jnp.sum(x))


def cos_sum_log(x: jax.Array) -> jax.Array:
    return jnp.cos(jnp.sum(jnp.log(x)))


def gamma(build: Callable[..., Any]) -> Case:
    return Case(
        lambda p: build(jnp.exp(p["a"]), jnp.exp(p["b"])),
        SHAPES,
        lambda x: jnp.exp(-x),
        lambda p: (1 + jnp.exp(-p["b"])) ** -jnp.exp(p["a"]),
        pathwise=True,
    )


def beta(build: Callable[..., Any]) -> Case:
    def exact(p: Any) -> jax.Array:
        a, b = jnp.exp(p["a"]), jnp.exp(p["b"])
        return a * (a + 1) / ((a + b) * (a + b + 1))

    return Case(
        lambda p: build(jnp.exp(p["a"]), jnp.exp(p["b"])),
        SHAPES,
        jnp.square,
        exact,
        pathwise=True,
    )


def dirichlet(build: Callable[..., Any]) -> Case:
    return Case(
        lambda p: build(jnp.exp(p)),
        SIMPLEX,
        lambda x: x @ TABLE,
        lambda p: jnp.exp(p) @ TABLE / jnp.sum(jnp.exp(p)),
        pathwise=True,
    )


def multivariate(build: Callable[..., Any]) -> Case:
    """N(loc, L L'), built from loc and L."""
    # Libraries differ in whether they read, or differentiate, above the diagonal.
    return Case(
        lambda p: build(p["loc"], jnp.tril(p["lower"])),
        LOWER,
        lambda x: jnp.cos(WAVE @ x),
        lambda p: cos_mean(WAVE @ p["loc"], jnp.linalg.norm(WAVE @ jnp.tril(p["lower"]))),
        pathwise=True,
    )


def mixture(build: Callable[..., Any], *, pathwise: bool = False) -> Case:
    return Case(
        lambda p: build(p["logits"], p["loc"], jnp.exp(p["log_scale"])),
        BUMPS,
        jnp.cos,
        lambda p: jax.nn.softmax(p["logits"]) @ cos_mean(p["loc"], jnp.exp(p["log_scale"])),
        pathwise=pathwise,
    )


def joint(build: Callable[..., Any], *, chained: bool) -> Case:
    """A coin a and a normal b, whose mean is a * loc if it is chained to the coin; else loc."""

    def exact(p: Any) -> jax.Array:
        one = jax.nn.sigmoid(p["logit"])
        heads, tails = cos_mean(p["loc"], 1.0), cos_mean(0.0 if chained else p["loc"], 1.0)
        return one * 2 * heads + (1 - one) * tails

    def f(x: Any) -> jax.Array:
        a, b = (x["a"], x["b"]) if isinstance(x, dict) else x
        return (1 + a) * jnp.cos(b)

    return Case(lambda p: build(p["logit"], p["loc"]), PAIR, f, exact)


def vmapped_normals(loc: jax.Array, scale: jax.Array) -> Any:
    return eqx.filter_vmap(fjd.Normal)(loc, scale)


def coroutine(logit: jax.Array, loc: jax.Array) -> Any:
    def model() -> Any:
        a = yield tfd.Bernoulli(logits=logit, name="a")
        yield tfd.Normal(a * loc, 1.0, name="b")

    return tfd.JointDistributionCoroutineAutoBatched(model)


CONTINUOUS = {
    "distrax.Normal": normals(distrax.Normal, cos_sum),
    "distrax.Independent-Normal": normals(
        lambda m, s: distrax.Independent(distrax.Normal(m, s), 1), cos_sum
    ),
    "distrax.Transformed": normals(
        lambda m, s: distrax.Transformed(distrax.Normal(m, s), distrax.Lambda(jnp.exp, jnp.log)),
        cos_sum_log,
    ),
    "distrax.Transformed-affine": normals(
        lambda m, s: distrax.Transformed(
            distrax.Normal(jnp.zeros(2), 1), distrax.ScalarAffine(m, s)
        ),
        cos_sum,
    ),
    "distrax.MultivariateNormalDiag": normals(distrax.MultivariateNormalDiag, cos_sum),
    "distrax.MultivariateNormalFullCovariance": multivariate(
        lambda m, t: distrax.MultivariateNormalFullCovariance(m, t @ t.T)
    ),
    "distrax.MultivariateNormalTri": multivariate(distrax.MultivariateNormalTri),
    "distrax.Gamma": gamma(distrax.Gamma),
    "distrax.Beta": beta(distrax.Beta),
    "distrax.Dirichlet": dirichlet(distrax.Dirichlet),
    "distrax.MixtureSameFamily": mixture(
        lambda p, m, s: distrax.MixtureSameFamily(
            distrax.Categorical(logits=p), distrax.Normal(m, s)
        )
    ),
    "distrax.Joint": joint(
        lambda p, m: distrax.Joint({"a": distrax.Bernoulli(logits=p), "b": distrax.Normal(m, 1.0)}),
        chained=False,
    ),
    "tfd.Normal": normals(tfd.Normal, cos_sum),
    "tfd.Independent-Normal": normals(lambda m, s: tfd.Independent(tfd.Normal(m, s), 1), cos_sum),
    "tfd.TransformedDistribution": normals(
        lambda m, s: tfd.TransformedDistribution(tfd.Normal(m, s), tfp.bijectors.Exp()), cos_sum_log
    ),
    "tfd.MultivariateNormalDiag": normals(tfd.MultivariateNormalDiag, cos_sum),
    "tfd.MultivariateNormalFullCovariance": multivariate(
        lambda m, t: tfd.MultivariateNormalFullCovariance(m, t @ t.T)
    ),
    "tfd.MultivariateNormalTriL": multivariate(tfd.MultivariateNormalTriL),
    "tfd.Gamma": gamma(tfd.Gamma),
    "tfd.Beta": beta(tfd.Beta),
    "tfd.Dirichlet": dirichlet(tfd.Dirichlet),
    "tfd.MixtureSameFamily": mixture(
        lambda p, m, s: tfd.MixtureSameFamily(tfd.Categorical(logits=p), tfd.Normal(m, s))
    ),
    "tfd.MixtureSameFamily-reparameterized": mixture(
        lambda p, m, s: tfd.MixtureSameFamily(
            tfd.Categorical(logits=p), tfd.Normal(m, s), reparameterize=True
        ),
        pathwise=True,
    ),
    "tfd.JointDistributionNamed": joint(
        lambda p, m: tfd.JointDistributionNamed(
            {"a": tfd.Bernoulli(logits=p), "b": lambda a: tfd.Normal(a * m, 1.0)}
        ),
        chained=True,
    ),
    "tfd.JointDistributionSequential": joint(
        lambda p, m: tfd.JointDistributionSequential(
            [tfd.Bernoulli(logits=p), lambda a: tfd.Normal(a * m, 1.0)]
        ),
        chained=True,
    ),
    "tfd.JointDistributionCoroutineAutoBatched": joint(coroutine, chained=True),
    "numpyro.Normal": normals(npd.Normal, cos_sum),
    "numpyro.Independent-Normal": normals(lambda m, s: npd.Normal(m, s).to_event(1), cos_sum),
    "numpyro.TransformedDistribution": normals(
        lambda m, s: npd.TransformedDistribution(npd.Normal(m, s), npd.transforms.ExpTransform()),
        cos_sum_log,
    ),
    "numpyro.MultivariateNormal": multivariate(
        lambda m, t: npd.MultivariateNormal(m, covariance_matrix=t @ t.T)
    ),
    "numpyro.MultivariateNormal-tril": multivariate(
        lambda m, t: npd.MultivariateNormal(m, scale_tril=t)
    ),
    "numpyro.Gamma": gamma(npd.Gamma),
    "numpyro.Beta": beta(npd.Beta),
    "numpyro.Dirichlet": dirichlet(npd.Dirichlet),
    "numpyro.MixtureSameFamily": mixture(
        lambda p, m, s: npd.MixtureSameFamily(npd.Categorical(logits=p), npd.Normal(m, s))
    ),
    "numpyro.MixtureGeneral": mixture(
        lambda p, m, s: npd.MixtureGeneral(
            npd.Categorical(logits=p), [npd.Normal(m[i], s[i]) for i in range(3)]
        )
    ),
    "flowjax.Normal": normals(fjd.Normal, cos_sum),
    "flowjax.Transformed": normals(
        lambda m, s: fjd.Transformed(fjd.Normal(m, s), fjb.Exp((2,))), cos_sum_log
    ),
    "flowjax.MultivariateNormal": multivariate(lambda m, t: fjd.MultivariateNormal(m, t @ t.T)),
    "flowjax.Gamma": gamma(lambda a, b: fjd.Gamma(a, 1 / b)),
    "flowjax.Beta": beta(fjd.Beta),
    "flowjax.VmapMixture": mixture(
        lambda p, m, s: fjd.VmapMixture(vmapped_normals(m, s), jnp.exp(p))
    ),
}
EVERY = FINITE | CONTINUOUS
REPARAMETERIZED = {name: case for name, case in CONTINUOUS.items() if case.pathwise}


@tabulated(EVERY)
def test_score_function_with_the_object_s_own_sampler(case: Case) -> None:
    assert_unbiased(case, sf.ScoreFunction())


@tabulated(REPARAMETERIZED)
def test_pathwise_with_the_object_s_own_sampler(case: Case) -> None:
    assert_unbiased(case, sf.Pathwise())


# Objects that keep normalised or cached arrays beside, or instead of, their free parameters: moving
# one array alone leaves the family of densities, so that the score along it need not have mean 0.
# `check_score` is then asked about the parameters that the object is built from.
DERIVED = {
    "distrax.Categorical",
    "distrax.Categorical-probs",
    "distrax.Categorical-batch",
    "distrax.OneHotCategorical",
    "distrax.OneHotCategorical-float",
    "distrax.Transformed-affine",
    "distrax.Beta",
    "distrax.Dirichlet",
    "distrax.MixtureSameFamily",
    "distrax.MultivariateNormalFullCovariance",
    "distrax.MultivariateNormalTri",
    "numpyro.Categorical-probs",
}
# The parameters are closed over by the model, where no pytree shows them.
HIDDEN = {"tfd.JointDistributionCoroutineAutoBatched"}


def from_parameters(case: Case) -> sf.Distribution:
    """The case as two functions of its parameters."""

    def log_prob(params: Any, x: Any) -> jax.Array:
        return sum(map(jnp.sum, jax.tree.leaves(case.build(params).log_prob(x))))

    def sample(params: Any, key: jax.Array) -> Any:
        built = case.build(params)
        libraries = type(built).__module__.split(".")[0]
        return built.sample(seed=key) if libraries != "numpyro" else built.sample(key)

    return sf.Distribution(log_prob, sample, case.params)


PLAIN = {name: case for name, case in EVERY.items() if "-" not in name}


@pytest.mark.slow
@tabulated({name: case for name, case in PLAIN.items() if name not in DERIVED | HIDDEN})
def test_check_score_passes_on_the_object(case: Case) -> None:
    report = sf.check_score(
        case.build(case.params), jax.random.key(1), num_samples=2048, alpha=1e-12
    )
    assert report.passed, str(report)


@tabulated({name: case for name, case in PLAIN.items() if name in DERIVED | HIDDEN})
def test_check_score_passes_on_the_parameters(case: Case) -> None:
    report = sf.check_score(from_parameters(case), jax.random.key(1), num_samples=2048, alpha=1e-12)
    assert report.passed, str(report)


@tabulated({name: EVERY[name] for name in ("distrax.Beta",)})
def test_check_score_finds_arrays_that_are_no_free_parameters(case: Case) -> None:
    report = sf.check_score(case.build(case.params), jax.random.key(1), num_samples=2048)
    assert not report.passed


@pytest.mark.parametrize(
    ("name", "leaves"),
    [
        ("distrax.Normal", {"loc (float32[2])", "scale (float32[2])"}),
        ("tfd.Normal", {"loc (float32[2])", "scale (float32[2])"}),
        ("numpyro.Normal", {"loc (float32[2])", "scale (float32[2])"}),
        ("flowjax.Normal", {"bijection.loc (float32[2])", "bijection.scale.args[0] (float32[2])"}),
        ("tfd.Bernoulli", {"logits (float32[])"}),
        (
            "tfd.MixtureSameFamily",
            {
                "mixture_distribution.logits (float32[3])",
                "components_distribution.loc (float32[3])",
                "components_distribution.scale (float32[3])",
            },
        ),
        (
            "numpyro.MixtureSameFamily",
            {
                "mixing_distribution.logits (float32[3])",
                "component_distribution.loc (float32[3])",
                "component_distribution.scale (float32[3])",
            },
        ),
    ],
)
def test_reports_name_the_parameters(name: str, leaves: set[str]) -> None:
    case = EVERY[name]
    report = sf.check_score(case.build(case.params), jax.random.key(1), num_samples=16)
    assert set(report.z) == leaves


# ---------------------------------------------------------------------- the object as an argument


@pytest.mark.parametrize("name", ["distrax.Normal", "tfd.Normal", "numpyro.Normal"])
@pytest.mark.parametrize("estimator", [sf.ScoreFunction(), sf.Pathwise()])
def test_the_object_itself_is_differentiated(name: str, estimator: sf.Estimator) -> None:
    case = EVERY[name]
    scale = jnp.array([0.7, 1.2])
    distribution = case.build({"loc": MEANS["loc"], "log_scale": jnp.log(scale)})

    def of_object(distribution: Any, key: jax.Array) -> jax.Array:
        return sf.expectation(case.f, distribution, key, estimator, num_samples=4)

    def of_arrays(params: Any, key: jax.Array) -> jax.Array:
        return of_object(case.build(params), key)

    key = jax.random.key(3)
    got = jax.jit(jax.grad(of_object))(distribution, key)
    wanted = jax.grad(of_arrays)({"loc": MEANS["loc"], "log_scale": jnp.log(scale)}, key)
    np.testing.assert_allclose(got.loc, wanted["loc"], 1e-4, 1e-6)
    np.testing.assert_allclose(got.scale, wanted["log_scale"] / scale, 1e-4, 1e-6)


# --------------------------------------------------------------------------------------- networks

OBSERVATION = jnp.array([0.3, -0.7])
NUM_SAMPLES = 8


def linen() -> tuple[Callable[..., jax.Array], Any, Callable[..., Any]]:
    network = flax.linen.Dense(3)
    return network.apply, network.init(jax.random.key(2), OBSERVATION), jax.grad


def nnx_split() -> tuple[Callable[..., jax.Array], Any, Callable[..., Any]]:
    graph, state = flax.nnx.split(flax.nnx.Linear(2, 3, rngs=flax.nnx.Rngs(0)))
    return lambda state, x: flax.nnx.merge(graph, state)(x), state, jax.grad


def equinox_partition() -> tuple[Callable[..., jax.Array], Any, Callable[..., Any]]:
    arrays, static = eqx.partition(eqx.nn.MLP(2, 3, 8, 1, key=jax.random.key(2)), eqx.is_array)
    return lambda arrays, x: eqx.combine(arrays, static)(x), arrays, jax.grad


def equinox_filter() -> tuple[Callable[..., jax.Array], Any, Callable[..., Any]]:
    network = eqx.nn.MLP(2, 3, 8, 1, key=jax.random.key(2))
    return lambda network, x: network(x), network, eqx.filter_grad


NETWORKS = [linen, nnx_split, equinox_partition, equinox_filter]
POLICIES = [
    lambda logits: distrax.Categorical(logits=logits),
    lambda logits: tfd.Categorical(logits=logits),
    lambda logits: npd.Categorical(logits=logits),
]


def by_hand(logits: jax.Array, draws: jax.Array) -> jax.Array:
    """A surrogate whose gradient is the leave-one-out estimate, spelled with log_softmax."""
    costs = TABLE[draws]
    others = (jnp.sum(costs) - costs) / (len(draws) - 1)
    return jnp.mean((costs - others) * jax.nn.log_softmax(logits)[draws])


def assert_trees_close(got: Any, wanted: Any, *, nonzero: bool = True) -> None:
    got, wanted = (jax.tree.leaves(eqx.filter(tree, eqx.is_array)) for tree in (got, wanted))
    assert len(got) == len(wanted) > 0
    for g, w in zip(got, wanted, strict=True):
        np.testing.assert_allclose(g, w, 1e-4, 1e-6)
    assert not nonzero or max(np.max(np.abs(w)) for w in wanted) > 1e-3


@pytest.mark.parametrize(
    ("network", "policy"), [(n, POLICIES[0]) for n in NETWORKS] + [(linen, p) for p in POLICIES[1:]]
)
def test_gradients_of_network_weights(network: Any, policy: Callable[..., Any]) -> None:
    apply, weights, grad = network()
    key = jax.random.key(5)

    def objective(estimator: sf.Estimator) -> Callable[[Any], jax.Array]:
        return lambda weights: sf.expectation(
            lambda k: TABLE[k],
            policy(apply(weights, OBSERVATION)),
            key,
            estimator,
            num_samples=NUM_SAMPLES,
        )

    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(NUM_SAMPLES, dtype=jnp.uint32))
    sampler = policy(apply(weights, OBSERVATION))
    seeded = "numpyro" not in type(sampler).__module__
    draws = jax.vmap(lambda k: sampler.sample(seed=k) if seeded else sampler.sample(k))(keys)
    assert len(set(draws.tolist())) > 1

    jit = eqx.filter_jit
    exact = grad(lambda w: jax.nn.softmax(apply(w, OBSERVATION)) @ TABLE)(weights)
    assert_trees_close(jit(grad(objective(sf.Enumerate())))(weights), exact)
    estimate = grad(lambda w: by_hand(apply(w, OBSERVATION), draws))(weights)
    assert_trees_close(jit(grad(objective(sf.ScoreFunction())))(weights), estimate)


def test_nnx_module_by_nnx_grad() -> None:
    network = flax.nnx.Linear(2, 3, rngs=flax.nnx.Rngs(0))

    @flax.nnx.jit
    def gradient(network: Any) -> Any:
        def objective(network: Any) -> jax.Array:
            policy = distrax.Categorical(logits=network(OBSERVATION))
            return sf.expectation(lambda k: TABLE[k], policy, jax.random.key(5), sf.Enumerate())

        return flax.nnx.grad(objective)(network)

    exact = flax.nnx.grad(lambda n: jax.nn.softmax(n(OBSERVATION)) @ TABLE)(network)
    assert_trees_close(gradient(network), exact)


@pytest.mark.parametrize("network", NETWORKS)
def test_an_amortised_posterior_of_a_network(network: Any) -> None:
    """The expansion to second degree of a quadratic leaves no noise: the gradient is exact."""
    apply, weights, grad = network()
    estimator = sf.DeltaMethod(sf.Pathwise())

    def bound(weights: Any) -> jax.Array:
        loc, log_scale, _ = apply(weights, OBSERVATION)
        q = distrax.Normal(loc, jnp.exp(log_scale))
        log_joint = lambda z: -(z**2) / 2 - (z - 1.0) ** 2  # noqa: E731
        return vi.elbo(log_joint, q, jax.random.key(5), estimator, entropy=q.entropy())

    def exact(weights: Any) -> jax.Array:
        loc, log_scale, _ = apply(weights, OBSERVATION)
        return -(loc**2) / 2 - (loc - 1.0) ** 2 - 1.5 * jnp.exp(2 * log_scale) + log_scale

    assert_trees_close(eqx.filter_jit(grad(bound))(weights), grad(exact)(weights))


# ------------------------------------------------------------------------------ a normalising flow


def autoregressive_flow() -> tuple[Any, Any]:
    flow = flowjax.flows.masked_autoregressive_flow(
        jax.random.key(4),
        base_dist=fjd.Normal(jnp.array([0.2, -0.1])),
        flow_layers=2,
        nn_width=4,
        nn_depth=1,
    )
    return eqx.partition(flow, eqx.is_inexact_array)


def test_flow_estimators_agree_with_hand_written_ones() -> None:
    arrays, static = autoregressive_flow()
    key = jax.random.key(6)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(NUM_SAMPLES, dtype=jnp.uint32))

    def objective(arrays: Any, estimator: sf.Estimator) -> jax.Array:
        flow = eqx.combine(arrays, static)
        return sf.expectation(cos_sum, flow, key, estimator, num_samples=NUM_SAMPLES)

    def pathwise(arrays: Any) -> jax.Array:
        flow = eqx.combine(arrays, static)
        return jnp.mean(jax.vmap(lambda k: cos_sum(flow.sample(k)))(keys))

    def score(arrays: Any) -> jax.Array:
        flow = eqx.combine(arrays, static)
        x = jax.lax.stop_gradient(jax.vmap(flow.sample)(keys))
        costs = jax.vmap(cos_sum)(x)
        others = (jnp.sum(costs) - costs) / (NUM_SAMPLES - 1)
        return jnp.mean((costs - others) * jax.vmap(flow.log_prob)(x))

    gradient = jax.jit(jax.grad(objective), static_argnums=1)
    assert_trees_close(gradient(arrays, sf.Pathwise()), jax.jit(jax.grad(pathwise))(arrays))
    assert_trees_close(gradient(arrays, sf.ScoreFunction()), jax.jit(jax.grad(score))(arrays))


def test_flow_estimators_agree_with_each_other() -> None:
    arrays, static = autoregressive_flow()
    flat, unravel = jax.flatten_util.ravel_pytree(arrays)
    directions = jax.random.normal(jax.random.key(8), (4, flat.size))

    def objective(flat: jax.Array, key: jax.Array, estimator: sf.Estimator) -> jax.Array:
        flow = eqx.combine(unravel(flat), static)
        return sf.expectation(cos_sum, flow, key, estimator, num_samples=4)

    def difference(key: jax.Array) -> jax.Array:
        gradient = jax.grad(objective)
        return directions @ (
            gradient(flat, key, sf.Pathwise()) - gradient(flat, key, sf.ScoreFunction())
        )

    draws = jax.jit(jax.vmap(difference))(jax.random.split(jax.random.key(7), 4096))
    assert_mean(draws, np.zeros(4))
    assert np.all(np.std(draws, 0) > 1e-2)


# ------------------------------------------------------------------------ objects of other origin


class Exponential:
    """Not a pytree, of no library: ``sample(key)``."""

    def __init__(self, rate: Any) -> None:
        self.rate = rate

    def log_prob(self, x: jax.Array) -> jax.Array:
        return jnp.log(self.rate) - self.rate * x

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.exponential(key, jnp.shape(self.rate)) / self.rate


class Seeded(Exponential):
    """The same with ``sample(seed=...)`` and something before it."""

    def sample(self, shape: tuple[int, ...] = (), *, seed: jax.Array) -> jax.Array:  # type: ignore[override]
        assert shape == ()
        return super().sample(seed)


def exponential(build: Callable[..., Any]) -> Case:
    return Case(
        lambda p: build(jnp.exp(p)),
        jnp.array([0.3, -0.2]),
        lambda x: jnp.exp(-jnp.sum(x)),
        lambda p: jnp.prod(jax.nn.sigmoid(p)),
        pathwise=True,
    )


FOREIGN = {"key": exponential(Exponential), "seed": exponential(Seeded)}


@tabulated(FOREIGN)
@pytest.mark.parametrize("estimator", [sf.ScoreFunction(), sf.Pathwise()])
def test_objects_of_no_library(case: Case, estimator: sf.Estimator) -> None:
    assert_unbiased(case, estimator)


def test_parameters_that_no_pytree_shows_have_no_score_to_check() -> None:
    with pytest.raises(ValueError, match="must have float parameters"):
        sf.check_score(Exponential(jnp.ones(2)), jax.random.key(0), num_samples=8)


# ------------------------------------------------------------------------------- shapes and draws

EVENTS = {
    "distrax-batch": distrax.Normal(jnp.zeros((2, 3)), 1.0),
    "distrax-event": distrax.Independent(distrax.Normal(jnp.zeros((2, 3)), 1.0), 2),
    "distrax-both": distrax.MultivariateNormalDiag(jnp.zeros((2, 3)), jnp.ones((2, 3))),
    "tfd-batch": tfd.Normal(jnp.zeros((2, 3)), 1.0),
    "tfd-event": tfd.Independent(tfd.Normal(jnp.zeros((2, 3)), 1.0), 2),
    "tfd-both": tfd.MultivariateNormalDiag(jnp.zeros((2, 3)), jnp.ones((2, 3))),
    "tfd-sample": tfd.Sample(tfd.Normal(0.0, 1.0), (2, 3)),
    "numpyro-batch": npd.Normal(jnp.zeros((2, 3)), 1.0),
    "numpyro-event": npd.Normal(jnp.zeros((2, 3)), 1.0).to_event(2),
    "numpyro-both": npd.Normal(jnp.zeros((2, 3)), 1.0).to_event(1),
    "numpyro-expanded": npd.Normal(0.0, 1.0).expand((2, 3)),
    "flowjax-event": fjd.Normal(jnp.zeros((2, 3))),
}


@pytest.mark.parametrize("distribution", list(EVENTS.values()), ids=list(EVENTS))
def test_batch_and_event_axes_are_summed(distribution: Any) -> None:
    x = jnp.arange(6.0).reshape(2, 3) / 3
    total = float(jnp.sum(jax.scipy.stats.norm.logpdf(x)))

    # Enumerate refuses a support whose probability is not 1: moved by its total, the log-density
    # of this one value is 0 if and only if every axis is summed.
    class Moved:
        def log_prob(self, x: jax.Array) -> jax.Array:
            log_prob = distribution.log_prob(x)
            return log_prob - total / log_prob.size

        def sample(self, key: jax.Array) -> jax.Array:
            return distribution.sample(key)

    def f(x: jax.Array) -> jax.Array:
        assert x.shape == (2, 3)
        return jnp.ones(())

    value = sf.expectation(f, Moved(), jax.random.key(0), sf.Enumerate(support=x[None]))
    np.testing.assert_allclose(value, 1.0, 1e-5, 0)
    # And the sampler's own draw has the same two axes.
    assert sf.expectation(f, distribution, jax.random.key(0), sf.Pathwise()) == 1
