"""Programs of several random choices, each with its own estimator."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import as_float, is_number
from scorefn._core.checks import check_key, check_pair
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.refusals import AUX, without_gradient
from scorefn._core.types import PyTree
from scorefn._score import attach_score
from scorefn.distributions._given import is_given

from ._barrier import kept
from ._branches import Branches, dealt
from ._credit import Parts, add_costs, with_baseline_of_total
from ._dependencies import check_claims
from ._replay import Past
from ._requests import Choice, Cost, next_request
from ._rollout import Rollout

# Costs, keyed by the set of choices that can change them: bit i represents choice i.
Costs = dict[int, PyTree]
# Since jax 0.12 True leaves the inlining to the compiler.
_INLINE: Any = jax.Inline.JAX_EARLY if hasattr(jax, "Inline") else True
# One in so many choices is a function of its own under jit, because JAX follows functions inside of
# functions recursively; and Python's frames while the program is traced, about 40 for a choice.
_NESTED, _FRAMES = 4, 20_000


@pytree_dataclass
class Beside:
    """The aux of the rest of a program, as an estimator sees it.

    Attributes:
        costs: the costs that do not depend on the choice.
        aux: the aux of the program.
        scored: the masks of the costs that depend on the choice.
        ranks: the ranks of the leaves of `costs`, before estimators add axes.
    """

    costs: Costs
    aux: PyTree
    scored: tuple[int, ...] = static_field()
    ranks: tuple[int, ...] = static_field()


@dataclass(frozen=True, eq=False)
class Run:
    """A program with its arguments: a function of one key.

    Another program includes it by ``yield from``.
    """

    body: Callable[[], Generator[Any, Any, PyTree]]
    has_aux: bool

    def __call__(self, key: jax.Array) -> PyTree:
        """An estimate of the expected total cost; with `has_aux`, a pair of that and aux.

        The key is consumed.
        """
        key = check_key(key)
        eager = not isinstance(jnp.zeros(()), jax.core.Tracer)
        past = Past(self.body, self.has_aux, eager)
        with _deep():
            costs, aux = _rest(past, self.body(), None, key)
        if past.tally.claims:
            check_claims(self.body, past.tally.draws, key)
        if not costs:
            raise TypeError("A program must return a cost, or yield scorefn.cost(...), got none.")
        total = jax.tree.map(as_float, functools.reduce(add_costs, costs.values()))
        return (total, aux) if self.has_aux else total

    def __iter__(self) -> Iterator[Any]:
        return self.body()


def program(
    body: Callable[..., Generator[Any, Any, PyTree]], *, has_aux: bool = False
) -> Callable[..., Run]:
    r"""A model of several random choices, written as a generator that yields them.

    .. code-block:: text

        value       E over choice 1 of E over choice 2 of ... the total cost, each E estimated
        derivative  for each choice, that of its estimator

    ``model(*args)`` is a function of one key that returns an estimate of the expected total cost:
    the returned cost plus all yielded costs. The f of each estimator is the rest of the program,
    mapped over its samples with a separate key for each. So any estimator can be used for any
    choice; the program is unbiased if all estimators are, and right to the lowest of their orders.
    Evaluations multiply along the program: two choices of 4 samples evaluate the rest 16 times.

    Loops and branches over static values are plain Python. A helper that makes choices is a
    generator, called by ``yield from``; another program is called this way too. For a long loop use
    `rollout`. The body may be traced more than once, so it must be repeatable: it must have no side
    effects, and no randomness except its choices.

    Args:
        body: a generator function of any arguments.
        has_aux: whether body returns a pair ``(cost, aux)``, with aux any pytree of arrays. As a
            decorator: ``@functools.partial(scorefn.program, has_aux=True)``.

    Returns:
        A function of the arguments of body that returns a function of one key. With `has_aux` the
        latter returns a pair of the estimate and aux. Aux has one additional leading axis for each
        choice with several draws, [n_1, n_2, ...] in order. The lengths are the numbers of samples,
        or of the values that an estimator evaluates in parallel: the support of `Enumerate`, the
        pairs of `DisARM`. As in `expectation`, aux are data: differentiating them along the
        parameters of a choice raises ``TypeError``.

    Raises:
        TypeError: body yields nothing, or objects other than choices and costs; costs are not real
            numbers; body returns no pair with `has_aux`; an estimator raises.
        ValueError: a cost depends on a draw that its depends_on omits.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> @sf.program
        ... def model(mean):
        ...     z = yield sf.sample(distrax.Normal(mean, 1.0), sf.Pathwise(), num_samples=4)
        ...     b = yield sf.sample(sf.Bernoulli(z), sf.DisARM(), num_samples=2)
        ...     return (b - z) ** 2
        >>> loss = lambda mean, key: model(mean)(key)
        >>> gradient = jax.jit(jax.grad(loss))(0.5, jax.random.key(0))

    References:
        Schulman et al., Gradient estimation using stochastic computation graphs (2015);
        Lew et al., ADEV: sound automatic differentiation of expected values of probabilistic
        programs (2023).
    """
    if not inspect.isgeneratorfunction(body):
        raise TypeError(
            f"A program must be a generator function that yields its choices, as in x = yield "
            f"scorefn.sample(distribution, estimator), got {body!r}. For a single choice use "
            f"scorefn.expectation."
        )

    @functools.wraps(body)
    def bind(*args: Any, **kwargs: Any) -> Run:
        return Run(functools.partial(body, *args, **kwargs), has_aux)

    return bind


@contextmanager
def _deep() -> Iterator[None]:
    """A context in which Python may nest as deeply as a program of some hundred choices."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _FRAMES))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _rest(
    past: Past, generator: Generator[Any, Any, PyTree], value: Any, key: Any
) -> tuple[Costs, PyTree]:
    """Estimates of the costs from here to the end, keyed by earlier choices, and aux."""
    costs: Costs = {}
    while True:
        ended, request = next_request(generator.send, value)
        value = None
        if ended:
            returned = request if past.has_aux else (request, None)
            cost, aux = check_pair("A program with has_aux=True", "(cost, aux)", returned)
            if cost is not None:
                _add(costs, past.mask(None), _checked(cost))
            return costs, aux
        if isinstance(request, Cost):
            _add(costs, past.mask(request.depends_on), _checked(request.value))
            continue
        if isinstance(request, Choice):
            later, aux = _estimated(past, generator, request, key)
        elif isinstance(request, Rollout):
            later, aux = _rolled_out(past, generator, request, key)
        else:
            raise TypeError(
                f"A program must yield scorefn.sample(...), cost(...) or rollout(...), got "
                f"{request!r}. Call a helper that yields choices by yield from."
            )
        for mask, cost in later.items():
            _add(costs, mask, cost)
        return costs, aux


