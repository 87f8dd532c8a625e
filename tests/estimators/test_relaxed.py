"""REBAR, RELAX, LAX and squared_gradient: exact means by quadrature over the noise they draw."""

import itertools
from dataclasses import replace
from functools import cache, partial

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as numpyro
import optax
import pytest
from support.exact import derivatives, hermite
from support.noise import noise_keys

import scorefn as sf

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

# These programs run once, so that the time is that of compiling.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# ------------------------------------------------------------------------ rules for the noise


def tanh_sinh(low, high, nodes, reach):
    """Nodes and weights on an interval, for integrands that are singular at its ends."""
    t = np.linspace(-reach, reach, nodes)
    s = np.pi / 2 * np.sinh(t)
    weights = (t[1] - t[0]) * np.pi / 4 * np.cosh(t) / np.cosh(s) ** 2
    return low + (high - low) / (1 + np.exp(-2 * s)), (high - low) * weights


def product(rules):
    """The product of one-dimensional rules, points [P, dimensions]."""
    points = np.array(list(itertools.product(*(points for points, _ in rules))))
    weights = np.prod(list(itertools.product(*(weights for _, weights in rules))), axis=1)
    return points, weights


def bits_rule(logits, nodes=60, reach=3.2):
    """The uniforms of logistic noise: a bit is 1 where its uniform lies below its probability."""
    rules = []
    for p in 1 / (1 + np.exp(-np.asarray(logits))):
        pieces = tanh_sinh(0, p, nodes, reach), tanh_sinh(p, 1, nodes, reach)
        rules.append([np.concatenate(parts) for parts in zip(*pieces, strict=True)])
    return product(rules)


def categories_rule(logits, nodes, reach=3.0):
    """The uniforms of Gumbel noise, in coordinates whose boundaries are those of the argmax.

    Given the category b, the noise is made of the largest z and of independent Gumbels that the
    others would have, were they not known to be smaller.
    """
    log_probs = np.asarray(logits) - np.log(np.exp(logits).sum())
    points, weights = product([tanh_sinh(0, 1, nodes, reach)] * len(logits))
    gumbel = -np.log(-np.log(np.clip(points, 1e-300, 1 - 1e-16)))
    uniforms = []
    for b in range(len(logits)):
        z = -np.logaddexp(-gumbel[:, b : b + 1], -(gumbel + log_probs))
        z[:, b] = gumbel[:, b]
        uniforms.append(np.exp(-np.exp(log_probs - z)))
    return np.concatenate(uniforms), np.concatenate([weights * np.exp(p) for p in log_probs])


@pytest.mark.parametrize("rule", [bits_rule((0.7, -1.1)), categories_rule((0.5, -0.7, 0.2), 30)])
def test_the_rules_integrate_over_independent_uniforms(rule):
    uniforms, weights = rule
    u, v = uniforms.T[:2]
    for integrand, exact in [(u**0, 1), (u**2, 1 / 3), (u * v, 1 / 4), (np.exp(u), np.e - 1)]:
        np.testing.assert_allclose(weights @ integrand, exact, rtol=0, atol=1e-11)


# -------------------------------------------------------------------------------- the problems


def between(params):
    """A cost of the first two of some numbers, smooth between 0 and 1, with two parameters."""

    def f(x):
        bend = jnp.sin(2 * x[0] * x[1] + x[1] + params["shift"])
        return jnp.exp(0.6 * x[0] - 0.8 * x[1]) + params["logits"][0] * bend

    return f


def on_index(params):
    """A cost of one category, which cannot be relaxed."""
    return lambda x: jnp.array([1.0, -2.0, 0.5])[x] * jnp.sin(params["shift"] + x)


KINDS = {
    "bits": (sf.Bernoulli, between),
    "one_hot": (sf.OneHotCategorical, between),
    "index": (sf.Categorical, on_index),
}


@cache
def rule(kind, logits):
    if kind == "bits":
        return bits_rule(logits)
    return categories_rule(logits, 70 if len(logits) == 2 else 30)


