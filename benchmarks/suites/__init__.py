"""The suites: one folder each, which imports no other suite."""
