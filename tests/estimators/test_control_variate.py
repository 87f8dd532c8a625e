"""Control variates: unbiased at every coefficient, fitted ones too; no variance where h is f."""

import itertools
from functools import partial
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import FAST, derivatives
from support.noise import noise_keys

import scorefn as sf

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

once = partial(jax.jit, compiler_options=FAST)
LOGITS = np.array([0.4, -0.7])
ALL_BITS = np.array(list(itertools.product([0.0, 1.0], repeat=2)))


def f(params):
    return lambda b: {
        "a": jnp.sin(b[0] + 2 * b[1]) + params["shift"] * b[0] * b[1],
        "b": jnp.stack([b[1], jnp.exp(b[0] * params["shift"])]),
    }


def expected(params):
    theta = jax.nn.sigmoid(params["logits"])
    probs = jnp.prod(jnp.where(ALL_BITS == 1, theta, 1 - theta), axis=1)
    values = jax.vmap(f(params))(jnp.asarray(ALL_BITS))
    return jax.tree.map(lambda v: jnp.tensordot(probs, v, 1), values)


def two_controls(b):
    return jnp.stack([b[0], b[0] + b[1] ** 2])


def two_means(bits):
    theta = jax.nn.sigmoid(bits.logits)
    return jnp.stack([theta[0], theta[0] + theta[1]])


def one_control(b):
    return b[0] * b[1] + b[0]


def one_mean(bits):
    theta = jax.nn.sigmoid(bits.logits)
    return theta[0] * theta[1] + theta[0]


def mean_over_all_tuples(estimator, samples, order):
    """The exact mean of value and derivatives, over every tuple of draws of two bits."""
    params = {"logits": jnp.asarray(LOGITS), "shift": jnp.array(0.3)}
    theta = 1 / (1 + np.exp(-LOGITS))
    # u < theta gives a 1: one point in the middle of each piece.
    points = np.where(ALL_BITS == 1, theta / 2, (1 + theta) / 2)
    probs = np.prod(np.where(ALL_BITS == 1, theta, 1 - theta), axis=1)
    rows = np.array(list(itertools.product(range(4), repeat=samples)))
    keys, weights = noise_keys(points[rows]), probs[rows].prod(1)

    def value(params, keys):
        terms = estimator(f(params), sf.Bernoulli(params["logits"]), keys)
        return jax.tree.map(lambda t: jnp.mean(t, 0), terms)

    @once
    def means(keys):
        each = jax.vmap(lambda k: derivatives(lambda p: value(p, k), params, order))(keys)
        return [jnp.tensordot(weights, one, 1) for one in each]

    return means(keys), once(lambda: derivatives(expected, params, order))()


