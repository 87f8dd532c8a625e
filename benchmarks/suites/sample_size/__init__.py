"""The suite `sample_size`."""
