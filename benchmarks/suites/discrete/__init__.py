"""The suite `discrete`."""
