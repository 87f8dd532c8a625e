"""Sampling schemes around any estimator."""
