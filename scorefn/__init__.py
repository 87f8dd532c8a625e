"""Differentiable-estimator primitives for JAX: gradients through an expectation."""

from ._baselines import Baseline as Baseline
from ._baselines import ConstantBaseline as ConstantBaseline
from ._baselines import LearnedBaseline as LearnedBaseline
from ._baselines import LeaveOneOut as LeaveOneOut
from ._baselines import MovingAverage as MovingAverage
from ._baselines import OptimalBaseline as OptimalBaseline
from ._checks import check_score as check_score
from ._checks import check_unbiased as check_unbiased
from ._distribution import Distribution as Distribution
from ._expectation import differentiable as differentiable
from ._expectation import expectation as expectation
from ._factors import Bernoulli as Bernoulli
from ._factors import Categorical as Categorical
from ._factors import OneHotCategorical as OneHotCategorical
from ._moments import moments as moments
from ._score import attach_score as attach_score
from ._score import leave_one_out as leave_one_out
from .estimators import ARM as ARM
from .estimators import ARMS as ARMS
from .estimators import BitFlip as BitFlip
from .estimators import CoupledCategorical as CoupledCategorical
from .estimators import DisARM as DisARM
from .estimators import Enumerate as Enumerate
from .estimators import Estimator as Estimator
from .estimators import LocalExpectation as LocalExpectation
from .estimators import Pathwise as Pathwise
from .estimators import ScoreFunction as ScoreFunction
from .estimators import StochasticSumAndSample as StochasticSumAndSample
from .estimators import SumAndSample as SumAndSample
from .estimators import UnorderedSet as UnorderedSet

__version__ = "0.1.0"
from ._deterministic import Deterministic as Deterministic
from .estimators import SPSA as SPSA
from .estimators import EvolutionStrategies as EvolutionStrategies
from .estimators import ForwardGradient as ForwardGradient
from .estimators import GumbelRao as GumbelRao
from .estimators import GumbelSoftmax as GumbelSoftmax
from .estimators import ImportanceWeighted as ImportanceWeighted
from .estimators import RankedEvolutionStrategies as RankedEvolutionStrategies
from .estimators import ReinMax as ReinMax
from .estimators import SelfNormalised as SelfNormalised
from .estimators import StraightThrough as StraightThrough
from .estimators import StraightThroughGumbelSoftmax as StraightThroughGumbelSoftmax
