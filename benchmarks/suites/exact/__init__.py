"""The suite `exact`."""
