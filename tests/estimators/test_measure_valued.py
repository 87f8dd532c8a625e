"""MeasureValued and GO: exact means and variances by quadrature, and z-tests of real samplers."""

import itertools
import math
from functools import partial

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as nd
import pytest
import scipy.special
import scipy.stats
from support.noise import noise_keys
from tensorflow_probability.substrates import jax as tfp

import scorefn as sf

tfd = tfp.distributions
# Most programs run once, so that the time is that of compiling.
X64 = pytest.mark.usefixtures("x64")
QUICK = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
# TFP asks for float64 in some of its samplers, in float32 as well.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64"),
    pytest.mark.slow,
]
BOTH = pytest.mark.parametrize("estimator", [sf.MeasureValued(), sf.GO()], ids=["weak", "go"])


# ------------------------------------------------------------------------- rules of uniform noise


def middles(probs):
    """Uniforms that stand for pieces of the unit interval, in order: (points, weights)."""
    edges = np.concatenate([[0.0], np.cumsum(probs)])
    return (edges[1:] + edges[:-1]) / 2, np.asarray(probs)


def hermite(n):
    z, w = np.polynomial.hermite_e.hermegauss(n)
    return scipy.special.ndtr(z), w / w.sum()


def laguerre(n):
    """For jax.random.exponential, exact for polynomials."""
    x, w = np.polynomial.laguerre.laggauss(n)
    return -np.expm1(-x), w


def rayleigh(n):
    """For jax.random.exponential, smooth functions of the square root of it."""
    x, w = np.polynomial.legendre.leggauss(n)
    r = 4.25 * (x + 1)
    w = 4.25 * w * r * np.exp(-(r**2) / 2)
    return -np.expm1(-(r**2) / 2), w / w.sum()


def doubly_exponential(n):
    """For a uniform number, where the integrand has singularities at both ends."""
    t = np.linspace(-3.2, 3.2, n)
    u = scipy.special.expit(np.pi * np.sinh(t))
    w = np.pi * np.cosh(t) * u * (1 - u) * (t[1] - t[0])
    return u, w / w.sum()


NOTHING = (np.array([0.5]), np.array([1.0]))


def exact_moments(estimate, params, draws, points):
    """Mean of value and gradient and variance of the gradient, over the noise of one key.

    `draws` and `points` are the rules of the numbers that the draw and the rest consume.
    """
    width = max(len(draws), len(points))
    filled = [
        *draws,
        *[NOTHING] * (width - len(draws)),
        *points,
        *[NOTHING] * (width - len(points)),
    ]
    nodes = np.array(list(itertools.product(*(u for u, _ in filled))))
    weights = np.prod(np.array(list(itertools.product(*(w for _, w in filled)))), axis=1)

    def value(params, key):
        return estimate(params, key[None])[0]

    both = QUICK(jax.vmap(jax.value_and_grad(value), (None, 0)))
    values, gradients = both(params, noise_keys(nodes))
    mean = jax.tree.map(lambda g: np.tensordot(weights, g, 1), gradients)
    square = jax.tree.map(lambda g: np.tensordot(weights, g**2, 1), gradients)
    return weights @ values, mean, jax.tree.map(lambda s, m: s - m**2, square, mean)


def check(estimate, expected, params, draws, points=()):
    value, mean, _ = exact_moments(estimate, params, draws, list(points))
    exact_value, exact_gradient = QUICK(jax.value_and_grad(expected))(params)
    assert np.isfinite(value)
    np.testing.assert_allclose(value, exact_value, rtol=0, atol=1e-10)
    assert jax.tree.structure(mean) == jax.tree.structure(exact_gradient)
    for a, b in zip(jax.tree.leaves(mean), jax.tree.leaves(exact_gradient), strict=True):
        assert np.all(np.abs(b) > 1e-4), "a derivative of 0 proves nothing"
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


def cost(x):
    """Couples the factors, is no polynomial of low degree, and has no symmetry."""
    x = x.astype(jnp.float64).reshape(-1)
    return jnp.sum(jnp.cumsum(x) ** 2) + jnp.prod(x + 0.3) + 0.2 * jnp.sum(jnp.sin(3 * x))


def polynomial(x):
    x = x.reshape(-1)
    return jnp.sum(jnp.cumsum(x) ** 2) + jnp.prod(x + 0.3) + 0.2 * jnp.sum(x**3)


