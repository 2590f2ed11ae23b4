"""Joules of a checkpoint: what is measured of it, on which inputs, and the table of precisions."""
