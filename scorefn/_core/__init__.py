"""Basic helpers: checks, arrays, pytrees and derivative rules."""