# ---------------------------------------------------------------- discrete factors, all the draws


@X64
@BOTH
@pytest.mark.parametrize("logits", [[0.7], [0.7, -1.1], [[0.7], [-1.1], [0.2]]])
def test_bernoulli_is_unbiased(estimator, logits):
    logits = jnp.array(logits)
    probs = np.asarray(jax.nn.sigmoid(logits)).ravel()
    check(
        lambda logits, keys: estimator(cost, sf.Bernoulli(logits), keys),
        lambda logits: sf.Enumerate()(cost, sf.Bernoulli(logits), jax.random.key(0)[None])[0],
        logits,
        [middles([p, 1 - p]) for p in probs],
    )


@X64
@BOTH
@pytest.mark.parametrize(
    ("record", "factors"), [(sf.Categorical, 1), (sf.Categorical, 2), (sf.OneHotCategorical, 2)]
)
def test_categories_are_unbiased(estimator, record, factors):
    logits = jnp.array([[0.3, -0.8, 0.9], [1.1, 0.2, -0.4]])[:factors]

    def f(x):
        return cost(x @ jnp.array([0.4, 2.0, -1.0]) if record is sf.OneHotCategorical else x)

    check(
        lambda logits, keys: estimator(f, record(logits), keys),
        lambda logits: sf.Enumerate()(f, record(logits), jax.random.key(0)[None])[0],
        logits,
        [middles(row) for row in np.asarray(jax.nn.softmax(logits))],
    )


class Inverse:
    """A distribution on 0, 1 ... sampled by inversion of one uniform number for each factor."""

    size = 60

    def __init_subclass__(cls):
        # Recognized as the class of that name of TFP, with draws of given noise.
        cls.__module__ = "tensorflow_probability.stand_in"

    def log_prob(self, x):
        raise NotImplementedError

    def sample(self, key):
        probs = jnp.exp(jax.vmap(self.log_prob)(jnp.arange(self.size)))
        u = jax.random.uniform(key, jnp.shape(probs)[1:], probs.dtype)
        return jnp.sum(u > jnp.cumsum(probs, axis=0), axis=0)


class Poisson(Inverse):
    def __init__(self, rate=None, log_rate=None):
        self.rate, self.log_rate = rate, log_rate

    def log_prob(self, x):
        rate = jnp.exp(self.log_rate) if self.rate is None else self.rate
        return x * jnp.log(rate) - rate - jax.scipy.special.gammaln(x + 1.0)


class Binomial(Inverse):
    size = 5

    def __init__(self, probs=None, logits=None):
        self.total_count, self.probs, self.logits = 4, probs, logits

    def log_prob(self, x):
        probs = jax.nn.sigmoid(self.logits) if self.probs is None else self.probs
        ways = jnp.array([1.0, 4.0, 6.0, 4.0, 1.0])[x]
        return jnp.log(ways) + x * jnp.log(probs) + (4 - x) * jnp.log1p(-probs)


class Geometric(Inverse):
    def __init__(self, probs=None, logits=None):
        self.probs, self.logits = probs, logits

    def log_prob(self, x):
        probs = jax.nn.sigmoid(self.logits) if self.probs is None else self.probs
        return x * jnp.log1p(-probs) + jnp.log(probs)


class NegativeBinomial(Inverse):
    def __init__(self, probs=None, logits=None, total_count=2.5):
        self.total_count, self.probs, self.logits = total_count, probs, logits

    def log_prob(self, x):
        probs = jax.nn.sigmoid(self.logits) if self.probs is None else self.probs
        r, ln = self.total_count, jax.scipy.special.gammaln
        ways = ln(x + r) - ln(r) - ln(x + 1.0)
        return ways + x * jnp.log(probs) + r * jnp.log1p(-probs)


def geometric_steps(q):
    """For floor(exponential / -log q): its values 0 .. 59."""
    return middles((1 - q) * q ** np.arange(60))