@partial(jit, static_argnames="kind")
def mean_derivatives(estimator, params, keys, weights, kind):
    """The exact mean of value, gradient and Hessian of one term."""
    distribution, f = KINDS[kind]

    def term(params, key):
        return estimator(f(params), distribution(params["logits"]), key[None])[0]

    each = jax.vmap(lambda key: derivatives(lambda params: term(params, key), params, 2))(keys)
    return [jnp.tensordot(weights, one, 1) for one in each]


@partial(jit, static_argnames="kind")
def exact_derivatives(params, kind):
    distribution, f = KINDS[kind]
    key = jax.random.split(jax.random.key(0), 1)
    return derivatives(
        lambda params: sf.Enumerate()(f(params), distribution(params["logits"]), key)[0], params, 2
    )


def check_exact(estimator, kind, logits, atol=1e-10):
    uniforms, weights = rule(kind, logits)
    params = {"logits": jnp.array(logits), "shift": jnp.array(0.4)}
    estimator = jax.tree.map(jnp.asarray, estimator)
    means = mean_derivatives(estimator, params, noise_keys(uniforms), weights, kind)
    for mean, exact in zip(means, exact_derivatives(params, kind), strict=True):
        np.testing.assert_allclose(mean, exact, rtol=0, atol=atol)


def sigmoid_surrogate(params, z):
    return params["scale"] * jnp.sum(jax.nn.sigmoid(params["slope"] * z)) + params["bias"]


def uneven_surrogate(params, z):
    """Far from any cost: no bias may come of that."""
    return params["scale"] * jnp.sin(z[..., 0]) * z[..., 1] + params["slope"] * jnp.tanh(z[..., 1])


PARAMS = {"scale": 1.3, "slope": 0.7, "bias": -0.4}
SURROGATES = [sigmoid_surrogate, uneven_surrogate]

# ------------------------------------------------------------------ unbiased, and at which order


@pytest.mark.parametrize("logits", [(0.7, -1.1), (0.0, 0.0)])
@pytest.mark.parametrize(
    ("temperature", "coefficient"), [(0.3, 1.0), (0.5, 0.0), (1.0, -2.0), (2.5, 0.4)]
)
def test_rebar_on_bits_is_unbiased_at_every_order(logits, temperature, coefficient):
    check_exact(sf.REBAR(temperature, coefficient), "bits", logits)


def test_rebar_on_a_bit_that_is_nearly_decided():
    check_exact(sf.REBAR(1.0, 1.3), "bits", (3.0, 0.0))


@pytest.mark.parametrize("temperature", [0.5, 2.5])
@pytest.mark.parametrize("logits", [(0.5, -0.7), (1.0, 1.0)])
def test_rebar_on_two_categories_is_unbiased_at_every_order(logits, temperature):
    check_exact(sf.REBAR(temperature, 1.3), "one_hot", logits)


@pytest.mark.parametrize("temperature", [2.0, 2.5])
def test_rebar_on_three_categories_is_unbiased_at_every_order(temperature):
    check_exact(sf.REBAR(temperature, 1.3), "one_hot", (0.5, -0.7, 0.2))


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize(
    ("kind", "logits"),
    [("bits", (0.7, -1.1)), ("bits", (0.0, 0.0)), ("one_hot", (0.5, -0.7)), ("index", (0.5, -0.7))],
)
def test_relax_is_unbiased_at_every_order(kind, logits, surrogate):
    check_exact(sf.RELAX(surrogate, PARAMS), kind, logits)


def test_relax_on_three_categories_by_their_index():
    check_exact(sf.RELAX(sigmoid_surrogate, PARAMS), "index", (0.5, -0.7, 0.2))


@pytest.mark.parametrize(
    ("distribution", "estimator"),
    [
        (sf.Bernoulli, sf.REBAR(0.7, 0.8)),
        (sf.OneHotCategorical, sf.RELAX(lambda p, z: p * jnp.sum(z) ** 2, 0.1)),
    ],
)
def test_many_factors_by_a_z_test(distribution, estimator):
    logits = jnp.array([[0.3, -0.6, 1.2], [0.0, -2.0, 0.1]])
    weights = jnp.linspace(-1.0, 2.0, 6).reshape(2, 3)

    def loss(logits, key, estimator=estimator):
        def f(x):
            return jnp.sum(weights * x) ** 2 + jnp.exp(0.3 * jnp.sum(x[0] * x[1]))

        return sf.expectation(f, distribution(logits), key, estimator)

    key = jax.random.key(0)
    exact = jit(jax.grad(lambda logits: loss(logits, key, sf.Enumerate())))(logits)
    # alpha is the probability that a right estimator fails.
    report = sf.check_unbiased(loss, logits, key, exact=exact, num_repeats=10_000, alpha=1e-10)
    assert report.passed, report


