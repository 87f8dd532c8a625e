"""The objects that a program yields: random choices and costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from jax.extend.core import get_opaque_trace_state

from scorefn._core.checks import check_chunk, check_count
from scorefn._core.types import PyTree
from scorefn.distributions._distribution import Distribution, as_distribution
from scorefn.estimators._base import Estimator, check_estimator

# The JAX trace in which the running program started.
_trace: ContextVar[Any] = ContextVar("scorefn_program_trace", default=None)


def _unyielded(self: Any, *_: Any) -> Any:
    raise TypeError(
        f"This is a request for a draw and not the draw: write x = yield scorefn.sample(...), in a "
        f"generator function; got {self!r}."
    )


@dataclass(frozen=True, eq=False)
class Choice:
    """A request for a random choice; ``yield`` returns the draw."""

    distribution: Distribution
    estimator: Estimator
    num_samples: int
    chunk_size: int | None
    depends_on: tuple[Any, ...] | None


_OPERATORS = ("add", "sub", "mul", "truediv", "pow", "matmul")
for _name in (
    *(f"{side}{operator}" for side in ("", "r") for operator in _OPERATORS),
    *("neg", "abs", "lt", "le", "gt", "ge", "bool", "float", "int", "len", "iter", "getitem"),
):
    setattr(Choice, f"__{_name}__", _unyielded)


@dataclass(frozen=True, eq=False)
class Cost:
    """A cost yielded by a program."""

    value: PyTree
    depends_on: tuple[Any, ...] | None


def sample(
    distribution: Any,
    estimator: Estimator,
    *,
    num_samples: int = 1,
    chunk_size: int | None = None,
    depends_on: Sequence[Any] | None = None,
) -> Choice:
    r"""A random choice of a `program`, to be yielded: ``x = yield scorefn.sample(...)``.

    .. code-block:: text

        value       of the rest of the program: mean of estimator(rest, distribution, keys)
        derivative  that of the estimator, with the rest of the program as its f

    Bias and orders are those of the estimator. The evaluations are evaluations of the rest of the
    program: the numbers of samples of successive choices multiply.

    Args:
        distribution: the distribution of the draw, as for `expectation`.
        estimator: the estimator of the derivative along its parameters.
        num_samples: the number of branches into which the program splits, each with its own key.
        chunk_size: the number of branches evaluated at a time; None means all.
        depends_on: the earlier draws that can change this distribution, as received from
            ``yield``; None means all. A shorter list lowers the variance of costs that depend on
            this draw and not on earlier ones. It is checked while the program is traced.

    Returns:
        A choice, to be yielded.

    Raises:
        TypeError: an argument has the wrong type; or sample is called inside a traced loop or
            branch of a program, where nothing can be yielded.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> @sf.program
        ... def model(logit):
        ...     coin = yield sf.sample(distrax.Bernoulli(logits=logit), sf.Enumerate())
        ...     z = yield sf.sample(distrax.Normal(2.0 * coin, 1.0), sf.Pathwise(), num_samples=8)
        ...     return z**2
        >>> gradient = jax.grad(lambda logit: model(logit)(jax.random.key(0)))(0.3)

    References:
        Schulman et al., Gradient estimation using stochastic computation graphs (2015).
    """
    began = _trace.get()
    if began is not None and began != get_opaque_trace_state():
        raise TypeError(
            "scorefn.sample was called inside a function that JAX traces (the body of a scan, "
            "while_loop, cond, vmap, jit or checkpoint) within a program, where nothing can be "
            "yielded. Write a loop of choices as yield scorefn.rollout(step, init, length=n), "
            "whose step yields its choices, or as a Python loop over static values; or call "
            "scorefn.expectation there."
        )
    check_estimator(estimator)
    num_samples = check_count("num_samples", num_samples)
    return Choice(
        as_distribution(distribution),
        estimator,
        num_samples,
        check_chunk(chunk_size, num_samples),
        None if depends_on is None else tuple(depends_on),
    )


def cost(value: PyTree, *, depends_on: Sequence[Any] | None = None) -> Cost:
    r"""A cost of a `program`, to be yielded: ``yield scorefn.cost(c)``.

    The yielded costs and the returned cost are added up. A choice is credited only with later costs
    that it can change, which lowers the variance and does not change the mean.

    Args:
        value: a real scalar or a pytree of real arrays, like the result of the program.
        depends_on: the draws that can change this cost, as received from ``yield``, or leaves of
            them. Dependencies of these draws need not be listed. None means all draws so far.

    Returns:
        A request, to be yielded; the ``yield`` returns None.

    Raises:
        ValueError: `depends_on` omits a draw on which the cost depends, directly or through other
            draws; or it lists an object that is not a draw of the program. Raised while the program
            runs.

    Example:
        >>> import jax, scorefn as sf
        >>> estimator = sf.ScoreFunction(sf.ConstantBaseline(0.0))
        >>> @sf.program
        ... def model(logit):
        ...     a = yield sf.sample(sf.Bernoulli(logit), estimator)
        ...     b = yield sf.sample(sf.Bernoulli(2 * logit), estimator, depends_on=())
        ...     yield sf.cost(3.0 * a, depends_on=[a])
        ...     yield sf.cost(5.0 * b, depends_on=[b])
        >>> gradient = jax.grad(lambda logit: model(logit)(jax.random.key(0)))(0.3)

    References:
        Schulman et al., Gradient estimation using stochastic computation graphs (2015), theorem 1.
    """
    return Cost(value, None if depends_on is None else tuple(depends_on))


@contextmanager
def running() -> Iterator[None]:
    """A context for user code of a program, which records the current trace for `sample`."""
    token = _trace.set(get_opaque_trace_state())
    try:
        yield
    finally:
        _trace.reset(token)


def next_request(send: Callable[[Any], Any], value: Any) -> tuple[bool, Any]:
    """Sends a value to a generator: ``(False, request)``, or ``(True, returned)`` at its end."""
    try:
        with running():
            return False, send(value)
    except StopIteration as end:
        return True, end.value
