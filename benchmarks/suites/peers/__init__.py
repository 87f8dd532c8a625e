"""The suite `peers`."""
