"""All families of distrax, TFP on JAX, numpyro and flowjax, with facts from elsewhere.

`FAMILIES` holds at least one small instance of each class that a library exports, `LEFT_OUT` the
classes without one and why.
"""

import itertools
from typing import Any

import distrax
import equinox as eqx
import flowjax.bijections as fjb
import flowjax.distributions as fjd
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as nd
import scipy.special as sp
import scipy.stats as st
from scipy.special import expit, softmax
from support.facts import (
    Clipped,
    Density,
    Family,
    Mapped,
    Masses,
    Table,
    Truncated,
    inflated,
    mixture,
    reference_expectation,
    von_mises,
)
from tensorflow_probability.substrates import jax as tfp

tfd, tfb, kernels = tfp.distributions, tfp.bijectors, tfp.math.psd_kernels

NORMAL = (0.4, 0.8)
LOGITS, POSITIVE, TABLE = np.array([0.2, -0.4, 1.0]), np.array([1.5, 0.8, 2.0]), (1.0, 3.0, -2.0)
MEANS, SCALES = np.array([0.5, -0.3]), np.array([0.8, 1.3])
ROOT = np.array([[0.9, 0.0], [0.4, 0.7]])


# ------------------------------------------------------------------- costs and their expectations


def square(x: Any) -> jax.Array:
    return jnp.sum(x**2)


def bilinear(x: Any) -> jax.Array:
    return jnp.sum(x**2) + x[0] * x[1]


def bilinear_of(mean: Any, covariance: Any) -> Any:
    second = covariance + np.outer(mean, mean)
    return np.trace(second) + second[0, 1]


def looked_up(x: Any) -> jax.Array:
    return x @ jnp.array(TABLE) + x[0] * x[0]


def looked_up_of(probs: Any) -> Any:
    return probs @ np.array(TABLE) + probs[0]


def of_counts(x: Any) -> jax.Array:
    return x[0] * x[1] + x[2]


def multinomial_of(total: int, probs: Any) -> Any:
    return total * (total - 1) * probs[0] * probs[1] + total * probs[2]


def dirichlet_multinomial_of(total: int, alpha: Any) -> Any:
    mass = alpha.sum()
    pair = alpha[0] * alpha[1] / (mass * (mass + 1))
    return total * (total - 1) * pair + total * alpha[2] / mass


def of_simplex(x: Any) -> jax.Array:
    return x[0] * x[1] + 2 * x[2]


def dirichlet_of(alpha: Any) -> Any:
    mass = alpha.sum()
    return alpha[0] * alpha[1] / (mass * (mass + 1)) + 2 * alpha[2] / mass


def concrete(x: Any) -> jax.Array:
    """A cost of the logarithms of a concrete vector of two parts."""
    return jnp.arctan(x[0] - x[1] - 0.3)


def concrete_of(temperature: Any, logits: Any) -> Any:
    ratio = st.logistic((logits[0] - logits[1]) / temperature, 1 / temperature)
    return reference_expectation(ratio, lambda x: np.arctan(x - 0.3))


def plackett_luce_of(scores: Any) -> Any:
    total = 0.0
    for order in itertools.permutations(range(3)):
        left, probability = list(range(3)), 1.0
        for i in order:
            probability *= scores[i] / sum(scores[j] for j in left)
            left.remove(i)
        total += probability * (order[0] + 2.5 * order[1] * order[0])
    return total


def towards(x: Any) -> jax.Array:
    """A cost of directions: the part along the first axis, and its square."""
    return x[0] + 0.5 * x[0] ** 2


def von_mises_fisher_of(concentration: Any) -> Any:
    k = concentration
    mean = sp.iv(1.5, k) / sp.iv(0.5, k)
    return mean + 0.5 * (1 - 2 * mean / k)


def power_spherical_of(concentration: Any) -> Any:
    part = st.beta(1 + concentration, 1)
    t, t2 = 2 * part.mean() - 1, 4 * part.moment(2) - 4 * part.mean() + 1
    return t + 0.5 * t2


def student_root_of(df: Any, mean: Any, root: Any) -> Any:
    root = np.tril(root)
    return bilinear_of(mean, df / (df - 2) * root @ root.T)


def lkj_of(concentration: Any) -> Any:
    # A correlation of three is 2 Beta(b, b) - 1 with b = concentration + 1/2.
    return 1 / (2 * (concentration + 0.5) + 1)


def wishart_of(df: Any, root: Any) -> Any:
    scale = np.tril(root) @ np.tril(root).T
    return df * (np.trace(scale) + scale[0, 1])


def of_matrix(x: Any) -> jax.Array:
    return jnp.trace(x) + x[0, 1]


def kernel_of(amplitude: Any, noise: Any) -> Any:
    # Points 0 and 1, exponentiated quadratic of length 1; a cost x0 x1 + x0^2.
    return amplitude**2 * np.exp(-0.5) + amplitude**2 + noise


# ------------------------------------------------------------------------------------ references


def steps(low: Any, high: Any, probs: Any) -> Any:
    """Uniform within cells of equal width, each with a probability of its own."""
    edges, levels = np.linspace(low, high, 4), np.append(0, np.cumsum(probs))

    class Steps:
        def cdf(self, x: Any) -> Any:
            return np.interp(x, edges, levels)

        def ppf(self, u: Any) -> Any:
            return np.interp(u, levels, edges)

        def mean(self) -> Any:
            return probs @ (edges[1:] + edges[:-1]) / 2

        def std(self) -> Any:
            thirds = (edges[1:] ** 2 + edges[1:] * edges[:-1] + edges[:-1] ** 2) / 3
            return np.sqrt(probs @ thirds - self.mean() ** 2)

    return Steps()


def rounded_up(inner: Any) -> Masses:
    x = np.arange(-60, 60)
    return Masses(inner.cdf(x) - inner.cdf(x - 1), x)


def ordered(cutpoints: Any, loc: Any) -> Masses:
    return Masses(np.diff(np.concatenate([[0], expit(cutpoints - loc), [1]])))


def stopping(cutpoints: Any, loc: Any) -> Masses:
    stops = np.append(expit(cutpoints - loc), 1)
    return Masses(stops * np.append(1, np.cumprod(1 - stops)[:-1]))


def truncnorm(loc: Any, scale: Any, low: Any, high: Any) -> Any:
    return st.truncnorm((low - loc) / scale, (high - loc) / scale, loc, scale)


def shifted(inner: Any, loc: Any, scale: Any = 1.0) -> Mapped:
    return Mapped(inner, lambda x: loc + scale * x, lambda y: (y - loc) / scale)


def two_piece(inner: Any, loc: Any, scale: Any, skewness: Any) -> Density:
    def pdf(x: Any) -> Any:
        z = (x - loc) / scale
        z = np.where(z < 0, z * skewness, z / skewness)
        return inner.pdf(z) * 2 / (scale * (skewness + 1 / skewness))

    return Density(pdf, loc - 100, loc + 100, n=400_000)


def horseshoe(scale: Any) -> Density:
    def pdf(x: Any) -> Any:
        half = np.maximum(np.minimum(x**2 / (2 * scale**2), 700), 1e-300)
        return sp.exp1(half) * np.exp(half) / np.sqrt(2 * np.pi**3 * scale**2)

    return Density(pdf, -26.0, 26.0, n=400_000)


def kumaraswamy(a: Any, b: Any) -> Mapped:
    return Mapped(
        st.uniform(), lambda u: (1 - (1 - u) ** (1 / b)) ** (1 / a), lambda x: 1 - (1 - x**a) ** b
    )


def lambert(loc: Any, scale: Any, tail: Any) -> Mapped:
    grid = np.linspace(-9, 9, 40_001)

    def forward(z: Any) -> Any:
        return loc + scale * z * np.exp(tail * z**2 / 2)

    return Mapped(st.norm(), forward, lambda y: np.interp(y, forward(grid), grid))


def gompertz(concentration: Any, rate: Any) -> Any:
    return st.gompertz(concentration, scale=1 / rate)


def power_law(alpha: Any, low: Any, high: Any) -> Density:
    def pdf(x: Any) -> Any:
        return (1 + alpha) * x**alpha / (high ** (1 + alpha) - low ** (1 + alpha))

    return Density(pdf, low, high)


def soft_laplace(loc: Any, scale: Any) -> Any:
    # The hyperbolic secant, with numpyro's scale.
    return st.hypsecant(loc, scale)


def dagum(concentration: Any, sharpness: Any, scale: Any) -> Any:
    return st.burr(sharpness, concentration, scale=scale)


def sine_skewed_of(loc: Any, concentration: Any, skewness: Any) -> Any:
    x = (np.arange(2000) + 0.5) / 2000 * 2 * np.pi - np.pi
    p = st.vonmises(concentration, loc).pdf(x) * (1 + skewness * np.sin(x - loc))
    return np.sum(p * (np.cos(x) + 0.5 * np.sin(x))) * 2 * np.pi / 2000


def norm_inverse_gauss(loc: Any, scale: Any, tail: Any, skewness: Any) -> Density:
    return Density(st.norminvgauss(tail * scale, skewness * scale, loc, scale).pdf, -20.0, 20.0)


