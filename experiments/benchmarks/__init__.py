"""Benchmarks by what they measure: each prints its tables, and keeps them on request."""
