"""Joules, duration, memory and quality in each runtime, and what converters refuse."""