def continuous_bernoulli(logit: Any) -> Density:
    p = expit(logit)
    total = 2 * np.arctanh(1 - 2 * p) / (1 - 2 * p)
    return Density(lambda x: total * p**x * (1 - p) ** (1 - x), 0.0, 1.0)


# ---------------------------------------------------------------------------------------- distrax


def _distrax() -> list[Family]:
    d, t = distrax, Table("distrax")
    t.count(
        "Bernoulli",
        lambda eta: d.Bernoulli(logits=eta),
        (0.3,),
        lambda eta: st.bernoulli(expit(eta)),
    )
    t.count("Bernoulli(probs)", lambda p: d.Bernoulli(probs=p), (0.3,), st.bernoulli)
    t.real("Beta", d.Beta, (1.5, 2.5), st.beta)
    t.count("Categorical", lambda eta: d.Categorical(logits=eta), (LOGITS,), _softmax)
    t.count("Categorical(probs)", lambda a: d.Categorical(probs=a), (POSITIVE,), _shares)
    t.real(
        "CategoricalUniform",
        lambda low, high, eta: d.CategoricalUniform(low=low, high=high, logits=eta),
        (-0.5, 2.5, LOGITS),
        lambda low, high, eta: steps(low, high, softmax(eta)),
        moving=True,
    )
    for name, kind, inner in (
        ("ClippedLogistic", d.ClippedLogistic, st.logistic),
        ("ClippedNormal", d.ClippedNormal, st.norm),
        ("Clipped", lambda m, s, *ends: d.Clipped(d.Normal(m, s), *ends), st.norm),
    ):
        t.real(
            name,
            lambda m, s, kind=kind: kind(m, s, -0.5, 0.9),
            NORMAL,
            lambda m, s, inner=inner: Clipped(inner(m, s), -0.5, 0.9),
        )
    t.other("Deterministic", d.Deterministic, (MEANS,), square, lambda v: v @ v, moving=True)
    t.other("Dirichlet", d.Dirichlet, (POSITIVE,), of_simplex, dirichlet_of)
    t.count(
        "EpsilonGreedy",
        lambda e: d.EpsilonGreedy(jnp.array(LOGITS, jnp.float32), e),
        (0.3,),
        lambda e: Masses(e / 3 + (1 - e) * np.array([0, 0, 1.0])),
    )
    t.real("Gamma", d.Gamma, (1.5, 2.0), lambda a, r: st.gamma(a, scale=1 / r))
    t.count("Greedy", d.Greedy, (LOGITS,), lambda eta: Masses((eta == eta.max()) * 1.0))
    t.real("Gumbel", d.Gumbel, NORMAL, st.gumbel_r)
    t.other(
        "Independent",
        lambda m, s: d.Independent(d.Normal(m, s), 1),
        (MEANS, SCALES),
        bilinear,
        _diagonal,
    )
    t.other(
        "Independent(Bernoulli)",
        lambda eta: d.Independent(d.Bernoulli(logits=eta), 1),
        (MEANS,),
        _of_bits,
        _bits_of,
        discrete=True,
    )
    t.other(
        "Joint",
        lambda m, s: d.Joint([d.Normal(m, 1.0), d.Gamma(s, 1.0)]),
        NORMAL,
        lambda x: x[0] ** 2 + x[0] * x[1],
        lambda m, s: m**2 + 1 + m * s,
    )
    t.real("Laplace", d.Laplace, NORMAL, st.laplace)
    t.real("LogStddevNormal", d.LogStddevNormal, (0.4, -0.2), lambda m, s: st.norm(m, np.exp(s)))
    t.real("Logistic", d.Logistic, NORMAL, st.logistic)
    t.real(
        "MixtureOfTwo",
        lambda p, m: d.MixtureOfTwo(p, d.Normal(m, 0.7), d.Normal(1.0, 0.5)),
        (0.3, -0.4),
        lambda p, m: mixture([p, 1 - p], [st.norm(m, 0.7), st.norm(1, 0.5)]),
    )
    t.real(
        "MixtureSameFamily",
        lambda eta, m: d.MixtureSameFamily(d.Categorical(logits=eta), d.Normal(m, 0.6)),
        (LOGITS, np.array(TABLE)),
        _normal_mixture,
    )
    t.other(
        "Multinomial",
        lambda eta: d.Multinomial(4, logits=eta),
        (LOGITS,),
        of_counts,
        lambda eta: multinomial_of(4, softmax(eta)),
        discrete=True,
    )
    for name, build in (
        ("MultivariateNormalDiag", d.MultivariateNormalDiag),
        (
            "MultivariateNormalFromBijector",
            lambda m, s: d.MultivariateNormalFromBijector(m, d.DiagLinear(s)),
        ),
    ):
        t.other(name, build, (MEANS, SCALES), bilinear, _diagonal)
    t.other(
        "MultivariateNormalDiagPlusLowRank",
        d.MultivariateNormalDiagPlusLowRank,
        (MEANS, SCALES, np.array([[0.3], [0.4]])),
        bilinear,
        _diag_plus_low_rank,
    )
    t.other(
        "MultivariateNormalFullCovariance",
        lambda m, root: d.MultivariateNormalFullCovariance(m, root @ root.T),
        (MEANS, ROOT),
        bilinear,
        lambda m, root: bilinear_of(m, root @ root.T),
    )
    t.other("MultivariateNormalTri", d.MultivariateNormalTri, (MEANS, ROOT), bilinear, _triangular)
    t.real("Normal", d.Normal, NORMAL, st.norm)
    t.other(
        "OneHotCategorical",
        lambda eta: d.OneHotCategorical(logits=eta),
        (LOGITS,),
        looked_up,
        lambda eta: looked_up_of(softmax(eta)),
        discrete=True,
    )
    t.count(
        "Quantized",
        lambda m, s: d.Quantized(d.Normal(m, s)),
        NORMAL,
        lambda m, s: rounded_up(st.norm(m, s)),
    )
    t.count("Softmax", lambda eta: d.Softmax(eta, 0.7), (LOGITS,), lambda eta: _softmax(eta / 0.7))
    t.real(
        "Transformed",
        lambda m, s: d.Transformed(d.Normal(m, s), d.Tanh()),
        NORMAL,
        lambda m, s: Mapped(st.norm(m, s), np.tanh, np.arctanh),
    )
    t.real("Uniform", d.Uniform, (-0.5, 1.3), _uniform, moving=True)
    t.real("VonMises", d.VonMises, (0.4, 1.6), von_mises)
    t.other(
        "OneHotCategorical(straight_through)",
        lambda eta: d.straight_through_wrapper(d.OneHotCategorical)(logits=eta),
        (LOGITS,),
        looked_up,
        lambda eta: looked_up_of(softmax(eta)),
        discrete=True,
    )
    return t.rows


def _softmax(logits: Any) -> Masses:
    return Masses(softmax(logits))


def _shares(weights: Any) -> Masses:
    return Masses(weights / weights.sum())


def _uniform(low: Any, high: Any) -> Any:
    return st.uniform(low, high - low)


def _diagonal(mean: Any, scale: Any) -> Any:
    return bilinear_of(mean, np.diag(scale**2))


def _triangular(mean: Any, root: Any) -> Any:
    return bilinear_of(mean, np.tril(root) @ np.tril(root).T)


def _full(mean: Any, root: Any) -> Any:
    return bilinear_of(mean, root @ root.T)


def _diag_plus_low_rank(mean: Any, scale: Any, factor: Any) -> Any:
    # The scale itself, not the covariance, is diagonal plus low rank.
    return _full(mean, np.diag(scale) + factor @ factor.T)


def _of_bits(b: Any) -> jax.Array:
    return b[0] + 2 * b[0] * b[1]


def _bits_of(logits: Any) -> Any:
    return expit(logits[0]) + 2 * expit(logits[0]) * expit(logits[1])


def _normal_mixture(logits: Any, means: Any) -> Density:
    return mixture(softmax(logits), [st.norm(mean, 0.6) for mean in means])


# -------------------------------------------------------------------------------------------- TFP


def _tfp() -> list[Family]:
    t = Table("tfd")
    _tfp_real(t)
    _tfp_count(t)
    _tfp_vectors(t)
    _tfp_composed(t)
    return t.rows


