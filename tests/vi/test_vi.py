"""Variational objectives: exact means by enumeration and quadrature, and the known variances."""

import itertools
from decimal import Decimal, localcontext
from functools import partial
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from support.exact import FAST, derivatives, hermite, pieces
from support.noise import noise_keys
from support.transformations import TRANSFORMATIONS

import scorefn as sf
from scorefn import vi

pytestmark = pytest.mark.usefixtures("x64")

once = partial(jax.jit, compiler_options=FAST)


def mean_of(fn: Any, params: Any, keys: jax.Array, weights: np.ndarray, order: int) -> Any:
    """The exact mean of value and derivatives of ``fn(params, key)`` over weighted keys."""

    @once
    def means(keys):
        each = jax.vmap(lambda k: derivatives(lambda p: fn(p, k), params, order))(keys)
        return [jnp.tensordot(weights, one, 1) for one in each]

    return means(keys)


# ------------------------------------------------------------------------------------ discrete z

ALL_BITS = np.array(list(itertools.product([0.0, 1.0], repeat=2)))


def bits_joint(params):
    return lambda b: -((b[0] - 2 * b[1] + params["model"]) ** 2) + jnp.sin(params["model"]) * b[0]


def bits_bound(params, samples):
    """E log mean w, over all tuples of draws."""
    q = sf.Bernoulli(params["logits"])
    log_q = jax.vmap(q.log_prob)(jnp.asarray(ALL_BITS))
    log_w = jax.vmap(bits_joint(params))(jnp.asarray(ALL_BITS)) - log_q
    rows = np.array(list(itertools.product(range(4), repeat=samples)))
    bounds = jax.nn.logsumexp(log_w[rows], axis=1) - jnp.log(samples)
    return jnp.exp(log_q[rows].sum(1)) @ bounds


def bits_keys(logits, samples):
    theta = 1 / (1 + np.exp(-logits))
    points = np.where(ALL_BITS == 1, theta / 2, (1 + theta) / 2)
    probs = np.prod(np.where(ALL_BITS == 1, theta, 1 - theta), axis=1)
    rows = np.array(list(itertools.product(range(4), repeat=samples)))
    return noise_keys(points[rows].reshape(len(rows), -1), 2), probs[rows].prod(1)


@pytest.mark.parametrize("samples", [2, 3])
def test_vimco_is_unbiased_at_every_order_over_all_tuples(samples: int) -> None:
    logits = np.array([0.4, -0.9])
    params = {"logits": jnp.asarray(logits), "model": jnp.array(0.7)}

    def bound(params, key):
        q = sf.Bernoulli(params["logits"])
        return vi.vimco(bits_joint(params), q, key, num_samples=samples)

    means = mean_of(bound, params, *bits_keys(logits, samples), 2)
    exact = once(lambda: derivatives(lambda p: bits_bound(p, samples), params, 2))()
    for mean, desired in zip(means, exact, strict=True):
        np.testing.assert_allclose(mean, desired, rtol=0, atol=1e-11)


@pytest.mark.parametrize("closed_form", [False, True])
def test_elbo_is_unbiased_over_all_draws(*, closed_form: bool) -> None:
    logits = np.array([0.4, -0.9])
    params = {"logits": jnp.asarray(logits), "model": jnp.array(0.7)}

    def bound(params, key):
        q = distrax.Bernoulli(logits=params["logits"])
        entropy = jnp.sum(q.entropy()) if closed_form else None
        estimator = sf.ScoreFunction(sf.ConstantBaseline(0.2))
        return vi.elbo(bits_joint(params), q, key, estimator, entropy=entropy)

    keys, weights = bits_keys(logits, 1)
    means = mean_of(bound, params, keys, weights, 2)
    exact = once(lambda: derivatives(lambda p: bits_bound(p, 1), params, 2))()
    for mean, desired in zip(means, exact, strict=True):
        # distrax draws its own way from the same uniforms: a 1 where they lie below theta.
        np.testing.assert_allclose(mean, desired, rtol=0, atol=1e-11)


