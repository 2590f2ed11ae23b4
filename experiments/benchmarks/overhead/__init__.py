"""Trials a second through the driver, next to Ray Tune as it comes."""
