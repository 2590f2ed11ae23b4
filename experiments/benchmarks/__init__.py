"""Comparisons side by side in one process, printed as tables of ratios."""
