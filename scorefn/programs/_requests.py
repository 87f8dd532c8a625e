"""What a program yields: its random choices and its costs."""

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

# In which trace the program that is running now was begun.
_trace: ContextVar[Any] = ContextVar("scorefn_program_trace", default=None)


@dataclass(frozen=True, eq=False)
class Choice:
    """A random choice that has been asked for; ``yield`` makes it and gives the draw."""

    distribution: Distribution
    estimator: Estimator
    num_samples: int
    chunk_size: int | None
    depends_on: tuple[Any, ...] | None


@dataclass(frozen=True, eq=False)
class Cost:
    """A cost that arises in the middle of a program."""

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

        value       of all that follows: mean of estimator(rest, distribution, keys)
        derivative  as the estimator says, with the rest of the program as its f

    Bias, orders and evaluations are the estimator's, counted in evaluations of the rest of the
    program: choices with several samples, one inside the other, multiply.

    Args:
        distribution: of the draw, as for `expectation`.
        estimator: how the derivative along its parameters is estimated.
        num_samples: branches into which the program splits here, each with keys of its own.
        chunk_size: branches at a time, as for `expectation`; None means all.
        depends_on: the earlier draws that can change this distribution, as they were received;
            None means all of them. What is left out is a claim, and makes costs that depend on
            this draw alone cheaper in variance; `cost` checks it.

    Returns:
        A choice, of no use but to be yielded.

    Raises:
        TypeError: an argument of the wrong kind; or called inside a traced loop or branch of a
            program, where nothing can be yielded.

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
            "whose step yields its choices; or as a Python loop over static values; or call "
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
    r"""A cost of a `program` that arises on the way, to be yielded: ``yield scorefn.cost(c)``.

    All costs of a program are added up, with what it returns. A choice is credited only with the
    costs yielded after it, and of those only with the ones that it can change: this lowers the
    variance, and leaves the mean as it is. Nothing is evaluated.

    Args:
        value: a real scalar or a pytree of real arrays, like what the program returns.
        depends_on: the draws that can change it, as they were received from ``yield``, or leaves
            of them. What these depend on themselves need not be listed. None means all so far.

    Returns:
        A request, of no use but to be yielded; the ``yield`` gives None.

    Raises:
        ValueError: `depends_on` leaves out a draw that the cost is computed from, directly or by
            way of later draws; or lists what is no draw of the program. While the program runs.

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
    """While user code of a program runs: `sample` then knows in which trace that began."""
    token = _trace.set(get_opaque_trace_state())
    try:
        yield
    finally:
        _trace.reset(token)


def next_request(send: Callable[[Any], Any], value: Any) -> tuple[bool, Any]:
    """Hands a value to a generator: ``(False, request)``, or ``(True, returned)`` at its end."""
    try:
        with running():
            return False, send(value)
    except StopIteration as end:
        return True, end.value