COUNTS = {
    "poisson": (Poisson, "rate", [0.7], []),
    "poisson-2": (Poisson, "rate", [0.3, 0.4], []),
    "binomial": (Binomial, "probs", [0.3], [middles([0.25] * 4)]),
    "binomial-2": (Binomial, "logits", [0.3, -0.8], [middles([0.25] * 4)] * 2),
    "geometric-logits": (Geometric, "logits", [0.8], [geometric_steps(scipy.special.expit(-0.8))]),
    "negative-binomial-logits": (
        NegativeBinomial,
        "logits",
        [-1.2],
        [geometric_steps(scipy.special.expit(-1.2))],
    ),
}


@X64
@BOTH
@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_unbiased(estimator, name):
    kind, parameter, at, points = COUNTS[name]
    size = min(kind.size, 18) if len(at) == 2 else kind.size
    if isinstance(estimator, sf.GO):
        points = []

    def probs_of(p):
        return jnp.exp(jax.vmap(kind(**{parameter: p}).log_prob)(jnp.arange(size)))

    def expected(params):
        values = jnp.array(list(itertools.product(range(size), repeat=len(at))))
        probs = probs_of(params)
        joint = jnp.prod(jnp.stack([probs[values[:, i], i] for i in range(len(at))]), axis=0)
        return jnp.dot(joint, jax.vmap(cost)(values))

    params = jnp.array(at)
    rules = [middles(np.asarray(probs_of(params))[:, i]) for i in range(len(at))]
    check(
        lambda p, keys: estimator(cost, kind(**{parameter: p}), keys),
        expected,
        params,
        rules,
        points,
    )


# -------------------------------------------------------------------------- continuous quadrature


def normal_moments(params, f, degree=8):
    z, w = np.polynomial.hermite_e.hermegauss(degree)
    shape = params["loc"].shape
    grid = jnp.array(list(itertools.product(z, repeat=math.prod(shape)))).reshape(-1, *shape)
    joint = np.prod(list(itertools.product(w / w.sum(), repeat=math.prod(shape))), axis=1)
    return jnp.dot(joint, jax.vmap(f)(params["loc"] + params["scale"] * grid))


@X64
@pytest.mark.parametrize("build", ["plain", "diagonal"])
@pytest.mark.parametrize("size", [1, 2])
def test_normal_is_unbiased(size, build):
    params = {"loc": jnp.array([0.6, -0.9])[:size], "scale": jnp.array([0.8, 1.4])[:size]}
    kinds = {"plain": distrax.Normal, "diagonal": distrax.MultivariateNormalDiag}

    def estimate(params, keys):
        normal = kinds[build](params["loc"], params["scale"])
        return sf.MeasureValued()(polynomial, normal, keys)

    rules = [hermite(4)] * size, [rayleigh(32)] * size
    check(estimate, lambda p: normal_moments(p, polynomial), params, *rules)


@X64
def test_the_variance_along_a_normal_mean_and_its_place_among_estimators():
    # (x - k)^2: coupled weak derivative d^2 (16 / pi - 4), pathwise 4 s^2, score s^2-weighted.
    sigma, k = 1.3, 0.5
    wide = {"measure": [], "pathwise": [], "score": []}
    for d in (0.0, 1.7, 3.5):
        estimators = {
            "measure": sf.MeasureValued(),
            "pathwise": sf.Pathwise(),
            "score": sf.ScoreFunction(sf.ConstantBaseline(0.0)),
        }
        for name, estimator in estimators.items():

            def estimate(loc, keys, estimator=estimator):
                return estimator(lambda x: (x - k) ** 2, distrax.Normal(loc, sigma), keys)

            # Only the weak derivative splits its key.
            rules = ([hermite(6)], [rayleigh(40)]) if name == "measure" else ([hermite(6)], [])
            _, mean, variance = exact_moments(estimate, jnp.array(k + d), *rules)
            np.testing.assert_allclose(mean, 2 * d, rtol=0, atol=1e-10)
            wide[name].append(variance)
        closed = {
            "measure": d**2 * (16 / np.pi - 4),
            "pathwise": 4 * sigma**2,
            "score": (d**4 + 14 * d**2 * sigma**2 + 15 * sigma**4) / sigma**2,
        }
        for name, variance in closed.items():
            np.testing.assert_allclose(wide[name][-1], variance, rtol=0, atol=1e-8)
    # Better than pathwise up to |d| = 1.91 sigma; pathwise always better than the score.
    better = np.array(wide["measure"]) < np.array(wide["pathwise"])
    np.testing.assert_array_equal(better, [True, True, False])
    assert np.all(np.array(wide["pathwise"]) < np.array(wide["score"]))


