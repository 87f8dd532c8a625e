"""DoubleCV and RODEO: exact means by enumeration of all draws that there are."""

import itertools
from functools import partial

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as numpyro
import optax
import pytest
from support.exact import derivatives
from support.noise import noise_keys

import scorefn as sf

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

# These programs run once, so that the time is that of compiling.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

LOGITS = [(0.7, -1.1), (0.0, 0.0), (3.0, -0.2)]


def linear(params, value, slope):
    """The surrogate that knows a linear f."""
    return params[0] * (value + slope), params[1] * slope


def bent(params, value, slope):
    """Far from any f: no bias may come of that."""
    return jnp.sin(params[0] * slope) * value, jnp.exp(params[1] * slope) - params[0] * value**2


ESTIMATORS = {
    "double_cv": sf.DoubleCV(0.8),
    "double_cv_wrong": sf.DoubleCV(-3.0),
    "rodeo": sf.RODEO(linear, np.array([1.1, 0.6]), 0.8, 0.9),
    "rodeo_wrong": sf.RODEO(bent, np.array([0.7, -0.4]), -1.3, 2.2),
}
ESTIMATOR = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
TWO = pytest.mark.parametrize(
    "estimator", [ESTIMATORS["double_cv"], ESTIMATORS["rodeo_wrong"]], ids=["double_cv", "rodeo"]
)


def tuples(logits, samples):
    """The noise of every tuple of draws, [tuples, samples, bits], and its probability."""
    p = 1 / (1 + np.exp(-np.asarray(logits)))
    rows = np.array(list(itertools.product([0, 1], repeat=samples * len(p))))
    bits = rows.reshape(-1, samples, len(p))
    weights = np.prod(np.where(bits, p, 1 - p), axis=(1, 2))
    return np.where(bits, p / 2, (1 + p) / 2), weights


def cost(params):
    """A cost with two parameters, one of which is also the distribution's."""

    def f(x):
        bend = jnp.sin(2 * x[0] * x[-1] + x[-1] + params["shift"])
        return jnp.exp(0.6 * x[0] - 0.8 * x[-1] * x[0]) + params["logits"][0] * bend

    return f


@jit
def mean_derivatives(estimator, params, keys, weights):
    """The exact mean of value, gradient and Hessian of one call, keys [tuples, samples]."""

    def call(params, keys):
        return jnp.mean(estimator(cost(params), sf.Bernoulli(params["logits"]), keys))

    each = jax.vmap(lambda keys: derivatives(lambda params: call(params, keys), params, 2))(keys)
    return [jnp.tensordot(weights, one, 1) for one in each]


@jit
def exact_derivatives(params):
    key = jax.random.split(jax.random.key(0), 1)
    return derivatives(
        lambda params: sf.Enumerate()(cost(params), sf.Bernoulli(params["logits"]), key)[0],
        params,
        2,
    )


def check_exact(estimator, logits, samples):
    uniforms, weights = tuples(logits, samples)
    params = {"logits": jnp.array(logits), "shift": jnp.array(0.4)}
    estimator = jax.tree.map(jnp.asarray, estimator)
    means = mean_derivatives(estimator, params, noise_keys(uniforms), weights)
    for mean, exact in zip(means, exact_derivatives(params), strict=True):
        np.testing.assert_allclose(mean, exact, rtol=0, atol=1e-12)


# ------------------------------------------------------------------ unbiased, and at which order


@ESTIMATOR
@pytest.mark.parametrize("logits", LOGITS)
@pytest.mark.parametrize("samples", [2, 3])
def test_all_tuples_of_two_bits_have_the_exact_mean_at_every_order(estimator, logits, samples):
    check_exact(estimator, logits, samples)


@ESTIMATOR
def test_all_tuples_of_other_sizes(estimator):
    check_exact(estimator, (0.7,), 4)
    check_exact(estimator, (0.4, -0.3, 1.0), 2)


def one_call(f, estimator, logits, uniforms):
    """Value and gradient of one call on given noise, [samples, bits]."""

    def call(logits):
        return jnp.mean(estimator(f, sf.Bernoulli(logits), noise_keys(uniforms)))

    return jit(jax.value_and_grad(call))(jnp.asarray(logits))


