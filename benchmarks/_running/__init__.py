"""Runs suites: progress, resuming, and files that are written when all is done."""
