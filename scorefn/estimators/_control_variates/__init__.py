"""Control variates around any estimator."""
