"""Estimators that perturb the parameters or the draw and never differentiate f."""
