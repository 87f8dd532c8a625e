"""The pathwise estimator: f is differentiated through a reparameterized draw."""

from typing import Any, ClassVar

import jax

from scorefn._core.pytree import pytree_dataclass
from scorefn._core.types import Cost, Terms, Vmap
from scorefn.distributions._distribution import Distribution

from ._base import Estimator
from ._guard import guarded_draw


@pytree_dataclass
class Pathwise(Estimator):
    r"""The pathwise derivative: f is differentiated through the draw.

    .. code-block:: text

        term        f(x),  x = sample(params, key)
        derivative  df/dx * dx/dparams + df/dparams

    Unbiased at every order, if the draw is a differentiable function of the parameters for a fixed
    key (location-scale families, flows, implicit derivatives of Gamma, Beta, Dirichlet, StudentT)
    and f and its derivatives of lower order are continuous. A jump in f biases the estimate and
    cannot be detected; a kink biases it from the second order on. One evaluation of f and of its
    derivative for each term.

    Raises:
        TypeError: the result is differentiated with respect to a parameter on which (a part of) the
            draw depends without a derivative, such as the weights of a mixture or any parameter of
            a discrete distribution, or that moves the odds of a choice between candidates
            (rejection sampling without an implicit derivative); or f returns integers. All while
            tracing.

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
    needs: ClassVar[str] = "a differentiable sampler, no log_prob; f differentiable, continuous"
    differentiates_f: ClassVar[bool] = True

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        return vmap(lambda key: f(self.guarded_draw(distribution, key)))(keys)

    def guarded_draw(self, distribution: Distribution, key: jax.Array) -> Any:
        """One draw with its derivative, guarded against a lost derivative."""
        return guarded_draw(distribution, key, _message)


def _message(leaf: str) -> str:
    return (
        f"Pathwise cannot differentiate with respect to {leaf}: the draw depends on it through an "
        f"operation without a derivative (a discrete choice, a rejected candidate, rounding, "
        f"stop_gradient), so that its gradient would silently be wrong. Use ScoreFunction, or "
        f"Enumerate if the support is small, or implicit_reparameterization if the cdf is known; "
        f"if the parameter is not meant to be learned, wrap it in jax.lax.stop_gradient."
    )
