"""SPSA, evolution strategies and forward gradients: exact moments over their directions."""

import itertools
from functools import partial

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import pytest
from scipy.special import ndtr
from support.noise import noise_keys

import scorefn as sf

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

KEY = jax.random.key(0)
X = np.array([0.3, -0.8, 0.5])
SLOPE = np.array([1.0, -2.0, 0.5])
# Programs that run once: nothing is gained by optimising them.
once = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def keys_of(uniforms, before=None):
    """Keys [P, 1]: half of the noise, `before`, is for the draw, the other for the direction."""
    before = np.full_like(uniforms, 0.5) if before is None else before
    return noise_keys(np.concatenate([before, uniforms], 1)[:, None])


def signs(n):
    points = np.array(list(itertools.product([0.75, 0.25], repeat=n)))
    return keys_of(points), np.full(2**n, 0.5**n)


def normals(n, nodes):
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    points = ndtr(np.array(list(itertools.product(x, repeat=n))))
    weights = np.array(list(itertools.product(w / w.sum(), repeat=n))).prod(1)
    return keys_of(points), weights


def run(estimator, f, x, rule):
    """Exact mean of value and gradient, and the variance of the gradient summed over x."""
    keys, weights = rule

    def value(x, keys):
        return estimator(f, sf.Deterministic(x), keys).mean()

    values, gradients = once(jax.vmap(jax.value_and_grad(value), (None, 0)))(x, keys)
    mean = weights @ gradients
    return weights @ values, mean, weights @ jnp.sum((gradients - mean) ** 2, 1)


def linear(x):
    return x @ SLOPE + 0.3


def quadratic(x):
    matrix = jnp.array([[1.0, 0.4, -0.2], [0.4, 2.0, 0.3], [-0.2, 0.3, -1.5]])
    return x @ matrix @ x / 2 + x @ SLOPE


def exponential(x):
    return jnp.exp(x @ (0.3 * SLOPE))


def exact(f):
    return once(jax.value_and_grad(f))(X)


def assert_close(got, wanted, atol=1e-10):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=atol)


LINEAR = [
    # estimator, rule, total variance over the squared norm of the gradient: n - 1 or n + 1
    pytest.param(sf.SPSA(0.1), signs(3), 2, id="spsa"),
    pytest.param(sf.ForwardGradient(), signs(3), 2, id="forward_signs"),
    pytest.param(
        sf.ForwardGradient(direction=jax.random.normal), normals(3, 4), 4, id="forward_normal"
    ),
    pytest.param(sf.EvolutionStrategies(0.2), normals(3, 4), 4, id="evolution"),
]


@pytest.mark.parametrize(("estimator", "rule", "ratio"), LINEAR)
def test_a_linear_f_has_the_total_variance_of_the_docstring(estimator, rule, ratio):
    value, gradient, variance = run(estimator, linear, X, rule)
    assert_close(value, linear(X))
    assert_close(gradient, SLOPE)
    assert_close(variance, ratio * (SLOPE @ SLOPE))


def test_spsa_is_exact_for_quadratics_but_for_half_the_trace_in_the_value():
    step = 0.3
    value, gradient, _ = run(sf.SPSA(step), quadratic, X, signs(3))
    assert_close(value, exact(quadratic)[0] + step**2 * 1.5 / 2)
    assert_close(gradient, exact(quadratic)[1])


def test_the_bias_of_spsa_falls_with_the_square_of_the_step():
    steps = np.array([0.2, 0.1])
    biases = [
        np.abs(run(sf.SPSA(s), exponential, X, signs(3))[1] - exact(exponential)[1]) for s in steps
    ]
    assert not sf.SPSA.unbiased
    assert biases[0].max() > 1e-3
    np.testing.assert_allclose(biases[0] / biases[1], 4, rtol=0.02)


@pytest.mark.parametrize(
    "rule", [pytest.param(signs(3), id="signs"), pytest.param(normals(3, 4), id="normal")]
)
def test_forward_gradients_are_unbiased(rule):
    direction = jax.random.rademacher if len(rule[1]) == 8 else jax.random.normal
    value, gradient, _ = run(sf.ForwardGradient(direction), exponential, X, rule)
    assert_close(value, exact(exponential)[0])
    assert_close(gradient, exact(exponential)[1])
    assert sf.ForwardGradient.unbiased


