"""Estimators made from another estimator: what they inherit."""

from collections.abc import Iterator

from ._estimator import Estimator


class Transformation(Estimator):
    """An estimator around another one, whose facts are those of the one inside.

    Attributes:
        estimator: the one inside.
    """

    estimator: Estimator

    @property
    def unbiased(self) -> bool:  # type: ignore[override]
        """As the estimator inside."""
        return self.estimator.unbiased

    @property
    def order(self) -> float:  # type: ignore[override]
        """As the estimator inside."""
        return self.estimator.order

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        """As the estimator inside."""
        return self.estimator.coupled

    @property
    def differentiates_f(self) -> bool:  # type: ignore[override]
        """As the estimator inside."""
        return self.estimator.differentiates_f


def nested(estimator: Estimator) -> Iterator[Estimator]:
    """The estimator and those inside it, one in the other."""
    yield estimator
    if isinstance(estimator, Transformation):
        yield from nested(estimator.estimator)
