"""Calls of other packages, where they are installed."""
