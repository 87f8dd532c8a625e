"""Every public estimator and baseline fulfils the declared contract."""

import dataclasses
import inspect
import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import FAST, Problem, assert_close
from support.registry import ENTRIES, Entry, each, problem

import scorefn as sf

KEY = jax.random.key(0)
COSTS = jnp.array([1.0, 2.0, 6.0])


def public(base: type) -> list[type]:
    """The public classes of one kind, in the order of their names."""
    named = [getattr(sf, name) for name in sorted(dir(sf))]
    return [c for c in named if inspect.isclass(c) and issubclass(c, base) and c is not base]


def total(p: Problem, num_samples: int) -> Callable[..., jax.Array]:
    """``total(estimator, params)``: a scalar estimate."""

    def loss(estimator: sf.Estimator, params: Any) -> jax.Array:
        value = p.estimate(estimator, num_samples=num_samples)(params, KEY)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(value))

    return loss


def is_plain(value: Any) -> bool:
    """Whether it consists of Python values alone, which compare and hash."""
    return not any(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(value))


BASELINES = {
    "LeaveOneOut": sf.LeaveOneOut,
    "OptimalBaseline": sf.OptimalBaseline,
    "ConstantBaseline": lambda: sf.ConstantBaseline(2.0),
    "MovingAverage": lambda: sf.MovingAverage(0.9).update(COSTS),
    "ShrunkLeaveOneOut": lambda: sf.ShrunkLeaveOneOut(0.9).update(COSTS),
    "LearnedBaseline": lambda: sf.LearnedBaseline(jnp.multiply, jnp.array(2.0), jnp.array(3.0)),
}


def values() -> list[Any]:
    """Every public estimator and baseline: how to build one."""
    estimators = [
        pytest.param(lambda e=entry: e.build(problem(e.kinds[0])), id=entry.name)
        for entry in ENTRIES
    ]
    return [*estimators, *(pytest.param(build, id=name) for name, build in BASELINES.items())]


def test_the_registry_holds_every_public_estimator_and_baseline() -> None:
    built = {type(entry.build(problem(entry.kinds[0]))) for entry in ENTRIES}
    assert built == set(public(sf.Estimator))
    assert {type(build()) for build in BASELINES.values()} == set(public(sf.Baseline))


def test_structures_differ_where_classes_do() -> None:
    # jit compares structures to find the program of a call: equal ones would share it.
    logits = jnp.zeros(2)
    built = [param.values[0]() for param in values()]
    built += [kind(logits) for kind in (sf.Bernoulli, sf.Categorical, sf.OneHotCategorical)]
    built += [sf.Deterministic(logits), sf.NormalMixture(logits, logits, logits)]
    for one, other in itertools.combinations(built, 2):
        if type(one) is not type(other):
            assert jax.tree.structure(one) != jax.tree.structure(other), (one, other)


@pytest.mark.parametrize("build", values())
def test_it_is_frozen(build: Any) -> None:
    value = build()
    assert dataclasses.is_dataclass(value)
    for field in dataclasses.fields(value):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.anything = 1


@pytest.mark.parametrize("build", values())
def test_it_is_a_pytree_and_comes_back_whole(build: Any) -> None:
    value = build()
    leaves, structure = jax.tree.flatten(value)
    back = jax.tree.unflatten(structure, leaves)
    assert type(back) is type(value)
    assert jax.tree.structure(build()) == structure
    hash(structure)
    for field in dataclasses.fields(value):
        before, after = getattr(value, field.name), getattr(back, field.name)
        same = jax.tree.map(lambda a, b: a is b or bool(np.all(a == b)), before, after)
        assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("build", values())
def test_equal_values_compare_and_hash_where_they_hold_no_arrays(build: Any) -> None:
    one, two = build(), build()
    if is_plain(one):
        assert one == two
        assert hash(one) == hash(two)
    else:
        assert jax.tree.structure(one) == jax.tree.structure(two)


@pytest.mark.parametrize("build", values())
def test_it_prints_its_name_and_no_address(build: Any) -> None:
    value = build()
    assert repr(value).startswith(f"{type(value).__name__}(")
    assert " at 0x" not in repr(value)


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in ENTRIES])
def test_the_facts_about_an_estimator_are_declared(entry: Entry) -> None:
    # Asked of the instance: one that wraps another has the facts of that.
    facts = entry.build(problem(entry.kinds[0]))
    text = inspect.getdoc(type(facts))
    assert isinstance(facts.unbiased, bool)
    assert facts.order in (1, math.inf)
    assert isinstance(facts.evaluations, str)
    assert facts.evaluations
    assert facts.needs
    assert facts.when
    assert isinstance(facts.differentiates_f, bool)
    assert text.splitlines()[0].endswith(".")
    for part in (".. code-block:: text", "Example:", "    >>> "):
        assert part in text
    # What is biased says so where it is described, and what is not says what it is.
    stated = text.split("Attributes:")[0].lower()
    words = set(re.findall(r"[a-z]+", stated))
    assert words & ({"unbiased", "exact"} if facts.unbiased else {"biased"})
    assert facts.order > 1 or not facts.unbiased or "first order" in stated
    for field in dataclasses.fields(facts):
        assert f"{field.name}:" in text


