"""Importance weighting: exact means by enumerating every draw of the proposal."""

import itertools
from functools import partial

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import pytest
from jax.flatten_util import ravel_pytree
from support.noise import noise_keys

import scorefn as sf

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

KEY = jax.random.key(0)
LOGITS = np.array([0.4, -0.9, 0.2])
PROPOSAL = np.array([-0.3, 0.5, 0.1])
PARAMS = {"logits": LOGITS, "shift": np.array(0.7)}


# Programs that run once: nothing is gained by optimising them.
once = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def log_prob(logits, x):
    return jax.nn.log_softmax(logits)[x]


def sample(logits, key):
    """By the inverse: one uniform number, so that its pieces are the categories."""
    edges = jnp.cumsum(jax.nn.softmax(logits))
    return jnp.sum(jax.random.uniform(key, dtype=edges.dtype) > edges[:-1])


def category(logits):
    return sf.Distribution(log_prob, sample, jnp.asarray(logits))


def cost(shift):
    return lambda x: jnp.array([2.0, -1.0, 4.0])[x] * jnp.sin(shift + x)


def expected(params, f=cost):
    return jnp.sum(jax.nn.softmax(params["logits"]) * f(params["shift"])(jnp.arange(3)))


def all_draws(n, logits=PROPOSAL):
    """Keys [3^n, n] for every tuple of draws of the proposal, and their probabilities."""
    probs = np.exp(logits) / np.exp(logits).sum()
    middles = np.cumsum(probs) - probs / 2
    rows = np.array(list(itertools.product(range(3), repeat=n)))
    return noise_keys(middles[rows][..., None]), probs[rows].prod(1)


def derivatives(fn, order=2):
    """Value, gradient and Hessian along the flat parameters."""
    flat, unravel = ravel_pytree(PARAMS)

    def along(vector):
        return fn(unravel(vector))

    def both(vector):
        value, gradient = jax.value_and_grad(along)(vector)
        return gradient, (value, gradient)

    if order == 1:
        return once(both)(flat)[1]
    hessian, lower = once(jax.jacfwd(both, has_aux=True))(flat)
    return (*lower, hessian)


def exact_mean(estimator, n, order=2, proposal=PROPOSAL):
    keys, weights = all_draws(n, proposal)

    def mean(params):
        def value(keys):
            return jnp.mean(estimator(cost(params["shift"]), category(params["logits"]), keys))

        return weights @ jax.vmap(value)(keys)

    return derivatives(mean, order)


def drawn(p, q, keys):
    """Costs [n], scores [n, 3] and weights [n] of what q draws from the keys, in numpy."""
    draws = np.asarray(once(jax.vmap(q.draw))(keys))
    probs, proposal = (np.asarray(jax.nn.softmax(d.params)) for d in (p, q))
    f = np.array([2.0, -1.0, 4.0])[draws] * np.sin(0.7 + draws)
    return f, np.eye(3)[draws] - probs, (probs / proposal)[draws]


def assert_all_close(got, wanted, atol=1e-12):
    for g, w in zip(got, wanted, strict=True):
        np.testing.assert_allclose(g, w, rtol=0, atol=atol)


BASELINES = {
    "leave_one_out": (sf.LeaveOneOut, (2, 3)),
    "optimal": (sf.OptimalBaseline, (2, 3)),
    "none": (sf.ConstantBaseline, (1, 2)),
    "constant": (lambda: sf.ConstantBaseline(1.7), (1, 2)),
    "moving_average": (lambda: sf.MovingAverage(0.5).update(jnp.array([1.0, 5.0])), (1, 2)),
    "learned": (lambda: sf.LearnedBaseline(lambda p, x: p * x, jnp.array(1.5), 2.0), (1, 2)),
}


@pytest.mark.parametrize(
    ("make", "n"),
    [pytest.param(make, n, id=f"{k}-{n}") for k, (make, ns) in BASELINES.items() for n in ns],
)
def test_every_baseline_is_unbiased_to_second_order(make, n):
    estimator = sf.ImportanceWeighted(category(PROPOSAL), make())
    assert_all_close(exact_mean(estimator, n), derivatives(expected))


