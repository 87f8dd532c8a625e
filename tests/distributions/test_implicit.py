"""Implicit reparameterisation: exact derivatives, mixtures, and the samplers of libraries."""

from functools import partial

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as nd
import pytest
import scipy.stats
from support.noise import noise_keys
from tensorflow_probability.substrates import jax as tfp

import scorefn as sf
from scorefn.distributions import _implicit

tfd = tfp.distributions
# TFP asks for float64 in some of its samplers, in float32 as well.
pytestmark = pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")
X64 = pytest.mark.usefixtures("x64")
QUICK = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


# ------------------------------------------------------- a distribution function that is inverted


def weibull_cdf(params, x):
    return -jnp.expm1(-((x / params["scale"]) ** params["shape"]))


def weibull_log_prob(params, x):
    shape, z = params["shape"], x / params["scale"]
    return jnp.log(shape / params["scale"]) + (shape - 1) * jnp.log(z) - z**shape


def weibull_quantile(params, noise):
    return params["scale"] * noise ** (1 / params["shape"])


def weibull_draw(params, noise):
    x = weibull_quantile(params, noise)
    return sf.implicit_reparameterization(weibull_cdf, weibull_log_prob, params, x)


WEIBULL = {"shape": jnp.array(1.7), "scale": jnp.array(0.6)}
NOISE = jnp.array([0.05, 0.4, 1.1, 3.0])


def nested(fn, modes):
    for mode in modes:
        fn = mode(fn)
    return fn


def in_scan(fn):
    def scanned(params):
        return jax.lax.scan(lambda c, _: (c + fn(params), None), jnp.zeros(4), length=1)[0]

    return scanned


@X64
@pytest.mark.parametrize("wrap", [lambda fn: fn, in_scan], ids=["plain", "scan"])
@pytest.mark.parametrize(
    "modes",
    [
        [jax.jacrev],
        [jax.jacfwd],
        [jax.jacrev, jax.jacfwd],
        [jax.jacfwd, jax.jacrev],
        [jax.jacrev, jax.jacrev],
        [jax.jacfwd] * 3,
    ],
    ids=["r", "f", "rf", "fr", "rr", "fff"],
)
def test_every_derivative_is_that_of_the_quantile_function(wrap, modes):
    params = jax.tree.map(lambda p: p.astype(jnp.float64), WEIBULL)
    noise = NOISE.astype(jnp.float64)
    actual = QUICK(nested(wrap(lambda p: weibull_draw(p, noise)), modes))(params)
    exact = QUICK(nested(lambda p: weibull_quantile(p, noise), modes))(params)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@X64
def test_a_value_taken_beside_an_inner_gradient_keeps_its_derivative():
    # What a scan has differentiated once must still be differentiable along the other parameter.
    def inner(scale, shape):
        def loss(shape):
            draw = weibull_draw({"shape": shape, "scale": scale}, jnp.array(0.4))
            return jax.lax.scan(lambda c, _: (c + draw**2, None), 0.0, length=2)[0]

        value, gradient = jax.value_and_grad(loss)(shape)
        return value + gradient

    def exact(scale, shape):
        def loss(shape):
            return 2 * weibull_quantile({"shape": shape, "scale": scale}, 0.4) ** 2

        value, gradient = jax.value_and_grad(loss)(shape)
        return value + gradient

    for argnum in (0, 1):
        np.testing.assert_allclose(
            jax.grad(inner, argnum)(0.6, 1.7), jax.grad(exact, argnum)(0.6, 1.7), rtol=1e-10
        )


def test_the_value_is_the_draw_bit_for_bit_and_nothing_passes_through_it():
    noise = jax.random.exponential(jax.random.key(0), (1000,))
    x = weibull_quantile(WEIBULL, noise)
    assert np.array_equal(weibull_draw(WEIBULL, noise), x)
    # A sampler that is differentiable itself does not count twice.
    gradient = jax.grad(lambda p: weibull_draw(p, noise)[0])(WEIBULL)
    exact = jax.grad(lambda p: weibull_quantile(p, noise)[0])(WEIBULL)
    for name in gradient:
        np.testing.assert_allclose(gradient[name], exact[name], rtol=1e-5)


