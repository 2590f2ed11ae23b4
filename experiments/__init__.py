"""Declared runs that give the headline tables."""