@X64
@pytest.mark.parametrize("size", [1, 2, 3])
def test_exponential_is_unbiased(size):
    rate = jnp.array([1.3, 0.6, 2.0])[:size]
    x, w = np.polynomial.laguerre.laggauss(6)
    grid = jnp.array(list(itertools.product(x, repeat=size)))
    joint = np.prod(list(itertools.product(w, repeat=size)), axis=1)
    order = 4 if size < 3 else 3
    check(
        lambda rate, keys: sf.MeasureValued()(polynomial, nd.Exponential(rate), keys),
        lambda rate: jnp.dot(joint, jax.vmap(polynomial)(grid / rate)),
        rate,
        [laguerre(order)] * size,
        [laguerre(order)] * size,
    )


class Gamma(Inverse):
    """Draws 200 times a uniform number: quadrature nodes, weighed by the density outside."""

    def __init__(self, concentration, rate):
        self.concentration, self.rate = concentration, rate

    def log_prob(self, x):
        return x * 0.0

    def sample(self, key):
        return 200 * jax.random.uniform(key, self.concentration.shape, self.concentration.dtype)


@X64
@pytest.mark.parametrize("concentration", [0.05, 2.5, 40.0])
def test_gamma_is_unbiased(concentration):
    params = {"concentration": jnp.array(concentration), "rate": jnp.array(1.7)}
    x, w = scipy.special.roots_genlaguerre(4, concentration - 1)
    draws = [(x / 1.7 / 200, w / w.sum())]

    def expected(p):
        a, b = p["concentration"], p["rate"]
        first, second = a / b, a * (a + 1) / b**2
        return second * (a + 2) / b / 50 - second + 3 * first

    def check_part(points):
        return exact_moments(
            lambda p, keys: sf.MeasureValued()(
                lambda x: x**3 / 50 - x**2 + 3 * x, Gamma(**p), keys
            ),
            params,
            draws,
            points,
        )

    value, mean, _ = check_part([laguerre(4), doubly_exponential(90)])
    exact_value, exact = jax.value_and_grad(expected)(params)
    np.testing.assert_allclose(value, exact_value, rtol=1e-10)
    for name in params:
        np.testing.assert_allclose(mean[name], exact[name], rtol=1e-9)


# --------------------------------------------------- samplers and objects of libraries, by z-tests

# A z-test passes a right estimate but once in 1 / ALARM; all of them together stay under 1e-9.
ALARM = 1e-12
LIMIT = float(scipy.stats.norm.isf(ALARM / 2))


def z_scores(loss, expected, params, n):
    keys = jax.random.split(jax.random.key(11), n)

    def one(key):
        return jax.value_and_grad(loss)(params, key)

    mean, variance, count = QUICK(lambda: sf.moments(one, keys)[:2])() + (n,)
    exact = QUICK(jax.value_and_grad(expected))(params)

    def score(mean, variance, exact):
        assert np.all(np.isfinite(mean))
        assert np.all(variance > 0)
        return (mean - exact) / np.sqrt(variance / count)

    return jax.tree.leaves(jax.tree.map(score, mean, variance, exact))


