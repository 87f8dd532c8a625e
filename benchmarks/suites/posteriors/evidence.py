"""Log evidences in closed form, or by quadrature over one or two scales, in float64.

Given its scales each of these models is jointly Gaussian, so that its data are.
"""

import numpy as np
from scipy.special import logsumexp

# Rubin (1981): effects of coaching in eight schools, and their standard errors.
EFFECTS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
# Of standard normals, for the trapezoid rule.
NODES = np.linspace(-9.0, 9.0, 361)
LOG_WEIGHTS = -(NODES**2) / 2 - logsumexp(-(NODES**2) / 2)


def eight_schools() -> float:
    """The log evidence of the effects, over the log of the deviation between schools."""
    between = np.exp(2 * (5 + NODES))[:, None, None]
    covariance = np.diag(ERRORS**2) + between * np.eye(8) + 10.0**2
    return float(logsumexp(LOG_WEIGHTS + log_density(EFFECTS, covariance)))


def brownian_motion() -> float:
    """The log evidence of the observed places, with known scales."""
    return float(_places(np.array(0.1), np.array(0.15)))


def brownian_motion_unknown_scales() -> float:
    """The log evidence of the observed places, over both scales."""
    scales = np.exp(2 * NODES)
    found = _places(scales[:, None], scales[None, :])
    return float(logsumexp(LOG_WEIGHTS[:, None] + LOG_WEIGHTS[None, :] + found))


def log_density(x: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """The log of the density of N(0, covariance) at x, for covariances [..., d, d]."""
    root = np.linalg.cholesky(covariance)
    scaled = np.linalg.solve(root, np.broadcast_to(x, root.shape[:-1])[..., None])[..., 0]
    diagonal = np.diagonal(root, axis1=-2, axis2=-1)
    return -np.sum(scaled**2 / 2 + np.log(diagonal) + np.log(2 * np.pi) / 2, axis=-1)


def _places(innovation: np.ndarray, observation: np.ndarray) -> np.ndarray:
    """The log-density of the observed places, given the deviations of steps and observations."""
    from inference_gym.internal.datasets import brownian_motion_missing_middle_observations as data

    seen = ~np.isnan(data.OBSERVED_LOC)
    steps = 1.0 + np.flatnonzero(seen)
    walk = np.minimum(steps[:, None], steps[None, :])
    innovation, observation = innovation[..., None, None], observation[..., None, None]
    covariance = innovation**2 * walk + observation**2 * np.eye(len(steps))
    return log_density(data.OBSERVED_LOC[seen].astype(np.float64), covariance)
