"""Every estimator, once: the tests of unbiasedness, transformations and protocol run over these.

A new estimator joins all of them by one line in `ENTRIES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax.numpy as jnp
import pytest
from exact import PROBLEMS, Noise, Problem

import scorefn as sf

FINITE = ("categorical", "joint", "bernoulli")
GAUSSIAN = ("gaussian", "chain")
ANY = FINITE + GAUSSIAN


@dataclass(frozen=True)
class Entry:
    """An estimator, and where it applies.

    Attributes:
        name: how the test is called.
        build: from a problem to the estimator.
        kinds: the names of the problems it applies to; what is tested on one only, on the first.
        samples: the numbers of samples to try.
        noise: the rule for what one draw consumes, where it is not the problem's own: an estimator
            that draws uniform numbers itself.
        evaluations: how often f is called for n samples and a support of size s.
    """

    name: str
    build: Callable[[Problem], sf.Estimator]
    kinds: tuple[str, ...]
    samples: tuple[int, ...] = (1, 2, 3, 4)
    noise: Callable[[Problem], Noise] = lambda problem: problem.noise
    evaluations: Callable[[int, int], int] = lambda n, s: n  # noqa: ARG005


def _affine(params: Any, inputs: Any) -> Any:
    return params[0] + params[1] * inputs


def _score(baseline: Callable[[], sf.Baseline]) -> Callable[[Problem], sf.Estimator]:
    # The baseline is built when the test runs, in the precision of the test.
    return lambda _: sf.ScoreFunction(baseline())


def _averaged() -> sf.Baseline:
    return sf.MovingAverage(0.9).update(jnp.array([1.0, 5.0]))


def _learned() -> sf.Baseline:
    return sf.LearnedBaseline(_affine, jnp.array([1.5, 2.0]), jnp.array(0.4))


ENTRIES = [
    Entry("leave_one_out", lambda _: sf.ScoreFunction(), ANY, samples=(2, 3, 4)),
    Entry("plain", _score(sf.ConstantBaseline), ANY),
    Entry("constant", _score(lambda: sf.ConstantBaseline(1.7)), ANY),
    Entry("moving_average", _score(_averaged), ANY),
    Entry("learned", _score(_learned), ANY),
    Entry("optimal", _score(sf.OptimalBaseline), ANY, samples=(2, 3, 4)),
    Entry("pathwise", lambda _: sf.Pathwise(), GAUSSIAN),
    Entry("enumerate", lambda p: sf.Enumerate(p.support), FINITE, evaluations=lambda _, s: s),
    Entry("enumerate_read", lambda _: sf.Enumerate(), ("bernoulli",), evaluations=lambda _, s: s),
]


@cache
def problem(kind: str) -> Problem:
    """The problem of that name."""
    return PROBLEMS[kind]()


def grid() -> list[Any]:
    """Every estimator on every problem that it applies to."""
    return [
        pytest.param(entry, kind, id=f"{entry.name}-{kind}")
        for entry in ENTRIES
        for kind in entry.kinds
    ]


def each() -> list[Any]:
    """Every estimator, on the first problem it applies to."""
    return [pytest.param(entry, entry.kinds[0], id=entry.name) for entry in ENTRIES]