@X64
def test_parameters_may_be_closed_over_under_vmap_and_jit():
    noise = NOISE.astype(jnp.float64)

    def draw(shape, scale):
        params = {"shape": shape, "scale": scale}
        return sf.implicit_reparameterization(
            lambda _, x: weibull_cdf(params, x),
            lambda _, x: weibull_log_prob(params, x),
            None,
            weibull_quantile(params, noise),
        )

    shapes = jnp.array([0.8, 1.7, 3.0])
    scales = jnp.array([0.6, 1.1, 2.0])
    actual = jax.jit(jax.vmap(jax.jacrev(draw, (0, 1))))(shapes, scales)
    exact = jax.vmap(
        jax.jacrev(lambda k, s: weibull_quantile({"shape": k, "scale": s}, noise), (0, 1))
    )(shapes, scales)
    for a, b in zip(actual, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_other_leaves_of_params_are_left_alone():
    params = {"rate": 2.0, "integer": jnp.arange(3), "key": jax.random.key(0)}

    def draw(rate):
        return sf.implicit_reparameterization(
            lambda p, x: -jnp.expm1(-p["rate"] * x),
            lambda p, x: jnp.log(p["rate"]) - p["rate"] * x,
            params | {"rate": rate},
            jnp.array(3.0),
        )

    # The derivative of expm1 is made of expm1 + 1, which cancels here: e^-6 in float32.
    np.testing.assert_allclose(jax.grad(draw)(2.0), -1.5, rtol=1e-4, atol=0)


@X64
def test_pathwise_accepts_a_rejection_sampler_with_its_distribution_function():
    # A Normal cut to (-1, 2), drawn by rejection: a loop that has no derivative of its own.
    def log_prob(loc, x):
        inside = jax.scipy.stats.norm.cdf(2.0 - loc) - jax.scipy.stats.norm.cdf(-1.0 - loc)
        return jax.scipy.stats.norm.logpdf(x - loc) - jnp.log(inside)

    def cdf(loc, x):
        ndtr = jax.scipy.stats.norm.cdf
        return (ndtr(x - loc) - ndtr(-1.0 - loc)) / (ndtr(2.0 - loc) - ndtr(-1.0 - loc))

    def sample(loc, key):
        def propose(state):
            key, _ = state
            key, this = jax.random.split(key)
            return key, loc + jax.random.normal(this, dtype=loc.dtype)

        outside = lambda state: (state[1] < -1) | (state[1] > 2)  # noqa: E731
        _, x = jax.lax.while_loop(outside, propose, (key, jnp.full_like(loc, 9.0)))
        return sf.implicit_reparameterization(cdf, log_prob, loc, x)

    def loss(loc, key):
        return sf.expectation(jnp.sin, sf.Distribution(log_prob, sample, loc), key, sf.Pathwise())

    def exact(loc):
        x, w = np.polynomial.legendre.leggauss(60)
        x, w = 0.5 + 1.5 * x, 1.5 * w
        return jnp.dot(w, jnp.exp(jax.vmap(log_prob, (None, 0))(loc, x)) * jnp.sin(x))

    check_mean(loss, exact, jnp.array(0.7), 4000)


@pytest.mark.parametrize("bad", ["cdf", "log_prob"])
def test_functions_of_another_shape_raise(bad):
    functions = {"cdf": lambda p, x: p * x, "log_prob": lambda p, x: p * x}
    functions[bad] = lambda p, x: jnp.sum(p * x)
    with pytest.raises(ValueError, match=rf"{bad} must be of the shape of x, \(3,\)"):
        sf.implicit_reparameterization(functions["cdf"], functions["log_prob"], 1.0, jnp.ones(3))


def test_discrete_draws_raise():
    with pytest.raises(TypeError, match="continuous draws"):
        sf.implicit_reparameterization(weibull_cdf, weibull_log_prob, WEIBULL, jnp.arange(3))


# --------------------------------------------------------------------------- mixtures of Normals

MIXTURE = {
    "logits": jnp.array([0.4, -0.3, 0.1]),
    "loc": jnp.array([-1.2, 0.3, 2.0]),
    "scale": jnp.array([0.5, 1.1, 0.7]),
}


def quartic(x):
    return 0.1 * x**4 - x**2 + x


def quartic_mean(params):
    """E of quartic under the mixture, component by component."""
    m, v = params["loc"], params["scale"] ** 2
    second = m**2 + v
    fourth = m**4 + 6 * m**2 * v + 3 * v**2
    weights = jax.nn.softmax(params["logits"])
    return jnp.sum(weights * (0.1 * fourth - second + m), axis=-1)


@X64
def test_mixture_gradients_are_right_to_second_order_by_quadrature():
    params = jax.tree.map(lambda p: p.astype(jnp.float64), MIXTURE)
    # One key for each component and each node: Gumbel noise that picks it, then a Normal's.
    z, w = np.polynomial.legendre.leggauss(600)
    z, w = 8 * z, 8 * w * scipy.stats.norm.pdf(8 * z)
    probs = np.asarray(jax.nn.softmax(params["logits"]))
    rows = 1e-9 + (1 - 2e-9) * np.eye(3)
    nodes, weights = [], []
    for c in range(3):
        rest = [scipy.stats.norm.cdf(z), 0.5 + 0 * z, 0.5 + 0 * z]
        nodes.append(np.stack([*(np.full_like(z, u) for u in rows[c]), *rest], axis=1))
        weights.append(probs[c] * w)
    keys, weights = noise_keys(np.concatenate(nodes)), np.concatenate(weights)
    estimator = sf.Pathwise()

    def mean(params):
        mixture = sf.NormalMixture(**params)
        terms = jax.vmap(lambda key: estimator(quartic, mixture, key[None])[0])(keys)
        return jnp.dot(weights, terms)

    for order in (jax.grad, jax.hessian):
        actual, exact = QUICK(order(mean))(params), QUICK(order(quartic_mean))(params)
        for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(exact), strict=True):
            assert np.max(np.abs(b)) > 1e-3
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