@pytest.mark.parametrize("closed_form", [False, True])
def test_aux_of_the_elbo_is_what_log_joint_returns_beside(*, closed_form: bool) -> None:
    key = jax.random.key(1)

    def bound(mean: Any, *, has_aux: bool) -> Any:
        q = distrax.Normal(mean, 0.5)
        entropy = q.entropy() if closed_form else None

        def log_joint(z: Any) -> Any:
            return (-(z**2), {"z": z}) if has_aux else -(z**2)

        options: Any = {"num_samples": 3, "entropy": entropy, "has_aux": has_aux}
        return vi.elbo(log_joint, q, key, sf.Pathwise(), **options)

    plain = jax.value_and_grad(partial(bound, has_aux=False))(0.3)
    (value, aux), slope = jax.value_and_grad(partial(bound, has_aux=True), has_aux=True)(0.3)
    np.testing.assert_array_equal((value, slope), plain)
    draws = [distrax.Normal(0.3, 0.5).sample(seed=jax.random.fold_in(key, i)) for i in range(3)]
    np.testing.assert_allclose(aux["z"], draws)
    with pytest.raises(TypeError, match=r"must return a pair \(log_joint, aux\), got shape \(\)"):
        vi.elbo(summed, Q, key, sf.Pathwise(), has_aux=True)


# ------------------------------------------------------------------------------------- mixed z


def test_elbo_of_a_bit_and_a_number_that_depends_on_it() -> None:
    """By all bits, and by quadrature over the number: every order of the score function."""
    params = jax.tree.map(jnp.asarray, {"logit": 0.4, "loc": 0.3, "model": 0.7})
    theta = 1 / (1 + np.exp(-0.4))
    rule = pieces(theta) * hermite(8)

    def centre(p, b):
        return p["loc"] * (2 * b - 1)

    def log_prob(p, z):
        number = jax.scipy.stats.norm.logpdf(z["x"], centre(p, z["b"]))
        return sf.Bernoulli(p["logit"]).log_prob(z["b"]) + number

    def sample(p, key):
        one, two = jax.random.split(key)
        b = sf.Bernoulli(p["logit"]).sample(one)
        return {"b": b, "x": centre(p, b) + jax.random.normal(two)}

    def bound(p, key):
        log_joint = lambda z: -((z["x"] - p["model"] * z["b"]) ** 2)  # noqa: E731
        q = sf.Distribution(log_prob, sample, p)
        return vi.elbo(log_joint, q, key, sf.ScoreFunction(sf.ConstantBaseline(0.2)))

    def exact(p):
        bits, probs = jnp.array([0.0, 1.0]), jnp.stack([1 - jax.nn.sigmoid(p["logit"])] * 2)
        probs = probs.at[1].set(jax.nn.sigmoid(p["logit"]))
        joint = -((centre(p, bits) - p["model"] * bits) ** 2) - 1
        entropy = -probs @ jnp.log(probs) + 0.5 * jnp.log(2 * jnp.pi * jnp.e)
        return probs @ joint + entropy

    means = mean_of(bound, params, noise_keys(rule.points), rule.weights, 2)
    for mean, desired in zip(means, derivatives(exact, params, 2), strict=True):
        np.testing.assert_allclose(mean, desired, rtol=0, atol=1e-10)


# ---------------------------------------------------------------------------------- continuous z

PARAMS = {"loc": 0.4, "log_scale": -0.5, "model": 0.9}


def normal(params):
    return distrax.Normal(params["loc"], jnp.exp(params["log_scale"]))


def joint(params):
    return lambda z: -(z**2) / 2 - (params["model"] * z - 1.2) ** 2 + 0.1 * params["model"] * z


def by_quadrature(objective, order, samples, nodes=40):
    rule = hermite(nodes) ** samples
    params = jax.tree.map(jnp.asarray, PARAMS)
    keys = noise_keys(rule.points, 1)
    return mean_of(lambda p, k: objective(joint(p), p, k), params, keys, rule.weights, order)


def exact_elbo(params):
    m, v, w = params["loc"], jnp.exp(2 * params["log_scale"]), params["model"]
    quadratic = -(m**2 + v) / 2 - ((w * m - 1.2) ** 2 + w**2 * v) + 0.1 * w * m
    return quadratic + 0.5 * jnp.log(2 * jnp.pi * jnp.e * v)


