"""Meters: one file per way to read joules, all behind the protocol in ``base``."""
