"""A cost whose derivative would silently be lost raises, for whoever takes it and nobody else."""

from collections.abc import Callable
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import scorefn as sf
from scorefn import vi

KEY = jax.random.key(0)
STOP = jax.lax.stop_gradient


def normal(m: Any) -> distrax.Normal:
    return distrax.Normal(m, jnp.ones(()))


def loss(f: Callable[..., Any], estimator: sf.Estimator, build: Callable[..., Any] = normal) -> Any:
    """``loss(m, w)``: f of a draw at m and of w, which it closes over."""
    return lambda m, w: sf.expectation(lambda x: f(x, w), build(m), KEY, estimator, num_samples=4)


def takes(fn: Callable[..., Any], argnum: int, *args: Any) -> None:
    """It can be differentiated; the guard speaks while tracing, so that nothing is compiled."""
    jax.eval_shape(jax.grad(fn, argnum), *args)
    jax.eval_shape(lambda *args: jax.jvp(fn, args, args), *args)


# From a draw x and a parameter w to a cost that has lost the derivative along both.
LOSES = {
    "where": lambda x, w: jnp.where(x > w, 1.0, 0.0),
    "cast": lambda x, w: (x > w).astype(jnp.float32),
    "round": lambda x, w: jnp.round(x - w),
    "floor": lambda x, w: jnp.floor(x) + jnp.ceil(w),
    "sign": lambda x, w: jnp.sign(x - w),
    "integers": lambda x, w: (3 * (x + w)).astype(jnp.int32).astype(jnp.float32),
    "heaviside": lambda x, w: jnp.heaviside(x - w, 0.5),
    "argmax": lambda x, w: 1.0 * jnp.argmax(jnp.stack([x, w])),
    "one-hot": lambda x, w: jax.nn.one_hot(jnp.argmax(jnp.stack([x, w])), 2)[1],
    "table": lambda x, w: jnp.arange(9.0)[jnp.clip(x - w, 0, 8).astype(jnp.int32)],
    "searchsorted": lambda x, w: 1.0 * jnp.searchsorted(jnp.arange(5.0), x - w),
    "times zero": lambda x, w: 0.0 * (x + w) + jnp.round(x + w),
    "jit": jax.jit(lambda x, w: jnp.round(x - w)),
    "cond": lambda x, w: jax.lax.cond(x > w, lambda: 1.0, lambda: 2.0),
    "scan": lambda x, w: jax.lax.scan(
        lambda c, _: (c + jnp.sign(x - w), None), 0.0, None, length=3
    )[0],
    "while": lambda x, w: jax.lax.while_loop(lambda c: c < x - w, lambda c: c + 1, 0.0),
    "checkpoint": jax.checkpoint(lambda x, w: jnp.round(x - w)),
    "count": lambda x, w: 1.0 * jnp.sum(jnp.arange(4.0) < x - w),
    "one output of two": lambda x, w: {"a": (x - w) ** 2, "b": jnp.round(x - w)},
    "a zero rule": lambda x, w: _flat(x) + _flat(w),
}


@jax.custom_jvp
def _flat(x: jax.Array) -> jax.Array:
    return 2 * x


_flat.defjvp(lambda primals, tangents: (2 * primals[0], 0 * tangents[0]))


@pytest.mark.parametrize("name", list(LOSES))
def test_a_draw_without_derivative_raises(name: str) -> None:
    f = LOSES[name]
    with pytest.raises(TypeError, match=r"Pathwise differentiates f.*the draw \(float32\[\]\)"):
        takes(loss(f, sf.Pathwise()), 0, 0.3, 0.4)
    # The score function does not differentiate f along the draw.
    jax.eval_shape(jax.grad(lambda m: jax.tree.leaves(loss(f, sf.ScoreFunction())(m, 0.4))[0]), 0.3)