def test_every_elbo_of_a_gaussian_has_its_closed_form() -> None:
    params = jax.tree.map(jnp.asarray, PARAMS)
    exact = derivatives(exact_elbo, params, 2)

    def plain(log_joint, p, key):
        return vi.elbo(log_joint, normal(p), key, sf.Pathwise())

    def entropy(log_joint, p, key):
        q = normal(p)
        return vi.elbo(log_joint, q, key, sf.Pathwise(), entropy=q.entropy())

    def landing(log_joint, p, key, coefficient=1.0):
        q = normal(p)
        options = {"coefficient": coefficient, "entropy": q.entropy()}
        return vi.sticking_the_landing(log_joint, q, key, **options)

    orders = {plain: 2, entropy: 2, landing: 1, partial(landing, coefficient=0.3): 1}
    for objective, order in orders.items():
        for mean, desired in zip(by_quadrature(objective, order, 1), exact, strict=False):
            np.testing.assert_allclose(mean, desired, rtol=0, atol=1e-10)


def test_dreg_has_the_mean_of_iwae() -> None:
    def iwae(log_joint, p, key):
        return vi.iwae(log_joint, normal(p), key, num_samples=2)

    def dreg(log_joint, p, key):
        return vi.dreg(log_joint, normal(p), key, num_samples=2)

    for plain, doubly in zip(by_quadrature(iwae, 1, 2), by_quadrature(dreg, 1, 2), strict=True):
        np.testing.assert_allclose(doubly, plain, rtol=0, atol=1e-9)


def test_renyi_between_the_bounds() -> None:
    q, key = distrax.Normal(0.4, 0.6), jax.random.key(3)
    log_joint = joint(PARAMS)
    values = [vi.renyi(log_joint, q, key, alpha, num_samples=6) for alpha in (-1.0, 0.0, 0.5)]
    np.testing.assert_allclose(values[1], vi.iwae(log_joint, q, key, num_samples=6))
    np.testing.assert_allclose(values[1], vi.dreg(log_joint, q, key, num_samples=6))
    plain = vi.elbo(log_joint, q, key, sf.Pathwise(), num_samples=6)
    assert values[0] > values[1] > values[2] > plain
    near = vi.renyi(log_joint, q, key, 1 - 1e-7, num_samples=6)
    np.testing.assert_allclose(near, plain, rtol=1e-5)


@pytest.mark.parametrize("a", [0.0, 0.01, 0.4, 1.0])
@pytest.mark.parametrize("s", [0.1, 1.0, 1.5])
def test_sticking_the_landing_has_the_variance_of_its_docstring(s: float, a: float) -> None:
    """q = N(m, s^2), target N(0, 1): (a/s - s)^2 along m, m^2 + 2 (a/s - s)^2 along s."""
    m, rule = 0.7, hermite(10)

    def bound(params, key):
        q = distrax.Normal(*params)
        return vi.sticking_the_landing(
            lambda z: -(z**2) / 2, q, key, coefficient=a, entropy=q.entropy()
        )

    params = jnp.array([m, s])
    gradients = once(jax.vmap(jax.grad(bound), (None, 0)))(params, noise_keys(rule.points))
    mean = rule.weights @ gradients
    np.testing.assert_allclose(mean, [-m, 1 / s - s], atol=1e-10)
    variance = rule.weights @ (gradients - mean) ** 2
    gap = (a / s - s) ** 2
    np.testing.assert_allclose(variance, [gap, m**2 + 2 * gap], atol=1e-9)


def test_the_signal_of_dreg_grows_with_the_samples_and_that_of_iwae_falls() -> None:
    """x = 1, z ~ N(0, 1), x | z ~ N(z, 1), q = N(x / 2 + b, 2/3): along b at 0.05."""

    def log_joint(z):
        return -(z**2) / 2 - (1.0 - z) ** 2 / 2

    def ratio(objective, samples):
        def bound(b, key):
            q = distrax.Normal(0.5 + b, jnp.sqrt(2 / 3))
            return objective(log_joint, q, key, num_samples=samples)

        keys = jax.random.split(jax.random.key(samples), 20_000)
        gradients = jax.vmap(jax.grad(bound), (None, 0))(0.05, keys)
        return jnp.abs(jnp.mean(gradients)) / jnp.std(gradients)

    # From 1 to 16 samples a slope of 1/2 is a factor of 4. Of 20 000 draws, the standard error of a
    # ratio is 0.007: more than 10 of them lie between each bound and what theory says.
    few, many = (once(partial(ratio, vi.dreg, n))() for n in (1, 16))
    assert 3 < many / few < 5
    few, many = (once(partial(ratio, vi.iwae, n))() for n in (1, 16))
    assert many < 0.7 * few + 0.03


