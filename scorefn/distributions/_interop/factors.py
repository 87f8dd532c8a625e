"""Independent discrete factors of objects of any library."""

from typing import Any

import jax
import jax.numpy as jnp

from scorefn.distributions._discrete import Bernoulli, Categorical, Factors, OneHotCategorical
from scorefn.distributions._distribution import Distribution, is_object

from .discrete import read_discrete


def read_factors(distribution: Distribution, key: jax.Array) -> Factors | None:
    """The distribution as a record of bits or categories, or None.

    Objects are recognized by their exact classes; Independent and expanded ones are unwrapped,
    since the factors of one draw are independent anyhow. Logits of bits are finite: certain bits
    have large ones, without a derivative. The key is only an example: nothing is drawn with it.
    """
    read = read_discrete(distribution.params) if is_object(distribution) else None
    if read is None:
        return None
    logits, draw = read.to_logits(), jax.eval_shape(distribution.draw, key)
    shape = (*draw.shape, logits.shape[-1]) if read.kind is Categorical else draw.shape
    return read.kind(jnp.broadcast_to(logits, shape), draw.dtype)


def require_factors(
    distribution: Distribution,
    key: jax.Array,
    kinds: tuple[type[Factors], ...],
    name: str,
    hint: str,
) -> Any:
    """The distribution as a record of one of these kinds; else ``TypeError``.

    Args:
        distribution: the distribution.
        key: an example of a key, as for `read_factors`.
        kinds: the records that the caller supports.
        name: the name of the calling estimator.
        hint: a sentence of the message on other estimators.
    """
    factors = read_factors(distribution, key)
    if isinstance(factors, kinds):
        return factors
    needs = " or ".join(_WORDS[kind] for kind in kinds)
    examples = ", ".join(f"scorefn.{kind.__name__}(logits)" for kind in kinds)
    raise TypeError(
        f"{name} needs independent {needs}, as {examples} or an object of a library; got "
        f"{type(distribution.params).__name__}. {hint} ScoreFunction fits every distribution."
    )


_WORDS: dict[type[Factors], str] = {
    Bernoulli: "bits",
    Categorical: "categories",
    OneHotCategorical: "one-hot categories",
}
