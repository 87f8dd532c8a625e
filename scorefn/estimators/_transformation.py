"""Estimators made from another estimator: what they inherit."""

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
    def differentiates_f(self) -> bool:  # type: ignore[override]
        """As the estimator inside."""
        return self.estimator.differentiates_f
