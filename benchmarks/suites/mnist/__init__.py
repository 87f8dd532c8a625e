"""The suite `mnist`."""