def _tfp_real(t: Table) -> None:
    t.real("Beta", tfd.Beta, (1.5, 2.5), st.beta)
    t.real("Cauchy", tfd.Cauchy, NORMAL, st.cauchy)
    t.real("Chi", tfd.Chi, (3.0,), st.chi)
    t.real("Chi2", tfd.Chi2, (3.0,), st.chi2)
    t.real(
        "ContinuousBernoulli",
        lambda eta: tfd.ContinuousBernoulli(logits=eta),
        (0.8,),
        continuous_bernoulli,
    )
    t.real(
        "DoublesidedMaxwell",
        tfd.DoublesidedMaxwell,
        NORMAL,
        lambda m, s: Density(
            lambda x: ((x - m) / s) ** 2 * st.norm(m, s).pdf(x), m - 9 * s, m + 9 * s
        ),
    )
    t.real("ExpGamma", tfd.ExpGamma, (1.5, 2.0), lambda a, r: st.loggamma(a, -np.log(r)))
    t.real(
        "ExpInverseGamma",
        tfd.ExpInverseGamma,
        (1.5, 2.0),
        lambda a, s: Mapped(st.loggamma(a, -np.log(s)), np.negative, np.negative, increasing=False),
    )
    t.real("Exponential", tfd.Exponential, (1.3,), lambda r: st.expon(scale=1 / r))
    t.real(
        "ExponentiallyModifiedGaussian",
        tfd.ExponentiallyModifiedGaussian,
        (*NORMAL, 1.3),
        lambda m, s, r: st.exponnorm(1 / (s * r), m, s),
    )
    t.real("Gamma", tfd.Gamma, (1.5, 2.0), lambda a, r: st.gamma(a, scale=1 / r))
    t.real(
        "Gamma(log_rate)",
        lambda a, eta: tfd.Gamma(a, log_rate=eta),
        (1.5, 0.3),
        lambda a, eta: st.gamma(a, scale=np.exp(-eta)),
    )
    t.real(
        "GammaGamma",
        tfd.GammaGamma,
        (1.5, 3.5, 2.0),
        lambda a, b, r: st.betaprime(a, b, scale=r),
    )
    t.real(
        "GeneralizedExtremeValue",
        tfd.GeneralizedExtremeValue,
        (*NORMAL, 0.2),
        lambda m, s, c: st.genextreme(-c, m, s),
        moving=True,
    )
    t.real(
        "GeneralizedNormal",
        tfd.GeneralizedNormal,
        (*NORMAL, 1.5),
        lambda m, s, p: st.gennorm(p, m, s),
    )
    t.real(
        "GeneralizedPareto",
        tfd.GeneralizedPareto,
        (*NORMAL, 0.2),
        lambda m, s, c: st.genpareto(c, m, s),
        moving=True,
    )
    t.real("Gumbel", tfd.Gumbel, NORMAL, st.gumbel_r)
    t.real("HalfCauchy", tfd.HalfCauchy, NORMAL, st.halfcauchy, moving=True)
    t.real("HalfNormal", tfd.HalfNormal, (0.8,), lambda s: st.halfnorm(scale=s))
    t.real(
        "HalfStudentT",
        tfd.HalfStudentT,
        (4.0, *NORMAL),
        lambda df, m, s: shifted(Truncated(st.t(df), 0), m, s),
        moving=True,
    )
    t.real("Horseshoe", tfd.Horseshoe, (0.4,), horseshoe)
    t.real("InverseGamma", tfd.InverseGamma, (3.5, 2.0), lambda a, s: st.invgamma(a, scale=s))
    t.real(
        "InverseGaussian",
        tfd.InverseGaussian,
        (1.2, 2.0),
        lambda m, c: st.invgauss(m / c, scale=c),
    )
    t.real(
        "JohnsonSU",
        tfd.JohnsonSU,
        (0.3, 1.4, *NORMAL),
        lambda a, b, m, s: st.johnsonsu(a, b, m, s),
    )
    t.real("Kumaraswamy", tfd.Kumaraswamy, (1.5, 2.5), kumaraswamy)
    t.real("LambertWNormal", tfd.LambertWNormal, (*NORMAL, 0.1), lambert)
    t.real(
        "LambertWDistribution",
        lambda m, s, tail: tfd.LambertWDistribution(tfd.Normal(m, s), m, s, tail),
        (*NORMAL, 0.1),
        lambert,
    )
    t.real("Laplace", tfd.Laplace, NORMAL, st.laplace)
    t.real("LogLogistic", tfd.LogLogistic, (0.4, 0.3), lambda m, s: st.fisk(1 / s, scale=np.exp(m)))
    t.real("LogNormal", tfd.LogNormal, (0.4, 0.6), lambda m, s: st.lognorm(s, scale=np.exp(m)))
    t.real("Logistic", tfd.Logistic, NORMAL, st.logistic)
    t.real(
        "LogitNormal",
        tfd.LogitNormal,
        NORMAL,
        lambda m, s: Mapped(st.norm(m, s), expit, sp.logit),
    )
    t.real(
        "Mixture",
        lambda eta, m: tfd.Mixture(
            tfd.Categorical(logits=eta), [tfd.Normal(m[i], 0.6) for i in range(3)]
        ),
        (LOGITS, np.array(TABLE)),
        _normal_mixture,
    )
    for name, reparameterize in (
        ("MixtureSameFamily", False),
        ("MixtureSameFamily(reparameterized)", True),
    ):
        t.real(
            name,
            lambda eta, m, reparameterize=reparameterize: tfd.MixtureSameFamily(
                tfd.Categorical(logits=eta), tfd.Normal(m, 0.6), reparameterize=reparameterize
            ),
            (LOGITS, np.array(TABLE)),
            _normal_mixture,
        )
    t.real("Moyal", tfd.Moyal, NORMAL, st.moyal)
    t.real("NoncentralChi2", tfd.NoncentralChi2, (3.0, 1.5), st.ncx2)
    t.real("Normal", tfd.Normal, NORMAL, st.norm)
    t.real(
        "NormalInverseGaussian",
        tfd.NormalInverseGaussian,
        (*NORMAL, 1.6, 0.4),
        norm_inverse_gauss,
    )
    t.real(
        "PERT",
        tfd.PERT,
        (-0.5, 0.4, 1.6),
        lambda low, peak, high: st.beta(
            1 + 4 * (peak - low) / (high - low),
            1 + 4 * (high - peak) / (high - low),
            low,
            high - low,
        ),
        moving=True,
    )
    t.real("Pareto", tfd.Pareto, (3.0, 1.2), lambda a, s: st.pareto(a, scale=s), moving=True)
    t.real(
        "RelaxedBernoulli",
        lambda temperature, eta: tfd.RelaxedBernoulli(temperature, logits=eta),
        (0.7, 0.3),
        lambda temperature, eta: Mapped(
            st.logistic(eta / temperature, 1 / temperature), expit, sp.logit
        ),
    )
    t.real(
        "SigmoidBeta",
        tfd.SigmoidBeta,
        (1.5, 2.5),
        lambda a, b: Mapped(st.beta(a, b), sp.logit, expit),
    )
    t.real(
        "SinhArcsinh",
        tfd.SinhArcsinh,
        (*NORMAL, 0.2, 0.9),
        _sinh_arcsinh,
    )
    t.real("StudentT", tfd.StudentT, (4.0, *NORMAL), st.t)
    t.real(
        "TransformedDistribution",
        lambda m, s: tfd.TransformedDistribution(tfd.Normal(m, s), tfb.Sigmoid()),
        NORMAL,
        lambda m, s: Mapped(st.norm(m, s), expit, sp.logit),
    )
    t.real(
        "Triangular",
        tfd.Triangular,
        (-0.5, 1.6, 0.4),
        lambda low, high, peak: st.triang((peak - low) / (high - low), low, high - low),
        moving=True,
    )
    t.real(
        "TruncatedCauchy",
        tfd.TruncatedCauchy,
        (*NORMAL, -0.5, 1.6),
        lambda m, s, low, high: Truncated(st.cauchy(m, s), low, high),
        moving=True,
    )
    t.real("TruncatedNormal", tfd.TruncatedNormal, (*NORMAL, -0.5, 1.6), truncnorm, moving=True)
    t.real(
        "TwoPieceNormal",
        tfd.TwoPieceNormal,
        (*NORMAL, 1.4),
        lambda m, s, skew: two_piece(st.norm(), m, s, skew),
    )
    t.real(
        "TwoPieceStudentT",
        tfd.TwoPieceStudentT,
        (6.0, *NORMAL, 1.4),
        lambda df, m, s, skew: two_piece(st.t(df), m, s, skew),
    )
    t.real("Uniform", tfd.Uniform, (-0.5, 1.3), _uniform, moving=True)
    t.real("VonMises", tfd.VonMises, (0.4, 1.6), von_mises)
    t.real("Weibull", tfd.Weibull, (1.5, 2.0), lambda c, s: st.weibull_min(c, scale=s))
    t.other(
        "BetaQuotient",
        tfd.BetaQuotient,
        (1.5, 2.5, 6.0, 2.0),
        jnp.sum,
        lambda a, b, c, d: a / (a + b) * (c + d - 1) / (c - 1),
    )


def _sinh_arcsinh(loc: Any, scale: Any, skewness: Any, tail: Any) -> Mapped:
    # x = loc + scale * F(z) * 2 / F(2) with F(z) = sinh((arcsinh(z) + skewness) * tail), and F(2)
    # without skewness.
    unit = np.sinh(np.arcsinh(2) * tail)
    return Mapped(
        st.norm(),
        lambda z: loc + scale * 2 / unit * np.sinh((np.arcsinh(z) + skewness) * tail),
        lambda x: np.sinh(np.arcsinh((x - loc) * unit / (2 * scale)) / tail - skewness),
    )


