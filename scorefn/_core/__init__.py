"""The ground floor: checks, arrays, pytrees and derivative rules."""
