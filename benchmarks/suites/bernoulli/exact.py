"""Exact variances of gradient estimators for one Bernoulli variable with two costs."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Coin:
    """One Bernoulli(theta) with the cost (b - t)^2; the parameter is the logit.

    Attributes:
        theta: the probability of 1.
        t: the target of the cost.
    """

    theta: float
    t: float

    @property
    def costs(self) -> tuple[float, float]:
        """The costs of 0 and of 1."""
        return self.t**2, (1 - self.t) ** 2

    @property
    def slopes(self) -> tuple[float, float]:
        """The derivatives of the cost at 0 and at 1."""
        return -2 * self.t, 2 * (1 - self.t)

    @property
    def spread(self) -> float:
        """The variance of the bit, theta (1 - theta)."""
        return self.theta * (1 - self.theta)

    @property
    def step(self) -> float:
        """The change of the cost from 0 to 1."""
        return self.costs[1] - self.costs[0]

    @property
    def logit(self) -> float:
        """The parameter."""
        return math.log(self.theta / (1 - self.theta))

    @property
    def gradient(self) -> float:
        """The exact derivative of the expected cost in the logit."""
        return self.spread * self.step

    @property
    def mean(self) -> float:
        """The expected cost."""
        return (1 - self.theta) * self.costs[0] + self.theta * self.costs[1]

    @property
    def optimal_constant(self) -> float:
        """The constant baseline of least variance, which is 0 here. It is not the mean."""
        return self.theta * self.costs[0] + (1 - self.theta) * self.costs[1]


def constant_baseline(coin: Coin, constant: float, n: int) -> float:
    """The score function with a constant baseline: v ((1-theta) f1 + theta f0 - c)^2 / n."""
    return coin.spread * (coin.optimal_constant - constant) ** 2 / n


def leave_one_out(coin: Coin, n: int) -> float:
    """The score function with leave-one-out: the step times the sample variance of n bits.

    The variance of a sample variance is m4 / n - m2^2 (n - 3) / (n (n - 1)); a bit has m2 = v and
    m4 = v (1 - 3 v).
    """
    v = coin.spread
    return coin.step**2 * (v * (1 - 3 * v) / n - v**2 * (n - 3) / (n * (n - 1)))


def arm(coin: Coin) -> float:
    """ARM, one pair."""
    p = min(coin.theta, 1 - coin.theta)
    return coin.step**2 * (2 / 3 * (1 / 8 - (1 / 2 - p) ** 3) - coin.spread**2)


def disarm(coin: Coin) -> float:
    """DisARM, one pair: 0 at theta = 1/2."""
    p = min(coin.theta, 1 - coin.theta)
    return coin.step**2 * coin.spread * (1 - p) * (1 / 2 - p)


def arms(coin: Coin, n: int) -> float:
    """ARMS, n coupled bits: step * debias * S (n - S) / (n (n - 1)), S the number of ones.

    With a = 1 - p^(1 / (n - 1)), any j given bits are all ones with probability
    (1 - j a)_+^(n - 1); inclusion and exclusion give the probability of S = s.
    """
    p = min(coin.theta, 1 - coin.theta)
    a = 1 - p ** (1 / (n - 1))
    ones = [max(1 - j * a, 0) ** (n - 1) for j in range(n + 1)]

    def probability(s: int) -> float:
        terms = (
            (-1) ** (j - s) * math.comb(j, s) * math.comb(n, j) * ones[j] for j in range(s, n + 1)
        )
        return sum(terms)

    pairs = {s: s * (n - s) / (n * (n - 1)) for s in range(n + 1)}
    mean = sum(probability(s) * pair for s, pair in pairs.items())
    variance = sum(probability(s) * (pair - mean) ** 2 for s, pair in pairs.items())
    return (coin.step * coin.spread / (p - ones[2])) ** 2 * variance


def go(coin: Coin) -> float:
    """GO, one sample: only a 0, of probability 1 - theta, has a value above it to compare with."""
    return (coin.step * coin.spread) ** 2 * coin.theta / (1 - coin.theta)


def straight_through(coin: Coin) -> float:
    """Straight-through, one sample."""
    return coin.spread**3 * (coin.slopes[1] - coin.slopes[0]) ** 2


def straight_through_mean(coin: Coin) -> float:
    """The mean of straight-through, which is biased."""
    return coin.spread * ((1 - coin.theta) * coin.slopes[0] + coin.theta * coin.slopes[1])


def reinmax(coin: Coin) -> float:
    """ReinMax at temperature 1, one sample."""
    ends = (1 - coin.theta) * coin.slopes[1] - coin.theta * coin.slopes[0]
    return coin.spread * (ends / 2) ** 2


def enumerated(coin: Coin, n: int, estimate: Callable[[Coin, Sequence[int]], float]) -> float:
    """Any estimate made from n independent bits, by the sum over all 2^n of them."""
    mean = square = 0.0
    for bits in itertools.product((0, 1), repeat=n):
        probability = coin.theta ** sum(bits) * (1 - coin.theta) ** (n - sum(bits))
        value = estimate(coin, bits) - coin.gradient
        mean, square = mean + probability * value, square + probability * value**2
    return square - mean**2


def weighted_leave_one_out(coin: Coin, bits: Sequence[int]) -> float:
    """The estimate of the score function with the leave-one-out optimal baseline."""
    costs = [coin.costs[bit] for bit in bits]
    scores = [bit - coin.theta for bit in bits]
    total = sum(s**2 for s in scores)
    weighed = sum(s**2 * f for s, f in zip(scores, costs, strict=True))
    terms = [
        (f - (weighed - s**2 * f) / (total - s**2)) * s for s, f in zip(scores, costs, strict=True)
    ]
    return sum(terms) / len(terms)


def double_cv(coin: Coin, bits: Sequence[int]) -> float:
    """The estimate of DoubleCV of two bits with the coefficient 1."""
    terms = []
    for k, other in ((0, 1), (1, 0)):
        slopes = [coin.slopes[bits[other]], coin.slopes[bits[k]]]
        r, r_other = (
            coin.costs[b] - slope * (b - coin.theta)
            for b, slope in zip((bits[k], bits[other]), slopes, strict=True)
        )
        terms.append((r - r_other) * (bits[k] - coin.theta) + slopes[0] * coin.spread)
    return sum(terms) / 2
