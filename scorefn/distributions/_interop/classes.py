"""The exact class of an object of another library, and wrappers known to be harmless.

Nothing is concluded from the beginning of a name, from a base class, or from what a wrapper holds
inside: a mask, an inflation or a truncation makes another distribution out of a known one.
"""

from typing import Any

_LIBRARIES = {
    "distrax": "distrax",
    "flowjax": "flowjax",
    "numpyro": "numpyro",
    "tensorflow_probability": "tfp",
}

# Independent factors stay independent factors inside of these; where each keeps the object inside.
_TRANSPARENT = {
    "distrax.Independent": "distribution",
    "numpyro.ExpandedDistribution": "base_dist",
    "numpyro.Independent": "base_dist",
    "tfp.Independent": "distribution",
}


def class_of(value: Any) -> str:
    """The class of an object that a known library defines, as "distrax.Normal"; else ""."""
    kind = type(value)
    library = _LIBRARIES.get(kind.__module__.partition(".")[0])
    return "" if library is None else f"{library}.{kind.__qualname__}"


def unwrapped(distribution: Any) -> Any:
    """The object inside of Independent and of numpyro's expanded distributions."""
    while (attribute := _TRANSPARENT.get(class_of(distribution))) is not None:
        distribution = getattr(distribution, attribute)
    return distribution


def constructor_arguments(value: Any) -> dict[str, Any]:
    """The arguments that an object of TFP was made with, by name; of others none."""
    arguments = getattr(value, "__dict__", {}).get("_parameters")
    return arguments if isinstance(arguments, dict) else {}


MULTIVARIATE_NORMALS = frozenset(
    {
        "distrax.MultivariateNormalDiag",
        "distrax.MultivariateNormalDiagPlusLowRank",
        "distrax.MultivariateNormalFromBijector",
        "distrax.MultivariateNormalFullCovariance",
        "distrax.MultivariateNormalTri",
        "numpyro.LowRankMultivariateNormal",
        "numpyro.MultivariateNormal",
        "tfp.MultivariateNormalDiag",
        "tfp.MultivariateNormalDiagPlusLowRank",
        "tfp.MultivariateNormalDiagPlusLowRankCovariance",
        "tfp.MultivariateNormalFullCovariance",
        "tfp.MultivariateNormalLinearOperator",
        "tfp.MultivariateNormalTriL",
    }
)
