"""The suite `gaussian`."""