# An object of two factors from its parameters, and mean and variance of one factor.
OBJECTS = {
    "tfd.Poisson-log": (
        lambda p: tfd.Independent(tfd.Poisson(log_rate=p["log"]), 1),
        lambda p: (jnp.exp(p["log"]),) * 2,
    ),
    "nd.Poisson": (lambda p: nd.Poisson(p["rate"]).to_event(1), lambda p: (p["rate"],) * 2),
    "tfd.Gamma-log": (
        lambda p: tfd.Gamma(p["a"], log_rate=p["log"]),
        lambda p: (p["a"] * jnp.exp(-p["log"]), p["a"] * jnp.exp(-2 * p["log"])),
    ),
    "tfd.Exponential": (
        lambda p: tfd.Exponential(p["rate"]),
        lambda p: (1 / p["rate"], 1 / p["rate"] ** 2),
    ),
    "nd.Binomial": (
        lambda p: nd.Binomial(7, logits=p["log"]),
        lambda p: (
            7 * jax.nn.sigmoid(p["log"]),
            7 * jax.nn.sigmoid(p["log"]) * jax.nn.sigmoid(-p["log"]),
        ),
    ),
    "tfd.Geometric": (
        lambda p: tfd.Geometric(probs=p["probs"]),
        lambda p: (1 / p["probs"] - 1, (1 - p["probs"]) / p["probs"] ** 2),
    ),
    "nd.Geometric": (
        lambda p: nd.Geometric(logits=p["log"]),
        lambda p: (jnp.exp(-p["log"]), jnp.exp(-p["log"]) * (1 + jnp.exp(-p["log"]))),
    ),
    "tfd.NegativeBinomial": (
        lambda p: tfd.NegativeBinomial(3.0, logits=p["log"]),
        lambda p: (3 * jnp.exp(p["log"]), 3 * jnp.exp(p["log"]) * (1 + jnp.exp(p["log"]))),
    ),
    "nd.NegativeBinomial": (
        lambda p: nd.NegativeBinomialProbs(3, p["probs"]),
        lambda p: (3 * p["probs"] / (1 - p["probs"]), 3 * p["probs"] / (1 - p["probs"]) ** 2),
    ),
    "tfd.MultivariateNormalDiag": (
        lambda p: tfd.MultivariateNormalDiag(p["log"], p["a"]),
        lambda p: (p["log"], p["a"] ** 2),
    ),
    "nd.Normal": (
        lambda p: nd.Normal(p["mean"], p["mean"]).expand([2]),
        lambda p: (p["mean"] * jnp.ones(2), p["mean"] ** 2),
    ),
    "distrax.LogStddevNormal": (
        lambda p: distrax.LogStddevNormal(0.4, p["log"]),
        lambda p: (0.4 * jnp.ones(2), jnp.exp(2 * p["log"])),
    ),
    "tfd.Bernoulli": (
        lambda p: tfd.Bernoulli(probs=p["probs"]),
        lambda p: (p["probs"], p["probs"] * (1 - p["probs"])),
    ),
}
ORDERED = ("tfd.Poisson-log", "nd.Binomial", "tfd.Geometric", "nd.NegativeBinomial")


@pytest.mark.parametrize(
    ("name", "estimator"),
    [(name, sf.MeasureValued()) for name in OBJECTS if name != "nd.NegativeBinomial"]
    + [(name, sf.GO()) for name in ORDERED],
)
def test_the_gradient_flows_to_the_parameters_of_library_objects(name, estimator):
    build, mean_and_variance = OBJECTS[name]
    params = {
        "rate": jnp.array([1.4, 0.7]),
        "log": jnp.array([-0.3, 0.4]),
        "a": jnp.array([0.8, 1.9]),
        "probs": jnp.array([0.3, 0.6]),
        "mean": jnp.array(0.8),
    }

    def loss(params, key):
        f = lambda x: jnp.sum(x.astype(jnp.float32) ** 2) + x[0] * x[1]  # noqa: E731
        return sf.expectation(f, build(params), key, estimator)

    def expected(params):
        mean, variance = mean_and_variance(params)
        return jnp.sum(mean**2 + variance) + mean[0] * mean[1]

    slopes = QUICK(jax.grad(expected))(params)
    used = {
        k: v for k, v in params.items() if np.all(slopes[k] != 0)
    }  # a gradient of exactly 0 has no z-score
    scores = z_scores(
        lambda used, key: loss(params | used, key),
        lambda used: expected(params | used),
        used,
        1000 if "Gamma" in name else 3000,
    )
    scores = np.concatenate([np.ravel(s) for s in scores])
    assert len(scores) >= 1
    assert np.max(np.abs(scores)) < LIMIT


# ---------------------------------------------------------------------------- costs and contracts


def count_evaluations(estimator, build, params, num_samples, **options):
    calls = []

    def f(x):
        jax.debug.callback(lambda _: calls.append(1), x.reshape(-1)[0])
        return jnp.sum(x.astype(jnp.float32) ** 2)

    def loss(params, key):
        return sf.expectation(f, build(params), key, estimator, num_samples=num_samples, **options)

    jax.block_until_ready(jax.jit(jax.grad(loss))(params, jax.random.key(0)))
    jax.effects_barrier()
    return len(calls)


