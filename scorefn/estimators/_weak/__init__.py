"""Weak derivatives: one coordinate of the draw is replaced."""
