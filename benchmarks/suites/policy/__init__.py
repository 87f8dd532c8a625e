"""The suite `policy`."""
