"""QuasiMonteCarlo, Stratified, and Antithetic by the inverse cdf: unbiased over what is random."""

import itertools
from functools import partial
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
import scipy.stats
from scipy.stats import qmc
from support.exact import FAST, derivatives, hermite
from support.noise import noise_keys
from tensorflow_probability.substrates.jax import distributions as tfd

import scorefn as sf
from scorefn.estimators._sampling_schemes.indexed_keys import number_of, numbered_keys

pytestmark = pytest.mark.usefixtures("x64")

once = partial(jax.jit, compiler_options=FAST)
PLAIN = sf.ScoreFunction(sf.ConstantBaseline(0.4))
SCHEMES = (sf.QuasiMonteCarlo, sf.Stratified)


def uniform_draws(scheme: sf.Estimator, keys: jax.Array, size: int) -> jax.Array:
    """The points themselves, [n, size]."""
    cube = sf.Distribution(
        lambda _, x: jnp.sum(x) * 0.0, lambda _, key: jax.random.uniform(key, (size,), float), ()
    )
    _, x = scheme(lambda x: (0.0, x), cube, keys, has_aux=True)
    return x


def points_of(scheme: Any, n: int, size: int, seed: int = 0) -> np.ndarray:
    keys = jax.random.split(jax.random.key(seed), n)
    estimator = scheme(sf.Pathwise(), icdf=lambda _, u: u)
    return np.asarray(once(uniform_draws, static_argnums=2)(estimator, keys, size))


# -------------------------------------------------------------------------------------- unbiased

PROBS = np.array([[1, 3, 4], [5, 1, 2]]) / 8


def cost(logits):
    return lambda x: (x[0] + 1.0) * jnp.cos(2.0 * x[1]) + logits[0, 0] * x[1]


def exact(logits):
    p = jax.nn.softmax(logits)
    pairs = np.array(list(itertools.product(range(3), repeat=2)))
    return p[0, pairs[:, 0]] * p[1, pairs[:, 1]] @ jax.vmap(cost(logits))(pairs)


def mean_over(scheme: sf.Estimator, keys: jax.Array, weights: np.ndarray) -> list[jax.Array]:
    """The mean of value, gradient and Hessian over keys [S, n], of which each row is one call."""
    logits = jnp.log(jnp.asarray(PROBS))

    def term(logits, row):
        return jnp.mean(scheme(cost(logits), sf.Categorical(logits), row))

    @once
    def means(keys):
        each = jax.vmap(lambda row: derivatives(lambda p: term(p, row), logits, 2))(keys)
        return [jnp.tensordot(weights, one, 1) for one in each]

    return means(keys)