def test_the_mixture_has_the_density_of_distrax():
    mixture = sf.NormalMixture(**MIXTURE)
    other = distrax.MixtureSameFamily(
        distrax.Categorical(logits=MIXTURE["logits"]),
        distrax.Normal(MIXTURE["loc"], MIXTURE["scale"]),
    )
    for x in (-4.0, 0.0, 1.3, 20.0):
        np.testing.assert_allclose(mixture.log_prob(x), other.log_prob(x), rtol=1e-5)


def test_mixture_draws_follow_the_mixture():
    draw = jax.jit(jax.vmap(sf.NormalMixture(**MIXTURE).sample))
    x = np.asarray(draw(jax.random.split(jax.random.key(5), 20_000)), np.float64)
    weights = np.asarray(jax.nn.softmax(MIXTURE["logits"]), np.float64)

    def cdf(x):
        z = (x[:, None] - np.asarray(MIXTURE["loc"])) / np.asarray(MIXTURE["scale"])
        return scipy.stats.norm.cdf(z) @ (weights / weights.sum())

    # False-alarm rate 1e-9.
    assert scipy.stats.kstest(x, cdf).pvalue > 1e-9


def test_batches_of_mixtures_broadcast_and_are_learned_by_score_too():
    params = {
        "logits": jnp.array([[0.4, -0.3], [0.0, 1.0], [2.0, 0.0]]),
        "loc": jnp.array([-1.0, 1.5]),
        "scale": jnp.array([0.5, 1.1]),
    }

    def loss(params, key, estimator):
        def f(x):
            assert x.shape == (3,)
            return jnp.sum(quartic(x))

        return sf.expectation(f, sf.NormalMixture(**params), key, estimator, num_samples=2)

    for estimator in (sf.Pathwise(), sf.ScoreFunction()):
        check_mean(
            partial(loss, estimator=estimator),
            lambda params: jnp.sum(quartic_mean(params)),
            params,
            4000,
        )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_mixtures_keep_their_dtype_and_stay_finite(dtype):
    params = jax.tree.map(lambda p: p.astype(dtype), MIXTURE)

    def draw(params, key):
        return sf.NormalMixture(**params).sample(key)

    for far in (1.0, 1e2, 1e4):
        spread = params | {"loc": params["loc"] * dtype(far), "logits": params["logits"] * far}
        spread = jax.tree.map(lambda p: p.astype(dtype), spread)
        keys = jax.random.split(jax.random.key(1), 500)
        values, gradients = jax.jit(jax.vmap(jax.value_and_grad(draw), (None, 0)))(spread, keys)
        assert values.dtype == dtype
        for g in jax.tree.leaves(gradients):
            assert g.dtype == dtype
            assert np.all(np.isfinite(np.asarray(g, np.float32)))


