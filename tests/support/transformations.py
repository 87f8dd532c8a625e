"""The transformations of JAX, each as a function from a loss to its gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from support.exact import FAST, Problem

import scorefn as sf

SAMPLES = 3
Loss = Callable[[jax.Array, jax.Array], jax.Array]


def loss_of(p: Problem, estimator: sf.Estimator, **options: Any) -> tuple[Loss, jax.Array]:
    """``loss(flat_params, key)``, a scalar, and where to start."""
    flat, unravel = ravel_pytree(p.params)
    estimate = p.estimate(estimator, **{"num_samples": SAMPLES} | options)

    def loss(flat: jax.Array, key: jax.Array) -> jax.Array:
        leaves = jax.tree.leaves(estimate(unravel(flat), key))
        return sum((jnp.sum(leaf) for leaf in leaves), start=jnp.zeros((), flat.dtype))

    return loss, flat


def fast(fn: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(fn, compiler_options=FAST)


def both(one: Loss, other: Loss) -> Callable[..., Any]:
    """Values and gradients of two losses, by one program: most of its time is that of compiling."""
    return fast(lambda *args: [jax.value_and_grad(loss)(*args) for loss in (one, other)])


def stacked(flat: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.stack([flat, 2 * flat]), jnp.stack([key, jax.random.fold_in(key, 7)])


def by_vmap(loss: Loss) -> Loss:
    return lambda flat, key: jax.vmap(jax.grad(loss))(*stacked(flat, key))[0]


def by_vmap_of_vmap(loss: Loss) -> Loss:
    def grad(flat: jax.Array, key: jax.Array) -> jax.Array:
        flats, keys = stacked(flat, key)
        inner = jax.vmap(jax.grad(loss), in_axes=(None, 0))
        return jax.vmap(inner, in_axes=(1, None), out_axes=-1)(flats.T, keys)[0, :, 0]

    return grad


def by_grad_of_vmap(loss: Loss) -> Loss:
    def mean(flat: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.mean(jax.vmap(loss, (None, 0))(flat, jnp.stack([key, key])))

    return jax.grad(mean)


def by_linearize(loss: Loss) -> Loss:
    def grad(flat: jax.Array, key: jax.Array) -> jax.Array:
        _, tangent = jax.linearize(lambda flat: loss(flat, key), flat)
        return jax.vmap(tangent)(jnp.eye(flat.size, dtype=flat.dtype))

    return grad


def by_scan(loss: Loss) -> Loss:
    def total(flat: jax.Array, key: jax.Array) -> jax.Array:
        def body(carry: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
            return carry + loss(flat, key), None

        return jax.lax.scan(body, jnp.zeros((), flat.dtype), jnp.stack([key, key]))[0] / 2

    return jax.grad(total)


def by_scan_of_grad(loss: Loss) -> Loss:
    def grad(flat: jax.Array, key: jax.Array) -> jax.Array:
        def body(carry: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            return carry, jax.grad(loss)(carry, key)

        return jax.lax.scan(body, flat, stacked(flat, key)[1])[1][0]

    return grad


def by_while_loop(loss: Loss) -> Loss:
    def last(flat: jax.Array, key: jax.Array) -> jax.Array:
        state = (0, jnp.zeros((), flat.dtype))
        body = lambda state: (state[0] + 1, loss(flat, key))  # noqa: E731
        return jax.lax.while_loop(lambda state: state[0] < 2, body, state)[1]

    return jax.jacfwd(last)


def by_cond(loss: Loss) -> Loss:
    def chosen(flat: jax.Array, key: jax.Array) -> jax.Array:
        return jax.lax.cond(flat[0] < 1e6, loss, lambda flat, _: flat[0] * 0, flat, key)

    return jax.grad(chosen)


def by_policy(loss: Loss) -> Loss:
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return jax.grad(jax.checkpoint(loss, policy=policy))


def by_custom_batching(loss: Loss) -> Loss:
    one_at_a_time = jax.custom_batching.sequential_vmap(jax.grad(loss))
    return lambda flat, key: jax.vmap(one_at_a_time)(*stacked(flat, key))[0]


# `fori_loop` and `map` are scans to JAX.
TRANSFORMATIONS: dict[str, Callable[[Loss], Loss]] = {
    "grad of jit": lambda loss: jax.grad(jax.jit(loss)),
    "vmap": by_vmap,
    "vmap of vmap": by_vmap_of_vmap,
    "grad of vmap": by_grad_of_vmap,
    "jvp": jax.jacfwd,
    "linearize": by_linearize,
    "scan": by_scan,
    "scan of grad": by_scan_of_grad,
    "while_loop": by_while_loop,
    "cond": by_cond,
    "checkpoint": lambda loss: jax.grad(jax.checkpoint(loss)),
    "checkpoint, a policy": by_policy,
    "custom batching": by_custom_batching,
}