def _tfp_count(t: Table) -> None:
    t.count(
        "Bernoulli", lambda eta: tfd.Bernoulli(eta), (0.3,), lambda eta: st.bernoulli(expit(eta))
    )
    t.count("Bernoulli(probs)", lambda p: tfd.Bernoulli(probs=p), (0.3,), st.bernoulli)
    t.count("BetaBinomial", lambda a, b: tfd.BetaBinomial(4.0, a, b), (1.5, 2.5), _beta_binomial)
    t.count("Binomial", lambda eta: tfd.Binomial(4.0, logits=eta), (0.3,), _binomial)
    t.count(
        "Binomial(probs)", lambda p: tfd.Binomial(4.0, probs=p), (0.3,), lambda p: st.binom(4, p)
    )
    t.count("Categorical", lambda eta: tfd.Categorical(eta), (LOGITS,), _softmax)
    t.count(
        "Categorical(probs)",
        lambda a: tfd.Categorical(probs=a / a.sum()),
        (POSITIVE,),
        _shares,
    )
    t.count(
        "FiniteDiscrete",
        lambda eta: tfd.FiniteDiscrete(jnp.array([0.0, 2.0, 5.0]), logits=eta),
        (LOGITS,),
        lambda eta: Masses(softmax(eta), [0, 2, 5]),
    )
    t.count(
        "Geometric", lambda eta: tfd.Geometric(eta), (0.3,), lambda eta: st.geom(expit(eta), loc=-1)
    )
    t.count(
        "NegativeBinomial",
        lambda n, eta: tfd.NegativeBinomial(n, logits=eta),
        (2.5, 0.3),
        lambda n, eta: st.nbinom(n, expit(-eta)),
    )
    t.count(
        "OrderedLogistic",
        lambda c, m: tfd.OrderedLogistic(c, m),
        (np.array([-0.5, 0.7]), 0.2),
        ordered,
    )
    t.count("Poisson", tfd.Poisson, (1.7,), st.poisson)
    t.count(
        "Poisson(log_rate)",
        lambda eta: tfd.Poisson(log_rate=eta),
        (0.5,),
        lambda eta: st.poisson(np.exp(eta)),
    )
    t.count("ProbitBernoulli", tfd.ProbitBernoulli, (0.3,), lambda z: st.bernoulli(st.norm.cdf(z)))
    t.count(
        "QuantizedDistribution",
        lambda m, s: tfd.QuantizedDistribution(tfd.Normal(m, s)),
        NORMAL,
        lambda m, s: rounded_up(st.norm(m, s)),
    )
    t.count("Skellam", tfd.Skellam, (1.7, 0.9), st.skellam)
    t.count(
        "StoppingRatioLogistic",
        lambda c, m: tfd.StoppingRatioLogistic(c, m),
        (np.array([-0.5, 0.7]), 0.2),
        stopping,
    )
    t.count(
        "Inflated",
        # Given logits eta, its probability is sigmoid(2 eta).
        lambda eta, r: tfd.Inflated(tfd.Poisson(r), inflated_loc_logits=eta),
        (0.3, 1.7),
        lambda eta, r: inflated(st.poisson(r), expit(2 * eta)),
    )
    t.count(
        "ZeroInflatedNegativeBinomial",
        lambda p, eta: tfd.ZeroInflatedNegativeBinomial(
            inflated_loc_probs=p, total_count=2.5, logits=eta
        ),
        (0.3, 0.2),
        lambda p, eta: inflated(st.nbinom(2.5, expit(-eta)), p),
    )
    t.count("Zipf", tfd.Zipf, (3.5,), st.zipf)


def _beta_binomial(a: Any, b: Any) -> Any:
    return st.betabinom(4, a, b)


def _binomial(logit: Any) -> Any:
    return st.binom(4, expit(logit))


def _tfp_vectors(t: Table) -> None:
    t.other("Deterministic", tfd.Deterministic, (0.5,), square, lambda v: v**2, moving=True)
    t.other("VectorDeterministic", tfd.VectorDeterministic, (MEANS,), square, lambda v: v @ v)
    t.other("Dirichlet", tfd.Dirichlet, (POSITIVE,), of_simplex, dirichlet_of)
    t.other(
        "DirichletMultinomial",
        lambda a: tfd.DirichletMultinomial(4.0, a),
        (POSITIVE,),
        of_counts,
        lambda a: dirichlet_multinomial_of(4, a),
        discrete=True,
    )
    t.other(
        "Multinomial",
        lambda eta: tfd.Multinomial(4.0, logits=eta),
        (LOGITS,),
        of_counts,
        lambda eta: multinomial_of(4, softmax(eta)),
        discrete=True,
    )
    t.other(
        "OneHotCategorical",
        lambda eta: tfd.OneHotCategorical(eta, dtype=jnp.float32),
        (LOGITS,),
        looked_up,
        lambda eta: looked_up_of(softmax(eta)),
        discrete=True,
    )
    t.other(
        "ExpRelaxedOneHotCategorical",
        tfd.ExpRelaxedOneHotCategorical,
        (0.7, MEANS),
        concrete,
        concrete_of,
    )
    t.other(
        "RelaxedOneHotCategorical",
        tfd.RelaxedOneHotCategorical,
        (0.7, MEANS),
        lambda x: concrete(jnp.log(x)),
        concrete_of,
    )
    t.other(
        "PlackettLuce",
        tfd.PlackettLuce,
        (POSITIVE,),
        lambda x: x[0] + 2.5 * x[1] * x[0],
        plackett_luce_of,
        discrete=True,
    )
    t.other(
        "DeterminantalPointProcess",
        lambda v: tfd.DeterminantalPointProcess(v, jnp.eye(2)),
        (POSITIVE[:2],),
        lambda x: x[0] + 2 * x[1],
        lambda v: (v / (1 + v)) @ np.array([1, 2]),
        discrete=True,
    )
    t.other(
        "FlatDirichlet",
        lambda: tfd.FlatDirichlet(np.array([3])),
        (),
        of_simplex,
        lambda: 1 / 12 + 2 / 3,
    )
    t.other("SphericalUniform", lambda: tfd.SphericalUniform(3), (), towards, lambda: 1 / 6)
    t.other(
        "VonMisesFisher",
        lambda c: tfd.VonMisesFisher(jnp.eye(3)[0], c),
        (1.6,),
        towards,
        von_mises_fisher_of,
    )
    t.other(
        "VonMisesFisher(5)",
        lambda c: tfd.VonMisesFisher(jnp.eye(5)[0], c),
        (1.6,),
        lambda x: x[0],
        lambda c: sp.iv(2.5, c) / sp.iv(1.5, c),
    )
    t.other(
        "PowerSpherical",
        lambda c: tfd.PowerSpherical(jnp.eye(3)[0], c),
        (1.6,),
        towards,
        power_spherical_of,
    )
    t.other(
        "CholeskyLKJ",
        lambda c: tfd.CholeskyLKJ(3, c),
        (1.5,),
        lambda x: (x @ x.T)[0, 1] ** 2,
        lkj_of,
    )
    t.other("LKJ", lambda c: tfd.LKJ(3, c), (1.5,), lambda x: x[0, 1] ** 2, lkj_of)
    t.other("WishartTriL", lambda df, r: tfd.WishartTriL(df, r), (3.5, ROOT), of_matrix, wishart_of)
    t.other(
        "WishartLinearOperator",
        lambda df, r: tfd.WishartLinearOperator(df, _lower(r)),
        (3.5, ROOT),
        of_matrix,
        wishart_of,
    )
    for name, build in (
        ("MultivariateNormalDiag", tfd.MultivariateNormalDiag),
        (
            "MultivariateNormalLinearOperator",
            lambda m, s: tfd.MultivariateNormalLinearOperator(
                m, _operators().LinearOperatorDiag(s)
            ),
        ),
    ):
        t.other(name, build, (MEANS, SCALES), bilinear, _diagonal)
    t.other(
        "MultivariateNormalDiagPlusLowRank",
        lambda m, s, u: tfd.MultivariateNormalDiagPlusLowRank(m, s, u),
        (MEANS, SCALES, np.array([[0.3], [0.4]])),
        bilinear,
        _diag_plus_low_rank,
    )
    t.other(
        "MultivariateNormalDiagPlusLowRankCovariance",
        lambda m, v, u: tfd.MultivariateNormalDiagPlusLowRankCovariance(m, v, u),
        (MEANS, SCALES, np.array([[0.3], [0.4]])),
        bilinear,
        lambda m, v, u: bilinear_of(m, np.diag(v) + u @ u.T),
    )
    t.other(
        "MultivariateNormalFullCovariance",
        lambda m, root: tfd.MultivariateNormalFullCovariance(m, root @ root.T),
        (MEANS, ROOT),
        bilinear,
        _full,
    )
    t.other(
        "MultivariateNormalTriL", tfd.MultivariateNormalTriL, (MEANS, ROOT), bilinear, _triangular
    )
    t.other(
        "MultivariateStudentTLinearOperator",
        lambda df, m, r: tfd.MultivariateStudentTLinearOperator(df, m, _lower(r)),
        (8.0, MEANS, ROOT),
        bilinear,
        student_root_of,
    )
    points = jnp.array([[0.0], [1.0]])

    def kernel(amplitude: Any) -> Any:
        return kernels.ExponentiatedQuadratic(amplitude, 1.0)

    def of_points(x: Any) -> jax.Array:
        return x[0] * x[1] + x[0] ** 2

    t.other(
        "GaussianProcess",
        lambda a, noise: tfd.GaussianProcess(
            kernel(a), points, observation_noise_variance=noise, jitter=0.0
        ),
        (0.9, 0.3),
        of_points,
        kernel_of,
    )
    t.other(
        "StudentTProcess",
        lambda a, noise: tfd.StudentTProcess(
            8.0, kernel(a), points, observation_noise_variance=noise, jitter=0.0
        ),
        (0.9, 0.3),
        of_points,
        kernel_of,
    )

    def posterior(a: Any, y: Any) -> Any:
        cross = a**2 * np.exp(-0.5)
        gain = cross / (a**2 + 0.2)
        return (gain * y) ** 2 + a**2 - gain * cross

    t.other(
        "GaussianProcessRegressionModel",
        lambda a, y: tfd.GaussianProcessRegressionModel(
            kernel(a), points[:1], points[1:], y[None], 0.2, 0.0, jitter=0.0
        ),
        (0.9, 0.6),
        square,
        posterior,
    )
    t.other(
        "StudentTProcessRegressionModel",
        lambda a, y: tfd.StudentTProcessRegressionModel(
            8.0, kernel(a), points[:1], points[1:], y[None], 0.2, 0.0
        ),
        (0.9, 0.6),
        square,
        lambda a, y: _student_posterior(a, y),
    )
    t.other(
        "LinearGaussianStateSpaceModel",
        lambda m, s: tfd.LinearGaussianStateSpaceModel(
            2,
            _operators().LinearOperatorIdentity(1),
            tfd.MultivariateNormalDiag(scale_diag=s[None]),
            _operators().LinearOperatorIdentity(1),
            tfd.MultivariateNormalDiag(scale_diag=jnp.array([0.3])),
            tfd.MultivariateNormalDiag(m[None], jnp.array([0.5])),
        ),
        NORMAL,
        lambda x: x[1, 0] ** 2 + x[0, 0],
        lambda m, s: m**2 + 0.25 + s**2 + 0.09 + m,
    )


