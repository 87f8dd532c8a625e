"""Facts read off objects of other libraries: by exact class, through known wrappers, checked."""

from functools import partial

import distrax
import flowjax.distributions as fjd
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as nd
import pytest
from tensorflow_probability.substrates import jax as tfp

import scorefn as sf
from scorefn import vi

tfd = tfp.distributions
# TFP asks for 64 bits in places, whatever the precision.
pytestmark = pytest.mark.filterwarnings("ignore:Explicitly requested dtype:UserWarning")

KEY = jax.random.key(0)
LOGITS = jnp.array([0.2, -0.4, 1.0])


def expected(distribution, estimator, f=lambda x: jnp.sum(1.0 * x), num_samples=4):
    return sf.expectation(f, distribution, KEY, estimator, num_samples=num_samples)


def one_surrogate(params, z):
    return params * jnp.sum(z)


class Shifted(distrax.Bernoulli):
    """A subclass may draw anything: here 1 less."""

    def _sample_n(self, key, n):
        return super()._sample_n(key, n) - 1


WRAPPED = {
    "CategoricalUniform": distrax.CategoricalUniform(low=0.0, high=3.0, logits=LOGITS),
    "masked": nd.Bernoulli(logits=LOGITS).mask(jnp.array([True, False, False])),
    "inflated": nd.ZeroInflatedDistribution(nd.Bernoulli(logits=LOGITS), gate=0.3),
    "quantized": distrax.Quantized(distrax.Normal(0.3, 1.0)),
    "subclass": Shifted(logits=LOGITS),
    "mixture": tfd.MixtureSameFamily(tfd.Categorical(LOGITS), tfd.Bernoulli(LOGITS)),
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize(
    "estimator",
    [
        sf.GO(),
        sf.MeasureValued(),
        sf.LocalExpectation(),
        sf.UnorderedSet(),
        sf.RELAX(one_surrogate, 1.0),
        sf.DisARM(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_what_wraps_or_extends_a_known_class_is_another_distribution(name, estimator):
    with pytest.raises(TypeError, match=f"needs .*got {type(WRAPPED[name]).__name__}"):
        expected(WRAPPED[name], estimator)


@pytest.mark.parametrize("name", ["CategoricalUniform", "quantized", "subclass", "mixture"])
def test_no_support_is_read_off_what_is_not_known(name):
    with pytest.raises(ValueError, match="cannot read the support"):
        expected(WRAPPED[name], sf.Enumerate())


def test_a_masked_support_does_not_add_up():
    def mass(logits):
        masked = nd.Bernoulli(logits=logits).mask(jnp.array([True, False, False]))
        return expected(masked, sf.Enumerate(), lambda _: 1.0)

    with pytest.raises(ValueError, match="MaskedDistribution do not"):
        mass(LOGITS)
    assert np.isnan(jax.jit(mass)(LOGITS))
    assert np.isnan(jax.jit(jax.grad(mass))(LOGITS)).any()


def test_an_inflated_support_is_that_of_its_library():
    inflated = nd.ZeroInflatedDistribution(nd.BernoulliProbs(0.6), gate=0.3)
    np.testing.assert_allclose(expected(inflated, sf.Enumerate()), 0.7 * 0.6, rtol=1e-6)


MOMENTS = [
    sf.DeltaMethod(sf.Pathwise()),
    sf.QuadraticSurrogate(sf.Pathwise(), jnp.array(0.5), jnp.array(-0.7)),
]


@pytest.mark.parametrize("estimator", MOMENTS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("kind", [distrax.VonMises, tfd.VonMises, nd.VonMises])
def test_circular_moments_are_not_those_of_the_draws(estimator, kind):
    with pytest.raises(TypeError, match="cannot read them from VonMises"):
        expected(kind(0.3, 1.5), estimator, jnp.square)


@pytest.mark.parametrize("estimator", MOMENTS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    "build", [lambda m: nd.Levy(m, 1.0), lambda m: tfd.StudentT(1.5, m, 1.0)], ids=["Levy", "t"]
)
def test_moments_that_are_infinite_are_refused(estimator, build):
    def loss(m):
        return expected(build(m), estimator, jnp.square)

    with pytest.raises(ValueError, match="finite mean"):
        loss(0.3)
    assert np.isnan(jax.jit(loss)(0.3))
    assert np.isnan(jax.jit(jax.grad(loss))(0.3))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [sf.Stratified, sf.QuasiMonteCarlo, sf.Antithetic])
def test_a_quantile_found_by_search_has_the_derivative_of_the_cdf(scheme):
    def mean(df, noncentrality):
        draws = tfd.NoncentralChi2(df, noncentrality)
        return expected(draws, scheme(sf.Pathwise()), num_samples=512)

    # E x = df + noncentrality; with 512 points the estimate is off by less than 0.02.
    np.testing.assert_allclose(jax.grad(mean, 1)(3.0, 1.5), 1, atol=0.05)
    with pytest.raises(TypeError, match="respect to df|derivative along df"):
        jax.grad(mean)(3.0, 1.5)


def test_quantiles_and_moments_that_libraries_have_wrong():
    with pytest.raises(TypeError, match="knows no inverse cdf of DiscreteUniform"):
        expected(nd.DiscreteUniform(1, 4), sf.Stratified(sf.ScoreFunction(sf.ConstantBaseline(0))))
    with pytest.raises(TypeError, match="cannot read them from GammaGamma"):
        expected(tfd.GammaGamma(1.5, 3.5, 2.0), sf.DeltaMethod(sf.Pathwise()))


def test_the_quantile_of_a_generalized_normal_has_derivatives():
    def mean_square(scale):
        draws = tfd.GeneralizedNormal(0.4, scale, 2.0)
        return expected(draws, sf.Stratified(sf.Pathwise()), jnp.square, num_samples=512)

    # With power 2 it is a Normal of variance scale^2 / 2.
    np.testing.assert_allclose(jax.grad(mean_square)(0.8), 0.8, atol=0.03)


def test_the_ends_of_a_flowjax_uniform():
    def mean_square(low):
        draws = fjd.Uniform(jax.lax.stop_gradient(low), 2.0)
        return expected(draws, sf.Antithetic(sf.Pathwise()), jnp.square, num_samples=4096)

    np.testing.assert_allclose(mean_square(0.5), (0.25 + 1 + 4) / 3, atol=0.02)


def test_go_steps_over_categories_that_cannot_be_drawn():
    def loss(logit):
        die = sf.Categorical(jnp.array([0.0, -jnp.inf, 0.0]).at[0].set(logit))
        return expected(die, sf.GO(), lambda x: jnp.array([0.0, 9.0, 1.0])[x], 4096)

    # The step from 0 to 2 has the value 1 and the weight 1/2 where 0 was drawn.
    np.testing.assert_allclose(jax.grad(loss)(0.0), -0.25, atol=0.02)


def test_named_joints_that_jax_cannot_flatten_are_leaves():
    def loss(m):
        joint = tfd.JointDistributionNamed({"z": tfd.Normal(m, 1.0), "b": tfd.Bernoulli(0.3)})
        return expected(joint, sf.Pathwise(), lambda x: x["z"] ** 2, 4096)

    np.testing.assert_allclose(jax.grad(loss)(0.4), 0.8, atol=0.15)


class OwnKey:
    def log_prob(self, x):
        return 0.0 * x

    def sample(self, shape, key):
        return jax.random.normal(key, shape)


class NamedKey(OwnKey):
    def sample(self, *, rng):
        return jax.random.normal(rng)


@pytest.mark.parametrize("kind", [OwnKey, NamedKey])
def test_a_sampler_of_another_signature_is_named(kind):
    with pytest.raises(TypeError, match=rf"that of {kind.__name__} is sample\("):
        expected(kind(), sf.ScoreFunction())


def test_records_say_what_they_take():
    with pytest.raises(TypeError, match=r"write Bernoulli\(jax.scipy.special.logit\(probs\)\)"):
        sf.Bernoulli(probs=0.3)
    with pytest.raises(TypeError, match=r"write Categorical\(jnp.log\(probs\)\)"):
        sf.Categorical(probs=[0.3, 0.7])
    with pytest.raises(ValueError, match="one for each category; got a scalar"):
        sf.Categorical(0.0).sample(KEY)
    listed = sf.Categorical([0.0, 1.0])
    assert len(jax.tree.leaves(listed)) == 1
    np.testing.assert_allclose(listed.log_prob(1), jax.nn.log_sigmoid(1.0), rtol=1e-6)


def test_certain_bits_have_a_probability():
    np.testing.assert_array_equal(sf.Bernoulli(jnp.inf).log_prob(1.0), 0)
    np.testing.assert_array_equal(sf.Bernoulli(jnp.inf).log_prob(0.0), -jnp.inf)
    np.testing.assert_array_equal(jax.grad(lambda z: sf.Bernoulli(z).log_prob(1.0))(jnp.inf), 0)


@pytest.mark.parametrize("estimator", [sf.BitFlip(), sf.DoubleCV(), sf.Enumerate()])
def test_the_elbo_of_a_certain_bit(estimator):
    probs = np.array([0.3, 0.4])
    entropy = -np.sum(probs * np.log(probs) + (1 - probs) * np.log(1 - probs))
    bits = distrax.Bernoulli(probs=jnp.array([0.3, 0.4, 1.0]))
    found = vi.elbo(jnp.sum, bits, KEY, estimator, num_samples=4096)
    np.testing.assert_allclose(found, 1.7 + entropy, atol=0.06)


# ----------------------------------------------------------- derivatives that a library has wrong

WRONG = {
    "NoncentralChi2": (tfd.NoncentralChi2, {"df": 2.5}, {"noncentrality": 1.5}, 2.0),
    "Skellam": (tfd.Skellam, {"rate1": 1.2, "rate2": 0.8}, {}, -2.0),
    "Skellam, log": (tfd.Skellam, {"log_rate1": 0.2, "log_rate2": -0.3}, {}, -2.0),
    "BetaQuotient": (
        tfd.BetaQuotient,
        {
            "concentration1_numerator": 1.5,
            "concentration0_numerator": 2.5,
            "concentration1_denominator": 6.0,
            "concentration0_denominator": 2.0,
        },
        {},
        0.8,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_derivative_of_a_library_is_refused_by_its_argument(name):
    build, wrong, right, _ = WRONG[name]
    wrap = partial(tfd.Independent, reinterpreted_batch_ndims=0)

    def loss(arguments):
        return expected(wrap(build(**arguments)), sf.ScoreFunction())

    for argument, value in wrong.items():

        def along(value, argument=argument):
            return loss(wrong | right | {argument: value})

        with pytest.raises(TypeError, match=f"{build.__name__} of TFP.*along {argument}"):
            jax.jit(jax.grad(along)).trace(value)
        held = jax.grad(lambda value, along=along: along(jax.lax.stop_gradient(value)))
        jax.jit(held).trace(value)
    # Under jit the other arguments are traced as well.
    for argument in right:
        slope = jax.jit(jax.grad(lambda v, a=argument: loss(wrong | right | {a: v})))
        assert slope(right[argument]) != 0


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_the_derivative_is_still_wrong_in_the_library(name):
    build, wrong, right, x = WRONG[name]
    with jax.enable_x64(new_val=True):
        evaluate = jax.jit(jax.value_and_grad(lambda wrong: build(**wrong, **right).log_prob(x)))
        _, slopes = evaluate(wrong)
        for argument, value in wrong.items():
            above, below = (evaluate(wrong | {argument: value + step})[0] for step in (1e-5, -1e-5))
            assert abs(slopes[argument] - (above - below) / 2e-5) > 1e-3
