"""Leave-one-out least squares of gradients on the gradients of control variates."""

import jax
import jax.numpy as jnp

from scorefn._core.arrays import wide
from scorefn._score import sum_of_others


def regression_coefficients(
    gradients: jax.Array, controls: jax.Array, *, leave_out: bool = True
) -> jax.Array:
    """The coefficients c that minimize the total variance of ``gradients - c . controls``.

    Args:
        gradients: [n, O, P], gradients of O outputs along P parameters.
        controls: [n, m, P], gradients of m controls, each of mean 0.
        leave_out: whether the fit for each sample uses only the others.

    Returns:
        [n, O, m]; without `leave_out` [1, O, m].
    """
    given = gradients.dtype
    # There is no solver in 16 bits.
    gradients, controls = (x.astype(wide(x.dtype)) for x in (gradients, controls))
    squares = jnp.einsum("nip,njp->nij", controls, controls)
    products = jnp.einsum("nop,njp->noj", gradients, controls)
    parts = (squares, products, controls, gradients)
    if leave_out:
        # A sample must not affect its own coefficient, not even through rounding.
        squares, products, controls, gradients = map(sum_of_others, parts)
    else:
        squares, products, controls, gradients = (jnp.sum(x, 0, keepdims=True) for x in parts)
    # With an intercept: the mean of the gradients would only add noise, and gradients that differ
    # from the controls by a constant get the coefficient 1 exactly.
    count = len(parts[0]) - leave_out
    products = products - jnp.einsum("nop,njp->noj", gradients, controls) / count
    trace = jnp.trace(squares, axis1=1, axis2=2)[:, None, None]
    squares = squares - jnp.einsum("nip,njp->nij", controls, controls) / count
    # A control that is 0, or two that are proportional, leave the fit undetermined.
    ridge = jnp.finfo(squares.dtype).eps * 10 * jnp.where(trace > 0, trace, 1)
    penalized = squares + ridge * jnp.eye(squares.shape[-1], dtype=squares.dtype)[None]
    solved = jnp.linalg.solve(penalized, jnp.moveaxis(products, 1, 2))
    return jnp.moveaxis(solved, 2, 1).astype(given)
