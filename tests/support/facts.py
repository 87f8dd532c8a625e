"""Facts about distributions from elsewhere: SciPy, quadrature and closed forms, in float64."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats as st


@dataclass(frozen=True)
class Family:
    """One kind of object of a library, with one set of parameters.

    Attributes:
        name: "library.Class", and in brackets what tells it from other entries of the class.
        build: from the parameters, floats or float arrays, to the object.
        params: a tuple of floats or NumPy arrays.
        f: a cost of one draw, to a scalar, with jax.numpy; bounded for draws of one number.
        exact: the expectation of f as a function of the parameters, in float64.
        reference: for draws of one number a function of the parameters to an object with the
            methods cdf, mean and std of SciPy, and ppf or pmf; else None.
        discrete: draws come from a countable set.
        moving: the support depends on a parameter, so that no score exists along it.
    """

    name: str
    build: Callable[..., Any]
    params: tuple[Any, ...]
    f: Callable[[Any], jax.Array]
    exact: Callable[..., Any]
    reference: Callable[..., Any] | None = None
    discrete: bool = False
    moving: bool = False

    @property
    def library(self) -> str:
        return self.name.split(".")[0]

    def arguments(self) -> tuple[jax.Array, ...]:
        """The parameters as arrays of float32."""
        return tuple(jnp.asarray(param, jnp.float32) for param in self.params)

    def slopes(self) -> list[np.ndarray]:
        """The derivative of the expectation of f along each parameter, by central differences."""
        return differences(self.exact, self.params)


def differences(fn: Callable[..., Any], params: tuple[Any, ...], step: float = 1e-4) -> list[Any]:
    """The derivatives of a function along each element of its arrays, in float64."""
    params = tuple(np.asarray(param, np.float64) for param in params)
    slopes = []
    for i, param in enumerate(params):
        slope = []
        for j in np.ndindex(param.shape):
            change = np.zeros(param.shape)
            change[j] = step
            above, below = (
                np.asarray(fn(*params[:i], moved, *params[i + 1 :]), np.float64)
                for moved in (param + change, param - change)
            )
            slope.append((above - below) / (2 * step))
        slopes.append(np.array(slope).reshape((*param.shape, *np.shape(slope[0]))))
    return slopes


class Table:
    """Rows of families of one library."""

    def __init__(self, library: str) -> None:
        self.library = library
        self.rows: list[Family] = []

    def real(self, name: str, build: Any, params: Any, reference: Any, **facts: Any) -> None:
        """A family of real numbers."""

        def exact(*params: Any) -> Any:
            return reference_expectation(reference(*params), lambda x: _bounded(x, np))

        self._row(name, build, params, bounded, exact, reference, **facts)

    def count(self, name: str, build: Any, params: Any, reference: Any, **facts: Any) -> None:
        """A family of whole numbers."""

        def exact(*params: Any) -> Any:
            x = np.arange(-200, 4000)
            return np.sum(_bounded(x, np) * reference(*params).pmf(x))

        self._row(name, build, params, bounded, exact, reference, discrete=True, **facts)

    def other(self, name: str, build: Any, params: Any, f: Any, exact: Any, **facts: Any) -> None:
        """A family of other draws, with a cost of its own and its expectation in closed form."""

        def cost(x: Any) -> jax.Array:
            return jnp.asarray(f(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), x)))

        self._row(name, build, params, cost, exact, None, **facts)

    def _row(self, name: str, *facts: Any, **more: Any) -> None:
        self.rows.append(Family(f"{self.library}.{name}", *facts, **more))


def bounded(x: Any) -> jax.Array:
    """The cost of draws of one number."""
    return jnp.sum(_bounded(jnp.asarray(x, jnp.float32), jnp))


def _bounded(x: Any, xp: Any) -> Any:
    # Neither odd, nor even, nor monotone; the expectation exists for heavy tails.
    return xp.arctan(x - 0.3) + 0.5 / (1 + (x - 1.2) ** 2)


def reference_expectation(reference: Any, f: Callable[[Any], Any]) -> Any:
    """The expectation of f under a reference of real numbers."""
    if isinstance(reference, Density):
        return reference.expect(f)
    # By levels u = t^3 (10 - 15 t + 6 t^2), which integrate heavy tails and singular ends smoothly.
    n = 2_000
    t = (np.arange(n) + 0.5) / n
    u = t**3 * (10 - 15 * t + 6 * t**2)
    return np.sum(f(reference.ppf(u)) * 30 * t**2 * (1 - t) ** 2) / n


class _WithMoments:
    def mean(self) -> Any:
        return reference_expectation(self, lambda x: x)

    def std(self) -> Any:
        return np.sqrt(reference_expectation(self, lambda x: (x - self.mean()) ** 2))


class Density(_WithMoments):
    """A continuous distribution on an interval, given by its density."""

    def __init__(self, pdf: Callable[[Any], Any], low: float, high: float, n: int = 40_000) -> None:
        self.pdf, self.low, self.high, self.n = pdf, low, high, n

    @cached_property
    def _grid(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # Midpoints of cells that shrink towards both ends, where densities may be singular.
        t = (np.arange(self.n) + 0.5) / self.n
        span = self.high - self.low
        x = self.low + span * t**2 * (3 - 2 * t)
        weight = span * 6 * t * (1 - t) / self.n * self.pdf(x)
        return x, weight, np.cumsum(weight) - weight / 2

    def cdf(self, x: Any) -> Any:
        return np.interp(x, self._grid[0], self._grid[2])

    def ppf(self, u: Any) -> Any:
        return np.interp(u, self._grid[2], self._grid[0])

    def expect(self, f: Callable[[Any], Any]) -> Any:
        return np.sum(f(self._grid[0]) * self._grid[1])


class Mapped(_WithMoments):
    """A monotone function of a distribution."""

    def __init__(self, inner: Any, forward: Any, inverse: Any, *, increasing: bool = True) -> None:
        self.inner, self.forward, self.inverse = inner, forward, inverse
        self.increasing = increasing

    def cdf(self, x: Any) -> Any:
        cdf = self.inner.cdf(self.inverse(x))
        return cdf if self.increasing else 1 - cdf

    def ppf(self, u: Any) -> Any:
        return self.forward(self.inner.ppf(u if self.increasing else 1 - u))

    def pdf(self, x: Any) -> Any:
        return (self.cdf(x + 1e-6) - self.cdf(x - 1e-6)) / 2e-6


class Truncated(_WithMoments):
    """A distribution of SciPy given that it lies between two ends."""

    def __init__(self, inner: Any, low: float = -np.inf, high: float = np.inf) -> None:
        self.inner, self.low, self.high = inner, low, high
        self.below, self.mass = inner.cdf(low), inner.cdf(high) - inner.cdf(low)

    def cdf(self, x: Any) -> Any:
        return np.clip((self.inner.cdf(x) - self.below) / self.mass, 0, 1)

    def ppf(self, u: Any) -> Any:
        return self.inner.ppf(self.below + u * self.mass)

    def pdf(self, x: Any) -> Any:
        return np.where((x > self.low) & (x < self.high), self.inner.pdf(x), 0) / self.mass


class Clipped(_WithMoments):
    """A distribution of SciPy whose draws beyond two ends are moved onto them."""

    def __init__(self, inner: Any, low: float, high: float) -> None:
        self.inner, self.low, self.high = inner, low, high

    def cdf(self, x: Any) -> Any:
        return np.where(x >= self.high, 1, np.where(x < self.low, 0, self.inner.cdf(x)))

    def ppf(self, u: Any) -> Any:
        return np.clip(self.inner.ppf(u), self.low, self.high)


class Masses:
    """A discrete distribution of given probabilities, at 0, 1, ... or at given values."""

    def __init__(self, probs: Any, values: Any = None) -> None:
        self.probs = np.asarray(probs, np.float64)
        self.values = np.arange(len(self.probs)) if values is None else np.asarray(values)

    def pmf(self, x: Any) -> Any:
        return np.sum(np.where(np.asarray(x)[..., None] == self.values, self.probs, 0), -1)

    def cdf(self, x: Any) -> Any:
        return np.sum(np.where(self.values <= np.asarray(x)[..., None], self.probs, 0), -1)

    def mean(self) -> Any:
        return self.values @ self.probs

    def std(self) -> Any:
        return np.sqrt((self.values - self.mean()) ** 2 @ self.probs)


def mixture(weights: Any, parts: list[Any], width: float = 12.0) -> Density:
    """A mixture of distributions of SciPy."""
    return Density(
        lambda x: sum(w * part.pdf(x) for w, part in zip(weights, parts, strict=True)),
        -width,
        width,
    )


def inflated(inner: Any, gate: Any, *, hurdle: bool = False, top: int = 300) -> Masses:
    """Counts that are 0 with a further probability; a hurdle excludes the zeros of the counts."""
    probs = inner.pmf(np.arange(top)).astype(np.float64)
    if hurdle:
        probs[0] = 0
        probs /= np.sum(probs)
    probs *= 1 - gate
    probs[0] += gate
    return Masses(probs)


def von_mises(loc: Any, concentration: Any) -> Density:
    """The density of draws wrapped to [-pi, pi)."""
    return Density(st.vonmises(concentration, loc).pdf, -np.pi, np.pi)