# -------------------------------------------------------- what the control variate must not touch


def test_the_value_is_f_of_the_hard_draw_to_the_last_bit():
    logits = jnp.array([0.3, -0.2, 1.0])

    def cost(x):
        return jnp.sum(x * jnp.array([0.1, 0.7, 1.9]))

    def value_and_mean(distribution, estimator):
        options = {"num_samples": 7, "has_aux": True}
        key = jax.random.key(0)
        value, draws = sf.expectation(
            lambda x: (cost(x), x), distribution, key, estimator, **options
        )
        return value, jnp.mean(jax.vmap(cost)(draws)), draws

    for distribution in (sf.Bernoulli(logits), sf.OneHotCategorical(logits)):
        for estimator in (sf.REBAR(0.3), sf.RELAX(sigmoid_surrogate, PARAMS)):
            value, mean, draws = jit(value_and_mean)(distribution, estimator)
            assert value == mean
            assert set(np.unique(draws)) == {0, 1}


def test_parameters_of_f_get_their_derivative_from_the_hard_draw_alone():
    keys, logits = jax.random.split(jax.random.key(3), 4), jnp.array([0.3, -0.2])

    def loss(shift, logits, estimator):
        f = between({"shift": shift, "logits": jnp.ones(2)})
        return jnp.sum(estimator(f, sf.Bernoulli(logits), keys))

    # z' equals z, so that only the mixed derivative can tell f(b) from what is relaxed.
    @jit
    def along_f(estimator):
        slope = jax.grad(loss)
        return slope(0.4, logits, estimator), jax.jacfwd(slope, 1)(0.4, logits, estimator)

    hard = along_f(sf.ScoreFunction(sf.ConstantBaseline()))
    for estimator in (sf.REBAR(0.3), sf.RELAX(sigmoid_surrogate, PARAMS)):
        for found, expected in zip(along_f(estimator), hard, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


def test_the_estimate_does_not_move_with_what_is_learned():
    logits = jnp.array([0.3, -0.2])

    def loss(estimator, key):
        params = {"shift": jnp.array(0.4), "logits": logits}
        return estimator(between(params), sf.Bernoulli(logits), key[None])[0]

    keys = jax.random.split(jax.random.key(0), 20)
    for estimator in (sf.REBAR(0.3, 1.2), sf.RELAX(sigmoid_surrogate, PARAMS)):
        slopes = jit(jax.vmap(jax.grad(loss), (None, 0)))(estimator, keys)
        for slope in jax.tree.leaves(slopes):
            # Exactly 0, but for what a compiler makes of a - a.
            np.testing.assert_allclose(slope, 0, atol=1e-15)


def test_relax_of_the_term_of_rebar_is_rebar():
    logits, key = jnp.array([0.3, -0.2]), jax.random.split(jax.random.key(3), 4)
    f = between({"shift": 0.4, "logits": jnp.ones(2)})

    def surrogate(params, z):
        return params["coefficient"] * f(jax.nn.sigmoid(z / params["temperature"]))

    def hessian(estimator):
        return derivatives(
            lambda logits: jnp.sum(estimator(f, sf.Bernoulli(logits), key)), logits, 2
        )

    relax = sf.RELAX(surrogate, {"temperature": 0.6, "coefficient": 1.2})
    ours, known = jit(lambda: (hessian(relax), hessian(sf.REBAR(0.6, 1.2))))()
    for a, b in zip(ours, known, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)


def test_relax_with_the_optimal_constant_leaves_one_bit_no_variance():
    logit = jnp.array([0.4])
    p = jax.nn.sigmoid(logit[0])
    estimator = sf.RELAX(lambda best, z: best + 0 * z[0], (1 - p) * 0.55**2 + p * 0.45**2)

    def gradient(key):
        return jax.grad(lambda x: estimator(toy, sf.Bernoulli(x), key[None])[0])(logit)

    gradients = jit(jax.vmap(gradient))(jax.random.split(jax.random.key(0), 100))
    np.testing.assert_allclose(gradients, p * (1 - p) * 0.1, rtol=0, atol=1e-15)


def toy(b):
    return jnp.sum((b - 0.45) ** 2)


# --------------------------------------------------------------------------------- LAX


def normal_problem(params):
    def f(x):
        return 0.5 * x**3 - 2 * x + params["mean"] * x**2 + params["shift"] * x

    return f, distrax.Normal(params["mean"], jnp.exp(params["log_scale"]))


NORMAL = {"mean": 0.8, "log_scale": -0.3, "shift": 0.5}


@pytest.mark.parametrize(
    "estimator",
    [
        sf.LAX(lambda p, x: p[0] * x**2 + p[1] * x, np.array([1.5, -2.0])),
        sf.LAX(lambda p, x: p * x**3, 0.4),
        sf.LAX(lambda p, x: 0 * p * x, 1.0),
    ],
    ids=["quadratic", "cubic", "none"],
)
def test_lax_is_unbiased_at_every_order(estimator):
    noise = hermite(9)
    params = jax.tree.map(jnp.asarray, NORMAL)

    def term(params, key):
        f, normal = normal_problem(params)
        return estimator(f, normal, key[None])[0]

    def expected(params):
        mean, variance = params["mean"], jnp.exp(2 * params["log_scale"])
        cube = mean**3 + 3 * mean * variance
        square = mean**2 + variance
        return 0.5 * cube - 2 * mean + mean * square + params["shift"] * mean

    each = jit(jax.vmap(lambda key: derivatives(lambda p: term(p, key), params, 2)))
    means = [jnp.tensordot(noise.weights, x, 1) for x in each(noise_keys(noise.points))]
    for mean, exact in zip(means, derivatives(expected, params, 2), strict=True):
        np.testing.assert_allclose(mean, exact, rtol=0, atol=1e-10)


def test_lax_runs_from_the_score_function_to_pathwise():
    params = jax.tree.map(jnp.asarray, NORMAL)
    keys = jax.random.split(jax.random.key(0), 3)

    def gradient(estimator):
        def loss(params):
            f, normal = normal_problem({**params, "shift": 0.5})
            return jnp.sum(estimator(f, normal, keys))

        return jit(jax.grad(loss))({k: params[k] for k in ("mean", "log_scale")})

    f, _ = normal_problem(jax.lax.stop_gradient(params))
    score = gradient(sf.ScoreFunction(sf.ConstantBaseline()))
    ends = [(lambda p, x: f(x) + 0 * p, gradient(sf.Pathwise())), (lambda p, x: 0 * p * x, score)]
    for surrogate, expected in ends:
        found = gradient(sf.LAX(surrogate, 1.0))
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-12)


