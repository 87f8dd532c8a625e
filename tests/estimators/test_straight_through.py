"""Straight-through estimators, relaxations, ReinMax: exact means by quadrature over their noise."""

import itertools
from functools import partial

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import pytest
from support.noise import noise_keys

import scorefn as sf

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

KEY = jax.random.key(0)
# Programs that run once: nothing is gained by optimising them.
once = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def moments(estimator, build, logits, f, keys, weights):
    """Exact mean of value and gradient, and variance of the gradient, of one term."""

    def value(logits, key):
        return estimator(f, build(logits), key[None])[0]

    values, gradients = once(jax.vmap(jax.value_and_grad(value), (None, 0)))(logits, keys)
    mean = weights @ gradients
    return weights @ values, mean, weights @ (gradients - mean) ** 2


def exact(build, logits, f):
    def value(logits):
        return sf.Enumerate()(f, build(logits), jax.random.split(KEY, 1))[0]

    return once(jax.value_and_grad(value))(logits)


def assert_close(got, wanted, atol=1e-10):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=atol)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x)))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def bit_draws(logits):
    """Keys for every outcome of independent bits, and their probabilities."""
    p = sigmoid(np.ravel(logits))
    pieces = [((q / 2, q), ((1 + q) / 2, 1 - q)) for q in p]
    rows = list(itertools.product(*pieces))
    points = np.array([[u for u, _ in row] for row in rows])
    return noise_keys(points), np.array([np.prod([w for _, w in row]) for row in rows])


def category_draws(logits):
    """Keys for every outcome of independent categories: one Gumbel is large, the others small."""
    probs = softmax(np.asarray(logits)).reshape(-1, np.shape(logits)[-1])
    size = probs.shape[-1]
    rows = np.array(list(itertools.product(range(size), repeat=len(probs))))
    points = np.where(np.eye(size)[rows] > 0, 1 - 1e-9, 1e-9).reshape(len(rows), -1)
    weights = np.array([np.prod(probs[np.arange(len(probs)), row]) for row in rows])
    return noise_keys(points), weights


def legendre(*edges, order=40):
    """Nodes and weights on each piece between 0, the edges and 1."""
    x, w = np.polynomial.legendre.leggauss(order)
    edges = np.array([0.0, *edges, 1.0])
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    return (middle + half * x).ravel(), (half * w).ravel()


# ---------------------------------------------------------------------- one bit, closed forms


def cubic(x):
    return jnp.sum(x**3 - 0.7 * x**2 + 0.2 * x)


SLOPES = (0.2, 3 - 1.4 + 0.2)  # of the cubic, at 0 and at 1


@pytest.mark.parametrize("logit", [0.0, 0.8, -2.0])
def test_straight_through_has_the_mean_and_variance_of_the_docstring(logit):
    p = sigmoid(logit)
    v = p * (1 - p)
    keys, weights = bit_draws(logit)
    value, mean, variance = moments(sf.StraightThrough(), sf.Bernoulli, logit, cubic, keys, weights)
    assert_close(value, p * cubic(1.0))
    assert_close(mean, v * (p * SLOPES[1] + (1 - p) * SLOPES[0]))
    assert_close(variance, v**3 * (SLOPES[1] - SLOPES[0]) ** 2)
    assert np.abs(mean - exact(sf.Bernoulli, logit, cubic)[1]) > 1e-3


@pytest.mark.parametrize("logit", [0.0, 0.8, -2.0])
def test_reinmax_has_the_mean_and_variance_of_the_docstring(logit):
    p = sigmoid(logit)
    v = p * (1 - p)
    keys, weights = bit_draws(logit)
    value, mean, variance = moments(sf.ReinMax(), sf.Bernoulli, logit, cubic, keys, weights)
    assert_close(value, p * cubic(1.0))
    assert_close(mean, v * (SLOPES[1] + SLOPES[0]) / 2)
    assert_close(variance, v * (SLOPES[1] * (1 - p) / 2 - SLOPES[0] * p / 2) ** 2)


