"""Weak derivatives: differences of costs with one coordinate of the draw replaced."""
