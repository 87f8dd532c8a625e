"""Several random choices in one program: by yield, or many of them in one scan."""

from ._choice import cost as cost
from ._choice import sample as sample
from ._program import program as program
from ._rollout import rollout as rollout