def test_a_fitted_coefficient_keeps_the_elbo_unbiased() -> None:
    """Fitted to the other two of three samples; its own part is a polynomial: few nodes do."""
    params, rule = jax.tree.map(jnp.asarray, PARAMS), hermite(5) ** 3

    def bound(p, key):
        options = {"coefficient": None, "entropy": lambda q: q.entropy(), "num_samples": 3}
        return vi.sticking_the_landing(joint(p), normal(p), key, **options)

    means = mean_of(bound, params, noise_keys(rule.points, 1), rule.weights, 1)
    for mean, desired in zip(means, derivatives(exact_elbo, params, 1), strict=True):
        np.testing.assert_allclose(mean, desired, rtol=0, atol=1e-9)


def test_a_fitted_coefficient_finds_the_one_without_noise() -> None:
    """q = N(m, s^2), target N(0, 1): along m all noise vanishes at a = s^2, found from 3 draws."""

    def log_prob(m, z):
        return jax.scipy.stats.norm.logpdf(z, m, 0.1)

    def sample(m, key):
        return m + 0.1 * jax.random.normal(key)

    def bound(m, key):
        q = sf.Distribution(log_prob, sample, m)
        options = {"coefficient": None, "entropy": lambda _: jnp.log(0.1), "num_samples": 3}
        return vi.sticking_the_landing(lambda z: -(z**2) / 2, q, key, **options)

    keys = jax.random.split(jax.random.key(0), 5)
    gradients = once(jax.vmap(jax.grad(bound), (None, 0)))(0.7, keys)
    np.testing.assert_allclose(gradients, -0.7, atol=1e-9)


def test_the_coefficient_can_be_learned() -> None:
    """The variance (a/s - s)^2 + m^2 + 2 (a/s - s)^2 and its estimate are least at a = s^2."""
    params, rule = jnp.array([0.7, 0.5]), hermite(10)

    def slope(a, key):
        def loss(params, key, a):
            q = distrax.Normal(*params)
            options = {"coefficient": a, "entropy": q.entropy()}
            return vi.sticking_the_landing(lambda z: -(z**2) / 2, q, key, **options)

        return jax.grad(sf.squared_gradient, argnums=3)(loss, params, key, a)

    slopes = once(jax.vmap(slope, (None, 0)))
    for a in (0.25, 1.0):
        mean = rule.weights @ slopes(a, noise_keys(rule.points))
        np.testing.assert_allclose(mean, 6 * (a / 0.5 - 0.5) / 0.5, atol=1e-9)


# -------------------------------------------------------------------------- a prior to be learned


def likelihood(params):
    return lambda z: -((params["model"] * z - 1.2) ** 2)


def prior_of(params):
    return distrax.Normal(params["prior_loc"], jnp.exp(params["prior_log_scale"]))


def with_prior(params):
    return lambda z: likelihood(params)(z) + prior_of(params).log_prob(z)


def _standardised(prior, z):
    noise = jax.lax.stop_gradient((z - prior.loc) / prior.scale)
    return prior.loc + prior.scale * noise


@pytest.mark.parametrize("path", [None, _standardised])
def test_gdreg_has_the_mean_of_iwae_along_the_prior_too(path: Any) -> None:
    params = {**PARAMS, "prior_loc": -0.2, "prior_log_scale": 0.3}
    params, rule = jax.tree.map(jnp.asarray, params), hermite(40) ** 2
    options = {"num_samples": 2}

    def iwae(p, key):
        return vi.iwae(with_prior(p), normal(p), key, **options)

    def doubly(p, key):
        return vi.gdreg(likelihood(p), prior_of(p), normal(p), key, path=path, **options)

    keys = noise_keys(rule.points, 1)
    plain, found = (mean_of(fn, params, keys, rule.weights, 1) for fn in (iwae, doubly))
    for a, b in zip(found, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-8)


