"""The error of a norm that is measured with noise."""

import math


def error_of_root(square: float, noise: float, blocks: int) -> tuple[float, float]:
    """The norm of b, and a bound of its standard error, from a noisy square.

    Args:
        square: ``|b + e|^2 - E |e|^2``, or 0 where that is negative.
        noise: ``E |e|^2``, where e consists of so many independent blocks of equal noise.
        blocks: their number.
    """
    # Var = 4 b' C b + 2 tr(C C), and no eigenvalue of the covariance C is above that of a block.
    deviation = math.sqrt((4 * square * noise + 2 * noise**2) / blocks)
    norm = math.sqrt(square)
    return norm, deviation / (2 * max(norm, math.sqrt(deviation)))
