"""Programs of several random choices, written as generators or as a scan."""

from ._forward_recursion import forward_recursion as forward_recursion
from ._markov_chain import MarkovChain as MarkovChain
from ._program import program as program
from ._requests import cost as cost
from ._requests import sample as sample
from ._resample import resample as resample
from ._rollout import rollout as rollout