def test_a_baseline_that_sees_its_own_draw_is_biased():
    class OwnMean(sf.Baseline):
        def __call__(self, costs, weights=None):
            del weights
            return jnp.broadcast_to(costs.mean(0), costs.shape)

    mean = exact_mean(sf.ImportanceWeighted(category(PROPOSAL), OwnMean()), 2)
    assert all(np.abs(m - w).max() > 1e-2 for m, w in zip(mean, derivatives(expected), strict=True))


def test_a_continuous_target_is_unbiased():
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    keys = noise_keys(jax.scipy.special.ndtr(jnp.asarray(nodes))[:, None])
    estimator = sf.ImportanceWeighted(distrax.Normal(0.3, 1.5), sf.ConstantBaseline(0.5))

    def mean(params):
        terms = estimator(lambda x: x**3, distrax.Normal(*params), keys)
        return weights / weights.sum() @ terms

    params = jnp.array([0.6, 0.9])
    for order in (lambda f: f, jax.grad, jax.hessian):
        wanted = order(lambda p: p[0] ** 3 + 3 * p[0] * p[1] ** 2)(params)
        np.testing.assert_allclose(once(order(mean))(params), wanted, rtol=0, atol=1e-9)


def test_a_constant_added_to_f_moves_the_value_by_it_and_no_derivative():
    keys = jax.random.split(KEY, 5)
    estimator = sf.ImportanceWeighted(category(PROPOSAL))

    def loss(logits, constant):
        def f(x):
            return cost(0.7)(x) + constant

        return estimator(f, category(logits), keys).mean()

    run = once(jax.value_and_grad(loss))
    (value, gradient), (moved, same) = run(LOGITS, 0.0), run(LOGITS, 1e3)
    np.testing.assert_allclose(moved - value, 1e3, rtol=0, atol=1e-10)
    np.testing.assert_allclose(same, gradient, rtol=0, atol=1e-10)


def test_the_baseline_lowers_the_variance_of_value_and_gradient():
    keys, weights = all_draws(2)

    def variance(baseline):
        estimator = sf.ImportanceWeighted(category(PROPOSAL), baseline)

        def value(logits, keys):
            return estimator(lambda x: 5 + cost(0.7)(x), category(logits), keys).mean()

        value, gradient = once(jax.vmap(jax.value_and_grad(value), (None, 0)))(LOGITS, keys)
        rows = jnp.concatenate([value[:, None], gradient], 1)
        return weights @ rows**2 - (weights @ rows) ** 2

    assert (variance(sf.LeaveOneOut()) < variance(sf.ConstantBaseline()) / 3).all()


def test_with_the_target_itself_as_proposal_it_is_the_score_function():
    keys = jax.random.split(KEY, 4)

    def gradient(estimator):
        def loss(logits):
            return estimator(cost(0.7), category(logits), keys).mean()

        return once(jax.value_and_grad(loss))(LOGITS)

    assert_all_close(
        gradient(sf.ImportanceWeighted(category(LOGITS))), gradient(sf.ScoreFunction()), 1e-14
    )


def test_the_optimal_baseline_weighs_by_the_squared_weights():
    keys = jax.random.split(KEY, 3)
    p, q = category(LOGITS), category(PROPOSAL)
    f, scores, w = drawn(p, q, keys)
    squares = w**2 * (scores**2).sum(1)
    b = [np.average(np.delete(f, i), weights=np.delete(squares, i)) for i in range(3)]

    def loss(logits):
        return sf.ImportanceWeighted(q, sf.OptimalBaseline())(cost(0.7), category(logits), keys)

    np.testing.assert_allclose(once(loss)(LOGITS), w * (f - b) + b, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        once(jax.jacobian(loss))(LOGITS),
        (w * (f - b))[:, None] * scores,
        rtol=0,
        atol=1e-12,
    )


# ------------------------------------------------------------------------------ self-normalised


