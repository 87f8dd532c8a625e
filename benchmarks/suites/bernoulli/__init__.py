"""The suite `bernoulli`."""