def test_lax_takes_a_draw_that_is_a_pytree():
    def sample(params, key):
        a, b = jax.random.normal(key, (2,), params.dtype)
        return {"a": params[0] + a, "b": params[1] + b}

    def log_prob(params, x):
        return -((x["a"] - params[0]) ** 2 + (x["b"] - params[1]) ** 2) / 2

    def loss(params, key, estimator):
        joint = sf.Distribution(log_prob, sample, params)
        return sf.expectation(lambda x: jnp.sign(x["a"]) * x["b"], joint, key, estimator)

    estimator = sf.LAX(lambda p, x: p * jnp.tanh(x["a"]) * x["b"], 0.9)
    params = jnp.array([0.3, 0.5])
    normal = jax.scipy.stats.norm
    exact = jnp.array([2 * normal.pdf(0.3) * 0.5, 1 - 2 * normal.cdf(-0.3)])
    report = sf.check_unbiased(
        partial(loss, estimator=estimator),
        params,
        jax.random.key(0),
        exact=exact,
        num_repeats=10_000,
        alpha=1e-10,
    )
    assert report.passed, report


@pytest.mark.parametrize("blind", [True, False])
def test_lax_refuses_a_parameter_that_would_lose_its_derivative(blind):
    def sample(params, key):
        noise = jax.random.normal(key, dtype=params.dtype)
        return params + noise if blind else noise + (noise < params)

    def log_prob(params, x):
        return 0 * x if blind else -((x - params) ** 2)

    def loss(params):
        lost = sf.Distribution(log_prob, sample, params)
        return sf.expectation(lambda x: x, lost, jax.random.key(0), sf.LAX(lambda p, x: p * x, 1.0))

    assert np.isfinite(loss(jnp.array(0.3)))
    with pytest.raises(TypeError, match="LAX cannot differentiate"):
        jax.grad(loss)(jnp.array(0.3))


