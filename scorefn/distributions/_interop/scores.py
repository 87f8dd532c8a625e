"""Facts about scores that a trace of an object does not show."""

from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.refusals import nondifferentiable

from .classes import class_of, constructor_arguments

# Arguments on which the support depends, although log_prob compares no draw with them.
_MOVING = {
    "numpyro.Levy": ("loc",),  # its own flatten loses the support
    "tfp.GeneralizedPareto": ("loc",),
    "tfp.PERT": ("low", "high"),
}

# Arguments along which the derivative of log_prob is wrong (TFP 0.26, against differences).
_WRONG = {
    "tfp.BetaQuotient": (
        "concentration1_numerator",
        "concentration0_numerator",
        "concentration1_denominator",
        "concentration0_denominator",
    ),
    "tfp.NoncentralChi2": ("df",),
    "tfp.Skellam": ("rate1", "rate2", "log_rate1", "log_rate2"),
}

# An array used to sample, and the argument from which it is computed and which the density uses.
_COPIES = {
    "numpyro.MultivariateStudentT": [("_chi2.concentration", "df"), ("_chi2.rate", "df")],
    "numpyro.StudentT": [("_chi2.concentration", "df"), ("_chi2.rate", "df")],
}
_AFFINE = {"numpyro.TransformedDistribution": None}


def support_arrays(distribution: Any) -> list[Any]:
    """The arrays in the support of an object, if it has one, and known others."""
    arrays = jax.tree.leaves(getattr(distribution, "support", ()))
    for known in _known(distribution, _MOVING):
        arrays += [getattr(known, name) for name in _MOVING[class_of(known)]]
    for known in _known(distribution, _AFFINE):
        arrays += _shifted_ends(known)
    return arrays


def _shifted_ends(distribution: Any) -> list[Any]:
    """The arrays that an affine map of numpyro shifts the ends of a support by.

    numpyro says of every affine map that its draws are all real numbers.
    """
    support = _interval(distribution.base_dist)
    bounds = [getattr(support, name, None) for name in ("lower_bound", "upper_bound")]
    arrays = []
    for transform in distribution.transforms:
        if class_of(transform) != "numpyro.AffineTransform":
            break
        arrays += [transform.loc for bound in bounds if bound is not None]
        # An end at 0 stays there under a change of scale.
        ends = [bound for bound in bounds if bound is not None and not _is_zero(bound)]
        arrays += [transform.scale for _ in ends]
    return arrays


def _is_zero(bound: Any) -> bool:
    return isinstance(bound, int | float) and bound == 0


def _interval(distribution: Any) -> Any:
    """The support of an object, without the axes that numpyro wraps around it."""
    support: Any = getattr(distribution, "support", None)
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def inside_support(distribution: Any, x: Any) -> jax.Array:
    """Whether a draw lies between the ends that numpyro gives the support of an object."""
    support = _interval(distribution)
    inside = jnp.array(True)  # noqa: FBT003
    if class_of(distribution).startswith("numpyro."):
        # The ends count as inside: a positive draw may be rounded to 0.
        inside &= jnp.all(x >= getattr(support, "lower_bound", -jnp.inf))
        inside &= jnp.all(x <= getattr(support, "upper_bound", jnp.inf))
    return inside


def sampling_copies(distribution: Any) -> list[tuple[Any, Any]]:
    """Pairs of an array used to sample and the argument from which it is computed."""
    return [
        (_attribute(known, copy), _attribute(known, argument))
        for known in _known(distribution, _COPIES)
        for copy, argument in _COPIES[class_of(known)]
    ]


def without_wrong_slopes(distribution: Any) -> Any:
    """The object, which raises where its log-density would be differentiated wrongly."""
    is_wrong = lambda node: class_of(node) in _WRONG  # noqa: E731
    if not any(map(is_wrong, jax.tree.leaves(distribution, is_leaf=is_wrong))):
        return distribution
    refusing = lambda node: _refusing(node) if is_wrong(node) else node  # noqa: E731
    return jax.tree.map(refusing, distribution, is_leaf=is_wrong)


def _refusing(distribution: Any) -> Any:
    kind, arguments = type(distribution).__name__, constructor_arguments(distribution)
    message = (
        "distribution is a {} of TFP, whose log_prob has a wrong derivative along {}. Write the "
        "log-density yourself, as Distribution(log_prob, sample, params); or, if the parameter is "
        "not meant to be learned, wrap it in jax.lax.stop_gradient."
    )
    refused = {
        name: nondifferentiable(jnp.asarray(arguments[name]), message.format(kind, name))
        for name in _WRONG[class_of(distribution)]
        if arguments.get(name) is not None
    }
    return distribution.copy(**refused)


def _known(distribution: Any, table: dict[str, Any]) -> list[Any]:
    """The objects inside a distribution, or itself, whose class is in the table."""
    nodes = jax.tree.leaves(distribution, is_leaf=lambda node: class_of(node) in table)
    return [node for node in nodes if class_of(node) in table]


def _attribute(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name)
    return value
