"""Gradients through a particle filter of two states and three observations, by n particles.

Particles are drawn independently given those before, so that a sum over how many of them are of
each kind is exact. A kind is a state, and how often the path before it stayed.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from benchmarks._reporting.claims import Finding, verdict
from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results, Row, Sizes

from . import moments

TABLE = "particle filter"
LIKELIHOOD, LOG_LIKELIHOOD = "gradient of Z", "gradient of log Z"
EMISSIONS, OBSERVED = np.array([[0.8, 0.2], [0.3, 0.7]]), (0, 1, 1)
STAY = 1 / (1 + math.exp(-0.7))
# Two values of a score along the logit of staying, for a move that stays and one that does not.
SCORES = np.array([-STAY, 1 - STAY])


@dataclass(frozen=True)
class Kinds:
    """The kinds of particles at one time.

    Attributes:
        state: [kinds].
        stays: how often the path stayed, [kinds].
        moves: how often it moved at all.
        weight: of the observation, [kinds].
    """

    state: np.ndarray
    stays: np.ndarray
    moves: int
    weight: np.ndarray

    @property
    def score(self) -> np.ndarray:
        """The derivative of the log-probability of the path, [kinds]."""
        return self.stays * SCORES[1] + (self.moves - self.stays) * SCORES[0]

    def next(self, observed: int) -> tuple["Kinds", np.ndarray]:
        """The kinds one step later, and the probability of each given its parent, [old, new]."""
        pairs = [(x, s) for x in (0, 1) for s in range(self.moves + 2)]
        state, stays = np.array(pairs).T
        stayed = stays == self.stays[:, None] + 1
        moved = stays == self.stays[:, None]
        same = state == self.state[:, None]
        chances = np.where(same & stayed, STAY, 0) + np.where(~same & moved, 1 - STAY, 0)
        later = Kinds(state, stays, self.moves + 1, EMISSIONS[state, observed])
        return later, chances


def _start() -> Kinds:
    state = np.array([0, 1])
    return Kinds(state, np.zeros(2, int), 0, EMISSIONS[state, OBSERVED[0]])


def gradient() -> tuple[float, float]:
    """The exact derivatives of Z and of log Z along the logit of staying."""
    kinds, forward = _start(), np.full(2, 0.5)
    for y in OBSERVED[1:]:
        later, chances = kinds.next(y)
        forward, kinds = (forward * kinds.weight) @ chances, later
    z = forward @ kinds.weight
    slope = (forward * kinds.weight) @ kinds.score
    return float(slope), float(slope / z)


def rows(sizes: Sizes) -> list[Row]:
    """Moments over all populations, for each number of particles."""
    return [found for n in sizes["particles"] for found in _rows(n)]


def _rows(n: int) -> list[Row]:
    kinds, probs = _start(), np.full((1, 2), 0.5)
    # Of each population: its probability, and the sums over its pasts of Z so far and of Z^2.
    sums = np.ones((3, 1))
    for y in (*OBSERVED[1:], None):
        population = moments.counts(moments.groups(len(kinds.state), n), len(kinds.state))
        given = moments.probabilities(population, probs)
        factor = population @ kinds.weight / n
        sums = (sums @ given) * factor ** np.arange(3)[:, None]
        shares = population * kinds.weight
        shares = shares / shares.sum(axis=1, keepdims=True)
        if y is None:
            break
        kinds, chances = kinds.next(y)
        probs = shares @ chances
    slope = shares @ kinds.score
    of_z, of_log = gradient()
    first, second = sums[1] @ slope, sums[2] @ slope**2
    mean = sums[0] @ slope
    return [
        moments.known(
            TABLE, LIKELIHOOD, LIKELIHOOD, n, np.array([of_z]), np.array([first]), second - first**2
        ),
        moments.known(
            TABLE,
            LOG_LIKELIHOOD,
            LOG_LIKELIHOOD,
            n,
            np.array([of_log]),
            np.array([mean]),
            sums[0] @ slope**2 - mean**2,
        ),
    ]


def table(results: Results) -> str:
    """Particle filter: relative bias, and deviation, by the number of particles."""
    found = {
        (row["estimator"], row["size"]): row for row in results["rows"] if row["table"] == TABLE
    }
    sizes = results["settings"]["particles"]
    lines = [
        [
            f"{name}: {what}",
            *(short(x if (x := found[name, n][what]) > 1e-12 else 0.0, ".3g") for n in sizes),
        ]
        for name in (LIKELIHOOD, LOG_LIKELIHOOD)
        for what in ("bias", "deviation")
    ]
    return markdown(["target", *(f"n = {n}" for n in sizes)], lines)


def findings(results: Results) -> list[Finding]:
    """The claim of Scibior and Wood (2021), and the order of the bias of the classical estimate."""
    sizes = results["settings"]["particles"]
    bias = {
        name: [row["bias"] for row in results["rows"] if row["estimator"] == name]
        for name in (LIKELIHOOD, LOG_LIKELIHOOD)
    }
    # One particle has no bias to lose: its mean is 0.
    scaled = [n * x for n, x in zip(sizes, bias[LOG_LIKELIHOOD], strict=True) if n > 1]
    return [
        Finding(
            "With the scores of resampling the gradient of the likelihood has no bias",
            "Ścibior and Wood (2021)",
            "bias 0 for every number of particles",
            f"up to {max(bias[LIKELIHOOD]):.0e}",
            "exact",
            verdict(x < 1e-9 for x in bias[LIKELIHOOD]),
        ),
        Finding(
            "The bias of the gradient of its logarithm is O(1/n)",
            "Poyiadjis et al. (2011), recalled",
            "n times the relative bias bounded",
            f"n = 2 to {sizes[-1]}: {scaled[0]:.2f} to {scaled[-1]:.2f}, decreasing",
            "exact",
            verdict(a > b for a, b in itertools.pairwise(scaled)),
        ),
    ]
