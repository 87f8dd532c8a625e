"""SumAndSample and its stochastic form: exact moments over everything that can be drawn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.gumbel import draws, log_softmax, product
from support.noise import noise_keys

import scorefn as sf

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

LOGITS = [
    (0.4, -0.3),
    (0.0, 0.0, 0.0),
    (1.2, -0.7, 0.4),
    (9.0, -6.0, 0.0),
    (0.5, -1.0, 2.0, 0.1),
]
CASES = [
    (logits, size, n)
    for logits in LOGITS
    for size in range(1, len(logits))
    for n in (1, 2)
    if len(logits) + n < 6 and (n == 1 or size == 1)
]
COSTS = np.array([1.7, -0.6, 0.9, 3.1])


def cost(logits, coupling):
    """A cost that may depend on the parameters too, so that mixed derivatives count."""
    return lambda x: jnp.asarray(COSTS)[x] + coupling * jnp.sin(logits[0] * x) * logits[1]


def tail_rule(logits, size):
    """Every category that is not summed; the noise picks it."""
    top = np.argsort(-np.asarray(logits), kind="stable")[:size]
    drawn, points, weights = draws(logits, 1)
    rest = [i for i, (x,) in enumerate(drawn) if x not in top]
    return points[rest], weights[rest] / weights[rest].sum()


def ordered_rule(logits, size):
    return draws(logits, size + 1)[1:]


FORMS = {sf.SumAndSample: tail_rule, sf.StochasticSumAndSample: ordered_rule}
both = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)


@jax.jit
@partial(jax.vmap, in_axes=(None, None, None, 0))
def all_orders(estimator, logits, coupling, keys):
    def value(logits):
        return jnp.mean(estimator(cost(logits, coupling), sf.Categorical(logits), keys))

    return [g(logits) for g in (value, jax.grad(value), jax.jacfwd(jax.jacrev(value)))]


def estimates(form, logits, size, n, coupling=1.0):
    """Value, gradient and Hessian of each combination of n draws, and its probability."""
    points, weights = product(*[FORMS[form](logits, size)] * n)
    keys = noise_keys(points.reshape(len(points), n, len(logits)))
    return weights, all_orders(form(size), jnp.asarray(logits), coupling, keys)


@jax.jit
def exact(logits):
    def value(logits):
        p = jax.nn.softmax(logits)
        return p @ jax.vmap(cost(logits, 1.0))(jnp.arange(len(p)))

    return [value(logits), jax.grad(value)(logits), jax.hessian(value)(logits)]


def close(actual, desired, atol=1e-10):
    np.testing.assert_allclose(actual, desired, rtol=0, atol=atol)


@both
@pytest.mark.parametrize(("logits", "size", "n"), CASES)
def test_it_is_unbiased_at_every_order(form, logits, size, n):
    weights, found = estimates(form, logits, size, n)
    close(weights.sum(), 1)
    for estimate, known in zip(found, exact(jnp.asarray(logits)), strict=True):
        close(np.tensordot(weights, estimate, 1), known)


@both
@pytest.mark.parametrize("logits", LOGITS)
def test_with_one_category_left_it_is_exact(form, logits):
    _, found = estimates(form, logits, len(logits) - 1, 1)
    for estimate, known in zip(found, exact(jnp.asarray(logits)), strict=True):
        close(estimate, np.broadcast_to(known, estimate.shape))


@pytest.mark.parametrize("logits", [(1.2, -0.7, 0.4), (0.5, -1.0, 2.0, 0.1)])
def test_the_gradient_of_one_draw_is_its_closed_form(logits):
    p = np.exp(log_softmax(logits))
    scores = np.eye(len(p)) - p
    top = int(np.argmax(p))
    # Alone, the baseline is the mean of what is summed: here of one category, its cost.
    tail = [x for x in range(len(p)) if x != top]
    known = [(1 - p[top]) * (COSTS[x] - COSTS[top]) * scores[x] for x in tail]
    _, (_, gradients, _) = estimates(sf.SumAndSample, logits, 1, 1, 0.0)
    close(gradients, known)


def test_two_draws_take_the_other_one_as_their_baseline():
    logits = (0.5, -1.0, 2.0, 0.1)
    p = np.exp(log_softmax(logits))
    scores, left = np.eye(4) - p, 1 - p[2]
    known = []
    for x in (0, 1, 3):
        for y in (0, 1, 3):
            pair = []
            for one, other in ((x, y), (y, x)):
                b = p[2] * COSTS[2] + left * COSTS[other]
                pair.append(
                    p[2] * (COSTS[2] - b) * scores[2] + left * (COSTS[one] - b) * scores[one]
                )
            known.append(np.mean(pair, axis=0))
    _, (_, gradients, _) = estimates(sf.SumAndSample, logits, 1, 2, 0.0)
    close(gradients, known)


def test_the_variance_falls_with_the_probability_that_is_left():
    left, variances = [], []
    for sharpness in (0.5, 2.0, 4.0):
        logits = sharpness * np.array([2.0, 0.3, 0.0, -0.2])
        weights, (_, gradients, _) = estimates(sf.SumAndSample, logits, 1, 1, 0.0)
        mean = weights @ gradients
        variances.append((weights @ (gradients - mean) ** 2).max())
        left.append(1 - np.exp(log_softmax(logits))[0])
    for i in (0, 1):
        assert variances[i + 1] < variances[i] * (left[i + 1] / left[i]) ** 1.5


@both
def test_impossible_categories_count_for_nothing(form):
    logits = jnp.array([0.3, -jnp.inf, -0.8, -jnp.inf])
    costs = jnp.array([1.0, jnp.inf, 3.0, jnp.nan])
    p = np.exp(log_softmax([0.3, -0.8]))
    for size in (1, 2, 3):

        def value(logits, size=size):
            keys = jax.random.split(jax.random.key(0), 1)
            return jnp.mean(form(size)(lambda x: costs[x], sf.Categorical(logits), keys))

        found, gradient = jax.jit(jax.value_and_grad(value))(logits)
        close(found, p @ [1, 3])
        close(gradient, [-2 * p[0] * p[1], 0, 2 * p[0] * p[1], 0])


@both
@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), (3, ValueError), (True, TypeError), (1.0, TypeError)]
)
def test_a_size_that_does_not_fit_is_an_error(form, size, error):
    with pytest.raises(error, match="size"):
        sf.expectation(
            lambda x: 1.0 * x, sf.Categorical(jnp.zeros(3)), jax.random.key(0), form(size)
        )