@pytest.mark.parametrize(
    ("estimator", "build", "shape", "per_factor"),
    [
        (sf.MeasureValued(), lambda p: distrax.Normal(p, jnp.exp(p)), (3,), 3),
        (sf.MeasureValued(), lambda p: sf.Bernoulli(p), (2, 2), 1),
        (sf.MeasureValued(), lambda p: sf.Categorical(p), (3, 4), 3),
        (sf.GO(), lambda p: sf.Categorical(p), (3, 4), 1),
        (sf.GO(chunk_size=2), lambda p: nd.Poisson(jnp.exp(p)), (5,), 1),
    ],
)
def test_evaluations_of_f(estimator, build, shape, per_factor):
    factors = {(3, 4): 3, (2, 2): 4}.get(shape, shape[0])
    calls = count_evaluations(estimator, build, jnp.zeros(shape), 2)
    assert calls == 2 * (1 + per_factor * factors)


def test_f_is_evaluated_no_more_where_it_has_parameters_of_its_own():
    calls = []

    def loss(params, key):
        def f(x):
            jax.debug.callback(lambda _: calls.append(1), x[0])
            return jnp.sum(jnp.tanh(params["w"] * x))

        return sf.expectation(f, distrax.Normal(params["loc"], 1.0), key, sf.MeasureValued())

    params = {"w": jnp.ones(3), "loc": jnp.zeros(3)}
    jax.block_until_ready(jax.jit(jax.grad(loss))(params, jax.random.key(0)))
    jax.effects_barrier()
    assert len(calls) == 1 + 3 * 3


def temporary_bytes(factors, chunk_size):
    mixing = jnp.linspace(-1, 1, 16)

    def loss(params, key):
        def f(x):
            return jnp.sum(jnp.sort(x)[:, None] * mixing)

        normal = distrax.Normal(params, 1.0)
        return sf.expectation(f, normal, key, sf.MeasureValued(chunk_size=chunk_size))

    compiled = jax.jit(jax.grad(loss)).lower(jnp.zeros(factors), jax.random.key(0)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_grows_with_the_factors_and_not_with_their_square():
    # Eight times the factors: eight times the memory in chunks, 64 times all at once.
    small, large = (temporary_bytes(factors, 4) for factors in (128, 1024))
    assert large < 10 * small
    assert large < temporary_bytes(1024, None) / 20


@X64
def test_chunks_change_nothing():
    def value_and_grad(estimator, **options):
        def loss(params, key):
            normal = distrax.Normal(params, jnp.exp(params))
            return sf.expectation(cost, normal, key, estimator, num_samples=3, **options)

        return QUICK(jax.value_and_grad(loss))(jnp.array([0.3, -0.4]), jax.random.key(1))

    whole = value_and_grad(sf.MeasureValued())
    parts = value_and_grad(sf.MeasureValued(chunk_size=4), chunk_size=2)
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-13)
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-12)


@X64
@BOTH
def test_f_is_differentiated_in_what_it_closes_over(estimator):
    params = {"logits": jnp.array([0.4, -0.9]), "w": jnp.array([1.5, -0.3])}

    def f(params):
        return lambda x: (x @ params["w"]) ** 2 + x[0] * jnp.sum(params["logits"] ** 3)

    check(
        lambda p, keys: estimator(f(p), sf.Bernoulli(p["logits"]), keys),
        lambda p: sf.Enumerate()(f(p), sf.Bernoulli(p["logits"]), jax.random.key(0)[None])[0],
        params,
        [middles([p, 1 - p]) for p in np.asarray(jax.nn.sigmoid(params["logits"]))],
    )


@X64
def test_costs_may_be_pytrees_with_aux():
    estimator = sf.MeasureValued()

    def f(x):
        return {"one": jnp.sum(x), "two": jnp.stack([x[0], x[1] * x[0]])}, {"x": x}

    def loss(logits, key):
        return sf.expectation(f, sf.Bernoulli(logits), key, estimator, num_samples=5, has_aux=True)

    logits, key = jnp.array([0.4, -0.9]), jax.random.key(3)
    value, aux = QUICK(loss)(logits, key)
    assert aux["x"].shape == (5, 2)
    jacobian, _ = QUICK(jax.jacrev(loss, has_aux=True))(logits, key)
    assert jacobian["two"].shape == (2, 2)
    np.testing.assert_allclose(value["one"], jnp.mean(jnp.sum(aux["x"], axis=1)), rtol=1e-15)
    picks = {0: jnp.sum, 1: lambda x: x[1] * x[0]}
    for pick, among in ((picks[0], jacobian["one"]), (picks[1], jacobian["two"][1])):
        alone = QUICK(
            jax.grad(
                lambda logits, pick=pick: sf.expectation(
                    pick, sf.Bernoulli(logits), key, estimator, num_samples=5
                )
            )
        )(logits)
        np.testing.assert_allclose(alone, among, rtol=1e-14)