def test_the_bias_of_self_normalised_weights_is_that_of_the_delta_method():
    near = np.array([0.2, -0.5, 0.1])
    probs, proposal = jax.nn.softmax(LOGITS), jax.nn.softmax(near)
    w, f = probs / proposal, cost(0.7)(np.arange(3))
    exact = derivatives(expected, 1)
    leading = -jnp.sum(proposal * w**2 * (f - probs @ f))
    assert not sf.SelfNormalized.unbiased
    biases = []
    for n in (2, 4, 6):
        mean = exact_mean(sf.SelfNormalized(category(near)), n, 1, near)
        biases.append(n * float(mean[0] - exact[0]))
        assert np.abs(mean[1] - exact[1]).max() > 1e-3
    # n times the bias is a polynomial in 1/n: extrapolated to 0 it is the leading term.
    limit = np.polynomial.Polynomial.fit([1 / 2, 1 / 4, 1 / 6], biases, 2)(0)
    np.testing.assert_allclose(limit, leading, rtol=0.01)


def test_self_normalised_weights_have_the_closed_form_of_the_docstring():
    keys = jax.random.split(KEY, 5)
    p, q = category(LOGITS), category(PROPOSAL)
    f, scores, w = drawn(p, q, keys)
    draws = np.argmax(scores, axis=1)
    v = w / w.sum()

    def loss(params):
        estimator = sf.SelfNormalized(q)
        return estimator(cost(params["shift"]), category(params["logits"]), keys).mean()

    value, gradient = once(jax.value_and_grad(loss))(PARAMS)
    slope = np.array([2.0, -1.0, 4.0])[draws] * np.cos(0.7 + draws)
    np.testing.assert_allclose(value, v @ f, rtol=0, atol=1e-14)
    np.testing.assert_allclose(gradient["logits"], v * (f - v @ f) @ scores, rtol=0, atol=1e-14)
    np.testing.assert_allclose(gradient["shift"], v @ slope, rtol=0, atol=1e-14)
    assert f.min() <= value <= f.max()


def test_self_normalised_weights_need_no_normaliser_at_any_order():
    keys = jax.random.split(KEY, 4)

    def unnormalised(logits, x):
        return logits[x] + 3.0

    def value(logits, p_log_prob, q_log_prob):
        q = sf.Distribution(q_log_prob, sample, jnp.asarray(PROPOSAL))
        return sf.SelfNormalized(q)(
            cost(0.7), sf.Distribution(p_log_prob, sample, logits), keys
        ).mean()

    for order in (lambda f: f, jax.grad, jax.hessian):
        forms = [
            once(order(lambda t, f=f: value(t, f, f)))(LOGITS) for f in (log_prob, unnormalised)
        ]
        np.testing.assert_allclose(*forms, rtol=0, atol=1e-14)


def test_one_sample_cannot_be_self_normalised():
    with pytest.raises(ValueError, match="at least 2"):
        sf.expectation(cost(0.7), category(LOGITS), KEY, sf.SelfNormalized(category(PROPOSAL)))


# ------------------------------------------------- an unnormalised density under the score function


def test_leave_one_out_cancels_the_score_of_the_normaliser():
    # The score of exp(logits[x]) is that of the density plus d log Z, which is the same for all
    # draws; the costs minus the means of the others add up to 0.
    keys = jax.random.split(KEY, 5)

    def gradient(log_prob, baseline, order=jax.grad):
        def loss(logits):
            p = sf.Distribution(log_prob, sample, logits)
            return sf.ScoreFunction(baseline)(cost(0.7), p, keys).mean()

        return once(order(loss))(LOGITS)

    def unnormalised(logits, x):
        return logits[x]

    loo, none = sf.LeaveOneOut(), sf.ConstantBaseline(0.0)
    np.testing.assert_allclose(
        gradient(unnormalised, loo), gradient(log_prob, loo), rtol=0, atol=1e-15
    )
    # It is this baseline that does it, and only at first order.
    assert np.abs(gradient(unnormalised, none) - gradient(log_prob, none)).max() > 0.1
    hessians = [gradient(form, loo, jax.hessian) for form in (unnormalised, log_prob)]
    assert np.abs(hessians[0] - hessians[1]).max() > 0.01


