"""Exact means and variances of an estimator: every draw that there is, through the real keys.

One key that carries its own noise for each point of a tensor-product rule (the middle of each piece
of a finite distribution's inverse, Gauss-Hermite nodes for a Gaussian), each with its weight, gives
means and variances up to rounding.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.flatten_util import ravel_pytree
from support import gumbel
from support.noise import noise_keys

import scorefn as sf

PyTree = Any

# A program that runs once takes its time to compile: let that be short.
FAST = {"xla_backend_optimization_level": 0}


@dataclass(frozen=True)
class Noise:
    """A rule for the uniform numbers that one draw uses up.

    Attributes:
        points: [S, width], in (0, 1).
        weights: [S], which add up to 1.
    """

    points: np.ndarray
    weights: np.ndarray

    @property
    def width(self) -> int:
        return self.points.shape[1]

    def __pow__(self, n: int) -> "Noise":
        """The rule for n draws."""
        rows = np.array(list(itertools.product(range(len(self.points)), repeat=n)))
        points = self.points[rows].reshape(len(rows), -1)
        return Noise(points, np.prod(self.weights[rows], axis=1))

    def __mul__(self, other: "Noise") -> "Noise":
        """The rule for one draw that uses up both."""
        points = [[*a, *b] for a in self.points for b in other.points]
        return Noise(np.array(points), np.outer(self.weights, other.weights).ravel())


def pieces(*edges: float, order: int = 1) -> Noise:
    """Gauss-Legendre on each piece between edges: exact where a function is smooth on the pieces.

    With ``order=1``, the middles: exact for functions that are constant on each piece.
    """
    edges = np.unique([0.0, *edges, 1.0])
    nodes, weights = np.polynomial.legendre.leggauss(order)
    width, middle = np.diff(edges)[:, None], (edges[1:] + edges[:-1])[:, None] / 2
    points = (middle + width / 2 * nodes).reshape(-1, 1)
    return Noise(points, (width / 2 * weights).ravel())


def hermite(order: int) -> Noise:
    """Gauss-Hermite for one ``jax.random.normal``: exact up to degree ``2 * order - 1``."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    return Noise(scipy.special.ndtr(nodes)[:, None], weights / weights.sum())


def exact_moments(
    fn: Callable[[jax.Array], PyTree], noise: Noise, num_samples: int
) -> tuple[PyTree, PyTree]:
    """The exact mean and variance of ``fn(key)``, where fn folds the key into num_samples keys."""
    rule = noise**num_samples

    @partial(jax.jit, compiler_options=FAST)
    def run(keys: jax.Array, weights: jax.Array) -> tuple[PyTree, PyTree]:
        values = jax.vmap(fn)(keys)
        mean = jax.tree.map(lambda v: jnp.tensordot(weights, v, 1), values)
        squares = jax.tree.map(lambda v, m: jnp.square(v - m), values, mean)
        return mean, jax.tree.map(lambda v: jnp.tensordot(weights, v, 1), squares)

    return run(noise_keys(rule.points, noise.width), rule.weights)


def folded(key: jax.Array, num_samples: int) -> jax.Array:
    """The keys of the samples, [num_samples]."""
    return jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(num_samples, dtype=jnp.uint32))


# --------------------------------------------------------------------------------------- problems


@dataclass(frozen=True, eq=False)
class Problem:
    """An expectation of which all is known, away from every optimum and symmetry.

    Attributes:
        distribution: ``distribution(params)``.
        f: ``f(params)(x)``, which depends on params as well.
        params: a pytree of numpy arrays.
        expected: ``expected(params)``, the exact expectation, written without the library.
        noise: the rule for one draw at params.
        support: every value of a draw, or None.
    """

    distribution: Callable[[PyTree], Any]
    f: Callable[[PyTree], Callable[[Any], PyTree]]
    params: PyTree
    expected: Callable[[PyTree], PyTree]
    noise: Noise
    support: PyTree = None

    def in_dtype(self, dtype: Any) -> "Problem":
        return replace(self, params=jax.tree.map(lambda p: jnp.asarray(p, dtype), self.params))

    def terms(self, estimator: sf.Estimator) -> Callable[[PyTree, jax.Array], PyTree]:
        """``fn(params, keys)``: the terms of an estimator."""
        return lambda params, keys: estimator(self.f(params), self.distribution(params), keys)

    def estimate(
        self, estimator: sf.Estimator, **options: Any
    ) -> Callable[[PyTree, jax.Array], PyTree]:
        """``fn(params, key)``: `expectation` of this problem."""

        def estimate(params: PyTree, key: jax.Array) -> PyTree:
            distribution = self.distribution(params)
            return sf.expectation(self.f(params), distribution, key, estimator, **options)

        return estimate


