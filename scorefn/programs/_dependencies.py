"""A check, while tracing, of the dependencies that choices and costs declare."""

from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters.partial_eval import dce_jaxpr

from scorefn._core.types import PyTree
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._given import Given

from ._replay import Past
from ._requests import Choice, Cost, next_request


def _drawn(distribution: Distribution, key: jax.Array) -> PyTree:
    if isinstance(distribution, Given):
        return jax.tree.map(lambda x: x[0], distribution.rows().draw)
    return distribution.draw(key)


def check_claims(body: Callable[[], Generator[Any, Any, PyTree]], draws: int, key: Any) -> None:
    """Raises ``ValueError`` if a declared dependency list omits a draw.

    The program is traced again, with plain draws and without estimators. Each draw passes
    through a switch without effect, and dead-code elimination shows on which switches a number
    depends. This takes one trace for any number of costs, and no time at run time.

    Args:
        body: a function that starts the program.
        draws: the number of choices of the program.
        key: one random key; nothing is drawn with it.
    """
    claims: list[tuple[str, int]] = []
    key = jax.ShapeDtypeStruct(key.shape, key.dtype)
    switches = [jax.ShapeDtypeStruct((), jnp.bool_)] * draws

    def claimed(key: jax.Array, switches: list[jax.Array]) -> list[jax.Array]:
        """The values of all claims: the arrays whose dependencies were declared."""
        claims.clear()
        outputs: list[jax.Array] = []

        def claim(name: str, mask: int, values: PyTree) -> None:
            for leaf in jax.tree.leaves(values):
                claims.append((name, mask))
                outputs.append(jnp.asarray(leaf))

        past, generator, value, costs = Past(body), body(), None, 0
        while True:
            ended, request = next_request(generator.send, value)
            value = None
            if ended:
                return outputs
            if isinstance(request, Cost):
                costs += 1
                claim(f"cost {costs}", past.mask(request.depends_on), request.value)
                continue
            key, used = jax.random.split(key)
            if not isinstance(request, Choice):
                value = request(used)[0]
                past = past.after_rollout(value)
                continue
            i, draw = len(past.draws), _drawn(request.distribution, used)
            claim(f"draw {i + 1}", past.mask(request.depends_on), draw)
            value = jax.tree.map(lambda leaf, on=switches[i]: jnp.where(on, leaf, leaf), draw)
            past = past.after(value, request.depends_on)

    jaxpr = jax.make_jaxpr(claimed)(key, switches).jaxpr
    for i, (name, mask) in enumerate(claims):
        used = dce_jaxpr(jaxpr, [j == i for j in range(len(claims))])[1][-draws:]
        missed = [j + 1 for j in range(draws) if used[j] and not mask >> j & 1]
        if missed:
            raise ValueError(
                f"The {name} of a program depends on draw {missed[0]}, directly or through other "
                f"draws, and its depends_on omits that draw: a gradient would silently be wrong. "
                f"Add it to depends_on."
            )
