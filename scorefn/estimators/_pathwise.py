"""Reparameterization: the derivative flows through the draw itself."""

from typing import Any, ClassVar

import jax

from scorefn._core.pytree import pytree_dataclass
from scorefn._core.types import Cost, PyTree, Vmap
from scorefn.distributions._distribution import Distribution

from ._base import Estimator
from ._guard import Reach, guard


@pytree_dataclass
class Pathwise(Estimator):
    r"""The pathwise derivative: f is differentiated through the draw.

    .. code-block:: text

        term        f(x),  x = sample(params, key)
        derivative  df/dx * dx/dparams + df/dparams

    Unbiased at every order, if the draw is a differentiable function of the parameters for a fixed
    key (location-scale families, flows, implicit derivatives of Gamma, Beta, Dirichlet, StudentT)
    and f is continuous, together with its derivatives of lower order. A jump in f cannot be seen
    from outside and biases the estimate; a kink does so from the second order on. One evaluation
    of f and of its derivative for each term.

    Raises:
        TypeError: somebody differentiates with respect to a parameter that (part of) the draw
            depends on without a derivative, as a mixture's weights, or any parameter of a
            discrete distribution; or f returns integers. Both while tracing.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> def loss(mean, key):
        ...     normal = distrax.Normal(mean, 1.0)
        ...     return sf.expectation(lambda x: 3.0 * x, normal, key, sf.Pathwise())
        >>> print(jax.grad(loss)(0.5, jax.random.key(0)))
        3.0

    References:
        Kingma and Welling, Auto-Encoding Variational Bayes (2014), equation 5;
        Mohamed et al., Monte Carlo Gradient Estimation in Machine Learning (2020), section 5.
    """

    when: ClassVar[str] = "continuous draws and a smooth f"
    needs: ClassVar[str] = "a differentiable sampler; f differentiable, continuous"
    differentiates_f: ClassVar[bool] = True

    def terms(
        self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
    ) -> tuple[PyTree, PyTree]:
        return vmap(lambda key: f(self.guarded_draw(distribution, key)))(keys)

    def guarded_draw(self, distribution: Distribution, key: jax.Array) -> Any:
        """One draw with its derivative, or an error where a part of that would be lost."""
        draw = guard(Distribution.draw, distribution, key, severed=_severed, message=_message)
        return draw(key)


def _severed(reaches: list[Reach]) -> list[bool]:
    # Leaf by leaf of the draw: in a joint one leaf may carry the derivative that another one loses.
    return [
        any(v and not d for v, d in zip(reach.by_value, reach.by_derivative, strict=True))
        for reach in reaches
    ]


def _message(leaf: str) -> str:
    return (
        f"Pathwise cannot differentiate with respect to {leaf}: the draw depends on it through an "
        f"operation without derivative (a discrete choice, rounding, stop_gradient), so that its "
        f"gradient would silently be wrong. Use ScoreFunction, or Enumerate if the support is "
        f"small; if it is not meant to be learned, wrap it in jax.lax.stop_gradient."
    )
