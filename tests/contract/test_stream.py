"""Chunks in one pass: the derivatives of all samples at once, and memory that does not grow."""

from collections.abc import Callable
from typing import Any

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from support.exact import FAST, assert_close, scale

import scorefn as sf
from scorefn._batching.chunk_size import fitting

KEY = jax.random.key(0)
SAMPLES, CHUNK = 7, 3
ESTIMATORS = {
    "leave one out": sf.ScoreFunction(),
    "constant": sf.ScoreFunction(sf.ConstantBaseline(0.4)),
    "pathwise": sf.Pathwise(),
}

x64 = pytest.mark.usefixtures("x64")


def log_prob(params: Any, x: jax.Array) -> jax.Array:
    mean, log_scale = params
    return jnp.sum(-0.5 * jnp.square((x - mean) / jnp.exp(log_scale)) - log_scale)


def sample(params: Any, key: jax.Array) -> jax.Array:
    mean, log_scale = params
    return mean + jnp.exp(log_scale) * jax.random.normal(key, mean.shape, mean.dtype)


def losses(estimator: sf.Estimator, chunk_size: Any = CHUNK) -> list[Callable[..., jax.Array]]:
    """``loss(mean, key, row)`` at once, and in chunks; f closes over traced floats and integers."""

    def loss_of(chunk_size: Any) -> Callable[..., jax.Array]:
        def loss(mean: jax.Array, key: jax.Array, row: Any = 1) -> jax.Array:
            distribution = sf.Distribution(log_prob, sample, (mean, 0.1 * mean))
            targets = jnp.array([[0.3, -1.0], [0.2, 0.7]], mean.dtype)
            f = lambda x: jnp.sum(mean * jnp.sin(x - targets[row]) ** 2)  # noqa: E731
            options: Any = {"num_samples": SAMPLES, "chunk_size": chunk_size}
            return sf.expectation(f, distribution, key, estimator, **options)

        return loss

    return [loss_of(None), loss_of(chunk_size)]


def in_scan(loss: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    def total(mean: jax.Array, key: jax.Array) -> jax.Array:
        def step(carry: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
            return carry + loss(mean, key) * jnp.sum(mean), None

        return jax.lax.scan(step, jnp.zeros((), mean.dtype), jnp.stack([key, key]))[0]

    return total


def every_derivative(loss: Callable[..., jax.Array], mean: jax.Array) -> dict[str, Any]:
    keys = jnp.stack([KEY, jax.random.fold_in(KEY, 1)])
    both = lambda mean: jax.vmap(loss, (None, 0, 0))(mean, keys, jnp.array([0, 1]))  # noqa: E731
    return {
        "value and gradient": jax.value_and_grad(loss)(mean, KEY),
        "forward": jax.jacfwd(loss)(mean, KEY),
        "rows and keys by vmap": both(mean),
        "their gradients": jax.jacrev(both)(mean),
        "gradients by vmap": jax.vmap(jax.grad(loss), (0, None))(jnp.stack([mean, -mean]), KEY),
        "hessian": jax.hessian(loss)(mean, KEY),
        "reverse over reverse": jax.jacrev(jax.grad(loss))(mean, KEY),
        "forward over forward": jax.jacfwd(jax.jacfwd(loss))(mean, KEY),
        "third": jax.jacfwd(jax.hessian(loss))(mean, KEY),
        "hessian of a scan": jax.jacrev(jax.grad(in_scan(loss)))(mean, KEY),
        "checkpoint": jax.grad(jax.checkpoint(loss))(mean, KEY),
    }


@x64
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "constant")) for n in ESTIMATORS]
)
def test_every_derivative_is_that_of_all_samples_at_once(name: str) -> None:
    mean = jnp.array([0.4, -0.7])

    @jax.jit
    def found(mean: jax.Array) -> list[Any]:
        return [every_derivative(loss, mean) for loss in losses(ESTIMATORS[name])]

    desired, got = found.lower(mean).compile(FAST)(mean)
    assert jnp.abs(desired["third"]).max() > 1e-2
    for kind, derivative in desired.items():
        assert_close(got[kind], derivative, atol=1e-12 * scale(derivative))


