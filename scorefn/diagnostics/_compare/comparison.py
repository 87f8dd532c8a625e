"""The result of a comparison: rows to print, draw and write to files."""

import math
import os
import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from .display import WIDTH, optional, plot, table
from .files import to_csv, to_json, write
from .ranking import LARGEST_SHARE
from .row import Row


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`, which prints as a table, the best estimator first.

    In the table, *±* is the standard error of the variance, relative to it; *(b)* marks an
    estimator that says it is biased; *bias* is relative to the gradient, where it is significant.

    Attributes:
        rows: one for each estimator, by variance x time; a `Row` has the fields ``estimator``,
            ``unbiased``, ``evaluations``, ``repeats``, ``variance``, ``variance_se``,
            ``largest_share``, ``time_us``, ``time_us_se``, ``variance_x_time``, ``snr``, ``bias``,
            ``relative_bias``, ``bias_z``, ``bias_found``, ``error``.
        open_pairs: the pairs of names whose order is not settled.
        stopped: why it ended: ``"settled"``, ``"num_repeats"``, ``"max_seconds"`` or
            ``"interrupted"``, by Ctrl-C.
        looks: how often it was tested whether the ranking is settled.
        alpha: the chance that any pair is settled in the wrong order, or that any bias is found
            where there is none.
        tolerance: values of variance x time that differ by a smaller part than this count as equal.
        reference: the name of the estimator against which biases are measured; ``"exact"`` for a
            gradient that was given; None if there was nothing to measure against.
        reference_named: whether the caller named it. Otherwise it is the row of least variance
            among those that do not say that they are biased.
        device: the device on which it ran.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key, estimator):
        ...     f = lambda b: jnp.sum(b - 0.45) ** 2
        ...     return sf.expectation(f, sf.Bernoulli(logits), key, estimator, num_samples=2)
        >>> estimators = {"all": sf.Enumerate(), "DisARM": sf.DisARM()}
        >>> found = sf.compare(loss, estimators, jnp.zeros(3), jax.random.key(0), num_repeats=512)
        >>> found["all"].evaluations, found["DisARM"].evaluations, found.best(max_evaluations=4)
        (8, 4, 'DisARM')
    """

    rows: tuple[Row, ...]
    open_pairs: tuple[tuple[str, str], ...]
    stopped: str
    looks: int
    alpha: float
    tolerance: float
    reference: str | None
    reference_named: bool
    device: str

    def __getitem__(self, name: str) -> Row:
        """The row of that estimator."""
        found = {row.estimator: row for row in self.rows}
        if name not in found:
            raise KeyError(f"there is no estimator {name!r}; there are {', '.join(found)}")
        return found[name]

    @property
    def settled(self) -> bool:
        """Whether the order of all estimators that were measured is settled."""
        return not self.open_pairs

    def best(
        self, *, max_evaluations: float | None = None, max_seconds: float | None = None
    ) -> str:
        """The name of the best unbiased estimator.

        Without a budget, the one of least variance x time. With a budget, the one of least variance
        of the mean of as many gradients as fit; for a small budget this may be another one, because
        only whole gradients count. No estimator is returned that says it is biased, or whose bias
        was found.

        Args:
            max_evaluations: of f, for one step.
            max_seconds: for one step. With both, both must hold.

        Raises:
            ValueError: there is none; or estimators that say they are unbiased disagree, and no
                reference says which is right.
        """
        if self.reference is not None and not self.reference_named:
            self._agree()
        fit = [row for row in self.rows if row.is_finite and row.unbiased is not False]
        fit = [row for row in fit if not row.bias_found]
        if not fit:
            raise ValueError(f"no estimator is finite and unbiased:\n{self}")
        if max_evaluations is None and max_seconds is None:
            return fit[0].estimator
        left = [row.left(evaluations=max_evaluations, seconds=max_seconds) for row in fit]
        if math.isinf(min(left)):
            bounds = {"evaluations of f": max_evaluations, "seconds": max_seconds}
            budget = " and ".join(f"{n:g} {of}" for of, n in bounds.items() if n is not None)
            raise ValueError(
                f"no unbiased estimator is known to fit a budget of {budget} for a step:\n{self}"
            )
        return fit[left.index(min(left))].estimator

    def _agree(self) -> None:
        others = [row.estimator for row in self.rows if row.unbiased and row.bias_found]
        if others:
            raise ValueError(
                f"{', '.join(others)} and {self.reference} have different means, though they say "
                f"that they are unbiased: one of them is wrong for this loss. Give reference=, the "
                f"exact gradient or the name of one that is right."
            )

    def __str__(self) -> str:
        repeats = max(row.repeats for row in self.rows)
        notes = [f"{repeats} gradients each, on {self.device}.", self._order()]
        if self.stopped == "interrupted":
            notes.insert(0, "Interrupted.")
        if self.reference is not None:
            notes.append(f"Bias against {self.reference}.")
        if any(row.unbiased is False for row in self.rows):
            notes.append("(b): it says that it is biased.")
        heavy = [row.estimator for row in self.rows if row.largest_share > LARGEST_SHARE]
        if heavy:
            notes.append(f"Heavy tails, variance not known: {', '.join(heavy)}.")
        return f"{table(self.rows)}\n\n{textwrap.fill(' '.join(notes), WIDTH)}"

    def _order(self) -> str:
        if sum(row.is_finite for row in self.rows) < 2:
            return "There is nothing to rank."
        if self.settled:
            return "Ranking settled."
        one, other = self.open_pairs[0]
        count = len(self.open_pairs)
        others = f", and {count - 1} more" if count > 1 else ""
        return f"Order not settled: {one} or {other}{others}."

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Writes all fields; the file is always whole. nan and infinity become null."""
        write(path, to_json(asdict(self)))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes the rows; the file is always whole."""
        write(path, to_csv([asdict(row) for row in self.rows]))

    def to_pandas(self) -> Any:
        """The rows as a ``pandas.DataFrame``, indexed by the names.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = optional("pandas", "Comparison.to_pandas")
        return pandas.DataFrame([asdict(row) for row in self.rows]).set_index("estimator")

    def plot(self, ax: Any = None) -> Any:
        """Draws variance x time of each estimator, with bars of 3 standard errors.

        Args:
            ax: a matplotlib ``Axes``; None makes a figure of the right height.

        Returns:
            The ``Axes``.

        Raises:
            ImportError: matplotlib is not installed.
        """
        return plot(self.rows, ax)
