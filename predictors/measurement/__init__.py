"""Measure the joules of one model: protocol, windows, worker process, records."""