def test_straight_through_may_have_the_wrong_sign():
    def toy(b):
        return (b - 0.45) ** 2

    keys, weights = bit_draws(-0.5)
    _, mean, _ = moments(sf.StraightThrough(), sf.Bernoulli, -0.5, toy, keys, weights)
    assert mean < 0 < exact(sf.Bernoulli, -0.5, toy)[1]


MATRIX = np.array([[1.0, -0.5, 2.0], [0.3, 3.0, 0.4], [-1.0, 0.7, 0.2]])


def quadratic(x):
    return x.ravel() @ jnp.asarray(np.kron(np.ones((2, 2)), MATRIX))[: x.size, : x.size] @ x.ravel()


REINMAX = [
    pytest.param(sf.Bernoulli, np.array([0.3, -1.2, 0.0]), bit_draws, id="bits"),
    pytest.param(sf.OneHotCategorical, np.array([0.3, -1.2, 0.0]), category_draws, id="category"),
    pytest.param(
        sf.OneHotCategorical, np.array([[0.3, -1.2, 0], [1, 0.5, 0]]), category_draws, id="two"
    ),
]


@pytest.mark.parametrize(("build", "logits", "draws"), REINMAX)
def test_reinmax_is_exact_for_a_quadratic_f(build, logits, draws):
    def flat(vector):
        return build(vector.reshape(logits.shape))

    value, mean, _ = moments(sf.ReinMax(), flat, logits.ravel(), quadratic, *draws(logits))
    assert_close(value, exact(flat, logits.ravel(), quadratic)[0])
    assert_close(mean, exact(flat, logits.ravel(), quadratic)[1])


def test_reinmax_is_biased_beyond_quadratics_and_temperature_1():
    logits = np.array([0.3, -1.2, 0.0])
    keys, weights = category_draws(logits)

    def quartic(x):
        return quadratic(x**2) + jnp.sum(x**4 * jnp.arange(3))

    for estimator, f in ((sf.ReinMax(), quartic), (sf.ReinMax(2.0), quadratic)):
        value, mean, _ = moments(estimator, sf.OneHotCategorical, logits, f, keys, weights)
        assert_close(value, exact(sf.OneHotCategorical, logits, f)[0])
        assert np.abs(mean - exact(sf.OneHotCategorical, logits, f)[1]).max() > 1e-2


def test_reinmax_at_a_temperature_has_the_formula_of_the_docstring():
    logits, temperature = np.array([0.3, -1.2, 0.0]), 1.7
    keys, _ = category_draws(logits)

    def jacobian(q, u):
        return q * (u - q @ u)

    wanted = []
    for b in np.eye(3):
        slope = (MATRIX + MATRIX.T) @ b
        middle, pi = (softmax(logits / temperature) + b) / 2, softmax(logits)
        wanted.append(2 * jacobian(middle, slope) - jacobian(pi, slope) / 2)
    estimator = sf.ReinMax(temperature)
    # The unit matrix for weights: the gradient of each draw.
    _, got, _ = moments(estimator, sf.OneHotCategorical, logits, quadratic, keys, np.eye(3))
    assert_close(got, wanted)


# --------------------------------------------------------------------------------- relaxations


def test_gumbel_softmax_is_unbiased_for_the_relaxed_objective_to_second_order():
    # At temperature 1 the relaxed bit is a (1 - u) / (u + a (1 - u)), a = exp(logit).
    u, weights = legendre()
    keys = noise_keys(u[:, None])

    def estimate(logit):
        return weights @ sf.GumbelSoftmax(1.0)(lambda y: y, sf.Bernoulli(logit), keys)

    def relaxed(logit):
        a, c = jnp.exp(logit), jnp.expm1(logit)
        return a / c - a * logit / c**2

    for order in (lambda f: f, jax.grad, jax.hessian):
        assert_close(once(order(estimate))(0.8), once(order(relaxed))(0.8))
    assert np.abs(relaxed(0.8) - sigmoid(0.8)) > 1e-2


