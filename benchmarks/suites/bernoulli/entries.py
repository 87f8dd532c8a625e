"""The estimators of one Bernoulli variable, each with its exact mean and variance."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

import scorefn as sf

from . import exact
from . import relaxed_exact as smooth
from .exact import Coin
from .relaxed_exact import TEMPERATURE


@dataclass(frozen=True)
class Entry:
    """An estimator and what is known of it.

    Attributes:
        estimator: may depend on the coin, as an optimal constant does.
        num_samples: the terms of one gradient.
        evaluations: of f, for one gradient.
        variance: of one gradient, exactly.
        mean: of one gradient, exactly; that of a biased estimator is not the gradient of the coin.
    """

    estimator: Callable[[Coin], sf.Estimator]
    num_samples: int
    evaluations: int
    variance: Callable[[Coin], float]
    mean: Callable[[Coin], float] = lambda coin: coin.gradient


def _constant(baseline: Callable[[Coin], float]) -> Entry:
    return Entry(
        lambda coin: sf.ScoreFunction(sf.ConstantBaseline(baseline(coin))),
        num_samples=2,
        evaluations=2,
        variance=lambda coin: exact.constant_baseline(coin, baseline(coin), 2),
    )


def _leave_one_out(n: int) -> Entry:
    return Entry(lambda _: sf.ScoreFunction(), n, n, lambda coin: exact.leave_one_out(coin, n))


def _optimal_baseline(n: int) -> Entry:
    return Entry(
        lambda _: sf.ScoreFunction(sf.OptimalBaseline()),
        num_samples=n,
        evaluations=n,
        variance=lambda coin: exact.enumerated(coin, n, exact.weighted_leave_one_out),
    )


def _relaxed(
    estimator: Callable[[Coin], sf.Estimator],
    evaluations: int,
    estimates: Callable[[Coin, smooth.Relaxed], np.ndarray],
) -> Entry:
    variance, mean = partial(smooth.variance, estimates), partial(smooth.mean, estimates)
    return Entry(estimator, 1, evaluations, variance, mean)


# In brackets: evaluations of f for one gradient.
ENTRIES: Mapping[str, Entry] = {
    "REINFORCE (2)": _constant(lambda _: 0.0),
    "constant E f (2)": _constant(lambda coin: coin.mean),
    "best constant (2)": _constant(lambda coin: coin.optimal_constant),
    "LeaveOneOut (2)": _leave_one_out(2),
    "LeaveOneOut (4)": _leave_one_out(4),
    "LeaveOneOut (8)": _leave_one_out(8),
    "OptimalBaseline (4)": _optimal_baseline(4),
    "ARM (2)": Entry(lambda _: sf.ARM(), 1, 2, exact.arm),
    "DisARM (2)": Entry(lambda _: sf.DisARM(), 1, 2, exact.disarm),
    "ARMS (4)": Entry(lambda _: sf.ARMS(), 4, 4, lambda coin: exact.arms(coin, 4)),
    "BitFlip (2)": Entry(lambda _: sf.BitFlip(), 1, 2, lambda _: 0.0),
    "LocalExpectation (2)": Entry(lambda _: sf.LocalExpectation(), 1, 2, lambda _: 0.0),
    "MeasureValued (2)": Entry(lambda _: sf.MeasureValued(), 1, 2, lambda _: 0.0),
    "GO (2)": Entry(lambda _: sf.GO(), 1, 2, exact.go),
    "DoubleCV (2)": Entry(
        lambda _: sf.DoubleCV(), 2, 2, lambda coin: exact.enumerated(coin, 2, exact.double_cv)
    ),
    "REBAR (3)": _relaxed(lambda _: sf.REBAR(TEMPERATURE), 3, smooth.rebar),
    "GumbelSoftmax (1)": _relaxed(
        lambda _: sf.GumbelSoftmax(TEMPERATURE), 1, smooth.gumbel_softmax
    ),
    "ST-GumbelSoftmax (1)": _relaxed(
        lambda _: sf.StraightThroughGumbelSoftmax(TEMPERATURE),
        1,
        smooth.straight_through_gumbel_softmax,
    ),
    "GumbelRao (1)": Entry(
        lambda _: sf.GumbelRao(TEMPERATURE),
        1,
        1,
        lambda coin: smooth.gumbel_rao(coin, 10),
        partial(smooth.mean, smooth.straight_through_gumbel_softmax),
    ),
    "StraightThrough (1)": Entry(
        lambda _: sf.StraightThrough(), 1, 1, exact.straight_through, exact.straight_through_mean
    ),
    "ReinMax (1)": Entry(lambda _: sf.ReinMax(), 1, 1, exact.reinmax),
}