def smoothed(x, scale):
    return exponential(x) * jnp.exp(scale**2 * (0.3**2 * SLOPE @ SLOPE) / 2)


def test_evolution_strategies_are_unbiased_for_the_smoothed_objective():
    scale = 0.5
    value, gradient, _ = run(sf.EvolutionStrategies(scale), exponential, X, normals(3, 12))
    wanted = once(jax.value_and_grad(smoothed))(X, scale)
    assert_close(value, wanted[0])
    assert_close(gradient, wanted[1])
    assert np.abs(gradient - exact(exponential)[1]).max() > 0.01
    assert not sf.EvolutionStrategies.unbiased


def test_evolution_strategies_are_unbiased_for_a_smoothed_step():
    x, scale = np.array([0.4]), 0.7
    # Gauss-Legendre between the jumps at e = x / scale and -x / scale.
    nodes, weights = np.polynomial.legendre.leggauss(40)
    edges = np.array([-8.0, -x[0] / scale, x[0] / scale, 8.0])
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    e = (middle + half * nodes).ravel()
    density = np.exp(-(e**2) / 2) / np.sqrt(2 * np.pi)
    rule = keys_of(ndtr(e)[:, None]), (half * weights).ravel() * density

    def step(x):
        return jnp.sign(x[0])

    value, gradient, _ = run(sf.EvolutionStrategies(scale), step, x, rule)
    wanted = once(jax.value_and_grad(lambda x: 2 * jax.scipy.special.ndtr(x[0] / scale) - 1))(x)
    assert_close(value, wanted[0], atol=1e-9)
    assert_close(gradient, wanted[1], atol=1e-9)


# ----------------------------------------------------------------------------------------- ranks


def population(estimator, f, x, n=6):
    def loss(x):
        return sf.expectation(f, sf.Deterministic(x), KEY, estimator, num_samples=n)

    return once(jax.jacrev(loss))(x)


def test_ranks_are_blind_to_monotone_transformations():
    estimator = sf.RankedEvolutionStrategies(0.5)
    gradient = population(estimator, exponential, X)
    assert_close(population(estimator, lambda x: jnp.log(exponential(x)) * 1e6 - 3, X), gradient)
    assert np.abs(gradient).max() > 0.1
    assert not sf.RankedEvolutionStrategies.unbiased


def test_ranks_have_the_closed_form_of_the_docstring():
    n, scale = 3, 0.5
    e = np.random.default_rng(0).normal(size=(n, 3))
    uniforms = ndtr(e)
    keys = noise_keys(np.concatenate([np.full((n, 3), 0.5), uniforms], 1))
    estimator = sf.RankedEvolutionStrategies(scale)

    def loss(x):
        return estimator(exponential, sf.Deterministic(x), keys).mean()

    value, gradient = once(jax.value_and_grad(loss))(X)
    costs = np.array([exponential(X + scale * s * row) for row in e for s in (1, -1)])
    ranks = (np.argsort(np.argsort(costs)) / 5 - 0.5).reshape(n, 2)
    assert_close(value, costs.mean())
    assert_close(gradient, (ranks[:, 0] - ranks[:, 1]) / (2 * scale) @ e / n)


def test_ties_share_their_rank():
    def constant(x):
        return 0 * x[0] + 1.0

    assert_close(population(sf.RankedEvolutionStrategies(0.5), constant, X), np.zeros(3))


def test_each_output_is_ranked_by_itself():
    estimator = sf.RankedEvolutionStrategies(0.5)
    both = population(estimator, lambda x: jnp.stack([exponential(x), 1e3 * linear(x)]), X)
    assert_close(both[0], population(estimator, exponential, X))
    assert_close(both[1], population(estimator, linear, X))


# -------------------------------------------------------------------- distributions and structure

ALL = [
    pytest.param(sf.SPSA(0.1), id="spsa"),
    pytest.param(sf.EvolutionStrategies(0.1), id="evolution"),
    pytest.param(sf.RankedEvolutionStrategies(0.1), id="ranked"),
    pytest.param(sf.ForwardGradient(), id="forward"),
]


