"""Estimators made from another estimator: what they inherit."""

from typing import Any

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


def check_estimator(name: str, estimator: Any) -> None:
    """Raises ``TypeError`` unless it is an instance of an estimator."""
    if isinstance(estimator, type):
        raise TypeError(
            f"{name} wraps an instance of an estimator, got the class {estimator.__name__}; write "
            f"{estimator.__name__}()."
        )
    if not isinstance(estimator, Estimator):
        raise TypeError(f"{name} wraps an Estimator, as Pathwise(), got {estimator!r}.")
