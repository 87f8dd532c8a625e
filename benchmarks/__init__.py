"""Measurements of scorefn's estimators: variance, time and bias, beside exact values.

``python -m benchmarks`` runs the suites that take little time, resumes what was interrupted, and
writes json, csv and PNG to ``benchmarks/output``, which git ignores; ``python -m benchmarks all``
runs all suites. With ``--update`` the files go to ``benchmarks/results``, which are committed, and
the report in ``docs/results`` and the tables in the documents are made from them; ``python -m
benchmarks report`` does only the latter. Columns of every suite:

- ``estimator``, ``evaluations``: its name, and evaluations of f for one gradient.
- ``unbiased``: whether the estimator claims to be.
- ``variance``: of one gradient, summed over the components of the parameter, in the square of the
  gradient's units: the mean of d^2, d the distance of one gradient to the exact mean. Its standard
  error ``variance_se`` is sqrt(Var(d^2) / repeats), and so a matter of the fourth moment, plus
  what float32 rounds.
- ``exact_variance``: from a formula or quadrature, empty where none is known; ``variance_z`` is
  (variance - exact_variance) / variance_se. For heavy-tailed gradients the sample's own fourth
  moment is too small when the variance is, which skews this z to the negative side.
- ``bias_z``: (mean - exact gradient) / standard error of the mean; of several components the one
  of largest absolute value.
- ``time_us``: microseconds for one gradient in a jitted loop, each computed whole, the median of
  rounds in which all estimators take turns in random order; ``variance_x_time`` is
  ``variance * time_us``. The suite peers takes 2000 at once.
"""
