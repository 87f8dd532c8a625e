"""Independent factors of common families, with their parameters, for any library."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import wide
from scorefn.distributions._discrete import Bernoulli, Factors, OneHotCategorical
from scorefn.distributions._distribution import Distribution, is_object

from .factors import read_factors, unwrapped


@dataclass(frozen=True)
class Family:
    """Independent factors of one family.

    Attributes:
        name: the name of the family, such as "Normal".
        params: the parameters by name, shaped [...] like the factors, except logits [..., C].
        shape: the shape of the factors.
        encode: a function of a draw that returns one number for each factor, [...]: the draw
            itself, or an index.
        cast: the inverse of encode.
    """

    name: str
    params: dict[str, jax.Array]
    shape: tuple[int, ...]
    encode: Callable[[jax.Array], jax.Array]
    cast: Callable[[jax.Array], jax.Array]

    def map_params(self, fn: Callable[[jax.Array], jax.Array]) -> "Family":
        """The factors with a function applied to each parameter."""
        return replace(self, params={name: fn(array) for name, array in self.params.items()})


def read_family(distribution: Distribution, key: jax.Array) -> Family | None:
    """The factors of one draw, or None for unknown families.

    Objects are recognized by the names of their classes and by the names of their parameters,
    which are read as differentiable functions of what the user gave. The key is only an example:
    nothing is drawn with it.
    """
    if not is_object(distribution):
        return None
    factors = read_factors(distribution, key)
    if factors is not None:
        return _discrete(factors)
    inner = unwrapped(distribution.params)
    name = next((_CLASSES[n] for n in _mro(inner) if n in _CLASSES), None)
    if name is None:
        return None
    read = {parameter: _read(inner, parameter) for parameter in _PARAMETERS[name]}
    if any(value is None for value in read.values()):
        return None
    draw = jax.eval_shape(distribution.draw, key)
    params = {parameter: _wide(jnp.asarray(value)) for parameter, value in read.items()}
    dtype = jnp.result_type(*params.values())
    params = {p: jnp.broadcast_to(value.astype(dtype), draw.shape) for p, value in params.items()}
    return Family(name, params, draw.shape, lambda x: x, lambda x: x)


def _discrete(factors: Factors) -> Family:
    logits = _wide(jnp.asarray(factors.logits))
    binary, one_hot = (isinstance(factors, kind) for kind in (Bernoulli, OneHotCategorical))

    def encode(x: jax.Array) -> jax.Array:
        return (jnp.argmax(x, axis=-1) if one_hot else x).astype(jnp.int32)

    shape = logits.shape if binary else logits.shape[:-1]
    return Family(
        "Bernoulli" if binary else "Categorical", {"logits": logits}, shape, encode, factors.cast
    )


_CLASSES = {
    "Normal": "Normal",
    "MultivariateNormalDiag": "Normal",
    "Poisson": "Poisson",
    "Exponential": "Exponential",
    "Gamma": "Gamma",
    "Binomial": "Binomial",
    "BinomialProbs": "Binomial",
    "BinomialLogits": "Binomial",
    "Geometric": "Geometric",
    "GeometricProbs": "Geometric",
    "GeometricLogits": "Geometric",
    "NegativeBinomial": "NegativeBinomial",
    "NegativeBinomialProbs": "NegativeBinomial",
    "NegativeBinomialLogits": "NegativeBinomial",
}

_PARAMETERS = {
    "Normal": ("loc", "scale"),
    "Poisson": ("rate",),
    "Exponential": ("rate",),
    "Gamma": ("concentration", "rate"),
    "Binomial": ("total_count", "logits"),
    "Geometric": ("logits",),
    "NegativeBinomial": ("total_count", "logits"),
}

# How a parameter may be given otherwise.
_SPELLINGS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "rate": ("log_rate", jnp.exp),
    "logits": ("probs", lambda probs: jnp.log(probs) - jnp.log1p(-probs)),
}


def _read(inner: Any, parameter: str) -> Any:
    if "MultivariateNormalDiag" in _mro(inner):
        return inner.mean() if parameter == "loc" else inner.stddev()
    value = getattr(inner, parameter, None)
    if value is None and parameter in _SPELLINGS:
        other, convert = _SPELLINGS[parameter]
        given = getattr(inner, other, None)
        return None if given is None else convert(jnp.asarray(given))
    return value


def _mro(inner: Any) -> list[str]:
    # In order: TFP's Exponential is a Gamma.
    return [cls.__name__ for cls in type(inner).__mro__]


def _wide(array: jax.Array) -> jax.Array:
    """The array as floats of at least 32 bits."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(jnp.result_type(float))
    return array.astype(wide(array.dtype))