# -------------------------------------------------------------------------------- edges and errors

BOTH = [
    pytest.param(sf.ImportanceWeighted, id="plain"),
    pytest.param(sf.SelfNormalized, id="self_normalised"),
]


@pytest.mark.parametrize("build", BOTH)
def test_draws_that_the_target_makes_impossible_count_as_nothing(build):
    # f is infinite there, and the log-density minus infinity.
    def f(x):
        return jnp.array([1.0, jnp.inf, 3.0])[x]

    def loss(logits, keys):
        masked = jnp.where(jnp.arange(3) == 1, -jnp.inf, logits)
        return build(category(PROPOSAL))(f, category(masked), keys).mean()

    keys, weights = all_draws(3)
    baseline = {"baseline": sf.ConstantBaseline(0.5)} if build is sf.ImportanceWeighted else {}
    build = jax.tree_util.Partial(build, **baseline)
    # A tuple of impossible draws only has no weights to normalise.
    value, gradient = once(jax.vmap(jax.value_and_grad(loss), (None, 0)))(LOGITS, keys)
    known = ~jnp.isnan(value)
    assert known.sum() >= 26
    assert jnp.isfinite(gradient[known]).all()
    if baseline:
        p = jax.nn.softmax(LOGITS[[0, 2]])
        slope = 2 * p[0] * p[1]
        np.testing.assert_allclose(weights @ value, p @ jnp.array([1.0, 3.0]), rtol=0, atol=1e-12)
        np.testing.assert_allclose(
            weights @ gradient, jnp.array([-slope, 0, slope]), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("build", BOTH)
def test_float32_weights_stay_finite(build):
    with jax.enable_x64(new_val=False):
        logits = jnp.array([30.0, -30.0, 0.0], jnp.float32)

        def loss(logits):
            q = sf.Categorical(-logits)
            estimator = build(jax.lax.stop_gradient(q))
            return sf.expectation(cost(0.7), sf.Categorical(logits), KEY, estimator, num_samples=8)

        value, gradient = once(jax.value_and_grad(loss))(logits)
        assert jnp.isfinite(value)
        assert jnp.isfinite(gradient).all()
        assert value.dtype == gradient.dtype == jnp.float32


@pytest.mark.parametrize("build", BOTH)
def test_low_precision_costs_keep_their_dtype(build):
    with jax.enable_x64(new_val=False):
        p, q = (sf.Categorical(jnp.asarray(v, jnp.bfloat16)) for v in (LOGITS, PROPOSAL))
        keys = jax.random.split(KEY, 3)
        terms = jax.eval_shape(lambda: build(q)(lambda x: x.astype(jnp.bfloat16), p, keys))
        assert terms.dtype == jnp.bfloat16


@pytest.mark.parametrize("build", BOTH)
def test_no_dtype_is_promoted_silently(build):
    # float32 beside a default of float64.
    with jax.numpy_dtype_promotion("strict"):
        baseline = () if build is sf.SelfNormalized else (sf.OptimalBaseline(),)
        estimator = build(sf.Bernoulli(jnp.zeros(3, jnp.float32)), *baseline)

        def loss(x):
            return sf.expectation(jnp.sum, sf.Bernoulli(x), KEY, estimator, num_samples=3)

        value, gradient = jax.eval_shape(jax.value_and_grad(loss), jnp.zeros(3, jnp.float32))
        assert value.dtype == gradient.dtype == jnp.float32


@pytest.mark.parametrize("build", BOTH)
def test_a_rare_event_keeps_its_digits_in_float32(build):
    with jax.enable_x64(new_val=False):
        p, q = sf.Bernoulli(jnp.float32(-20.0)), sf.Bernoulli(jnp.float32(0.0))
        baseline = () if build is sf.SelfNormalized else (sf.ConstantBaseline(0.0),)
        estimator = build(q, *baseline)
        value = once(lambda: sf.expectation(lambda b: b, p, KEY, estimator, num_samples=4096))()
        np.testing.assert_allclose(value, jax.nn.sigmoid(-20.0), rtol=0.1)


@pytest.mark.parametrize("build", BOTH)
def test_no_derivative_passes_through_the_proposal(build):
    def loss(proposal):
        estimator = build(category(proposal))
        return estimator(cost(0.7), category(LOGITS), jax.random.split(KEY, 3)).mean()

    assert (once(jax.grad(loss))(PROPOSAL) == 0).all()


LIBRARIES = {
    "distrax": lambda mean: distrax.Normal(mean, 1.0),
    "numpyro": lambda mean: numpyro.distributions.Normal(mean, 1.0),
    "distrax_independent": lambda mean: distrax.Independent(distrax.Normal(mean, 1.0), 1),
}


@pytest.mark.parametrize(
    ("build", "name"),
    [(sf.ImportanceWeighted, name) for name in LIBRARIES] + [(sf.SelfNormalized, "numpyro")],
)
def test_objects_of_libraries_under_every_transformation(build, name):
    normal = LIBRARIES[name]
    shape = (2,) if name == "distrax_independent" else ()

    def loss(mean, key, chunk_size=None):
        estimator = build(normal(jnp.zeros(shape)))
        mean = jnp.broadcast_to(mean, shape)
        return sf.expectation(
            lambda x: {"a": (x**2).sum(), "b": jnp.stack([x.sum(), 1.0])},
            normal(mean),
            key,
            estimator,
            num_samples=6,
            chunk_size=chunk_size,
        )

    jacobian = once(jax.jacrev(loss))(0.4, KEY)
    for other in (
        once(jax.jacfwd(loss))(0.4, KEY),
        once(jax.jacrev(lambda m: loss(m, KEY, 4)))(0.4),
        jax.tree.map(
            lambda x: x[0], once(jax.vmap(jax.jacrev(loss), (0, None)))(jnp.array([0.4, 0.5]), KEY)
        ),
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), other, jacobian
        )
    tangent = once(lambda m: jax.jvp(lambda m: loss(m, KEY), (m,), (1.0,))[1])(0.4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), tangent, jacobian
    )