def _student_posterior(a: Any, y: Any) -> Any:
    cross = a**2 * np.exp(-0.5)
    noise = a**2 + 0.2
    gain = cross / noise
    # The scale grows with the surprise: (df - 2 + y^2 / noise) / (df - 2 + 1), as a variance.
    return (gain * y) ** 2 + (a**2 - gain * cross) * (6 + y**2 / noise) / 7


def _operators() -> Any:
    return tfp.tf2jax.linalg


def _lower(root: Any) -> Any:
    return _operators().LinearOperatorLowerTriangular(root)


def _tfp_composed(t: Table) -> None:
    t.other(
        "Autoregressive",
        lambda m, s: tfd.Autoregressive(
            lambda x: tfd.Independent(
                tfd.Normal(jnp.stack([m + 0 * x[..., 0], 0.7 * x[..., 0]], -1), s), 1
            ),
            jnp.zeros(2),
            2,
        ),
        NORMAL,
        bilinear,
        lambda m, s: (m**2 + s**2) * (1 + 0.49 + 0.7) + s**2,
    )
    t.other(
        "MarkovChain",
        lambda m, s: tfd.MarkovChain(
            tfd.Normal(m, s), lambda _, x: tfd.Normal(0.7 * x, s), num_steps=2
        ),
        NORMAL,
        bilinear,
        lambda m, s: (m**2 + s**2) * (1 + 0.49 + 0.7) + s**2,
    )
    t.other(
        "HiddenMarkovModel",
        lambda eta, m: tfd.HiddenMarkovModel(
            tfd.Categorical(logits=jnp.stack([jnp.zeros(()), eta])),
            tfd.Categorical(probs=jnp.array([[0.8, 0.2], [0.3, 0.7]])),
            tfd.Normal(m, 0.5),
            num_steps=2,
        ),
        (0.3, MEANS),
        lambda x: x[0] * x[1],
        lambda eta, m: (
            np.array([expit(-eta), expit(eta)]) @ (m * (np.array([[0.8, 0.2], [0.3, 0.7]]) @ m))
        ),
    )
    t.other(
        "BatchBroadcast",
        lambda m, s: tfd.BatchBroadcast(tfd.Normal(m, s), [2]),
        NORMAL,
        bilinear,
        lambda m, s: 3 * m**2 + 2 * s**2,
    )
    t.other(
        "BatchConcat",
        lambda m, s: tfd.BatchConcat([tfd.Normal(m[:1], s), tfd.Normal(m[1:], s)], axis=0),
        (MEANS, 0.8),
        bilinear,
        lambda m, s: bilinear_of(m, s**2 * np.eye(2)),
    )
    t.other(
        "BatchReshape",
        lambda m, s: tfd.BatchReshape(tfd.Normal(m, s), [2, 1]),
        (MEANS, SCALES),
        lambda x: bilinear(x[:, 0]),
        _diagonal,
    )
    t.other(
        "Blockwise",
        lambda m, s: tfd.Blockwise([tfd.Normal(m, 1.0), tfd.Normal(0.0, s)]),
        NORMAL,
        bilinear,
        lambda m, s: m**2 + 1 + s**2,
    )
    t.other(
        "Empirical",
        tfd.Empirical,
        (np.array(TABLE),),
        square,
        lambda v: np.mean(v**2),
        moving=True,
        discrete=True,
    )
    t.other(
        "Independent",
        lambda m, s: tfd.Independent(tfd.Normal(m, s), 1),
        (MEANS, SCALES),
        bilinear,
        _diagonal,
    )
    t.other(
        "Independent(Bernoulli)",
        lambda eta: tfd.Independent(tfd.Bernoulli(eta), 1),
        (MEANS,),
        _of_bits,
        _bits_of,
        discrete=True,
    )
    t.other(
        "Sample",
        lambda m, s: tfd.Sample(tfd.Normal(m, s), 2),
        NORMAL,
        bilinear,
        lambda m, s: 3 * m**2 + 2 * s**2,
    )
    t.other(
        "Sample(Bernoulli)",
        lambda eta: tfd.Sample(tfd.Bernoulli(eta), 2),
        (0.3,),
        _of_bits,
        lambda eta: expit(eta) + 2 * expit(eta) ** 2,
        discrete=True,
    )
    t.other(
        "Masked",
        lambda m: tfd.Masked(tfd.Normal(m, 1.0), jnp.array([True, True])),
        (MEANS,),
        bilinear,
        lambda m: bilinear_of(m, np.eye(2)),
    )
    t.other(
        "Masked(Bernoulli)",
        lambda eta: tfd.Masked(tfd.Bernoulli(eta), jnp.array([True, False])),
        (MEANS,),
        lambda b: b[0],
        lambda eta: expit(eta[0]),
        discrete=True,
    )

    def pair_of(m: Any, eta: Any) -> Any:
        # z ~ N(m, 1), b ~ Bernoulli(eta), x | z, b ~ N(z + b, 1); the cost is z^2 + b x.
        return m**2 + 1 + expit(eta) * (m + 1)

    def chained(z: Any, b: Any) -> Any:
        return tfd.Normal(z + jnp.asarray(b, jnp.float32), 1.0)

    def by_name(x: Any) -> jax.Array:
        return x["z"] ** 2 + x["b"] * x["x"]

    def in_order(x: Any) -> jax.Array:
        return x[0] ** 2 + x[1] * x[2]

    def coroutine(m: Any, eta: Any, mark: Any) -> Any:
        def model() -> Any:
            z = yield mark(tfd.Normal(m, 1.0))
            b = yield mark(tfd.Bernoulli(eta))
            yield chained(z, b)

        return model

    roots = tfd.JointDistributionCoroutine.Root
    params = (0.4, 0.3)
    for suffix in ("", "AutoBatched"):
        named = getattr(tfd, f"JointDistributionNamed{suffix}")
        sequential = getattr(tfd, f"JointDistributionSequential{suffix}")
        by_coroutine = getattr(tfd, f"JointDistributionCoroutine{suffix}")
        mark = (lambda d: d) if suffix else roots
        t.other(
            f"JointDistributionNamed{suffix}",
            lambda m, eta, kind=named: kind(
                {"z": tfd.Normal(m, 1.0), "b": tfd.Bernoulli(eta), "x": chained}
            ),
            params,
            by_name,
            pair_of,
        )
        t.other(
            f"JointDistributionSequential{suffix}",
            lambda m, eta, kind=sequential: kind(
                [tfd.Normal(m, 1.0), tfd.Bernoulli(eta), lambda b, z: chained(z, b)]
            ),
            params,
            in_order,
            pair_of,
        )
        t.other(
            f"JointDistributionCoroutine{suffix}",
            lambda m, eta, kind=by_coroutine, mark=mark: kind(coroutine(m, eta, mark)),
            params,
            in_order,
            pair_of,
        )
    t.other(
        "JointDistributionNamed(no functions)",
        lambda m, eta: tfd.JointDistributionNamed(
            {"z": tfd.Normal(m, 1.0), "b": tfd.Bernoulli(eta)}
        ),
        params,
        lambda x: x["z"] ** 2 + x["b"] * x["z"],
        lambda m, eta: m**2 + 1 + expit(eta) * m,
    )


