"""Estimators for discrete draws."""