@pytest.mark.parametrize("library", [distrax.Normal, numpyro.distributions.Normal])
@pytest.mark.parametrize("estimator", [sf.ForwardGradient(), sf.SPSA(0.1)])
def test_on_a_normal_the_mean_over_directions_is_pathwise(library, estimator):
    # For one draw: f is quadratic, so that SPSA is exact as well.
    points = np.array([0.75, 0.25])[:, None]
    keys = keys_of(points, before=np.full((2, 1), 0.8))

    def loss(params, estimator, keys):
        normal = library(params[0], params[1])
        return estimator(lambda x: x**2 + 3 * x, normal, keys).mean()

    gradient = once(jax.grad(lambda p: loss(p, estimator, keys.ravel())))(jnp.array([0.4, 0.7]))
    draw_keys = noise_keys(np.array([[0.8]]))
    pathwise = once(jax.grad(lambda p: loss(p, sf.Pathwise(), draw_keys)))(jnp.array([0.4, 0.7]))
    assert_close(gradient, pathwise)


@pytest.mark.parametrize("estimator", ALL)
def test_pytrees_of_parameters_costs_and_aux(estimator):
    params = {"w": jnp.ones((2, 3)), "b": (jnp.zeros(3), 0.5)}

    def f(p):
        cost = jnp.sum(p["w"] ** 2) + p["b"][1] * jnp.sum(p["b"][0])
        return {"cost": cost, "vector": p["w"][0]}, p["b"][0]

    def loss(params, chunk_size=None):
        costs, aux = sf.expectation(
            f,
            sf.Deterministic(params),
            KEY,
            estimator,
            num_samples=4,
            has_aux=True,
            chunk_size=chunk_size,
        )
        return costs["cost"] + costs["vector"].sum(), aux

    @once
    def all_ways(params):
        tangent = jax.jvp(lambda p: loss(p)[0], (params,), (params,))[1]
        chunked = jax.grad(partial(loss, chunk_size=3), has_aux=True)(params)[0]
        return *jax.grad(loss, has_aux=True)(params), chunked, tangent

    gradient, aux, chunked, forward = all_ways(params)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, params)
    assert aux.shape == ((4, 3) if isinstance(estimator, sf.ForwardGradient) else (4, 2, 3))
    jax.tree.map(partial(assert_close, atol=1e-12), chunked, gradient)
    reverse = sum(map(jnp.vdot, jax.tree.leaves(gradient), jax.tree.leaves(params)))
    assert_close(forward, reverse)


@pytest.mark.parametrize("estimator", ALL)
def test_vmap_and_hyperparameters_as_leaves(estimator):
    def loss(x, estimator):
        return sf.expectation(quadratic, sf.Deterministic(x), KEY, estimator, num_samples=2)

    xs = jnp.stack([X, 2 * X])
    gradients = once(jax.vmap(jax.grad(loss), (0, None)))(xs, estimator)
    one = once(jax.grad(loss))(xs[1], estimator)
    assert_close(gradients[1], one)


@pytest.mark.parametrize("estimator", ALL)
def test_parameters_that_f_closes_over_are_differentiated(estimator):
    def loss(weight, x):
        def f(x):
            return weight * jnp.sum(x)

        return sf.expectation(f, sf.Deterministic(x), KEY, estimator, num_samples=2)

    # f is linear and the pair opposite: the mean cost is that at x.
    assert_close(once(jax.grad(loss))(2.0, X), X.sum())
    if not isinstance(estimator, sf.RankedEvolutionStrategies):
        mixed = once(jax.jacfwd(jax.grad(loss, 1)))(2.0, X)
        assert_close(2 * mixed, once(jax.grad(loss, 1))(2.0, X))


@pytest.mark.parametrize("estimator", ALL)
def test_f_is_evaluated_as_often_as_stated(estimator):
    count = []

    def f(x):
        jax.debug.callback(lambda _: count.append(1), x)
        return jnp.sum(x)

    value = sf.expectation(f, sf.Deterministic(X), KEY, estimator, num_samples=3)
    jax.block_until_ready(value)
    jax.effects_barrier()
    assert len(count) == 3 * int(estimator.evaluations[0])


def test_forward_gradients_pass_a_while_loop_that_reverse_mode_refuses():
    def f(x):
        return jax.lax.while_loop(lambda s: s[0] < 5, lambda s: (s[0] + 1, s[1] * x), (0, x))[1]

    def loss(x, estimator):
        return sf.expectation(f, sf.Deterministic(x), KEY, estimator)

    assert_close(once(jax.grad(loss))(1.1, sf.ForwardGradient()), 6 * 1.1**5)
    with pytest.raises(ValueError, match="while_loop"):
        jax.grad(loss)(1.1, sf.Pathwise())


