"""CoupledCategorical: exact means and variances over every outcome of its sticks."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.gumbel import log_softmax, product
from support.noise import noise_keys

import scorefn as sf

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

ONE = [
    (0.3, -0.4),
    (0.0, 0.0),
    (0.0, 0.0, 0.0),
    (1.2, -0.7, 0.4),
    (6.0, -2.0, 0.0),
    (0.0, 1.0, 1.0, 1.0),
    (0.5, -1.0, 2.0, 0.1),
    (-9.0, 8.0, 0.0, -9.0),
]
TWO = [((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), ((1.2, -0.7, 0.4), (-3.0, 0.2, 2.0))]


def table(*shape):
    return np.random.default_rng(0).normal(size=shape)


def one_factor(x):
    return jnp.asarray(table(4))[x]


def two_factors(x):
    return jnp.asarray(table(3, 3))[x[0], x[1]]


def stick_rule(logits):
    """The middle of each piece on which neither draw of the pair changes, for each stick."""
    p = np.sort(np.exp(log_softmax(logits)))
    sticks = p[:-1] / np.cumsum(p[::-1])[::-1][:-1]
    rules = []
    for stick in np.minimum(sticks, 0.5):
        edges = np.array([0, stick, 1 - stick, 1])
        keep = np.diff(edges) > 1e-15
        rules.append((((edges[1:] + edges[:-1]) / 2)[keep, None], np.diff(edges)[keep]))
    return product(*rules)


@partial(jax.jit, static_argnums=(0, 1, 2))
@partial(jax.vmap, in_axes=(None, None, None, None, 0))
def value_and_grad(f, make, estimator, logits, keys):
    def value(logits):
        return jnp.mean(estimator(f, make(logits), keys))

    return jax.value_and_grad(value)(logits)


def moments(f, logits, rule, make=sf.Categorical):
    points, weights = rule
    keys = noise_keys(points[:, None])
    values, gradients = value_and_grad(f, make, sf.CoupledCategorical(), jnp.asarray(logits), keys)
    mean = np.tensordot(weights, gradients, 1)
    return weights @ values, mean, np.tensordot(weights, (gradients - mean) ** 2, 1)


def exact(f, logits):
    keys = jax.random.key(0)[None, None]
    value, gradient = value_and_grad(f, sf.Categorical, sf.Enumerate(), jnp.asarray(logits), keys)
    return value[0], gradient[0]


def close(actual, desired, atol=1e-10):
    np.testing.assert_allclose(actual, desired, rtol=0, atol=atol)


def reference(logits, costs, order):
    """Mean and variance of the coupled gradient with sticks in any order, J counted from pairs."""
    q = np.exp(log_softmax(logits))
    ordered = q[list(order)]
    sticks = ordered[:-1] / np.cumsum(ordered[::-1])[::-1][:-1]
    joint = np.zeros((len(q), len(q)))
    for pattern in itertools.product(range(3), repeat=len(sticks)):
        edges = [np.sort([0, p, 1 - p, 1]) for p in sticks]
        u = [(e[i] + e[i + 1]) / 2 for e, i in zip(edges, pattern, strict=True)]
        weight = np.prod([e[i + 1] - e[i] for e, i in zip(edges, pattern, strict=True)])
        pair = [
            order[np.argmax([*(np.asarray(noise) < sticks), True])]
            for noise in (u, 1 - np.asarray(u))
        ]
        joint[pair[0], pair[1]] += weight
    score = np.eye(len(q))
    mean, square = np.zeros(len(q)), np.zeros(len(q))
    for z, other in zip(*np.nonzero(joint > 1e-15), strict=True):
        ratio = q[z] * q[other] / joint[z, other]
        estimate = (costs[z] - costs[other]) / 2 * ratio * (score[z] - score[other])
        mean += joint[z, other] * estimate
        square += joint[z, other] * estimate**2
    return mean, square - mean**2


@pytest.mark.parametrize("logits", ONE)
def test_one_factor_is_unbiased_and_of_the_known_variance(logits):
    value, gradient, variance = moments(one_factor, logits, stick_rule(logits))
    close(value, exact(one_factor, logits)[0])
    close(gradient, exact(one_factor, logits)[1])
    close(variance, reference(logits, table(4), np.argsort(logits, kind="stable"))[1])


@pytest.mark.parametrize("logits", TWO)
def test_each_of_two_factors_takes_its_own_ratio(logits):
    rule = product(*(stick_rule(row) for row in logits))
    value, gradient, _ = moments(two_factors, logits, rule)
    close(value, exact(two_factors, logits)[0])
    close(gradient, exact(two_factors, logits)[1])


def test_one_hot_draws_and_any_batch_shape():
    logits = np.array([[[1.2, -0.7, 0.4]], [[-1.0, 0.2, 2.0]]])
    rule = product(stick_rule(logits[0, 0]), stick_rule(logits[1, 0]))

    def f(x):
        return x[0, 0] @ jnp.asarray(table(3, 3)) @ x[1, 0]

    _, gradient, _ = moments(f, logits, rule, make=sf.OneHotCategorical)
    close(gradient[:, 0], exact(two_factors, logits[:, 0])[1])


@pytest.mark.parametrize("logits", [(2.0, 0.3, -0.5), (1.5, 0.2, -0.3, 0.1)])
def test_sticks_that_do_not_ascend_would_be_biased(logits):
    costs, exact_gradient = table(4), exact(one_factor, logits)[1]
    ascending = np.argsort(logits)
    close(reference(logits, costs, ascending)[0], exact_gradient)
    descending, _ = reference(logits, costs, ascending[::-1])
    assert np.abs(descending - exact_gradient).max() > 1e-3


@pytest.mark.parametrize("logit", [0.0, 0.8, -2.5])
def test_two_categories_are_disarm_draw_by_draw(logit):
    keys = jax.random.split(jax.random.key(0), 64)

    def f(x):
        return jnp.array([0.3, 2.0])[jnp.asarray(x, int)]

    def categories(logit):
        logits = jnp.stack([jnp.zeros_like(logit), logit])
        return sf.CoupledCategorical()(f, sf.Categorical(logits), keys)

    def bits(logit):
        return sf.DisARM()(lambda b: f(b[0]), sf.Bernoulli(logit[None]), keys)

    tangent = (jnp.asarray(logit),), (jnp.asarray(1.0),)
    found, known = jax.jit(lambda: [jax.jvp(g, *tangent) for g in (categories, bits)])()
    close(found[0], known[0], 1e-12)
    close(found[1], known[1], 1e-12)


def test_one_category_is_no_choice():
    value, gradient, _ = moments(one_factor, (0.7,), (np.array([[0.5]]), np.ones(1)))
    close(value, table(4)[0])
    close(gradient, [0.0])