@pytest.mark.parametrize("estimator", [sf.ScoreFunction(), sf.Pathwise()])
@pytest.mark.parametrize("name", list(LOSES))
def test_a_parameter_without_derivative_raises(name: str, estimator: sf.Estimator) -> None:
    def fixed(x: jax.Array, w: jax.Array) -> Any:
        return LOSES[name](STOP(x), w)

    with pytest.raises(TypeError, match=r"cannot differentiate with respect to w \(float32\[\]\)"):
        jax.eval_shape(
            jax.grad(lambda w: sum(jax.tree.leaves(loss(fixed, estimator)(0.3, w)))), 0.4
        )


def mlp(x: jax.Array, w: jax.Array, activation: Callable[..., Any]) -> jax.Array:
    hidden = activation(jnp.array([0.3, -0.2, 0.5]) * x + w * jnp.array([0.1, 0.4, -0.3]))
    return jnp.sum(hidden * jnp.array([1.0, -2.0, 3.0])) * w


# Costs with a derivative along both, though some of what they compute has none.
KEEPS = {
    "relu": lambda x, w: jax.nn.relu(x - w),
    **{
        f"network of {fn.__name__}": lambda x, w, fn=fn: mlp(x, w, fn)
        for fn in (jax.nn.relu, jax.nn.leaky_relu, jax.nn.gelu, jax.nn.elu, jax.nn.hard_tanh)
    },
    "clip": lambda x, w: jnp.clip(x * w, -1.0, 1.0),
    "maximum": jnp.maximum,
    "abs": lambda x, w: jnp.abs(x - w),
    "safe division": lambda x, w: jnp.where(x == 0, 0.0, w / jnp.where(x == 0, 1.0, x)),
    "sort": lambda x, w: jnp.sort(jnp.stack([x, w, 0.1]))[1] + x * w,
    "max-pool": lambda x, w: jnp.max(jnp.stack([x, w, x * w])) + x * w,
    "argmax of smooth values": lambda x, w: (
        jnp.stack([x * w, w])[jnp.argmax(jnp.stack([x, w]))] + x * w
    ),
    "top-k": lambda x, w: jnp.sum(jax.lax.top_k(jnp.stack([x, w, x + w]), 2)[0]),
    "attention mask": lambda x, w: jax.nn.softmax(
        jnp.where(jnp.arange(3) < 2, jnp.stack([x, w, x]), -jnp.inf)
    )[0],
    "norm": lambda x, w: jnp.linalg.norm(jnp.stack([x, w])),
    "logsumexp": lambda x, w: jax.scipy.special.logsumexp(jnp.stack([x, w])),
    "dropout": lambda x, w: jnp.where(jax.random.bernoulli(KEY, 0.5, (3,)), x * w, 0.0).sum(),
    "straight-through": lambda x, w: x * w + STOP(jnp.round(x * w) - x * w),
    "stopped target": lambda x, w: (x * w - STOP(jnp.round(x + w))) ** 2,
    "stopped count": lambda x, w: x * w + STOP(1.0 * (x > w)),
    "data by index": lambda x, w: x * w * jnp.arange(3.0)[jnp.array(1)],
    "mask of data": lambda x, w: jnp.sum(jnp.where(jnp.arange(3) > 0, x, w) * x * w),
    "huber": lambda x, w: jnp.where(jnp.abs(x - w) < 1, (x - w) ** 2 / 2, jnp.abs(x - w) - 0.5),
    "scan": lambda x, w: jax.lax.scan(lambda c, _: (c * w + x, None), 0.0, None, length=3)[0],
    "solve": lambda x, w: jnp.linalg.solve(jnp.eye(2) * (3 + x), jnp.ones(2) * w)[0],
    "its own gradient": lambda x, w: jax.grad(lambda x: jnp.sin(x * w))(x) * x,
    "an inner expectation": lambda x, w: (
        sf.expectation(lambda b: b * x, sf.Bernoulli(w * x), KEY, sf.ScoreFunction(), num_samples=2)
        + x * w
    ),
}


@pytest.mark.parametrize("estimator", [sf.ScoreFunction(), sf.Pathwise()])
@pytest.mark.parametrize("name", list(KEEPS))
def test_real_costs_do_not_raise(name: str, estimator: sf.Estimator) -> None:
    takes(loss(KEEPS[name], estimator), 0, 0.3, 0.4)
    takes(loss(KEEPS[name], estimator), 1, 0.3, 0.4)