# ----------------------------------------------------------------------------- squared_gradient


def toy_loss(logits, key, estimator):
    return sf.expectation(toy, sf.Bernoulli(logits), key, estimator)


def variance(estimator, keys, weights):
    """The exact variance of the gradient on the one-bit toy, by quadrature."""
    gradients = jax.vmap(lambda key: jax.grad(toy_loss)(jnp.array([0.4]), key, estimator)[0])(keys)
    return weights @ gradients**2 - (weights @ gradients) ** 2


@pytest.mark.parametrize(
    "estimator", [sf.REBAR(0.7, 0.6), sf.RELAX(sigmoid_surrogate, PARAMS)], ids=["rebar", "relax"]
)
def test_squared_gradient_has_the_derivative_of_the_variance_as_its_mean(estimator):
    uniforms, weights = bits_rule((0.4,))
    keys = noise_keys(uniforms)
    estimator = jax.tree.map(jnp.asarray, estimator)

    def single(key):
        return jax.grad(sf.squared_gradient, argnums=3)(toy_loss, jnp.array([0.4]), key, estimator)

    slopes = jit(jax.vmap(single))(keys)
    mean = jax.tree.map(lambda slope: weights @ slope, slopes)
    exact = jit(jax.grad(variance))(estimator, keys, weights)
    for found, desired in zip(jax.tree.leaves(mean), jax.tree.leaves(exact), strict=True):
        assert abs(desired) > 1e-6
        np.testing.assert_allclose(found, desired, rtol=0, atol=1e-12)


def test_squared_gradient_is_the_second_moment():
    key, logits = jax.random.key(0), jnp.array([0.4, -0.3])
    estimator = sf.REBAR(0.7, 0.6)
    gradient = jit(jax.grad(toy_loss))(logits, key, estimator)
    found = jit(partial(sf.squared_gradient, toy_loss))(logits, key, estimator)
    np.testing.assert_allclose(found, jnp.sum(gradient**2), rtol=1e-14)


@pytest.mark.parametrize(
    "estimator",
    [sf.REBAR(0.5, 2.0), sf.RELAX(sigmoid_surrogate, {"scale": 0.0, "slope": 1.0, "bias": 0.0})],
    ids=["rebar", "relax"],
)
def test_learning_lowers_the_variance(estimator):
    uniforms, weights = bits_rule((0.4,))
    keys = noise_keys(uniforms)
    start = jax.tree.map(jnp.asarray, estimator)
    adam = optax.adam(0.02)

    @jit
    def train(estimator, key):
        def step(carry, key):
            estimator, state = carry
            keys = jax.random.split(key, 8)
            slope = jax.tree.map(
                lambda slopes: slopes.mean(0),
                jax.vmap(jax.grad(sf.squared_gradient, argnums=3), (None, None, 0, None))(
                    toy_loss, jnp.array([0.4]), keys, estimator
                ),
            )
            updates, state = adam.update(slope, state, estimator)
            return (optax.apply_updates(estimator, updates), state), None

        keys = jax.random.split(key, 400)
        (estimator, _), _ = jax.lax.scan(step, (estimator, adam.init(estimator)), keys)
        return estimator

    learned = train(start, jax.random.key(0))
    before, after = (jit(variance)(e, keys, weights) for e in (start, learned))
    assert after < before / 3


# ------------------------------------------------------------------- costs, shapes, transformations

