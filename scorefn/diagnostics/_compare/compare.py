"""The variance benchmark, on a loss of the user's own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.checks import check_count, check_key
from scorefn._core.types import PyTree

from .bias import Reference, mean_of, reference_in
from .comparison import Comparison
from .experiment import BATCH, CHUNK_NUMBERS, Experiment, Plan, progress_bar
from .row import failed, measured_rows, ranked


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

        ranked by   variance x time of one gradient: the variance of the mean of all gradients
                    that are computed in a microsecond

    The variance is summed over all components, its standard error that of the squared distance
    to the mean. Every estimator sees the same keys: a row does not depend on which others there
    are, and ratios of variances are sharper than the variances. Times are medians of rounds in
    which the estimators take turns in random order: gradients one after the other, jitted.

    It stops early when every pair of estimators is in order, or is known to be equal within
    `tolerance`. The chance of an error in this is at most alpha over all pairs and all looks
    together: look k may spend ``alpha / (k (k + 1))``, half of it on the variances, whose
    log-ratios are taken for normal, half on the times, by order statistics. No pair is settled
    while one repeat makes more than 5% of a variance; tails so heavy that no such repeat was seen
    yet can deceive it, as they deceive every estimate of a variance. And an estimator that showed
    no variance counts as one without any: n repeats miss an event of probability p with (1 - p)^n.

    Ctrl-C while it measures ends it after the batch in hand: it returns what it has, and says that
    it was interrupted. A second Ctrl-C raises KeyboardInterrupt, as one during compilation does.

    Compiles two programs for each estimator and a small one to count evaluations of f. Memory does
    not grow with `num_repeats`: `chunk_size` gradients, and their mean in double precision.

    Args:
        loss: ``loss(params, key, estimator) -> scalar``, as one that calls `expectation`.
        estimators: what the loss is called with, by name: estimators, or any values that the loss
            uses, for example pairs of an estimator and a number of samples. Arrays in them are
            traced, everything else is static.
        params: a pytree of float arrays, at which gradients in all of them are measured.
        key: one random key. It is consumed.
        num_repeats: at most so many gradients of each, at least 2: whole batches of 256, or, if it
            is less, one batch.
        max_seconds: for the whole call, tracing and compilation included; None is no limit. A
            compilation or a batch begins only if, by the times of those before, it ends in time;
            batches are smaller if few would fit. Estimators that cannot be compiled in time are
            rows with a TimeoutError, which is raised if there are no others. What has begun is
            never interrupted: the call is late by as much as its last compilation or batch took
            longer than expected. Of the first program no time is known: if its compilation alone
            takes longer than the limit, the call takes as long as that.
        reference: the gradient that biases are measured against: the exact gradient, a pytree like
            params; or the name of one of the estimators, for example of one that enumerates. None
            takes the row of least variance among those that do not say that they are biased.
        reference_repeats: with a name: at most so many repeats, with keys of their own, whose mean
            is the reference, and at most half of the time left. None takes the mean over the
            repeats that are compared.
        chunk_size: at most so many gradients under one vmap. None keeps them below 16 MiB, and 256.
        stop_early: whether it stops when the ranking is settled.
        alpha: the chance that any pair is settled the wrong way; and the chance that any bias is
            found where there is none. For normal means; see above.
        tolerance: values of variance x time that differ by a smaller part than this count as equal.
        progress: shows a bar, if tqdm is installed and stderr is a terminal. It first says how many
            programs are compiled: three for each estimator, each of them once.

    Returns:
        A `Comparison`. An estimator that raises, for example `Pathwise` on a discrete draw, is a
        row with its error.

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
    begin = time.perf_counter()
    params = jax.tree.map(jnp.asarray, params)
    run_key, reference_key, count_key = jax.random.split(check_key(key), 3)
    _check(estimators, params, reference, reference_repeats)
    plan = Plan(
        num_repeats=check_count("num_repeats", num_repeats, at_least=2),
        max_seconds=math.inf if max_seconds is None else max_seconds,
        chunk_size=_small_chunk(params) if chunk_size is None else chunk_size,
        stop_early=stop_early,
        alpha=alpha,
        tolerance=tolerance,
        begin=begin,
    )
    named = reference if isinstance(reference, str) else None
    long_run: Reference | None = None
    with progress_bar(num_repeats, shown=progress) as bar:
        experiment = Experiment(loss, estimators, params, plan, bar)
        experiment.compile(count_key, first=named)
        errors = experiment.errors
        if named in errors or not experiment.gradients:
            raise errors[named or next(iter(errors))]
        with experiment.interruptible():
            if named is not None and reference_repeats is not None:
                run = experiment.long_run(named, reference_key, reference_repeats)
                long_run = mean_of(run, named, same_draws=False)
            found = experiment.measure(run_key)
    against = long_run or reference_in(found.moments, reference, estimators)
    rows = measured_rows(found, estimators, against, alpha=alpha)
    rows += [failed(name, estimators[name], error) for name, error in errors.items()]
    names, device = found.moments.names, jax.devices()[0]
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


def _small_chunk(params: PyTree) -> int:
    components = sum(leaf.size for leaf in jax.tree.leaves(params))
    return max(1, min(BATCH, CHUNK_NUMBERS // max(components, 1)))


def _check(
    estimators: Mapping[str, Any],
    params: PyTree,
    reference: PyTree | str | None,
    reference_repeats: int | None,
) -> None:
    is_mapping = isinstance(estimators, Mapping) and estimators
    if not is_mapping or not all(isinstance(name, str) for name in estimators):
        raise TypeError(
            f"estimators must be a dict from names to estimators, for example {{'loo': "
            f"ScoreFunction(LeaveOneOut())}}, got {estimators!r}."
        )
    leaves = jax.tree.leaves(params)
    if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        got = ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves) or "no arrays"
        raise TypeError(
            f"params must be a pytree of float arrays, at least one, with respect to which the "
            f"loss is differentiated; got {got}."
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
