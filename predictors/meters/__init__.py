"""Meters: one file per source of joules, all behind the protocol in ``base``."""
