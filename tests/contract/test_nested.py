"""Every wrapper around every estimator: unbiased, declared to be biased, or refused by name.

A landing is checked with some of the pairs; ``SWEEP=1`` tries all of them.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import Problem, derivatives
from support.matrix import SWEPT
from support.registry import ENTRIES, Entry, problem
from support.transformations import fast, loss_of

import scorefn as sf

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]


def _moments(params: Any) -> tuple[jax.Array, jax.Array]:
    return params["mean"], jnp.exp(params["log_scale"])


def _quantile(params: Any, u: jax.Array) -> jax.Array:
    mean, scale = _moments(params)
    return mean + scale * jax.scipy.special.ndtri(u)


def _known(kind: Any, **options: Any) -> Callable[[sf.Estimator], sf.Estimator]:
    mean = lambda bits: jnp.prod(jax.nn.sigmoid(bits.logits))  # noqa: E731
    return lambda inner: kind(inner, lambda x: x[0] * x[1], mean, **options)


def _minibatch(inner: sf.Estimator) -> sf.Estimator:
    slopes, curvatures = jnp.array([0.5, -1.0, 2.0]), jnp.array([1.0, 0.3, -0.2])
    stored = sf.DatumSurrogates(slopes, curvatures, jnp.sum(slopes), jnp.sum(curvatures))
    return sf.MinibatchControlVariate(inner, stored, jnp.arange(3), moments=_moments)


def _mirrored(params: Any, x: Any) -> Any:
    return 2 * params["mean"] - x


BITS, GAUSSIAN = ("bernoulli",), ("gaussian",)
WRAPPERS: dict[str, tuple[Callable[[sf.Estimator], sf.Estimator], tuple[str, ...]]] = {
    "Antithetic": (lambda inner: sf.Antithetic(inner, _mirrored), GAUSSIAN),
    "AntitheticBits": (sf.Antithetic, BITS),
    "ControlVariate": (_known(sf.ControlVariate, coefficient=0.7), BITS),
    "FittedControlVariate": (_known(sf.FittedControlVariate), BITS),
    "DeltaMethod": (lambda inner: sf.DeltaMethod(inner, moments=_moments), GAUSSIAN),
    "DeltaMethodBits": (lambda inner: sf.DeltaMethod(inner, 1), BITS),
    "QuadraticSurrogate": (
        lambda inner: sf.QuadraticSurrogate(
            inner, jnp.array(1.5), jnp.array(-0.7), moments=_moments
        ),
        GAUSSIAN,
    ),
    "MinibatchControlVariate": (_minibatch, GAUSSIAN),
    "Stratified": (lambda inner: sf.Stratified(inner, _quantile), GAUSSIAN),
    "QuasiMonteCarlo": (lambda inner: sf.QuasiMonteCarlo(inner, _quantile), GAUSSIAN),
    "SampleStatistic": (
        lambda inner: sf.SampleStatistic(inner, lambda costs: jnp.mean(costs, 0)),
        (*BITS, *GAUSSIAN, "categorical", "category"),
    ),
}
PAIRS = [
    pytest.param(wrap, entry, kind, id=f"{name}({entry.name})-{kind}")
    for name, (wrap, kinds) in WRAPPERS.items()
    for entry in ENTRIES
    for kind in kinds
    if kind in entry.kinds
]
REFUSED = re.compile(
    "makes its own draws|needs independent draws|the costs of single draws|one sample each"
    "|first order only"
)


@pytest.mark.parametrize(("wrap", "entry", "kind"), PAIRS if SWEPT else PAIRS[4::12])
def test_a_wrapped_estimator_is_unbiased_or_refused(
    wrap: Callable[[sf.Estimator], sf.Estimator], entry: Entry, kind: str
) -> None:
    """|z| < 7.5 over 4096 keys: some 700 means, if normal, fail with chance 5e-11."""
    p: Problem = problem(kind)
    try:
        estimator = wrap(entry.build(p))
        loss, flat = loss_of(p, estimator, num_samples=min(entry.at_most, 4))
        jax.eval_shape(jax.grad(loss), flat, jax.random.key(0))
    except TypeError as error:
        assert REFUSED.search(str(error)), error  # noqa: PT017
        return
    keys = jax.random.split(jax.random.key(5), 4096)
    batched = jax.value_and_grad(loss)
    found = fast(
        lambda flat, keys: jax.lax.map(lambda key: batched(flat, key), keys, batch_size=256)
    )(flat, keys)
    found = np.column_stack(found)
    assert np.all(np.isfinite(found))
    if estimator.unbiased:
        total = lambda q: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(p.expected(q)))  # noqa: E731
        exact = np.concatenate([np.ravel(part) for part in derivatives(total, p.params, 1)])
        error = found.std(0) / np.sqrt(len(found)) + 1e-11
        assert np.all(np.abs(found.mean(0) - exact) < 7.5 * error)