# ---------------------------------------------------------------------------------------- numpyro


def _numpyro() -> list[Family]:
    t = Table("numpyro")
    _numpyro_real(t)
    _numpyro_count(t)
    _numpyro_vectors(t)
    return t.rows


def _numpyro_real(t: Table) -> None:
    t.real("AsymmetricLaplace", nd.AsymmetricLaplace, (*NORMAL, 1.4), _asymmetric)
    t.real("AsymmetricLaplaceQuantile", nd.AsymmetricLaplaceQuantile, (*NORMAL, 0.3), _by_quantile)
    t.real("Beta", nd.Beta, (1.5, 2.5), st.beta)
    t.real(
        "BetaProportion", nd.BetaProportion, (0.4, 3.0), lambda m, c: st.beta(m * c, (1 - m) * c)
    )
    t.real("Cauchy", nd.Cauchy, NORMAL, st.cauchy)
    t.real("Chi2", nd.Chi2, (3.0,), st.chi2)
    t.real("Dagum", nd.Dagum, (1.5, 2.5, 1.2), dagum)
    t.real(
        "DoublyTruncatedPowerLaw",
        nd.DoublyTruncatedPowerLaw,
        (-1.7, 0.5, 2.5),
        power_law,
        moving=True,
    )
    t.real("Exponential", nd.Exponential, (1.3,), lambda r: st.expon(scale=1 / r))
    t.real(
        "FoldedDistribution",
        lambda m, s: nd.FoldedDistribution(nd.Normal(m, s)),
        NORMAL,
        lambda m, s: Density(lambda x: st.norm(m, s).pdf(x) + st.norm(m, s).pdf(-x), 0.0, 10.0),
    )
    t.real("Gamma", nd.Gamma, (1.5, 2.0), lambda a, r: st.gamma(a, scale=1 / r))
    t.real("Gompertz", nd.Gompertz, (0.7, 1.3), gompertz)
    t.real("Gumbel", nd.Gumbel, NORMAL, st.gumbel_r)
    t.real("HalfCauchy", nd.HalfCauchy, (0.8,), lambda s: st.halfcauchy(scale=s))
    t.real("HalfNormal", nd.HalfNormal, (0.8,), lambda s: st.halfnorm(scale=s))
    t.real("InverseGamma", nd.InverseGamma, (3.5, 2.0), lambda a, r: st.invgamma(a, scale=r))
    t.real("Kumaraswamy", nd.Kumaraswamy, (1.5, 2.5), kumaraswamy)
    t.real("Laplace", nd.Laplace, NORMAL, st.laplace)
    for name, kind, inner in (
        ("Normal", nd.Normal, st.norm),
        ("Laplace", nd.Laplace, st.laplace),
        ("Logistic", nd.Logistic, st.logistic),
        ("Cauchy", nd.Cauchy, st.cauchy),
    ):
        t.real(
            f"LeftTruncatedDistribution({name})",
            lambda m, s, low, kind=kind: nd.LeftTruncatedDistribution(kind(m, s), low),
            (*NORMAL, -0.2),
            lambda m, s, low, inner=inner: Truncated(inner(m, s), low),
            moving=True,
        )
        t.real(
            f"RightTruncatedDistribution({name})",
            lambda m, s, high, kind=kind: nd.RightTruncatedDistribution(kind(m, s), high),
            (*NORMAL, 0.9),
            lambda m, s, high, inner=inner: Truncated(inner(m, s), high=high),
            moving=True,
        )
        t.real(
            f"TwoSidedTruncatedDistribution({name})",
            lambda m, s, low, high, kind=kind: nd.TwoSidedTruncatedDistribution(
                kind(m, s), low, high
            ),
            (*NORMAL, -0.5, 1.6),
            lambda m, s, low, high, inner=inner: Truncated(inner(m, s), low, high),
            moving=True,
        )
    t.real(
        "LeftTruncatedGamma",
        lambda a, r, low: nd.LeftTruncatedGamma(nd.Gamma(a, r), low),
        (1.5, 2.0, 0.3),
        lambda a, r, low: Truncated(st.gamma(a, scale=1 / r), low),
        moving=True,
    )
    t.real(
        "RightTruncatedGamma",
        lambda a, r, high: nd.RightTruncatedGamma(nd.Gamma(a, r), high),
        (1.5, 2.0, 1.3),
        lambda a, r, high: Truncated(st.gamma(a, scale=1 / r), 0, high),
        moving=True,
    )
    t.real(
        "TwoSidedTruncatedGamma",
        lambda a, r, low, high: nd.TwoSidedTruncatedGamma(nd.Gamma(a, r), low, high),
        (1.5, 2.0, 0.3, 1.3),
        lambda a, r, low, high: Truncated(st.gamma(a, scale=1 / r), low, high),
        moving=True,
    )
    t.real("Levy", nd.Levy, (0.4, 0.8), st.levy, moving=True)
    t.real("LogNormal", nd.LogNormal, (0.4, 0.6), lambda m, s: st.lognorm(s, scale=np.exp(m)))
    t.real("LogUniform", nd.LogUniform, (0.5, 2.5), st.loguniform, moving=True)
    t.real("Logistic", nd.Logistic, NORMAL, st.logistic)
    t.real(
        "LowerTruncatedPowerLaw",
        nd.LowerTruncatedPowerLaw,
        (-2.7, 0.5),
        lambda alpha, low: st.pareto(-1 - alpha, scale=low),
        moving=True,
    )
    t.real(
        "MixtureGeneral",
        lambda eta, m: nd.MixtureGeneral(
            nd.Categorical(logits=eta), [nd.Normal(m[i], 0.6) for i in range(3)]
        ),
        (LOGITS, np.array(TABLE)),
        _normal_mixture,
    )
    t.real(
        "MixtureSameFamily",
        lambda eta, m: nd.MixtureSameFamily(nd.Categorical(logits=eta), nd.Normal(m, 0.6)),
        (LOGITS, np.array(TABLE)),
        _normal_mixture,
    )
    t.real("Normal", nd.Normal, NORMAL, st.norm)
    t.real("Pareto", nd.Pareto, (1.2, 3.0), lambda s, a: st.pareto(a, scale=s), moving=True)
    t.real(
        "RelaxedBernoulliLogits",
        nd.RelaxedBernoulliLogits,
        (0.7, 0.3),
        lambda temperature, eta: Mapped(
            st.logistic(eta / temperature, 1 / temperature), expit, sp.logit
        ),
    )
    t.real("SoftLaplace", nd.SoftLaplace, NORMAL, soft_laplace)
    t.real("StudentT", nd.StudentT, (4.0, *NORMAL), st.t)
    t.real(
        "TransformedDistribution",
        lambda m, s: nd.TransformedDistribution(nd.Normal(m, s), nd.transforms.SigmoidTransform()),
        NORMAL,
        lambda m, s: Mapped(st.norm(m, s), expit, sp.logit),
    )
    t.real("Uniform", nd.Uniform, (-0.5, 1.3), _uniform, moving=True)
    t.real("VonMises", nd.VonMises, (0.4, 1.6), von_mises)
    t.real("Weibull", nd.Weibull, (2.0, 1.5), lambda s, c: st.weibull_min(c, scale=s))
    t.other(
        "HurdleGamma",
        nd.HurdleGamma,
        (0.3, 1.5, 2.0),
        square,
        lambda g, a, r: (1 - g) * a * (a + 1) / r**2,
    )
    t.other(
        "HurdleLogNormal",
        nd.HurdleLogNormal,
        (0.3, 0.2, 0.4),
        jnp.sum,
        lambda g, m, s: (1 - g) * np.exp(m + s**2 / 2),
    )
    for side, kind in (
        ("Left", nd.LeftCensoredDistribution),
        ("Right", nd.RightCensoredDistribution),
    ):
        t.real(
            f"{side}CensoredDistribution",
            lambda m, s, kind=kind: kind(nd.Normal(m, s), jnp.zeros((), bool)),
            NORMAL,
            st.norm,
        )
    t.real(
        "MaskedDistribution(True)",
        lambda m, s: nd.Normal(m, s).mask(True),  # noqa: FBT003
        NORMAL,
        st.norm,
    )
    t.real(
        "MaskedDistribution(False)",
        lambda m, s: nd.Normal(m, s).mask(False),  # noqa: FBT003
        NORMAL,
        st.norm,
    )


def _asymmetric(loc: Any, scale: Any, asymmetry: Any) -> Any:
    return st.laplace_asymmetric(asymmetry, loc, scale)


def _by_quantile(loc: Any, scale: Any, quantile: Any) -> Any:
    asymmetry = np.sqrt(quantile / (1 - quantile))
    return st.laplace_asymmetric(asymmetry, loc, scale * asymmetry / quantile)


