"""UnorderedSet: exact moments over every set, against sums over permutations."""

import itertools
from functools import partial
from math import factorial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.gumbel import draws, log_softmax, probability_of
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
CASES = [(logits, k) for logits in LOGITS for k in range(1, len(logits) + 1)]
COSTS = np.array([1.7, -0.6, 0.9, 3.1])


def cost(logits, coupling):
    """A cost that may depend on the parameters too, so that mixed derivatives count."""
    return lambda x: jnp.asarray(COSTS)[x] + coupling * jnp.sin(logits[0] * x) * logits[1]


def value(logits, coupling, keys):
    return jnp.mean(sf.UnorderedSet()(cost(logits, coupling), sf.Categorical(logits), keys))


@jax.jit
@partial(jax.vmap, in_axes=(None, None, 0))
def all_orders(logits, coupling, keys):
    derivatives = (value, jax.grad(value), jax.jacfwd(jax.jacrev(value)))
    return [derivative(logits, coupling, keys) for derivative in derivatives]


def estimates(logits, k, coupling=1.0):
    """Value, gradient and Hessian for every ordered draw, and the probabilities of the draws."""
    drawn, points, weights = draws(logits, k)
    keys = noise_keys(np.repeat(points[:, None], k, axis=1))
    return drawn, weights, all_orders(jnp.asarray(logits), coupling, keys)


@jax.jit
def exact(logits):
    def value(logits):
        p = jax.nn.softmax(logits)
        return p @ jax.vmap(cost(logits, 1.0))(jnp.arange(len(p)))

    return [value(logits), jax.grad(value)(logits), jax.hessian(value)(logits)]


def close(actual, desired, atol=1e-10):
    np.testing.assert_allclose(actual, desired, rtol=0, atol=atol)


def set_probability(probs, chosen, without=()):
    """The probability of a set, by all orders in which it is drawn, where `without` is missing."""
    probs = np.array([0 if i in without else p for i, p in enumerate(probs)])
    probs = probs / (probs.sum() or 1)
    orders = itertools.permutations([i for i in chosen if i not in without])
    return sum(probability_of(probs, order) for order in orders)


def by_permutations(logits, chosen):
    """The gradient of one set, from the definition."""
    p = np.exp(log_softmax(logits))
    gradient = np.zeros(len(p))
    for s in chosen:
        ratio = set_probability(p, chosen, (s,)) / set_probability(p, chosen)
        baseline = 0.0
        if len(chosen) > 1:
            once = set_probability(p, chosen, (s,))
            others = (t for t in chosen if t != s)
            rest = (p[t] * set_probability(p, chosen, (s, t)) / once * COSTS[t] for t in others)
            baseline = p[s] * COSTS[s] + sum(rest)
        gradient += p[s] * ratio * (COSTS[s] - baseline) * (np.eye(len(p))[s] - p)
    return gradient


@pytest.mark.parametrize(("logits", "k"), CASES)
def test_it_is_unbiased_at_every_order(logits, k):
    _, weights, found = estimates(logits, k)
    close(weights.sum(), 1)
    for estimate, known in zip(found, exact(jnp.asarray(logits)), strict=True):
        close(np.tensordot(weights, estimate, 1), known)


@pytest.mark.parametrize(("logits", "k"), CASES)
def test_each_set_has_the_gradient_of_its_definition(logits, k):
    drawn, _, (_, gradients, _) = estimates(logits, k, 0.0)
    close(gradients, [by_permutations(logits, chosen) for chosen in drawn])


@pytest.mark.parametrize("logits", LOGITS)
def test_all_categories_are_the_exact_sum(logits):
    _, _, found = estimates(logits, len(logits))
    for estimate, known in zip(found, exact(jnp.asarray(logits)), strict=True):
        close(estimate, np.broadcast_to(known, estimate.shape))


@pytest.mark.parametrize("logits", LOGITS)
def test_one_sample_is_the_score_function_without_a_baseline(logits):
    _, weights, (_, gradients, _) = estimates(logits, 1, 0.0)
    p = np.exp(log_softmax(logits))
    scores = COSTS[: len(p), None] * (np.eye(len(p)) - p)
    close(weights, p)
    close(gradients, scores)


def test_seven_samples_are_unbiased():
    logits = np.linspace(-1.0, 2.0, 8)
    p = np.exp(log_softmax(logits))
    sets = list(itertools.combinations(range(8), 7))
    # The probability of leaving out one category, without the 7! orders of the others.
    left_out = [next(iter(set(range(8)) - set(s))) for s in sets]
    weights = []
    for i in left_out:
        others = np.delete(p, i)
        total = 0.0
        for r in range(8):
            for chosen in itertools.combinations(others, r):
                total += (-1) ** r * p[i] / (p[i] + sum(chosen))
        weights.append(total)
    weights = np.array(weights)
    close(weights.sum(), 1)
    noise = [[0.999 if i in s else 1e-9 for i in range(8)] for s in sets]
    keys = noise_keys(np.repeat(np.array(noise)[:, None], 7, axis=1))

    def value(logits, keys):
        return jnp.mean(sf.UnorderedSet()(lambda x: (x - 2.0) ** 2, sf.Categorical(logits), keys))

    call = jax.jit(jax.vmap(jax.value_and_grad(value), (None, 0)))
    values, gradients = call(jnp.asarray(logits), keys)
    x = np.arange(8)
    mean = p @ (x - 2.0) ** 2
    close(weights @ values, mean)
    close(weights @ gradients, p * ((x - 2.0) ** 2 - mean))