@pytest.mark.parametrize("cls", public(sf.Baseline))
def test_the_facts_about_a_baseline_are_declared(cls: Any) -> None:
    text = inspect.getdoc(cls)
    assert cls.min_samples in (1, 2)
    assert "Unbiased" in text
    assert "    >>> " in text
    for field in dataclasses.fields(cls):
        assert f"{field.name}:" in text


# Where the number of evaluations depends on the distribution: two bits, or one factor of three
# categories, the most likely one of which is summed and not sampled.
EVALUATIONS = {
    "LocalExpectation": lambda n: 3 * n,
    "MeasureValued": lambda n: 3 * n,
    "GO": lambda n: 3 * n,
    "REBAR": lambda n: 3 * n,
    "SumAndSample": lambda n: n + 1,
}


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize(("entry", "kind"), each())
def test_f_is_evaluated_as_often_as_stated(entry: Entry, kind: str, more: int) -> None:
    n = max(entry.samples[0], 2) + more
    p = problem(kind).in_dtype(jnp.float32)
    calls: list[int] = []

    def f(x: Any) -> Any:
        # Handed the draw, the callback runs once for each of them, also under vmap.
        jax.debug.callback(lambda _: calls.append(1), jax.tree.leaves(x)[0])
        return p.f(p.params)(x)

    def value(key: jax.Array) -> Any:
        estimator = entry.build(p)
        return sf.expectation(f, p.distribution(p.params), key, estimator, num_samples=n)

    jax.block_until_ready(jax.jit(value, compiler_options=FAST)(KEY))
    jax.effects_barrier()
    expected = EVALUATIONS.get(entry.name, lambda n: entry.evaluations(n, len(p.noise.points)))
    assert len(calls) == expected(n)
    # And so it says: a leading number counts the evaluations of one term.
    stated = type(entry.build(p)).evaluations
    if stated.isdigit():
        assert len(calls) == int(stated) * n


def numbers(value: Any) -> bool:
    """Whether it has leaves, all of them floats: hyperparameters to sweep and to learn."""
    leaves = jax.tree.leaves(value)
    return bool(leaves) and all(jnp.issubdtype(jnp.result_type(x), jnp.floating) for x in leaves)


# The noise of these is no part of the expectation whose gradient they estimate.
NOT_LEARNED = ("ES", "RankedES")
SWEPT = [e for e in ENTRIES if numbers(e.build(problem(e.kinds[0])))]


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in SWEPT])
def test_hyperparameters_are_swept_by_vmap_and_differentiated_by_grad(entry: Entry) -> None:
    p = problem(entry.kinds[0]).in_dtype(jnp.float32)
    estimator = jax.tree.map(jnp.asarray, entry.build(p))
    loss = total(p, 3)
    other = jax.tree.map(lambda leaf: leaf * 1.25, estimator)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), estimator, other)

    def swept(estimators: Any) -> Any:
        return jax.vmap(jax.grad(loss, argnums=1), (0, None))(estimators, p.params)

    def one_by_one() -> Any:
        rows = [jax.grad(loss, argnums=1)(e, p.params) for e in (estimator, other)]
        return jax.tree.map(lambda a, b: jnp.stack([a, b]), *rows)

    got, desired = jax.jit(lambda: (swept(both), one_by_one()), compiler_options=FAST)()
    assert_close(got, desired, atol=1e-3)

    grad = jax.jit(jax.grad(loss), compiler_options=FAST)
    if entry.name in NOT_LEARNED:
        with pytest.raises(TypeError, match="does not differentiate with respect to its scale"):
            grad(estimator, p.params)
        return
    gradient = grad(estimator, p.params)
    assert jax.tree.structure(gradient) == jax.tree.structure(estimator)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_carried_through_a_scan(name: str) -> None:
    baseline = jax.tree.map(jnp.asarray, BASELINES[name]())

    def step(baseline: sf.Baseline, costs: jax.Array) -> tuple[sf.Baseline, jax.Array]:
        return baseline.update(costs), baseline(costs, jnp.ones(3))

    rows = jnp.stack([COSTS, 2 * COSTS])
    last, baselines = jax.jit(lambda b: jax.lax.scan(step, b, rows))(baseline)
    assert type(last) is type(baseline)
    assert baselines.shape == rows.shape
    first = baseline(COSTS, jnp.ones(3))
    second = baseline.update(COSTS)(2 * COSTS, jnp.ones(3))
    assert_close(baselines, jnp.stack([first, second]), atol=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_serves_a_pytree_of_costs_leaf_by_leaf(name: str) -> None:
    baseline = BASELINES[name]()
    costs = {"a": COSTS, "b": jnp.stack([COSTS, 3 * COSTS], 1)}
    got = baseline(costs, jnp.array([1.0, 3.0, 1.0]))
    assert jax.tree.map(jnp.shape, got) == jax.tree.map(jnp.shape, costs)
    weights = jnp.array([1.0, 3.0, 1.0])
    assert_close(got["b"][:, 0], baseline(COSTS, weights), atol=1e-6)
