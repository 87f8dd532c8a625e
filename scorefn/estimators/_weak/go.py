"""General and one-sample (GO) gradients of ordered discrete draws."""

from typing import ClassVar

from scorefn._core.pytree import pytree_dataclass, static_field

from .coordinate_swap import CoordinateSwap
from .weak_derivatives import ONE_STEP, Rule


@pytree_dataclass
class GO(CoordinateSwap):
    r"""The general and one-sample (GO) gradient, for ordered discrete factors.

    .. code-block:: text

        term        f(x),  x ~ p
        derivative  -(dF(x_i) / p(x_i)) (f(x, x_i + 1) - f(x))  along the parameters of factor i

    with F the distribution function of the factor. Unbiased, to first order; for independent
    factors of Bernoulli, Categorical (good if neighboring categories have similar costs;
    OneHotCategorical too), Poisson, Binomial, Geometric, NegativeBinomial (not in total_count), and
    any f. One evaluation of f for each factor, and one for the value. The analogue for continuous
    factors is `Pathwise` with `implicit_reparameterization`.

    Attributes:
        chunk_size: the number of evaluations of f at a time, for one sample. None means all of
            them; memory then grows with the square of the number of factors.

    Raises:
        TypeError: the distribution is of another family; a second derivative is taken, or one with
            respect to a total_count.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     die, f = sf.Categorical(logits), lambda x: (x - 2.0) ** 2
        ...     return sf.expectation(f, die, key, sf.GO(), num_samples=64)
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(6), jax.random.key(0))

    References:
        Cong et al., GO gradient for expectation-based objectives (2019), theorem 1.
    """

    chunk_size: int | None = static_field(default=None, kw_only=True)

    evaluations: ClassVar[str] = "1, and 1 for each factor"
    when: ClassVar[str] = "counts and other ordered draws, few factors"
    needs: ClassVar[str] = "independent factors of an ordered discrete family; any f"
    rules: ClassVar[dict[str, Rule]] = ONE_STEP
    otherwise: ClassVar[str] = (
        "Pathwise fits Gamma, Beta and Normal, ScoreFunction every distribution."
    )
