"""The estimators, one family a file."""

from ._estimator import Estimator as Estimator
from .enumerate import Enumerate as Enumerate
from .pathwise import Pathwise as Pathwise
from .score_function import ScoreFunction as ScoreFunction