def in_scan(loss):
    return lambda *args: jax.lax.scan(lambda c, _: (c + loss(*args), None), 0.0, length=2)[0]


WRAPS = {"plain": lambda loss: loss, "scan": in_scan, "checkpoint": jax.checkpoint}


@pytest.mark.parametrize(
    ("estimator", "wrap"),
    [
        (sf.MeasureValued(), "plain"),
        (sf.MeasureValued(), "scan"),
        (sf.MeasureValued(chunk_size=1), "checkpoint"),
        (sf.GO(), "plain"),
    ],
)
@pytest.mark.parametrize("outer", [jax.grad, jax.jacfwd])
@pytest.mark.parametrize("inner", [jax.grad, jax.jacfwd])
def test_a_second_derivative_raises(estimator, wrap, outer, inner):
    def loss(logit, weight):
        coin = sf.Bernoulli(logit)
        return sf.expectation(lambda b: weight**2 * b, coin, jax.random.key(0), estimator)

    loss = WRAPS[wrap](loss)
    # While tracing: nothing need be computed.
    for first, then in ((0, 0), (0, 1), (1, 0)):
        with pytest.raises(TypeError, match="first order only"):
            jax.eval_shape(outer(inner(loss, first), then), 0.3, 2.0)
    # In what f closes over alone it passes.
    jax.eval_shape(outer(inner(loss, 1), 1), 0.3, 2.0)


def test_a_second_derivative_in_what_f_closes_over_is_right():
    estimator = sf.MeasureValued()

    def loss(weight):
        coin = sf.Bernoulli(2.0)
        return sf.expectation(lambda b: weight**2 * b, coin, jax.random.key(0), estimator)

    assert loss(3.0) == 9.0
    assert jax.hessian(loss)(3.0) == 2.0


def test_the_value_of_an_infinite_cost_stays_and_its_derivative_shows():
    def loss(logit, key):
        return sf.expectation(
            lambda b: jnp.where(b > 0, jnp.inf, 1.0), sf.Bernoulli(logit), key, sf.MeasureValued()
        )

    seen = set()
    both = QUICK(jax.value_and_grad(loss))
    for seed in range(8):
        value, gradient = both(0.0, jax.random.key(seed))
        seen.add(float(value))
        assert not np.isfinite(gradient)
    assert seen == {1.0, math.inf}


@pytest.mark.parametrize("x64_on", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_dtypes_stay(x64_on, dtype):
    promotion = "strict" if dtype == jnp.float32 else "standard"
    with jax.enable_x64(x64_on), jax.numpy_dtype_promotion(promotion):
        loc, scale = jnp.zeros(2, dtype), jnp.ones(2, dtype)
        key = jax.random.key(0)

        def loss(loc, scale):
            f = lambda x: jnp.sum(x * x)  # noqa: E731
            return sf.expectation(f, distrax.Normal(loc, scale), key, sf.MeasureValued())

        value, gradients = jax.eval_shape(jax.value_and_grad(loss, (0, 1)), loc, scale)
        assert value.dtype == dtype
        assert all(g.dtype == dtype for g in gradients)


EXTREME = {
    "normal": (lambda p: distrax.Normal(p["loc"], p["scale"]), ["loc", "scale"]),
    "gamma": (lambda p: distrax.Gamma(p["scale"], 1.0), ["scale"]),
    "poisson": (lambda p: nd.Poisson(p["count"]), ["count"]),
    "bernoulli": (lambda p: sf.Bernoulli(p["loc"]), ["loc"]),
    "categorical": (lambda p: sf.Categorical(p["loc"] * jnp.array([[1.0], [-1.0]])), ["loc"]),
    "binomial": (lambda p: nd.BinomialLogits(p["loc"], 5), ["loc"]),
    "negative binomial": (lambda p: tfd.NegativeBinomial(3.0, logits=-p["mild"]), ["mild"]),
}


@pytest.mark.parametrize(
    ("name", "estimator"),
    [(name, sf.MeasureValued()) for name in EXTREME]
    + [(name, sf.GO()) for name in ("categorical", "negative binomial")],
)
def test_float32_is_finite_at_extreme_parameters(name, estimator):
    build, names = EXTREME[name]
    params = {
        "loc": jnp.array([-1e4, -90.0, -40.0, 0.0, 40.0, 90.0, 1e4]),
        "scale": jnp.array([1e-18, 1e-6, 1e-3, 1.0, 1e3, 1e4, 1e18]),
        "count": jnp.array([1e-30, 1e-6, 1e-3, 1.0, 1e3, 1e5]),
        "mild": jnp.array([-10.0, -3.0, 0.0, 20.0, 90.0, 1e4]),
    }
    if name == "gamma":  # beyond, the derivative in concentration is not known in float32
        params["scale"] = params["scale"].at[-1].set(1e4)

    def loss(used, key):
        f = lambda x: jnp.mean(jnp.tanh(x.astype(jnp.float32) / 3))  # noqa: E731
        return sf.expectation(f, build(params | used), key, estimator, num_samples=4)

    used = {name: params[name] for name in names}
    value, gradients = jax.jit(jax.value_and_grad(loss))(used, jax.random.key(2))
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(g)) for g in gradients.values())


