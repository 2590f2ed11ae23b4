"""Recordings and keyword classification."""