def test_gumbel_softmax_differentiates_its_temperature():
    u, weights = legendre()
    keys = noise_keys(u[:, None])

    def estimate(temperature):
        return weights @ sf.GumbelSoftmax(temperature)(lambda y: y**2, sf.Bernoulli(0.8), keys)

    step = 1e-5
    difference = (once(estimate)(1 + step) - once(estimate)(1 - step)) / (2 * step)
    assert_close(once(jax.grad(estimate))(1.0), difference, atol=1e-8)


def triangle(a, b, c, nodes=14):
    """Nodes on a triangle in barycentric space, collapsed at corner a; weights add up to 1."""
    x, w = legendre(order=nodes)
    s, t = (g.ravel()[:, None] for g in np.meshgrid(x, x))
    weights = np.outer(w, w).ravel() * 2 * s.ravel()
    # meshgrid varies s along the columns: the products of weights are symmetric.
    return a + s * ((1 - t) * (b - a) + t * (c - a)), weights


def st_gumbel_rule(p):
    """Exponentials E [P, 3] on the simplex, on which the winner, the least E / p, is constant.

    What depends on ratios of exponentials alone may be integrated over the simplex, where they are
    uniform. The region of winner i is the triangle of p and the corners other than i; two corners
    are singular, hence the halves.
    """
    corners, points, weights = np.eye(3), [], []
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        middle = (corners[j] + corners[k]) / 2
        for corner in (corners[j], corners[k]):
            x, w = triangle(corner, p, middle)
            area = np.abs(np.linalg.det([corner, p, middle]))
            points.append(x)
            weights.append(area * w)
    return np.concatenate(points), np.concatenate(weights)


def simplex_rule(i):
    """Exponentials on the simplex, where the corners other than i are singular."""
    corners = np.eye(3)
    j, k = (i + 1) % 3, (i + 2) % 3
    middle = (corners[j] + corners[k]) / 2
    halves = [triangle(corners[c], corners[i], middle) for c in (j, k)]
    return np.concatenate([x for x, _ in halves]), np.concatenate([w / 2 for _, w in halves])


def gumbel_rao_keys(p):
    """One conditional draw: each winner, with the exponentials of its conditional noise."""
    points, weights = [], []
    for i in range(3):
        x, w = simplex_rule(i)
        winner = np.broadcast_to(np.where(np.eye(3)[i] > 0, 1 - 1e-9, 1e-9), x.shape)
        points.append(np.concatenate([winner, np.exp(-x)], 1))
        weights.append(p[i] * w)
    return noise_keys(np.concatenate(points)), np.concatenate(weights)


def cost3(x):
    return x @ jnp.asarray(MATRIX) @ x + jnp.sum(x**3 * jnp.array([1.0, -2.0, 0.5]))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_gumbel_rao_has_the_mean_of_straight_through_gumbel_softmax(temperature):
    logits = np.array([0.3, -0.6, 0.1])
    p = softmax(logits)
    points, weights = st_gumbel_rule(p)
    assert_close(weights.sum(), 1)
    through = moments(
        sf.StraightThroughGumbelSoftmax(temperature),
        sf.OneHotCategorical,
        logits,
        cost3,
        noise_keys(np.exp(-points)),
        weights,
    )
    rao = moments(
        sf.GumbelRao(temperature, num_conditional=1),
        sf.OneHotCategorical,
        logits,
        cost3,
        *gumbel_rao_keys(p),
    )
    wanted = exact(sf.OneHotCategorical, logits, cost3)
    assert_close(through[0], wanted[0], atol=1e-9)
    assert_close(rao[0], wanted[0], atol=1e-9)
    assert_close(rao[1], through[1], atol=1e-8)
    assert np.abs(rao[1] - wanted[1]).max() > 1e-2


def bit_rao_rule(logit, num_conditional, order=30):
    """Half of the uniforms [P, 2 M] are for the bit, the others its conditional noise."""
    p = sigmoid(logit)
    u, w = legendre(order=order)
    rows = np.array(list(itertools.product(range(len(u)), repeat=num_conditional)))
    inner, weights = u[rows], w[rows].prod(1)
    both = [np.concatenate([np.full_like(inner, at), inner], 1) for at in (p / 2, (1 + p) / 2)]
    return noise_keys(np.concatenate(both)), np.concatenate([p * weights, (1 - p) * weights])