PLAIN = sf.ScoreFunction(sf.ConstantBaseline(0.5))
ESTIMATORS = {
    "number": (sf.ControlVariate(PLAIN, one_control, one_mean, 0.7), 1),
    "vector": (sf.ControlVariate(PLAIN, two_controls, two_means, np.array([0.7, -2.0])), 2),
    "leave_one_out": (sf.ControlVariate(sf.ScoreFunction(), two_controls, two_means, 1.3), 2),
    "fitted": (sf.FittedControlVariate(PLAIN, one_control, one_mean), 3),
    "fitted_two": (sf.FittedControlVariate(PLAIN, two_controls, two_means), 4),
    "per_parameter": (
        sf.FittedControlVariate(PLAIN, one_control, one_mean, per_parameter=True),
        3,
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_tuple_of_draws_gives_the_exact_mean(name: str) -> None:
    estimator, samples = ESTIMATORS[name]
    means, exact = mean_over_all_tuples(estimator, samples, 2)
    for mean, desired in zip(means, exact, strict=True):
        np.testing.assert_allclose(mean, desired, rtol=0, atol=1e-11)


def test_a_coefficient_fitted_to_the_same_samples_is_biased(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The test above can tell."""
    from scorefn.estimators._control_variates import control_variate

    plain = control_variate.regression_coefficients

    def fitted_to_all(gradients: Any, controls: Any) -> jax.Array:
        whole = plain(gradients, controls, leave_out=False)
        return jnp.broadcast_to(whole, (len(gradients), *whole.shape[1:]))

    monkeypatch.setattr(control_variate, "regression_coefficients", fitted_to_all)
    means, exact = mean_over_all_tuples(*ESTIMATORS["fitted"], 1)
    assert np.abs(np.asarray(means[1] - exact[1])).max() > 1e-3


def test_h_equal_to_f_leaves_no_variance() -> None:
    def cost(x):
        return jnp.sin(x)

    def mean(normal):
        return jnp.sin(normal.loc) * jnp.exp(-(normal.scale**2) / 2)

    keys = jax.random.split(jax.random.key(0), 50)
    for inner in (sf.Pathwise(), sf.ScoreFunction(sf.ConstantBaseline(0.0))):
        for estimator in (
            sf.ControlVariate(inner, cost, mean),
            sf.ControlVariate(inner, cost, mean, 0.0).fit(
                cost, distrax.Normal(jnp.array(0.3), jnp.array(1.2)), keys
            ),
            sf.FittedControlVariate(inner, cost, mean),
        ):

            def loss(params, key, estimator=estimator):
                normal = distrax.Normal(*params)
                return sf.expectation(cost, normal, key, estimator, num_samples=4)

            gradients = once(jax.vmap(jax.grad(loss), (None, 0)))(jnp.array([0.3, 1.2]), keys)
            exact = jax.grad(lambda p: jnp.sin(p[0]) * jnp.exp(-(p[1] ** 2) / 2))(
                jnp.array([0.3, 1.2])
            )
            np.testing.assert_allclose(gradients, jnp.broadcast_to(exact, (50, 2)), atol=1e-9)


def test_a_coefficient_for_each_parameter_leaves_no_variance_either() -> None:
    def log_prob(params, x):
        return jax.scipy.stats.norm.logpdf(x, params[0], params[1])

    def sample(params, key):
        return params[0] + params[1] * jax.random.normal(key)

    estimator = sf.FittedControlVariate(
        sf.Pathwise(),
        jnp.sin,
        lambda p: jnp.sin(p[0]) * jnp.exp(-(p[1] ** 2) / 2),
        per_parameter=True,
    )

    def loss(params, key):
        f = lambda x: 3 * jnp.sin(x) + 2  # noqa: E731
        return sf.expectation(
            f, sf.Distribution(log_prob, sample, params), key, estimator, num_samples=4
        )

    keys = jax.random.split(jax.random.key(0), 20)
    params = jnp.array([0.3, 1.2])
    gradients = once(jax.vmap(jax.grad(loss), (None, 0)))(params, keys)
    exact = jax.grad(lambda p: 3 * jnp.sin(p[0]) * jnp.exp(-(p[1] ** 2) / 2))(params)
    np.testing.assert_allclose(gradients, jnp.broadcast_to(exact, (20, 2)), atol=1e-9)


def test_a_library_object_may_hold_a_parameter_twice() -> None:
    estimator = sf.FittedControlVariate(
        sf.Pathwise(), lambda x: x[0], lambda q: q.mean()[0], per_parameter=True
    )
    normal = distrax.MultivariateNormalFullCovariance(jnp.zeros(2), jnp.eye(2))
    with pytest.raises(ValueError, match="one parameter twice"):
        sf.expectation(jnp.sum, normal, jax.random.key(0), estimator, num_samples=3)


@pytest.mark.parametrize("coefficient", [0.7, 1.0, np.array(0.3)])
def test_controls_that_are_integers_count_as_floats(coefficient: Any) -> None:
    """Both draws of a coin whose library draws integers, each with its probability."""
    estimator = sf.ControlVariate(PLAIN, lambda b: 2 * b, lambda coin: 2 * coin.probs, coefficient)
    cost, theta = np.array([1.5, -4.0]), 0.3
    keys = jax.random.split(jax.random.key(0), 64)
    coin = distrax.Bernoulli(probs=jnp.array(theta))
    bits = np.asarray(jax.vmap(lambda k: coin.sample(seed=k))(keys))
    assert set(bits.tolist()) == {0, 1}
    terms = np.asarray(estimator(lambda b: jnp.asarray(cost)[b], coin, keys))
    mean = (1 - theta) * terms[bits == 0][0] + theta * terms[bits == 1][0]
    np.testing.assert_allclose(mean, (1 - theta) * cost[0] + theta * cost[1], rtol=1e-12)


def wrong(**changes):
    arguments = {"estimator": PLAIN, "h": one_control, "mean": one_mean} | changes
    kind = arguments.pop("kind", sf.ControlVariate)
    num_samples = arguments.pop("num_samples", 2)
    return sf.expectation(
        lambda b: b[0],
        sf.Bernoulli(jnp.zeros(2)),
        jax.random.key(0),
        kind(**arguments),
        num_samples=num_samples,
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"estimator": sf.Pathwise}, TypeError, r"write Pathwise\("),
        ({"estimator": 3}, TypeError, "estimator must be an Estimator"),
        ({"mean": two_means}, ValueError, r"one shape, \(\) or \[m\], got \(\) and \(2,\)"),
        ({"mean": None}, TypeError, "ControlVariate needs mean as a function.*DeltaMethod"),
        ({"h": 3.0}, TypeError, "ControlVariate needs h as a function"),
        (
            {"kind": sf.FittedControlVariate, "mean": 1.0},
            TypeError,
            "FittedControlVariate needs mean as a function",
        ),
        ({"coefficient": np.ones(3)}, ValueError, r"coefficient has shape \(3,\)"),
        ({"kind": sf.FittedControlVariate}, ValueError, "num_samples must be at least 3"),
        (
            {"kind": sf.FittedControlVariate, "estimator": sf.ScoreFunction(), "num_samples": 4},
            TypeError,
            "one sample each, and ScoreFunction.*needs more samples",
        ),
    ],
)
def test_what_does_not_fit_raises(changes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        wrong(**changes)


def test_a_fit_needs_parameters() -> None:
    with pytest.raises(ValueError, match="holds none"):
        sf.expectation(
            lambda x: x,
            sf.Distribution(lambda _, x: -(x**2), lambda _, key: jax.random.normal(key), None),
            jax.random.key(0),
            sf.FittedControlVariate(sf.Pathwise(), lambda x: x, lambda _: 0.0),
            num_samples=3,
        )