ESTIMATORS = [sf.REBAR(0.5, 0.9), sf.RELAX(sigmoid_surrogate, PARAMS)]


@pytest.mark.parametrize(
    ("estimator", "count"),
    [(ESTIMATORS[0], 3), (ESTIMATORS[1], 1), (sf.LAX(lambda p, x: p * x, 1.0), 1)],
    ids=["rebar", "relax", "lax"],
)
def test_evaluations(estimator, count):
    calls = []

    def f(x):
        jax.debug.callback(lambda _: calls.append(1), jnp.sum(x))
        return jnp.sum(x) ** 2

    @jit
    def gradient(logits):
        lax = isinstance(estimator, sf.LAX)
        distribution = distrax.Normal(logits[0], 1.0) if lax else sf.Bernoulli(logits)
        return sf.expectation(f, distribution, jax.random.key(0), estimator, num_samples=5)

    gradient(jnp.zeros(2))
    jax.effects_barrier()
    assert len(calls) == 5 * count
    assert estimator.evaluations == str(count)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=["rebar", "relax"])
def test_pytrees_of_costs_and_aux(estimator):
    key, logits = jax.random.key(1), jnp.array([0.3, -0.2])

    def f(x):
        return {"one": x[0] * 2.0, "two": jnp.stack([x[0], x[0] * x[1] ** 3])}, {"draw": x}

    def loss(logits, f=f, **options):
        return sf.expectation(f, sf.Bernoulli(logits), key, estimator, num_samples=3, **options)

    cost, aux = jit(partial(loss, has_aux=True))(logits)
    assert aux["draw"].shape == (3, 2)
    assert set(np.unique(aux["draw"])) <= {0.0, 1.0}
    np.testing.assert_allclose(cost["two"][0], aux["draw"][:, 0].mean(), rtol=1e-15)
    together = jit(jax.jacrev(lambda logits: loss(logits, has_aux=True)[0]))(logits)
    alone = jit(jax.grad(lambda x: loss(x, lambda b: f(b)[0]["two"][1])))(logits)
    np.testing.assert_allclose(together["two"][1], alone, rtol=0, atol=1e-14)


@pytest.mark.parametrize("distribution", [sf.Bernoulli, sf.OneHotCategorical])
@pytest.mark.parametrize(
    ("precise", "dtype"), [(False, jnp.float32), (True, jnp.float32), (False, jnp.bfloat16)]
)
def test_dtypes_stay(precise, dtype, distribution):
    scale = np.array([1000.0, -1.0, 2.0])

    @jit
    def run(logits, estimator, key):
        def loss(logits, key, estimator):
            def f(x):
                return jnp.sum(jnp.asarray(scale, dtype) * x * x)

            return sf.expectation(f, distribution(logits), key, estimator, num_samples=4)

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
        for estimator in (sf.REBAR(0.1, 0.9), sf.RELAX(sharp, 1.3)):
            found = run(logits, estimator, jax.random.key(0))
            assert all(x.dtype == dtype for x in found[:3])
            assert found[0] >= 990
            for leaf in jax.tree.leaves(found):
                assert np.isfinite(np.asarray(leaf, float)).all()


def sharp(params, z):
    return jnp.asarray(params, z.dtype) * jnp.sum(jax.nn.sigmoid(10 * z))


def test_integer_draws_of_other_libraries_reach_f_as_floats():
    logits, key = jnp.array([0.3, -0.2]), jax.random.key(0)

    def f(x):
        assert x.dtype == logits.dtype
        return jnp.sum(x**2) + x[0] * x[1]

    def gradient(distribution, f=f, estimator=sf.REBAR(0.5)):  # noqa: B008
        return jit(
            jax.grad(lambda x: sf.expectation(f, distribution(x), key, estimator, num_samples=3))
        )(logits)

    ours = gradient(sf.Bernoulli)
    for library in (lambda x: distrax.Bernoulli(logits=x), lambda x: numpyro.Bernoulli(logits=x)):
        np.testing.assert_allclose(gradient(library), ours, rtol=0, atol=1e-14)

    # RELAX never relaxes the draw, and hands on what the library has.
    def integers(x):
        assert jnp.issubdtype(x.dtype, jnp.integer)
        return jnp.sum(x)

    relax = sf.RELAX(sigmoid_surrogate, PARAMS)
    assert gradient(lambda x: numpyro.Bernoulli(logits=x), integers, relax).shape == (2,)


