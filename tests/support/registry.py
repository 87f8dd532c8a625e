"""Every estimator, once: the tests of unbiasedness, transformations and protocol run over these.

A new estimator joins all of them by one line in `ENTRIES`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import PROBLEMS, Noise, Problem, pieces

import scorefn as sf

FINITE = ("categorical", "joint", "bernoulli")
GAUSSIAN = ("gaussian", "chain")
ANY = FINITE + GAUSSIAN
# From a problem and an estimator to a wrapper around it.
Wrap = Callable[[Problem, sf.Estimator], sf.Estimator]


@dataclass(frozen=True)
class Entry:
    """An estimator, and where it applies.

    Attributes:
        name: how the test is called.
        build: from a problem to the estimator.
        kinds: the names of the problems it applies to; what is tested on one only, on the first.
        samples: the numbers of samples to try.
        at_most: samples that it can take.
        evaluations: how often f is called for n samples and a support of size s.
        noise: the rule for what one draw consumes: the problem's own, if the estimator draws from
            the distribution and nothing else. None leaves its exact tests to a file of its own.
    """

    name: str
    build: Callable[[Problem], sf.Estimator]
    kinds: tuple[str, ...]
    samples: tuple[int, ...] = (1, 2, 3, 4)
    at_most: int = 16
    evaluations: Callable[[int, int], int] = lambda n, _: n
    noise: Callable[[Problem], Noise] | None = lambda problem: problem.noise


def _affine(params: Any, inputs: Any) -> Any:
    return params[0] + params[1] * inputs


def _score(baseline: Callable[[], sf.Baseline]) -> Callable[[Problem], sf.Estimator]:
    # The baseline is built when the test runs, in the precision of the test.
    return lambda _: sf.ScoreFunction(baseline())


def _averaged() -> sf.Baseline:
    return sf.MovingAverage(0.9).update(jnp.array([1.0, 5.0]))


def _shrunk() -> sf.Baseline:
    costs = jnp.array([1.0, 5.0, -2.0])
    return sf.ShrunkLeaveOneOut(0.9).update(costs).update(2 * costs)


def _learned() -> sf.Baseline:
    return sf.LearnedBaseline(_affine, jnp.array([1.5, 2.0]), jnp.array(0.4))


def _array(problem: Problem, values: Any) -> jax.Array:
    """An array of the precision of the problem, which may have been made in another one."""
    dtype = jnp.result_type(jax.tree.leaves(problem.params)[0])
    return jnp.asarray(values, jax.dtypes.canonicalize_dtype(dtype))


def _wide(problem: Problem) -> sf.Distribution:
    """A proposal that covers the Gaussian problem."""
    params = {"mean": _array(problem, 0.2), "log_scale": _array(problem, 0.3)}
    return problem.distribution(params)


def _product(x: Any) -> jax.Array:
    return x[0] * x[1]


def _mean_product(bits: Any) -> jax.Array:
    return jnp.prod(jax.nn.sigmoid(bits.logits))


def _rodeo(problem: Problem) -> sf.Estimator:
    return sf.RODEO(_value_and_slope, _array(problem, [0.5, 2.0]))


def _sum(params: Any, x: Any) -> Any:
    return params * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(x))


def _value_and_slope(params: Any, value: Any, slope: Any) -> Any:
    return params[0] * value + slope, params[1] * slope


def _controlled(kind: Any, **options: Any) -> Wrap:
    return lambda _, inner: kind(inner, _product, _mean_product, **options)


def _gaussian_moments(params: Any) -> tuple[jax.Array, jax.Array]:
    return params["mean"], jnp.exp(params["log_scale"])


def _mirrored(params: Any, x: Any) -> Any:
    return 2 * params["mean"] - x


def _quadratic(problem: Problem, inner: sf.Estimator) -> sf.Estimator:
    slope, curvature = _array(problem, 1.5), _array(problem, -0.7)
    return sf.QuadraticSurrogate(inner, slope, curvature, moments=_gaussian_moments)


def _all_data(problem: Problem, inner: sf.Estimator) -> sf.Estimator:
    """A minibatch of all there is: the noise that is left is that of the draws."""
    table = (_array(problem, [0.5, -1.0, 2.0]), _array(problem, [1.0, 0.3, -0.2]))
    stored = sf.DatumSurrogates(*table, *(jnp.sum(column) for column in table))
    return sf.MinibatchControlVariate(inner, stored, jnp.arange(3), moments=_gaussian_moments)


def _mean(costs: jax.Array) -> jax.Array:
    """A statistic whose expectation the problems know; others are in test_sample_statistic.py."""
    return jnp.mean(costs, 0)


def _quantile(params: Any, u: jax.Array) -> jax.Array:
    return params["mean"] + jnp.exp(params["log_scale"]) * jnp.sqrt(2) * jax.lax.erf_inv(2 * u - 1)


def _listed(problem: Problem) -> sf.Estimator:
    # A copy: JAX keeps the constant of a NumPy array in the precision of its first use.
    return sf.Enumerate(jax.tree.map(np.array, problem.support))


def _both_sides(problem: Problem) -> Noise:
    """The rule for bits that are drawn from u and from 1 - u."""
    first, second = (pieces(t, 1 - t) for t in 1 / (1 + np.exp(-problem.params["logits"])))
    return first * second


def twice(n: int, _: int) -> int:
    return 2 * n


def _pathwise(_: Problem) -> sf.Estimator:
    return sf.Pathwise()


def around(name: str, inner: Callable[[Problem], sf.Estimator]) -> dict[str, Any]:
    """The estimator and the problems of an entry that is a wrapper around another estimator."""
    wrap, kinds = WRAPPERS[name]
    return {"build": lambda p: wrap(p, inner(p)), "kinds": kinds}


BITS, FACTOR, STRUCTURED = ("bernoulli",), ("category",), ("subset", "ranking")
PAIRS, SUPPORT = {"evaluations": twice}, {"evaluations": lambda _, s: s}
APART: dict[str, Any] = {"noise": None}
COUPLED: dict[str, Any] = {"noise": None, "samples": (2, 3)}

NORMAL = GAUSSIAN[:1]
WRAPPERS: dict[str, tuple[Wrap, tuple[str, ...]]] = {
    "ControlVariate": (_controlled(sf.ControlVariate, coefficient=0.7), BITS),
    "FittedCV": (_controlled(sf.FittedControlVariate), BITS),
    "DeltaMethod": (lambda _, inner: sf.DeltaMethod(inner, moments=_gaussian_moments), NORMAL),
    "MuProp": (lambda _, inner: sf.DeltaMethod(inner, 1), BITS),
    "QuadraticSurrogate": (_quadratic, NORMAL),
    "MinibatchCV": (_all_data, NORMAL),
    "Antithetic": (lambda _, inner: sf.Antithetic(inner, _mirrored), NORMAL),
    "AntitheticBits": (lambda _, inner: sf.Antithetic(inner), BITS),
    "Stratified": (lambda _, inner: sf.Stratified(inner, _quantile), NORMAL),
    "Sobol": (lambda _, inner: sf.QuasiMonteCarlo(inner, _quantile), NORMAL),
    "Statistic": (lambda _, inner: sf.SampleStatistic(inner, _mean), ANY),
}
CONSTANT, PLAIN = (_score(partial(sf.ConstantBaseline, value)) for value in (1.7, 0.0))

ENTRIES = [
    Entry("leave_one_out", lambda _: sf.ScoreFunction(), (*ANY, "distrax"), samples=(2, 3, 4)),
    Entry("constant", CONSTANT, ANY),
    Entry("moving_average", _score(_averaged), ANY),
    Entry("shrunk", _score(_shrunk), ("categorical", "gaussian"), samples=(2, 3)),
    Entry("learned", _score(_learned), ANY),
    Entry("optimal", _score(sf.OptimalBaseline), ANY, samples=(2, 3, 4)),
    Entry("pathwise", _pathwise, (*GAUSSIAN, "point")),
    Entry("enumerate", _listed, FINITE, **SUPPORT),
    Entry(
        "enumerate_read",
        lambda _: sf.Enumerate(),
        (*BITS, *FACTOR, "distrax", *STRUCTURED),
        **SUPPORT,
    ),
    Entry("subset", lambda _: sf.ScoreFunction(), ("subset",), samples=(2, 3)),
    Entry("ranking", lambda _: sf.ScoreFunction(), ("ranking",), samples=(2, 3)),
    Entry("path", CONSTANT, ("path",), samples=(1, 2)),
    Entry("ARM", lambda _: sf.ARM(), BITS, **APART, **PAIRS),
    Entry("DisARM", lambda _: sf.DisARM(), BITS, **APART, **PAIRS),
    Entry("ARMS", lambda _: sf.ARMS(), BITS, **COUPLED),
    Entry("BitFlip", lambda _: sf.BitFlip(), BITS, **APART, **PAIRS),
    Entry("CoupledCategorical", lambda _: sf.CoupledCategorical(), FACTOR, **APART, **PAIRS),
    Entry("UnorderedSet", lambda _: sf.UnorderedSet(), FACTOR, at_most=3, **COUPLED),
    Entry("SumAndSample", lambda _: sf.SumAndSample(1), FACTOR, **APART),
    Entry("StochasticSum", lambda _: sf.StochasticSumAndSample(1), FACTOR, **APART, **PAIRS),
    Entry("LocalExpectation", lambda _: sf.LocalExpectation(), BITS, **APART),
    Entry("MeasureValued", lambda _: sf.MeasureValued(), BITS, **APART),
    Entry("GO", lambda _: sf.GO(), BITS, **APART),
    Entry("REBAR", lambda _: sf.REBAR(0.5), BITS, **APART),
    Entry("RELAX", lambda _: sf.RELAX(_sum, jnp.array(1.5)), BITS, **APART),
    Entry("LAX", lambda _: sf.LAX(_sum, jnp.array(1.5)), ("chain",), **APART),
    Entry("DoubleCV", lambda _: sf.DoubleCV(), BITS, **COUPLED),
    Entry("RODEO", _rodeo, BITS, **COUPLED),
    Entry("ControlVariate", **around("ControlVariate", CONSTANT)),
    Entry("FittedCV", **around("FittedCV", CONSTANT), samples=(3,), **PAIRS),
    Entry("DeltaMethod", **around("DeltaMethod", _pathwise), evaluations=lambda n, _: n + 6),
    Entry(
        "MuProp",
        **around("MuProp", _score(lambda: sf.ConstantBaseline(0.0))),
        evaluations=lambda n, _: n + 3,
    ),
    Entry("QuadraticSurrogate", **around("QuadraticSurrogate", _pathwise)),
    Entry("MinibatchCV", **around("MinibatchCV", _pathwise)),
    Entry("Antithetic", **around("Antithetic", _pathwise), **PAIRS),
    Entry(
        "AntitheticBits",
        **around("AntitheticBits", CONSTANT),
        samples=(1, 2, 3),
        **PAIRS,
        noise=_both_sides,
    ),
    Entry("Stratified", **around("Stratified", _pathwise), **APART),
    Entry("Sobol", **around("Sobol", _pathwise), **APART),
    Entry("ImportanceWeighted", lambda p: sf.ImportanceWeighted(_wide(p)), NORMAL, **COUPLED),
    Entry("SelfNormalized", lambda p: sf.SelfNormalized(_wide(p)), NORMAL, **COUPLED),
    Entry("Statistic", **around("Statistic", lambda _: sf.ScoreFunction()), samples=(2, 3)),
    Entry("StatisticPath", lambda _: sf.SampleStatistic(sf.Pathwise(), _mean), GAUSSIAN),
    Entry("GumbelSoftmax", lambda _: sf.GumbelSoftmax(0.5), BITS, **APART),
    Entry("GumbelRao", lambda _: sf.GumbelRao(0.5), BITS, **APART),
    Entry("STGS", lambda _: sf.StraightThroughGumbelSoftmax(0.5), BITS, **APART),
    Entry("StraightThrough", lambda _: sf.StraightThrough(), BITS, **APART),
    Entry("SIMPLE", lambda _: sf.StraightThrough(), ("subset",), **APART),
    Entry("ReinMax", lambda _: sf.ReinMax(), BITS, **APART),
    Entry("SPSA", lambda _: sf.SPSA(0.1), ("point",), **APART, **PAIRS),
    Entry("ForwardGradient", lambda _: sf.ForwardGradient(), ("point",), **APART),
    Entry("ES", lambda _: sf.EvolutionStrategies(0.1), ("point",), **APART, **PAIRS),
    Entry("RankedES", lambda _: sf.RankedEvolutionStrategies(0.1), ("point",), **APART, **PAIRS),
]

# To a transformation these are others over again: one version of Python is enough.
KIN = ("constant", "moving_average", "shrunk", "learned", "enumerate_read", "ARM", "ARMS", "GO")
KIN += ("CoupledCategorical", "StochasticSum", "RELAX", "RODEO", "ControlVariate", "MuProp")
KIN += ("QuadraticSurrogate", "AntitheticBits", "Stratified", "SelfNormalized", "STGS", "ReinMax")
KIN += ("GumbelSoftmax", "ES", "RankedES", "optimal", "DoubleCV", "FittedCV", "UnorderedSet")
KIN += ("GumbelRao", "MinibatchCV", "SPSA", "StatisticPath", "SIMPLE", "path", "ranking")


def once(*, is_kin: bool) -> list[pytest.MarkDecorator]:
    """The marks of a row that is tested on one version of Python if it is kin of another."""
    return [pytest.mark.slow] if is_kin else []


EXACT = [entry for entry in ENTRIES if entry.noise is not None]


@cache
def problem(kind: str) -> Problem:
    """The problem of that name."""
    return PROBLEMS[kind]()


def grid(entries: list[Entry]) -> list[Any]:
    """Each estimator on every problem that it applies to."""
    return [
        pytest.param(entry, kind, id=f"{entry.name}-{kind}")
        for entry in entries
        for kind in entry.kinds
    ]


def each(kinds: Sequence[str] = tuple(PROBLEMS), num_samples: int = 3) -> list[Any]:
    """Every estimator that takes so many samples, on the first of the problems it applies to."""
    return [
        pytest.param(
            entry,
            next(k for k in entry.kinds if k in kinds),
            id=entry.name,
            marks=once(is_kin=entry.name in KIN),
        )
        for entry in ENTRIES
        if entry.at_most >= num_samples and set(entry.kinds) & set(kinds)
    ]
