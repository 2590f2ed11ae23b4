"""Calibration: joules of untrained architectures, measured before candidates are chosen."""
