"""ARM, DisARM, ARMS and BitFlip: exact means and variances by quadrature over their noise."""

import itertools
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.noise import noise_keys

import scorefn as sf

TABLE = np.array([[1.0, -2.0], [0.5, 4.0]])
LOGITS = [(0.7, -1.1), (0.0, 0.0), (3.0, -0.2)]
PAIRS = [sf.ARM(), sf.DisARM()]
BINARY = [sf.ARM(), sf.DisARM(), sf.ARMS(), sf.BitFlip()]


pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]


def two_bits(bits):
    rows = [jnp.stack([1 - bit, bit]) for bit in bits]
    return rows[0] @ jnp.asarray(TABLE, rows[0].dtype) @ rows[1]


def one_bit(bits):
    return (bits[0] - 0.45) ** 2


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x)))


def exact(f, logits):
    def value(logits):
        return sf.Enumerate()(f, sf.Bernoulli(logits), jax.random.split(jax.random.key(0), 1))[0]

    return jax.value_and_grad(value)(jnp.asarray(logits))


def moments(estimator, f, logits, uniforms, weights):
    """Exact value, gradient and variance of the gradient of one call: uniforms are [P, n, w]."""

    def value(logits, keys):
        return jnp.mean(estimator(f, sf.Bernoulli(logits), keys))

    call = jax.jit(jax.vmap(jax.value_and_grad(value), (None, 0)))
    values, gradients = call(jnp.asarray(logits), noise_keys(uniforms))
    mean = weights @ gradients
    return weights @ values, mean, weights @ gradients**2 - mean**2


def product(rules):
    """The product of one-dimensional rules (points, weights), points [P, dimensions]."""
    points = np.array(list(itertools.product(*(points for points, _ in rules))))
    weights = np.prod(list(itertools.product(*(weights for _, weights in rules))), axis=1)
    return points, weights


def uniform_rules(logits):
    """Two Gauss-Legendre points between each two of the jumps at p and 1 - p, for each bit."""
    x, w = np.polynomial.legendre.leggauss(2)
    for p in sigmoid(logits):
        edges = np.sort([0.0, p, 1 - p, 1.0])
        left, width = edges[:-1, None], np.diff(edges)[:, None]
        keep = np.repeat(width.ravel() > 0, 2)
        yield (left + width * (x + 1) / 2).ravel()[keep], (width * w / 2).ravel()[keep]


def copula_rule(logit, samples):
    """One Dirichlet point for each pattern of K bits, with the exact probability of the pattern."""
    q = min(sigmoid(logit), 1 - sigmoid(logit))
    threshold = 1 - q ** (1 / (samples - 1))
    points, weights = [], []
    for pattern in itertools.product([False, True], repeat=samples):
        s, rest = sum(pattern), samples - sum(pattern)
        weight = sum(
            (-1) ** j * comb(rest, j) * max(1 - (s + j) * threshold, 0) ** (samples - 1)
            for j in range(rest + 1)
        )
        if weight > 1e-15:
            high = (1 / s - 1e-3 * (1 / s - threshold)) if s else 0.0
            shares = np.where(pattern, high, (1 - s * high) / rest if rest else 0.0)
            points.append(-np.expm1(-shares))  # the uniforms whose exponentials are the shares
            weights.append(weight)
    return np.array(points), np.array(weights)


def arms_rule(logits, samples):
    rules = [copula_rule(logit, samples) for logit in logits]
    points = [np.stack(p, -1) for p in itertools.product(*(points for points, _ in rules))]
    return np.array(points), np.prod(list(itertools.product(*(w for _, w in rules))), axis=1)