def _estimated(
    past: Past, generator: Generator[Any, Any, PyTree], choice: Choice, key: jax.Array
) -> tuple[Costs, PyTree]:
    """The estimate of a choice and the rest of the program, by its estimator."""
    bit = 1 << len(past.draws)
    draw_key, rest_key = jax.random.split(key)
    branches = Branches(choice.chunk_size, rest_key)
    waiting = [generator]

    # It is traced once for any number of calls, and the first trace uses the generator that waits
    # here: a program of N choices takes N steps to trace, not N^2 or 2^N. Outside of jit nothing is
    # compiled: a function made by this call would be compiled anew at the next one.
    inlined = past.eager or len(past.draws) % _NESTED

    @functools.partial(jax.jit, inline=_INLINE if inlined else False)
    def rest(x: Any, key: jax.Array) -> tuple[list[PyTree], Beside]:
        x = x if past.eager else kept(x)
        here = past.after(x, choice.depends_on)
        costs, aux = _rest(here, waiting.pop() if waiting else here.again(), x, key)
        others = {mask: costs[mask] for mask in costs if not mask & bit}
        scored = {mask: costs[mask] for mask in costs if mask & bit}
        ranks = tuple(map(jnp.ndim, jax.tree.leaves(others)))
        return list(scored.values()), Beside(others, aux, tuple(scored), ranks)

    def f(x: Any) -> tuple[PyTree, Beside]:
        # Repeated evaluations of one branch use equal noise, so they differ by the draw only.
        key = branches.key
        costs, beside = rest(x, key)
        if not costs:
            return jnp.zeros(()), beside
        return costs[0] if len(costs) == 1 else Parts(costs), beside

    keys = dealt(draw_key, choice.num_samples)
    estimator = with_baseline_of_total(choice.estimator)
    distribution, sample = choice.distribution, choice.distribution.sample
    if not (past.eager or is_given(distribution)):
        distribution = replace(distribution, sample=lambda *args: kept(sample(*args)))
    terms, beside = estimator(f, distribution, keys, has_aux=True, vmap=branches.vmap)
    mean = jax.tree.map(_mean, terms)
    parts = mean.costs if isinstance(mean, Parts) else [mean]
    costs: Costs = {}
    for mask, cost in zip(beside.scored, parts, strict=False):
        _add(costs, mask & ~bit, cost)
    # The mean over all leading axes of aux, because the mean of these costs does not depend on the
    # draw.
    leaves, structure = jax.tree.flatten(beside.costs)
    others = jax.tree.unflatten(structure, map(_mean_down_to, leaves, beside.ranks))
    for mask, cost in others.items():
        _add(costs, mask, cost)
    aux = jax.tree.map(_without_axis_of_one, beside.aux)
    return costs, without_gradient(aux, AUX, *choice.distribution.floats())


def _rolled_out(
    past: Past, generator: Generator[Any, Any, PyTree], rollout: Rollout, key: jax.Array
) -> tuple[Costs, PyTree]:
    """The estimate of a rollout and the rest of the program."""
    run_key, rest_key = jax.random.split(key)
    carry, steps, log_prob = rollout.run(run_key)
    later, aux = _rest(past.after_rollout(carry), generator, carry, rest_key)
    costs = {
        mask: jax.tree.map(lambda cost: attach_score(cost, log_prob), cost)
        for mask, cost in later.items()
    }
    total = jax.tree.map(lambda cost: jnp.sum(cost, axis=0), steps)
    _add(costs, past.mask(None), total)
    return costs, without_gradient(aux, AUX, log_prob)


def _add(costs: Costs, mask: int, cost: PyTree) -> None:
    costs[mask] = add_costs(costs[mask], cost) if mask in costs else cost


def _checked(cost: PyTree) -> PyTree:
    for leaf in jax.tree.leaves(cost):
        if not is_number(leaf):
            raise TypeError(
                f"The costs of a program must be real numbers or pytrees of them, got "
                f"{type(leaf).__name__}: {leaf!r}."
            )
    return jax.tree.map(jnp.asarray, cost)


def _without_axis_of_one(aux: jax.Array) -> jax.Array:
    return jnp.reshape(aux, aux.shape[1:]) if aux.shape[0] == 1 else aux


def _mean(terms: jax.Array) -> jax.Array:
    # XLA compiles a sum over one term as a loop, one for each choice, which takes compile time.
    return jnp.reshape(terms, terms.shape[1:]) if len(terms) == 1 else jnp.mean(terms, axis=0)


def _mean_down_to(cost: jax.Array, rank: int) -> jax.Array:
    return jnp.mean(as_float(cost), axis=tuple(range(cost.ndim - rank)))