def _numpyro_count(t: Table) -> None:
    t.count("BernoulliLogits", nd.BernoulliLogits, (0.3,), lambda eta: st.bernoulli(expit(eta)))
    t.count("BernoulliProbs", nd.BernoulliProbs, (0.3,), st.bernoulli)
    t.count(
        "MaskedDistribution(BernoulliLogits)",
        lambda eta: nd.BernoulliLogits(eta).mask(False),  # noqa: FBT003
        (0.3,),
        lambda eta: st.bernoulli(expit(eta)),
    )
    t.count("BetaBinomial", lambda a, b: nd.BetaBinomial(a, b, 4), (1.5, 2.5), _beta_binomial)
    t.count(
        "BetaNegativeBinomial",
        lambda a, b: nd.BetaNegativeBinomial(a, b, 3),
        (2.5, 5.5),
        lambda a, b: st.betanbinom(3, b, a),
    )
    t.count("BinomialLogits", lambda eta: nd.BinomialLogits(eta, 4), (0.3,), _binomial)
    t.count("BinomialProbs", lambda p: nd.BinomialProbs(p, 4), (0.3,), lambda p: st.binom(4, p))
    t.count("CategoricalLogits", nd.CategoricalLogits, (LOGITS,), _softmax)
    t.count("CategoricalProbs", lambda a: nd.CategoricalProbs(a / a.sum()), (POSITIVE,), _shares)
    t.count("DiscreteUniform", lambda: nd.DiscreteUniform(1, 4), (), lambda: st.randint(1, 5))
    t.count("GeometricLogits", nd.GeometricLogits, (0.3,), lambda eta: st.geom(expit(eta), loc=-1))
    t.count("GeometricProbs", nd.GeometricProbs, (0.4,), lambda p: st.geom(p, loc=-1))
    t.count(
        "GammaPoisson",
        nd.GammaPoisson,
        (1.5, 2.0),
        lambda a, r: st.nbinom(a, r / (1 + r)),
    )
    t.count(
        "HurdleLogits",
        lambda r, eta: nd.HurdleLogits(nd.Poisson(r), eta),
        (1.7, 0.3),
        lambda r, eta: inflated(st.poisson(r), expit(eta), hurdle=True),
    )
    t.count(
        "HurdleProbs",
        lambda r, g: nd.HurdleProbs(nd.Poisson(r), g),
        (1.7, 0.3),
        lambda r, g: inflated(st.poisson(r), g, hurdle=True),
    )
    t.count(
        "HurdlePoisson",
        nd.HurdlePoisson,
        (0.3, 1.7),
        lambda g, r: inflated(st.poisson(r), g, hurdle=True),
    )
    t.count(
        "NegativeBinomial2",
        nd.NegativeBinomial2,
        (1.7, 2.5),
        lambda m, c: st.nbinom(c, c / (c + m)),
    )
    t.count(
        "NegativeBinomialLogits",
        nd.NegativeBinomialLogits,
        (2.5, 0.3),
        lambda n, eta: st.nbinom(n, expit(-eta)),
    )
    t.count(
        "NegativeBinomialProbs",
        nd.NegativeBinomialProbs,
        (2.5, 0.4),
        lambda n, p: st.nbinom(n, 1 - p),
    )
    t.count(
        "OrderedLogistic",
        lambda m, c: nd.OrderedLogistic(m, c),
        (0.2, np.array([-0.5, 0.7])),
        lambda m, c: ordered(c, m),
    )
    t.count("Poisson", nd.Poisson, (1.7,), st.poisson)
    t.count(
        "ZeroInflatedPoisson",
        nd.ZeroInflatedPoisson,
        (0.3, 1.7),
        lambda g, r: inflated(st.poisson(r), g),
    )
    t.count(
        "ZeroInflatedProbs",
        lambda r, g: nd.ZeroInflatedDistribution(nd.Poisson(r), gate=g),
        (1.7, 0.3),
        lambda r, g: inflated(st.poisson(r), g),
    )
    t.count(
        "ZeroInflatedProbs(Bernoulli)",
        lambda p, g: nd.ZeroInflatedDistribution(nd.BernoulliProbs(p), gate=g),
        (0.6, 0.3),
        lambda p, g: st.bernoulli(p * (1 - g)),
    )
    t.count(
        "ZeroInflatedLogits",
        lambda r, eta: nd.ZeroInflatedDistribution(nd.Poisson(r), gate_logits=eta),
        (1.7, 0.3),
        lambda r, eta: inflated(st.poisson(r), expit(eta)),
    )


def _numpyro_vectors(t: Table) -> None:
    t.other("Delta", nd.Delta, (0.5,), square, lambda v: v**2, moving=True)
    t.other("Dirichlet", nd.Dirichlet, (POSITIVE,), of_simplex, dirichlet_of)
    t.other(
        "DirichletMultinomial",
        lambda a: nd.DirichletMultinomial(a, 4),
        (POSITIVE,),
        of_counts,
        lambda a: dirichlet_multinomial_of(4, a),
        discrete=True,
    )
    t.other(
        "MultinomialLogits",
        lambda eta: nd.MultinomialLogits(eta, 4),
        (LOGITS,),
        of_counts,
        lambda eta: multinomial_of(4, softmax(eta)),
        discrete=True,
    )
    t.other(
        "MultinomialProbs",
        lambda a: nd.MultinomialProbs(a / a.sum(), 4),
        (POSITIVE,),
        of_counts,
        lambda a: multinomial_of(4, a / a.sum()),
        discrete=True,
    )
    t.other(
        "ExpandedDistribution",
        lambda m, s: nd.Normal(m, s).expand([2]),
        NORMAL,
        bilinear,
        lambda m, s: 3 * m**2 + 2 * s**2,
    )
    t.other(
        "ExpandedDistribution(Bernoulli)",
        lambda eta: nd.BernoulliLogits(eta).expand([2]).to_event(1),
        (0.3,),
        _of_bits,
        lambda eta: expit(eta) + 2 * expit(eta) ** 2,
        discrete=True,
    )
    t.other(
        "MaskedDistribution(Bernoullis)",
        lambda eta: nd.BernoulliLogits(eta).mask(jnp.array([True, False])),
        (MEANS,),
        lambda b: b[0],
        lambda eta: expit(eta[0]),
        discrete=True,
    )
    t.other(
        "Independent",
        lambda m, s: nd.Normal(m, s).to_event(1),
        (MEANS, SCALES),
        bilinear,
        _diagonal,
    )
    adjacency = np.array([[0.0, 1.0], [1.0, 0.0]])

    def car_of(mean: Any, correlation: Any, precision: Any) -> Any:
        return bilinear_of(mean, np.linalg.inv(precision * (np.eye(2) - correlation * adjacency)))

    t.other(
        "CAR",
        lambda m, c, p: nd.CAR(m, c, p, jnp.array(adjacency, jnp.float32)),
        (MEANS, 0.4, 1.3),
        bilinear,
        car_of,
    )
    t.other(
        "CirculantNormal",
        lambda m, row: nd.CirculantNormal(m, covariance_row=jnp.append(row, row[1])),
        (np.array([0.5, -0.3, 0.2]), np.array([1.2, 0.3])),
        bilinear,
        lambda m, row: m @ m + 3 * row[0] + m[0] * m[1] + row[1],
    )
    t.other(
        "EulerMaruyama",
        lambda m, s: nd.EulerMaruyama(
            jnp.array([0.0, 1.0]), lambda x, _: (-0.5 * x, s), nd.Normal(m, 1.0)
        ),
        NORMAL,
        bilinear,
        lambda m, s: (m**2 + 1) * (1 + 0.25 + 0.5) + s**2,
    )
    t.other(
        "GaussianCopula",
        lambda m, s: nd.GaussianCopula(
            nd.Normal(m, s), correlation_matrix=jnp.array([[1.0, 0.5], [0.5, 1.0]])
        ),
        (MEANS, SCALES),
        bilinear,
        lambda m, s: bilinear_of(m, np.outer(s, s) * np.array([[1, 0.5], [0.5, 1]])),
    )
    t.other(
        "GaussianCopulaBeta",
        lambda a, b: nd.GaussianCopulaBeta(
            a, b, correlation_matrix=jnp.array([[1.0, 0.5], [0.5, 1.0]])
        ),
        (POSITIVE[:2], SCALES),
        square,
        lambda a, b: np.sum(a * (a + 1) / ((a + b) * (a + b + 1))),
    )
    t.other(
        "GaussianRandomWalk",
        lambda s: nd.GaussianRandomWalk(s, 2),
        (0.8,),
        bilinear,
        lambda s: 4 * s**2,
    )
    t.other(
        "GaussianStateSpace",
        lambda a, r: nd.GaussianStateSpace(2, a[None, None], scale_tril=r[None, None]),
        (0.7, 0.8),
        lambda x: bilinear(x[:, 0]),
        lambda a, r: r**2 * (1 + 1 + a**2 + a),
    )
    scale = np.array([[1.2, 0.3], [0.3, 0.9]])

    def covariance(x: Any) -> Any:
        return (x + x.T) / 2

    for name, build, f in (
        ("Wishart", lambda df, m: nd.Wishart(df, covariance(m)), of_matrix),
        ("WishartCholesky", lambda df, m: nd.WishartCholesky(df, covariance(m)), _of_root),
    ):
        t.other(
            name,
            build,
            (3.5, scale),
            f,
            lambda df, m: df * (np.trace(m) + (m[0, 1] + m[1, 0]) / 2),
        )
    for name, build, f in (
        ("InverseWishart", lambda df, m: nd.InverseWishart(df, covariance(m)), of_matrix),
        (
            "InverseWishartCholesky",
            lambda df, m: nd.InverseWishartCholesky(df, covariance(m)),
            _of_root,
        ),
    ):
        t.other(
            name,
            build,
            (9.5, scale),
            f,
            lambda df, m: (np.trace(m) + (m[0, 1] + m[1, 0]) / 2) / (df - 3),
        )
    for method in ("onion", "cvine"):
        t.other(
            f"LKJCholesky({method})",
            lambda c, method=method: nd.LKJCholesky(3, c, method),
            (1.5,),
            lambda x: (x @ x.T)[0, 1] ** 2,
            lkj_of,
        )
        t.other(
            f"LKJ({method})",
            lambda c, method=method: nd.LKJ(3, c, method),
            (1.5,),
            lambda x: x[0, 1] ** 2,
            lkj_of,
        )
    t.other(
        "LowRankMultivariateNormal",
        nd.LowRankMultivariateNormal,
        (MEANS, np.array([[0.3], [0.4]]), SCALES),
        bilinear,
        lambda m, u, v: bilinear_of(m, u @ u.T + np.diag(v)),
    )
    t.other(
        "MatrixNormal",
        lambda m, r, c: nd.MatrixNormal(m[:, None], jnp.tril(r), c[None, None]),
        (MEANS, ROOT, 1.3),
        lambda x: bilinear(x[:, 0]),
        lambda m, r, c: bilinear_of(m, c**2 * np.tril(r) @ np.tril(r).T),
    )
    t.other(
        "MultivariateNormal",
        # Above the diagonal there is nothing to learn: numpyro would draw with what stands there.
        lambda m, r: nd.MultivariateNormal(m, scale_tril=jnp.tril(r)),
        (MEANS, ROOT),
        bilinear,
        _triangular,
    )
    t.other(
        "MultivariateNormal(covariance)",
        lambda m, r: nd.MultivariateNormal(m, r @ r.T),
        (MEANS, ROOT),
        bilinear,
        _full,
    )
    t.other(
        "MultivariateStudentT",
        lambda df, m, r: nd.MultivariateStudentT(df, m, jnp.tril(r)),
        (8.0, MEANS, ROOT),
        bilinear,
        student_root_of,
    )
    t.other("ProjectedNormal", nd.ProjectedNormal, (MEANS,), lambda x: x[0] + x[1] ** 2, _projected)
    t.other(
        "SineBivariateVonMises",
        lambda a, b: nd.SineBivariateVonMises(0.3, -0.2, a, b, jnp.array(0.4)),
        (1.5, 2.0),
        lambda x: jnp.cos(x[0]) + jnp.cos(x[1] - x[0]),
        _sine_bivariate,
    )
    t.other(
        "SineSkewed",
        lambda m, c, s: nd.SineSkewed(nd.VonMises(m[None], c[None]).to_event(1), s[None]),
        (0.4, 1.6, 0.3),
        lambda x: jnp.cos(x[0]) + 0.5 * jnp.sin(x[0]),
        sine_skewed_of,
    )
    t.other(
        "TruncatedPolyaGamma",
        lambda: nd.TruncatedPolyaGamma(),
        (),
        lambda x: jnp.minimum(x, 1.0).sum(),
        lambda: _POLYA_GAMMA,
    )
    t.other("Unit", nd.Unit, (0.3,), lambda x: jnp.sum(x), lambda eta: 0.0 * eta)
    t.other(
        "ZeroSumNormal",
        lambda s: nd.ZeroSumNormal(s, (3,)),
        (0.8,),
        bilinear,
        lambda s: s**2 * (2 - 1 / 3),
    )