@pytest.mark.parametrize("estimator", PAIRS, ids=repr)
@pytest.mark.parametrize("logits", LOGITS)
def test_a_pair_is_unbiased(estimator, logits):
    points, weights = product(list(uniform_rules(logits)))
    value, gradient, _ = moments(estimator, two_bits, logits, points[:, None], weights)
    np.testing.assert_allclose(weights.sum(), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(value, exact(two_bits, logits)[0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(gradient, exact(two_bits, logits)[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("theta", [0.2, 0.5, 0.9])
def test_the_variance_of_a_pair_on_one_bit(theta):
    logits = [np.log(theta / (1 - theta))]
    points, weights = product(list(uniform_rules(logits)))
    v, q, difference = theta * (1 - theta), min(theta, 1 - theta), 0.55**2 - 0.45**2
    known = {
        sf.ARM(): difference**2 * (2 / 3 * (1 / 8 - (0.5 - q) ** 3) - v**2),
        sf.DisARM(): difference**2 * v * (1 - q) * (0.5 - q),
    }
    for estimator, variance in known.items():
        found = moments(estimator, one_bit, logits, points[:, None], weights)[2][0]
        np.testing.assert_allclose(found, variance, rtol=0, atol=1e-12)


@pytest.mark.parametrize("samples", [2, 3, 4])
@pytest.mark.parametrize("logits", LOGITS)
def test_arms_is_unbiased(logits, samples):
    points, weights = arms_rule(logits, samples)
    value, gradient, _ = moments(sf.ARMS(), two_bits, logits, points, weights)
    np.testing.assert_allclose(weights.sum(), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(value, exact(two_bits, logits)[0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(gradient, exact(two_bits, logits)[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("theta", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("samples", [2, 3, 5])
def test_the_variance_of_arms_on_one_bit(theta, samples):
    logits = [np.log(theta / (1 - theta))]
    points, weights = arms_rule(logits, samples)
    q, v = min(theta, 1 - theta), theta * (1 - theta)
    a = 1 - q ** (1 / (samples - 1))
    scale = v / (q - max(1 - 2 * a, 0) ** (samples - 1)) * (0.55**2 - 0.45**2)
    ones = np.arange(samples + 1)
    probability = np.array(
        [
            sum(
                (-1) ** (j - s) * comb(j, s) * comb(samples, j) * max(1 - j * a, 0) ** (samples - 1)
                for j in range(s, samples + 1)
            )
            for s in ones
        ]
    )
    estimate = scale * ones * (samples - ones) / (samples * (samples - 1))
    variance = probability @ estimate**2 - (probability @ estimate) ** 2
    found = moments(sf.ARMS(), one_bit, logits, points, weights)[2][0]
    np.testing.assert_allclose(found, variance, rtol=0, atol=1e-12)


@pytest.mark.parametrize("logits", LOGITS)
def test_bit_flip_is_unbiased(logits):
    # The lowest bit of the second number says which of the two bits is flipped.
    which = [(np.array([0.5]), np.ones(1)), (np.array([0.5, 0.5 + 2.0**-12]), np.full(2, 0.5))]
    points, weights = product([*which, *uniform_rules(logits)])
    value, gradient, _ = moments(sf.BitFlip(), two_bits, logits, points[:, None], weights)
    np.testing.assert_allclose(value, exact(two_bits, logits)[0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(gradient, exact(two_bits, logits)[1], rtol=0, atol=1e-10)


def test_bit_flip_is_exact_on_one_bit():
    logits = jnp.array([0.3])
    gradient = jax.grad(
        lambda logits: jnp.mean(
            sf.BitFlip()(one_bit, sf.Bernoulli(logits), jax.random.split(jax.random.key(0), 5))
        )
    )(logits)
    np.testing.assert_allclose(gradient, exact(one_bit, logits)[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("estimator", BINARY, ids=repr)
def test_extreme_logits_in_float32(estimator):
    logits = jnp.array([30.0, -30.0, 0.0], jnp.float32)

    def loss(logits, key):
        def f(b):
            return 1e3 * b[0] * (1 - b[1]) + 2 * b[2]

        return sf.expectation(f, sf.Bernoulli(logits), key, estimator, num_samples=4)

    value, gradient = jax.value_and_grad(loss)(logits, jax.random.key(0))
    assert gradient.dtype == jnp.float32
    assert value.dtype == jnp.float32
    assert value >= 1e3
    assert np.isfinite(gradient).all()
    if not isinstance(estimator, sf.ARM):  # whose noise stays where nothing is undecided
        # The exact derivative along the first two is 1e3 * sigmoid'(30) = 9.4e-11.
        np.testing.assert_allclose(gradient[:2], 0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("estimator", BINARY, ids=repr)
@pytest.mark.parametrize("dtype", [jnp.int32, bool, jnp.float32])
def test_draws_have_the_dtype_of_the_distribution(estimator, dtype):
    seen = []

    def f(bits):
        seen.append(bits.dtype)
        return bits.sum() * 1.0

    sf.expectation(
        f, sf.Bernoulli(jnp.zeros(3), dtype), jax.random.key(0), estimator, num_samples=2
    )
    assert set(seen) == {jnp.dtype(dtype)}


@pytest.mark.parametrize("estimator", BINARY, ids=repr)
@pytest.mark.parametrize("wrap", ["grad", "forward", "scan"])
def test_a_second_derivative_raises(estimator, wrap):
    def loss(logits):
        bits = sf.Bernoulli(logits)
        return sf.expectation(two_bits, bits, jax.random.key(0), estimator, num_samples=2)

    def scanned(logits):
        def step(total, scale):
            return total + loss(scale * logits), None

        return jax.lax.scan(step, 0.0, jnp.arange(1.0, 4.0))[0]

    second = {
        "grad": jax.jacrev(jax.grad(loss)),
        "forward": jax.jacfwd(jax.jacfwd(loss)),
        "scan": jax.jit(jax.jacfwd(jax.grad(scanned))),
    }[wrap]
    with pytest.raises(TypeError, match=f"{type(estimator).__name__} is right to first order only"):
        second(jnp.array([0.3, -0.2]))


@pytest.mark.parametrize("estimator", BINARY, ids=repr)
def test_other_distributions_are_refused(estimator):
    with pytest.raises(TypeError, match="needs independent bits.*got Categorical"):
        sf.expectation(
            lambda x: 1.0 * x,
            sf.Categorical(jnp.zeros(3)),
            jax.random.key(0),
            estimator,
            num_samples=2,
        )


def test_arms_needs_two_samples():
    with pytest.raises(ValueError, match="num_samples must be at least 2 with ARMS"):
        sf.expectation(two_bits, sf.Bernoulli(jnp.zeros(2)), jax.random.key(0), sf.ARMS())


@pytest.mark.parametrize("estimator", [sf.DisARM(), sf.BitFlip(), sf.ARM(), sf.LocalExpectation()])
def test_an_infinite_cost_keeps_the_value_and_breaks_the_derivative(estimator) -> None:
    """A broken cost must not look like a small step."""

    def loss(logits):
        f = lambda x: jnp.where(x[0] > 0, jnp.inf, 1.0) + x[1]  # noqa: E731
        return sf.expectation(f, sf.Bernoulli(logits), jax.random.key(0), estimator, num_samples=8)

    value, (slope, _) = jax.value_and_grad(loss)(jnp.array([0.1, 0.2]))
    assert value == jnp.inf
    assert not jnp.isfinite(slope)
