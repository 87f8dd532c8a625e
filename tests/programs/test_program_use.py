"""Programs under transformations, inside models of other libraries, and what they refuse."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import distrax
import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec
from support.exact import FAST, assert_close

import scorefn as sf

x64 = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)
CONSTANT = sf.ScoreFunction(sf.ConstantBaseline(0.7))
P = np.array([0.4, -0.3, 0.8])


def fast(fn: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(fn, compiler_options=FAST)


@sf.program
def mixed(p: Any) -> Any:
    """Discrete, continuous, discrete: three estimators right at every order."""
    a = yield sf.sample(sf.Bernoulli(p[0]), sf.ScoreFunction(), num_samples=2)
    z = yield sf.sample(distrax.Normal(p[1] + a, 1.0), sf.Pathwise())
    b = yield sf.sample(sf.Bernoulli(p[2] * z), sf.Enumerate())
    return (b - p[2] * z) ** 2 + a * p[0]


def loss(p: Any, key: jax.Array) -> jax.Array:
    return mixed(p)(key)


# ---------------------------------------------------------------------------------- transformations


def by_scan(p: Any, key: jax.Array) -> jax.Array:
    def body(total: Any, key: jax.Array) -> Any:
        return total + loss(p, key), None

    return jax.lax.scan(body, jnp.zeros((), p.dtype), jnp.stack([key, key]))[0] / 2


def by_while(p: Any, key: jax.Array) -> jax.Array:
    state = (0, jnp.zeros((), p.dtype))
    return jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, loss(p, key)), state)[1]


def by_cond(p: Any, key: jax.Array) -> jax.Array:
    return jax.lax.cond(p[0] < 9, loss, lambda p, _: p[0], p, key)


def by_vjp(p: Any, key: jax.Array) -> jax.Array:
    value, vjp = jax.vjp(lambda p: loss(p, key), p)
    return vjp(jnp.ones_like(value))[0]


def by_linearize(p: Any, key: jax.Array) -> jax.Array:
    return jax.vmap(jax.linearize(lambda p: loss(p, key), p)[1])(jnp.eye(3, dtype=p.dtype))


def by_vmap_of_vmap(p: Any, key: jax.Array) -> jax.Array:
    many, keys = jnp.stack([p, 2 * p], axis=1), jnp.stack([key, jax.random.fold_in(key, 7)])
    inner = jax.vmap(jax.grad(loss), in_axes=(None, 0))
    return jax.vmap(inner, in_axes=(1, None), out_axes=-1)(many, keys)[0, :, 0]


GRADIENTS: dict[str, Callable[[Any, jax.Array], jax.Array]] = {
    "vmap of vmap": by_vmap_of_vmap,
    "jacfwd": jax.jacfwd(loss),
    "vjp": by_vjp,
    "linearize": by_linearize,
    "checkpoint": jax.grad(jax.checkpoint(loss)),
    "scan": jax.grad(by_scan),
    "while_loop": jax.jacfwd(by_while),
    "cond": jax.grad(by_cond),
}


@x64
def test_every_transformation_gives_the_same_gradient_and_hessian() -> None:
    def hvp(f: Any, p: Any, key: jax.Array) -> jax.Array:
        return jax.vmap(lambda v: jax.jvp(lambda p: jax.grad(f)(p, key), (p,), (v,))[1])(jnp.eye(3))

    @fast
    def run(p: jax.Array, key: jax.Array) -> Any:
        gradients = {name: gradient(p, key) for name, gradient in GRADIENTS.items()}
        return jax.grad(loss)(p, key), gradients, jax.hessian(loss)(p, key), hvp(by_scan, p, key)

    plain, gradients, hessian, products = run(P, KEY)
    assert np.all(np.abs(plain) > 1e-3)
    for gradient in gradients.values():
        np.testing.assert_allclose(gradient, plain, rtol=0, atol=1e-12)
    np.testing.assert_allclose(products, hessian, rtol=0, atol=1e-12)


def test_noise_is_not_baked_in() -> None:
    # Whatever the program stands in, each key is other noise.
    def values(form: Any) -> jax.Array:
        return fast(jax.vmap(form, (None, 0)))(
            jnp.asarray(P, jnp.float32), jax.random.split(KEY, 9)
        )

    for form in (loss, by_scan, jax.checkpoint(loss)):
        assert len(np.unique(values(form))) == 9

    def steps(p: Any) -> jax.Array:
        return jax.lax.map(partial(loss, p), jax.random.split(KEY, 9))

    assert len(np.unique(fast(steps)(jnp.asarray(P, jnp.float32)))) == 9


@x64
@pytest.mark.parametrize(
    "estimator",
    [sf.DisARM(), sf.MeasureValued(), sf.LocalExpectation()],
    ids=lambda e: type(e).__name__,
)
def test_one_estimator_of_first_order_makes_a_second_derivative_raise(estimator: Any) -> None:
    @sf.program
    def model(p: Any) -> Any:
        a = yield sf.sample(sf.Bernoulli(p[0]), CONSTANT)
        b = yield sf.sample(sf.Bernoulli(p[1] + a), estimator)
        z = yield sf.sample(distrax.Normal(p[2] * b, 1.0), sf.Pathwise())
        return z**2

    jax.eval_shape(jax.grad(lambda p: model(p)(KEY)), P)
    for second in (jax.hessian, lambda f: jax.jacrev(jax.grad(f))):
        with pytest.raises(TypeError, match="is right to first order only"):
            jax.eval_shape(second(lambda p: model(p)(KEY)), P)


def test_a_custom_vjp_inside_a_program_is_followed() -> None:
    @jax.custom_vjp
    def tripled(x: jax.Array) -> jax.Array:
        return x

    tripled.defvjp(lambda x: (x, None), lambda _, g: (3 * g,))

    @sf.program
    def model(p: Any) -> Any:
        b = yield sf.sample(sf.Bernoulli(jnp.zeros(())), CONSTANT)
        z = yield sf.sample(distrax.Normal(p, 1.0), sf.Pathwise())
        return tripled(z) + b

    assert fast(jax.grad(lambda p: model(p)(KEY)))(0.3) == 3


@pytest.mark.parametrize("estimator", [CONSTANT, sf.DisARM(), sf.Enumerate()], ids=str)
def test_a_black_box_cost_needs_no_derivative(estimator: Any) -> None:
    def black_box(x: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.pure_callback(
            lambda x: np.float32(5 * np.asarray(x) ** 2), shape, x, vmap_method="sequential"
        )

    @sf.program
    def model(p: Any) -> Any:
        a = yield sf.sample(sf.Bernoulli(p), CONSTANT)
        b = yield sf.sample(sf.Bernoulli(p), estimator)
        return black_box(a + b)

    @fast
    def run(keys: jax.Array) -> Any:
        by_program = jax.vmap(jax.grad(lambda p, key: model(p)(key)), (None, 0))(0.3, keys)
        single = lambda p, key: sf.expectation(black_box, sf.Bernoulli(p), key, estimator)  # noqa: E731
        return by_program, jax.vmap(jax.grad(single), (None, 0))(0.3, keys)

    assert all(np.isfinite(g).all() and np.any(g != 0) for g in run(jax.random.split(KEY, 8)))

    def by_path(mean: jax.Array) -> jax.Array:
        return sf.expectation(black_box, distrax.Normal(mean, 1.0), KEY, sf.Pathwise())

    with pytest.raises(ValueError, match="Pure callbacks do not support JVP"):
        jax.grad(by_path)(0.3)


def test_random_keys_of_every_kind_serve() -> None:
    p = jnp.asarray(P, jnp.float32)
    raw = fast(loss)(p, jax.random.PRNGKey(0))
    assert raw == fast(loss)(p, KEY)
    assert np.isfinite(fast(loss)(p, jax.random.key(0, impl="unsafe_rbg")))
    with jax.debug_key_reuse(new_val=True):
        assert np.isfinite(fast(jax.grad(loss))(p, jax.random.key(1))).all()
        assert np.isfinite(fast(chunked)(p[0], jax.random.key(1)))


def chunked(p: Any, key: jax.Array) -> jax.Array:
    @sf.program
    def model() -> Any:
        # Not behind the others: JAX's check takes a scan over keys under vmap for a second use.
        yield sf.rollout(walk, p, length=3)
        b = yield sf.sample(sf.Bernoulli(p), sf.BitFlip(), num_samples=4, chunk_size=2)
        c = yield sf.sample(sf.Categorical(p * jnp.arange(3.0)), sf.SumAndSample(1), num_samples=2)
        z = yield sf.sample(distrax.Normal(b + c, 1.0), sf.Antithetic(sf.Pathwise()))
        return z**2

    return model()(key)


def walk(state: Any, _: Any) -> Any:
    step = yield sf.sample(distrax.Normal(state, 1.0), sf.Pathwise())
    return step, step**2


def test_precision_is_kept_under_strict_promotion() -> None:
    with jax.enable_x64(new_val=True), jax.numpy_dtype_promotion("strict"):
        with jax.numpy_rank_promotion("raise"):
            for dtype in (jnp.float32, jnp.float64):
                value, gradient = jax.eval_shape(
                    jax.value_and_grad(loss), jnp.asarray(P, dtype), KEY
                )
                assert gradient.dtype == dtype
                assert value.dtype == dtype


def test_no_tracer_leaks() -> None:
    with jax.checking_leaks():
        fast(jax.grad(lambda p: loss(p, KEY)))(jnp.asarray(P, jnp.float32))


# ------------------------------------------------------------------------------------- other models


def test_a_program_inside_a_flax_module() -> None:
    class Model(nn.Module):
        def setup(self) -> None:
            self.encode, self.decode = nn.Dense(2), nn.Dense(1)

        def __call__(self, x: jax.Array) -> jax.Array:
            logits, _ = self.encode(x), self.decode(jnp.zeros(3))

            @sf.program
            def bound() -> Any:
                b = yield sf.sample(sf.Bernoulli(logits), sf.DisARM(), num_samples=2)
                z = yield sf.sample(distrax.Normal(b.sum(), 1.0), sf.Pathwise())
                guess = self.decode(jnp.append(b, z))
                return jnp.sum((guess - x) ** 2)

            return bound()(self.make_rng("noise"))

    model, x = Model(), jnp.array([0.3])
    params = model.init({"params": KEY, "noise": KEY}, x)
    gradient = fast(jax.grad(lambda p: model.apply(p, x, rngs={"noise": KEY})))(params)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))


def test_a_program_as_a_method_of_an_nnx_module() -> None:
    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.encode = nnx.Linear(1, 2, rngs=rngs)

        @sf.program
        def bound(self, x: jax.Array) -> Any:
            b = yield sf.sample(sf.Bernoulli(self.encode(x)), CONSTANT)
            return jnp.sum(b * x) + jnp.sum(self.encode(x)) * 0.1

    model = Model(nnx.Rngs(0))
    graph, state = nnx.split(model)
    gradient = fast(jax.grad(lambda s: nnx.merge(graph, s).bound(jnp.ones(1))(KEY)))(state)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))


def test_a_program_as_a_method_of_an_equinox_module() -> None:
    class Model(eqx.Module):
        layer: eqx.nn.Linear
        scale: jax.Array

        @sf.program
        def bound(self, x: jax.Array) -> Any:
            z = yield sf.sample(distrax.Normal(jnp.zeros(2), self.scale), sf.Pathwise())
            b = yield sf.sample(sf.Bernoulli(self.layer(x) + z), sf.ScoreFunction(), num_samples=3)
            return jnp.sum((b - x[0]) ** 2 * z)

    model = Model(eqx.nn.Linear(1, 2, key=KEY), jnp.ones(2))
    gradient = eqx.filter_jit(eqx.filter_grad(lambda m: m.bound(jnp.ones(1))(KEY)))(model)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))


def test_training_with_optax_in_a_scan() -> None:
    @sf.program
    def objective(params: Any) -> Any:
        a = yield sf.sample(sf.Bernoulli(params["coin"]), sf.ScoreFunction(), num_samples=8)
        z = yield sf.sample(distrax.Normal(params["mean"], 1.0), sf.Pathwise())
        return (a + z - 2.0) ** 2

    optimiser = optax.adam(0.05)
    params = {"coin": jnp.array(0.5), "mean": jnp.array(0.0)}

    def step(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        value, gradient = jax.value_and_grad(lambda p: objective(p)(key))(params)
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    @fast
    def train(params: Any) -> Any:
        carry = (params, optimiser.init(params))
        return jax.lax.scan(step, carry, jax.random.split(KEY, 400))

    def exact(params: Any) -> float:
        p, mean = jax.nn.sigmoid(params["coin"]), params["mean"]
        return float(1 + p * (1 - p) + (p + mean - 2) ** 2)

    (trained, _), _ = train(params)
    assert exact(params) > 3
    assert exact(trained) < 1.2


def test_a_program_spread_over_devices() -> None:
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    keys = jax.random.split(KEY, 16)
    p = jnp.asarray(P, jnp.float32)

    def local(p: jax.Array, keys: jax.Array) -> jax.Array:
        return jax.lax.pmean(jnp.mean(jax.vmap(partial(loss, p))(keys)), "d")

    spec = PartitionSpec("d")

    def spread(p: jax.Array) -> jax.Array:
        return jax.shard_map(
            local, mesh=mesh, in_specs=(PartitionSpec(), spec), out_specs=PartitionSpec()
        )(p, keys)

    whole = fast(jax.value_and_grad(lambda p: jnp.mean(jax.vmap(partial(loss, p))(keys))))(p)
    assert_close(fast(jax.value_and_grad(spread))(p), whole, atol=1e-5)


# --------------------------------------------------------------------------------- what is refused


def run(body: Callable[[], Any]) -> Any:
    return jax.eval_shape(sf.program(body)(), KEY)


def in_loops(choose: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
    return {
        "scan": lambda: jax.lax.scan(lambda c, _: (choose(), c), 0.0, None, length=2),
        "while_loop": lambda: jax.lax.while_loop(lambda c: c < 2, lambda _: choose(), 0.0),
        "cond": lambda: jax.lax.cond(jnp.array(1) > 0, choose, lambda: 0.0),
        "vmap": lambda: jax.vmap(lambda _: choose())(jnp.zeros(2)),
        "jit": lambda: jax.jit(choose)(),
        "checkpoint": lambda: jax.checkpoint(choose)(),
    }


@pytest.mark.parametrize("name", in_loops(lambda: None))
@pytest.mark.parametrize("position", [1, 2])
def test_a_choice_inside_a_traced_loop_points_to_the_rollout(name: str, position: int) -> None:
    def choose() -> Any:
        return sf.sample(sf.Bernoulli(0.3), CONSTANT)

    def body() -> Any:
        for _ in range(position - 1):
            yield sf.sample(sf.Bernoulli(0.3), CONSTANT)
        in_loops(choose)[name]()
        yield sf.sample(sf.Bernoulli(0.3), CONSTANT)
        return 0.0

    with pytest.raises(TypeError, match="Write a loop of choices as yield"):
        run(body)


def test_a_choice_that_is_not_yielded_is_no_draw() -> None:
    def body() -> Any:
        yield sf.cost(0.0)
        return jnp.sin(sf.sample(sf.Bernoulli(0.3), CONSTANT))

    with pytest.raises(TypeError, match="Choice"):
        run(body)


def bernoulli_by_path(p: Any) -> Any:
    z = yield sf.sample(distrax.Normal(0.0, 1.0), sf.Pathwise())
    b = yield sf.sample(sf.Bernoulli(p + z), sf.Pathwise())
    return b * z


def test_a_lost_derivative_raises_in_the_middle_of_a_program() -> None:
    model = sf.program(bernoulli_by_path)
    jax.eval_shape(lambda p: model(p)(KEY), 0.3)
    with pytest.raises(TypeError, match="Pathwise cannot differentiate with respect to logits"):
        jax.eval_shape(jax.grad(lambda p: model(p)(KEY)), 0.3)


def test_programs_that_are_none_are_refused() -> None:
    def nothing() -> Any:
        yield sf.sample(sf.Bernoulli(0.3), CONSTANT)

    def text() -> Any:
        yield sf.sample(sf.Bernoulli(0.3), CONSTANT)
        return "dear"

    def no_choice() -> Any:
        yield 3.0

    def shapes() -> Any:
        yield sf.cost(jnp.zeros(2))
        return 0.0

    def structures() -> Any:
        yield sf.cost({"a": 0.0})
        return 0.0

    def one_sample() -> Any:
        yield sf.sample(sf.Bernoulli(0.3), sf.ScoreFunction())
        return 0.0

    def integers() -> Any:
        z = yield sf.sample(distrax.Normal(0.3, 1.0), sf.Pathwise())
        return jnp.floor(z).astype(int)

    for body, error, message in (
        (nothing, TypeError, "must return a cost, or yield"),
        (text, TypeError, "must be real numbers or pytrees of them, got str: 'dear'"),
        (no_choice, TypeError, r"must yield scorefn\.sample\(\.\.\.\), cost\(\.\.\.\) or rollout"),
        (shapes, ValueError, r"must have equal shapes, got \(2,\) and \(\)"),
        (structures, ValueError, "must have equal structures"),
        (one_sample, ValueError, "num_samples must be at least 2 with the baseline LeaveOneOut"),
        (integers, TypeError, "Pathwise differentiates f, but f returned int32"),
    ):
        with pytest.raises(error, match=message):
            run(body)
    with pytest.raises(TypeError, match="must be a generator function that yields its choices"):
        sf.program(lambda p: p)
    with pytest.raises(TypeError, match="key must be a random key, got 3"):
        mixed(P)(3)
    with pytest.raises(TypeError, match="must be an instance, got the class ScoreFunction"):
        sf.sample(sf.Bernoulli(0.3), sf.ScoreFunction)
    with pytest.raises(ValueError, match="chunk_size must be at most num_samples=1, got 2"):
        sf.sample(sf.Bernoulli(0.3), CONSTANT, chunk_size=2)


def test_a_program_of_fifty_choices_is_traced_and_lowered() -> None:
    """Python's limit of recursion is 1000, and a choice takes more than 20 frames."""
    estimator = sf.ScoreFunction(sf.ConstantBaseline(0.0))

    @sf.program
    def model(logits: jax.Array) -> Any:
        total = jnp.zeros(())
        for logit in logits:
            total += yield sf.sample(sf.Bernoulli(logit), estimator)
        return total

    before = sys.getrecursionlimit()
    gradient = jax.jit(jax.grad(lambda logits, key: model(logits)(key)))
    gradient.lower(jnp.zeros(50), jax.random.key(0))
    assert sys.getrecursionlimit() == before