def test_more_conditional_noise_keeps_the_mean_and_lowers_the_variance():
    logit, temperature = 0.8, 0.5
    u, w = legendre(sigmoid(logit))
    through = moments(
        sf.StraightThroughGumbelSoftmax(temperature),
        sf.Bernoulli,
        logit,
        cubic,
        noise_keys(u[:, None]),
        w,
    )
    raos = [
        moments(
            sf.GumbelRao(temperature, num_conditional=m),
            sf.Bernoulli,
            logit,
            cubic,
            *bit_rao_rule(logit, m),
        )
        for m in (1, 2)
    ]
    for value, mean, _ in raos:
        assert_close(value, through[0])
        assert_close(mean, through[1])
    # One conditional draw is a draw of straight-through Gumbel-softmax.
    assert_close(raos[0][2], through[2])
    assert raos[1][2] < 0.8 * raos[0][2]


def test_a_derivative_through_the_conditional_noise_would_change_the_mean():
    # The negative control, by hand: the same noise given the bit, with and without a stop.
    logit, temperature = 0.8, 0.5
    v, weights = legendre()

    def surrogate(logit, bit, *, stopped):
        sign = 2 * bit - 1
        noisy = sign * (jnp.log1p((1 - v) * jnp.exp(sign * logit)) - jnp.log(v))
        if stopped:
            noisy = jax.lax.stop_gradient(noisy - logit) + logit
        return weights @ jax.nn.sigmoid(noisy / temperature)

    p = sigmoid(logit)
    stopped, through = (
        sum(
            prob * slope * jax.grad(partial(surrogate, stopped=stopped))(logit, bit)
            for bit, prob, slope in ((0, 1 - p, SLOPES[0]), (1, p, SLOPES[1]))
        )
        for stopped in (True, False)
    )
    rao = moments(
        sf.GumbelRao(temperature, num_conditional=1),
        sf.Bernoulli,
        logit,
        cubic,
        *bit_rao_rule(logit, 1),
    )
    assert_close(rao[1], stopped)
    assert np.abs(through / stopped) < 0.6


# ----------------------------------------------------------------------------- shared behaviour

HARD = [
    pytest.param(sf.StraightThrough(), id="straight_through"),
    pytest.param(sf.ReinMax(1.5), id="reinmax"),
    pytest.param(sf.StraightThroughGumbelSoftmax(0.5), id="st_gumbel_softmax"),
    pytest.param(sf.GumbelRao(0.5, num_conditional=3), id="gumbel_rao"),
]
ALL = [*HARD, pytest.param(sf.GumbelSoftmax(0.5), id="gumbel_softmax")]
LIBRARIES = {
    "ours": (sf.Bernoulli, sf.OneHotCategorical),
    "distrax": (
        lambda logits: distrax.Bernoulli(logits=logits),
        lambda logits: distrax.OneHotCategorical(logits=logits),
    ),
    "numpyro_probs": (
        lambda logits: numpyro.distributions.Bernoulli(jax.nn.sigmoid(logits)).to_event(1),
        None,
    ),
}


@pytest.mark.parametrize("estimator", HARD)
def test_the_value_is_that_of_the_draw_itself(estimator):
    logits = jnp.array([[0.3, -1.2, 0.0], [1.0, 0.5, 0.0]])
    for build in (sf.Bernoulli, sf.OneHotCategorical):

        def draw(logits, build=build):
            return sf.expectation(
                lambda x: (x.sum(), x), build(logits), KEY, estimator, num_samples=9, has_aux=True
            )

        _, draws = once(draw)(logits)
        assert set(np.unique(draws)) == {0, 1}
    assert (draws.sum(-1) == 1).all()


