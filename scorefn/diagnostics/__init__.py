"""Diagnostics: checks of gradients and scores, moments of gradients, comparisons."""

from ._checks import check_score as check_score
from ._checks import check_unbiased as check_unbiased
from ._compare.compare import compare as compare
from ._compare.comparison import Comparison as Comparison
from ._moments import moments as moments
from ._snr import GradientSNR as GradientSNR
from ._squared_gradient import squared_gradient as squared_gradient
