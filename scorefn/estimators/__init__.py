"""The estimators, one family a file."""

from ._estimator import Estimator as Estimator
from .binary import ARM as ARM
from .binary import ARMS as ARMS
from .binary import BitFlip as BitFlip
from .binary import DisARM as DisARM
from .enumerate import Enumerate as Enumerate
from .pathwise import Pathwise as Pathwise
from .score_function import ScoreFunction as ScoreFunction
