"""Greeks of European and Asian calls (Broadie and Glasserman 1996), by quadrature.

The price follows Black and Scholes; the Asian call pays on the mean price at equally spaced dates.
Settings as recalled from the paper, which has 30 daily prices: spot and strike 100, rate 0.1,
dividend 0.03, volatility 0.25, 0.2 years.
"""

import itertools
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import scorefn as sf
from benchmarks._reporting.claims import Finding, between, listed, verdict
from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results, Row, Sizes

from . import moments

TABLE = "greeks"
STRIKE, RATE, DIVIDEND, TIME = 100.0, 0.1, 0.03, 0.2
AT = np.array([100.0, 0.25], np.float32)
PATHWISE, SCORE, MIXED = "pathwise", "score function", "score of the pathwise delta"
GREEKS = {"delta": (PATHWISE, SCORE), "vega": (PATHWISE, SCORE), "gamma": (SCORE, MIXED)}


def _steps(at: jax.Array, dates: int) -> tuple[jax.Array, jax.Array]:
    """Mean and deviation of the logarithm of the price between two dates."""
    every = TIME / dates
    return (RATE - DIVIDEND - at[1] ** 2 / 2) * every, at[1] * jnp.sqrt(every)


def _log_prices(at: jax.Array, z: jax.Array) -> jax.Array:
    drift, spread = _steps(at, len(z))
    return jnp.log(at[0]) + jnp.cumsum(drift + spread * z)


def _payoff(log_prices: jax.Array) -> jax.Array:
    return jnp.exp(-RATE * TIME) * jnp.maximum(jnp.mean(jnp.exp(log_prices)) - STRIKE, 0)


def _log_prob(at: jax.Array, log_prices: jax.Array) -> jax.Array:
    drift, spread = _steps(at, len(log_prices))
    moves = jnp.diff(log_prices, prepend=jnp.log(at[0]))
    return jnp.sum(-(((moves - drift) / spread) ** 2) / 2 - jnp.log(spread))


def _pathwise(at: jax.Array, z: jax.Array) -> jax.Array:
    return _payoff(_log_prices(at, z))


def _score(at: jax.Array, z: jax.Array) -> jax.Array:
    drawn = jax.lax.stop_gradient(_log_prices(at, z))
    return sf.attach_score(_payoff(drawn), _log_prob(at, drawn))


def _mixed(at: jax.Array, z: jax.Array) -> jax.Array:
    """The delta along the path, whose jump at the strike then needs the score: spot times slope."""
    drawn = jax.lax.stop_gradient(_log_prices(at, z))
    ahead = jnp.mean(jnp.exp(drawn))
    slope = jnp.exp(-RATE * TIME) * jnp.where(ahead > STRIKE, ahead, 0.0) / at[0]
    return sf.attach_score(slope, _log_prob(at, drawn))


def _estimates(name: str, greek: str) -> Callable[[jax.Array], jax.Array]:
    """``estimate(z)`` of one greek for given noise, [dates]."""
    at = jnp.asarray(AT)
    if greek == "gamma":
        if name == MIXED:
            return lambda z: jax.grad(_mixed)(at, z)[0]
        return lambda z: jax.hessian(_score)(at, z)[0, 0]
    price = {PATHWISE: _pathwise, SCORE: _score}[name]
    return lambda z: jax.grad(price)(at, z)[0 if greek == "delta" else 1]


def rows(sizes: Sizes) -> list[Row]:
    """Moments over a fine grid of normal numbers, for each number of dates."""
    return [found for dates, points in sizes["dates"] for found in _rows(dates, points)]


def _rows(dates: int, points: int) -> list[Row]:
    line = 7 * (2 * (np.arange(points) + 0.5) / points - 1)
    z = np.array(list(itertools.product(line, repeat=dates)), np.float32)
    weights = np.exp(-np.sum(z.astype(np.float64) ** 2, axis=1) / 2)
    weights /= weights.sum()
    case = "European" if dates == 1 else f"Asian, {dates} dates"
    found = []
    for greek, names in GREEKS.items():
        means = []
        for name in names:
            each = jax.jit(partial(jax.lax.map, _estimates(name, greek), batch_size=10_000))
            estimates = np.asarray(each(z), np.float64)[:, None]
            means.append(weights @ estimates)
            found.append(
                moments.row(TABLE, f"{case}: {greek}", name, dates, means[0], estimates, weights)
            )
    return found


def table(results: Results) -> str:
    """Greeks of a call: standard deviation of one path, relative to the greek."""
    places: dict[str, dict[str, Row]] = {}
    for row in results["rows"]:
        if row["table"] == TABLE:
            places.setdefault(row["case"], {})[row["estimator"]] = row
    names = (PATHWISE, SCORE, MIXED)
    lines = [
        [case, *(short(found[name]["deviation"]) if name in found else "" for name in names)]
        for case, found in places.items()
    ]
    return markdown(["option, greek", *names], lines)


def findings(results: Results) -> list[Finding]:
    """The claims of Broadie and Glasserman (1996)."""
    found = {
        (row["case"], row["estimator"]): row["deviation"]
        for row in results["rows"]
        if row["table"] == TABLE
    }
    apart = [row["bias"] for row in results["rows"] if row["table"] == TABLE]
    first = [(x / found[case, SCORE]) ** 2 for (case, name), x in found.items() if name == PATHWISE]
    second = [(x / found[case, SCORE]) ** 2 for (case, name), x in found.items() if name == MIXED]
    return [
        Finding(
            "Pathwise and score function have the same mean: both are unbiased",
            "Broadie and Glasserman (1996)",
            "relative difference 0",
            f"up to {max(apart):.0e}",
            "quadrature",
            verdict(x < 1e-3 for x in apart),
        ),
        Finding(
            "Pathwise has less variance: delta and vega, European and Asian",
            "Broadie and Glasserman (1996)",
            "ratio of variances below 1",
            between(first, ".2g"),
            "quadrature",
            verdict(x < 1 for x in first),
        ),
        Finding(
            "For gamma the score of the pathwise delta has less variance than two scores",
            "Glasserman (2004), recalled",
            "ratio of variances below 1",
            listed(second),
            "quadrature",
            verdict(x < 1 for x in second),
        ),
    ]
