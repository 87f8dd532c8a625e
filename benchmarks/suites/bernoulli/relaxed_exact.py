"""Exact moments of relaxed estimators for one Bernoulli variable, by quadrature over its noise."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import leggauss

from .exact import Coin

TEMPERATURE = 0.5
NODES, WEIGHTS = (x.copy() for x in leggauss(200))


@dataclass(frozen=True)
class Relaxed:
    """All that a coin's noise can be, at quadrature nodes: z = logit + noise, b = 1 where z > 0.

    Attributes:
        weights: of the nodes; they add up to 1.
        b: the draw.
        y: the relaxed draw, sigmoid(z / temperature).
        slope: dy/dz.
        tied: dz/dlogit for the noise given b, which the logit moves.
    """

    weights: np.ndarray
    b: np.ndarray
    y: np.ndarray
    slope: np.ndarray
    tied: np.ndarray


def relaxed(coin: Coin) -> Relaxed:
    """The noise is logit(u), u uniform; Gauss-Legendre on either side of b's jump."""
    place = (NODES + 1) / 2
    zero, one = 1 - coin.theta, coin.theta
    u = np.concatenate([zero * place, zero + one * place])
    b = np.repeat([0.0, 1.0], len(place))
    # At a fixed place within its piece, u moves with the border between the pieces.
    moved = -coin.spread * np.concatenate([place, 1 - place])
    odds = (coin.theta / zero * u / (1 - u)) ** (1 / TEMPERATURE)
    y = odds / (1 + odds)
    return Relaxed(
        weights=np.concatenate([zero * WEIGHTS, one * WEIGHTS]) / 2,
        b=b,
        y=y,
        slope=y * (1 - y) / TEMPERATURE,
        tied=1 + moved / (u * (1 - u)),
    )


def cost(coin: Coin, b: np.ndarray) -> np.ndarray:
    """The cost of a draw, relaxed or not."""
    return (b - coin.t) ** 2


def rebar(coin: Coin, noise: Relaxed) -> np.ndarray:
    """The estimates of REBAR with the coefficient 1."""
    score = (cost(coin, noise.b) - cost(coin, noise.y)) * (noise.b - coin.theta)
    return score + 2 * (noise.y - coin.t) * noise.slope * (1 - noise.tied)


def gumbel_softmax(coin: Coin, noise: Relaxed) -> np.ndarray:
    """The estimates of Gumbel-softmax."""
    return 2 * (noise.y - coin.t) * noise.slope


def straight_through_gumbel_softmax(coin: Coin, noise: Relaxed) -> np.ndarray:
    """The estimates of straight-through Gumbel-softmax."""
    return 2 * (noise.b - coin.t) * noise.slope


def mean(estimates: Callable[[Coin, Relaxed], np.ndarray], coin: Coin) -> float:
    """The mean of the estimates over the noise."""
    noise = relaxed(coin)
    return float(noise.weights @ estimates(coin, noise))


def variance(estimates: Callable[[Coin, Relaxed], np.ndarray], coin: Coin) -> float:
    """The variance of the estimates over the noise."""
    noise = relaxed(coin)
    values = estimates(coin, noise)
    return float(noise.weights @ (values - noise.weights @ values) ** 2)


def gumbel_rao(coin: Coin, num_conditional: int) -> float:
    """The variance of straight-through Gumbel-softmax averaged over noise given b."""
    noise = relaxed(coin)
    values = straight_through_gumbel_softmax(coin, noise)
    within = 0.0
    for b in (0.0, 1.0):
        chosen = noise.b == b
        share = noise.weights[chosen].sum()
        given = noise.weights[chosen] / share
        within += share * (given @ (values[chosen] - given @ values[chosen]) ** 2)
    return variance(straight_through_gumbel_softmax, coin) - within * (1 - 1 / num_conditional)