def test_gdreg_of_a_correlated_prior_has_the_mean_of_iwae() -> None:
    params = {"lower": jnp.array([[1.2, 0.0], [0.4, 0.8]]), "loc": jnp.array([0.1, -0.3])}
    rule = hermite(24) ** 2
    q = distrax.Normal(jnp.array([0.3, -0.2]), jnp.array([0.6, 0.7]))

    def prior(p):
        return distrax.MultivariateNormalTri(p["loc"], p["lower"])

    def likelihood(z):
        return -((z[0] - 0.5 * z[1] - 0.4) ** 2)

    def iwae(p, key):
        def log_joint(z):
            return likelihood(z) + prior(p).log_prob(z)

        return vi.iwae(log_joint, q, key, num_samples=1)

    def doubly(p, key):
        return vi.gdreg(likelihood, prior(p), q, key, num_samples=1)

    plain, found = (
        mean_of(fn, params, noise_keys(rule.points), rule.weights, 1) for fn in (iwae, doubly)
    )
    for a, b in zip(found, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-8)


# ------------------------------------------------------------- chunks, devices, transformations

START = np.array([0.4, -0.5, 0.9])


def _unflattened(flat):
    return dict(zip(PARAMS, flat, strict=True))


def _bound(objective, **given):
    def loss(flat, key, **options):
        p = _unflattened(flat)
        return objective(joint(p), normal(p), key, **{"num_samples": 3} | given | options)

    return loss


def _gdreg(flat, key, **options):
    p = _unflattened(flat) | {"prior_loc": flat[0] / 2, "prior_log_scale": flat[1]}
    return vi.gdreg(likelihood(p), prior_of(p), normal(p), key, **{"num_samples": 3} | options)


OBJECTIVES = {
    "elbo": _bound(partial(vi.elbo, estimator=sf.Pathwise())),
    "sticking_the_landing": _bound(vi.sticking_the_landing),
    "fitted": _bound(vi.sticking_the_landing, coefficient=None, entropy=lambda q: q.entropy()),
    "iwae": _bound(vi.iwae),
    "renyi": _bound(vi.renyi, alpha=0.5),
    "vimco": _bound(vi.vimco),
    "dreg": _bound(vi.dreg),
    "gdreg": _gdreg,
}


# To a transformation these are others over again: one version of Python is enough.
KIN = ("sticking_the_landing", "fitted", "renyi", "gdreg")
GRID = [pytest.param(name, marks=[pytest.mark.slow] * (name in KIN)) for name in OBJECTIVES]


@pytest.mark.slow
@pytest.mark.parametrize("name", GRID)
def test_every_transformation_chunk_and_device_gives_the_same_gradient(name: str) -> None:
    loss, key = OBJECTIVES[name], jax.random.key(3)
    devices = jax.make_mesh((8,), ("devices",), axis_types=(AxisType.Auto,))
    spread = {"sharding": NamedSharding(devices, PartitionSpec("devices"))}

    @once
    def all_of_them(flat, key):
        gradients = {by: transform(loss)(flat, key) for by, transform in TRANSFORMATIONS.items()}
        many = {
            "all": jax.grad(partial(loss, num_samples=16))(flat, key),
            "chunks": jax.grad(partial(loss, num_samples=16, chunk_size=5))(flat, key),
            "devices": jax.grad(partial(loss, num_samples=16, **spread))(flat, key),
        }
        return jax.grad(loss)(flat, key), gradients, many

    desired, gradients, many = all_of_them(jnp.asarray(START), key)
    assert np.ptp(desired) > 1e-3
    for by, gradient in gradients.items():
        np.testing.assert_allclose(gradient, desired, rtol=0, atol=1e-11, err_msg=by)
    for by, gradient in many.items():
        np.testing.assert_allclose(gradient, many["all"], rtol=0, atol=1e-11, err_msg=by)


# -------------------------------------------------------------------------------------- bad input