@pytest.mark.parametrize("build", BOTH)
def test_f_is_evaluated_once_for_each_term_and_aux_is_stacked(build):
    count = []

    def f(x):
        jax.debug.callback(lambda _: count.append(1), x)
        return cost(0.7)(x), x

    value, aux = sf.expectation(
        f, category(LOGITS), KEY, build(category(PROPOSAL)), num_samples=5, has_aux=True
    )
    jax.block_until_ready(value)
    jax.effects_barrier()
    assert len(count) == 5
    assert aux.shape == (5,)


def test_hyperparameters_are_leaves():
    estimator = sf.ImportanceWeighted(sf.Categorical(jnp.zeros(3)), sf.ConstantBaseline(2.0))
    leaves, structure = jax.tree.flatten(estimator)
    assert len(leaves) == 2
    assert jax.tree.unflatten(structure, leaves).baseline == sf.ConstantBaseline(2.0)


@pytest.mark.parametrize("build", BOTH)
def test_errors_say_what_to_do(build):
    with pytest.raises(TypeError, match="instance, got the class Categorical"):
        build(sf.Categorical)
    with pytest.raises(ValueError, match=r"like those of the distribution, \(\), got \(2,\)"):
        build(distrax.Normal(jnp.zeros(2), 1.0))(
            lambda x: x, distrax.Normal(0.0, 1.0), jax.random.split(KEY, 2)
        )
    with pytest.raises(TypeError, match="log_prob"):
        build(3.0)(cost(0.7), category(LOGITS), jax.random.split(KEY, 2))
    with pytest.raises(ValueError, match="at least 2"):
        build(category(PROPOSAL))(cost(0.7), category(LOGITS), jax.random.split(KEY, 1))


def test_a_baseline_must_be_an_instance():
    with pytest.raises(TypeError, match="instance, got the class LeaveOneOut"):
        sf.ImportanceWeighted(category(PROPOSAL), sf.LeaveOneOut)
