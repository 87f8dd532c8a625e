"""Independent factors of common families, with their parameters, for any library."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import as_float, wide
from scorefn.distributions._discrete import Bernoulli, Factors, OneHotCategorical
from scorefn.distributions._distribution import Distribution, is_object

from .classes import MULTIVARIATE_NORMALS, class_of, unwrapped
from .discrete import Discrete
from .factors import read_factors


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

    Objects are recognized by their exact classes. Their parameters are read as differentiable
    functions of what the user gave. The key is only an example: nothing is drawn with it.
    """
    if not is_object(distribution):
        return None
    factors = read_factors(distribution, key)
    if factors is not None:
        return _discrete(factors)
    inner = unwrapped(distribution.params)
    name = _CLASSES.get(class_of(inner))
    if name is None:
        return None
    read = {parameter: _read(inner, parameter) for parameter in _PARAMETERS[name]}
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
    "distrax.Gamma": "Gamma",
    "distrax.LogStddevNormal": "Normal",
    "distrax.MultivariateNormalDiag": "Normal",
    "distrax.Normal": "Normal",
    "flowjax.Exponential": "Exponential",
    "flowjax.Normal": "Normal",
    "numpyro.BinomialLogits": "Binomial",
    "numpyro.BinomialProbs": "Binomial",
    "numpyro.Exponential": "Exponential",
    "numpyro.Gamma": "Gamma",
    "numpyro.GeometricLogits": "Geometric",
    "numpyro.GeometricProbs": "Geometric",
    "numpyro.NegativeBinomialLogits": "NegativeBinomial",
    "numpyro.NegativeBinomialProbs": "NegativeBinomial",
    "numpyro.Normal": "Normal",
    "numpyro.Poisson": "Poisson",
    "tfp.Binomial": "Binomial",
    "tfp.Exponential": "Exponential",
    "tfp.Gamma": "Gamma",
    "tfp.Geometric": "Geometric",
    "tfp.MultivariateNormalDiag": "Normal",
    "tfp.NegativeBinomial": "NegativeBinomial",
    "tfp.Normal": "Normal",
    "tfp.Poisson": "Poisson",
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


def _read(inner: Any, parameter: str) -> Any:
    if class_of(inner) in MULTIVARIATE_NORMALS:
        return inner.mean() if parameter == "loc" else inner.stddev()
    value = getattr(inner, parameter, None)
    if parameter == "rate" and value is None:
        return jnp.exp(inner.log_rate)
    if parameter == "logits":
        # As of bits: probabilities of 0 and 1 as well.
        by_probs = value is None or class_of(inner).endswith("Probs")
        given = jnp.asarray(inner.probs if by_probs else value)
        return Discrete(Bernoulli, given, by_probs).to_logits()
    return value


def _wide(array: jax.Array) -> jax.Array:
    """The array as floats of at least 32 bits."""
    array = as_float(array)
    return array.astype(wide(array.dtype))