@pytest.mark.parametrize("estimator", ALL)
@pytest.mark.parametrize("library", [name for name in LIBRARIES if name != "ours"])
def test_libraries_agree_with_our_records_and_get_floats(estimator, library):
    logits = jnp.array([0.3, -1.2, 0.0])

    def gradient(build):
        def loss(logits):
            def f(x):
                assert jnp.issubdtype(x.dtype, jnp.floating)
                return {"a": jnp.sum(x**3 * jnp.arange(3)), "b": x}

            return sf.expectation(f, build(logits), KEY, estimator, num_samples=4)

        return once(jax.jacrev(loss))(logits)

    for ours, theirs in zip(LIBRARIES["ours"], LIBRARIES[library], strict=True):
        if theirs is not None:
            jax.tree.map(assert_close, gradient(theirs), gradient(ours))


@pytest.mark.parametrize("estimator", ALL)
def test_transformations_chunks_and_parameters_of_f(estimator):
    logits = jnp.array([0.3, -1.2, 0.0])

    def loss(logits, weight, chunk_size=None):
        def f(x):
            return jnp.sum(weight * x**2), None

        bits = sf.Bernoulli(logits)
        return sf.expectation(
            f, bits, KEY, estimator, num_samples=5, chunk_size=chunk_size, has_aux=True
        )[0]

    @once
    def all_ways(logits):
        one = jnp.ones(3)
        gradient = jax.grad(loss)(logits, one)
        chunked = jax.grad(loss)(logits, one, 2)
        batched = jax.vmap(jax.grad(loss), (0, None))(jnp.stack([0 * logits, logits]), one)[1]
        forward = jax.jacfwd(loss)(logits, one)
        # The cost is linear in the weights: Euler's formula, once with a mixed derivative.
        mixed = jax.jacfwd(jax.grad(loss), 1)(logits, one) @ one
        euler = loss(logits, one) - jax.grad(loss, 1)(logits, one) @ one
        return gradient, (chunked, batched, forward, mixed), euler

    gradient, others, euler = all_ways(logits)
    for other in others:
        assert_close(other, gradient)
    assert_close(euler, 0)


@pytest.mark.parametrize("estimator", ALL)
def test_f_is_evaluated_once_for_each_term(estimator):
    count = []

    def f(x):
        jax.debug.callback(lambda _: count.append(1), x)
        return x.sum()

    value = sf.expectation(f, sf.Bernoulli(jnp.zeros(2)), KEY, estimator, num_samples=3)
    jax.block_until_ready(value)
    jax.effects_barrier()
    assert len(count) == 3


@pytest.mark.parametrize("estimator", ALL)
@pytest.mark.parametrize("build", [sf.Bernoulli, sf.OneHotCategorical])
def test_float32_stays_finite_at_large_zero_and_masked_logits(estimator, build):
    with jax.enable_x64(new_val=False):
        logits = jnp.array([[30.0, -30.0, 0.0], [0.0, 0.0, 0.0], [-jnp.inf, 1.0, 90.0]])

        def loss(logits):
            bits = build(logits)
            return sf.expectation(lambda x: jnp.sum(x**2), bits, KEY, estimator, num_samples=8)

        value, gradient = once(jax.value_and_grad(loss))(logits)
        assert jnp.isfinite(value)
        assert jnp.isfinite(gradient).all()
        assert value.dtype == gradient.dtype == jnp.float32


@pytest.mark.parametrize("estimator", ALL)
def test_draws_have_the_dtype_of_the_logits(estimator):
    with jax.enable_x64(new_val=False):

        def loss(logits):
            return sf.expectation(
                lambda x: (x.sum(), x), sf.Bernoulli(logits), KEY, estimator, has_aux=True
            )

        logits = jnp.zeros(2, jnp.bfloat16)
        (value, draw), gradient = jax.eval_shape(jax.value_and_grad(loss, has_aux=True), logits)
        assert value.dtype == draw.dtype == gradient.dtype == jnp.bfloat16