def test_what_does_not_fit_raises() -> None:
    key, q = jax.random.key(0), distrax.Normal(0.0, 1.0)
    with pytest.raises(ValueError, match="needs entropy"):
        vi.sticking_the_landing(jnp.square, q, key, coefficient=0.5)
    with pytest.raises(TypeError, match="entropy=lambda q: q.entropy"):
        vi.sticking_the_landing(jnp.square, q, key, coefficient=None, entropy=1.0, num_samples=4)
    with pytest.raises(ValueError, match="num_samples must be at least 3 to fit 1"):
        vi.sticking_the_landing(jnp.square, q, key, coefficient=None, entropy=lambda q: q.entropy())
    with pytest.raises(TypeError, match="gdreg knows no path of Gamma.*path=lambda params, z"):
        vi.gdreg(jnp.square, distrax.Gamma(1.0, 1.0), q, key, num_samples=2)
    with pytest.raises(ValueError, match="Use elbo"):
        vi.renyi(jnp.square, q, key, 1.0, num_samples=2)
    with pytest.raises(ValueError, match="num_samples must be at least 2"):
        vi.vimco(jnp.square, q, key, num_samples=1)
    with pytest.raises(TypeError, match="distribution must be"):
        vi.iwae(jnp.square, 3, key, num_samples=2)
    with pytest.raises(TypeError, match="key"):
        vi.dreg(jnp.square, q, 0, num_samples=2)


@pytest.mark.parametrize("objective", [vi.dreg, vi.sticking_the_landing])
def test_a_second_derivative_of_what_is_right_to_first_order_raises(objective: Any) -> None:
    def bound(m):
        return objective(jnp.cos, distrax.Normal(m, 1.0), jax.random.key(0), num_samples=2)

    with pytest.raises(TypeError, match="first order"):
        jax.hessian(bound)(0.3)

    def along_model(w):
        q = distrax.Normal(0.2, 1.0)
        return objective(lambda z: jnp.cos(w * z), q, jax.random.key(0), num_samples=2)

    with pytest.raises(TypeError, match="first order"):
        jax.hessian(along_model)(0.3)


def test_a_second_derivative_of_gdreg_raises_along_each_of_its_parts() -> None:
    def bound(params):
        prior, q = distrax.Normal(params[0], 1.0), distrax.Normal(params[1], 1.0)
        log_likelihood = lambda z: jnp.cos(params[2] * z)  # noqa: E731
        return vi.gdreg(log_likelihood, prior, q, jax.random.key(0), num_samples=2)

    for i in range(3):
        with pytest.raises(TypeError, match="first order"):
            jax.hessian(lambda x, i=i: bound(jnp.ones(3).at[i].set(x)))(0.3)


def test_a_bound_has_the_value_of_its_draws() -> None:
    q, key = sf.Bernoulli(jnp.array([0.3, -0.2])), jax.random.key(4)
    log_joint = bits_joint({"model": 0.7})
    values = [bound(log_joint, q, key, num_samples=5) for bound in (vi.vimco, vi.iwae, vi.dreg)]
    np.testing.assert_allclose(values, values[0], rtol=1e-12)


@pytest.mark.parametrize("objective", [vi.iwae, vi.dreg])
def test_discrete_draws_cannot_be_reparameterised(objective: Any) -> None:
    def bound(logit):
        q = distrax.Bernoulli(logits=logit)
        return objective(lambda b: b * 1.0, q, jax.random.key(0), num_samples=2)

    with pytest.raises(TypeError, match="Pathwise cannot differentiate"):
        jax.grad(bound)(0.3)


# ------------------------------------------------------------------------------------------ shapes

Q = distrax.Normal(jnp.array([0.3, -0.2, 0.5]), jnp.full(3, 0.8))


def normals(z: jax.Array) -> jax.Array:
    """Log-densities of three parts, not summed."""
    return distrax.Normal(0.0, 1.0).log_prob(z)


def summed(z: jax.Array) -> jax.Array:
    return jnp.sum(normals(z))


