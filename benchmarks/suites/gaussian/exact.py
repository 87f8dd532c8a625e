"""Exact variances of gradient estimators for one Gaussian variable, by quadrature."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial.legendre import leggauss

from benchmarks._measuring import enumeration

# Of a standard normal. The trapezoid rule converges exponentially for smooth integrands on the
# whole line and, unlike Gauss-Hermite, keeps up with fast oscillation: this one is good to 1e-12
# for all costs here.
NODES = np.linspace(-14.0, 14.0, 8001)
WEIGHTS = np.exp(-(NODES**2) / 2)
WEIGHTS /= np.sum(WEIGHTS)
# Of the uniform on (0, 1).
UNIFORM, UNIFORM_WEIGHTS = ((x + shift) / 2 for x, shift in zip(leggauss(128), (1, 0), strict=True))


@dataclass(frozen=True)
class Cost:
    """A cost of one real number with one constant k.

    Attributes:
        formula: in words, for tables and plots.
        value: ``value(x, k)``, for arrays of NumPy and of JAX alike.
        slope: its derivative in x.
    """

    formula: str
    value: Callable[[Any, Any], Any]
    slope: Callable[[Any, Any], Any]


def _exp(x: Any) -> Any:
    return x.__array_namespace__().exp(x)


COSTS = {
    "square": Cost("(x - k)²", lambda x, k: (x - k) ** 2, lambda x, k: 2 * (x - k)),
    "exp": Cost(
        "exp(-k x²)", lambda x, k: _exp(-k * x**2), lambda x, k: -2 * k * x * _exp(-k * x**2)
    ),
    "cos": Cost(
        "cos(k x)",
        lambda x, k: x.__array_namespace__().cos(k * x),
        lambda x, k: -k * x.__array_namespace__().sin(k * x),
    ),
}


@dataclass(frozen=True)
class Problem:
    """E f(x), x ~ N(mu, sigma^2), differentiated in mu or in sigma."""

    cost: Cost
    k: float
    mu: float
    sigma: float
    parameter: str

    @property
    def x(self) -> np.ndarray:
        """The draws at the nodes."""
        return self.mu + self.sigma * NODES

    @property
    def f(self) -> np.ndarray:
        """The costs at the nodes."""
        return np.asarray(self.cost.value(self.x, self.k))

    @property
    def score(self) -> np.ndarray:
        """The derivative of the log-density in the parameter, at the nodes."""
        unit = NODES if self.parameter == "mu" else NODES**2 - 1
        return unit / self.sigma

    @property
    def path(self) -> np.ndarray:
        """The derivative of the cost through the draw mu + sigma * node."""
        moved = 1.0 if self.parameter == "mu" else NODES
        return np.asarray(self.cost.slope(self.x, self.k) * moved)

    @property
    def size(self) -> float:
        """The size of the terms that estimators subtract from each other."""
        return float(np.sqrt(mean(self.f**2))) / self.sigma

    @property
    def gradient(self) -> float:
        """The exact derivative of E f(x) in the parameter."""
        return mean(self.path)


def mean(values: np.ndarray) -> float:
    """The expectation of what takes these values at the nodes."""
    return float(WEIGHTS @ values)


def score_function(problem: Problem, n: int) -> float:
    """The score function without baseline, n samples."""
    return (mean((problem.f * problem.score) ** 2) - problem.gradient**2) / n


def leave_one_out(problem: Problem, n: int) -> float:
    """The score function with leave-one-out."""
    return enumeration.leave_one_out(WEIGHTS, problem.f, problem.score, n)


def pathwise(problem: Problem, n: int) -> float:
    """The pathwise derivative, n samples."""
    return (mean(problem.path**2) - problem.gradient**2) / n


def measure_valued(problem: Problem, n: int) -> float:
    """The coupled measure-valued derivative, n samples."""
    along = {"mu": _square_along_mu, "sigma": _square_along_sigma}[problem.parameter]
    return (along(problem) / problem.sigma**2 - problem.gradient**2) / n


def _square_along_mu(problem: Problem) -> float:
    # (f(mu + sigma r) - f(mu - sigma r))^2 / (2 pi), r of Rayleigh's density r exp(-r^2 / 2): half
    # of |z| times the normal one, times sqrt(2 pi). The nodes are symmetric.
    difference = problem.f - problem.f[::-1]
    return mean(np.abs(NODES) * difference**2) / (2 * np.sqrt(2 * np.pi))


def _square_along_sigma(problem: Problem) -> float:
    # (f(mu + sigma m) - f(mu + sigma u m))^2, m of the double-sided Maxwell's density m^2 phi(m), u
    # uniform: u m is normal.
    nodes, weights = NODES[::8], WEIGHTS[::8] * 8
    inner = problem.mu + problem.sigma * nodes[:, None] * UNIFORM
    blurred = np.asarray(problem.cost.value(inner, problem.k)) @ UNIFORM_WEIGHTS
    together = weights @ (nodes**2 * problem.f[::8] * blurred)
    return mean(NODES**2 * problem.f**2) + mean(problem.f**2) - 2 * float(together)
