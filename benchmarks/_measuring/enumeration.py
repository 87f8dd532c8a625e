"""Exact moments that hold for any distribution whose expectations are sums over weighted points."""

import numpy as np


def gradient(weights: np.ndarray, f: np.ndarray, score: np.ndarray) -> np.ndarray:
    """E[f h] for costs f, [s], and scores h, [s] or [s, d], at weighted points."""
    return (weights * f) @ score


def leave_one_out(weights: np.ndarray, f: np.ndarray, score: np.ndarray, n: int) -> float:
    """The variance of the score function with leave-one-out, n samples, summed over components.

    ``(E[(f - m)^2 h^2] - g^2) / n + (Var(f) E[h^2] + g^2) / (n (n - 1))`` with h the score, m the
    mean cost and g the gradient.
    """
    centered = f - weights @ f
    g, squares = gradient(weights, f, score), score**2
    known_mean = (weights * centered**2) @ squares - g**2
    price = (weights @ centered**2) * (weights @ squares) + g**2
    return float(np.sum(known_mean / n + price / (n * (n - 1))))