@pytest.mark.parametrize("estimator", ALL)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_dtype_of_the_parameters_is_kept(estimator, dtype):
    with jax.enable_x64(new_val=False):
        x = jnp.asarray(X, dtype)

        def loss(x):
            return sf.expectation(lambda x: jnp.sum(x**2), sf.Deterministic(x), KEY, estimator)

        value, gradient = jax.eval_shape(jax.value_and_grad(loss), x)
        assert value.dtype == gradient.dtype == dtype


@pytest.mark.parametrize("estimator", ALL)
def test_no_dtype_is_promoted_silently(estimator):
    # float32 beside a default of float64.
    with jax.numpy_dtype_promotion("strict"):

        def loss(x):
            return sf.expectation(
                lambda p: jnp.sum(p["x"]), sf.Deterministic({"x": x}), KEY, estimator
            )

        value, gradient = jax.eval_shape(jax.value_and_grad(loss), jnp.zeros(3, jnp.float32))
        assert value.dtype == gradient.dtype == jnp.float32


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("estimator", ALL)
def test_a_second_derivative_raises(estimator):
    def loss(x):
        return sf.expectation(quadratic, sf.Deterministic(x), KEY, estimator)

    def scanned(x):
        return jax.lax.scan(lambda c, _: (c + loss(x), None), 0.0, None, length=2)[0]

    for f in (loss, scanned, jax.jit(loss)):
        with pytest.raises(TypeError, match="right to first order only"):
            jax.eval_shape(jax.hessian(f), X)


@pytest.mark.parametrize("estimator", ALL)
def test_a_draw_that_loses_its_derivative_raises(estimator):
    def loss(weights):
        mixture = distrax.MixtureSameFamily(
            distrax.Categorical(logits=weights), distrax.Normal(jnp.array([0.0, 3.0]), 1.0)
        )
        return sf.expectation(lambda x: x**2, mixture, KEY, estimator)

    with pytest.raises(TypeError, match=f"{type(estimator).__name__} cannot differentiate"):
        jax.eval_shape(jax.grad(loss), jnp.zeros(2))


@pytest.mark.parametrize("estimator", ALL)
def test_discrete_draws_raise(estimator):
    with pytest.raises(TypeError, match="must be floats, got int"):
        sf.expectation(lambda x: 1.0 * x, sf.Categorical(jnp.zeros(3)), KEY, estimator)


@pytest.mark.parametrize("build", [sf.EvolutionStrategies, sf.RankedEvolutionStrategies])
def test_the_scale_cannot_be_learned(build):
    def loss(scale):
        return sf.expectation(quadratic, sf.Deterministic(X), KEY, build(scale))

    assert jnp.isfinite(once(loss)(0.3))
    with pytest.raises(TypeError, match="with respect to its scale"):
        jax.eval_shape(jax.grad(loss), 0.3)


@pytest.mark.parametrize(
    ("build", "name"),
    [(sf.SPSA, "step"), (sf.EvolutionStrategies, "scale"), (sf.RankedEvolutionStrategies, "scale")],
)
def test_hyperparameters_must_be_positive(build, name):
    for value in (0.0, -1):
        with pytest.raises(ValueError, match=f"{name} must be above 0"):
            build(value)


def test_a_forward_gradient_of_integers_raises():
    with pytest.raises(TypeError, match="differentiates f"):
        sf.expectation(
            lambda x: (x > 0).astype(int), sf.Deterministic(0.3), KEY, sf.ForwardGradient()
        )


def test_deterministic_is_a_distribution():
    point = sf.Deterministic({"a": jnp.arange(2.0), "b": 3.0})
    assert point.log_prob(point.sample(KEY)) == 0
    assert point.log_prob({"a": jnp.arange(2.0), "b": 3.5}) == -jnp.inf

    def loss(x, estimator):
        return sf.expectation(quadratic, sf.Deterministic(x), KEY, estimator, num_samples=2)

    assert_close(once(jax.grad(loss))(X, sf.Pathwise()), exact(quadratic)[1])
    with pytest.raises(TypeError, match="cannot differentiate"):
        jax.eval_shape(lambda x: jax.grad(loss)(x, sf.ScoreFunction()), X)
