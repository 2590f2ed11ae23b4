"""Measuring campaigns: plans, and slices of them that fit the time at hand."""