@x64
def test_a_second_derivative_along_another_parameter_than_the_first() -> None:
    """A scan, which up to jax 0.10 drops the rules that it does not differentiate."""

    def mixed(loss: Callable[..., jax.Array]) -> jax.Array:
        def product(a: jax.Array, b: jax.Array) -> jax.Array:
            step = lambda carry, key: (carry + a[0] * loss(b, key), None)  # noqa: E731
            return jax.lax.scan(step, jnp.zeros(()), jnp.stack([KEY, KEY]))[0]

        a = b = jnp.array([0.4, -0.7])
        return jax.jacrev(lambda b: jax.grad(product)(a, b)[0])(b)

    desired, got = map(mixed, losses(sf.ScoreFunction()))
    assert jnp.abs(desired).max() > 1e-2
    assert_close(got, desired, atol=1e-12)


def test_the_result_does_not_depend_on_the_chunks_with_an_axis_name_inside_f() -> None:
    def loss(mean: jax.Array, chunk_size: Any) -> jax.Array:
        f = lambda x: jnp.sum(x) * jax.lax.psum(mean[0], "i")  # noqa: E731
        normal = sf.Distribution(log_prob, sample, (mean, 0 * mean))
        options: Any = {"num_samples": SAMPLES, "chunk_size": chunk_size}
        return sf.expectation(f, normal, KEY, sf.ScoreFunction(), **options)

    means = jnp.array([[0.4, 1.0], [-0.7, 2.0]])
    total = lambda means, chunk: jnp.sum(  # noqa: E731
        jax.vmap(lambda mean: loss(mean, chunk), axis_name="i")(means)
    )
    desired, got = (jax.grad(total)(means, chunk) for chunk in (None, CHUNK))
    assert_close(got, desired, atol=1e-6 * scale(desired))


def test_what_has_a_derivative_in_forward_mode_only_keeps_it() -> None:
    def loss(mean: jax.Array, chunk_size: Any) -> jax.Array:
        # As many steps as the draw says: JAX has no reverse mode for it.
        grow = lambda x: jax.lax.while_loop(lambda x: x < 10, lambda x: x + 1 + mean, x)  # noqa: E731
        normal = sf.Distribution(log_prob, sample, (mean, 0 * mean))
        options: Any = {"num_samples": SAMPLES, "chunk_size": chunk_size}
        return sf.expectation(grow, normal, KEY, sf.Pathwise(), **options)

    desired, got = (jax.jacfwd(loss)(jnp.array(0.4), chunk) for chunk in (None, CHUNK))
    assert_close(got, desired, atol=1e-5)
    with pytest.raises(ValueError, match="Reverse-mode"):
        jax.grad(loss)(jnp.array(0.4), CHUNK)


def test_inside_shard_map_each_device_has_its_own_gradient() -> None:
    mesh = jax.make_mesh((8,), ("devices",), axis_types=(AxisType.Auto,))
    keys = jax.random.split(KEY, 8)

    def mean_of(loss: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        def one(mean: jax.Array, keys: jax.Array) -> jax.Array:
            # The gradient inside: along a parameter of this device alone.
            mean = jax.lax.pcast(mean, "devices", to="varying")
            return jax.lax.pmean(jax.grad(loss)(mean, keys[0]), "devices")

        def outside(mean: jax.Array, keys: jax.Array) -> jax.Array:
            return jax.lax.pmean(loss(mean, keys[0]), "devices")

        specs: Any = {"in_specs": (PartitionSpec(), PartitionSpec("devices"))}
        specs |= {"mesh": mesh, "out_specs": PartitionSpec()}
        one, outside = jax.shard_map(one, **specs), jax.shard_map(outside, **specs)
        return lambda mean: [one(mean, keys), jax.grad(outside)(mean, keys)]

    mean = jnp.array([0.4, -0.7])
    desired, got = (jax.jit(mean_of(loss))(mean) for loss in losses(sf.ScoreFunction()))
    assert_close(got, desired, atol=1e-6)


# ------------------------------------------------------------------------------------------ guards


def mixture_loss(logits: jax.Array, loc: jax.Array) -> jax.Array:
    def sample(params: Any, key: jax.Array) -> jax.Array:
        logits, loc = params
        return loc[jax.random.categorical(key, logits)] + jax.random.normal(key)

    mixture = sf.Distribution(lambda _, x: -(x**2), sample, (logits, loc))
    options: Any = {"num_samples": SAMPLES, "chunk_size": CHUNK}
    return sf.expectation(jnp.square, mixture, KEY, sf.Pathwise(), **options)


def test_only_who_differentiates_what_is_lost_is_refused() -> None:
    logits, loc = jnp.zeros(2), jnp.array([-1.0, 1.0])
    assert jnp.abs(jax.grad(mixture_loss, argnums=1)(logits, loc)).max() > 0
    for transform in (jax.grad, lambda fn: jax.jit(jax.jacfwd(fn))):
        with pytest.raises(TypeError, match="Pathwise"):
            transform(mixture_loss)(logits, loc)


@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev])
def test_an_estimator_of_first_order_raises_on_a_second_derivative(outer: Any) -> None:
    def loss(logit: jax.Array) -> jax.Array:
        options: Any = {"num_samples": SAMPLES, "chunk_size": CHUNK}
        f = lambda b: jnp.sum(b) ** 2  # noqa: E731
        return sf.expectation(f, sf.Bernoulli(logit), KEY, sf.DisARM(), **options)

    logit = jnp.array([0.3, 0.1])
    assert jnp.abs(jax.grad(loss)(logit)).max() > 0
    with pytest.raises(TypeError, match="first order"):
        outer(jax.grad(loss))(logit)


