"""Sequences: scores in scans, loops and branches; rollouts; chains by forward recursion."""

import itertools
from collections.abc import Callable
from typing import Any

import distrax
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import FAST, Noise, assert_close, derivatives, hermite, pieces, scale
from support.noise import noise_keys

import scorefn as sf

x64 = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)
NONE = sf.ScoreFunction(sf.ConstantBaseline(0.0))


def fast(fn: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(fn, compiler_options=FAST)


# ------------------------------------------------------- attach_score in loops, every path there is

PARAMS = {"start": np.array(0.3), "drift": np.array([0.4, -0.8]), "price": np.array(1.2)}
STEPS = 3
PATHS = np.array(list(itertools.product((0.0, 1.0), repeat=STEPS)))


def logit_of(p: Any, state: jax.Array) -> jax.Array:
    return p["start"] + p["drift"][0] * state + p["drift"][1] * jnp.sin(state)


def move(p: Any, state: jax.Array, bit: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The next state and what the move costs."""
    state = 0.5 * state + 2 * bit - 1
    return state, (state - p["price"]) ** 2 + p["price"] * bit


def log_prob_of(p: Any, state: jax.Array, bit: jax.Array) -> jax.Array:
    return jax.nn.log_sigmoid((2 * bit - 1) * logit_of(p, state))


def along(p: Any, bits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The log-probability of a path, and its costs."""
    state, log_prob, costs = jnp.zeros(()), jnp.zeros(()), []
    for bit in bits:
        log_prob += log_prob_of(p, state, bit)
        state, cost = move(p, state, bit)
        costs.append(cost)
    return log_prob, jnp.stack(costs)


def expected(p: Any) -> jax.Array:
    log_probs, costs = jax.vmap(lambda bits: along(p, bits))(jnp.asarray(PATHS))
    return jnp.exp(log_probs) @ costs.sum(1)


def by_scan(p: Any, bits: jax.Array) -> jax.Array:
    def body(carry: Any, bit: jax.Array) -> tuple[Any, jax.Array]:
        state, log_prob = carry
        log_prob += log_prob_of(p, state, bit)
        state, cost = move(p, state, bit)
        return (state, log_prob), sf.attach_score(cost, log_prob)

    return jax.lax.scan(body, (jnp.zeros(()), jnp.zeros(())), bits)[1].sum()


def by_while_loop(p: Any, bits: jax.Array) -> jax.Array:
    def body(carry: Any) -> Any:
        t, state, log_prob, total = carry
        log_prob += log_prob_of(p, state, bits[t])
        state, cost = move(p, state, bits[t])
        return t + 1, state, log_prob, total + sf.attach_score(cost, log_prob, 0.5)

    start = (0, jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))
    return jax.lax.while_loop(lambda carry: carry[0] < STEPS, body, start)[3]


def by_cond(p: Any, bits: jax.Array) -> jax.Array:
    # The score is attached on one side, and in the other form on the other side.
    log_prob, costs = along(p, bits)
    return jax.lax.cond(
        bits[0] > 0,
        lambda: sf.attach_score(costs.sum(), log_prob),
        lambda: sf.attach_score(costs, jnp.stack([log_prob] * STEPS)).sum(),
    )


@x64
@pytest.mark.parametrize(
    ("form", "reverse"), [(by_scan, True), (by_while_loop, False), (by_cond, True)]
)
def test_scores_attached_in_traced_loops_are_exact(form: Any, *, reverse: bool) -> None:
    def hessian(fn: Callable[[Any], jax.Array], p: Any) -> list[jax.Array]:
        # A while_loop goes forward only.
        if reverse:
            return derivatives(fn, p, 2)
        flat, unravel = jax.flatten_util.ravel_pytree(p)
        g = lambda flat: fn(unravel(flat))  # noqa: E731
        return [g(flat), jax.jacfwd(g)(flat), jax.jacfwd(jax.jacfwd(g))(flat)]

    @fast
    def run() -> Any:
        paths = jnp.asarray(PATHS)
        weights = jnp.exp(jax.vmap(lambda bits: along(PARAMS, bits)[0])(paths))
        each = jax.vmap(lambda bits: hessian(lambda p: form(p, bits), PARAMS))(paths)
        return [jnp.tensordot(weights, v, 1) for v in each], derivatives(expected, PARAMS, 2)

    mean, exact = run()
    for one, other in zip(mean, exact, strict=True):
        np.testing.assert_allclose(one.ravel(), other.ravel(), rtol=0, atol=1e-13 * scale(exact))


# ---------------------------------------------------------------------------------------- rollouts


def step_of(p: Any, *, baseline: bool = False, cost_on_the_way: bool = False) -> Any:
    def step(state: jax.Array, _: Any) -> Any:
        value = 0.4 * state + 1.5 if baseline else 0.0
        reinforce = sf.ScoreFunction(sf.ConstantBaseline(value))
        bit = yield sf.sample(sf.Bernoulli(logit_of(p, state)), reinforce)
        state, cost = move(p, state, bit)
        if cost_on_the_way:
            yield sf.cost(cost)
            return state, None
        return state, cost

    return step


def coin(*logits: Any) -> Noise:
    return pieces(*(1 / (1 + np.exp(-float(x))) for x in logits))


def keys_with(places: dict[int, Noise], size: int) -> tuple[jax.Array, np.ndarray]:
    """A key for each outcome of draws that find their noise at given places, and its weight."""
    rules = list(places.values())
    rows = np.array(list(itertools.product(*(range(len(rule.points)) for rule in rules))))
    uniforms, weights = np.full((len(rows), size), 0.5), np.ones(len(rows))
    for at, rule, row in zip(places, rules, rows.T, strict=True):
        uniforms[:, at] = rule.points[row, 0]
        weights *= rule.weights[row]
    return noise_keys(uniforms), weights


def path_keys() -> tuple[jax.Array, np.ndarray]:
    """A key for every path: in each step the second half of the noise is for its draw."""
    logits = []
    for before in itertools.chain(*(itertools.product((0, 1), repeat=n) for n in range(STEPS))):
        state = jnp.zeros(())
        for b in before:
            state, _ = move(PARAMS, state, b)
        logits.append(logit_of(PARAMS, state))
    return keys_with({2 * t + 1: coin(*logits) for t in range(STEPS)}, 2 * STEPS)


@x64
@pytest.mark.parametrize("options", [{}, {"baseline": True}, {"cost_on_the_way": True}], ids=str)
def test_a_rollout_is_exact(options: Any) -> None:
    chunk_size = 1 if options else None

    def loss(p: Any, key: jax.Array) -> jax.Array:
        run = sf.rollout(step_of(p, **options), jnp.zeros(()), length=STEPS, chunk_size=chunk_size)
        return run(key)[1].sum()

    keys, weights = path_keys()

    @fast
    def run(keys: jax.Array, weights: jax.Array) -> Any:
        each = jax.vmap(lambda key: derivatives(lambda p: loss(p, key), PARAMS, 2))(keys)
        return [jnp.tensordot(weights, v, 1) for v in each], derivatives(expected, PARAMS, 2)

    mean, exact = run(keys, weights)
    assert_close(mean, exact, atol=1e-13 * scale(exact))


@x64
def test_each_choice_of_a_rollout_is_weighed_by_its_cost_to_go() -> None:
    def costs_and_states(p: Any) -> Any:
        def step(state: jax.Array, _: Any) -> Any:
            value = sf.ConstantBaseline(0.4 * state + 1.5)
            bit = yield sf.sample(sf.Bernoulli(logit_of(p, state)), sf.ScoreFunction(value))
            after, _ = move(p, state, bit)
            _, cost = move(PARAMS, state, bit)
            return (after, cost)

        return sf.rollout(step, jnp.zeros(()), length=6)(KEY)

    flat, unravel = jax.flatten_util.ravel_pytree(PARAMS)
    gradient = fast(jax.grad(lambda flat: costs_and_states(unravel(flat))[1].sum()))(flat)

    # The same draws by the same keys, written out.
    state, scores, weights, costs = jnp.zeros(()), [], [], []
    for key in jax.random.split(KEY, 6):
        bit = sf.Bernoulli(logit_of(PARAMS, state)).sample(jax.random.split(key)[1])
        score = jax.grad(lambda flat, s=state, b=bit: log_prob_of(unravel(flat), s, b))(flat)
        scores.append(score)
        weights.append(-(0.4 * state + 1.5))
        state, cost = move(PARAMS, state, bit)
        costs.append(cost)
    to_go = np.cumsum(np.array(costs)[::-1])[::-1]
    desired = (to_go + np.array(weights)) @ np.array(scores)
    np.testing.assert_allclose(gradient, desired, rtol=0, atol=1e-12)


@x64
def test_a_rollout_between_two_choices_of_a_program_is_exact() -> None:
    # A coin, two steps (one coin and one Gaussian by its path each), and a coin at the end.
    params = {"first": np.array(0.4), "step": np.array([0.3, 0.7]), "last": np.array(-0.5)}

    def step(p: Any) -> Any:
        def body(state: jax.Array, _: Any) -> Any:
            coin = sf.ScoreFunction(sf.ConstantBaseline(0.2 * state))
            bit = yield sf.sample(sf.Bernoulli(p["step"][0] + 0 * state), coin)
            z = yield sf.sample(distrax.Normal(p["step"][1] * bit, 1.0), sf.Pathwise())
            return state + z, bit * z

        return body

    @sf.program
    def model(p: Any) -> Any:
        first = yield sf.sample(sf.Bernoulli(p["first"]), NONE)
        state = yield sf.rollout(step(p), first, length=2)
        last = yield sf.sample(sf.Bernoulli(p["last"]), NONE)
        return last * state**2 + first * p["last"]

    def exact(p: Any) -> jax.Array:
        a, b, c = (jax.nn.sigmoid(x) for x in (p["first"], p["step"][0], p["last"]))
        mean = b * p["step"][1]
        variance = 1 + p["step"][1] ** 2 * b * (1 - b)
        square = 2 * variance + a * (1 - a) + (a + 2 * mean) ** 2
        return 2 * mean + c * square + a * p["last"]

    # Where each draw finds its noise, in a key of 32: halves of halves.
    bit, normal = coin(0.3), hermite(3)
    places = {0: coin(0.4), 18: bit, 17: normal, 22: bit, 21: normal, 24: coin(-0.5)}
    keys, weights = keys_with(places, 32)

    @fast
    def run(keys: jax.Array, weights: jax.Array) -> Any:
        each = jax.vmap(lambda key: derivatives(lambda p: model(p)(key), params, 2))(keys)
        return [jnp.tensordot(weights, v, 1) for v in each], derivatives(exact, params, 2)

    mean, wanted = run(keys, weights)
    assert_close(mean, wanted, atol=1e-12 * scale(wanted))


def test_a_rollout_scans_over_inputs_and_gives_the_last_carry_and_log_prob() -> None:
    def step(state: Any, x: Any) -> Any:
        yield sf.sample(sf.Bernoulli(x["logit"]), NONE)
        return state + x["add"], None

    xs = {"logit": jnp.zeros(6), "add": jnp.arange(6.0)}
    state, costs, log_prob = fast(sf.rollout(step, jnp.zeros(()), xs))(KEY)
    assert state == 15
    np.testing.assert_array_equal(costs, np.zeros(6))
    np.testing.assert_allclose(log_prob, 6 * np.log(0.5), rtol=1e-6, atol=0)


def test_an_impossible_draw_keeps_the_scores_of_the_others() -> None:
    # Of three steps the second draws what its density excludes.
    def step(logit: jax.Array) -> Any:
        def body(state: jax.Array, possible: jax.Array) -> Any:
            def log_prob(logit: jax.Array, _: Any) -> jax.Array:
                return jnp.where(possible, logit, -jnp.inf)

            one = sf.Distribution(log_prob, lambda logit, _: jnp.ones_like(logit), logit)
            yield sf.sample(one, NONE)
            return state, 1.0

        return body

    def total(logit: jax.Array) -> jax.Array:
        possible = jnp.array([True, False, True])
        return sf.rollout(step(logit), 0.0, possible)(KEY)[1].sum()

    value, gradient = fast(jax.value_and_grad(total))(0.3)
    assert value == 3
    assert gradient == 3 + 1


def test_memory_grows_with_chunks_and_not_with_steps() -> None:
    length, size = 1024, 256

    def loss(p: jax.Array, chunk_size: int | None) -> jax.Array:
        def step(state: jax.Array, _: Any) -> Any:
            bit = yield sf.sample(sf.Bernoulli(jnp.mean(state)), NONE)
            state = jnp.tanh(state * p + bit)
            return state, jnp.sum(state)

        run = sf.rollout(step, jnp.ones(size), length=length, chunk_size=chunk_size)
        return run(KEY)[1].sum()

    def compiled(chunk_size: int | None) -> Any:
        grad = jax.jit(jax.grad(lambda p: loss(p, chunk_size)))
        return grad.lower(jnp.full(size, 0.9)).compile(compiler_options=FAST)

    whole, chunked = compiled(None), compiled(32)
    np.testing.assert_allclose(chunked(jnp.full(size, 0.9)), whole(jnp.full(size, 0.9)), rtol=1e-5)
    used = [c.memory_analysis().temp_size_in_bytes for c in (whole, chunked)]
    # One carry of each of 32 chunks and those of one chunk, for all carries of all steps.
    assert used[1] < used[0] / 8, used


def test_a_rollout_refuses_what_it_cannot_do() -> None:
    def step_with(estimator: sf.Estimator, cost: Any = 0.0, **options: Any) -> Any:
        def step(state: Any, _: Any) -> Any:
            yield sf.sample(sf.Bernoulli(jnp.zeros(())), estimator, **options)
            return state, cost

        return step

    def run(step: Any, **options: Any) -> Any:
        return jax.eval_shape(sf.rollout(step, 0.0, **{"length": 2} | options), KEY)

    learned = sf.ScoreFunction(sf.LearnedBaseline(jnp.multiply, jnp.ones(()), jnp.ones(())))
    for estimator in (sf.DisARM(), sf.Enumerate(), learned, sf.ScoreFunction()):
        with pytest.raises(TypeError, match=r"must be Pathwise.*ConstantBaseline\(0.0\)"):
            run(step_with(estimator))
    with pytest.raises(ValueError, match="got num_samples=3. For several trajectories use jax"):
        run(step_with(NONE, num_samples=3))
    with pytest.raises(
        ValueError, match=r"cost of a step must be one real number, got shape \(2,\)"
    ):
        run(step_with(NONE, cost=jnp.zeros(2)))
    with pytest.raises(TypeError, match="must be a generator function"):
        run(lambda state, _: (state, 0.0))
    with pytest.raises(ValueError, match="must give one number of steps, got None"):
        run(step_with(NONE), length=None)
    with pytest.raises(ValueError, match=r"number of steps, got \[2, 3\]"):
        sf.rollout(step_with(NONE), 0.0, jnp.zeros(3), length=2)
    with pytest.raises(ValueError, match="chunk_size must divide the 6 steps, got 4"):
        run(step_with(NONE), length=6, chunk_size=4)


# ------------------------------------------------------------------------------- forward recursion

HMM = {
    "start": np.array([0.2, -0.5, 0.7]),
    "move": np.array([[0.1, 1.0, -0.3], [0.5, -0.2, 0.4], [-1.0, 0.3, 0.8]]),
    "seen": np.array([-1.0, 0.2, 1.5]),
    "price": np.array([2.0, -1.0, 0.5]),
}
SEEN = np.array([0.3, -0.8, 1.1, 0.4])


def hmm(p: Any, length: int, *, weighted: bool = True) -> tuple[jax.Array, jax.Array]:
    return sf.forward_recursion(
        lambda z, t: p["price"][z] * (1 + 0.5 * t),
        sf.Categorical(p["start"]),
        lambda z, t: sf.Categorical(p["move"][z] + 0.1 * t),
        length=length,
        log_weight=(lambda z, t: -((p["seen"][z] - jnp.asarray(SEEN)[t % 4]) ** 2))
        if weighted
        else None,
    )


@x64
@pytest.mark.parametrize("weighted", [True, False])
def test_a_hidden_markov_model_is_the_sum_over_all_paths(*, weighted: bool) -> None:
    paths = jnp.array(list(itertools.product(range(3), repeat=4)))

    def by_paths(p: Any) -> tuple[jax.Array, jax.Array]:
        def of(path: jax.Array) -> tuple[jax.Array, jax.Array]:
            log_prob = jax.nn.log_softmax(p["start"])[path[0]]
            for t in range(1, 4):
                log_prob += jax.nn.log_softmax(p["move"][path[t - 1]] + 0.1 * t)[path[t]]
            weight = -((p["seen"][path] - SEEN) ** 2).sum() if weighted else 0.0
            return log_prob + weight, p["price"][path] @ (1 + 0.5 * jnp.arange(4))

        log_weights, costs = jax.vmap(of)(paths)
        return jax.nn.logsumexp(log_weights), jax.nn.softmax(log_weights) @ costs

    @fast
    def run() -> Any:
        return [
            derivatives(fn, HMM, 2) for fn in (lambda p: hmm(p, 4, weighted=weighted), by_paths)
        ]

    found, exact = run()
    assert_close(found, exact, atol=1e-12 * scale(exact))


@x64
def test_impossible_states_and_long_chains_keep_finite_derivatives() -> None:
    def value(p: Any) -> Any:
        forbidden = jnp.array([0.0, 0.0, -jnp.inf])
        return sf.forward_recursion(
            lambda z, _: p[z],
            sf.Categorical(p + forbidden),
            lambda z, _: sf.Categorical(p * z + forbidden),
            length=2000,
            log_weight=lambda z, t: jnp.where((z == 0) & (t == 7), -jnp.inf, p[1] * z),
        )

    found, gradient = fast(lambda p: (value(p), jax.jacrev(value)(p)))(jnp.array([0.3, -0.2, 0.9]))
    assert all(np.isfinite(x).all() for x in (*found, *gradient))
    np.testing.assert_array_equal(np.array(gradient)[:, 2], 0)


@x64
def test_what_no_path_can_do_is_impossible_without_nan() -> None:
    def value(p: jax.Array) -> Any:
        return sf.forward_recursion(
            lambda z, _: p * z,
            sf.Bernoulli(p),
            lambda *_: sf.Bernoulli(p),
            length=3,
            log_weight=lambda _, t: jnp.where(t == 1, -jnp.inf, p),
        )

    found, gradient = fast(lambda p: (value(p), jax.jacrev(value)(p)))(jnp.array(0.3))
    np.testing.assert_array_equal(found, [-np.inf, 0])
    np.testing.assert_array_equal(gradient, [0, 0])


@x64
def test_a_support_of_pytrees_and_a_chain_of_one() -> None:
    states = {"x": jnp.array([0.0, 1.0, 0.0, 1.0]), "y": jnp.array([0.0, 0.0, 1.0, 1.0])}

    def log_prob(p: Any, z: Any) -> jax.Array:
        return sf.Bernoulli(p).log_prob(z["x"]) + sf.Bernoulli(2 * p).log_prob(z["y"])

    pair = sf.Distribution(log_prob, lambda *_: None, jnp.array(0.3))
    log_normaliser, found = sf.forward_recursion(
        lambda z, _: 3 * z["x"] + z["y"], pair, lambda *_: pair, length=1, support=states
    )
    np.testing.assert_allclose(log_normaliser, 0, rtol=0, atol=1e-15)
    one = 1 / (1 + np.exp(-np.array([0.3, 0.6])))
    np.testing.assert_allclose(found, one @ [3.0, 1.0], rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match="Enumerate cannot read the support of"):
        sf.forward_recursion(lambda *_: 0.0, pair, lambda *_: pair, length=2)
    with pytest.raises(ValueError, match=r"cost must return one number, got shape \(2,\)"):
        sf.forward_recursion(
            lambda *_: jnp.zeros(2), sf.Bernoulli(0.1), lambda *_: sf.Bernoulli(0.1), length=2
        )


# --------------------------------------------------------------------------------------- the carry


def coins(logit: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Three coins added up; the cost of each step is that of the program, too."""

    def step(total: jax.Array, _: Any) -> Any:
        coin = yield sf.sample(sf.Bernoulli(logit), NONE)
        return total + coin, total

    return sf.rollout(step, jnp.zeros(()), length=3)(key)


def in_scan(fn: Any) -> Any:
    return lambda x: jax.lax.scan(lambda t, _: (t + fn(x), None), 0.0, length=2)[0]


@pytest.mark.parametrize("around", [lambda fn: fn, jax.jit, jax.checkpoint, in_scan])
def test_a_cost_of_the_carry_that_a_rollout_returns_has_no_gradient_but_an_error(
    around: Any,
) -> None:
    cost = around(lambda logit: coins(logit, KEY)[0] ** 2)
    with pytest.raises(TypeError, match="carry that a rollout returns.*Yield the rollout in a pr"):
        jax.grad(cost)(0.5)
    # Forward mode computes it unasked, and marks it.
    assert np.isnan(jax.jacfwd(cost)(0.5))
    assert np.isnan(jax.jacfwd(jax.jacfwd(cost))(0.5))
    jax.eval_shape(cost, 0.5)


def in_ys(fn: Any) -> Any:
    return lambda x: jax.lax.scan(lambda _, __: (None, fn(x)), None, length=2)[1]


@pytest.mark.parametrize("around", [lambda fn: fn, jax.jit, jax.checkpoint, jax.vmap, in_ys])
def test_a_carry_that_is_not_used_refuses_nothing(around: Any) -> None:
    many = (lambda x: jnp.stack([x, x])) if around is jax.vmap else (lambda x: x)

    def loss(logit: jax.Array) -> tuple[jax.Array, jax.Array]:
        carry, costs, _ = around(lambda logit: coins(logit, KEY))(many(logit))
        return jnp.sum(costs), carry

    gradient, carry = jax.grad(loss, has_aux=True)(0.5)
    assert np.isfinite(gradient)
    assert np.all(carry == coins(0.5, KEY)[0])
    assert np.isfinite(jax.jacfwd(lambda logit: loss(logit)[0])(0.5))
    assert np.isfinite(jax.hessian(lambda logit: loss(logit)[0])(0.5))


@x64
def test_costs_of_the_carry_are_right_in_a_program_and_by_attach_score() -> None:
    """The expected square of the sum of three coins, over all draws of them."""

    def exact(logit: jax.Array) -> jax.Array:
        p = jax.nn.sigmoid(logit)
        return 3 * p * (1 - p) + 9 * p**2

    def step(logit: jax.Array) -> Any:
        def step(total: jax.Array, _: Any) -> Any:
            coin = yield sf.sample(sf.Bernoulli(logit), NONE)
            return total + coin, None

        return step

    @sf.program
    def by_program(logit: jax.Array) -> Any:
        total = yield sf.rollout(step(logit), jnp.zeros(()), length=3)
        return total**2

    def by_score(logit: jax.Array, key: jax.Array) -> jax.Array:
        carry, _, log_prob = sf.rollout(step(logit), jnp.zeros(()), length=3)(key)
        return sf.attach_score(jax.lax.stop_gradient(carry) ** 2, log_prob)

    keys = jax.random.split(KEY, 2000)
    for run in (lambda logit, key: by_program(logit)(key), by_score):
        gradients = fast(jax.vmap(jax.grad(run), (None, 0)))(0.5, keys)
        error = np.std(gradients) / np.sqrt(len(keys))
        assert abs(np.mean(gradients) - jax.grad(exact)(0.5)) < 6.2 * error  # alpha = 1e-9
