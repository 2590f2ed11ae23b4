"""Runtimes that serve networks: one file each that converts a network, loads it and calls it."""