@pytest.mark.parametrize("estimator", ALL)
def test_no_dtype_is_promoted_silently(estimator):
    # float32 beside a default of float64.
    with jax.numpy_dtype_promotion("strict"):

        def loss(x):
            both = [
                sf.expectation(jnp.sum, build(x), KEY, estimator)
                for build in (sf.Bernoulli, sf.OneHotCategorical)
            ]
            return both[0] + both[1]

        value, gradient = jax.eval_shape(jax.value_and_grad(loss), jnp.zeros(3, jnp.float32))
        assert value.dtype == gradient.dtype == jnp.float32


@pytest.mark.parametrize("estimator", HARD)
def test_a_second_derivative_raises(estimator):
    def loss(logits):
        return sf.expectation(lambda x: x.sum() ** 2, sf.Bernoulli(logits), KEY, estimator)

    def scanned(logits):
        return jax.lax.scan(lambda c, _: (c + loss(logits), None), 0.0, None, length=2)[0]

    for f in (loss, scanned, jax.jit(loss)):
        with pytest.raises(TypeError, match="right to first order only"):
            jax.eval_shape(jax.hessian(f), jnp.zeros(2))
    assert not estimator.unbiased


@pytest.mark.parametrize("estimator", HARD)
def test_no_derivative_passes_through_the_temperature(estimator):
    if isinstance(estimator, sf.StraightThrough):
        pytest.skip("has none")

    def loss(temperature):
        changed = jax.tree.map(lambda _: temperature, estimator)
        return sf.expectation(lambda x: x.sum() ** 2, sf.Bernoulli(jnp.ones(2)), KEY, changed)

    assert once(jax.grad(loss))(1.5) == 0


@pytest.mark.parametrize("estimator", ALL)
def test_an_f_without_derivative_in_the_draw_raises_when_differentiated(estimator):
    table = jnp.array([1.0, 5.0])

    def loss(logits, f):
        return sf.expectation(f, sf.Bernoulli(logits), KEY, estimator)

    def looked_up(b):
        return table[b.astype(int)]

    assert loss(0.3, looked_up) in (1.0, 5.0)
    with pytest.raises(TypeError, match="only through operations without a derivative"):
        jax.grad(loss)(0.3, looked_up)
    # What does not depend on the draw has the derivative 0, and part of a cost may be cut off.
    assert jax.grad(loss)(0.3, lambda b: 2.0) == 0  # noqa: ARG005
    assert jax.grad(loss)(0.3, lambda b: 2.0 * b + looked_up(b)) != 0


@pytest.mark.parametrize("estimator", ALL)
def test_distributions_that_do_not_fit_raise(estimator):
    for distribution in (sf.Categorical(jnp.zeros(3)), distrax.Normal(0.0, 1.0)):
        with pytest.raises(TypeError, match="bits or one-hot categories, as scorefn.Bernoulli"):
            sf.expectation(lambda x: 1.0 * x, distribution, KEY, estimator)
    with pytest.raises(TypeError, match="differentiates f, but f returned int"):
        sf.expectation(lambda x: x.astype(int), sf.Bernoulli(0.3), KEY, estimator)


def test_hyperparameters_out_of_range_raise():
    with pytest.raises(ValueError, match="temperature must be at least 1"):
        sf.ReinMax(0.5)
    for build in (sf.GumbelSoftmax, sf.StraightThroughGumbelSoftmax, sf.GumbelRao):
        with pytest.raises(ValueError, match="temperature must be above 0"):
            build(0.0)
    with pytest.raises(ValueError, match="num_conditional must be at least 1"):
        sf.GumbelRao(1.0, num_conditional=0)
    with pytest.raises(TypeError, match="num_conditional must be a static Python int"):
        sf.GumbelRao(1.0, num_conditional=2.0)


def test_temperatures_can_be_swept_by_vmap():
    def gradient(estimator):
        def loss(logits):
            return sf.expectation(cubic, sf.Bernoulli(logits), KEY, estimator)

        return jax.grad(loss)(jnp.zeros(2))

    temperatures = jnp.array([1.0, 2.0])
    swept = once(jax.vmap(gradient))(sf.ReinMax(temperatures))
    assert_close(swept[1], once(gradient)(sf.ReinMax(2.0)))
