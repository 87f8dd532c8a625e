"""The suite `posteriors`."""
