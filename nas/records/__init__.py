"""Frozen records of a search: its configuration, its objectives, trials and devices."""
