"""The suite `vi`."""
