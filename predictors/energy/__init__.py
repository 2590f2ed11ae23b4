"""Energy predictors learned from measured records."""