@pytest.mark.parametrize("samples", [2, 3])
def test_the_gradient_of_double_cv_is_its_formula(samples):
    logits, f = np.array([0.7, -1.1, 0.2]), cost({"shift": 0.4, "logits": np.ones(3)})
    uniforms = np.random.default_rng(0).uniform(size=(samples, 3))
    p = 1 / (1 + np.exp(-logits))
    b = (uniforms < p).astype(float)
    costs, slopes = (np.asarray(jax.vmap(fn)(b)) for fn in (f, jax.grad(f)))
    g = (slopes.sum(0) - slopes) / (samples - 1)
    r = costs - 0.8 * np.sum(g * (b - p), 1)
    advantage = (r - r.mean()) * samples / (samples - 1)
    expected = np.mean(advantage[:, None] * (b - p), 0) + 0.8 * slopes.mean(0) * p * (1 - p)
    value, gradient = one_call(f, sf.DoubleCV(0.8), logits, uniforms)
    np.testing.assert_allclose(value, costs.mean(), rtol=1e-15)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("samples", [2, 3])
def test_the_gradient_of_rodeo_is_its_formula(samples):
    logits, f = np.array([0.7, -1.1, 0.2]), cost({"shift": 0.4, "logits": np.ones(3)})
    uniforms = np.random.default_rng(0).uniform(size=(samples, 3))
    p = 1 / (1 + np.exp(-logits))
    b = (uniforms < p).astype(float)
    costs, slopes = (np.asarray(jax.vmap(fn)(b)) for fn in (f, jax.grad(f)))
    params = (0.7, -0.4)

    def stein(h, x):
        flips = [np.where(np.arange(3) == i, 1 - x, x) for i in range(3)]
        rates = np.where(x > 0, 1 - p, p)
        return sum(rate * (h(flip) - h(x)) for rate, flip in zip(rates, flips, strict=True))

    def of_others(k):
        others = [j for j in range(samples) if j != k]
        value = costs[others].mean()

        def surrogate(x):
            slope = np.mean([slopes[j] @ (x - b[j]) for j in others])
            return [float(y) for y in bent(params, value, slope)]

        return surrogate

    plain = [stein(lambda x, k=k: of_others(k)(x)[0], b[k]) for k in range(samples)]
    score = [stein(lambda x, k=k: of_others(k)(x)[1] * (x - p), b[k]) for k in range(samples)]
    rows = []
    for k in range(samples):
        others = [j for j in range(samples) if j != k]
        baseline = np.mean([costs[j] - 1.3 * plain[j] for j in others])
        rows.append((costs[k] - baseline) * (b[k] - p) + 2.2 * score[k])
    estimator = sf.RODEO(bent, np.array(params), -1.3, 2.2)
    value, gradient = one_call(f, estimator, logits, uniforms)
    np.testing.assert_allclose(value, costs.mean(), rtol=1e-15)
    np.testing.assert_allclose(gradient, np.mean(rows, 0), rtol=0, atol=1e-13)


# ------------------------------------------------------------------------------------ variance


def variance(estimator, logits, f, samples=2):
    """The exact variance of the gradient, summed over the bits, by enumeration."""
    uniforms, weights = tuples(logits, samples)

    def gradient(keys):
        def call(logits):
            return jnp.mean(estimator(f, sf.Bernoulli(logits), keys))

        return jax.grad(call)(jnp.asarray(logits))

    gradients = jax.vmap(gradient)(noise_keys(uniforms))
    return jnp.sum(weights @ gradients**2 - (weights @ gradients) ** 2)