@X64
def test_a_tiny_concentration_is_right():
    # log(x + 1e-3): in float64 most of the mass lies below it; by quadrature over the level.
    a = 0.02
    t = np.linspace(-40 / a, 4.5, 200_001)
    density = np.exp(a * t - np.exp(t) - scipy.special.gammaln(a))
    slope = np.trapezoid(density * (t - scipy.special.digamma(a)) * np.log(np.exp(t) + 1e-3), t)
    u, w = doubly_exponential(120)
    keys = noise_keys(np.stack([0 * u + 0.3, 0 * u + 0.5, 0 * u + 0.5, u], axis=1))

    def gradient(key):
        return jax.grad(
            lambda a: sf.MeasureValued()(
                lambda x: jnp.log(x + 1e-3), Gamma(a, jnp.array(1.0)), key[None]
            )[0]
        )(jnp.array(a))

    np.testing.assert_allclose(w @ QUICK(jax.vmap(gradient))(keys), slope, rtol=1e-6)


@BOTH
@pytest.mark.parametrize(
    "distribution",
    [
        nd.Beta(2.0, 3.0),
        sf.Distribution(
            lambda p, x: -((x - p) ** 2), lambda p, key: p + 0 * key[0], distrax.Normal(0.0, 1.0)
        ),
        distrax.MultivariateNormalFullCovariance(jnp.zeros(2), jnp.eye(2)),
        distrax.Transformed(distrax.Normal(0.0, 1.0), distrax.Tanh()),
    ],
)
def test_what_does_not_fit_raises(estimator, distribution):
    with pytest.raises(TypeError, match=r"needs independent factors of Bernoulli.*ScoreFunction"):
        sf.expectation(lambda x: jnp.sum(x), distribution, jax.random.key(0), estimator)


def test_go_refuses_continuous_factors():
    with pytest.raises(TypeError, match="Pathwise fits"):
        sf.expectation(jnp.sum, distrax.Normal(0.0, 1.0), jax.random.key(0), sf.GO())


@BOTH
@pytest.mark.parametrize("kind", [tfd.NegativeBinomial, tfd.Binomial])
def test_a_number_of_trials_has_no_derivative(estimator, kind):
    def loss(total, logit):
        return sf.expectation(
            lambda x: x**2, kind(total, logits=logit), jax.random.key(0), estimator
        )

    with pytest.raises(TypeError, match="total_count"):
        jax.eval_shape(jax.grad(loss), 5.0, 0.3)
    jax.eval_shape(jax.grad(loss, 1), 5.0, 0.3)


@pytest.mark.parametrize("kind", [sf.MeasureValued, sf.GO])
def test_chunk_size_is_checked(kind):
    with pytest.raises(ValueError, match="chunk_size must be at least 1"):
        kind(chunk_size=0)
    with pytest.raises(TypeError, match="chunk_size must be a static Python int"):
        kind(chunk_size=2.5)
