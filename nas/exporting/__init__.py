"""Artifacts that run elsewhere, verified in a fresh process."""