def test_a_coefficient_of_zero_is_leave_one_out():
    f, logits = cost({"shift": 0.4, "logits": np.ones(3)}), jnp.array([0.7, -1.1, 0.2])
    keys = jax.random.split(jax.random.key(0), 3)

    def hessian(estimator):
        return derivatives(
            lambda logits: jnp.sum(estimator(f, sf.Bernoulli(logits), keys)), logits, 2
        )

    known = jit(lambda: hessian(sf.ScoreFunction()))()
    for estimator in (sf.DoubleCV(0.0), sf.RODEO(bent, np.array([0.7, -0.4]), 0.0, 0.0)):
        for found, expected in zip(jit(partial(hessian, estimator))(), known, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_double_cv_leaves_a_linear_cost_no_variance():
    def f(b):
        return b @ jnp.array([1.0, -2.0, 0.5]) + 3

    logits = (0.7, -1.1, 0.2)
    assert variance(sf.ScoreFunction(), logits, f) > 0.5
    np.testing.assert_allclose(variance(sf.DoubleCV(1.0), logits, f), 0, rtol=0, atol=1e-14)


def test_rodeo_knows_the_baseline_of_a_linear_cost():
    # With alpha = 1 it is E f, so that what is left is the variance of (f - E f) times the score.
    slope, logits = np.array([1.0, -2.0, 0.5]), np.array([0.7, -1.1, 0.2])
    p = 1 / (1 + np.exp(-logits))
    rows = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    weights = np.prod(np.where(rows, p, 1 - p), axis=1)
    gradients = ((rows - p) @ slope)[:, None] * (rows - p)
    expected = np.sum(weights @ gradients**2 - (weights @ gradients) ** 2) / 2
    estimator = sf.RODEO(linear, np.array([1.0, 0.0]), 1.0, 0.0)
    found = variance(estimator, logits, lambda b: b @ jnp.asarray(slope) + 3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def toy(b):
    return jnp.exp(b @ jnp.array([0.3, -0.5, 0.4]))


@pytest.mark.parametrize(
    "estimator",
    [sf.DoubleCV(0.0), sf.RODEO(linear, np.array([0.1, 0.1]), 0.1, 0.1)],
    ids=["double_cv", "rodeo"],
)
def test_learning_lowers_the_variance(estimator):
    logits = jnp.array([0.4, -0.8, 0.1])
    adam = optax.adam(0.02)

    def loss(logits, key, estimator):
        return sf.expectation(toy, sf.Bernoulli(logits), key, estimator, num_samples=2)

    @jax.jit
    def train(estimator, key):
        def step(carry, key):
            estimator, state = carry
            slope = jax.grad(sf.squared_gradient, argnums=3)(loss, logits, key, estimator)
            updates, state = adam.update(slope, state, estimator)
            return (optax.apply_updates(estimator, updates), state), None

        keys = jax.random.split(key, 1500)
        (estimator, _), _ = jax.lax.scan(step, (estimator, adam.init(estimator)), keys)
        return estimator

    start = jax.tree.map(jnp.asarray, estimator)
    learned = train(start, jax.random.key(0))
    of = jit(lambda estimator: variance(estimator, logits, toy))
    before, after = of(start), of(learned)
    assert after < before / 2
    assert after < variance(sf.ScoreFunction(), logits, toy) / 2


@TWO
def test_squared_gradient_has_the_derivative_of_the_variance_as_its_mean(estimator):
    logits = (0.7, -1.1)
    uniforms, weights = tuples(logits, 2)
    estimator = jax.tree.map(jnp.asarray, estimator)
    f = cost({"shift": 0.4, "logits": np.ones(2)})

    def loss(logits, keys, estimator):
        return jnp.mean(estimator(f, sf.Bernoulli(logits), keys))

    def single(keys):
        return jax.grad(sf.squared_gradient, argnums=3)(loss, jnp.array(logits), keys, estimator)

    slopes = jit(jax.vmap(single))(noise_keys(uniforms))
    exact = jit(jax.grad(lambda estimator: variance(estimator, logits, f)))(estimator)
    for found, desired in zip(jax.tree.leaves(slopes), jax.tree.leaves(exact), strict=True):
        assert np.all(np.abs(desired) > 1e-6)
        np.testing.assert_allclose(weights @ found, desired, rtol=0, atol=1e-10)


# ------------------------------------------------------- what the control variates must not touch


@TWO
def test_the_value_is_plain_and_moves_with_nothing_that_is_learned(estimator):
    logits, keys = jnp.array([0.3, -0.2, 1.0]), jax.random.split(jax.random.key(0), 4)

    def loss(shift, estimator):
        f = cost({"shift": shift, "logits": np.ones(3)})
        return jnp.sum(estimator(f, sf.Bernoulli(logits), keys))

    both = jit(jax.value_and_grad(loss, argnums=(0, 1)))
    value, (along_f, learned) = both(0.4, jax.tree.map(jnp.asarray, estimator))
    plain, along_plain = jit(jax.value_and_grad(loss))(0.4, sf.ScoreFunction())
    assert value == plain
    assert along_f == along_plain
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(learned))


# ------------------------------------------------------------------- costs, shapes, transformations


@TWO
def test_evaluations(estimator):
    calls = []

    def f(x):
        jax.debug.callback(lambda _: calls.append(1), jnp.sum(x))
        return jnp.sum(x) ** 2

    @jax.jit
    def gradient(logits):
        def loss(logits):
            bits = sf.Bernoulli(logits)
            return sf.expectation(f, bits, jax.random.key(0), estimator, num_samples=5)

        return jax.grad(loss)(logits)

    gradient(jnp.zeros(2))
    jax.effects_barrier()
    assert len(calls) == 5


@TWO
def test_pytrees_of_costs_and_aux(estimator):
    key, logits = jax.random.key(1), jnp.array([0.3, -0.2])

    def f(x):
        small = (x[0] * 2.0).astype(jnp.float32)
        return {"one": small, "two": jnp.stack([x[0], x[0] * x[1] ** 3])[None]}, {"draw": x}

    def loss(logits, f=f, **options):
        return sf.expectation(f, sf.Bernoulli(logits), key, estimator, num_samples=3, **options)

    cost, aux = jit(partial(loss, has_aux=True))(logits)
    assert cost["one"].dtype == jnp.float32
    assert aux["draw"].shape == (3, 2)
    np.testing.assert_allclose(cost["two"][0, 0], aux["draw"][:, 0].mean(), rtol=1e-15)
    together = jit(jax.jacrev(lambda logits: loss(logits, has_aux=True)[0]))(logits)
    alone = jit(jax.grad(lambda x: loss(x, lambda b: f(b)[0]["two"][0, 1])))(logits)
    np.testing.assert_allclose(together["two"][0, 1], alone, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("precise", "dtype"), [(False, jnp.float32), (True, jnp.float32), (False, jnp.bfloat16)]
)
def test_dtypes_stay(precise, dtype):
    scale = np.array([1000.0, -1.0, 2.0])

    @jit
    def run(logits, estimator, key):
        def loss(logits, key, estimator):
            def f(x):
                return jnp.sum(jnp.asarray(scale, dtype) * x * x)

            return sf.expectation(f, sf.Bernoulli(logits), key, estimator, num_samples=4)

        _, gradient, hessian = derivatives(partial(loss, key=key, estimator=estimator), logits, 2)
        slope = jax.grad(sf.squared_gradient, argnums=3)(loss, logits, key, estimator)
        return loss(logits, key, estimator), gradient, hessian, slope

    promotion = "strict" if dtype == jnp.float32 else "standard"
    with (
        jax.enable_x64(precise),
        jax.numpy_dtype_promotion(promotion),
        jax.numpy_rank_promotion("raise"),
    ):
        logits = jnp.array([30.0, -30.0, 0.0], dtype)
        for estimator in (sf.DoubleCV(0.8), sf.RODEO(plain_floats, None, 0.9, 1.1)):
            found = run(logits, estimator, jax.random.key(0))
            assert all(x.dtype == dtype for x in found[:3])
            assert found[0] >= 990
            for leaf in jax.tree.leaves(found):
                assert np.isfinite(np.asarray(leaf, float)).all()


def plain_floats(params, value, slope):
    del params
    return value + slope, 0.5 * slope


def test_integer_draws_of_other_libraries_reach_f_as_floats():
    logits, key = jnp.array([0.3, -0.2]), jax.random.key(0)

    def f(x):
        assert x.dtype == logits.dtype
        return jnp.sum(x**2) + x[0] * x[1]

    def gradient(distribution):
        def loss(logits):
            return sf.expectation(f, distribution(logits), key, sf.DoubleCV(), num_samples=3)

        return jit(jax.grad(loss))(logits)

    ours = gradient(sf.Bernoulli)
    for library in (lambda x: distrax.Bernoulli(logits=x), lambda x: numpyro.Bernoulli(logits=x)):
        np.testing.assert_allclose(gradient(library), ours, rtol=0, atol=1e-14)


# ------------------------------------------------------------------------------------- errors


@TWO
def test_arguments_that_do_not_fit(estimator):
    key, bits = jax.random.key(0), sf.Bernoulli(jnp.zeros(2))
    name = type(estimator).__name__
    with pytest.raises(ValueError, match=f"at least 2 with {name}.*got 1"):
        sf.expectation(jnp.sum, bits, key, estimator)
    for distribution in (sf.OneHotCategorical(jnp.zeros(3)), distrax.Normal(0.0, 1.0)):
        with pytest.raises(TypeError, match=f"{name} needs independent bits.*REBAR.*ScoreFunction"):
            sf.expectation(jnp.sum, distribution, key, estimator, num_samples=2)
    with pytest.raises(TypeError, match=f"{name} differentiates f, but f returned int"):
        sf.expectation(lambda x: jnp.sum(x).astype(int), bits, key, estimator, num_samples=2)


@pytest.mark.parametrize(
    ("surrogate", "error"),
    [
        (lambda p, value, slope: p * (value + slope), TypeError),
        (lambda p, value, slope: (p * value > slope, slope), TypeError),
        (lambda p, value, slope: (p * value, slope * jnp.ones(2)), ValueError),
    ],
)
def test_surrogates_of_rodeo_that_do_not_fit(surrogate, error):
    bits, key = sf.Bernoulli(jnp.zeros(2)), jax.random.key(0)
    with pytest.raises(error, match="surrogate must return two"):
        sf.expectation(jnp.sum, bits, key, sf.RODEO(surrogate, 1.0), num_samples=2)
