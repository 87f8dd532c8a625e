"""Importance-weighted bounds of a linear-Gaussian model: their signal-to-noise ratios, exactly.

z ~ N(0, 1), x | z ~ N(z, 1), so that z | x ~ N(x / 2, 1 / 2); q = N(m, s^2), m = SLOPE x + b. With
z = m + s e and e ~ N(0, 1), the weight w = p(z | x) / q(z) is the exponential of a quadratic in e,
and its derivatives along b are linear in e: all expectations below are of Gaussians.
"""

from functools import cache

import numpy as np

X, SLOPE, OFFSET, VARIANCE = 1.0, 0.5, 0.05, 2.0 / 3.0
_MEAN, _SCALE = SLOPE * X + OFFSET, VARIANCE**0.5
_PRECISION = 2.0
_FAR = _MEAN - X / 2
# dlog w/db = VALUE + slope e: along the path and through log q, and along the path alone.
_VALUE = X - 2 * _MEAN
_WHOLE, _PATH = -2 * _SCALE, 1 / _SCALE - 2 * _SCALE


@cache
def elbo_ratio(*, doubly: bool) -> float:
    """The signal-to-noise ratio of one sample: IWAE's, which is pathwise, or DReG's."""
    return abs(_VALUE / (_PATH if doubly else _WHOLE))


@cache
def iwae_limit() -> float:
    """c, where the ratio of IWAE is c K^(-1/2) for large K.

    g = sum w_k r_k / sum w_k, r = dlog w/db, E[w] = 1 and E[w r] = 0: to leading order
    E[g] = -d/db E[w^2] / (2 K) = -E[w^2 r] / K and Var(g) = E[w^2 r^2] / K.
    """
    return float(abs(_moment(2, 1, _WHOLE)) / np.sqrt(_moment(2, 2, _WHOLE)))


@cache
def dreg_limit() -> float:
    """c, where the ratio of DReG is c K^(1/2) for large K.

    g = sum w_k^2 r_k / (sum w_k)^2, r along the path: to leading order E[g] = E[w^2 r] / K and
    Var(g) = Var(w^2 r - 2 E[w^2 r] w) / K^3.
    """
    mean = _moment(2, 1, _PATH)
    square = _moment(4, 2, _PATH) - 4 * mean * _moment(3, 1, _PATH)
    square += 4 * mean**2 * _moment(2, 0, _PATH)
    # The mean of w^2 r - 2 E[w^2 r] w is -E[w^2 r].
    return float(abs(mean) / np.sqrt(square - mean**2))


def _moment(power: int, degree: int, slope: float) -> float:
    """E[w^power r^degree] for r = VALUE + slope e, degree up to 2."""
    # log w = constant - linear e - (s^2 precision - 1) e^2 / 2, times the density of e: a Gaussian.
    constant = np.log(_PRECISION * VARIANCE) / 2 - _PRECISION * _FAR**2 / 2
    linear = _PRECISION * _FAR * _SCALE
    precision = 1 + power * (_PRECISION * VARIANCE - 1)
    center = -power * linear / precision
    mass = np.exp(power * constant + precision * center**2 / 2) / np.sqrt(precision)
    mean = _VALUE + slope * center
    return float(mass * (1.0, mean, mean**2 + slope**2 / precision)[degree])