def test_the_tails_of_a_mixture_are_exact_in_float32():
    # Far out only the widest component matters: dx/dlogit = -(1 - F) (1 - w) / p for its logit.
    params = {
        "logits": jnp.array([0.0, 0.0]),
        "loc": jnp.array([0.0, 0.0]),
        "scale": jnp.array([1.0, 2.0]),
    }
    for x in (-11.0, 11.0):

        def draw(logits, x=x):
            mixture = sf.NormalMixture(logits, params["loc"], params["scale"])
            level, log_prob = (
                getattr(_implicit, name) for name in ("_mixture_level", "_mixture_log_prob")
            )
            return sf.implicit_reparameterization(
                level, log_prob, mixture._params(), jnp.float32(x)
            )

        mills = 2 * scipy.stats.norm.sf(5.5) / scipy.stats.norm.pdf(5.5)
        slope = jax.grad(draw)(params["logits"])
        np.testing.assert_allclose(slope[1], np.sign(x) * mills / 2, rtol=1e-4)
        np.testing.assert_allclose(slope[0], -slope[1], rtol=1e-4)


# ------------------------------------------------------------------- the samplers of the libraries

# A right estimate fails once in 1e12; all parameters of all tests together under 1e-9.
LIMIT = float(scipy.stats.norm.isf(0.5e-12))


def check_mean(loss, expected, params, n):
    keys = jax.random.split(jax.random.key(7), n)
    mean, variance = QUICK(
        lambda: sf.moments(lambda key: jax.value_and_grad(loss)(params, key), keys)[:2]
    )()
    exact = QUICK(jax.value_and_grad(expected))(params)
    for m, v, e in zip(*map(jax.tree.leaves, (mean, variance, exact)), strict=True):
        m, v, e = (np.asarray(a, np.float64) for a in (m, v, e))
        assert np.all(np.isfinite(m))
        assert np.all(v > 0)
        assert np.max(np.abs(m - e) / np.sqrt(v / n)) < LIMIT


def bessel_ratio(c):
    return jax.scipy.special.i1e(c) / jax.scipy.special.i0e(c)


def beta_square(p):
    a, b = p["a"], p["b"]
    return jnp.sum(a * (a + 1) / ((a + b) * (a + b + 1)))


def gamma_square(p):
    return jnp.sum(p["a"] * (p["a"] + 1) / p["b"] ** 2)


def dirichlet_square(p):
    a, total = p["a"], jnp.sum(p["a"])
    return jnp.sum(WEIGHTS[: len(a)] * a * (a + 1)) / (total * (total + 1))


