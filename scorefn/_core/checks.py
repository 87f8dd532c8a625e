"""Checks of arguments while tracing, without cost at run time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec


def check_instance(name: str, value: Any) -> None:
    """Raises ``TypeError`` if the value is a class instead of an instance."""
    if isinstance(value, type):
        raise TypeError(
            f"{name} must be an instance, got the class {value.__name__}; "
            f"write {value.__name__}(...)."
        )


def certified(condition: jax.Array, message: str) -> jax.Array:
    """1.0 if a condition holds; otherwise ``ValueError``, or nan under tracing."""
    condition = jax.lax.stop_gradient(condition)
    try:
        holds = bool(condition)
    except jax.errors.ConcretizationTypeError:
        return jnp.where(condition, 1.0, jnp.nan)
    if not holds:
        raise ValueError(message)
    return jnp.ones(())


def check_count(name: str, value: Any, *, at_least: int = 1) -> int:
    """The value as an int, checked to be a static integer of at least `at_least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        kind = "a traced value" if isinstance(value, jax.core.Tracer) else repr(value)
        raise TypeError(
            f"{name} must be a static Python int, got {kind}. It determines array shapes, so give "
            f"a constant (under jit: static_argnames)."
        )
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}.")
    return int(value)


def check_number(
    name: str,
    value: Any,
    *,
    above: float = -np.inf,
    least: float = -np.inf,
    below: float = np.inf,
) -> None:
    """Raises ``ValueError`` if a Python number is out of range; arrays are not checked."""
    # JAX rebuilds pytrees with tracers, placeholders and gradients, which may have any value.
    if not isinstance(value, int | float):
        return
    if not (value > above and value >= least):
        bound = f"above {above:g}" if least == -np.inf else f"at least {least:g}"
        raise ValueError(f"{name} must be {bound}, got {value}.")
    if value >= below and below < np.inf:
        raise ValueError(f"{name} must be below {below:g}, got {value}.")


def check_pair(who: str, pair: str, returned: Any) -> tuple[Any, Any]:
    """The pair that a function of the user returned, after a check."""
    if not isinstance(returned, tuple) or len(returned) != 2:
        shape = getattr(returned, "shape", None)
        got = repr(returned) if shape is None else f"shape {shape}"
        raise TypeError(f"{who} must return a pair {pair}, got {got}.")
    return returned


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raises ``ValueError`` unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def check_key(key: Any) -> jax.Array:
    """The key, checked to be one random key, typed or raw."""
    hint = "pass jax.random.key(seed), or one key of jax.random.split(key, n)"
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and (dtype != jnp.uint32 or not shape):
        got = repr(key) if dtype is None else f"an array of {dtype} and shape {shape}"
        raise TypeError(f"key must be a random key, got {got}; {hint}.")
    if shape != (() if typed else jax.eval_shape(jax.random.PRNGKey, 0).shape):
        raise TypeError(
            f"key must be ONE random key, got an array of {dtype} and shape {shape}; {hint}, or "
            f"vmap over the keys."
        )
    return key


def check_keys(keys: Any) -> jax.Array:
    """The keys, checked to be an array of random keys [n], typed or raw."""
    dtype, shape = getattr(keys, "dtype", None), getattr(keys, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    ndim = 1 if typed else 1 + len(jax.eval_shape(jax.random.PRNGKey, 0).shape)
    if not (typed or dtype == jnp.uint32) or len(shape or ()) != ndim:
        got = repr(keys) if dtype is None else f"an array of {dtype} and shape {shape}"
        raise TypeError(
            f"keys must be an array of random keys [n], as jax.random.split(key, n) gives it; got "
            f"{got}."
        )
    return keys


def check_sharding(sharding: Any, num_samples: int) -> NamedSharding | None:
    """A NamedSharding that splits the sample axis evenly."""
    if sharding is None:
        return None
    nowhere = (None, PartitionSpec.UNCONSTRAINED)
    if (
        not isinstance(sharding, NamedSharding)
        or len(sharding.spec) != 1
        or sharding.spec[0] in nowhere
    ):
        raise TypeError(
            f"sharding must be a NamedSharding of one axis, the samples, as in "
            f"NamedSharding(mesh, PartitionSpec('devices')), got {sharding!r}."
        )
    context = jax.sharding.get_abstract_mesh()
    manual = [name for name in context.manual_axes if name in np.ravel(sharding.spec[0])]
    if manual:
        raise ValueError(
            f"sharding spreads the samples over {', '.join(map(repr, manual))}, which shard_map "
            f"already maps over. Omit sharding: inside shard_map each device draws its own "
            f"num_samples, with its own key, as fold_in(key, axis_index(name))."
        )
    try:
        sharding.shard_shape((num_samples,))
    except ValueError as error:
        raise ValueError(
            f"sharding splits the samples by {sharding.spec} over the mesh "
            f"{dict(sharding.mesh.shape)}, which does not divide num_samples={num_samples}."
        ) from error
    return sharding


def check_chunk(chunk_size: Any, num_samples: int) -> int | None:
    """None, or a chunk of at most all samples."""
    if chunk_size is None:
        return None
    if check_count("chunk_size", chunk_size) > num_samples:
        raise ValueError(
            f"chunk_size must be at most num_samples={num_samples}, got {chunk_size}; "
            f"chunk_size=None takes all samples at once."
        )
    return chunk_size