def check_exact(found: list[jax.Array]) -> None:
    desired = derivatives(exact, jnp.log(jnp.asarray(PROBS)), 2)
    for a, b in zip(found, desired, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_sobol_points_are_unbiased_over_all_shifts_whatever_the_matrices(n: int) -> None:
    """Eight shifts of each coordinate see all that probabilities in eighths can tell apart."""
    digits = max(1, (n - 1).bit_length())
    matrices = np.random.default_rng(n).uniform(size=2 * digits)
    rows = [[*matrices, *shift] for shift in itertools.product((np.arange(8) + 0.5) / 8, repeat=2)]
    # The first of two equal halves of the first key's noise is what all samples share.
    noise = np.full((64, n, 2 * len(rows[0])), 0.3)
    noise[:, 0, : len(rows[0])] = rows
    found = mean_over(sf.QuasiMonteCarlo(PLAIN), noise_keys(noise), np.full(64, 1 / 64))
    check_exact(found)


def test_each_stratified_point_is_uniform_over_the_orders_and_what_lies_within() -> None:
    """Each sample's point meets every one of 8 x 8 cells equally often."""
    orders = itertools.product([(0.2, 0.8), (0.8, 0.2)], repeat=2)
    # JAX sorts by the second half of the noise of the key: one number for each rank.
    keys = noise_keys([[0.5] * 4 + [a[0], b[0], a[1], b[1]] for a, b in orders])
    within = jnp.array(list(itertools.product((np.arange(4) + 0.5) / 4, repeat=2)))
    scheme = sf.Stratified(sf.Pathwise())

    def cells(key, noise):
        point = scheme.points(key, 2, 2)
        return jnp.stack([jnp.floor(8 * point(i, noise)) for i in jnp.arange(2)])

    found = once(jax.vmap(jax.vmap(cells, (None, 0)), (0, None)))(keys, within)
    for i in range(2):
        _, counts = np.unique(found[:, :, i].reshape(-1, 2), axis=0, return_counts=True)
        assert counts.tolist() == [1] * 64


def test_a_second_draw_of_one_sample_is_independent_of_its_place() -> None:
    keys = numbered_keys(jax.random.split(jax.random.key(0), 3), jnp.arange(3))
    number, placed = jax.vmap(number_of)(keys)
    assert number.tolist() == [0, 1, 2]
    assert placed.all()
    children = jax.vmap(partial(jax.random.split, num=3))(keys)
    number, placed = jax.vmap(jax.vmap(number_of))(children)
    assert placed.tolist() == [[True, False, False]] * 3
    assert number[:, 0].tolist() == [0, 1, 2]
    folded = jax.vmap(jax.random.fold_in, (0, None))(keys, 7)
    assert not jax.vmap(number_of)(folded)[1].any()
    fresh = [jax.vmap(jax.random.uniform)(k) for k in (keys, folded, *children.T)]
    assert len(np.unique(fresh)) == 15


# ------------------------------------------------------------------------------- where points lie


def test_without_a_scramble_the_points_are_those_of_sobol() -> None:
    n, size = 8, 5
    keys = noise_keys(np.zeros((n, 48)))
    found = np.asarray(uniform_draws(sf.QuasiMonteCarlo(sf.Pathwise(), lambda _, u: u), keys, size))
    desired = qmc.Sobol(size, scramble=False).random_base2(3)
    # In a cell's middle instead of at its edge; JAX does not follow the order of the Gray code.
    assert sorted(map(tuple, np.round(found, 6))) == sorted(map(tuple, np.round(desired, 6)))


@pytest.mark.parametrize("seed", range(3))
def test_each_elementary_interval_holds_one_point(seed: int) -> None:
    """A scramble keeps the (0, m, 2)-net: 16 points, one in each box of area 1/16."""
    x = points_of(sf.QuasiMonteCarlo, 16, 2, seed)
    for k in range(5):
        boxes = np.floor(x * [2**k, 2 ** (4 - k)]).astype(int)
        assert len(np.unique(boxes, axis=0)) == 16
    assert not np.allclose(x, points_of(sf.QuasiMonteCarlo, 16, 2, seed + 1))


@pytest.mark.parametrize(("scheme", "n"), [(sf.QuasiMonteCarlo, 64), (sf.Stratified, 37)])
def test_each_coordinate_has_one_point_in_each_stratum(scheme: Any, n: int) -> None:
    strata = np.floor(points_of(scheme, n, 30) * n).astype(int)
    np.testing.assert_array_equal(np.sort(strata, axis=0), np.tile(np.arange(n)[:, None], 30))
    # Coordinates are not copies of one another.
    assert len(np.unique(strata, axis=1).T) == 30


def test_no_point_lies_at_the_edge_in_single_precision() -> None:
    with jax.enable_x64(new_val=False):
        estimator = sf.Stratified(sf.Pathwise())
        normal = distrax.Normal(jnp.zeros(1), 1.0)
        keys = jax.random.split(jax.random.key(0), 2**16)
        _, x = jax.jit(lambda keys: estimator(lambda x: (0.0, x), normal, keys, has_aux=True))(keys)
        assert x.dtype == jnp.float32
        assert jnp.isfinite(x).all()


# --------------------------------------------------------------------------------- what is read

LOC, SCALE = np.array([0.3, -1.0]), np.array([0.5, 2.0])
LOWER = np.array([[1.2, 0.0], [0.4, 0.8]])
NORMAL = scipy.stats.norm(LOC, SCALE)
FACTORISED = {
    "distrax.Normal": (lambda: distrax.Normal(LOC, SCALE), NORMAL),
    "distrax.Independent": (lambda: distrax.Independent(distrax.Normal(LOC, SCALE), 1), NORMAL),
    "distrax.Diag": (lambda: distrax.MultivariateNormalDiag(LOC, SCALE), NORMAL),
    "distrax.Logistic": (lambda: distrax.Logistic(LOC, SCALE), scipy.stats.logistic(LOC, SCALE)),
    "distrax.Laplace": (lambda: distrax.Laplace(LOC, SCALE), scipy.stats.laplace(LOC, SCALE)),
    "distrax.Gumbel": (lambda: distrax.Gumbel(LOC, SCALE), scipy.stats.gumbel_r(LOC, SCALE)),
    "distrax.Uniform": (lambda: distrax.Uniform(LOC, LOC + 2), scipy.stats.uniform(LOC, 2)),
    "tfd.Normal": (lambda: tfd.Normal(LOC, SCALE), NORMAL),
    "tfd.Exponential": (lambda: tfd.Exponential(SCALE), scipy.stats.expon(scale=1 / SCALE)),
    "tfd.Gamma": (lambda: tfd.Gamma(SCALE, 1.0), scipy.stats.gamma(SCALE)),
    "numpyro.Normal": (lambda: npd.Normal(LOC, SCALE).to_event(1), NORMAL),
    "numpyro.Cauchy": (lambda: npd.Cauchy(LOC, SCALE), scipy.stats.cauchy(LOC, SCALE)),
    "numpyro.LogNormal": (
        lambda: npd.LogNormal(LOC, SCALE),
        scipy.stats.lognorm(SCALE, scale=np.exp(LOC)),
    ),
}
FULL = {
    "distrax": lambda: distrax.MultivariateNormalTri(LOC, LOWER),
    "tfd": lambda: tfd.MultivariateNormalTriL(LOC, LOWER),
    "numpyro": lambda: npd.MultivariateNormal(LOC, scale_tril=LOWER),
}


def drawn(estimator: sf.Estimator, distribution: Any, n: int) -> Any:
    keys = jax.random.split(jax.random.key(3), n)
    inner = estimator(sf.ScoreFunction(sf.ConstantBaseline(0.0)))
    return inner(lambda x: (0.0, x), distribution, keys, has_aux=True)[1]


@pytest.mark.parametrize("name", FACTORISED)
def test_the_quantiles_of_libraries_are_read(name: str) -> None:
    build, reference = FACTORISED[name]
    x = np.asarray(once(lambda: drawn(sf.Stratified, build(), 32))())
    strata = np.floor(reference.cdf(x) * 32).astype(int)
    np.testing.assert_array_equal(np.sort(strata, axis=0), np.tile(np.arange(32)[:, None], 2))


@pytest.mark.parametrize("name", FULL)
def test_a_correlated_gaussian_is_drawn_along_the_root_of_its_covariance(name: str) -> None:
    x = np.asarray(once(lambda: drawn(sf.Stratified, FULL[name](), 32))())
    u = scipy.stats.norm.cdf(np.linalg.solve(LOWER, (x - LOC).T).T)
    strata = np.floor(u * 32).astype(int)
    np.testing.assert_array_equal(np.sort(strata, axis=0), np.tile(np.arange(32)[:, None], 2))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_discrete_draws_come_in_proportion(scheme: Any) -> None:
    logits = jnp.log(jnp.asarray(PROBS))
    index = np.asarray(once(lambda: drawn(scheme, sf.Categorical(logits), 64))())
    one_hot = np.asarray(once(lambda: drawn(scheme, distrax.OneHotCategorical(logits), 64))())
    bits = np.asarray(once(lambda: drawn(scheme, distrax.Bernoulli(probs=PROBS[0]), 64))())
    for k in range(2):
        np.testing.assert_array_equal(np.bincount(index[:, k], minlength=3), 64 * PROBS[k])
    np.testing.assert_array_equal(one_hot.sum(0), 64 * PROBS)
    np.testing.assert_array_equal(bits.sum(0), 64 * PROBS[0])


def test_a_category_that_is_impossible_is_never_drawn() -> None:
    logits = jnp.array([0.1, -jnp.inf, 0.7, -jnp.inf], jnp.float32)
    x = np.asarray(once(lambda: drawn(sf.QuasiMonteCarlo, sf.Categorical(logits), 4096))())
    assert set(x.tolist()) == {0, 2}


def test_a_draw_of_several_arrays_has_an_inverse_cdf_of_several_arrays() -> None:
    def sample(params, key):
        a, b = jax.random.split(key)
        return {"a": params * jax.random.uniform(a), "b": jax.random.uniform(b, (2,))}

    joint = sf.Distribution(lambda p, x: x["a"] * 0.0 - jnp.log(p), sample, 2.0)
    estimator = sf.QuasiMonteCarlo(sf.Pathwise(), lambda p, u: {"a": p * u["a"], "b": u["b"]})
    keys = jax.random.split(jax.random.key(0), 8)
    _, x = estimator(lambda x: (x["a"], x), joint, keys, has_aux=True)
    for column in (x["a"] / 2, *x["b"].T):
        np.testing.assert_array_equal(np.sort(np.floor(column * 8)), np.arange(8))


# -------------------------------------------------------------------------------------- variance


def test_they_lower_the_variance_of_a_smooth_gradient() -> None:
    """cosh(x0) + cosh(x1) + x0 x1^2 / 4: the last term is what strata cannot see."""

    def f(x):
        return jnp.sum(jnp.cosh(x)) + x[0] * x[1] ** 2 / 4

    def variance(estimator, n):
        def loss(mean, key):
            return sf.expectation(f, distrax.Normal(mean, 0.5), key, estimator, num_samples=n)

        keys = jax.random.split(jax.random.key(n), 400)
        return jnp.var(jax.vmap(jax.grad(loss), (None, 0))(jnp.array([1.0, 0.3]), keys), axis=0)

    plain = sf.Pathwise()
    variances = {
        (e, n): once(partial(variance, e, n))()
        for e in (plain, sf.QuasiMonteCarlo(plain), sf.Stratified(plain))
        for n in (16, 64)
    }
    ratios = {key: v / variances[plain, key[1]] for key, v in variances.items()}
    for n, sobol, strata in ((16, 0.2, 0.4), (64, 0.03, 0.4)):
        assert (ratios[sf.QuasiMonteCarlo(plain), n] < sobol).all()
        assert (ratios[sf.Stratified(plain), n] < strata).all()
    # With 4 times the samples: by 4 if they were independent.
    falls = variances[sf.QuasiMonteCarlo(plain), 16] / variances[sf.QuasiMonteCarlo(plain), 64]
    assert (falls > 8).all()


# ------------------------------------------------------------------------------------- antithetic


@pytest.mark.parametrize(
    ("build", "reference"),
    [
        (lambda: tfd.Gamma(2.0, 1.0), scipy.stats.gamma(2.0)),
        (lambda: npd.Exponential(2.0), scipy.stats.expon(scale=0.5)),
        (lambda: distrax.Gumbel(0.0, 1.0), scipy.stats.gumbel_r()),
    ],
)
def test_draws_without_symmetry_are_mirrored_by_their_cdf(build: Any, reference: Any) -> None:
    keys = jax.random.split(jax.random.key(1), 6)

    def mean_level(x):
        return jax.pure_callback(
            lambda x: np.asarray(reference.cdf(x), x.dtype), x, x, vmap_method="expand_dims"
        )

    estimator = sf.Antithetic(sf.ScoreFunction(sf.ConstantBaseline(0.0)))
    levels = jnp.stack([estimator(mean_level, build(), key[None])[0] for key in keys])
    np.testing.assert_allclose(levels, 0.5, rtol=0, atol=1e-6)


def test_antithetic_by_an_inverse_cdf_is_unbiased() -> None:
    """Normal(m, s) cubed: by quadrature over u, to the second order."""
    estimator = sf.Antithetic(
        sf.Pathwise(), icdf=lambda p, u: p[0] + p[1] * jax.scipy.special.ndtri(u)
    )
    normal = partial(
        sf.Distribution,
        lambda p, x: jax.scipy.stats.norm.logpdf(x, *p),
        lambda p, key: p[0] + p[1] * jax.random.normal(key),
    )
    rule, params = hermite(8), jnp.array([0.4, 1.3])

    @once
    def mean(keys):
        def one(key):
            term = lambda p: estimator(lambda x: x**3, normal(p), key[None])[0]  # noqa: E731
            return derivatives(term, params, 2)

        return [jnp.tensordot(rule.weights, v, 1) for v in jax.vmap(one)(keys)]

    desired = derivatives(lambda p: p[0] ** 3 + 3 * p[0] * p[1] ** 2, params, 2)
    for a, b in zip(mean(noise_keys(rule.points)), desired, strict=True):
        # The noise of a key has 32 bits here, 1e-9 of the quantiles at its ends.
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


# -------------------------------------------------------------------------------------- bad input

COUPLED = {
    "LeaveOneOut": lambda: sf.ScoreFunction(),
    "OptimalBaseline": lambda: sf.ScoreFunction(sf.OptimalBaseline()),
    "ARMS": sf.ARMS,
    "DoubleCV": sf.DoubleCV,
    "UnorderedSet": sf.UnorderedSet,
    "SumAndSample": lambda: sf.SumAndSample(1),
    "StochasticSumAndSample": lambda: sf.StochasticSumAndSample(1),
    "ImportanceWeighted": lambda: sf.ImportanceWeighted(sf.Bernoulli(jnp.zeros(()))),
    "FittedControlVariate": lambda: sf.FittedControlVariate(
        sf.Pathwise(), jnp.square, lambda normal: normal.mean()
    ),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", COUPLED)
def test_an_estimator_that_uses_samples_for_one_another_is_refused(scheme: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}.*it would be biased"):
        scheme(COUPLED[name]())
    with pytest.raises(TypeError, match=f"{name}.*it would be biased"):
        scheme(sf.DeltaMethod(COUPLED[name]()))


def test_leave_one_out_would_be_biased_indeed() -> None:
    """What the refusal is for: a pair of strata tells each draw's cost to the other's baseline."""
    estimator = sf.Stratified(PLAIN)
    object.__setattr__(estimator, "estimator", sf.ScoreFunction())

    def loss(logit, key):
        bits = sf.Bernoulli(logit)
        return sf.expectation(lambda b: b, bits, key, estimator, num_samples=2)

    keys = jax.random.split(jax.random.key(0), 400)
    gradients = once(jax.vmap(jax.grad(loss), (None, 0)))(0.0, keys)
    # One of two strata each: the bits always differ, and each term is 1 / 2. The truth is 1 / 4.
    np.testing.assert_allclose(gradients, 0.5, rtol=1e-12)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: sf.QuasiMonteCarlo(sf.Pathwise), TypeError, r"write Pathwise\("),
        (
            lambda: sf.QuasiMonteCarlo(sf.Antithetic(sf.Pathwise())),
            TypeError,
            "so does the wrapped Antithetic",
        ),
        (
            lambda: sf.Antithetic(sf.DeltaMethod(sf.Stratified(sf.Pathwise()))),
            TypeError,
            "so does the wrapped Stratified",
        ),
        (
            lambda: sf.Antithetic(sf.Pathwise(), lambda _, x: -x, icdf=lambda _, u: u),
            ValueError,
            "got both",
        ),
    ],
)
def test_schemes_that_do_not_go_together(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(
    ("build", "icdf", "error", "message"),
    [
        (lambda: tfd.Dirichlet(np.ones(3)), None, TypeError, "no inverse cdf of Dirichlet"),
        (lambda: distrax.Gamma(2.0, 1.0), None, TypeError, "no inverse cdf of Gamma.*icdf=lambda"),
        (lambda: tfd.VonMises(0.0, 1.0), None, TypeError, "no inverse cdf of VonMises"),
        (
            lambda: sf.Distribution(lambda _, x: x, lambda _, key: jax.random.uniform(key), ()),
            None,
            TypeError,
            "no inverse cdf of your own draws",
        ),
        (
            lambda: distrax.Normal(np.zeros(2), 1.0),
            lambda _, u: u[0],
            ValueError,
            "to return a draw",
        ),
        (
            lambda: distrax.Normal(np.zeros(30_000), 1.0),
            None,
            ValueError,
            "supports up to 21201 dimensions",
        ),
    ],
)
def test_distributions_that_cannot_be_drawn_so(
    build: Any, icdf: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sf.expectation(jnp.sum, build(), jax.random.key(0), sf.QuasiMonteCarlo(sf.Pathwise(), icdf))