def _of_root(root: Any) -> jax.Array:
    return of_matrix(root @ root.T)


def _projected(concentration: Any) -> Any:
    angle = (np.arange(4000) + 0.5) / 4000 * 2 * np.pi
    x = np.stack([np.cos(angle), np.sin(angle)], -1)
    along = x @ concentration
    p = np.exp(-(concentration @ concentration) / 2) / (2 * np.pi)
    p = p * (1 + along * np.exp(along**2 / 2) * np.sqrt(2 * np.pi) * st.norm.cdf(along))
    return np.sum(p * (x[:, 0] + x[:, 1] ** 2)) * 2 * np.pi / 4000


def _sine_bivariate(a: Any, b: Any) -> Any:
    grid = (np.arange(400) + 0.5) / 400 * 2 * np.pi - np.pi
    phi, psi = np.meshgrid(grid, grid, indexing="ij")
    p = np.exp(
        a * np.cos(phi - 0.3) + b * np.cos(psi + 0.2) + 0.4 * np.sin(phi - 0.3) * np.sin(psi + 0.2)
    )
    return np.sum(p * (np.cos(phi) + np.cos(psi - phi))) / np.sum(p)


# The mean of min(x, 1) of a Polya-Gamma(1, 0) draw: a sum of exponentials, x = sum_k e_k / (2 pi^2
# (k - 1/2)^2), truncated at 2.5 where hardly any mass is left. By the series of its density.
def _polya_gamma() -> float:
    x = (np.arange(100_000) + 0.5) / 100_000 * 2.5
    n = np.arange(60)[:, None]
    pdf = np.sum(
        (-1.0) ** n
        * (2 * n + 1)
        / np.sqrt(2 * np.pi * x**3)
        * np.exp(-((2 * n + 1) ** 2) / (8 * x)),
        0,
    )
    return float(np.sum(pdf * np.minimum(x, 1)) / np.sum(pdf))


_POLYA_GAMMA = _polya_gamma()


# ---------------------------------------------------------------------------------------- flowjax


def _flowjax() -> list[Family]:
    t = Table("flowjax")
    t.real("Beta", fjd.Beta, (1.5, 2.5), st.beta)
    t.real("Cauchy", fjd.Cauchy, NORMAL, st.cauchy)
    t.real("Exponential", fjd.Exponential, (1.3,), lambda r: st.expon(scale=1 / r))
    t.real("Gamma", fjd.Gamma, (1.5, 0.7), lambda a, s: st.gamma(a, scale=s))
    t.real("Gumbel", fjd.Gumbel, NORMAL, st.gumbel_r)
    t.real("Laplace", fjd.Laplace, NORMAL, st.laplace)
    t.real("LogNormal", fjd.LogNormal, (0.4, 0.6), lambda m, s: st.lognorm(s, scale=np.exp(m)))
    t.real("Logistic", fjd.Logistic, NORMAL, st.logistic)
    t.real("Normal", fjd.Normal, NORMAL, st.norm)
    t.real("StandardNormal", lambda: fjd.StandardNormal(()), (), lambda: st.norm(0, 1))
    t.real("StudentT", fjd.StudentT, (4.0, *NORMAL), st.t)
    t.real("Uniform", fjd.Uniform, (-0.5, 1.3), _uniform, moving=True)
    t.other(
        "MultivariateNormal",
        lambda m, r: fjd.MultivariateNormal(m, r @ r.T),
        (MEANS, ROOT),
        bilinear,
        _full,
    )
    t.real(
        "Transformed",
        lambda m, s: fjd.Transformed(fjd.Normal(m, s), fjb.Tanh()),
        NORMAL,
        lambda m, s: Mapped(st.norm(m, s), np.tanh, np.arctanh),
    )
    t.real(
        "VmapMixture",
        lambda w, m: fjd.VmapMixture(eqx.filter_vmap(lambda mean: fjd.Normal(mean, 0.6))(m), w),
        (POSITIVE, np.array(TABLE)),
        lambda w, m: _normal_mixture(np.log(w), m),
    )
    return t.rows


FAMILIES = [*_distrax(), *_tfp(), *_numpyro(), *_flowjax()]

# Classes that are exported and have no entry, by library.
LEFT_OUT: dict[str, dict[str, str]] = {
    "distrax": {"Distribution": "abstract"},
    "tfd": {
        "AutoCompositeTensorDistribution": "abstract",
        "Distribution": "abstract",
        "JointDistribution": "abstract",
        "Bates": "it does not sample under jit",
        "MatrixNormalLinearOperator": "it does not sample under jit",
        "MatrixTLinearOperator": "it does not sample under jit",
        "PoissonLogNormalQuadratureCompound": "it does not sample under jit",
        "VariationalGaussianProcess": "it does not sample at all on JAX",
    },
    "numpyro": {
        "Distribution": "abstract",
        "ImproperUniform": "improper: it has no draws",
        "IntervalCensoredDistribution": "log_prob is that of intervals, and the draws are not",
    },
    "flowjax": {
        "AbstractDistribution": "abstract",
        "AbstractLocScaleDistribution": "abstract",
        "AbstractTransformed": "abstract",
    },
}
