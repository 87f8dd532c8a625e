"""A policy over four answers: its scores, and all groups of draws from it."""

from dataclasses import dataclass

import numpy as np

from . import moments


@dataclass(frozen=True)
class Policy:
    """A softmax over answers.

    Attributes:
        probs: of the answers, [answers].
        rewards: [answers].
    """

    probs: np.ndarray
    rewards: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """The derivative of each log-probability along the logits, [answers, answers]."""
        return np.eye(len(self.probs)) - self.probs

    @property
    def gradient(self) -> np.ndarray:
        """The derivative of the expected reward, [answers]."""
        return (self.probs * self.rewards) @ self.scores

    def groups(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """All groups of n answers, [groups, n], and their probabilities."""
        drawn = moments.groups(len(self.probs), n)
        found = moments.counts(drawn, len(self.probs))
        return drawn, moments.probabilities(found, self.probs)

    def estimates(self, drawn: np.ndarray, advantages: np.ndarray) -> np.ndarray:
        """The mean over a group of advantage times score, [groups, answers]."""
        return np.mean(advantages[..., None] * self.scores[drawn], axis=1)


POLICIES = {
    "right with probability 0.5": Policy(
        np.array([0.2, 0.3, 0.3, 0.2]), np.array([0.0, 0.0, 1.0, 1.0])
    ),
    "right with probability 0.1": Policy(
        np.array([0.5, 0.3, 0.1, 0.1]), np.array([0.0, 0.0, 0.0, 1.0])
    ),
    "graded rewards": Policy(np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.0, 0.2, 0.5, 1.0])),
}
