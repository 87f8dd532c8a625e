"""The suite `speed`."""