@pytest.mark.parametrize("place", [0, SAMPLES - 1])
def test_an_infinite_cost_shows_in_value_and_gradient(place: int) -> None:
    draws = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(KEY, i)))(jnp.arange(SAMPLES))

    def loss(mean: jax.Array) -> jax.Array:
        f = lambda x: jnp.where(x == draws[place], jnp.inf, x)  # noqa: E731
        normal = sf.Distribution(
            lambda mean, x: -0.5 * (x - mean) ** 2, lambda _, key: jax.random.normal(key), mean
        )
        options: Any = {"num_samples": SAMPLES, "chunk_size": CHUNK}
        return sf.expectation(f, normal, KEY, sf.ScoreFunction(), **options)

    value, gradient = jax.value_and_grad(loss)(0.0)
    assert value == jnp.inf
    assert not jnp.isfinite(gradient)


def test_an_impossible_draw_has_no_score_and_keeps_its_cost() -> None:
    def loss(logit: jax.Array, chunk_size: Any) -> jax.Array:
        def log_prob(logit: jax.Array, x: jax.Array) -> jax.Array:
            return jnp.where(x > 1, -jnp.inf, -0.5 * (x - logit) ** 2)

        normal = sf.Distribution(log_prob, lambda _, key: jax.random.normal(key), logit)
        options: Any = {"num_samples": 40, "chunk_size": chunk_size}
        return sf.expectation(jnp.square, normal, KEY, sf.ScoreFunction(), **options)

    desired, got = (jax.value_and_grad(loss)(0.1, chunk) for chunk in (None, CHUNK))
    assert np.isfinite(desired).all()
    assert_close(got, desired, atol=1e-6)


# ---------------------------------------------------------------------------------- memory and cost


def gaussian_loss(num_samples: int, chunk_size: Any = "auto", f: Any = None) -> Any:
    f = f or (lambda x: jnp.sum(jnp.square(x - 0.3)))

    def loss(params: Any, key: jax.Array) -> jax.Array:
        normal = sf.Distribution(log_prob, sample, params)
        options: Any = {"num_samples": num_samples, "chunk_size": chunk_size}
        return sf.expectation(f, normal, key, sf.ScoreFunction(), **options)

    return loss


WIDE = (jnp.zeros(100), jnp.zeros(100))


def compiled(fn: Any) -> Any:
    return jax.jit(fn).lower(WIDE, KEY).compile()


def temporary_bytes(fn: Any) -> int:
    return compiled(fn).memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_the_samples() -> None:
    few, many = (temporary_bytes(jax.grad(gaussian_loss(n))) for n in (10**5, 10**7))
    assert few == many <= 13 * 2**20
    # All at once they do not fit: the measure can tell.
    assert temporary_bytes(jax.grad(gaussian_loss(10**5, None))) > 10**5 * 100 * 4


def test_a_value_alone_costs_no_score() -> None:
    flops = [
        compiled(fn(gaussian_loss(10**4, 1000))).cost_analysis()["flops"]
        for fn in (lambda loss: loss, jax.grad)
    ]
    assert flops[0] < 0.7 * flops[1]