WEIGHTS = jnp.array([1.0, -2.0, 0.5, 3.0, -1.0])
POSITIVE = {"a": jnp.array([0.7, 2.5, 6.0]), "b": jnp.array([1.3, 0.8, 2.0])}


def squares(x):
    return jnp.sum(x**2)


def weighed_squares(x):
    return jnp.sum(WEIGHTS[: len(x)] * x**2)


SAMPLERS = {
    "tfd.Gamma": (lambda p: tfd.Gamma(p["a"], p["b"]), squares, gamma_square, POSITIVE),
    "nd.Gamma": (lambda p: nd.Gamma(p["a"], p["b"]), squares, gamma_square, POSITIVE),
    "nd.Beta": (lambda p: nd.Beta(p["a"], p["b"]), squares, beta_square, POSITIVE),
    "tfd.Beta": (lambda p: tfd.Beta(p["a"], p["b"]), squares, beta_square, POSITIVE),
    **{
        f"{name}.Dirichlet-{d}": (
            lambda p, kind=kind: kind(p["a"]),
            weighed_squares,
            dirichlet_square,
            {"a": jnp.array([0.7, 2.5, 6.0, 1.1, 0.4])[:d]},
        )
        for name, kind, d in (
            ("distrax", distrax.Dirichlet, 2),
            ("nd", nd.Dirichlet, 3),
            ("tfd", tfd.Dirichlet, 5),
        )
    },
    **{
        f"{name}.StudentT": (
            lambda p, kind=kind: kind(p["df"], p["m"], p["s"]),
            lambda x: jnp.sum(jnp.exp(-jnp.abs(x)) + 0.2 * x),
            lambda p: student_mean(p),
            {"df": jnp.array([3.0, 8.0]), "m": jnp.array([0.4, -1.0]), "s": jnp.array([0.7, 1.6])},
        )
        for name, kind in {"tfd": tfd.StudentT, "nd": nd.StudentT}.items()
    },
    "tfd.VonMises": (
        lambda p: tfd.VonMises(0.0, p["c"]),
        lambda x: jnp.sum(jnp.cos(x)),
        lambda p: jnp.sum(bessel_ratio(p["c"])),
        {"c": jnp.array([0.5, 2.0, 9.0])},
    ),
}


def student_mean(p):
    z = jnp.linspace(-12.0, 12.0, 24_001)
    # x = m + s sinh(z): heavy tails in few points.
    df, m, s = (p[name][:, None] for name in ("df", "m", "s"))
    t = jnp.sinh(z)
    log_norm = jax.scipy.special.gammaln((df + 1) / 2) - jax.scipy.special.gammaln(df / 2)
    density = jnp.exp(log_norm - (df + 1) / 2 * jnp.log1p(t**2 / df)) / jnp.sqrt(df * jnp.pi)
    f = jnp.exp(-jnp.abs(m + s * t)) + 0.2 * (m + s * t)
    return jnp.sum(jnp.trapezoid(density * f * jnp.cosh(z), z, axis=-1))


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_implicit_derivatives_of_libraries_are_right_in_mean(name):
    build, f, expected, params = SAMPLERS[name]

    def loss(params, key):
        return sf.expectation(f, build(params), key, sf.Pathwise(), num_samples=1)

    check_mean(loss, expected, params, 4000)


def test_mixtures_of_libraries_raise_where_ours_learns():
    def library(logits):
        mixture = distrax.MixtureSameFamily(
            distrax.Categorical(logits=logits), distrax.Normal(MIXTURE["loc"], MIXTURE["scale"])
        )
        return sf.expectation(jnp.square, mixture, jax.random.key(0), sf.Pathwise())

    with pytest.raises(TypeError, match="Pathwise cannot differentiate"):
        jax.grad(library)(MIXTURE["logits"])