def test_the_guard_changes_no_number() -> None:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(4))

    def plain(f: Callable[..., Any]) -> Callable[..., Any]:
        draws = jax.vmap(jax.random.normal)(keys)
        return lambda m, w: jnp.mean(jax.vmap(lambda e: f(m + e, w))(draws))

    for name in ("network of relu", "clip", "straight-through", "max-pool"):
        got = jax.value_and_grad(loss(KEEPS[name], sf.Pathwise()), (0, 1))(0.3, 0.4)
        wanted = jax.value_and_grad(plain(KEEPS[name]), (0, 1))(0.3, 0.4)
        np.testing.assert_allclose(got[0], wanted[0], 1e-6)
        np.testing.assert_allclose(got[1], wanted[1], 1e-5)


STOPPED = {
    "a target": lambda x, w: jnp.round(STOP(w) + STOP(x)),
    "a frozen network": lambda x, w: jnp.where(STOP(x * w) > 0, 1.0, 2.0),
    "after the comparison": lambda x, w: STOP(jnp.where(x > w, 1.0, 0.0)),
    "running statistics": lambda x, w: (jnp.round(10 * STOP(w)) + STOP(x)) / 10,
}


@pytest.mark.parametrize("name", list(STOPPED))
def test_stop_gradient_is_the_word_of_the_user(name: str) -> None:
    for argnum in (0, 1):
        takes(loss(STOPPED[name], sf.Pathwise()), argnum, 0.3, 0.4)
    gradients = jax.grad(loss(STOPPED[name], sf.Pathwise()), (0, 1))(0.3, 0.4)
    np.testing.assert_array_equal(gradients, 0)


def test_what_nobody_differentiates_does_not_raise() -> None:
    f = LOSES["where"]
    value = jax.jit(loss(f, sf.Pathwise()))(0.3, 0.4)
    assert 0 <= value <= 1
    assert jax.grad(lambda m: loss(f, sf.Pathwise())(STOP(m), 0.4))(0.3) == 0
    # Data that a mask is made of are traced, and are not differentiated.
    masked = loss(lambda x, w: jnp.sum(jnp.where(w > 0, x, 0.0)), sf.Pathwise())
    jax.eval_shape(jax.grad(masked), 0.3, jnp.ones(3))


def test_aux_carries_no_derivative() -> None:
    def with_aux(m: Any) -> Any:
        return sf.expectation(
            lambda x: (x**2 * m, (jnp.round(x), x > m)), normal(m), KEY, sf.Pathwise(), has_aux=True
        )

    jax.eval_shape(jax.grad(with_aux, has_aux=True), 0.3)


def test_python_may_branch_on_a_parameter_outside_of_jit() -> None:
    assert jax.grad(loss(lambda x, w: x * w if w > 0 else x, sf.Pathwise()), 1)(0.0, 2.0) != 0


# ------------------------------------------------------------------------------- leaf by leaf


def test_leaf_by_leaf_of_the_draw() -> None:
    def pair(m: Any) -> Any:
        return distrax.Joint({"a": normal(m["a"]), "b": normal(m["b"])})

    one_lost = loss(lambda x, w: x["a"] ** 2 * w + jnp.round(x["b"]), sf.Pathwise(), pair)
    with pytest.raises(TypeError, match=r"f depends on \['b'\] \(float32"):
        jax.grad(one_lost)({"a": 0.3, "b": 0.4}, 1.0)
    assert jax.grad(lambda a: one_lost({"a": a, "b": 0.4}, 1.0))(0.3) != 0


# ------------------------------------------------------------------------------ every estimator


def bits(w: Any) -> sf.Bernoulli:
    return sf.Bernoulli(jnp.stack([w, -w]))


DIFFERENTIATE_BITS = [
    *(sf.GumbelSoftmax(0.5), sf.StraightThroughGumbelSoftmax(0.5), sf.GumbelRao(0.5)),
    *(sf.StraightThrough(), sf.ReinMax(), sf.REBAR(), sf.DoubleCV()),
]


