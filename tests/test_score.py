"""attach_score and leave_one_out: values, derivatives to third order, shapes, dtypes."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.jet import jet
from jax.sharding import AxisType, Mesh, PartitionSpec
from support.exact import FAST, assert_close, derivatives

import scorefn as sf

Scalar = Callable[[jax.Array], jax.Array]

# ------------------------------------------------------------------------------------ attach_score

INF, NAN = np.inf, np.nan


def same_bits(a: Any, b: Any) -> bool:
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("jit", [jax.jit, lambda fn: fn], ids=["jit", "eager"])
@pytest.mark.parametrize(
    ("cost", "log_prob", "baseline"),
    [
        (1.0, -1.0, 1e8),
        (1e8, -1.0, 1.0),
        (1e-30, -0.5, 3.0),
        (3e38, -0.5, -3e38),
        (INF, -1.0, 0.0),
        (-INF, -1.0, 2.0),
        (INF, -1.0, INF),
        (2.0, -1.0, INF),
        (2.0, -1.0, NAN),
        (NAN, -1.0, 0.0),
        (2.0, -INF, 0.5),
        (2.0, INF, 0.5),
        (INF, -INF, 0.5),
        (2.0, -1e30, 0.5),
    ],
)
def test_the_value_is_the_cost_bit_for_bit(
    cost: float, log_prob: float, baseline: float, jit: Any
) -> None:
    value = jit(sf.attach_score)(*map(jnp.float32, (cost, log_prob, baseline)))
    assert same_bits(value, jnp.float32(cost))


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_one_number_is_computed_as_a_scalar_whatever_its_axes(shape: tuple[int, ...]) -> None:
    jaxpr = jax.make_jaxpr(sf.attach_score)(jnp.ones(shape), jnp.zeros(shape[:1])).jaxpr
    computed = [eqn for eqn in jaxpr.eqns if eqn.primitive.name != "reshape"]
    assert {v.aval.shape for eqn in computed for v in eqn.outvars} == {()}
    assert jaxpr.outvars[0].aval.shape == shape


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_random_values_are_kept_bit_for_bit(dtype: str) -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(new_val=True):
        size = np.sign(rng.normal(size=(3, 300))) * 10.0 ** rng.uniform(-4, 4, (3, 300))
        cost, log_prob, baseline = jnp.asarray(size, dtype)
        assert same_bits(jax.jit(sf.attach_score)(cost, log_prob, baseline), cost)


def test_a_log_prob_of_nan_is_not_hidden() -> None:
    value, gradient = jax.value_and_grad(sf.attach_score, argnums=1)(2.0, jnp.nan)
    assert jnp.isnan(value)
    assert jnp.isnan(gradient)


def slope(t: jax.Array) -> jax.Array:
    return t**3 + 2 * t


def log_prob_of(t: jax.Array) -> jax.Array:
    return -(t**2) - t


def scored(t: jax.Array) -> jax.Array:
    return sf.attach_score(slope(t), log_prob_of(t), jnp.cos(t))


def by_hand(t: float) -> list[float]:
    """Value and three derivatives: c + (exp(l - l0) - 1) (c - b0), differentiated on paper."""
    c, c1, c2, c3 = t**3 + 2 * t, 3 * t**2 + 2, 6 * t, 6.0
    l1, l2, l3 = -2 * t - 1, -2.0, 0.0
    w = c - np.cos(t)
    return [
        c,
        c1 + w * l1,
        c2 + 2 * c1 * l1 + w * (l2 + l1**2),
        c3 + 3 * c2 * l1 + 3 * c1 * (l2 + l1**2) + w * (l3 + 3 * l1 * l2 + l1**3),
    ]


def in_scan(fn: Scalar) -> Scalar:
    def total(t: jax.Array) -> jax.Array:
        def body(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
            return carry + fn(t + x), None

        return jax.lax.scan(body, jnp.zeros_like(t), jnp.zeros(2, t.dtype))[0] / 2

    return total


def in_fori_loop(fn: Scalar) -> Scalar:
    def mean(t: jax.Array) -> jax.Array:
        zero = jnp.zeros_like(t)
        return jax.lax.fori_loop(0, 2, lambda i, total: total + fn(t + 0 * i), zero) / 2

    return mean


CONTEXTS: dict[str, Callable[[Scalar], Scalar]] = {
    "plain": lambda fn: fn,
    "jit": jax.jit,
    "vmap": lambda fn: lambda t: jnp.mean(jax.vmap(fn)(jnp.stack([t, t]))),
    "scan": in_scan,
    "fori_loop": in_fori_loop,
    "cond": lambda fn: lambda t: jax.lax.cond(t > 0, fn, lambda t: 0 * t, t),
    "checkpoint": jax.checkpoint,
    "map": lambda fn: lambda t: jnp.mean(jax.lax.map(fn, jnp.stack([t, t]))),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("modes", ["rrr", "fff", "rff", "ffr"])
@pytest.mark.parametrize("context", CONTEXTS)
def test_derivatives_to_third_order_are_those_on_paper(context: str, modes: str) -> None:
    functions = [CONTEXTS[context](scored)]
    for mode in modes:
        functions.append({"f": jax.jacfwd, "r": jax.jacrev}[mode](functions[-1]))
    t = jnp.asarray(0.7)
    run = jax.jit(lambda t: jnp.stack([fn(t) for fn in functions]), compiler_options=FAST)
    values = run(t)
    np.testing.assert_allclose(values, by_hand(0.7), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_while_loop_carries_the_forward_derivative() -> None:
    def loop(t: jax.Array) -> jax.Array:
        state = (0, jnp.zeros_like(t))
        return jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, scored(t)), state)[1]

    value, tangent = jax.jvp(loop, (jnp.asarray(0.7),), (jnp.asarray(1.0),))
    np.testing.assert_allclose([value, tangent], by_hand(0.7)[:2], rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("baseline", [0.0, 1.3])
def test_the_third_derivative_is_unbiased(baseline: float) -> None:
    logits, table = jnp.array([0.3, -0.5, 0.9]), jnp.array([5.0, 7.5, 2.0])

    def cost(logits: jax.Array, x: jax.Array) -> jax.Array:
        return table[x] + 0.2 * logits[0] ** 3 * x

    def estimate(logits: jax.Array, x: jax.Array) -> jax.Array:
        return sf.attach_score(cost(logits, x), jax.nn.log_softmax(logits)[x], baseline)

    def exact(logits: jax.Array) -> jax.Array:
        costs = jax.vmap(cost, (None, 0))(logits, jnp.arange(3))
        return jax.nn.softmax(logits) @ costs

    @partial(jax.jit, compiler_options=FAST)
    def both() -> Any:
        each = jax.vmap(lambda x: derivatives(lambda p: estimate(p, x), logits, 3))(jnp.arange(3))
        mean = [jnp.tensordot(jax.nn.softmax(logits), leaf, 1) for leaf in each]
        return mean, derivatives(exact, logits, 3)

    assert_close(*both(), atol=1e-12)


def test_no_derivative_passes_through_the_baseline() -> None:
    def value(b: jax.Array, t: jax.Array) -> jax.Array:
        return sf.attach_score(slope(t), log_prob_of(t), b)

    by_baseline = jax.grad(value)
    assert by_baseline(0.3, 0.7) == 0
    assert jax.grad(by_baseline)(0.3, 0.7) == 0
    # The mixed derivative is that of the estimate and must be 0 too, in either order.
    assert jax.grad(by_baseline, 1)(0.3, 0.7) == 0
    assert jax.grad(jax.grad(value, 1))(0.3, 0.7) == 0


@pytest.mark.parametrize("impossible", [-INF, INF])
def test_an_impossible_draw_adds_no_score_and_spoils_no_other(impossible: float) -> None:
    def mean(theta: jax.Array) -> jax.Array:
        log_probs = jnp.array([1.0, 0.0, 2.0]) * theta + jnp.array([0.0, impossible, 0.0])
        return jnp.mean(sf.attach_score(jnp.array([3.0, 5.0, 7.0]) * theta, log_probs, 1.0))

    assert mean(1.0) == 5
    # The costs have slope 15 / 3; the scores of the two possible draws are 1 and 2.
    assert jax.grad(mean)(1.0) == pytest.approx(5 + (2 * 1 + 6 * 2) / 3, rel=1e-6)
    assert jax.jvp(mean, (1.0,), (1.0,))[1] == pytest.approx(5 + 14 / 3, rel=1e-6)
    assert jnp.isfinite(jax.grad(jax.grad(mean))(1.0))


def test_a_category_of_probability_0_leaves_the_gradient_finite() -> None:
    logits = jnp.array([0.5, -jnp.inf, 0.2])

    def mean(logits: jax.Array) -> jax.Array:
        log_probs = jax.nn.log_softmax(logits)
        return jnp.mean(sf.attach_score(jnp.array([3.0, 5.0, 7.0]), log_probs))

    assert jnp.all(jnp.isfinite(jax.grad(mean)(logits)))


@pytest.mark.parametrize(
    ("cost", "baseline"), [(INF, 0.0), (-INF, 0.0), (NAN, 0.0), (2.0, INF), (2.0, NAN)]
)
@pytest.mark.parametrize("derivative", [jax.grad, jax.jacfwd])
def test_what_is_not_finite_shows_in_the_derivative(
    derivative: Any, cost: float, baseline: float
) -> None:
    score = derivative(lambda log_prob: sf.attach_score(cost, log_prob, baseline))(-1.0)
    assert not jnp.isfinite(score)


def test_one_log_prob_serves_every_cost_behind_it() -> None:
    costs = jnp.arange(24.0).reshape(2, 3, 4)
    log_probs, baselines = jnp.array([-1.0, -2.0]), jnp.array([0.5, 1.5])
    scores = jax.jacrev(lambda lp: sf.attach_score(costs, lp, baselines))(log_probs)
    desired = np.zeros((2, 3, 4, 2))
    for i in range(2):
        desired[i, :, :, i] = costs[i] - baselines[i]
    np.testing.assert_allclose(scores, desired, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "cost", "log_prob", "baseline"),
    [
        ("log_prob", (4,), (4, 1), ()),
        ("log_prob", (4, 1), (1,), ()),
        ("log_prob", (4,), (1,), ()),
        ("log_prob", (4,), (3,), ()),
        ("log_prob", (), (4,), ()),
        ("log_prob", (4, 3), (3,), ()),
        ("baseline", (4,), (4,), (4, 1)),
        ("baseline", (4,), (), (3,)),
        ("baseline", (), (), (1,)),
    ],
)
def test_shapes_that_would_broadcast_raise(
    name: str, cost: Any, log_prob: Any, baseline: Any
) -> None:
    arguments = [jnp.ones(shape) for shape in (cost, log_prob, baseline)]
    wrong = log_prob if name == "log_prob" else baseline
    with pytest.raises(ValueError, match=f"^{name} has shape") as error:
        sf.attach_score(*arguments)
    assert str(wrong) in str(error.value)
    assert str(cost) in str(error.value)
    with pytest.raises(ValueError, match=f"^{name} has shape"):
        jax.jit(sf.attach_score)(*arguments)


DTYPES = ["bfloat16", "float16", "float32", "float64"]


DTYPE_PAIRS = [
    (cost, log_prob, x64)
    for cost, log_prob in itertools.product([*DTYPES, "int32", "bool"], DTYPES)
    for x64 in (False, True)
    if x64 or "float64" not in (cost, log_prob)
]


@pytest.mark.parametrize(("cost", "log_prob", "x64"), DTYPE_PAIRS)
def test_dtypes_are_kept_under_strict_promotion(cost: str, log_prob: str, *, x64: bool) -> None:
    with (
        jax.enable_x64(new_val=x64),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        costs = jnp.asarray([[1.0, 0.0], [3.0, 1.0]]).astype(cost)
        log_probs = jnp.asarray([-1.0, -2.0], log_prob)
        value, pullback = jax.vjp(lambda lp: sf.attach_score(costs, lp), log_probs)
        desired = cost if "float" in cost else ("float64" if x64 else "float32")
        assert value.dtype == desired
        (gradient,) = pullback(jnp.ones_like(value))
        assert gradient.dtype == log_prob
        np.testing.assert_array_equal(
            np.asarray(gradient, np.float64), np.asarray(costs, np.float64).sum(1)
        )


@pytest.mark.parametrize("x64", [False, True], ids=["x32", "x64"])
def test_python_numbers_serve_as_arguments(*, x64: bool) -> None:
    with jax.enable_x64(new_val=x64), jax.numpy_dtype_promotion("strict"):
        value = sf.attach_score(2, -1.0, 1)
        assert value == 2
        assert value.dtype == (jnp.float64 if x64 else jnp.float32)
        assert sf.attach_score(jnp.float32(2), -1.0, 0.5).dtype == jnp.float32


# ----------------------------------------------------------------------------------- leave_one_out


def others_by_hand(x: np.ndarray, axis: int, weight: np.ndarray | None = None) -> np.ndarray:
    rows = np.moveaxis(x, axis, 0)
    weights = np.ones_like(rows) if weight is None else np.moveaxis(weight, axis, 0)
    out = [
        np.average(np.delete(rows, i, 0), axis=0, weights=np.delete(weights, i, 0))
        for i in range(len(rows))
    ]
    return np.moveaxis(np.stack(out), 0, axis)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((2,), 0), ((5,), -1), ((4, 3), 0), ((4, 3), 1), ((2, 3, 4), 1), ((2, 3, 4), -1)],
)
@pytest.mark.parametrize("weighted", ["plain", "full", "leading"])
def test_leave_one_out_is_the_mean_of_the_others(
    shape: tuple[int, ...], axis: int, weighted: str
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    leading = shape[: axis % len(shape) + 1]
    weight = {
        "plain": None,
        "full": rng.uniform(0.1, 3, shape),
        "leading": rng.uniform(0.1, 3, leading),
    }[weighted]
    full = weight
    if weighted == "leading":
        full = np.broadcast_to(weight.reshape(leading + (1,) * (len(shape) - len(leading))), shape)
    actual = jax.jit(lambda x, w: sf.leave_one_out(x, axis, weight=w))(x, weight)
    assert_close(actual, jnp.asarray(others_by_hand(x, axis, full)), atol=1e-14)


@pytest.mark.parametrize("weight", [None, np.linspace(0.5, 2.0, 64, dtype=np.float32)])
def test_leave_one_out_keeps_its_accuracy_at_a_large_offset(weight: np.ndarray | None) -> None:
    x = (1e6 + np.random.default_rng(0).normal(size=64)).astype(np.float32)
    exact = others_by_hand(x.astype(np.float64), 0, weight)
    # One unit in the last place of 1e6 is 0.0625; the difference to the own value counts.
    np.testing.assert_allclose(sf.leave_one_out(x, weight=weight), exact, rtol=0, atol=0.13)


def test_where_all_other_weights_are_0_the_baseline_is_0() -> None:
    x = jnp.array([1.0, 2.0, 6.0])
    value = sf.leave_one_out(x, weight=jnp.array([0.0, 5.0, 0.0]))
    np.testing.assert_allclose(value, [2.0, 0.0, 2.0], rtol=1e-6, atol=0)
    gradient = jax.jacrev(lambda w: sf.leave_one_out(x, weight=w))(jnp.zeros(3))
    assert jnp.all(jnp.isfinite(gradient))


@pytest.mark.parametrize("weight", [None, jnp.array([0.5, 3.0, 1e-3, 7.0])])
def test_no_element_has_a_part_in_its_own_baseline(weight: Any) -> None:
    x = jnp.array([1.0, -2.0, 5.0, 0.3])
    jacobian = jax.jacrev(lambda x: sf.leave_one_out(x, weight=weight))(x)
    np.testing.assert_allclose(jnp.diag(jacobian), 0, rtol=0, atol=2e-7)
    np.testing.assert_allclose(jacobian.sum(1), 1, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("shape", "axis"), [((), 0), ((1,), 0), ((1, 3), 0), ((3, 1), 1), ((0,), 0)]
)
def test_leave_one_out_needs_two(shape: tuple[int, ...], axis: int) -> None:
    with pytest.raises(ValueError, match="leave_one_out needs at least 2 samples") as error:
        sf.leave_one_out(jnp.ones(shape), axis)
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("weight", [(3,), (1,), (4, 1), (3, 4)])
def test_leave_one_out_names_a_weight_of_another_shape(weight: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="^weight has shape") as error:
        sf.leave_one_out(jnp.ones((4, 3)), weight=jnp.ones(weight))
    assert str(weight) in str(error.value)


@pytest.mark.parametrize("x64", [False, True], ids=["x32", "x64"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_leave_one_out_keeps_its_dtype_under_strict_promotion(dtype: str, *, x64: bool) -> None:
    with (
        jax.enable_x64(new_val=x64),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        x = jnp.asarray([[1.0, 2.0, 6.0], [0.0, 4.0, 2.0]], dtype)
        for weight in (None, jnp.ones((2, 3), jnp.float32)):
            value = sf.leave_one_out(x, 1, weight=weight)
            assert value.dtype == dtype
            desired = [[4.0, 3.5, 1.5], [3.0, 1.0, 2.0]]
            np.testing.assert_allclose(np.asarray(value, float), desired, rtol=0, atol=0.02)


@pytest.mark.parametrize("axis", [5, 2, -3])
def test_leave_one_out_along_an_axis_that_is_not_there(axis):
    with pytest.raises(ValueError, match=r"axis must be an axis of x, of shape \(2, 3\), got"):
        sf.leave_one_out(jnp.ones((2, 3)), axis=axis)


@pytest.mark.usefixtures("x64")
def test_jet_gives_the_higher_derivatives_of_attach_score() -> None:
    """Along a curve on which cost, log-probability and baseline all move."""

    def curve(t: jax.Array) -> jax.Array:
        cost, log_prob = jnp.sin(1 + t), t * jnp.cos(0.3 + t)
        return sf.attach_score(cost, log_prob, 0.3 * jnp.exp(t))

    derivatives = [curve]
    for _ in range(3):
        derivatives.append(jax.grad(derivatives[-1]))
    value, terms = jet(curve, (0.4,), ((1.0, 0.0, 0.0),))
    due = [fn(0.4) for fn in derivatives]
    np.testing.assert_allclose([value, *terms], due, rtol=1e-12)


def test_under_jet_an_infinite_cost_keeps_its_value_and_16_bits_their_dtype() -> None:
    along = ([jnp.array(1.0)],)
    value, _ = jet(lambda log_prob: sf.attach_score(jnp.inf, log_prob), (jnp.array(-1.0),), along)
    assert value == jnp.inf
    with jax.numpy_dtype_promotion("strict"):
        cost = jnp.array(2.0, jnp.float16)
        value, (slope,) = jet(lambda p: sf.attach_score(cost, p), (jnp.array(-1.0),), along)
    assert (value, slope) == (2, 2)
    assert value.dtype == slope.dtype == jnp.float16


SPREAD = {
    "cost": (PartitionSpec("x"), PartitionSpec()),
    "log_prob": (PartitionSpec(), PartitionSpec("x")),
    "both": (PartitionSpec("x"), PartitionSpec("x")),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("derivative", [jax.grad, jax.jacfwd, jax.hessian])
@pytest.mark.parametrize("name", SPREAD)
def test_arrays_may_lie_on_devices_in_different_ways(name: str, derivative: Any) -> None:
    """A cost that is equal on all devices, with log-probabilities that are not, and the reverse."""
    costs, log_probs = jnp.linspace(-1.0, 3.0, 2), jnp.linspace(-2.0, -1.0, 2)

    def total(t: jax.Array, costs: jax.Array, log_probs: jax.Array) -> jax.Array:
        n = min(len(costs), len(log_probs))
        return sf.attach_score(t * costs[:n], t**2 * log_probs[:n], 0.3 * jnp.ones(n)).sum()

    def of_constant(t: jax.Array, costs: jax.Array, log_probs: jax.Array) -> jax.Array:
        each = jax.vmap(lambda log_prob: sf.attach_score(2 * t, t**2 * log_prob, 0.3))
        return each(log_probs).sum() + costs.sum()

    devices = np.array(jax.devices()[:2])
    explicit = Mesh(devices, ("x",), axis_types=(AxisType.Explicit,))
    t = jnp.array(0.7)
    for fn in (total, of_constant):
        due = derivative(fn)(t, costs, log_probs)
        with jax.set_mesh(explicit):
            pairs = zip((costs, log_probs), SPREAD[name], strict=True)
            arrays = [jax.device_put(x, spec) for x, spec in pairs]
            assert_close(jax.jit(derivative(fn))(t, *arrays), due, atol=1e-12)
    manual = Mesh(devices, ("x",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(
        lambda *arrays: jax.lax.psum(total(*arrays), "x"),
        mesh=manual,
        in_specs=(PartitionSpec(), *SPREAD[name]),
        out_specs=PartitionSpec(),
    )
    # What all devices have enters with its first element on each.
    pairs = zip((costs, log_probs), SPREAD[name], strict=True)
    due = derivative(total)(t, *(x if spec else jnp.repeat(x[:1], 2) for x, spec in pairs))
    assert_close(jax.jit(derivative(mapped))(t, costs, log_probs), due, atol=1e-12)