def derivatives(fn: Callable[[PyTree], PyTree], params: PyTree, order: int) -> list[jax.Array]:
    """Value, gradient, Hessian ... of a pytree-valued function, as flat arrays."""
    flat, unravel = ravel_pytree(params)

    def up_to(order: int) -> Callable[[jax.Array], list[jax.Array]]:
        if order == 0:
            return lambda flat: [ravel_pytree(fn(unravel(flat)))[0]]
        lower = up_to(order - 1)
        jacobian = jax.jacrev if order == 1 else jax.jacfwd

        def value_and_lower(flat: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
            values = lower(flat)
            return values[-1], values

        def both(flat: jax.Array) -> list[jax.Array]:
            highest, values = jacobian(value_and_lower, has_aux=True)(flat)
            return [*values, highest]

        return both

    return up_to(order)(flat)


@cache
def exact_derivatives(problem: Problem, order: int) -> list[jax.Array]:
    """The exact value, gradient, Hessian ... of a problem."""
    run = jax.jit(
        lambda: derivatives(problem.expected, problem.params, order), compiler_options=FAST
    )
    return run()


def _inverse(probs: jax.Array, uniform: jax.Array) -> jax.Array:
    """A draw of a categorical distribution from a uniform number."""
    return jnp.sum(uniform > jnp.cumsum(probs)[:-1]).astype(jnp.int32)


def _finite(
    distribution: Callable[[PyTree], Any],
    f: Callable[[PyTree], Callable[[Any], PyTree]],
    params: PyTree,
    probs: Callable[[PyTree], list[jax.Array]],
    support: PyTree,
) -> Problem:
    """A problem of independent factors, with the probabilities of each."""

    def expected(params: PyTree) -> PyTree:
        values = jax.vmap(f(params))(jax.tree.map(jnp.asarray, support))
        weights = _joint_probs(probs(params))
        return jax.tree.map(lambda v: jnp.tensordot(weights, v, 1), values)

    rules = [pieces(*np.cumsum(p)[:-1]) for p in probs(params)]
    noise = rules[0]
    for rule in rules[1:]:
        noise = noise * rule
    return Problem(distribution, f, params, expected, noise, support)


def _joint_probs(factors: list[jax.Array]) -> jax.Array:
    """The joint probabilities of independent factors, in the order of itertools.product."""
    joint = factors[0]
    for factor in factors[1:]:
        joint = (joint[:, None] * factor).reshape(-1)
    return joint


def _softmax(logits: Any) -> Any:
    numpy = np if isinstance(logits, np.ndarray) else jnp
    weights = numpy.exp(logits)
    return weights / weights.sum()


def _categorical() -> Problem:
    table = np.array([5.0, 7.5, 2.0])

    def log_prob(params: PyTree, x: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(params["logits"])[x]

    def sample(params: PyTree, key: jax.Array) -> jax.Array:
        probs = jax.nn.softmax(params["logits"])
        return _inverse(probs, jax.random.uniform(key, dtype=probs.dtype))

    def f(params: PyTree) -> Callable[[Any], PyTree]:
        def cost(x: jax.Array) -> PyTree:
            shift, value = params["shift"], x.astype(params["shift"].dtype)
            first = jnp.asarray(table, shift.dtype)[x] + shift * params["logits"][0] * value
            return {"scalar": first, "pair": jnp.stack([first**2, jnp.sin(shift * value)])}

        return cost

    return _finite(
        lambda params: sf.Distribution(log_prob, sample, params),
        f,
        {"logits": np.array([0.3, -0.5, 0.9]), "shift": np.array(0.7)},
        lambda params: [_softmax(params["logits"])],
        np.arange(3),
    )


def _joint() -> Problem:
    """A pytree of an integer and of two booleans."""

    def log_prob(params: PyTree, x: PyTree) -> jax.Array:
        signed = jnp.where(x["bits"], params["bits"], -params["bits"])
        return jax.nn.log_softmax(params["die"])[x["die"]] + jax.nn.log_sigmoid(signed).sum()

    def sample(params: PyTree, key: jax.Array) -> PyTree:
        uniforms = jax.random.uniform(key, (3,), params["die"].dtype)
        die = _inverse(jax.nn.softmax(params["die"]), uniforms[0])
        return {"die": die, "bits": uniforms[1:] > jax.nn.sigmoid(-params["bits"])}

    def f(params: PyTree) -> Callable[[Any], jax.Array]:
        def cost(x: PyTree) -> jax.Array:
            die, bits = (x[name].astype(params["die"].dtype) for name in ("die", "bits"))
            return (die + 2 * bits[0] - 3 * bits[1]) ** 2 + params["bits"][0] * bits[1] * die

        return cost

    rows = np.array(list(itertools.product(range(3), range(2), range(2))))
    return _finite(
        lambda params: sf.Distribution(log_prob, sample, params),
        f,
        {"die": np.array([0.2, -0.4, 0.1]), "bits": np.array([0.4, -0.7])},
        lambda params: [
            _softmax(params["die"]),
            *(_softmax(bit * np.array([-0.5, 0.5])) for bit in params["bits"]),
        ],
        {"die": rows[:, 0], "bits": rows[:, 1:].astype(bool)},
    )


def _bernoulli(coins: Callable[[jax.Array], Any] = sf.Bernoulli) -> Problem:
    """Two coins."""

    def f(params: PyTree) -> Callable[[Any], jax.Array]:
        def cost(x: jax.Array) -> jax.Array:
            bits = x.astype(params["logits"].dtype)
            return (bits[0] - 2 * bits[1] + 0.3) ** 2 + params["logits"][1] * bits[0]

        return cost

    def probs(params: PyTree) -> list[Any]:
        # A coin is 1 where the uniform number is BELOW the probability of 1.
        return [_softmax(logit * np.array([0.5, -0.5])) for logit in params["logits"]]

    return _finite(
        lambda params: coins(params["logits"]),
        f,
        {"logits": np.array([0.4, -0.7])},
        probs,
        np.array([[1, 1], [1, 0], [0, 1], [0, 0]]),
    )


def _category() -> Problem:
    """One record of the library, with a cost of its own for each category."""

    def f(params: PyTree) -> Callable[[Any], jax.Array]:
        table = jnp.array([5.0, 7.5, 2.0], params["logits"].dtype)
        return lambda x: table[x.astype(jnp.int32)] ** 2 / 8 + params["logits"][0] * table[1]

    return _finite(
        lambda params: sf.Categorical(params["logits"]),
        f,
        {"logits": np.array([0.3, -0.5, 0.9])},
        lambda params: [_softmax(params["logits"])],
        np.arange(3),
    )


def _enumerated(
    distribution: Callable[[PyTree], Any],
    rows: np.ndarray,
    weight: Callable[[jax.Array, Any], jax.Array],
    cost: Callable[[jax.Array], jax.Array],
    noise: Noise,
) -> Problem:
    """A structured draw of three logits, whose values [S, ...] are in proportion to weights."""

    def f(params: PyTree) -> Callable[[Any], jax.Array]:
        def of(x: jax.Array) -> jax.Array:
            x = x.astype(params["logits"].dtype)
            return cost(x) + params["logits"][1] * x[0]

        return of

    def expected(params: PyTree) -> PyTree:
        weights = jnp.stack([weight(jnp.exp(params["logits"]), row) for row in rows])
        values = [f(params)(jnp.asarray(row)) for row in rows]
        return jnp.stack(values) @ (weights / weights.sum())

    return Problem(distribution, f, {"logits": LOGITS}, expected, noise, rows)


LOGITS = np.array([0.3, -0.5, 0.9])


def _subset() -> Problem:
    """Two of three items."""
    rows = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    weights = np.prod(np.exp(LOGITS) ** rows, axis=1)
    # The first item is drawn by the first number; the second by the second, if one is missing.
    first, second = weights[:2].sum() / weights.sum(), weights[0] / weights[:2].sum()
    return _enumerated(
        lambda params: sf.Subset(params["logits"], 2),
        rows,
        lambda w, row: jnp.prod(jnp.where(row == 1, w, 1)),
        lambda x: (x[0] - 2 * x[1] + 0.5 * x[2] + 0.3) ** 2,
        pieces(first) * pieces(second) * pieces(),
    )


def _ranking() -> Problem:
    """The first two of three items, in order."""
    rows, points, weights = gumbel.draws(LOGITS, 2)
    return _enumerated(
        lambda params: sf.PlackettLuce(params["logits"], 2),
        np.array(rows),
        lambda w, row: w[row[0]] * w[row[1]] / (w.sum() - w[row[0]]),
        lambda x: (x[0] - 2 * x[1] + 0.3) ** 2,
        Noise(points, weights),
    )


def _path() -> Problem:
    """Two steps of a hidden Markov chain of two states."""

    def chain(params: PyTree) -> sf.MarkovChain:
        start, stay, weight = params["logits"]
        move = lambda z, _: sf.Bernoulli(stay * (2 * z - 1))  # noqa: E731
        see = lambda z, t: jnp.where(t == 1, weight * z, 0)  # noqa: E731
        return sf.MarkovChain(sf.Bernoulli(start), move, length=2, log_weight=see)

    def weight(w: Any, row: Any) -> Any:
        start = (w[0] if row[0] else 1) / (1 + w[0])
        return start * (w[1] if row[0] == row[1] else 1) / (1 + w[1]) * (w[2] if row[1] else 1)

    rows = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    weights = np.array([weight(np.exp(LOGITS), row) for row in rows])
    # The second number draws the last state, and the first one the state before it.
    before = [weights[0] / weights[:2].sum(), weights[2] / weights[2:].sum()]
    return _enumerated(
        chain,
        rows,
        weight,
        lambda x: (x[0] - 2 * x[1] + 0.3) ** 2,
        pieces(*before) * pieces(weights[:2].sum() / weights.sum()),
    )


def _point() -> Problem:
    """A point mass, for estimators that take f as a black box."""

    def f(params: PyTree) -> Callable[[Any], jax.Array]:
        return lambda x: jnp.sum(x**3) + params["shift"] * x[0]

    return Problem(
        lambda params: sf.Deterministic(params["value"]),
        f,
        {"value": np.array([0.5, -0.8]), "shift": np.array(0.7)},
        lambda params: f(params)(params["value"]),
        pieces(),
        np.array([[0.5, -0.8]]),
    )


def _normal_log_prob(x: jax.Array, mean: jax.Array, log_scale: jax.Array) -> jax.Array:
    z = (x - mean) * jnp.exp(-log_scale)
    return -0.5 * z**2 - log_scale - 0.5 * math.log(2 * math.pi)


def _gaussian() -> Problem:
    def log_prob(params: PyTree, x: jax.Array) -> jax.Array:
        return _normal_log_prob(x, params["mean"], params["log_scale"])

    def sample(params: PyTree, key: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, dtype=params["mean"].dtype)
        return params["mean"] + jnp.exp(params["log_scale"]) * noise

    def f(params: PyTree) -> Callable[[Any], PyTree]:
        mean = params["mean"]
        return lambda x: {"cubic": 0.5 * x**3 - 2 * x + mean * x, "square": (x - 3) ** 2 * mean}

    def expected(params: PyTree) -> PyTree:
        mean, variance = params["mean"], jnp.exp(2 * params["log_scale"])
        cubic = 0.5 * (mean**3 + 3 * mean * variance) - 2 * mean + mean**2
        return {"cubic": cubic, "square": ((mean - 3) ** 2 + variance) * mean}

    return Problem(
        lambda params: sf.Distribution(log_prob, sample, params),
        f,
        {"mean": np.array(0.8), "log_scale": np.array(-0.3)},
        expected,
        hermite(7),
    )


def _chain() -> Problem:
    """A pytree of two Gaussians, the second around a multiple of the first."""

    def log_prob(params: PyTree, x: PyTree) -> jax.Array:
        first = _normal_log_prob(x["z"], params["mean"], jnp.zeros_like(params["mean"]))
        return first + _normal_log_prob(x["y"], params["slope"] * x["z"], jnp.zeros_like(first))

    def sample(params: PyTree, key: jax.Array) -> PyTree:
        noise = jax.random.normal(key, (2,), params["mean"].dtype)
        z = params["mean"] + noise[0]
        return {"z": z, "y": params["slope"] * z + noise[1]}

    def expected(params: PyTree) -> jax.Array:
        mean, slope = params["mean"], params["slope"]
        return slope**2 * (mean**3 + 3 * mean) + mean + slope * mean

    return Problem(
        lambda params: sf.Distribution(log_prob, sample, params),
        lambda params: lambda x: x["z"] * x["y"] ** 2 + params["slope"] * x["z"],
        {"mean": np.array(0.6), "slope": np.array(-0.8)},
        expected,
        hermite(5) * hermite(5),
    )


PROBLEMS = {
    "categorical": _categorical,
    "joint": _joint,
    "bernoulli": _bernoulli,
    "distrax": lambda: _bernoulli(distrax.Bernoulli),
    "category": _category,
    "subset": _subset,
    "ranking": _ranking,
    "path": _path,
    "point": _point,
    "gaussian": _gaussian,
    "chain": _chain,
}

# ------------------------------------------------------------------------------------- comparing


def assert_close(actual: PyTree, desired: PyTree, *, atol: float) -> None:
    """Equal in structure, shape and dtype, and in value up to atol; nan never passes."""
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    leaves = list(zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(desired), strict=True))
    assert leaves, "two empty pytrees say nothing"
    for (path, a), d in leaves:
        name = jax.tree_util.keystr(path)
        assert jnp.result_type(a) == jnp.result_type(d), f"{name}: dtypes differ"
        assert jnp.shape(a) == jnp.shape(d), f"{name}: shapes differ"
        a, d = np.asarray(a, np.float64), np.asarray(d, np.float64)
        assert not np.any(np.isnan(a) | np.isnan(d)), f"{name}: nan in {a} or {d}"
        np.testing.assert_allclose(a, d, rtol=0, atol=atol, err_msg=name)


def scale(tree: PyTree) -> float:
    """The largest magnitude of a pytree, at least 1, to scale tolerances with."""
    return max(1.0, *(float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(tree)))
