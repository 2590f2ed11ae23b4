"""Datasets with train, validation and test splits kept apart."""
