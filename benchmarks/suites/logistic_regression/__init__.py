"""The suite `logistic_regression`."""