@pytest.mark.parametrize("estimator", DIFFERENTIATE_BITS, ids=lambda e: type(e).__name__)
def test_estimators_that_differentiate_f_raise(estimator: sf.Estimator) -> None:
    name = type(estimator).__name__
    with pytest.raises(TypeError, match=f"{name} differentiates f"):
        takes(loss(lambda b, _: jnp.sum(jnp.round(b)), estimator, bits), 0, 0.3, 0.4)
    takes(loss(lambda b, w: jnp.sum(b * w) ** 2, estimator, bits), 0, 0.3, 0.4)


@pytest.mark.parametrize(
    "estimator",
    [*DIFFERENTIATE_BITS, sf.DisARM(), sf.ARM(), sf.BitFlip(), sf.GO(), sf.Enumerate()],
    ids=lambda e: type(e).__name__,
)
def test_every_estimator_asks_about_parameters(estimator: sf.Estimator) -> None:
    with pytest.raises(TypeError, match=r"with respect to w \(float32\[\]\)"):
        takes(loss(lambda b, w: jnp.sum(b) ** 2 * jnp.round(w), estimator, bits), 1, 0.3, 0.4)
    takes(loss(lambda b, w: jnp.sum(b) ** 2 * w, estimator, bits), 1, 0.3, 0.4)


@pytest.mark.parametrize("num_samples", [4, 600])
@pytest.mark.parametrize("differentiate", [jax.grad, lambda f: jax.jit(jax.grad(f)), jax.jacfwd])
def test_chunks_and_transformations(num_samples: int, differentiate: Callable[..., Any]) -> None:
    def step(m: Any) -> Any:
        return sf.expectation(
            LOSES_ALONE, normal(m), KEY, sf.Pathwise(), num_samples=num_samples, chunk_size=3
        )

    with pytest.raises(TypeError, match="Pathwise differentiates f"):
        differentiate(step)(0.3)


def LOSES_ALONE(x: jax.Array) -> jax.Array:  # noqa: N802
    return jnp.where(x > 1, 1.0, 0.0)


# -------------------------------------------------------------------------------------- programs


def test_a_program_that_reads_a_draw_by_comparison() -> None:
    @sf.program
    def lost(m: Any) -> Any:
        x = yield sf.sample(normal(m), sf.Pathwise())
        y = yield sf.sample(normal(0.0), sf.Pathwise())
        return jnp.where(x > 1, y, -y)

    @sf.program
    def kept(m: Any) -> Any:
        x = yield sf.sample(normal(m), sf.Pathwise())
        y = yield sf.sample(normal(x), sf.ScoreFunction(sf.ConstantBaseline(0.0)))
        return jnp.where(y > 1, 1.0, 0.0)

    # To the f of y the draw of x is an array that it closes over: either guard may be first.
    with pytest.raises(TypeError, match="Pathwise (differentiates f|cannot differentiate)"):
        jax.grad(lambda m: lost(m)(KEY))(0.3)
    # The score of y has a derivative along x.
    jax.eval_shape(jax.grad(lambda m: kept(m)(KEY)), 0.3)


def test_a_parameter_of_a_program() -> None:
    @sf.program
    def model(w: Any) -> Any:
        x = yield sf.sample(normal(0.0), sf.ScoreFunction(sf.ConstantBaseline(0.0)))
        return jnp.where(x > w, 1.0, 0.0)

    with pytest.raises(TypeError, match=r"respect to .*\(float32\[\]\): f depends on it only"):
        jax.grad(lambda w: model(w)(KEY))(0.3)


# ------------------------------------------------------------------------------ second derivatives

KINKS = {
    "relu": jax.nn.relu,
    "abs": jnp.abs,
    "maximum": lambda x: jnp.maximum(x, 0.3),
    "clip": lambda x: jnp.clip(x, 0.0, 1.0),
    "where": lambda x: jnp.where(x > 0, x, 0.0),
}


