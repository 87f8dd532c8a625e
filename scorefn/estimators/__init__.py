"""Estimators of the derivative of an expectation, one package per family."""

from ._base import Estimator as Estimator
from ._black_box.evolution_strategies import EvolutionStrategies as EvolutionStrategies
from ._black_box.evolution_strategies import RankedEvolutionStrategies as RankedEvolutionStrategies
from ._black_box.gradient_free import SPSA as SPSA
from ._black_box.gradient_free import ForwardGradient as ForwardGradient
from ._control_variates.control_variate import ControlVariate as ControlVariate
from ._control_variates.control_variate import FittedControlVariate as FittedControlVariate
from ._control_variates.delta_method import DeltaMethod as DeltaMethod
from ._control_variates.minibatch_control_variate import DatumSurrogates as DatumSurrogates
from ._control_variates.minibatch_control_variate import (
    MinibatchControlVariate as MinibatchControlVariate,
)
from ._control_variates.quadratic_surrogate import QuadraticSurrogate as QuadraticSurrogate
from ._discrete.binary import ARM as ARM
from ._discrete.binary import ARMS as ARMS
from ._discrete.binary import BitFlip as BitFlip
from ._discrete.binary import DisARM as DisARM
from ._discrete.coupled_categorical import CoupledCategorical as CoupledCategorical
from ._discrete.double_cv import DoubleCV as DoubleCV
from ._discrete.local_expectation import LocalExpectation as LocalExpectation
from ._discrete.rodeo import RODEO as RODEO
from ._discrete.sum_and_sample import StochasticSumAndSample as StochasticSumAndSample
from ._discrete.sum_and_sample import SumAndSample as SumAndSample
from ._discrete.unordered_set import UnorderedSet as UnorderedSet
from ._enumerate import Enumerate as Enumerate
from ._importance import ImportanceWeighted as ImportanceWeighted
from ._importance import SelfNormalised as SelfNormalised
from ._importance import SelfNormalized as SelfNormalized
from ._pathwise import Pathwise as Pathwise
from ._relaxed.gumbel_softmax import GumbelRao as GumbelRao
from ._relaxed.gumbel_softmax import GumbelSoftmax as GumbelSoftmax
from ._relaxed.gumbel_softmax import StraightThroughGumbelSoftmax as StraightThroughGumbelSoftmax
from ._relaxed.lax import LAX as LAX
from ._relaxed.rebar import REBAR as REBAR
from ._relaxed.rebar import RELAX as RELAX
from ._relaxed.straight_through import ReinMax as ReinMax
from ._relaxed.straight_through import StraightThrough as StraightThrough
from ._sample_statistic import SampleStatistic as SampleStatistic
from ._sampling_schemes.antithetic import Antithetic as Antithetic
from ._sampling_schemes.quasi_monte_carlo import QuasiMonteCarlo as QuasiMonteCarlo
from ._sampling_schemes.stratified import Stratified as Stratified
from ._score_function import ScoreFunction as ScoreFunction
from ._weak.go import GO as GO
from ._weak.measure_valued import MeasureValued as MeasureValued
