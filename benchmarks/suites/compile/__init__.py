"""The suite `compile`."""