def second(f: Callable[..., Any], estimator: sf.Estimator) -> Callable[..., Any]:
    return jax.grad(jax.grad(lambda m: loss(lambda x, _: f(x), estimator)(m, 0.0)))


@pytest.mark.parametrize("name", list(KINKS))
def test_the_second_derivative_of_a_kink_raises(name: str) -> None:
    with pytest.raises(TypeError, match="the derivative of f depends on the draw"):
        jax.eval_shape(second(KINKS[name], sf.Pathwise()), 0.3)
    jax.eval_shape(second(KINKS[name], sf.ScoreFunction()), 0.3)
    jax.eval_shape(second(lambda x: KINKS[name](x) ** 2, sf.Pathwise()), 0.3)
    # A control variate with a kink is worse, and not wrong.
    jax.eval_shape(
        jax.grad(lambda m: loss(lambda x, _: KINKS[name](x), sf.DeltaMethod(sf.Pathwise()))(m, 0)),
        0.3,
    )


@pytest.mark.parametrize("f", [jnp.sin, jnp.square, lambda x: 3 * x, lambda x: x**3])
def test_smooth_costs_have_second_derivatives(f: Callable[..., Any]) -> None:
    jax.eval_shape(second(f, sf.Pathwise()), 0.3)
    hessian = jax.hessian(lambda m: loss(lambda x, _: f(x), sf.Pathwise())(m, 0.0))
    jax.eval_shape(hessian, 0.3)


def test_kinks_along_a_parameter() -> None:
    def twice(f: Callable[..., Any]) -> Callable[..., Any]:
        return jax.grad(jax.grad(lambda w: loss(f, sf.ScoreFunction())(0.3, w)))

    with pytest.raises(TypeError, match="the derivative of f depends on it only"):
        jax.eval_shape(twice(lambda x, w: jax.nn.relu(x - w)), 0.4)
    # The second derivative of a penalty is 0 in expectation, too.
    assert twice(lambda x, w: x**2 + jnp.abs(w))(0.4) == 0


# ------------------------------------------------------------------------------------- other errors


def test_a_module_that_changes_its_state() -> None:
    dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    graph, state = nnx.split(dropout)
    x = jnp.ones(3)
    with pytest.raises(TypeError, match=r"flax\.nnx module.*flax\.nnx\.merge"):
        takes(loss(lambda m, w: jnp.sum(dropout(m * w * x)), sf.Pathwise()), 0, 0.3, 0.4)
    merged = lambda m, w: jnp.sum(nnx.merge(graph, state, copy=True)(m * w * x))  # noqa: E731
    takes(loss(merged, sf.Pathwise()), 0, 0.3, 0.4)


def test_a_number_is_no_support() -> None:
    with pytest.raises(ValueError, match="support must hold all values.*max_size"):
        sf.expectation(lambda b: 1.0 * b, sf.Bernoulli(0.3), KEY, sf.Enumerate(3))


# -------------------------------------------------------------------------------------- rollouts


