"""Results of the benchmarks, one JSON file each, and the code that keeps and shows them.

A file is named THEME_HARDWARE_DATE.json and holds its tables with the command, configuration,
machine and versions that they came of. ``python -m experiments.results`` lists and prints them.
"""
