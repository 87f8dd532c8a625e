"""A point mass, for estimators that treat a function of parameters as a black box."""

import jax
import jax.numpy as jnp

from scorefn._core.pytree import pytree_dataclass
from scorefn._core.types import PyTree


@pytree_dataclass
class Deterministic:
    """A point mass: every draw is the value, and derivatives pass through it.

    Attributes:
        value: any pytree of arrays.

    Example:
        >>> import jax
        >>> print(Deterministic(2.0).sample(jax.random.key(0)))
        2.0
    """

    value: PyTree

    def log_prob(self, x: PyTree) -> jax.Array:
        """The log-probability of one draw: 0 at the value, minus infinity elsewhere."""
        same = jax.tree.map(lambda a, b: jnp.all(jnp.asarray(a) == b), self.value, x)
        return jnp.where(jnp.all(jnp.array(jax.tree.leaves(same))), 0.0, -jnp.inf)

    def sample(self, key: jax.Array) -> PyTree:
        """The value. The key is not used."""
        del key
        return jax.tree.map(jnp.asarray, self.value)
