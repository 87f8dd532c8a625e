"""docs/programs.md: its code runs, and its examples have the gradients that sums give."""

import itertools
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import FAST

PAGE = Path(__file__).parents[2] / "docs" / "programs.md"
KEYS = jax.random.split(jax.random.key(17), 10_000)


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the code of the page defines, run from top to bottom."""
    # Compiled for one run: the time of this file is that of the compiler.
    scope: dict[str, Any] = {"fast": partial(jax.jit, compiler_options=FAST)}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block.replace("jax.jit(", "fast("), scope)
    return scope


def moments(loss: Callable[..., Any], params: Any, keys: jax.Array = KEYS) -> tuple[Any, Any]:
    """Mean of value and gradient over keys, and the standard error of it."""

    @partial(jax.jit, compiler_options=FAST)
    def run(keys: jax.Array) -> Any:
        draws = jax.lax.map(
            lambda key: jax.value_and_grad(loss)(params, key), keys, batch_size=1000
        )
        mean = jax.tree.map(lambda x: x.mean(0), draws)
        return mean, jax.tree.map(lambda x: x.std(0) / len(keys) ** 0.5, draws)

    return run(keys)


def assert_means(found: Any, error: Any, exact: Any) -> None:
    # 6.2 standard errors: a false alarm of 6e-10 each; beyond it, what float32 rounds.
    for f, e, x in zip(*map(jax.tree.leaves, (found, error, exact)), strict=True):
        assert np.all(np.abs(f - x) <= 6.2 * e + 1e-4 * (1 + np.abs(x))), (f, e, x)


def test_every_example_has_a_finite_gradient_that_is_not_zero(page: dict[str, Any]) -> None:
    names = [name for name in page if name.endswith("gradient")]
    assert len(names) == 8
    for name in names:
        leaves = jax.tree.leaves(page[name])
        assert all(np.isfinite(leaf).all() for leaf in leaves), name
        assert any(np.any(leaf != 0) for leaf in leaves), name


def test_the_hessian_of_the_first_example_raises(page: dict[str, Any]) -> None:
    params = {"mean": 0.5, "slope": 1.0}
    with pytest.raises(TypeError, match="DisARM is right to first order only"):
        jax.eval_shape(jax.hessian(page["loss"]), params, KEYS[0])


def test_the_mixture_is_its_quadrature(page: dict[str, Any]) -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    normal, xs = page["normal"], page["xs"]

    def exact(params: Any) -> jax.Array:
        def of(x: jax.Array, k: int) -> jax.Array:
            log_q = jax.nn.log_softmax(params["assign"] * x)[k]
            scale = jnp.exp(params["log_scale"][k])
            centre = params["mean"][k] + params["gain"] * x
            z = centre + scale * nodes
            log_joint = -jnp.log(3.0) + normal(z, params["centre"][k], 1.0) + normal(x, z, 0.5)
            cost = log_q + normal(z, centre, scale) - log_joint
            return jnp.exp(log_q) * (weights / weights.sum()) @ cost

        return sum(of(x, k) for x in xs for k in range(3)) / len(xs)

    mean, error = moments(page["free_energy"], page["params"])
    assert_means(
        mean, error, jax.jit(jax.value_and_grad(exact), compiler_options=FAST)(page["params"])
    )


def test_the_graph_and_its_matrix_form_are_the_sum_over_their_coins(page: dict[str, Any]) -> None:
    def exact(p: jax.Array) -> jax.Array:
        total = jnp.zeros(())
        for a, b, c in itertools.product((0.0, 1.0), repeat=3):
            logits = zip((a, b, c), (p[0], p[1] + a, p[2] - a), strict=True)
            prob = jnp.prod(jnp.stack([jax.nn.sigmoid((2 * x - 1) * y) for x, y in logits]))
            total += prob * (10.0 * (b - 0.3) ** 2 + c + p[0] * c)
        return total

    wanted = jax.jit(jax.value_and_grad(exact), compiler_options=FAST)(page["graph_params"])
    spread = {}
    for name, loss in (
        ("program", lambda p, key: page["graph"](p)(key)),
        ("matrix", page["by_hand"]),
    ):
        mean, error = moments(loss, page["graph_params"])
        assert_means(mean, error, wanted)
        spread[name] = error[1]
    # The same credit, so the same variance.
    np.testing.assert_allclose(spread["program"], spread["matrix"], rtol=0.05)


def test_the_count_is_the_sum_over_counts(page: dict[str, Any]) -> None:
    # Everything but the coins is reparameterised, so that they can be summed instead of drawn.
    image, params = page["image"], page["air_params"]
    text = PAGE.read_text()
    body = re.search(r"```python\n(@sf.program\ndef air.*?)\n\n\nimage", text, re.DOTALL)[1]
    scope = dict(page)
    exec(body.replace("sf.ScoreFunction(), num_samples=2", "sf.Enumerate()"), scope)
    mean, error = moments(lambda p, key: page["air"](p, image)(key), params, KEYS[:2000])
    summed, summed_error = moments(
        lambda p, key: scope["air"](p, image)(key), params, KEYS[2000:4000]
    )
    both = jax.tree.map(lambda a, b: jnp.hypot(a, b), error, summed_error)
    assert_means(mean, both, summed)


def test_the_population_is_its_markov_chain(page: dict[str, Any]) -> None:
    """Whole individuals, 0 to 200: the distribution of each generation, exactly."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    sizes = jnp.arange(201.0)

    def exact(p: Any) -> jax.Array:
        harvest = jax.nn.sigmoid(p["harvest"])

        def births(size: jax.Array) -> jax.Array:
            edges = jnp.concatenate([jnp.array([-1e4]), sizes[1:] - 0.5, jnp.array([1e4])])
            mean = 1.05 * size * (1 - harvest)
            return jnp.diff(jax.scipy.stats.norm.cdf(edges, mean, jnp.sqrt(size + 1)))

        first = jax.vmap(births)(20.0 + p["start"] + nodes)
        chances = (weights / weights.sum()) @ first
        move = jax.vmap(births)(sizes)

        def generation(chances: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            return chances @ move, chances @ sizes

        last, means = jax.lax.scan(generation, chances, None, length=99)
        return -harvest * (means.sum() + last @ sizes) + 100.0 * last[0]

    params = page["simulator_params"]
    wanted = jax.jit(jax.value_and_grad(exact), compiler_options=FAST)(params)
    mean, error = moments(lambda p, key: page["population"](p)(key), params, KEYS[:4000])
    assert_means(mean, error, wanted)
    # It can tell: the errors are small beside what they are errors of.
    for e, w in zip(jax.tree.leaves(error), jax.tree.leaves(wanted), strict=True):
        assert e < 0.15 * abs(w)


def test_the_chain_is_the_sum_over_its_paths(page: dict[str, Any]) -> None:
    seen = np.array([0.9, 1.2, -0.7])

    def exact(p: Any) -> jax.Array:
        terms = []
        for path in itertools.product(range(2), repeat=3):
            log_prob = jax.nn.log_softmax(p["start"])[path[0]]
            for before, after in itertools.pairwise(path):
                log_prob += jax.nn.log_softmax(p["move"][before])[after]
            terms.append(log_prob + page["normal"](seen, p["emit"][jnp.array(path)], 1.0).sum())
        return jax.nn.logsumexp(jnp.stack(terms))

    found = page["hmm_gradient"]
    wanted = jax.jit(jax.grad(exact), compiler_options=FAST)(page["hmm_params"])
    for f, w in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-4, atol=1e-5)
