"""Estimators that relax a discrete draw."""
