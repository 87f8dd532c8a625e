"""The comparison of estimators on a loss of the user's own."""
