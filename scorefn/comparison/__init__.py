"""Estimators side by side on a loss of the user's own."""

from ._compare import compare as compare
from ._comparison import Comparison as Comparison