ENTROPY: Any = {"entropy": Q.entropy()}
FITTED: Any = {"coefficient": None, "num_samples": 4, "entropy": lambda q: q.entropy()}
NOT_SCALARS = {
    "elbo": ("log_joint", lambda key: vi.elbo(normals, Q, key, sf.Pathwise())),
    "elbo, entropy": ("entropy", lambda key: vi.elbo(summed, Q, key, sf.Pathwise(), **ENTROPY)),
    "landing": ("log_joint", lambda key: vi.sticking_the_landing(normals, Q, key)),
    "landing, entropy": (
        "entropy",
        lambda key: vi.sticking_the_landing(summed, Q, key, coefficient=0.5, **ENTROPY),
    ),
    "landing, fitted": ("entropy", lambda key: vi.sticking_the_landing(summed, Q, key, **FITTED)),
    "landing, coefficient": (
        "coefficient",
        lambda key: vi.sticking_the_landing(
            summed, Q, key, coefficient=jnp.ones(3), entropy=jnp.sum(Q.entropy())
        ),
    ),
    "iwae": ("log_joint", lambda key: vi.iwae(normals, Q, key, num_samples=3)),
    "renyi": ("log_joint", lambda key: vi.renyi(normals, Q, key, 0.5, num_samples=3)),
    "renyi, alpha": ("alpha", lambda key: vi.renyi(summed, Q, key, jnp.ones(2), num_samples=3)),
    "dreg": ("log_joint", lambda key: vi.dreg(normals, Q, key, num_samples=3)),
    "gdreg": ("log_likelihood", lambda key: vi.gdreg(normals, Q, Q, key, num_samples=3)),
    "vimco": ("log_joint", lambda key: vi.vimco(normals, Q, key, num_samples=3)),
}


@pytest.mark.parametrize("name", NOT_SCALARS)
def test_what_must_be_one_number_is_checked_to_be_one(name: str) -> None:
    argument, bound = NOT_SCALARS[name]
    number = "return one number for one draw" if argument.startswith("log") else "be one real numb"
    with pytest.raises(ValueError, match=f"{argument} must {number}.*got shape.*Sum it over"):
        bound(jax.random.key(0))


def test_a_log_joint_that_returns_a_whole_number_or_none_at_all() -> None:
    bits, key = sf.Bernoulli(jnp.array([0.3, -0.2])), jax.random.key(0)
    whole = vi.vimco(lambda b: jnp.sum(b.astype(int)), bits, key, num_samples=3)
    assert whole == vi.vimco(jnp.sum, bits, key, num_samples=3)
    with pytest.raises(ValueError, match="log_joint must return one number.*got None"):
        vi.iwae(lambda _: None, Q, key, num_samples=3)
    with pytest.raises(TypeError, match="log_joint must be a function of one draw"):
        vi.iwae(3.0, Q, key, num_samples=3)


# ------------------------------------------------------------------------------------------ limits


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("gap", [0.3, 1e-1, 1e-2, 1e-3, 1e-5, 1e-7, 0.0, -1e-7, -1e-3, -0.3])
def test_renyi_is_right_up_to_its_limit_at_order_1(gap: float, dtype: Any) -> None:
    """Against ``log(mean w^gap) / gap`` in 50 digits; so is its derivative along the order."""
    log_w = (np.random.default_rng(0).normal(size=7) * 2 + 1).astype(dtype)
    with localcontext(prec=50):
        exact = [Decimal(float(x)) for x in log_w]

        def bound(gap: Decimal) -> Decimal:
            if gap == 0:
                return sum(exact) / 7
            return (sum((gap * x).exp() for x in exact) / 7).ln() / gap

        gap, step = Decimal(float(dtype(gap))), Decimal("1e-15")
        value, slope = bound(gap), (bound(gap + step) - bound(gap - step)) / (2 * step)
    found = jax.value_and_grad(sf.entropic_risk, argnums=1)
    got, along_power = found(jnp.asarray(log_w), jnp.asarray(float(gap), dtype))
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(got, float(value), rtol=0, atol=20 * eps)
    np.testing.assert_allclose(along_power, float(slope), rtol=0, atol=100 * eps**0.75)


def test_renyi_takes_a_traced_order_of_1() -> None:
    q, key = distrax.Normal(0.3, 0.8), jax.random.key(0)
    joint = lambda z: -(z**2)  # noqa: E731
    got = jax.jit(lambda a: vi.renyi(joint, q, key, a, num_samples=9))(1.0)
    desired = vi.elbo(joint, q, key, sf.Pathwise(), num_samples=9)
    np.testing.assert_allclose(got, desired, rtol=1e-14)


def test_vimco_keeps_a_few_numbers_a_sample() -> None:
    def bound(logits: jax.Array) -> jax.Array:
        return vi.vimco(jnp.sum, sf.Bernoulli(logits), jax.random.key(0), num_samples=4000)

    compiled = jax.jit(jax.grad(bound)).lower(jnp.zeros(2)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 100 * 8 * 4000