def test_probabilities_and_independent_factors_of_other_libraries():
    probs, key = jnp.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]]), jax.random.key(0)

    def loss(probs, wrap):
        return sf.expectation(lambda x: jnp.sum(x[0] * x[1] ** 2), wrap(probs), key, sf.REBAR(0.5))

    def gradient(wrap):
        return jit(jax.grad(lambda probs: loss(probs, wrap)))(probs)

    ours = gradient(lambda p: sf.OneHotCategorical(jnp.log(p)))
    theirs = gradient(lambda p: distrax.Independent(distrax.OneHotCategorical(probs=p), 1))
    assert np.isfinite(theirs).all()
    # The libraries normalise the probabilities they are given: along the simplex all agree.
    along = jnp.array([1.0, -1.0, 0.0])
    np.testing.assert_allclose(ours @ along, theirs @ along, rtol=0, atol=1e-12)


def softmax_surrogate(params, z):
    return params["scale"] * jnp.sum(jax.nn.softmax(z) ** 2)


def test_a_category_that_is_impossible():
    logits, key = jnp.array([0.3, -jnp.inf, 0.5]), jax.random.key(0)
    for estimator in ESTIMATORS:
        if isinstance(estimator, sf.RELAX):
            estimator = replace(estimator, surrogate=softmax_surrogate)

        def loss(logits, estimator=estimator):
            f = sf.OneHotCategorical(logits)
            return sf.expectation(lambda x: x[0] - x[2] ** 2, f, key, estimator, num_samples=9)

        gradient = jit(jax.grad(loss))(logits)
        assert np.isfinite(gradient).all()
        assert gradient[1] == 0


# ------------------------------------------------------------------------------------- errors


def test_a_distribution_that_does_not_fit():
    key = jax.random.key(0)
    for distribution in (sf.Categorical(jnp.zeros(3)), distrax.Normal(0.0, 1.0)):
        with pytest.raises(TypeError, match=r"REBAR needs.*RELAX fits.*LAX.*ScoreFunction"):
            sf.expectation(lambda x: x, distribution, key, sf.REBAR())
    with pytest.raises(TypeError, match=r"RELAX needs independent bits or categories.*LAX fits"):
        sf.expectation(
            lambda x: x, distrax.Normal(0.0, 1.0), key, sf.RELAX(sigmoid_surrogate, PARAMS)
        )


def test_f_must_return_floats_where_it_is_differentiated():
    def f(x):
        return jnp.round(x[0]).astype(int)

    bits, key = sf.Bernoulli(jnp.zeros(2)), jax.random.key(0)
    with pytest.raises(TypeError, match="REBAR differentiates f, but f returned int"):
        sf.expectation(f, bits, key, sf.REBAR())
    sf.expectation(f, bits, key, sf.RELAX(sigmoid_surrogate, PARAMS))


def test_wrong_surrogates_and_temperatures():
    bits, key = sf.Bernoulli(jnp.zeros(2)), jax.random.key(0)
    with pytest.raises(ValueError, match=r"surrogate must return one number, got shape \(2,\)"):
        sf.expectation(jnp.sum, bits, key, sf.RELAX(lambda p, z: p * z, 1.0))
    with pytest.raises(TypeError, match="surrogate must return a scalar float, got bool"):
        sf.expectation(jnp.sum, bits, key, sf.RELAX(lambda p, z: jnp.sum(z) > p, 1.0))
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        sf.REBAR(temperature=0.0)


def test_equal_values_never_retrace():
    traces = []

    @jit
    def loss(logits, estimator):
        traces.append(1)
        return sf.expectation(jnp.sum, sf.Bernoulli(logits), jax.random.key(0), estimator)

    for temperature in (0.3, 0.4):
        for estimator in (sf.REBAR(temperature), sf.RELAX(sigmoid_surrogate, PARAMS)):
            loss(jnp.zeros(2), estimator)
    assert len(traces) == 2