def rolled(cost: Callable[..., Any], estimator: sf.Estimator, **options: Any) -> Callable[..., Any]:
    """``total(m, w)``, the costs of three steps whose carry is the draw before."""

    def total(m: Any, w: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            x = yield sf.sample(normal(carry), estimator)
            return x, cost(x, w)

        return jnp.sum(sf.rollout(step, m, length=4, **options)(KEY)[1])

    return total


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("name", ["where", "round", "table", "jit"])
def test_rollouts_are_guarded(name: str, chunk_size: int | None) -> None:
    reinforce = sf.ScoreFunction(sf.ConstantBaseline(0.0))
    by_path = rolled(LOSES[name], sf.Pathwise(), chunk_size=chunk_size)
    by_score = rolled(LOSES[name], reinforce, chunk_size=chunk_size)
    with pytest.raises(TypeError, match=r"rollout cannot differentiate .* init \(float32\[\]\)"):
        jax.eval_shape(jax.grad(by_path), 0.3, 0.4)
    jax.eval_shape(jax.grad(by_score), 0.3, 0.4)
    for total in (by_path, by_score):
        with pytest.raises(TypeError, match=r"rollout cannot differentiate .*w \(float32\[\]\)"):
            jax.eval_shape(jax.grad(total, 1), 0.3, 0.4)
    takes(rolled(KEEPS["relu"], sf.Pathwise(), chunk_size=chunk_size), 0, 0.3, 0.4)
    takes(rolled(KEEPS["relu"], reinforce, chunk_size=chunk_size), 1, 0.3, 0.4)


# From a log-density and an approximate posterior; each adds log q, which is smooth.
BOUNDS: dict[str, Callable[[Any, Any], jax.Array]] = {
    "elbo": lambda log_p, q: vi.elbo(log_p, q, KEY, sf.Pathwise(), num_samples=4),
    "sticking_the_landing": lambda log_p, q: vi.sticking_the_landing(log_p, q, KEY, num_samples=4),
    "iwae": lambda log_p, q: vi.iwae(log_p, q, KEY, num_samples=4),
    "renyi": lambda log_p, q: vi.renyi(log_p, q, KEY, num_samples=4, alpha=0.5),
    "dreg": lambda log_p, q: vi.dreg(log_p, q, KEY, num_samples=4),
    "gdreg": lambda log_p, q: vi.gdreg(log_p, normal(0.0), q, KEY, num_samples=4),
}


@pytest.mark.parametrize("name", list(BOUNDS))
def test_a_jump_of_the_model_is_not_hidden_by_the_density_of_q(name: str) -> None:
    def along_q(m: jax.Array) -> jax.Array:
        return BOUNDS[name](lambda z: jnp.where(z > 0, -1.0, -2.0), normal(m))

    def along_model(w: jax.Array) -> jax.Array:
        return BOUNDS[name](lambda z: -(z**2) - jnp.round(w), normal(0.3))

    with pytest.raises(TypeError, match="differentiates log_(joint|likelihood), but log_"):
        jax.eval_shape(jax.grad(along_q), 0.3)
    with pytest.raises(TypeError, match="log_(joint|likelihood) depends on it only through"):
        jax.eval_shape(jax.grad(along_model), 0.3)
    for f in (jax.nn.relu, lambda z: STOP(jnp.round(z)), lambda z: jnp.where(z > 0, z, z**2)):
        jax.eval_shape(jax.grad(lambda m, f=f: BOUNDS[name](lambda z: -f(z), normal(m))), 0.3)


def test_a_jump_of_the_model_is_no_jump_for_the_score_function() -> None:
    def bound(m: jax.Array) -> jax.Array:
        log_p = lambda z: jnp.where(z > 0, -1.0, -2.0)  # noqa: E731
        return vi.elbo(log_p, normal(m), KEY, sf.ScoreFunction(), num_samples=4)

    jax.eval_shape(jax.grad(bound), 0.3)
    jax.eval_shape(jax.hessian(bound), 0.3)


@pytest.mark.parametrize("wrap", [sf.Antithetic, sf.Stratified, sf.QuasiMonteCarlo, sf.DeltaMethod])
def test_a_step_passes_around_an_estimator_of_scores(wrap: Any) -> None:
    """Draws made by a scheme, and a control variate without a slope: right, so not refused."""
    estimator = wrap(sf.ScoreFunction(sf.ConstantBaseline(0.3)))

    def loss(mean: jax.Array) -> jax.Array:
        plane = distrax.MultivariateNormalDiag(mean, jnp.ones(2))
        step = lambda x: jnp.where(jnp.sum(x) > 1, 1.0, 0.0)  # noqa: E731
        return sf.expectation(step, plane, jax.random.key(0), estimator, num_samples=4096)

    exact = np.exp(-((1 - 0.6) ** 2) / 4) / np.sqrt(4 * np.pi)
    # The largest deviation of one term is below 3: 0.33 is 7 standard errors, P < 1e-11.
    np.testing.assert_allclose(jax.grad(loss)(jnp.array([0.3, 0.3])), exact, atol=0.33)
