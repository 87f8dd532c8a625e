"""Least squares of gradients on those of control variates, each sample left out of its own fit."""

import jax
import jax.numpy as jnp

from scorefn._score import sum_of_others


def regression_coefficients(
    gradients: jax.Array, controls: jax.Array, *, leave_out: bool = True
) -> jax.Array:
    """The coefficients c of least total variance of ``gradients - c . controls``.

    Args:
        gradients: [n, O, P], of each of O outputs along P parameters.
        controls: [n, m, P], of m controls, each of mean 0.
        leave_out: whether the fit for each sample is made from the others.

    Returns:
        [n, O, m]; without `leave_out` [1, O, m].
    """
    squares = jnp.einsum("nip,njp->nij", controls, controls)
    products = jnp.einsum("nop,njp->noj", gradients, controls)
    parts = (squares, products, controls, gradients)
    if leave_out:
        # Not even through rounding may a sample reach its own coefficient.
        squares, products, controls, gradients = map(sum_of_others, parts)
    else:
        squares, products, controls, gradients = (jnp.sum(x, 0, keepdims=True) for x in parts)
    # With an intercept: the gradients have a mean, which would only add noise; and gradients that
    # differ from the controls by a constant have the coefficient 1 exactly.
    count = len(parts[0]) - leave_out
    products = products - jnp.einsum("nop,njp->noj", gradients, controls) / count
    trace = jnp.trace(squares, axis1=1, axis2=2)[:, None, None]
    squares = squares - jnp.einsum("nip,njp->nij", controls, controls) / count
    # A control that does nothing, or two that do the same, leave the fit undetermined.
    ridge = jnp.finfo(squares.dtype).eps * 10 * jnp.where(trace > 0, trace, 1)
    penalized = squares + ridge * jnp.eye(squares.shape[-1], dtype=squares.dtype)[None]
    return jnp.moveaxis(jnp.linalg.solve(penalized, jnp.moveaxis(products, 1, 2)), 2, 1)
