"""A discrete toy: an objective whose gradient is known exactly, and the estimators put to it."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

import scorefn as sf
from benchmarks._measuring import enumeration


@dataclass(frozen=True)
class Entry:
    """An estimator, the terms and the evaluations of f of one gradient.

    Attributes:
        estimator: the estimator.
        num_samples: the terms.
        evaluations: of f.
        variance: ``variance(setting)``, exactly, where it is known.
        tuned: whether the leaves of the estimator are learned before it is measured.
    """

    estimator: sf.Estimator
    num_samples: int
    evaluations: int
    variance: Callable[["Setting"], float] | None = None
    tuned: bool = False


@dataclass(frozen=True)
class Setting:
    """One toy at one point.

    Attributes:
        params: what is differentiated, in double precision.
        data: what f depends on besides the draw.
        gradient: the exact gradient.
        leave_one_out: the exact variance of leave-one-out with so many samples.
        magnitude: of the costs that are subtracted from each other.
    """

    params: np.ndarray
    data: np.ndarray
    gradient: np.ndarray
    leave_one_out: Callable[[int], float]
    magnitude: float


@dataclass(frozen=True)
class Toy:
    """One objective.

    Attributes:
        title: for figures.
        varied: what the settings vary.
        cost: ``cost(data, x)``.
        distribution: ``distribution(params)``.
        settings: by the value of what varies.
        entries: the estimators; in brackets, evaluations of f for one gradient.
        projected: whether the bias is looked for along a few directions; see `measure`.
    """

    title: str
    varied: str
    cost: Callable[[jax.Array, jax.Array], jax.Array]
    distribution: Callable[[jax.Array], Any]
    settings: Mapping[float, Setting]
    entries: Mapping[str, Entry]
    projected: bool = False


def leave_one_out_entry(n: int) -> dict[str, Entry]:
    """The score function with n samples."""
    entry = Entry(sf.ScoreFunction(), n, n, lambda setting: setting.leave_one_out(n))
    return {f"LeaveOneOut ({n})": entry}


def enumerated(
    params: np.ndarray, data: np.ndarray, f: np.ndarray, probs: np.ndarray, score: np.ndarray
) -> Setting:
    """A setting by the sum over its whole support: costs, probabilities [s] and scores [s, d]."""
    return Setting(
        params=params,
        data=data,
        gradient=enumeration.gradient(probs, f, score),
        leave_one_out=partial(enumeration.leave_one_out, probs, f, score),
        magnitude=float(np.max(np.abs(f))),
    )


def all_bits(d: int) -> np.ndarray:
    """All states of d bits, [2^d, d]."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=d)))


def bit_probs(theta: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """The probability of each row of bits."""
    return np.prod(np.where(bits == 1, theta, 1 - theta), axis=-1)
