"""The estimators for categories, together: transformations, libraries, extremes, counts, errors."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import pytest
from tensorflow_probability.substrates import jax as tfp

import scorefn as sf

FIRST_ORDER = [sf.CoupledCategorical(), sf.LocalExpectation(), sf.LocalExpectation(chunk_size=2)]
EVERY_ORDER = [sf.UnorderedSet(), sf.SumAndSample(2), sf.StochasticSumAndSample(2)]
ALL = FIRST_ORDER + EVERY_ORDER
LOGITS = (0.5, -1.0, 2.0, 0.0)
KEY = jax.random.key(3)


def estimate(estimator, logits, scale=1.0, key=KEY, num_samples=3, make=sf.Categorical, **options):
    """A pytree of costs that depends on a parameter of its own."""

    def f(x):
        y = jnp.asarray(x, jnp.result_type(scale))
        return {"scalar": jnp.sin(scale * y), "matrix": jnp.stack([y, scale * y**2])[:, None]}

    return sf.expectation(f, make(logits), key, estimator, num_samples=num_samples, **options)


def total(*args, **kwargs):
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(estimate(*args, **kwargs)))


def close(actual, desired, atol=1e-5):
    np.testing.assert_allclose(actual, desired, rtol=0, atol=atol)


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_aux_is_that_of_the_draws(estimator):
    def value(logits):
        f = lambda x: (1.0 * x, x)  # noqa: E731
        die, n = sf.Categorical(logits), 4
        return sf.expectation(f, die, KEY, estimator, num_samples=n, has_aux=True)

    _, aux = jax.eval_shape(value, jnp.array(LOGITS))
    assert aux.shape == ((4, 2) if estimator == sf.CoupledCategorical() else (4,))
    assert aux.dtype == jnp.int32


@pytest.mark.parametrize("estimator", FIRST_ORDER, ids=repr)
def test_a_second_derivative_raises(estimator):
    logits = jnp.array(LOGITS)

    def fn(logits, scale=1.3):
        return total(estimator, logits, scale)

    def in_a_scan(logits):
        return jax.lax.scan(lambda c, _: (c + jax.grad(fn)(logits).sum(), None), 0.0, None, 2)[0]

    def of_a_scan(logits):
        return jax.lax.scan(lambda c, _: (c + fn(logits), None), 0.0, None, length=2)[0]

    second = [
        jax.grad(lambda z: jax.grad(fn)(z)[0]),
        jax.jacfwd(jax.grad(fn)),
        jax.jit(jax.hessian(fn)),
        jax.grad(in_a_scan),
        jax.grad(lambda z: jax.grad(of_a_scan)(z)[0]),
        jax.jacfwd(jax.grad(of_a_scan)),
    ]
    for derivative in second:
        with pytest.raises(TypeError, match="first order only"):
            jax.eval_shape(derivative, logits)


@pytest.mark.parametrize("estimator", FIRST_ORDER, ids=repr)
@pytest.mark.usefixtures("x64")
def test_a_mixed_derivative_is_the_difference_of_gradients(estimator):
    def fn(logits, scale):
        return total(estimator, logits, scale)

    @jax.jit
    def together(logits, scale):
        gradients = jax.vmap(jax.grad(fn), (None, 0))(logits, scale + jnp.array([-1e-5, 1e-5]))
        one = jax.jacfwd(jax.grad(fn, 0), 1)(logits, scale)
        return gradients, one, jax.jacrev(jax.grad(fn, 1), 0)(logits, scale)

    gradients, one, other = together(jnp.array(LOGITS), 1.3)
    close(one, (gradients[1] - gradients[0]) / 2e-5, 1e-6)
    close(one, other, 1e-12)


EXTREMES = np.array(
    [
        [30.0, -30.0, 30.0, -30.0],
        [30.0, -30.0, 0.0, -30.0],
        [-30.0, 30.0, -30.0, -30.0],
        [0.0, 0.0, 0.0, 0.0],
    ],
    np.float32,
)


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_single_precision_keeps_to_extreme_logits(estimator):
    costs = jnp.array([1.0, 1e3, 2.0, -1e3])

    @jax.jit
    @jax.vmap
    def gradient(logits):
        def value(logits):
            keys = jax.random.split(KEY, 4)
            return jnp.mean(estimator(lambda x: costs[x], sf.Categorical(logits), keys))

        return jax.grad(value)(logits)

    found = gradient(EXTREMES)
    assert found.dtype == jnp.float32
    assert np.all(np.isfinite(found))
    close(found[1:3], np.zeros((2, 4)))
    close(found.sum(1), np.zeros(4), 1e-3)
    # A fair coin of two costs that differ by 1: each of these knows its gradient from any draw.
    close(found[0], [-0.25, 0, 0.25, 0])


@pytest.mark.parametrize("estimator", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
@pytest.mark.usefixtures("x64")
def test_dtypes_are_kept(estimator, dtype):
    seen = []

    def value(logits):
        def f(x):
            seen.append(x.dtype)
            return x.astype(dtype)

        keys = jax.random.split(KEY, 2)
        terms = estimator(f, sf.Categorical(logits, jnp.int8), keys)
        assert terms.dtype == dtype
        return terms.sum()

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        assert jax.eval_shape(jax.grad(value), jnp.zeros(4, dtype)).dtype == dtype
    assert set(seen) == {jnp.dtype(jnp.int8)}


@pytest.mark.parametrize("estimator", [sf.CoupledCategorical(), sf.UnorderedSet()], ids=repr)
def test_objects_of_libraries_are_read(estimator):
    values = jnp.array([0.3, -1.0, 2.0, 0.7])
    indices = [
        sf.Categorical,
        lambda z: distrax.Categorical(logits=z),
        lambda z: tfp.distributions.Categorical(logits=z),
        lambda z: numpyro.distributions.Categorical(logits=z),
        lambda z: numpyro.distributions.Categorical(probs=jax.nn.softmax(z)),
    ]
    one_hot = [
        sf.OneHotCategorical,
        lambda z: distrax.OneHotCategorical(logits=z),
    ]
    batched = [lambda z: distrax.Independent(distrax.Categorical(logits=z[None]), 1)]

    @jax.jit
    def together(logits):
        def gradient(make, f):
            fn = lambda z: sf.expectation(f, make(z), KEY, estimator, num_samples=3)  # noqa: E731
            return jax.grad(fn)(logits)

        return [
            *(gradient(make, lambda x: values[x]) for make in indices),
            *(gradient(make, lambda x: values @ x) for make in one_hot),
            *(gradient(make, lambda x: values[x[0]]) for make in batched),
        ]

    own, *others = together(jnp.array(LOGITS))
    for other in others:
        close(other, own)


def test_local_expectation_reads_bits_of_libraries():
    made = [
        sf.Bernoulli,
        lambda z: distrax.Independent(distrax.Bernoulli(probs=jax.nn.sigmoid(z)), 1),
        lambda z: tfp.distributions.Bernoulli(logits=z),
        lambda z: numpyro.distributions.Bernoulli(logits=z).to_event(1),
    ]

    @jax.jit
    def together(logits):
        def gradient(make):
            f = lambda b: (b[0] - 2.0 * b[1]) * b[2]  # noqa: E731
            fn = lambda z: sf.expectation(f, make(z), KEY, sf.LocalExpectation())  # noqa: E731
            return jax.grad(fn)(logits)

        return [gradient(make) for make in made]

    own, *others = together(jnp.array([0.3, -1.0, 0.0]))
    for other in others:
        close(other, own)


@pytest.mark.parametrize(
    ("estimator", "n", "count"),
    [
        (sf.CoupledCategorical(), 3, 6),
        (sf.LocalExpectation(), 2, 8),
        (sf.LocalExpectation(chunk_size=2), 2, 8),
        (sf.UnorderedSet(), 3, 3),
        (sf.SumAndSample(2), 3, 5),
        (sf.StochasticSumAndSample(2), 3, 9),
    ],
    ids=repr,
)
def test_evaluations_are_as_many_as_stated(estimator, n, count):
    seen = []

    def f(x):
        jax.debug.callback(lambda _: seen.append(1), x)
        return 1.0 * x

    keys = jax.random.split(KEY, n)
    fn = jax.jit(lambda logits: estimator(f, sf.Categorical(logits), keys))
    jax.block_until_ready(fn(jnp.zeros(4)))
    jax.effects_barrier()
    assert len(seen) == count


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_an_infinite_cost_keeps_the_value_and_breaks_the_derivative(estimator):
    costs = jnp.array([jnp.inf, 0.0, 1.0])

    def value(logits):
        keys = jax.random.split(KEY, 3)
        return estimator(lambda x: costs[x], sf.Categorical(logits), keys).max()

    found, gradient = jax.jit(jax.value_and_grad(value))(jnp.array([9.0, 0.0, 0.0]))
    assert found == jnp.inf
    assert not np.all(np.isfinite(gradient))


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_a_distribution_that_does_not_fit_raises(estimator):
    with pytest.raises(TypeError, match="ScoreFunction fits every distribution"):
        sf.expectation(lambda x: x, distrax.Normal(0.0, 1.0), KEY, estimator)


@pytest.mark.parametrize("estimator", EVERY_ORDER, ids=repr)
def test_several_factors_raise_where_one_is_needed(estimator):
    with pytest.raises(TypeError, match="3 independent factors.*CoupledCategorical"):
        sf.expectation(jnp.sum, sf.Categorical(jnp.zeros((3, 4))), KEY, estimator)
    with pytest.raises(TypeError, match="Bernoulli"):
        sf.expectation(jnp.sum, sf.Bernoulli(jnp.zeros(())), KEY, estimator)


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_it_is_a_pytree_without_leaves(estimator):
    leaves, structure = jax.tree.flatten(estimator)
    assert leaves == []
    assert jax.tree.unflatten(structure, leaves) == estimator
