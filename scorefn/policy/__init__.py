"""Policy gradients: pure functions of log-probabilities and rewards that return losses.

Losses are to be minimized. Arguments and results are arrays [..., T], with time last unless
``axis`` says otherwise; only `reduce` reduces. Log-probabilities are in nats, of the actions or
tokens that were drawn. There are two masks, booleans or integers 0 and 1: ``where`` is True where a
step exists, ``acted`` where the policy chose. Masked elements may hold any value, including nan.
Shapes that do not match raise while tracing instead of being broadcast. All computations use
float32 at least, so that a ratio of bfloat16 log-probabilities has their precision. Advantages, old
and reference log-probabilities are data: no derivative passes through them. For a group of samples,
`scorefn.leave_one_out` is the recommended baseline.
"""

from ._best_of import best_of as best_of
from ._diagnostics import approximate_divergence as approximate_divergence
from ._diagnostics import clip_fraction as clip_fraction
from ._diagnostics import effective_sample_size as effective_sample_size
from ._kl import kl_estimate as kl_estimate
from ._ratio import importance_weight as importance_weight
from ._ratio import log_ratio as log_ratio
from ._recurrence import next_value as next_value
from ._recurrence import reverse_recurrence as reverse_recurrence
from ._reduce import reduce as reduce
from ._reduce import total as total
from ._reduce import whiten as whiten
from ._surrogates import clipped_surrogate as clipped_surrogate
from ._surrogates import score_surrogate as score_surrogate
from ._surrogates import weighted_surrogate as weighted_surrogate
from ._time import discount_weight as discount_weight
from ._time import gae as gae
from ._time import lambda_returns as lambda_returns
from ._time import n_step_returns as n_step_returns
from ._time import returns as returns
from ._values import SquashedNormal as SquashedNormal
from ._values import clipped_value_loss as clipped_value_loss
from ._vocabulary import divergence as divergence
from ._vocabulary import entropy as entropy
from ._vtrace import VTrace as VTrace
from ._vtrace import vtrace as vtrace
