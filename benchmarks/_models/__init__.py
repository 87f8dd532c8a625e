"""Models that several suites train."""