@pytest.mark.parametrize("eta", [0.0, -4.0])
@pytest.mark.parametrize("k", [2, 3])
def test_it_beats_leave_one_out_on_three_bits_as_one_category(eta, k):
    # Kool et al. 2020, section 6: 8 categories, f = sum_i (b_i - 0.49)^2, one parameter.
    bits = np.array(list(itertools.product([0, 1], repeat=3)))
    ones = jnp.asarray(bits.sum(1))
    costs = np.sum((bits - 0.49) ** 2, axis=1)

    def value(eta, keys):
        logits = ones * jax.nn.log_sigmoid(eta) + (3 - ones) * jax.nn.log_sigmoid(-eta)
        return jnp.mean(
            sf.UnorderedSet()(lambda x: jnp.asarray(costs)[x], sf.Categorical(logits), keys)
        )

    theta = 1 / (1 + np.exp(-eta))
    p = theta ** bits.sum(1) * (1 - theta) ** (3 - bits.sum(1))
    _, points, weights = draws(np.log(p), k)
    keys = noise_keys(np.repeat(points[:, None], k, axis=1))
    gradients = jax.jit(jax.vmap(jax.grad(value), (None, 0)))(jnp.asarray(eta), keys)
    score = bits.sum(1) - 3 * theta
    g, m = p @ (costs * score), p @ costs
    close(weights @ gradients, g)
    perfect = p @ ((costs - m) ** 2 * score**2) - g**2
    price = p @ (costs - m) ** 2 * (p @ score**2) + g**2
    leave_one_out = perfect / k + price / (k * (k - 1))
    assert weights @ gradients**2 - g**2 < leave_one_out


def test_the_value_is_the_mean_of_sum_and_sample_over_orders():
    logits, k = (0.5, -1.0, 2.0, 0.1), 3
    drawn, weights, (values, _, _) = estimates(logits, k, 0.0)
    p = np.exp(log_softmax(logits))
    for chosen in itertools.combinations(range(4), k):
        rows = [i for i, d in enumerate(drawn) if set(d) == set(chosen)]
        assert len(rows) == factorial(k)
        summed = [
            sum(p[i] * COSTS[i] for i in d[:-1]) + (1 - sum(p[i] for i in d[:-1])) * COSTS[d[-1]]
            for d in (drawn[row] for row in rows)
        ]
        close(values[np.array(rows)], np.average(summed, weights=weights[rows]))


def test_its_own_keys_draw_each_set_with_its_probability():
    logits, n = np.array([0.5, -1.0, 2.0, 0.1]), 20_000

    def chosen(key):
        _, x = sf.expectation(
            lambda x: (0.0, x),
            sf.Categorical(jnp.asarray(logits)),
            key,
            sf.UnorderedSet(),
            num_samples=2,
            has_aux=True,
        )
        return jnp.sort(x)

    pairs = np.asarray(jax.jit(jax.vmap(chosen))(jax.random.split(jax.random.key(0), n)))
    p = np.exp(log_softmax(logits))
    for pair in itertools.combinations(range(4), 2):
        expected = set_probability(p, pair)
        found = np.mean(np.all(pairs == pair, axis=1))
        assert abs(found - expected) < 4.5 * np.sqrt(expected * (1 - expected) / n)


@pytest.mark.parametrize(
    ("categories", "n", "message"),
    [(3, 4, "at most the number of categories"), (20, 13, "at most 12")],
)
def test_too_many_samples_are_an_error(categories, n, message):
    die = sf.Categorical(jnp.zeros(categories))
    with pytest.raises(ValueError, match=message):
        sf.expectation(jnp.square, die, jax.random.key(0), sf.UnorderedSet(), num_samples=n)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_impossible_categories_count_for_nothing(k):
    # Two are possible; their sum is exact once both are drawn, even where the others cost inf.
    logits = np.array([0.3, -np.inf, -0.8, -np.inf])
    costs = jnp.array([1.0, jnp.inf, 3.0, jnp.nan])

    def value(logits, keys):
        return jnp.mean(sf.UnorderedSet()(lambda x: costs[x], sf.Categorical(logits), keys))

    keys = jax.random.split(jax.random.key(1), k)
    found, gradient = jax.jit(jax.value_and_grad(value))(jnp.asarray(logits), keys)
    assert np.all(np.isfinite(gradient))
    if k > 1:
        p = np.exp(log_softmax([0.3, -0.8]))
        close(found, p @ [1, 3])
        close(gradient, [-2 * p[0] * p[1], 0, 2 * p[0] * p[1], 0])


def test_the_largest_set_is_exact_where_it_holds_everything():
    logits = jnp.linspace(-3.0, 3.0, 12)

    def value(logits):
        keys = jax.random.split(jax.random.key(0), 12)
        return jnp.mean(sf.UnorderedSet()(lambda x: x**2.0, sf.Categorical(logits), keys))

    p, x = jax.nn.softmax(logits), jnp.arange(12)
    found, gradient = jax.jit(jax.value_and_grad(value))(logits)
    close(found, p @ x**2)
    close(gradient, p * (x**2 - p @ x**2))