def test_f_is_evaluated_once_a_sample() -> None:
    seen: list[int] = []

    def f(x: jax.Array) -> jax.Array:
        count = lambda x: seen.append(1) or np.float32(x)  # noqa: E731
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.pure_callback(count, shape, x[0], vmap_method="sequential")

    jax.jit(jax.value_and_grad(gaussian_loss(SAMPLES, CHUNK, f)))(WIDE, KEY)
    assert len(seen) == SAMPLES


def test_auto_takes_all_at_once_what_is_little() -> None:
    # Of 100 numbers some 3 kB are stored: 10 000 samples stay below 32 MiB, 100 000 do not.
    few, many = (
        [temporary_bytes(jax.grad(gaussian_loss(n, c))) for c in (None, "auto")]
        for n in (10_000, 100_000)
    )
    assert few[0] == few[1]
    assert many[0] > 5 * many[1]


def test_auto_fills_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as fit into 4 GiB before anything is fused, or a divisor above half of it.

    The argument is stored, and counts thrice.
    """
    each = (3 + 1) * 100 * 4
    square = jax.make_jaxpr(lambda x: jnp.sum(x**2))(jnp.zeros(100))
    on_cpu = fitting(10**8, square)
    assert 20 * 2**20 / each < on_cpu <= 40 * 2**20 / each
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = fitting(10**8, square)
    assert 2**31 / each < found <= 2**32 / each


def test_auto_changes_rounding_only() -> None:
    desired, got = (jax.jit(jax.grad(gaussian_loss(20_000, c)))(WIDE, KEY) for c in (None, "auto"))
    assert any(jnp.any(a != b) for a, b in zip(got, desired, strict=True))
    assert_close(got, desired, atol=2e-6 * scale(desired))


def test_neither_an_offset_nor_many_samples_take_digits() -> None:
    """A million costs near a million, rounded to 1/16: due is their covariance in float64."""
    n, offset = 10**6, 1e6

    def cost(x: jax.Array) -> jax.Array:
        return jnp.sin(x) * 1e3 + offset

    def loss(mean: jax.Array) -> jax.Array:
        normal = sf.Distribution(
            lambda mean, x: -0.5 * (x - mean) ** 2, lambda _, key: jax.random.normal(key), mean
        )
        return sf.expectation(cost, normal, KEY, sf.ScoreFunction(), num_samples=n)

    gradient = jax.jit(jax.grad(loss))(jnp.array(0.0))
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(n, dtype=jnp.uint32))
    x = jax.jit(jax.vmap(jax.random.normal))(keys)
    costs, scores = np.float64(jax.jit(cost)(x)), np.float64(x)
    exact = np.cov(costs, scores)[0, 1]
    assert abs(gradient - exact) < 2e-6 * abs(exact)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_many_samples_of_16_bits_are_added_up_in_32(dtype: Any) -> None:
    """Costs of 1, many times: 16 bits would stop counting at 256 or at 2048."""

    def loss(scale: jax.Array, num_samples: int, chunk_size: Any) -> jax.Array:
        normal = sf.Distribution(
            lambda _, x: 0 * x, lambda _, key: jax.random.normal(key, (), dtype), scale
        )
        options: Any = {"num_samples": num_samples, "chunk_size": chunk_size}
        f = lambda x: scale + 0 * x  # noqa: E731
        return sf.expectation(f, normal, KEY, sf.Pathwise(), **options)

    gradient = jax.jit(jax.value_and_grad(loss), static_argnums=(1, 2))
    for sizes in ((100_000, 1000), (100_000, "auto"), (1000, "auto")):
        assert gradient(jnp.ones((), dtype), *sizes) == (1, 1)


@x64
def test_a_complex_parameter_keeps_its_derivative() -> None:
    def loss(chunk_size: Any) -> Callable[[jax.Array], jax.Array]:
        options: Any = {"num_samples": SAMPLES, "chunk_size": chunk_size}
        normal = sf.Distribution(lambda _, x: 0 * x, lambda _, key: jax.random.normal(key), 0.0)
        return lambda z: sf.expectation(
            lambda x: jnp.real(x * z**2), normal, KEY, sf.Pathwise(), **options
        )

    z, along = jnp.array(0.3 + 0.4j), jnp.array(0.2 - 1.0j)
    desired, got = (jax.jvp(loss(chunk), (z,), (along,)) for chunk in (None, CHUNK))
    assert_close(got, desired, atol=1e-12)


def test_a_leave_one_out_of_another_kind_is_not_taken_for_it() -> None:
    class Twice(sf.LeaveOneOut):
        def __call__(self, costs: Any, weights: Any = None) -> Any:
            return jax.tree.map(lambda b: 2 * b, super().__call__(costs, weights))

    assert sf.ScoreFunction().streams
    assert not sf.ScoreFunction(Twice()).streams
    assert not sf.ScoreFunction(sf.OptimalBaseline()).streams
    assert not sf.ScoreFunction(factor_ndim=1).streams


def test_costs_that_are_no_scalar_keep_their_shape() -> None:
    def mean(chunk_size: Any) -> jax.Array:
        options: Any = {"num_samples": SAMPLES, "chunk_size": chunk_size}
        normal = sf.Distribution(log_prob, sample, WIDE)
        return sf.expectation(lambda x: x[:2], normal, KEY, sf.Pathwise(), **options)

    assert_close(mean(CHUNK), mean(None), atol=1e-6)


def test_nothing_traced_is_held_on_to() -> None:
    mean = jnp.array([0.4, -0.7])
    _, loss = losses(sf.ScoreFunction())
    with jax.checking_leaks():
        jax.jit(jax.vmap(jax.grad(loss), (0, None)))(jnp.stack([mean, mean]), KEY)


# ------------------------------------------------------------------------------- the same function


@jax.custom_vjp
def reverse_only(x: jax.Array) -> jax.Array:
    return jnp.sin(x)


reverse_only.defvjp(lambda x: (jnp.sin(x), jnp.cos(x)), lambda slope, ct: (slope * ct,))


@jax.custom_jvp
def own_slope(x: jax.Array) -> jax.Array:
    return jnp.sin(x)


own_slope.defjvp(lambda x, t: (own_slope(*x), 2 * jnp.cos(x[0]) * t[0]))


@jax.custom_jvp
def forward_only(x: jax.Array) -> jax.Array:
    return jnp.sin(x)


@forward_only.defjvp
def _(primals: Any, tangents: Any) -> Any:
    # A callback of the tangent has no transpose.
    slope = lambda x, t: np.asarray(np.cos(x) * t, np.float32)  # noqa: E731
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    out = jax.pure_callback(slope, shape, *primals, *tangents, vmap_method="sequential")
    return forward_only(*primals), out


@jax.custom_vjp
def broken_rule(x: jax.Array) -> jax.Array:
    return jnp.sin(x)


def _broken(*_: Any) -> Any:
    raise ValueError("a rule of the user's")


broken_rule.defvjp(lambda x: (jnp.sin(x), None), _broken)


def broken(_: jax.Array) -> jax.Array:
    raise ValueError("an f of the user's")


def by_callback(x: jax.Array) -> jax.Array:
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    return jax.pure_callback(np.sin, shape, x, vmap_method="sequential")


def with_effects(x: jax.Array) -> jax.Array:
    shape, seen = jax.ShapeDtypeStruct((), jnp.float32), jax.lax.stop_gradient(x)
    return jax.experimental.io_callback(np.sin, shape, seen) * x


def with_print(x: jax.Array) -> jax.Array:
    jax.debug.callback(lambda _: None, x)
    return jnp.sin(x)


FUNCTIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "custom_vjp": reverse_only,
    "custom_jvp": own_slope,
    "forward only": forward_only,
    "broken rule": broken_rule,
    "broken": broken,
    "pure_callback": by_callback,
    "io_callback": with_effects,
    "debug.callback": with_print,
    "while_loop": lambda x: jax.lax.while_loop(lambda x: x < 3, lambda x: x + 1.0, x),
    "scan": lambda x: jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, length=3)[0],
    "integers": lambda x: jnp.arange(4.0)[jnp.abs(x).astype(int) % 4] * x,
}
ALONG: dict[str, Callable[..., Any]] = {
    "value": lambda loss: loss(0.3),
    "reverse": lambda loss: jax.grad(loss)(0.3),
    "reverse, jit": lambda loss: jax.jit(jax.grad(loss))(0.3),
    "forward, of Python": lambda loss: jax.jvp(loss, (0.3,), (1.0,))[1],
    "forward, of NumPy": lambda loss: jax.jvp(loss, (np.float32(0.3),), (np.float32(1.0),))[1],
    "forward, jit": lambda loss: jax.jit(jax.jacfwd(loss))(0.3),
    "forward over reverse": lambda loss: jax.jit(jax.hessian(loss))(0.3),
    "reverse over reverse": lambda loss: jax.jit(jax.jacrev(jax.grad(loss)))(0.3),
}


def outcome(run: Callable[..., Any], loss: Callable[..., jax.Array]) -> tuple[str, Any]:
    """The outcome: a number, or the type and first words of the error."""
    try:
        return "number", float(run(loss))
    except Exception as error:  # whatever it is, chunks must raise the same
        return type(error).__name__, str(error).splitlines()[0][:60]


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator", [*ESTIMATORS.values(), sf.ScoreFunction(sf.OptimalBaseline())]
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_chunks_are_the_same_function_for_every_f(name: str, estimator: sf.Estimator) -> None:
    def loss(chunk_size: Any) -> Callable[[Any], jax.Array]:
        def loss(mean: Any) -> jax.Array:
            normal = sf.Distribution(
                lambda mean, x: -((x - mean) ** 2) / 2,
                lambda mean, key: mean + jax.random.normal(key),
                mean,
            )
            f = lambda x: 1.5 * FUNCTIONS[name](x) + mean**2  # noqa: E731
            # Whole chunks: the rest of one more would compile all of it once more.
            options: Any = {"num_samples": 2 * CHUNK, "chunk_size": chunk_size}
            return sf.expectation(f, normal, KEY, estimator, **options)

        return loss

    for along, run in ALONG.items():
        (kind, desired), (found_kind, found) = (outcome(run, loss(c)) for c in (None, CHUNK))
        if name == "broken rule" and along.startswith("forward, ") and kind == "TypeError":
            # All at once refuse the forward mode of a custom_vjp; chunks come to its rule first.
            kind, desired = "ValueError", "a rule of the user's"
        assert (kind, along) == (found_kind, along)
        if kind == "number":
            np.testing.assert_allclose(found, desired, rtol=2e-5, atol=2e-6, err_msg=along)
        else:
            assert (found, along) == (desired, along)


def test_the_delta_method_of_a_custom_vjp_has_one_error() -> None:
    def loss(mean: jax.Array, num_samples: int, chunk_size: Any) -> jax.Array:
        normal = sf.Distribution(
            lambda mean, x: -((x - mean) ** 2) / 2,
            lambda mean, key: mean + jax.random.normal(key),
            mean,
        )
        estimator = sf.DeltaMethod(sf.Pathwise(), moments=lambda mean: (mean, jnp.ones(())))
        options: Any = {"num_samples": num_samples, "chunk_size": chunk_size}
        return sf.expectation(reverse_only, normal, KEY, estimator, **options)

    for sizes in ((64, None), (4096, "auto"), (6, 3)):
        with pytest.raises(TypeError, match=r"forward-mode autodiff .* to a custom_vjp function"):
            jax.grad(loss)(0.3, *sizes)


@pytest.mark.parametrize("chunk_size", [None, 2, "auto"])
def test_ordered_effects_run_once_in_order_or_raise(chunk_size: Any, capfd: Any) -> None:
    def mean(f: Any) -> Any:
        bits, options = sf.Bernoulli(jnp.zeros(3)), {"num_samples": 4, "chunk_size": chunk_size}
        found = sf.expectation(f, bits, jax.random.key(0), sf.ScoreFunction(), **options)
        jax.effects_barrier()
        return found

    def printed(x: jax.Array) -> jax.Array:
        jax.debug.print("{}", x.sum(), ordered=True)
        return x.sum()

    def called(x: jax.Array) -> jax.Array:
        jax.experimental.io_callback(lambda _: None, None, x, ordered=True)
        return x.sum()

    costs = jax.vmap(lambda key: sf.Bernoulli(jnp.zeros(3)).sample(key).sum())
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(4))
    mean(printed)
    np.testing.assert_array_equal([float(n) for n in capfd.readouterr().out.split()], costs(keys))
    with pytest.raises(ValueError, match="ordered IO callback"):
        mean(called)
