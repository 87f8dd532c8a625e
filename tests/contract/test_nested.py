"""Every wrapper around every estimator: unbiased, declared to be biased, or refused by name.

A landing is checked with some of the pairs; ``SWEEP=1`` tries all of them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import derivatives
from support.matrix import SWEPT
from support.registry import ENTRIES, WRAPPERS, Entry, problem
from support.transformations import Loss, fast, loss_of

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

SCHEMES = {"Antithetic", "AntitheticBits", "Stratified", "Sobol"}
DEPENDENT = {"leave_one_out", "shrunk", "optimal", "ImportanceWeighted", "SelfNormalized"}
DEPENDENT |= {"Statistic", "StatisticPath"}
SINGLE = {"leave_one_out", "constant", "moving_average", "shrunk", "learned", "optimal", "pathwise"}
# What each wrapper refuses, and how it says so.
REFUSED = {
    "Antithetic": [(SCHEMES, "makes its own draws")],
    "AntitheticBits": [(SCHEMES, "makes its own draws")],
    "Stratified": [(SCHEMES, "makes its own draws"), (DEPENDENT, "needs independent draws")],
    "Sobol": [(SCHEMES, "makes its own draws"), (DEPENDENT, "needs independent draws")],
    "FittedCV": [
        ({"leave_one_out", "optimal", "ARMS", "DoubleCV", "RODEO", "Statistic"}, "one sample each"),
        ({"FittedCV"}, "one sample each"),
        ({"MeasureValued", "GO"}, "first order only"),
    ],
    "Statistic": [({entry.name for entry in ENTRIES} - SINGLE, "the costs of single draws")],
}
PAIRS = [
    pytest.param(name, entry, kind, id=f"{name}({entry.name})-{kind}")
    for name, (_, kinds) in WRAPPERS.items()
    for entry in ENTRIES
    for kind in kinds
    if kind in entry.kinds
]


@pytest.mark.parametrize(("name", "entry", "kind"), PAIRS if SWEPT else PAIRS[4::12])
def test_a_wrapped_estimator_is_unbiased_or_refused(name: str, entry: Entry, kind: str) -> None:
    """|z| < 7.5 over 2**18 keys: some 700 means, if normal, fail with chance 5e-11.

    A bias of 2 % of the value of a control variate is found.
    """
    p = problem(kind)
    wrap, _ = WRAPPERS[name]

    def traced() -> tuple[Any, Loss, jax.Array]:
        estimator = wrap(p, entry.build(p))
        loss, flat = loss_of(p, estimator, num_samples=min(entry.at_most, 4))
        jax.eval_shape(jax.grad(loss), flat, jax.random.key(0))
        return estimator, loss, flat

    for names, message in REFUSED.get(name, []):
        if entry.name in names:
            with pytest.raises(TypeError, match=message):
                traced()
            return
    estimator, loss, flat = traced()
    both = jax.value_and_grad(loss)
    keys = jax.random.split(jax.random.key(5), 2**18)
    each = lambda flat: jax.lax.map(lambda key: both(flat, key), keys, batch_size=2**14)  # noqa: E731
    found = np.column_stack(fast(each)(flat))
    assert np.all(np.isfinite(found))
    if estimator.unbiased:
        total = lambda q: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(p.expected(q)))  # noqa: E731
        exact = np.concatenate([np.ravel(part) for part in derivatives(total, p.params, 1)])
        error = found.std(0) / np.sqrt(len(found)) + 1e-11
        assert np.all(np.abs(found.mean(0) - exact) < 7.5 * error)
