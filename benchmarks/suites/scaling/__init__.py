"""The suite `scaling`."""
