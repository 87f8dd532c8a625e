"""The variance benchmark, on a loss of the user's own."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.checks import check_count, check_key
from scorefn._core.types import PyTree

from .bias import exact, mean_of, most_precise
from .comparison import Comparison
from .evaluations import evaluations
from .measuring import compiled, long_run, measured, planned
from .programs import directions
from .progress import bar
from .row import ranked
from .rows import failed, measured_rows


def compare(
    loss: Callable[[PyTree, jax.Array, Any], jax.Array],
    estimators: Mapping[str, Any],
    params: PyTree,
    key: jax.Array,
    *,
    num_repeats: int,
    max_seconds: float | None = None,
    reference: PyTree | str | None = None,
    reference_repeats: int | None = None,
    chunk_size: int | None = None,
    stop_early: bool = True,
    alpha: float = 1e-3,
    tolerance: float = 0.1,
    progress: bool = True,
) -> Comparison:
    """Variance, time, bias and signal of ``jax.grad(loss)`` with each estimator, side by side.

    .. code-block:: text

        ranked by   variance x time of one gradient: what is left of the variance after a second

    The variance is summed over all components, its standard error that of the squared distance
    to the mean. Every estimator sees the same keys: a row does not depend on which others there
    are, and ratios of variances are sharper than the variances. Times are medians of rounds in
    which the estimators take turns in random order: gradients one after the other, jitted.

    It stops early when every pair of estimators is in order, or is known to be equal within
    `tolerance`. The chance of an error in this is at most alpha over all pairs and all looks
    together: look k may spend ``alpha / (k (k + 1))``, half of it on the variances, whose
    log-ratios are taken for normal, half on the times, by order statistics. No pair is settled
    while one repeat makes more than 5% of a variance; tails so heavy that even that was not seen
    yet can deceive it, as they deceive every estimate of a variance. And an estimator that showed
    no variance is taken at its word: n repeats miss an event of probability p with (1 - p)^n.

    Compiles two programs for each estimator and a small one to count evaluations of f. Memory does
    not grow with `num_repeats`: `chunk_size` gradients, and their mean in double precision.

    Args:
        loss: ``loss(params, key, estimator) -> scalar``, as one that calls `expectation`.
        estimators: by name, what is handed to the loss: estimators, or any values that it makes
            use of, as pairs of an estimator and a number of samples. Arrays in them are traced,
            everything else is static.
        params: a pytree of float arrays, to differentiate in and to measure at.
        key: one random key. It is consumed.
        num_repeats: at most so many gradients of each, at least 2; rounded up to whole batches of
            256 or, if there are less, to whole chunks.
        max_seconds: no batch begins after so many seconds, compilation not counted. None is no
            limit.
        reference: what biases are measured against: the exact gradient, a pytree like params; or
            the name of one of the estimators, as one that enumerates. None takes the row with the
            least variance of those that do not say they are biased.
        reference_repeats: with a name: its mean over so many repeats with keys of their own, a
            long run. None takes its mean over the repeats that are compared.
        chunk_size: gradients at a time, under one vmap. None keeps them below 16 MiB, and 256.
        stop_early: whether it stops when the ranking is settled.
        alpha: the chance that any pair is settled the wrong way; and the chance that any bias is
            found where there is none. For normal means; see above.
        tolerance: works that differ by less count as equal.
        progress: shows a bar, if tqdm is installed and stderr is a terminal.

    Returns:
        A `Comparison`. An estimator that raises, as `Pathwise` on a discrete draw, is a row with
        its error.

    Raises:
        TypeError, ValueError: an argument does not fit.
        Exception: whatever the first estimator raised, if all of them did.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key, estimator):
        ...     f = lambda b: jnp.sum(b - 0.45) ** 2
        ...     return sf.expectation(f, sf.Bernoulli(logits), key, estimator, num_samples=8)
        >>> estimators = {"loo": sf.ScoreFunction(sf.LeaveOneOut()), "DisARM": sf.DisARM()}
        >>> found = sf.compare(loss, estimators, jnp.ones(3), jax.random.key(0), num_repeats=512)
        >>> found["DisARM"].variance < found["loo"].variance
        True

    References:
        Glynn and Whitt, The asymptotic efficiency of simulation estimators (1992), on variance x
        time; Lan and DeMets, Discrete sequential boundaries for clinical trials (1983), on looks.
    """
    params = jax.tree.map(jnp.asarray, params)
    run_key, reference_key, count_key = jax.random.split(check_key(key), 3)
    _check(estimators, params, reference, reference_repeats)
    plan = planned(
        *(params, num_repeats, chunk_size),
        max_seconds=max_seconds,
        stop_early=stop_early,
        alpha=alpha,
        tolerance=tolerance,
    )
    signs = directions(params)
    with bar(num_repeats, shown=progress) as shown:
        programs, errors = compiled(loss, estimators, params, signs, count_key, plan, shown)
        if reference in errors if isinstance(reference, str) else not programs:
            raise errors[reference] if isinstance(reference, str) else next(iter(errors.values()))
        counts = {n: evaluations(loss, params, count_key, estimators[n]) for n in programs}
        found = measured(programs, params, signs, run_key, plan, shown)
        if reference is None:
            against = most_precise(found.moments, estimators)
        elif not isinstance(reference, str):
            against = exact(found.moments, reference)
        elif reference_repeats is None:
            against = mean_of(found.moments, reference, same_draws=True)
        else:
            shown.set_description(f"reference {reference}")
            alone = {reference: programs[reference]}
            run = long_run(alone, params, signs, reference_key, plan, reference_repeats)
            against = mean_of(run, reference, same_draws=False)
    rows = measured_rows(found, estimators, counts, against, alpha=alpha)
    rows += [failed(name, estimators[name], error) for name, error in errors.items()]
    names = found.moments.names
    device = jax.devices()[0]
    return Comparison(
        rows=ranked(rows),
        open_pairs=tuple((names[a], names[b]) for a, b in found.open_pairs),
        stopped=found.stopped,
        looks=found.looks,
        alpha=alpha,
        tolerance=tolerance,
        reference=None if against is None else against.name,
        reference_named=reference is not None,
        device=f"{device.platform}: {device.device_kind}",
    )


def _check(
    estimators: Mapping[str, Any],
    params: PyTree,
    reference: PyTree | str | None,
    reference_repeats: int | None,
) -> None:
    is_mapping = isinstance(estimators, Mapping) and estimators
    if not is_mapping or not all(isinstance(name, str) for name in estimators):
        raise TypeError(
            f"estimators must be a dict from names to estimators, as {{'loo': "
            f"ScoreFunction(LeaveOneOut())}}, got {estimators!r}."
        )
    if reference_repeats is not None:
        check_count("reference_repeats", reference_repeats, at_least=2)
        if not isinstance(reference, str):
            raise TypeError(
                "reference_repeats is for a reference that is run, the name of an estimator; "
                f"got reference={reference!r}."
            )
    if isinstance(reference, str):
        if reference not in estimators:
            raise ValueError(
                f"reference must be one of {', '.join(estimators)}, or an exact gradient; "
                f"got {reference!r}."
            )
    elif reference is not None:
        got, asked = (jax.tree.map(jnp.shape, tree) for tree in (reference, params))
        if got != asked:
            raise ValueError(
                f"reference must be a pytree of shapes {asked}, like params; got {got}."
            )
